"""How protections are taken out: patches of the process in which tests run.

Nothing of the product is imported before a patch is applied.
"""

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TakeOut = Callable[[pytest.MonkeyPatch], object]


def set_to(target: str, value: Any) -> TakeOut:
    """Return what puts a value in the place of a function or constant."""
    return lambda patch: patch.setattr(target, value)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""
    return None


async def no_wait(*args: Any, **kwargs: Any) -> None:
    """Wait for nothing."""
    return None


async def true(*args: Any, **kwargs: Any) -> bool:
    """Claim that it is so."""
    return True


async def false(*args: Any, **kwargs: Any) -> bool:
    """Claim that it is not so."""
    return False


def read_at_once(store: Any, keys: list[bytes]) -> Any:
    """Read rows without those of a commit under way."""
    return store._database.get(keys)


def without_cap(patch: pytest.MonkeyPatch) -> None:
    """Let a user tell an item of any number of events; in plain Python, which is not compiled."""
    from tracker.users import apply

    patch.setattr(apply, "_apply", apply._apply.py_func)  # type: ignore[attr-defined]
    patch.setattr(apply, "flag_of_item", lambda *_: 0)


def without_order(patch: pytest.MonkeyPatch) -> None:
    """Take each event for the newest of its user; in plain Python, which is not compiled."""
    from tracker.users import apply

    patch.setattr(apply, "_apply", apply._apply.py_func)  # type: ignore[attr-defined]
    patch.setattr(apply, "is_late", lambda *_: False)


def without_memory_of_ids(patch: pytest.MonkeyPatch) -> None:
    """Find no event by its id; in plain Python, which is not compiled."""
    from tracker.users import apply

    patch.setattr(apply, "_apply", apply._apply.py_func)  # type: ignore[attr-defined]
    patch.setattr(apply, "find_event", lambda *_: -1)


def without_catalogue(patch: pytest.MonkeyPatch) -> None:
    """Fill no list up with items of the catalogue."""
    from tracker.recommend import candidates
    from tracker.recommend.channels import CHANNEL

    merge = candidates.merge

    def shorter(*arguments: Any) -> None:
        merge(*arguments)
        found = arguments[-1]
        for b in range(len(found.rows)):
            filled = (found.channels[b, : found.n_rows[b]] == CHANNEL.default).nonzero()[0]
            if len(filled):
                found.n_rows[b] = found.n_unseen[b] = filled[0]
                found.rows[b, filled[0] :] = -1

    patch.setattr(candidates, "merge", shorter)


def newer_as_damaged(patch: pytest.MonkeyPatch) -> None:
    """Take rows of a newer version for damaged ones."""
    from tracker.kernels.row_bytes import readable_rows

    def careless(keys: Any, rows: Any, problem_of: Any, *more: Any) -> Any:
        def problem(row: bytes) -> str | None:
            found: str | None = problem_of(row)
            return "damaged" if found == "newer" else found

        return readable_rows(keys, rows, problem, *more)

    for module in ("tracker.users.rows", "tracker.items.rows"):
        patch.setattr(f"{module}.readable_rows", careless)


def any_variable(patch: pytest.MonkeyPatch) -> None:
    """Pass over variables that are no settings."""
    from tracker import settings

    load = settings.load_settings

    def careless(environ: Any = None, **more: Any) -> Any:
        known = {f"{settings.PREFIX}{name.upper()}" for name in settings.Settings.model_fields}
        given = environ or {}
        return load({name: text for name, text in given.items() if name in known}, **more)

    patch.setattr(settings, "load_settings", careless)


def any_cleanup(patch: pytest.MonkeyPatch) -> None:
    """Take each topic for a compacted one."""
    from tracker.kafka import topics

    read = topics._config

    async def compacted(*arguments: Any) -> Any:
        return {**await read(*arguments), "cleanup.policy": "compact"}

    patch.setattr(topics, "_config", compacted)


def pseudonyms_as_ids(patch: pytest.MonkeyPatch) -> None:
    """Let events name users by their pseudonyms."""
    from tracker.kafka.pseudonyms import Pseudonyms

    def of_all(names: Any, user_ids: Any) -> list[str]:
        return [names.of_any(user_id) for user_id in user_ids]

    patch.setattr(Pseudonyms, "of_all", of_all)


def careless_with_secrets(patch: pytest.MonkeyPatch) -> None:
    """Show what URLs say of passwords, and take whatever a file holds."""
    patch.setattr("tracker.explained._SECRETS", re.compile("(?!)"))
    patch.setattr("tracker.settings._secret_text", lambda variable, path, *_: path.read_text())


