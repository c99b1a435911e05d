"""Records of the hospital zone do not show what is in them, wherever they are printed."""

from __future__ import annotations

import io
import logging
import pprint

import pytest
import rich.console
import rich.pretty

from mdmfs.hospital.ledger.records import OutboxItem
from mdmfs.hospital.veil import Veiled
from tests.twins.records import instance_of, quarantined, series_record, subject_row

RECORDS = [
    subject_row(7, "Patient-4711"),
    instance_of(1),
    instance_of(1).series,
    series_record(1),
    quarantined(1),
    OutboxItem(1, "key1", "shares", b"1.2.3", b"Patient-4711"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_no_printer_shows_what_is_inside(record: Veiled, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr, str, format, pprint, rich nor a log line; in a container neither."""
    screen = io.StringIO()
    rich.console.Console(file=screen, width=500).print(rich.pretty.Pretty([record]), record)
    logging.getLogger("test").warning("refused %s %r", record, [record])
    shown = [repr(record), str(record), f"{record}", pprint.pformat({1: record}), screen.getvalue(), caplog.text]
    for text in shown:
        assert type(record).__name__ in text
        for secret in ("4711", "1.2.3", "AMC", "PACS", "07" * 4, "\\x07"):
            assert secret not in text
