"""Debian's rsyslog as an audit repository over mutual TLS (RFC 5425): each message as it came and as it was read."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from mdmfs.pki.tls import Credential
from mdmfs.wire.stream import Address
from tests.twins.servers import free_port, running_server

UNPACKED: Final = Path(__file__).parents[2] / ".cache" / "rsyslog"
SECONDS: Final = 20.0
FIELDS: Final = ("pri", "protocol-version", "timestamp:::date-rfc3339", "hostname", "app-name", "procid", "msgid")
_CONFIGURATION: Final = """\
global(workDirectory="{folder}" defaultNetstreamDriver="ossl" maxMessageSize="256k"
       defaultNetstreamDriverCAFile="{authorities}"
       defaultNetstreamDriverCertFile="{shown.certificate_file}" defaultNetstreamDriverKeyFile="{shown.key_file}")
module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="read" type="string" string="{read} %msg%\\n")
template(name="came" type="string" string="%rawmsg%\\n")
action(type="omfile" file="{folder}/read" template="read")
action(type="omfile" file="{folder}/came" template="came")
"""


@dataclasses.dataclass(frozen=True)
class Repository:
    """One that runs."""

    address: Address
    folder: Path

    def came(self, count: int) -> list[bytes]:
        """Wait for so many messages, and give them as they came."""
        return self._lines("came", count)

    def read(self, count: int) -> list[tuple[list[str], bytes]]:
        """Wait for so many, and give what was read: ``FIELDS``, and the message."""
        lines = [line.split(b" ", len(FIELDS)) for line in self._lines("read", count)]
        return [([field.decode() for field in fields], message) for *fields, message in lines]

    def _lines(self, name: str, count: int) -> list[bytes]:
        file, deadline = self.folder / name, time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
            if len(lines) >= count:
                return lines
            time.sleep(0.05)
        pytest.fail(f"{len(lines)} of {count} messages have come: {(self.folder / 'log').read_text()[-2000:]}")


@contextlib.contextmanager
def repository(folder: Path, shown: Credential, authorities: Path) -> Iterator[Repository]:
    """Run one that shows a certificate, and takes messages from whoever has one of these CAs."""
    root = UNPACKED / "root" / "usr"
    if not root.exists():
        pytest.fail("rsyslog is not unpacked: ./run test unpacks it")
    [modules] = root.glob("lib/*/rsyslog")
    port = free_port()
    read = " ".join(f"%{field}%" for field in FIELDS)
    text = _CONFIGURATION.format(folder=folder, authorities=authorities, shown=shown, port=port, read=read)
    (folder / "rsyslog.conf").write_text(text)
    libraries = (UNPACKED / "library-path").read_text().strip()
    command = [str(root / "sbin" / "rsyslogd"), "-n", "-M", str(modules)]
    command += ["-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    with running_server(command, folder / "log", port, {"LD_LIBRARY_PATH": libraries}):
        yield Repository(Address("127.0.0.1", port), folder)
