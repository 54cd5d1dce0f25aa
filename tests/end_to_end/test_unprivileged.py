"""A worker as in a container: a user without rights, and program folders that cannot be written."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.steps import send_lines
from tests.end_to_end.test_security import list_of
from tests.paths import ROOT
from tests.shop import START, build_shop, shop_settings
from tracker.demo.local import until_ready, worker_environment
from tracker.demo.processes import ChildProcess
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event
from tracker.kafka.topics import ensure_topics

pytestmark = [pytest.mark.long, pytest.mark.timeout(500)]

USER = "10001"
"""As in deploy/Dockerfile."""


def as_nobody(*command: str) -> list[str]:
    """Return a command that drops the user, all capabilities and the right to get any back."""
    return [
        "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all",
        "--bounding-set=-all", "--no-new-privs", *command,
    ]  # fmt: skip


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that everybody can come by, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root")
def test_worker_needs_no_rights_and_writes_to_its_data_and_caches_alone(
    tansu: str, prefix: str, open_folder: Path
) -> None:
    build_shop(open_folder / "artifacts")
    for name in ("data", "kernels"):
        (open_folder / name).mkdir()
        os.chown(open_folder / name, int(USER), int(USER))
    settings = shop_settings(
        tansu, prefix, open_folder, data_dir=open_folder / "data" / "state",
        commit_interval_seconds=0.2,
    )  # fmt: skip
    environment = worker_environment(settings) | {
        "NUMBA_CACHE_DIR": str(open_folder / "kernels"), "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    probe = f"import os, sys; sys.exit(os.access({str(ROOT / 'tracker')!r}, os.W_OK))"
    refused = ChildProcess(
        "a probe", as_nobody(sys.executable, "-c", probe), open_folder / "probe.log", environment
    )
    assert refused.wait(30) == 0

    async def go() -> None:
        await ensure_topics(settings)
        line = Line("1", encode_event(Event("ada", "i1", "like", START)))
        command = as_nobody(sys.executable, "-m", "tracker", "worker")
        log = open_folder / "worker.log"
        with ChildProcess("tracker worker", command, log, environment, cwd=Path("/")) as worker:
            await until_ready(worker, settings, seconds=400.0)
            await send_lines(settings, [line])
            await list_of(settings, "ada", worker)
            assert worker.stop(30) == 0
        assert "Traceback" not in log.read_text()

    asyncio.run(go())
    owners = {path.stat().st_uid for path in (open_folder / "data").rglob("*")}
    assert owners == {int(USER)}
    assert (open_folder / "data" / "state").stat().st_mode & 0o077 == 0
