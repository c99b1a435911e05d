"""The journal of systemd: where standard error leads there, records go as fields, not as lines to be taken apart.

The protocol is that of systemd's "Native Journal Protocol": one datagram a record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Mapping
from typing import IO, Any, Final, Self

SOCKET: Final = "/run/systemd/journal/socket"
PREFIX: Final = "MDMFS_"
MAX_VALUE_BYTES: Final = 8192
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2, "exception": 3}
"""syslog(3), by structlog's names of levels."""
_OURS: Final = {"event": "MESSAGE", "logger": "MDMFS_LOGGER", "exception": "MDMFS_EXCEPTION"}
_NO_FIELD: Final = re.compile(r"[^A-Z0-9_]")


class Journal:
    """Sends records."""

    def __init__(self, path: str = SOCKET) -> None:
        """Send to a socket."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    @classmethod
    def behind(cls, environment: Mapping[str, str], output: IO[str]) -> Self | None:
        """Give the journal if that is where a stream leads (``JOURNAL_STREAM``, systemd.exec(5)), else None."""
        device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
        try:
            status = os.fstat(output.fileno())
        except (OSError, ValueError):
            return None
        is_it = (device, inode) == (str(status.st_dev), str(status.st_ino))
        return cls() if is_it else None

    def send(self, record: Mapping[str, Any]) -> None:
        """Send a record of structlog; a journal that takes none just now loses it, and no daemon waits or fails."""
        fields = {_OURS.get(name, PREFIX + _NO_FIELD.sub("_", name.upper())): value for name, value in record.items()}
        fields["PRIORITY"] = PRIORITIES.get(str(record.get("level", "info")), 6)
        fields["SYSLOG_IDENTIFIER"] = "mdmfs"
        fields.pop(PREFIX + "LEVEL", None)
        with contextlib.suppress(OSError):
            self._socket.sendto(b"".join(_field(name, value) for name, value in fields.items()), self._path)

    def close(self) -> None:
        """Send no more."""
        self._socket.close()

    def __call__(self, *_: object) -> Self:
        """Be structlog's factory of loggers, too."""
        return self

    def msg(self, **record: object) -> None:
        """Be a logger of structlog: take what the last processor gives."""
        self.send(record)

    debug = info = warning = error = critical = exception = log = msg


class JournalHandler(logging.Handler):
    """Sends records of the standard library's loggers."""

    def __init__(self, journal: Journal) -> None:
        """Send to a journal."""
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        told = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            told["exception"] = logging.Formatter().formatException(record.exc_info)
        self._journal.send(told)


def _field(name: str, value: object) -> bytes:
    octets = str(value).encode(errors="replace")[:MAX_VALUE_BYTES]
    if b"\n" not in octets:
        return name.encode() + b"=" + octets + b"\n"
    return name.encode() + b"\n" + len(octets).to_bytes(8, "little") + octets + b"\n"
