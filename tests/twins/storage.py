"""A storage element in memory, as the hospital's port and as an HTTP server; it can be dead, slow, deaf or lie."""

from __future__ import annotations

import contextlib
import re

import trio

from mdmfs.hospital.storage.port import BrokenOffError, Content, StorageError
from mdmfs.wire.stream import Address


class TwinElement:
    """``StorageElement``, and what it keeps."""

    def __init__(self, name: str = "tier1", padding: int = 0) -> None:
        self.name = name
        self.padding = padding
        self.kept: dict[str, bytes] = {}
        self.is_dead = False
        self.is_deaf = False
        """Says yes to a deletion, and keeps the object."""
        self.is_odd = False
        """Fails as nobody foresaw."""
        self.is_late = False
        """Has what it is given, says nothing, and keeps it only when it ``wakes``."""
        self.coming: dict[str, bytes] = {}
        self.puts = 0
        self.cut = 0
        """So many bytes of each object are lost when it is put."""
        self.signed = 0

    def put(self, name: str, content: Content, length: int) -> None:
        """Keep it."""
        self.puts += 1
        self._refuse()
        octets = b"".join(content())
        assert len(octets) == length
        if self.is_late:
            self.coming[name] = octets
            message = f"storage {self.name} does not answer in time"
            raise BrokenOffError(message)
        self.kept[name] = octets[: length - self.cut]

    def wake(self) -> None:
        """Keep what came long ago."""
        self.is_late = False
        self.kept |= self.coming
        self.coming = {}

    def size(self, name: str) -> int | None:
        """Tell its size."""
        self._refuse()
        return len(self.kept[name]) if name in self.kept else None

    def delete(self, name: str) -> None:
        """Forget it."""
        self._refuse()
        if not self.is_deaf:
            self.kept.pop(name, None)

    def turl(self, name: str, seconds: float) -> str:
        """Sign it, each time otherwise."""
        self.signed += 1
        return f"http://{self.name}.example.org/{name}?until={seconds:g}&n={self.signed}"

    def surl(self, name: str) -> str:
        """Name it."""
        return f"s3://{self.name}/{name}"

    def _refuse(self) -> None:
        if self.is_dead:
            message = f"storage {self.name} does not answer"
            raise StorageError(message)
        if self.is_odd:
            raise ZeroDivisionError


class Served:
    """A storage element's HTTP face on loopback: objects by path, and what shall go wrong with every answer."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[bytes] = []
        """The request lines."""
        self.ranges: list[bytes] = []
        self.connections = 0
        self.fault = ""
        """``cut``, ``short``, ``stalls``, ``silent``, ``forbidden``, ``tiny``, ``rubbish``, or nothing."""
        self.address = Address("127.0.0.1", 0)

    def url(self, name: str) -> str:
        """Where an object is."""
        return f"http://{self.address}/{name}?signature=of-somebody"

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = Address("127.0.0.1", listeners[0].socket.getsockname()[1])
        task_status.started()
        await trio.serve_listeners(self._converse, listeners)

    async def _converse(self, stream: trio.SocketStream) -> None:
        received = b""
        self.connections += 1
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                while b"\r\n\r\n" not in received:
                    if not (some := await stream.receive_some()):
                        return
                    received += some
                head, _, received = received.partition(b"\r\n\r\n")
                if not await self._answer(stream, head):
                    await stream.aclose()
                    return

    async def _answer(self, stream: trio.SocketStream, head: bytes) -> bool:
        """Answer one request; False where the connection ends with it."""
        line = head.split(b"\r\n")[0]
        self.asked.append(line)
        path = line.split(b" ")[1].decode().partition("?")[0].rpartition("/")[2]
        octets = self.kept.get(path)
        if self.fault == "silent":
            await trio.sleep_forever()
        if self.fault == "rubbish":
            await stream.send_all(b"what?\r\n\r\n")
            return False
        if octets is None or self.fault == "forbidden":
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return True
        asked = re.search(rb"\r\nrange: bytes=(\d+)-(\d+)", head, re.IGNORECASE)
        status, more, total = b"200 OK", b"", len(octets)
        if asked is not None:
            self.ranges.append(asked[0])
            status, begin, end = b"206 Partial Content", int(asked[1]), int(asked[2]) + 1
            octets = octets[begin:end]
            more = b"content-range: bytes %d-%d/%d\r\n" % (begin, end - 1, total)
        if self.fault == "tiny":
            octets = octets[:10]
        if self.fault == "short":
            octets = octets[:-1]
        await stream.send_all(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n%s\r\n" % (status, len(octets), more))
        if self.fault in {"cut", "stalls"}:
            await stream.send_all(octets[: len(octets) // 2])
            if self.fault == "stalls":
                await trio.sleep_forever()
            return False
        await stream.send_all(octets)
        return True
