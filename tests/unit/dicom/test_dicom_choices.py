"""By which service a PACS gives its images: remembered for one address, lost without harm, shown by the doctor."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing

from mdmfs.daemon.diagnosis import Check
from mdmfs.hospital.dicom.choices import FILE, Choice, Choices
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.pool import Pool, Surroundings
from mdmfs.hospital.dicom.probe import Visit
from mdmfs.hospital.doctor import judge_choice
from mdmfs.model.finding import Finding

NOW = 1_800_000_000.0
HERE = PacsAddress("ARCHIVE", "pacs.example.org", 104)


def opened(folder: Path) -> Choices:
    """Read what is remembered."""
    return Choices(folder / FILE, lambda: NOW)


def test_a_choice_is_remembered_for_one_pacs_at_one_address(tmp_path: Path) -> None:
    """Whatever listens elsewhere under the same name is asked anew."""
    choices = opened(tmp_path)
    assert choices.of("main", HERE) is None
    choices.keep("main", HERE, RetrievalService.GET)
    choices.keep("main", HERE, RetrievalService.MOVE)
    again = opened(tmp_path)
    assert again.of("main", HERE) == Choice(str(HERE), RetrievalService.MOVE, NOW)
    assert again.of("other", HERE) is None
    assert again.of("main", PacsAddress("ARCHIVE", "pacs.example.org", 105)) is None
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"main": {"address": "x", "service": "ftp", "since": 1}}'])
def test_what_cannot_be_read_is_forgotten(tmp_path: Path, left: bytes) -> None:
    """And written anew."""
    (tmp_path / FILE).write_bytes(left)
    with structlog.testing.capture_logs() as logs:
        choices = opened(tmp_path)
    assert [log["log_level"] for log in logs] == ["warning"]
    assert choices.of("main", HERE) is None
    choices.keep("main", HERE, RetrievalService.GET)
    assert opened(tmp_path).of("main", HERE) is not None


def test_what_cannot_be_written_holds_until_the_next_start(tmp_path: Path) -> None:
    """A full disk, or none at all, stops no recall."""
    choices = opened(tmp_path / "gone")
    with structlog.testing.capture_logs() as logs:
        choices.keep("main", HERE, RetrievalService.MOVE)
    assert [log["log_level"] for log in logs] == ["warning"]
    assert choices.of("main", HERE) is not None


def test_a_move_is_of_no_use_without_a_place_to_move_to() -> None:
    """Where [dicom] was taken out of the configuration, the PACS is asked what it offers."""
    surroundings = Surroundings(remembered=RetrievalService.MOVE)
    assert Pool(HERE, Politeness(), surroundings).retrieval is None
    assert Pool(HERE, Politeness(), Surroundings(remembered=RetrievalService.GET)).retrieval is RetrievalService.GET


async def look(_: Check) -> list[Finding]:
    """Find nothing."""
    return []


@pytest.mark.parametrize(
    ("service", "offered", "level", "told"),
    [
        (RetrievalService.GET, ("C-FIND", "C-GET"), "ok", "C-GET was negotiated on 2027-01-15"),
        (RetrievalService.MOVE, ("C-FIND", "C-MOVE"), "ok", "C-MOVE was negotiated on 2027-01-15"),
        (RetrievalService.MOVE, ("C-GET", "C-MOVE"), "ok", "delete that file"),
        (RetrievalService.GET, ("C-FIND", "C-MOVE"), "warning", "offered no longer"),
    ],
)
def test_the_doctor_tells_what_is_remembered(
    service: RetrievalService, offered: tuple[str, ...], level: str, told: str
) -> None:
    """And what to do where that may be better by now."""
    seen = Visit(0.1, offered, 1, 1, ())
    found = judge_choice(Choice(str(HERE), service, NOW), seen, Check("pacs", "main", look))
    assert found.severity == level
    assert told in found.text