async def no_rights(*args: Any) -> list[Any]:
    """Miss no right."""
    return []


def without_asking(patch: pytest.MonkeyPatch) -> None:
    """Begin what a command does without asking for its rights."""
    from tracker.cli.shared import run_to_end

    def run(settings: Any, role: str, work: Any, of: str = "") -> Any:
        return run_to_end(work())

    for module in ("look", "operate"):
        patch.setattr(f"tracker.cli.{module}.run_as", run)


class _Unfenced:
    async def stop(self) -> None:
        pass


async def unfenced(*args: Any) -> _Unfenced:
    """Fence nobody."""
    return _Unfenced()


def unclipped(patch: pytest.MonkeyPatch) -> None:
    """Let each gradient be as long as it is."""
    from opacus.optimizers import DPOptimizer

    clip = DPOptimizer.clip_and_accumulate

    def keep_whole(optimizer: Any) -> None:
        most, optimizer.max_grad_norm = optimizer.max_grad_norm, 1e30
        clip(optimizer)
        optimizer.max_grad_norm = most

    patch.setattr(DPOptimizer, "clip_and_accumulate", keep_whole)


def own_ids(patch: pytest.MonkeyPatch) -> None:
    """Give each producer a transactional id of its own, so that nobody is fenced."""
    from aiokafka import AIOKafkaProducer

    def unlike(**arguments: Any) -> Any:
        if "transactional_id" in arguments:
            arguments["transactional_id"] += f"-{uuid.uuid4()}"
        return AIOKafkaProducer(**arguments)

    patch.setattr("tracker.kafka.producers.AIOKafkaProducer", unlike)


def commit_whatever_failed(patch: pytest.MonkeyPatch) -> None:
    """Commit a transaction of which a part could not be written."""
    from aiokafka import AIOKafkaProducer

    patch.setattr(AIOKafkaProducer, "abort_transaction", AIOKafkaProducer.commit_transaction)


def new_list_ids(patch: pytest.MonkeyPatch) -> None:
    """Give each list an id of its own, also if it is sent again."""
    from tracker.recommend.list_json import ListEncoder

    encode = ListEncoder.encode

    def unlike(encoder: Any, batch: Any, artifact: str, ids: Any, *more: Any) -> Any:
        return encode(encoder, batch, artifact, [f"{one}-{uuid.uuid4()}" for one in ids], *more)

    patch.setattr(ListEncoder, "encode", unlike)


def all_fresh(patch: pytest.MonkeyPatch) -> None:
    """Apply every event, also those that their users' rows have."""
    import numpy as np

    from tracker.stream.user_side import UserSide

    patch.setattr(UserSide, "_fresh", lambda side, batch: np.ones(len(batch), np.bool_))


def any_artifact(patch: pytest.MonkeyPatch) -> None:
    """Read rows of artifacts that are not loaded yet."""
    from tracker.users.states import ANY_ARTIFACT, UserStates

    check = UserStates._check
    patch.setattr(
        UserStates,
        "_check",
        lambda states, words, offsets, _: check(states, words, offsets, ANY_ARTIFACT),
    )


def unchecked_files(patch: pytest.MonkeyPatch) -> None:
    """Load an artifact whatever its files hold."""
    from tracker.artifact.manifest import LAYOUT
    from tracker.artifact.versions import local_copy

    def find(root: Any, manifest: Any, cache: Path | None = None) -> Path:
        return local_copy(root, manifest.version, [LAYOUT.manifest, *manifest.files], cache)

    patch.setattr("tracker.artifact.artifact.verify", find)


def unbounded_posts(patch: pytest.MonkeyPatch) -> None:
    """Forget how many bytes wait for Kafka, before each request."""
    from tracker.api.sending import Sending

    send = Sending.events

    async def unbounded(sending: Any, call: Any) -> Any:
        sending._waiting_bytes = 0
        return await send(sending, call)

    patch.setattr(Sending, "events", unbounded)


def ids_in_logs(patch: pytest.MonkeyPatch) -> None:
    """Let the log have ids by default."""
    from tracker.settings import Settings

    patch.setattr(Settings.model_fields["log_user_ids"], "default", True)
    Settings.model_rebuild(force=True)


def open_folders(patch: pytest.MonkeyPatch) -> None:
    """Make folders that everybody can read."""
    make = Path.mkdir

    def open_to_all(path: Path, mode: int = 0o777, **more: Any) -> None:
        make(path, 0o755, **more)

    patch.setattr(Path, "mkdir", open_to_all)


class NeverReached(int):
    """A bound that no number reaches."""

    def __le__(self, other: int) -> bool:
        """Return whether the other number has reached it."""
        return False
