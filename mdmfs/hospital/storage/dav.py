"""A collection of a WebDAV or XRootD server over HTTPS, with the hospital's certificate; readers show their proxies."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from mdmfs.hospital.storage.port import BrokenOffError, Content, StorageError
from mdmfs.model.errors import ConfigurationError

TIMEOUT: Final = 60.0
"""Seconds for an exchange, beside what its body takes."""
PACE: Final = 256 * 2**10 / 5
"""Bytes a second that a storage element takes at least: readers ask no more of it."""
MAX_REDIRECTS: Final = 3
"""A door of a storage element sends its clients on to the node that has the disk."""
_REDIRECTS: Final = {301, 302, 307, 308}
_ABSENT: Final = {404, 410}
_SUCCESS: Final = range(200, 300)

log = structlog.get_logger()


class DavElement:
    """``StorageElement`` below one URL (RFC 9110 PUT, HEAD and DELETE; no other method is needed)."""

    def __init__(
        self, name: str, url: str, context: Callable[[], ssl.SSLContext], *, padding: int, timeout: float = TIMEOUT
    ) -> None:
        """Name a collection by ``https://HOST:PORT/PATH``, where the hospital may write and readers may read."""
        self.name = name
        self._timeout = timeout
        self.padding = padding
        self._url = url.rstrip("/")
        self._context = context

    def put(self, name: str, content: Content, length: int) -> None:
        """PUT; where the door sends us on, the body goes there from its beginning."""
        status = self._ask("PUT", name, content, length)[0]
        if status not in _SUCCESS:
            raise self._refusal(status)

    def size(self, name: str) -> int | None:
        """HEAD; no length is an error: it would mean that the object is gone."""
        status, length = self._ask("HEAD", name)
        if status in _ABSENT:
            return None
        if status not in _SUCCESS:
            raise self._refusal(status)
        if length is None:
            message = f"storage {self.name} does not say how long its objects are (no Content-Length)"
            raise StorageError(message)
        return length

    def delete(self, name: str) -> None:
        """DELETE."""
        status = self._ask("DELETE", name)[0]
        if status not in _SUCCESS and status not in _ABSENT:
            raise self._refusal(status)

    def turl(self, name: str, seconds: float) -> str:
        """Give the HTTPS URL: it ends with the reader's proxy, not with a time."""
        del seconds
        return self.surl(name)

    def surl(self, name: str) -> str:
        """Give the HTTPS URL."""
        return f"{self._url}/{name}"

    def _ask(self, method: str, name: str, content: Content | None = None, length: int = 0) -> tuple[int, int | None]:
        url = self.surl(name)
        with self._telling(method):
            for _ in range(MAX_REDIRECTS + 1):
                status, location, found = self._exchange(method, url, content, length)
                if status not in _REDIRECTS or not location:
                    return status, found
                url = urllib.parse.urljoin(url, location)
                if not url.startswith("https://"):
                    break
        message = f"storage {self.name} sends us round in circles, or out of TLS"
        raise StorageError(message)

    def _exchange(
        self, method: str, url: str, content: Content | None, length: int
    ) -> tuple[int, str | None, int | None]:
        parts = urllib.parse.urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        context = self._context()
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port or 443, context=context)
        connected = self._connected(connection, context, length)
        with contextlib.closing(connection), connected, self._telling_of_broken(method):
            connection.putrequest(method, target)
            if content is not None:
                connection.putheader("Content-Length", str(length))
            connection.endheaders()
            if content is not None:
                with contextlib.suppress(ConnectionError):  # a door may close early: its answer says where to go
                    for piece in content():
                        connection.send(piece)
            response = connection.getresponse()  # its head tells all: of a body, which may have no end, nothing is read
            told = response.headers.get("Content-Length", "")
            return response.status, response.headers.get("Location"), int(told) if told.isdecimal() else None

    @contextlib.contextmanager
    def _connected(
        self, connection: http.client.HTTPSConnection, context: ssl.SSLContext, length: int
    ) -> Iterator[None]:
        """Connect; who gives or takes byte after byte, and each of them in time, is broken off in the end."""
        with (
            socket.create_connection((connection.host, connection.port), self._timeout) as plain,
            plain.dup() as whole,  # by which it is broken off, whatever TLS is at
            _broken_off(whole, self._timeout + length / PACE),
        ):
            connection.sock = context.wrap_socket(plain, server_hostname=connection.host)
            yield

    def _refusal(self, status: int) -> StorageError:
        return StorageError(f"storage {self.name} answers with status {status}")

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn what an exchange raises into one sentence: ``ValueError`` where it sends us to what is no URL.

        Grid users may be told it; where our own files are stands in the log.
        """
        try:
            yield
        except ConfigurationError as error:
            message = f"storage {self.name}: our credential cannot be used"
            log.warning(message, reason=error.told_here)
            raise StorageError(message) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StorageError(self._silence(what, error)) from error

    @contextlib.contextmanager
    def _telling_of_broken(self, what: str) -> Iterator[None]:
        """Turn what an exchange raises after it was begun."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOffError(self._silence(what, error)) from error

    def _silence(self, what: str, error: Exception) -> str:
        return f"storage {self.name} does not answer {what}: {type(error).__name__}"


@contextlib.contextmanager
def _broken_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Break a connection off after so long, whoever waits for what on it."""

    def end() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
