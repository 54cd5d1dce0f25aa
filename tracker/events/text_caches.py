"""Caches of what texts in events stand for, bounded in bytes for all readers of a process.

Ids, scenes and values come from outside and can be made up without end, so it is bytes that are
bounded and not entries, and for the process and not for a partition.
"""

import math
import threading
from sys import getsizeof

MAX_BYTES = 128 * 1024 * 1024
"""Bytes of all caches of a worker together: some 600,000 ids of items."""

ENTRY_BYTES = 136
"""Bytes of an entry besides its texts: its place in a dict, and a number of 64 bits."""

WEIGHT_BYTES = 320
"""Bytes of a kind with a value besides the kind's text: two tuples and four numbers."""

Weight = tuple[float, int, float]
"""Weight of a kind with a value, code of the kind, and the value as it counts."""


class TextCaches:
    """Hashes of items and scenes, names of scenes, and weights of kinds with values.

    Readers take from the dicts as they like and add by the methods. Beyond the bound all but a
    fraction is dropped, so a text that is common is soon there again.

    Args:
        max_bytes: of all dicts together.

    Attributes:
        items: hash by item id.
        scenes: code by scene.
        scene_names: scene by code.
        weights: weight by kind and value, of the kinds that all readers share.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.items: dict[str, int] = {}
        self.scenes: dict[str | None, int] = {None: 0, "": 0}
        self.scene_names: dict[int, str] = {}
        self.weights: dict[tuple[str, float | None], Weight] = {}
        # Scenes are few and their names are shown, so that made-up ids do not drop them.
        self._most = {"items": max_bytes // 2, "scenes": max_bytes // 4, "weights": max_bytes // 4}
        self._bytes = dict.fromkeys(self._most, 0)
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes of all entries."""
        return sum(self._bytes.values())

    def add_item(self, item_id: str, code: int) -> None:
        """Keep the hash of an item id."""
        with self._lock:
            if self._is_full("items", getsizeof(item_id) + ENTRY_BYTES):
                self.items.clear()
            self.items[item_id] = code

    def add_scene(self, scene: str | None, code: int) -> None:
        """Keep the code of a scene, and its name."""
        with self._lock:
            if self._is_full("scenes", getsizeof(scene) + 2 * ENTRY_BYTES):
                self.scenes.clear()
                self.scene_names.clear()
            self.scenes[scene] = code
            if scene:
                self.scene_names[code] = scene

    def add_weight(self, kind: str, value: float | None, weight: Weight) -> None:
        """Keep the weight of a kind with a value."""
        if value is not None and math.isnan(value):
            return  # it would never be found again
        with self._lock:
            if self._is_full("weights", getsizeof(kind) + WEIGHT_BYTES):
                self.weights.clear()
            self.weights[kind, value] = weight

    def _is_full(self, name: str, size: int) -> bool:
        """Count an entry; return whether all of its dict has to be dropped before."""
        self._bytes[name] += size
        if self._bytes[name] <= self._most[name]:
            return False
        self._bytes[name] = size
        return True
