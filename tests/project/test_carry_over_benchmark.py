"""The benchmark of carried states, on a world in which the ring holds everything."""

from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks.carry_over import compare
from tests.logs import group_artifact, group_events, read_events


def test_a_swap_keeps_what_the_rings_hold_and_changes_nothing_by_itself(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events())
    first, again, other = (group_artifact() for _ in range(3))
    second = replace(
        other, manifest=msgspec.structs.replace(other.manifest, basis="another", version="2")
    )
    report = compare(log, first, second, again, repeats=False, met_only=False)
    assert report["without_a_refit"]["rebuilt"] == 0
    assert report["without_a_refit"]["lists_changed"] == 0
    assert report["with_a_refit"]["rebuilt"] == report["with_a_refit"]["users"] == 20
    hits = report["all"]["hit_rate_at_10"]
    assert hits["after_swap"] == hits["after_replay"] > 0.0
    assert report["right_after"]["targets"] == report["all"]["targets"] == 24
