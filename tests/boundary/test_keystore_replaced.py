"""A keystore that is lost for ever is replaced while files are read, with real processes; the bench does the rest."""

from __future__ import annotations

from pathlib import Path

from tests.bench._keystores import ground
from tests.bench.keystores import Report, replaced

INSTANCES = 20
PAUSE = 0.05
"""Seconds between two reads while processes start and stop; while keys change over there is hardly any."""


def test_a_lost_keystore_is_replaced_and_nobody_who_reads_notices(tmp_path: Path) -> None:
    """No read fails, of files on a mount or of keys; afterwards every share is there, and an image is registered."""
    with ground(tmp_path, series=1, instances=INSTANCES) as where:
        where.lasting, where.load.pause = 0.2, PAUSE
        report = Report(where)
        replaced(where, report)
    assert report.done > INSTANCES
    assert report.failed == 0
