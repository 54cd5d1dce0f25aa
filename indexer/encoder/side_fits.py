"""Fits of encoders in other processes, here or elsewhere, next to the one that reports progress."""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoder.fit import Course, Fitted, fit_encoder
from indexer.encoder.learner import EncoderOptions, Trained
from indexer.encoder.scores import Items
from indexer.encoder.sequences import Sequences
from indexer.encoder.trend import Trend
from indexer.shards import Shards
from tracker.encoder.user_encoder import EncoderConfig
from tracker.files import new_file

_PATIENCE = 5.0
"""Seconds that a process may take to stop."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The arguments of one call of `fit_encoder`; its progress is in the file `checkpoint`."""

    sequences: Sequences
    items: Items
    config: EncoderConfig
    train: NDArray[np.bool_]
    validation: NDArray[np.int64]
    options: EncoderOptions
    device: torch.device
    trend: Trend | None
    checkpoint: Path
    until: float = math.inf
    start: Trained | None = None

    def resume(self) -> Fitted:
        """Run the fit from its checkpoint to the end; a finished one returns at once."""
        return fit_encoder(
            self.sequences, self.items, self.config, self.train, self.validation, self.options,
            device=self.device, trend=self.trend,
            course=Course(self.start, self.checkpoint, until=self.until),
        )  # fmt: skip


@contextmanager
def side_fits(
    fits: Sequence[Fit],
    processes: int,
    waiting: Callable[[], None] = lambda: None,
    shards: Shards | None = None,
) -> Iterator[None]:
    """Run fits in other processes during the `with` block, and wait for them at its end.

    Every process, this one too, uses one thread of torch meanwhile. If a process fails, it prints
    the error and leaves its checkpoint, and `Fit.resume` continues from there. A fit that
    is not begun when its time is over leaves none. The processes end with this process, and when
    the block fails. Each imports the main module again: a script that trains has to run under
    `if __name__ == "__main__"`.

    Args:
        fits: the fits.
        processes: number of processes at most.
        waiting: called when the block ends before they do.
        shards: what runs the fits instead, one each; here each leaves its checkpoint all the same.
    """
    if not fits:
        yield
        return
    if shards is not None:
        with _fits_on(shards, fits, waiting):
            yield
        return
    spawn = multiprocessing.get_context("spawn")
    shares = [list(fits[number::processes]) for number in range(min(processes, len(fits)))]
    workers = [spawn.Process(target=_do, args=(share,), daemon=True) for share in shares]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # A process takes its fits only when it has imported everything: do not wait for that.
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


class _Start(NamedTuple):
    """A fit for another machine: the checkpoint so far, None for none, and the seconds it has."""

    fit: Fit
    checkpoint: bytes | None
    seconds: float


@contextmanager
def _fits_on(shards: Shards, fits: Sequence[Fit], waiting: Callable[[], None]) -> Iterator[None]:
    """Run fits on shards during the `with` block, and write their checkpoints at its end."""
    threads, now = torch.get_num_threads(), time.monotonic()
    starts = [
        _Start(
            fit, fit.checkpoint.read_bytes() if fit.checkpoint.exists() else None, fit.until - now
        )
        for fit in fits
    ]
    torch.set_num_threads(1)
    try:
        checkpoints = shards.map(_resume_elsewhere, None, starts)
        yield
        waiting()
        for fit, checkpoint in zip(fits, checkpoints, strict=True):
            if checkpoint is not None:
                with new_file(fit.checkpoint) as file:
                    file.write_bytes(checkpoint)
    finally:
        torch.set_num_threads(threads)


def _resume_elsewhere(_: None, start: _Start) -> bytes | None:
    """Run a fit to its end in this process, and return its checkpoint; None if it has no epoch."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / start.fit.checkpoint.name
        if start.checkpoint is not None:
            path.write_bytes(start.checkpoint)
        until = time.monotonic() + start.seconds  # the clocks of machines differ
        replace(start.fit, checkpoint=path, until=until).resume()
        return path.read_bytes() if path.exists() else None


def _start(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.start()


def _do(fits: Sequence[Fit]) -> None:
    """Run fits one after another; the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()
    for fit in fits:
        # Even a fit whose time is over would do its first epoch, one fit after another.
        if fit.checkpoint.exists() or time.monotonic() < fit.until:
            fit.resume()


def _end_with_parent() -> None:
    """Wait for the process that started this one, and end this one when it is gone.

    A checkpoint is renamed into place, so that nothing is half written.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
