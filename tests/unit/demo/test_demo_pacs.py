"""The demonstration's PACS, spoken to by DCMTK over the loopback."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import RLELossless, generate_uid

from mdmfs.demo import pacs, patients
from mdmfs.demo.pacs import Destination, Pacs
from mdmfs.demo.patients import Kind, PlantedFile
from mdmfs.demo.people import ABSENT, SAMPLES
from mdmfs.model.errors import ConfigurationError

SECONDS = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlantedFile, ...]:
    """Write the small patients where the PACS serves them."""
    return patients.write_patients(tmp_path_factory.mktemp("pacs"), [SAMPLES, ABSENT])


@pytest.fixture(scope="module")
def running(files: tuple[PlantedFile, ...]) -> Iterator[Pacs]:
    """Serve them to all tests here; whoever changes the PACS starts another."""
    with pacs.serving(files[0].path.parents[2]) as started:
        yield started


def dcmtk(
    program: str, running: Pacs, *arguments: str, called: str = pacs.AE_TITLE
) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's clients against the PACS."""
    command = [program, "-v", "-aec", called, running.host, str(running.port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS)


def keys(level: str, **values: str) -> list[str]:
    """Write the keys of a query as DCMTK's clients take them."""
    pairs = {"QueryRetrieveLevel": level, **values}
    return [part for keyword, value in pairs.items() for part in ("-k", f"{keyword}={value}")]


def the_slices(files: tuple[PlantedFile, ...]) -> list[PlantedFile]:
    """Pick the painted CT."""
    return [file for file in files if file.kind is Kind.CT]


def data_set(octets: bytes) -> bytes:
    """Give what follows the file meta information, whose length is in its first element (PS3.10 section 7.1)."""
    return octets[144 + int.from_bytes(octets[140:144], "little") :]


def test_only_our_own_title_is_answered(running: Pacs) -> None:
    """C-ECHO works; a wrong called AE title is rejected."""
    assert dcmtk("echoscu", running).returncode == 0
    refused = dcmtk("echoscu", running, called="OTHER")
    assert refused.returncode != 0
    assert "Called AE Title Not Recognized" in refused.stderr


def test_findscu_finds_studies_by_date_and_name(running: Pacs) -> None:
    """A range of dates and a wildcard select; what was asked for comes back."""
    arguments = keys("STUDY", StudyDate="20191101-20191130", PatientName="BRZEZ*", NumberOfStudyRelatedInstances="")
    found = dcmtk("findscu", running, "-S", *arguments)
    assert found.returncode == 0
    answers = found.stderr + found.stdout
    assert answers.count("(Pending)") == 1
    assert f"[{SAMPLES.study_date}]" in answers
    assert re.search(r"\(0020,1208\) IS \[5 *\]", answers)


def test_findscu_is_refused_without_the_study(running: Pacs) -> None:
    """The identifier does not fit the model: status A900."""
    found = dcmtk("findscu", running, "-S", "-d", *keys("SERIES", SeriesInstanceUID=""))
    assert "0xa900" in (found.stderr + found.stdout).lower()


def test_getscu_gets_a_series_and_a_list_of_instances_as_they_are_stored(
    running: Pacs, files: tuple[PlantedFile, ...], tmp_path: Path
) -> None:
    """Every data set arrives with the bytes it has on disk; a list at IMAGE level brings these and no others."""
    slices = the_slices(files)
    above = {"StudyInstanceUID": slices[0].study_instance_uid, "SeriesInstanceUID": slices[0].series_instance_uid}
    chosen = slices[1:3]
    listed = "\\".join(file.sop_instance_uid for file in chosen)
    for number, (level, more, expected) in enumerate(
        [("SERIES", {}, slices), ("IMAGE", {"SOPInstanceUID": listed}, chosen)],
    ):
        into = tmp_path / str(number)
        into.mkdir()
        got = dcmtk("getscu", running, "-S", "+B", "-od", str(into), *keys(level, **above, **more))
        assert got.returncode == 0
        arrived = sorted(data_set(path.read_bytes()) for path in into.iterdir())
        assert arrived == sorted(data_set(file.path.read_bytes()) for file in expected)


def test_what_was_not_negotiated_is_not_sent_in_another_syntax(
    running: Pacs, files: tuple[PlantedFile, ...], tmp_path: Path
) -> None:
    """A client that offers uncompressed contexts only does not get the RLE image, in whatever form."""
    file = next(file for file in files if file.transfer_syntax_uid == RLELossless)
    above = {"StudyInstanceUID": file.study_instance_uid, "SeriesInstanceUID": file.series_instance_uid}
    into = tmp_path / "none"
    into.mkdir()
    got = dcmtk("getscu", running, "-S", "+x=", "-od", str(into), *keys("SERIES", **above))
    assert "Failed Suboperations    : 1" in got.stderr + got.stdout
    assert list(into.iterdir()) == []


@contextlib.contextmanager
def storescp(into: Path) -> Iterator[int]:
    """Run DCMTK's storage SCP on a free port."""
    into.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(["storescp", "+B", "+xa", "-aet", "STORESCP", "-od", into, str(port)])
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_movescu_moves_to_a_known_destination_only(
    running: Pacs, files: tuple[PlantedFile, ...], tmp_path: Path
) -> None:
    """Compressed and not, each in its own syntax; an unknown destination gets nothing."""
    study = {"StudyInstanceUID": next(file for file in files if file.kind is Kind.REAL_MR).study_instance_uid}
    into = tmp_path / "moved"
    with storescp(into) as port:
        refused = dcmtk("movescu", running, "-S", "-aem", "STORESCP", *keys("STUDY", **study))
        assert refused.returncode != 0
        assert list(into.iterdir()) == []
        running.destinations["STORESCP"] = Destination("127.0.0.1", port)
        moved = dcmtk("movescu", running, "-S", "-aem", "STORESCP", *keys("STUDY", **study))
        del running.destinations["STORESCP"]
    assert moved.returncode == 0, moved.stderr
    expected = [file for file in files if file.kind is not Kind.CT]
    arrived = sorted(data_set(path.read_bytes()) for path in into.iterdir())
    assert arrived == sorted(data_set(file.path.read_bytes()) for file in expected)


def test_storescu_stores_what_is_then_found(tmp_path: Path, files: tuple[PlantedFile, ...]) -> None:
    """A new instance lies in the directory, in its own syntax, and is in the index at once."""
    source, directory = tmp_path / "new.dcm", tmp_path / "empty"
    directory.mkdir()
    dataset = pydicom.dcmread(next(file for file in files if file.transfer_syntax_uid == RLELossless).path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(source)
    above = {"StudyInstanceUID": dataset.StudyInstanceUID, "SeriesInstanceUID": dataset.SeriesInstanceUID}
    with pacs.serving(directory) as started:
        assert dcmtk("storescu", started, "-xr", str(source)).returncode == 0
        found = dcmtk("findscu", started, "-S", *keys("IMAGE", **above, SOPInstanceUID=""))
    assert dataset.SOPInstanceUID in found.stderr + found.stdout
    (path,) = (directory / "received").iterdir()
    stored = pydicom.dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == RLELossless
    assert stored.PixelData == dataset.PixelData
    assert stored.PatientName == SAMPLES.name


def test_a_uid_never_becomes_a_path_out_of_the_directory(tmp_path: Path, files: tuple[PlantedFile, ...]) -> None:
    """An instance whose UID, in command and header alike, climbs out of the directory is refused; no file is left."""
    source, directory = tmp_path / "evil.dcm", tmp_path / "within" / "these" / "walls"
    directory.mkdir(parents=True)
    real = files[0].sop_instance_uid.encode()
    climbing = b"../../../outside".ljust(len(real), b"\0")
    source.write_bytes(files[0].path.read_bytes().replace(real, climbing))
    with pacs.serving(directory) as started:
        sent = dcmtk("storescu", started, str(source))
        assert len(started.archive) == 0
    assert "Received Store Response (Error" in sent.stderr + sent.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]


def test_a_delay_holds_each_sub_operation(running: Pacs, files: tuple[PlantedFile, ...], tmp_path: Path) -> None:
    """Four instances at 0.1 s each take 0.4 s at least."""
    file = the_slices(files)[0]
    above = {"StudyInstanceUID": file.study_instance_uid, "SeriesInstanceUID": file.series_instance_uid}
    running.delay = 0.1
    started = time.monotonic()
    got = dcmtk("getscu", running, "-S", "-od", str(tmp_path), *keys("SERIES", **above))
    running.delay = 0.0
    assert got.returncode == 0
    assert time.monotonic() - started >= 0.4


def test_no_identifier_is_logged(
    running: Pacs, files: tuple[PlantedFile, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even with the root logger at DEBUG, nothing of queries, answers and instances is written."""
    caplog.set_level(logging.DEBUG)
    file = the_slices(files)[0]
    above = {"StudyInstanceUID": file.study_instance_uid, "SeriesInstanceUID": file.series_instance_uid}
    assert dcmtk("findscu", running, "-S", *keys("STUDY", PatientName=ABSENT.name, StudyInstanceUID="")).returncode == 0
    assert dcmtk("getscu", running, "-S", "-od", str(tmp_path), *keys("SERIES", **above)).returncode == 0
    assert dcmtk("storescu", running, str(file.path)).returncode == 0
    assert [planted for planted in patients.planted_identifiers() if planted in caplog.text] == []


def test_the_program_serves_and_ends_when_asked(files: tuple[PlantedFile, ...]) -> None:
    """It says where it listens once it does, and SIGTERM ends it with success."""
    command = [sys.executable, "-m", "mdmfs.demo.pacs", "--ae", "OURPACS", "--directory", str(files[0].path.parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = re.fullmatch(r"ready: OURPACS@127\.0\.0\.1:(\d+) \(9 instances\)\n", process.stdout.readline())
        assert ready is not None
        echoed = subprocess.run(["echoscu", "-aec", "OURPACS", "127.0.0.1", ready[1]], check=False, timeout=SECONDS)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    assert echoed.returncode == 0


@pytest.mark.parametrize("text", ["", "A@b", "@b:1", "A@:1", "A@b:port", "A@b:999999", "SEVENTEENLETTERSX@b:1"])
def test_a_destination_is_read_or_refused(text: str) -> None:
    """``AET@HOST:PORT`` and nothing else."""
    assert pacs.parse_destination("STORE@localhost:104") == ("STORE", Destination("localhost", 104))
    with pytest.raises(ConfigurationError):
        pacs.parse_destination(text)
