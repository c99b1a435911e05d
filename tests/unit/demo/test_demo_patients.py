"""The demonstration's patients: valid objects, the same every time, and a complete list of what gives them away."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest
from pydicom._dicom_dict import DicomDictionary

from mdmfs.demo import patients
from mdmfs.demo.patients import Fate, Kind, PlantedFile
from mdmfs.demo.people import ABSENT, PEOPLE, SAMPLES, SHORTEST_IDENTIFIER


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlantedFile, ...]:
    """Write all patients once."""
    return patients.write_patients(tmp_path_factory.mktemp("patients"))


def first_of_each_series(files: Sequence[PlantedFile]) -> list[PlantedFile]:
    """Pick one file of each series."""
    return list({file.series_instance_uid: file for file in reversed(files)}.values())


def test_what_is_written_is_what_the_demonstration_promises(files: tuple[PlantedFile, ...]) -> None:
    """A CT of 60 slices, an MR of 24, one multi-frame of 50 MB, real files, two to refuse, one patient left out."""
    counts = Counter((file.kind, file.fate) for file in files)
    assert counts == {
        (Kind.CT, Fate.RELEASED): 60,
        (Kind.MR, Fate.RELEASED): 24,
        (Kind.ENHANCED_MR, Fate.RELEASED): 1,
        (Kind.REAL_CT, Fate.RELEASED): 1,
        (Kind.REAL_MR, Fate.RELEASED): 4,
        (Kind.SECONDARY_CAPTURE, Fate.REFUSED): 1,
        (Kind.ULTRASOUND, Fate.REFUSED): 1,
        (Kind.CT, Fate.NOT_INCLUDED): 4,
    }
    largest = max(files, key=lambda file: file.path.stat().st_size)
    assert largest.kind is Kind.ENHANCED_MR
    assert largest.path.stat().st_size > 50_000_000
    assert len({file.sop_instance_uid for file in files}) == len(files)
    assert len({file.transfer_syntax_uid for file in files}) == 4


def test_every_kind_is_without_an_error_of_dciodvfy(files: tuple[PlantedFile, ...]) -> None:
    """So that every error after the de-identification is a new one."""
    for file in first_of_each_series(files):
        done = subprocess.run(["dciodvfy", file.path], capture_output=True, check=False, timeout=60)
        report = done.stderr.decode(errors="replace").splitlines()
        assert report, "dciodvfy names at least the IOD"
        assert [line for line in report if line.startswith("Error")] == [], file.kind


def test_the_same_objects_come_out_every_time(files: tuple[PlantedFile, ...], tmp_path: Path) -> None:
    """A second run writes the same bytes under the same names."""
    again = patients.write_patients(tmp_path, [SAMPLES, ABSENT])
    before = {file.sop_instance_uid: file for file in files}
    assert len(again) == 9
    for file in again:
        assert file.path.read_bytes() == before[file.sop_instance_uid].path.read_bytes()


def test_only_the_absent_patient_is_not_on_the_list(files: tuple[PlantedFile, ...]) -> None:
    """The inclusion list and the fates say the same."""
    listed = {entry.patient_id for entry in patients.included_patients()}
    assert {entry.issuer for entry in patients.included_patients()} == {"KORTEWATER-MPI"}
    for file in files:
        assert (file.fate is Fate.NOT_INCLUDED) == (file.patient_id not in listed)
    assert ABSENT.patient_id not in listed


def test_every_identifier_is_long_and_in_no_dictionary() -> None:
    """Nothing on the list could be met by accident: no standard keyword or name holds it."""
    words = " ".join(f"{entry[2]} {entry[4]}" for entry in DicomDictionary.values()).casefold()
    for identifier in patients.planted_identifiers():
        assert len(identifier.encode()) >= SHORTEST_IDENTIFIER
        assert identifier.casefold() not in words
    assert all(len(octets) >= SHORTEST_IDENTIFIER for octets in patients.planted_octets())


def test_the_list_knows_names_numbers_places_and_uids() -> None:
    """Parts of names, capitals, ideographs, addresses, serial numbers and UIDs at any depth are on it."""
    identifiers = patients.planted_identifiers()
    expected = {
        "Güldenzöpfli",
        "GÜLDENZÖPFLI",
        "桂乃",
        "Zilverschoonlaan",
        "SN-KWL-8841725",
        "Kortewaterland",
        "19370213",
    }
    assert expected <= identifiers
    assert "Güldenzöpfli".encode("latin-1") in patients.planted_octets()
    assert "桂乃".encode() in patients.planted_octets()


def test_every_uid_and_name_in_the_files_is_on_the_list(files: tuple[PlantedFile, ...]) -> None:
    """Read back from disk, at any depth: UIDs of objects and person names, private ones among them."""
    identifiers = patients.planted_identifiers()
    names = {person.name for person in PEOPLE}
    for file in first_of_each_series(files):
        for element in pydicom.dcmread(file.path, stop_before_pixels=True).iterall():
            if element.VR == "UI" and element.value and "1.2.840.10008." not in element.value:
                assert element.value in identifiers
            if element.VR == "PN" and element.value:
                assert str(element.value) in identifiers | names or element.keyword == "OtherPatientNames"


def test_each_hiding_place_is_used(files: tuple[PlantedFile, ...]) -> None:
    """The name stands in plain, nested, private, unknown and trailing elements: a de-identification has work to do."""
    file = next(file for file in files if file.kind is Kind.MR)
    dataset = pydicom.dcmread(file.path)
    block = dataset.private_block(0x0029, "MDMFS DEMONSTRATION")
    family = "Katsurano"
    assert family in str(block[0x01].value)
    assert family.encode() in block[0x04].value
    assert family in str(block[0x05].value[0].PatientName)
    assert family.encode() in dataset[0xFFFCFFFC].value
    assert family in dataset.RequestAttributesSequence[0].RequestedProcedureDescription
    assert family.upper() in dataset.PatientComments
    assert dataset.StudyInstanceUID in dataset.ImageComments


def test_no_study_date_can_be_another_one_moved_back() -> None:
    """Dates are moved back by at least 52 weeks; these lie closer together."""
    dates = sorted(person.study_date for person in PEOPLE)
    assert dates[0][:4] == dates[-1][:4]
