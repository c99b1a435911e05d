"""What a daemon tells its machine on a loopback port: metrics for Prometheus, and whether it lives and serves.

Off unless the configuration names an address. Each module declares its own metrics, named ``mdmfs_...``, on the
library's registry. Any user of the machine may read them, so a label is never a GUID, a DN or anything of a patient:
names of keystores and PACSs, routes, outcomes and kinds are.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from mdmfs.daemon.configuration import at_key
from mdmfs.daemon.supervision import Pulse
from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.stream import Address

MAX_ASKING: Final = 64
"""At once: any user of the machine may connect."""
_TEXT: Final = [("Content-Type", "text/plain; charset=utf-8")]
_WORDS: Final = {True: ("200 OK", b"ok\n"), False: ("503 Service Unavailable", b"no\n")}

Environ = dict[str, Any]
_Connected = socket.socket | tuple[bytes, socket.socket]
Respond = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


@contextlib.contextmanager
def serving_metrics(address: str, pulse: Pulse) -> Iterator[None]:
    """Answer at ``HOST:PORT``, a loopback address, from a thread while the block runs.

    ``/metrics`` is for Prometheus; ``/healthz`` is 200 while the event loop turns, ``/readyz`` while it serves, and
    both are 503 else. Does nothing where ``address`` is empty. Raises ``ConfigurationError``.
    """
    with at_key("metrics"):
        place = Address.parse_loopback(address)
    if place is None:
        yield
        return
    server = _open(place, pulse)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _open(address: Address, pulse: Pulse) -> WSGIServer:
    kind = _Server6 if ":" in address.host else _Server
    try:
        return make_server(address.host, address.port, _pages(pulse), server_class=kind, handler_class=_Quiet)
    except OSError as error:
        message = f"metrics cannot be served on {address}: {error.strerror}"
        raise ConfigurationError(message) from error


def _pages(pulse: Pulse) -> Respond:
    pages: Mapping[str, Respond] = {
        "/metrics": make_wsgi_app(),
        "/healthz": _telling(lambda: pulse.is_alive),
        "/readyz": _telling(lambda: pulse.is_ready),
    }

    def respond(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"])
        if page is not None:
            return page(environ, start_response)
        start_response("404 Not Found", _TEXT)
        return [b"there are /metrics, /healthz and /readyz\n"]

    return respond


def _telling(question: Callable[[], bool]) -> Respond:
    def respond(_: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, word = _WORDS[question()]
        start_response(status, _TEXT)
        return [word]

    return respond


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers each request in a thread; one that hangs holds up no other, nor the daemon's end."""

    daemon_threads = True
    request_queue_size = MAX_ASKING

    def server_activate(self) -> None:
        """Listen, with nobody asking yet."""
        self._places = threading.Semaphore(MAX_ASKING)
        super().server_activate()

    def process_request(self, request: _Connected, client_address: object) -> None:
        """Begin a thread, unless there are too many: who connects and asks nothing must not fill the daemon."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has none
            self._places.release()
            raise

    def process_request_thread(self, request: _Connected, client_address: object) -> None:
        """Answer, in that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, *_: object) -> None:
        """Say nothing: who asks and goes, or asks nothing, is no fault of ours, and may do it all day."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape is no event."""
