"""Caches that texts from outside cannot fill beyond their bytes."""

import math
import tracemalloc

from tracker.events.text_caches import TextCaches

BOUND = 2_000_000


def test_bytes_that_made_up_texts_take_stay_below_the_bound() -> None:
    caches = TextCaches(BOUND)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(30_000):
        text = f"{n:08x}" + "x" * (n % 250)
        caches.add_item(text, n + 2**60)
        caches.add_scene(text, n + 2**20)
        caches.add_weight(text, n + 0.5, (n + 0.25, n, n + 0.5))
    highest = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert 0 < caches.bytes <= BOUND
    assert len(caches.items) > 100
    # A dict that was cleared keeps nothing; one that grows is twice there for a moment.
    assert highest < 1.5 * BOUND


def test_ids_of_items_do_not_drop_scenes() -> None:
    caches = TextCaches(20_000)
    caches.add_scene("home", 7)
    for n in range(1000):
        caches.add_item(f"i{n}", n)
    assert caches.scenes["home"] == 7
    assert caches.scene_names == {7: "home"}
    assert "i999" in caches.items
    assert len(caches.items) < 100


def test_value_that_is_no_number_is_not_kept() -> None:
    caches = TextCaches()
    caches.add_weight("view", math.nan, (1.0, 1, math.nan))
    assert caches.weights == {}
