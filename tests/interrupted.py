"""A training in a process of its own, which can be killed after its first epoch.

`python -m tests.interrupted ITEMS EVENTS ROOT [wait]`; with `wait` it stands still after that
epoch, when the checkpoint is written, and says so.
"""

import sys
import time
from pathlib import Path

import msgspec

from indexer.data.catalog import read_items
from indexer.encoder.options import TowerOptions
from indexer.train import ranker as train_ranker
from indexer.train.options import TrainOptions, TrainProgress
from indexer.train.train import train
from tests.catalogs import WordEncoder
from tracker.events.kinds import Kinds


def main(items: str, events: str, root: str, wait: bool) -> None:
    def told(name: str, line: msgspec.Struct) -> None:
        if wait and name == "encoder":
            sys.stdout.write("an epoch is done\n")
            sys.stdout.flush()
            time.sleep(600)

    train_ranker.CUT_STEPS = 20
    options = TrainOptions(tower=TowerOptions(dim=16, epochs=3, device="cpu", tries=1))
    done = train(
        read_items([Path(items)]), [Path(events)], Kinds.default(), WordEncoder(width=96), root,
        options, 4e9, TrainProgress(epoch=told),
    )  # fmt: skip
    sys.stdout.write(msgspec.json.encode(done).decode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:] == ["wait"])
