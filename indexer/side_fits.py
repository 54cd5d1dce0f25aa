"""Fits of encoders in processes of their own, beside the one that is watched."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encoder_learner import EncoderOptions
from indexer.encoder_scores import Items
from indexer.sequences import Sequences
from indexer.train_encoder import Epoch, Fitted, fit_encoder
from indexer.trend import Trend
from tracker.user_encoder import EncoderConfig

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

    def take_up(self) -> Fitted:
        """Go on from what is done, to the end; at once where all is."""
        return fit_encoder(
            self.sequences, self.items, self.config, self.train, self.validation, self.options,
            device=self.device, trend=self.trend, checkpoint=self.checkpoint,
        )  # fmt: skip


@contextmanager
def side_fits(fits: Sequence[Fit], processes: int) -> Iterator[None]:
    """Do fits in other processes, while what is within is done; then wait for them.

    This process keeps one thread of torch meanwhile, as each of them has. A process that fails
    says why, and leaves what it had done: whoever takes a fit up goes on from there. They end with
    this process, and when what is within fails.

    Args:
        fits: what to do.
        processes: how many at once, at most.
    """
    if not fits:
        yield
        return
    spawn = multiprocessing.get_context("spawn")
    shares = [list(fits[number::processes]) for number in range(min(processes, len(fits)))]
    workers = [spawn.Process(target=_do, args=(share,), daemon=True) for share in shares]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for worker in workers:
        worker.start()
    try:
        yield
        for worker in workers:
            worker.join()
    finally:
        torch.set_num_threads(threads)
        for worker in workers:
            worker.terminate()
            worker.join(_PATIENCE)


def _do(fits: Sequence[Fit]) -> None:
    """Do fits one after another; what Ctrl-C means the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    for fit in fits:
        fit_encoder(
            fit.sequences, fit.items, fit.config, fit.train, fit.validation, fit.options,
            device=fit.device, trend=fit.trend, checkpoint=fit.checkpoint, told=_end_with_parent,
        )  # fmt: skip


def _end_with_parent(epoch: Epoch) -> None:
    """End this process where the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit(f"ended after epoch {epoch.epoch}: the training that wanted it is gone")
