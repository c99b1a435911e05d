"""Staging in its own processes, small: ``./run bench stage`` has 500 files."""

from __future__ import annotations

from pathlib import Path

from tests.twins.staging_run import run

FILES = 60


def test_staging_survives_what_happens_in_a_night(tmp_path: Path) -> None:
    """Hospital killed, proxy renewed, PACS restarted: all is there, and nothing was fetched three times."""
    outcome = run(tmp_path, FILES, ((0.1, "kill the hospital"), (0.5, "renew the proxy"), (0.7, "restart a PACS")))
    assert outcome.completed == outcome.on_disk == FILES
    assert not outcome.went_backwards
    assert outcome.exit_code == 0
    assert len(outcome.sent) == FILES
    assert max(outcome.sent.values()) <= 2
