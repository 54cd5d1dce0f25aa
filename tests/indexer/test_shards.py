"""Parts of a computation on threads, and on a Ray cluster of this machine."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import click.testing
import pytest

from indexer.cli.main import main
from indexer.shards import ShardsError, Threads, ray_shards
from tests.paths import ROOT

has_ray = importlib.util.find_spec("ray") is not None


def double(common: int, part: int) -> tuple[int, str]:
    return common * part, threading.current_thread().name


def test_threads_give_results_in_the_order_of_the_parts() -> None:
    found = list(Threads(2).map(double, 10, [3, 1, 2]))
    assert [result for result, _ in found] == [30, 10, 20]
    assert all(name != threading.current_thread().name for _, name in found)
    assert list(Threads(2).map(double, 10, [])) == []


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.shards.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ShardsError, match="install the extra `ray` for --ray"), ray_shards("local"):
        pass


def test_a_gpu_and_a_cluster_are_not_asked_for_together(tmp_path: Path) -> None:
    words = ["build", str(tmp_path), "--out", str(tmp_path / "out"), "--ray", "local"]
    result = click.testing.CliRunner().invoke(main, [*words, "--device", "cuda"])
    assert result.exit_code == 1
    assert "--device cuda with --ray" in result.output


ON_RAY = """
import dataclasses, os, sys
from pathlib import Path

import numpy as np
import torch

from indexer.encoder.side_fits import side_fits
from indexer.items.item_encoder import ItemEncoder
from indexer.shards import ShardsError, ray_shards
from tests.indexer.encoder.test_side_fits import fit_of, weights
from tests.indexer.evaluate.test_ask_shards import compared_artifact, report
from tests.indexer.items.test_item_encoder import WORDS
from tests.indexer.test_shards import ended, of_process
from tests.logs import group_events, read_events
from tests.tiny_bert import make_bert

folder = Path(sys.argv[1])
(folder / "here").mkdir()
torch.set_num_threads(1)
with ray_shards("local") as shards:
    print(f"{shards.count} workers")
    found = list(shards.map(of_process, 10, [3, 1, 2, 5]))
    assert [result for result, _ in found] == [30, 10, 20, 50]
    assert os.getpid() not in {process for _, process in found}
    assert len({process for _, process in found}) == min(4, shards.count)
    for part, error in (("wrong", TypeError), (-1, ShardsError)):
        try:
            list(shards.map(ended, 1, [part]))
        except error as raised:
            print(type(raised).__name__)
        else:
            raise SystemExit(f"{part}: nothing was raised")
    log, artifact = read_events(folder, group_events()), compared_artifact()
    assert report(artifact, log, shards) == report(artifact, log)
    print("evaluated")
    make_bert(folder / "bert", WORDS, 16, layers=1, tokens=32)
    texts = [" ".join(WORDS[(n + k) % 6] for k in range(n % 7)) for n in range(40)]
    alone = ItemEncoder(str(folder / "bert"), "cpu", 4).encode(texts)
    assert (ItemEncoder(str(folder / "bert"), "cpu", 4, shards).encode(texts) == alone).all()
    print("encoded")
    fits = [fit_of(folder), fit_of(folder, "two")]
    with side_fits(fits, 1, shards=shards):
        here = fit_of(folder / "here").resume()
    assert all(weights(fit.resume()) == weights(here) for fit in fits)
    print("fitted")
"""


def of_process(common: int, part: int) -> tuple[int, int]:
    return common * part, os.getpid()


def ended(common: int, part: int) -> int:
    if part == -1:
        os._exit(1)
    return common + part


@pytest.mark.long
@pytest.mark.timeout(600)  # a minute on two idle cores; three starts where they are busy
@pytest.mark.skipif(not has_ray, reason="needs the extra ray")
def test_ray_gives_what_this_process_gives(tmp_path: Path) -> None:
    for attempt in range(3):  # a node of Ray has 15 s to start: too few where others compute too
        folder = tmp_path / str(attempt)
        folder.mkdir()
        command = [sys.executable, "-c", ON_RAY, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if "no Ray cluster at local: " not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    words = [line for line in done.stdout.splitlines() if " " not in line]
    assert words == ["TypeError", "ShardsError", "evaluated", "encoded", "fitted"]


@pytest.mark.training
@pytest.mark.skipif(not has_ray, reason="needs the extra ray")
def test_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text('{"item_id": "a", "title": "red cup"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "indexer", "build", str(items), "--out", str(tmp_path / "out"),
               "--ray", "127.0.0.1:1"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("indexer: no Ray cluster at 127.0.0.1:1: ")
