"""A forgotten user's id is in no byte of any compacted topic or database, after real compaction."""

from pathlib import Path

import pytest

from tests.erasure import erase


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_byte_of_a_forgotten_user_is_left_in_compacted_topics_and_databases(
    prefix: str, tmp_path: Path
) -> None:
    found = erase(tmp_path, prefix)
    assert all(place["files"] for places in found.values() for place in places)
