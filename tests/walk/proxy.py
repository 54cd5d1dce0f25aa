"""A TCP proxy before a broker, which can be slow, forget connections, and reset them."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

from tracker.demo.processes import free_port

CHUNK = 1 << 16


class Proxy:
    """Forwards connections to a port of this machine, in a thread of its own.

    Attributes:
        port: on which it listens.
        delay: seconds by which each piece from a client is held back.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.target = free_port()
        self.delay = 0.0
        self._silent: set[int] = set()
        self._pairs: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> "Proxy":
        """Listen."""
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections."""
        self.reset()
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def forget(self) -> int:
        """Pass nothing on any more in the connections that are open; return their number."""
        self._silent.update(self._pairs)
        return len(self._silent)

    def reset(self) -> int:
        """Reset all open connections; return their number."""
        count: int = self._do(self._reset())
        return count

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30.0)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _reset(self) -> int:
        pairs = list(self._pairs.values())
        for pair in pairs:
            for writer in pair:
                connection = writer.get_extra_info("socket")
                with contextlib.suppress(OSError, AttributeError):
                    linger = struct.pack("ii", 1, 0)  # a close sends a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
        return len(pairs)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        number = id(writer)
        self._pairs[number] = (writer, to_broker)
        try:
            await asyncio.gather(
                self._pass(number, reader, to_broker, True),
                self._pass(number, from_broker, writer, False),
            )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._pairs[number]
            self._silent.discard(number)
            for side in (writer, to_broker):
                side.close()

    async def _pass(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_client: bool,
    ) -> None:
        while data := await reader.read(CHUNK):
            if number in self._silent:
                continue
            if from_client and self.delay:
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has ended")
