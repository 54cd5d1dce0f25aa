"""Fits of encoders in processes of their own, beside the one that is watched."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoder.fit import Fitted, fit_encoder
from indexer.encoder.learner import EncoderOptions
from indexer.encoder.scores import Items
from indexer.encoder.sequences import Sequences
from indexer.encoder.trend import Trend
from tracker.encoder.user_encoder import EncoderConfig

_PATIENCE = 5.0
"""Seconds that a process told to stop may take."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit_encoder` is told; what is done of it is in the file `checkpoint`."""

    sequences: Sequences
    items: Items
    config: EncoderConfig
    train: NDArray[np.bool_]
    validation: NDArray[np.int64]
    options: EncoderOptions
    device: torch.device
    trend: Trend | None
    checkpoint: Path

    def resume(self) -> Fitted:
        """Go on from what is done, to the end; at once where all is."""
        return fit_encoder(
            self.sequences, self.items, self.config, self.train, self.validation, self.options,
            device=self.device, trend=self.trend, checkpoint=self.checkpoint,
        )  # fmt: skip


@contextmanager
def side_fits(
    fits: Sequence[Fit], processes: int, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Do fits in other processes, while what is within is done; then wait for them.

    This process keeps one thread of torch meanwhile, as each of them has. A process that fails
    says why, and leaves what it had done: whoever takes a fit up goes on from there. They end with
    this process, and when what is within fails. The main module is imported again by each: a
    script that trains has to keep its doings under `if __name__ == "__main__"`.

    Args:
        fits: what to do.
        processes: how many at once, at most.
        waiting: called when what is within is done, and they are not.
    """
    if not fits:
        yield
        return
    spawn = multiprocessing.get_context("spawn")
    shares = [list(fits[number::processes]) for number in range(min(processes, len(fits)))]
    workers = [spawn.Process(target=_do, args=(share,), daemon=True) for share in shares]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # A process takes its fits only when it has imported all; nobody is to wait for that.
    starter = Thread(target=_start, args=(workers,), daemon=True)
    starter.start()
    try:
        yield
        starter.join()
        if any(worker.is_alive() for worker in workers):
            waiting()
        for worker in workers:
            worker.join()
    finally:
        torch.set_num_threads(threads)
        starter.join()
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join(_PATIENCE)


def _start(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.start()


def _do(fits: Sequence[Fit]) -> None:
    """Do fits one after another; what Ctrl-C means the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()
    for fit in fits:
        fit.resume()


def _end_with_parent() -> None:
    """Wait for the process that started this one, and end this one when it is gone.

    A checkpoint is renamed into place, so that nothing is half written.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
