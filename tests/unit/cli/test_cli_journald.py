"""Logs as fields of systemd's journal, read from a socket as the journal reads it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from mdmfs.cli.journald import Journal, JournalHandler


class Reader:
    """The journal's side."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.path)

    def record(self) -> dict[str, str]:
        """Take one record apart."""
        octets, fields = self._socket.recv(2**16), {}
        while octets:
            line, _, octets = octets.partition(b"\n")
            name, is_short, value = line.partition(b"=")
            if not is_short:
                size = int.from_bytes(octets[:8], "little")
                value, octets = octets[8 : 8 + size], octets[9 + size :]
            fields[name.decode()] = value.decode()
        return fields

    def close(self) -> None:
        """Go away."""
        self._socket.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Listen."""
    made = Reader(tmp_path / "journal")
    yield made
    made.close()


def test_a_record_of_structlog_is_fields(reader: Reader) -> None:
    """The event is the message, the level a priority, the rest of it ours; a newline does not end a field."""
    with contextlib.closing(Journal(reader.path)) as journal:
        log = structlog.wrap_logger(journal, processors=[structlog.stdlib.add_log_level])
        log.warning("recall failed", files=3, reason="one\nPRIORITY=0")
    assert reader.record() == {
        "MESSAGE": "recall failed",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "mdmfs",
        "MDMFS_FILES": "3",
        "MDMFS_REASON": "one\nPRIORITY=0",
    }


def test_a_record_of_the_standard_library_is_fields_too(reader: Reader) -> None:
    """With the name of its logger, and where it was raised."""
    error = ValueError("no")
    record = logging.LogRecord("mdmfs.wire", logging.ERROR, "", 0, "%s failed", ("it",), (ValueError, error, None))
    with contextlib.closing(Journal(reader.path)) as journal:
        JournalHandler(journal).emit(record)
    told = reader.record()
    assert (told["MESSAGE"], told["PRIORITY"], told["MDMFS_LOGGER"]) == ("it failed", "3", "mdmfs.wire")
    assert told["MDMFS_EXCEPTION"].endswith("ValueError: no")


def test_a_journal_that_has_gone_ends_no_daemon(reader: Reader) -> None:
    """Its record is lost."""
    reader.close()
    with contextlib.closing(Journal(reader.path)) as journal:
        journal.send({"event": "x", "level": "info"})


def test_only_an_output_that_leads_to_the_journal_is_the_journal(tmp_path: Path) -> None:
    """The variable is inherited by whatever redirects its output."""
    with (tmp_path / "output").open("w") as output:
        status = os.fstat(output.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        journal = Journal.behind({"JOURNAL_STREAM": stream}, output)
        assert journal is not None
        journal.close()
        assert Journal.behind({"JOURNAL_STREAM": stream + "1"}, output) is None
        assert Journal.behind({}, output) is None
