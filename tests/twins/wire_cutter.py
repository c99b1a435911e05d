"""A TCP relay that can fall silent: connections stay, and nothing passes, as when a firewall drops every packet.

It can also be slow: what comes back comes late.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator


class WireCutter:
    """Relays to one port on loopback."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._passing = threading.Event()
        self._passing.set()
        self.delay = 0.0
        """Seconds by which answers come late."""
        self.come_back = 0
        """Bytes that have been passed on from there."""
        self._cut_from = sys.maxsize
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._passing.clear()

    def cut_after(self, count: int) -> None:
        """Let so many bytes more come back, then nothing."""
        self._cut_from = self.come_back + count

    def let_on(self) -> None:
        """Let everything pass again, over the same connections."""
        self._cut_from = sys.maxsize
        self._passing.set()

    def mend(self) -> None:
        """Let new connections pass; the old ones are reset, as their peers would by now."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.let_on()

    def close(self) -> None:
        """Relay no more."""
        self._listening.close()
        self.mend()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(accepted,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        self._passing.wait()
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as far:
            self._open |= {near, far}
            back = threading.Thread(target=self._pump, args=(far, near, True), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()
            self._open -= {near, far}

    def _pump(self, source: socket.socket, target: socket.socket, comes_back: bool = False) -> None:  # noqa: FBT001, FBT002 a thread's arguments
        with contextlib.suppress(OSError):
            while octets := source.recv(2**16):
                if comes_back and self.come_back + len(octets) > self._cut_from:
                    self.cut()
                self._passing.wait()
                time.sleep(self.delay if comes_back else 0.0)
                target.sendall(octets)
                self.come_back += len(octets) if comes_back else 0
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire_cutter(port: int) -> Iterator[WireCutter]:
    """Relay for a block."""
    cutter = WireCutter(port)
    try:
        yield cutter
    finally:
        cutter.close()
