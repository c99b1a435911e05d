"""How the demonstration's PACS matches keys (PS3.4 section C.2.2.2) and what it answers at each level."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from mdmfs.demo import patients
from mdmfs.demo.archive import Archive, Root, matches
from mdmfs.demo.patients import PlantedFile
from mdmfs.demo.people import ABSENT, SAMPLES
from mdmfs.model.errors import MalformedMessageError


def element(keyword: str, value: object) -> DataElement:
    """Make an element, be its value valid or a pattern."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE)


def query(level: str, **keys: object) -> Dataset:
    """Make the identifier of a query."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlantedFile, ...]:
    """Write the small patients."""
    return patients.write_patients(tmp_path_factory.mktemp("archive"), [SAMPLES, ABSENT])


@pytest.fixture(scope="module")
def archive(files: tuple[PlantedFile, ...]) -> Archive:
    """Index them."""
    return Archive(files[0].path.parents[2])


@pytest.mark.parametrize(
    ("keyword", "wanted", "held", "is_match"),
    [
        ("Modality", "CT", "CT", True),
        ("Modality", "CT", "CTX", False),
        ("Modality", "ct", "CT", False),
        ("Modality", "", "CT", True),
        ("Modality", "C*", "CT", True),
        ("Modality", "?T", "CT", True),
        ("Modality", "?T", "CCT", False),
        ("Modality", "CT", "", False),
        ("Modality", "*", "", True),
        ("StationName", "[A]", "A", False),
        ("StationName", "[A]", "[A]", True),
        ("ModalitiesInStudy", "MR", ["CT", "MR"], True),
        ("ModalitiesInStudy", ["US", "MR"], ["CT", "MR"], True),
        ("ModalitiesInStudy", "US", ["CT", "MR"], False),
        ("PatientName", "doe*", "Doe^John", True),
        ("PatientName", "Doe", "Doe^John", False),
        ("PatientName", "桂乃*", "Katsurano^Hinakomi=桂乃^雛子実", True),
        ("StudyInstanceUID", "1.2.3", "1.2.3", True),
        ("StudyInstanceUID", ["1.2.3", "1.2.4"], "1.2.4", True),
        ("StudyInstanceUID", "1.2.3", "1.2.33", False),
        ("StudyDate", "20190312", "20190312", True),
        ("StudyDate", "20190301-20190331", "20190312", True),
        ("StudyDate", "20190301-", "20190312", True),
        ("StudyDate", "-20190311", "20190312", False),
        ("StudyDate", "20190313-20190331", "20190312", False),
        ("StudyDate", "20190301-20190331", "", False),
        ("StudyTime", "09-10", "093214.482913", True),
        ("StudyTime", "10-", "093214.482913", False),
        ("SeriesNumber", "7", "07", True),
        ("SeriesNumber", "7", "70", False),
    ],
)
def test_keys_match_as_the_standard_says(keyword: str, wanted: object, held: object, is_match: bool) -> None:  # noqa: FBT001 - a column of a table
    """Single values, lists of UIDs, universal matching, wildcards and ranges."""
    assert matches(element(keyword, wanted), element(keyword, held)) is is_match


def test_an_attribute_that_is_not_indexed_matches_everything() -> None:
    """An optional key that a PACS does not know is not matched (PS3.4 section C.2.2.1.2)."""
    assert matches(element("Modality", "CT"), None)


def test_studies_are_counted(archive: Archive) -> None:
    """Series, instances, modalities and classes of a study are what lies in the directory."""
    keys = (
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "ModalitiesInStudy",
        "StudyDate",
        "PatientName",
    )
    found = list(archive.find(Root.STUDY, query("STUDY", PatientID=SAMPLES.patient_id, **dict.fromkeys(keys, ""))))
    assert len(found) == 1
    assert found[0].NumberOfStudyRelatedSeries == 5
    assert found[0].NumberOfStudyRelatedInstances == 5
    assert list(found[0].ModalitiesInStudy) == ["CT", "MR"]
    assert found[0].StudyDate == SAMPLES.study_date
    assert found[0].PatientName == SAMPLES.name


def test_patients_are_found_in_the_patient_root_only(archive: Archive) -> None:
    """The Study Root has no such level."""
    asked = query("PATIENT", PatientID="", NumberOfPatientRelatedInstances="")
    found = {answer.PatientID: answer.NumberOfPatientRelatedInstances for answer in archive.find(Root.PATIENT, asked)}
    assert found == {SAMPLES.patient_id: 5, ABSENT.patient_id: 4}
    with pytest.raises(MalformedMessageError):
        list(archive.find(Root.STUDY, asked))


def test_series_and_instances_are_found_with_their_keys(archive: Archive, files: tuple[PlantedFile, ...]) -> None:
    """A series counts its instances; an instance names its class and its transfer syntax."""
    file = files[-1]
    asked = query(
        "SERIES", StudyInstanceUID=file.study_instance_uid, NumberOfSeriesRelatedInstances="", SeriesInstanceUID=""
    )
    (series,) = archive.find(Root.STUDY, asked)
    assert series.NumberOfSeriesRelatedInstances == 4
    asked = query("IMAGE", StudyInstanceUID=file.study_instance_uid, SeriesInstanceUID=series.SeriesInstanceUID)
    asked.SOPInstanceUID = [file.sop_instance_uid, files[-2].sop_instance_uid]
    asked.AvailableTransferSyntaxUID = ""
    found = list(archive.find(Root.STUDY, asked))
    assert {answer.SOPInstanceUID for answer in found} == set(asked.SOPInstanceUID)
    assert {answer.AvailableTransferSyntaxUID for answer in found} == {file.transfer_syntax_uid}


@pytest.mark.parametrize(
    "identifier",
    [
        query("SERIES", SeriesInstanceUID=""),
        query("IMAGE", StudyInstanceUID="1.2", SOPInstanceUID=""),
        query("SERIES", StudyInstanceUID=["1.2", "1.3"]),
        query("EVERYTHING"),
        Dataset(),
    ],
)
def test_a_query_without_the_keys_above_is_refused(archive: Archive, identifier: Dataset) -> None:
    """Strict PACSs are out there; ours finds a client that counts on a lenient one."""
    with pytest.raises(MalformedMessageError):
        list(archive.find(Root.STUDY, identifier))


def test_a_retrieval_needs_the_unique_key_of_its_level(archive: Archive, files: tuple[PlantedFile, ...]) -> None:
    """Nobody gets a study by asking for instances and naming none."""
    above = {"StudyInstanceUID": files[-1].study_instance_uid, "SeriesInstanceUID": files[-1].series_instance_uid}
    with pytest.raises(MalformedMessageError):
        archive.select(Root.STUDY, query("IMAGE", **above))
    assert len(archive.select(Root.STUDY, query("SERIES", **above))) == 4
    assert len(archive.select(Root.STUDY, query("IMAGE", SOPInstanceUID=[files[-1].sop_instance_uid], **above))) == 1
    assert archive.select(Root.STUDY, query("IMAGE", SOPInstanceUID=["1.2.3"], **above)) == []


def test_a_file_that_is_another_instance_is_not_kept(tmp_path: Path, files: tuple[PlantedFile, ...]) -> None:
    """A store under a wrong UID leaves the directory as it was; under the right one it is found at once."""
    archive = Archive(tmp_path)
    octets = files[0].path.read_bytes()
    for uid, content in (("1.2.3", octets), (files[0].sop_instance_uid, b"no DICOM at all")):
        with pytest.raises(MalformedMessageError):
            archive.add(uid, content)
    assert len(archive) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    archive.add(files[0].sop_instance_uid, octets)
    archive.add(files[0].sop_instance_uid, octets)
    assert len(archive) == 1
    assert len(Archive(tmp_path)) == 1
