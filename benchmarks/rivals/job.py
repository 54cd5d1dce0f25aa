"""The rivals' share of the job: five decayed sums a user, a search, ten items as JSON.

It is less than the tracker does (no slots, no ring, no reasons, no trend, no item side): what a
good engineer would write in an afternoon, vectorised with numpy, with FAISS and msgspec.
"""

import os
from pathlib import Path

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

HALF_LIVES_SECONDS = np.array([600.0, 1800.0, 86400.0, 604800.0, 5184000.0], np.float64)
SHARES = np.array([0.3, 0.25, 0.2, 0.15, 0.1], np.float32)
K = 10


class Event(msgspec.Struct):
    """The event as the benchmark sends it."""

    user_id: str
    item_id: str
    kind: str
    timestamp: float


class Job:
    """The catalogue and its index, from the folder that the benchmark prepared."""

    def __init__(self) -> None:
        folder = Path(os.environ["BENCH_FOLDER"])
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(folder / "index.faiss"))
        self.vectors: NDArray[np.float32] = np.load(folder / "vectors.npy", mmap_mode="r")
        self.ids: list[str] = msgspec.json.decode((folder / "ids.json").read_bytes())
        self.rows = {item_id: row for row, item_id in enumerate(self.ids)}
        self.dim = self.vectors.shape[1]

    def update(
        self, sums: NDArray[np.float32], time: float, event: Event
    ) -> tuple[NDArray[np.float32], float]:
        """Return the sums (5, D) after the event, and their reference time in seconds."""
        row = self.rows.get(event.item_id)
        elapsed = max(0.0, event.timestamp - time)
        sums = sums * np.exp2(-elapsed / HALF_LIVES_SECONDS)[:, None].astype(np.float32)
        if row is not None:
            sums += self.vectors[row]
        return sums, max(time, event.timestamp)

    def search(self, queries: NDArray[np.float32]) -> list[list[dict[str, object]]]:
        """Return the ten nearest items to each query (B, D), as they go into a list."""
        scores, rows = self.index.search(queries, K)
        return [
            [
                {"item_id": self.ids[row], "score": score}
                for row, score in zip(near, high, strict=True)
                if row >= 0
            ]
            for near, high in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def recommend(self, user_id: str, sums: NDArray[np.float32]) -> dict[str, object]:
        """Return the ten nearest items to the weighted mean of the sums."""
        query = SHARES @ sums
        query /= np.linalg.norm(query) + 1e-9
        return {"user_id": user_id, "items": self.search(query[None])[0]}
