"""Other processes: one that compiles beside the worker, one that checks a large new version."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import Manifest, place_of, read_manifest
from tracker.events.kinds import Kinds
from tracker.kernels.native import can_be_cached, is_cached
from tracker.recommend.candidates import merge
from tracker.settings import Settings
from tracker.stream.aside import call_aside
from tracker.stream.serving import copies_of, load_artifact, make_serving
from tracker.users.config import InterestConfig
from tracker.worker.warm_up import warm_up

log = logging.getLogger(__name__)

MOST_ITEMS = 200_000
"""Of larger artifacts no second copy is loaded for it: memory is worth more than seconds."""


LARGE_ITEMS = 50_000
"""A version of more items is loaded by another process first; that takes two seconds longer."""


async def check_aside(settings: Settings, version: str, kinds: Kinds) -> bool:
    """Load a large version in another process; return whether it is large.

    There it is copied, compared and checked, and its kernels are compiled. It can then be loaded as
    `checked`, which takes less than a second, and hardly needs the interpreter.

    Args:
        settings: of the worker.
        version: the new one.
        kinds: weights of kinds.

    Raises:
        ArtifactError, ValueError: it cannot be used.
        ProcessEndedError: the process was killed.
    """
    root, key = settings.artifacts, settings.artifact_public_key
    manifest = await asyncio.to_thread(read_manifest, root, version, key)
    if manifest.items <= LARGE_ITEMS:
        return False
    on_cpu = settings.model_copy(update={"index_device": "cpu", "device": "cpu"})
    await call_aside(_check, on_cpu, manifest, kinds)
    return True


def _check(settings: Settings, manifest: Manifest, kinds: Kinds) -> None:
    """Copy, load and warm up a version, with nothing left of it but its copy and the code."""
    place_of(settings.artifacts, manifest, copies_of(settings), slowly=True)
    _load_and_compile(settings, manifest.version, kinds)


def compile_kernels(settings: Settings) -> float:
    """Compile all that a worker with these settings needs, or load it; return the seconds.

    Raises:
        Explained: there is no artifact, or a file of the settings cannot be read.
    """
    started_at = time.monotonic()
    artifact = load_artifact(settings)
    kinds = kinds_of(settings, artifact.manifest.interest)
    with second_compiler(settings, artifact, kinds):
        warm_up(make_serving(artifact, settings), kinds, settings.k)
    return time.monotonic() - started_at


def kinds_of(settings: Settings, interest: InterestConfig) -> Kinds:
    """Return the kinds of events and their weights, by the settings and the artifact's scale."""
    return Kinds.of_settings(
        settings.kinds_file, settings.unknown_kinds, interest.rating_min, interest.rating_max
    )


@contextlib.contextmanager
def second_compiler(settings: Settings, artifact: Artifact, kinds: Kinds) -> Iterator[None]:
    """Compile in another process meanwhile, if there is something to compile and a core for it.

    It takes the parts of the warm-up in another order; who comes to a kernel second loads it from
    the cache. Nothing depends on it: it ends with the block, and if it fails, the worker compiles
    everything by itself.

    Args:
        settings: of the worker.
        artifact: the one in use; the other process loads it by its version.
        kinds: weights of kinds.
    """
    cores = len(os.sched_getaffinity(0))
    is_large = artifact.manifest.live > MOST_ITEMS
    if cores < 2 or is_large or not can_be_cached(merge) or is_cached(merge):
        yield
        return
    log.info("compiling in two processes")
    process = multiprocessing.get_context("spawn").Process(
        target=_compile, args=(settings, artifact.manifest.version, kinds), daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _compile(settings: Settings, version: str, kinds: Kinds) -> None:
    """Compile everything in the order of the second process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's matter
    with contextlib.suppress(Exception):  # the worker tells what is wrong, if it is its matter too
        _load_and_compile(settings, version, kinds, lists_first=True)


def _load_and_compile(
    settings: Settings, version: str, kinds: Kinds, lists_first: bool = False
) -> None:
    serving = make_serving(load_artifact(settings, version), settings)
    warm_up(serving, kinds, settings.k, lists_first)
