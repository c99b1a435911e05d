"""The names that images get: from numbers and keyed letters, nothing of a patient in them, none twice."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import uuid
from pathlib import Path

import pytest
from pydicom import Dataset

from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.model.names import Lfn
from tests.twins.clinic import PATIENT, Clinic, including, slice_of, slices

NAME = re.compile(r"sub-[a-z2-7]{16}/ses-\d{8}/[a-z2-7]{8}-CT/[a-z2-7]{8}\.dcm")
"""Where neither series nor instances have numbers."""


async def names_for(folder: Path, held: list[Dataset], *patients: str) -> list[str]:
    """Register and list; ``patients`` are included beside the usual one."""
    clinic = Clinic(folder, held)
    clinic.inclusion = including(PATIENT, *(dataclasses.replace(PATIENT, patient_id=each) for each in patients))
    async with clinic.open() as hospital:
        await hospital.harvest()
        return hospital.names()


async def test_an_ordinary_series_is_numbered(tmp_path: Path) -> None:
    """``sub-.../ses-DATE/001-CT/0007.dcm``; the date is moved, by whole weeks."""
    (name,) = await names_for(tmp_path, [slice_of(7)])
    subject, session, series, file = name.split("/")
    assert re.fullmatch(r"sub-[a-z2-7]{16}", subject)
    assert re.fullmatch(r"ses-20[01]\d{5}", session)
    assert session != "ses-20180312"
    assert (series, file) == ("001-CT", "0007.dcm")


async def test_repeated_and_missing_instance_numbers_take_letters(tmp_path: Path) -> None:
    """No file replaces another."""
    held = slices((1, 2, 3, 4))
    held[1].InstanceNumber = 1
    held[2].InstanceNumber = None
    del held[3].InstanceNumber
    names = [name.rpartition("/")[2] for name in await names_for(tmp_path, held)]
    assert len(set(names)) == 4
    assert "0001.dcm" in names
    assert sum(bool(re.fullmatch(r"0001-[a-z2-7]{8}\.dcm", name)) for name in names) == 1
    assert sum(bool(re.fullmatch(r"[a-z2-7]{8}\.dcm", name)) for name in names) == 2


async def test_two_series_with_one_number_and_one_without_stay_apart(tmp_path: Path) -> None:
    """The second takes letters, so does one that has no number; the modality stands in every name."""
    held = [*slices((1,), series=1), *slices((1,), series=2), *slices((1,), series=3)]
    held[1].SeriesNumber = 1
    held[2].SeriesNumber = None
    found = sorted(name.split("/")[2] for name in await names_for(tmp_path, held))
    assert found[0] == "001-CT"
    assert re.fullmatch(r"001-CT-[a-z2-7]{8}", found[1])
    assert re.fullmatch(r"[a-z2-7]{8}-CT", found[2])


async def test_a_modality_that_dicom_does_not_define_is_other(tmp_path: Path) -> None:
    """What somebody wrote there is not taken over."""
    held = slices((1,))
    held[0].Modality = "MEYER"
    (name,) = await names_for(tmp_path, held)
    assert name.split("/")[2] == "001-OT"


@pytest.mark.parametrize("tag", [0x00200011, 0x00200013])
async def test_a_number_that_is_none_never_becomes_a_name(tmp_path: Path, tag: int) -> None:
    """A path in place of Series Number or Instance Number is refused before there is a name."""
    held = slices((1,))
    held[0].add_new(tag, "SH", "../../x")
    assert await names_for(tmp_path, held) == []


@pytest.mark.parametrize("accession", ["12345", "0012345", "H12345", "CT-12.345"])
@pytest.mark.parametrize("keyword", ["SeriesNumber", "InstanceNumber"])
async def test_a_number_that_points_to_the_patient_never_becomes_a_name(
    tmp_path: Path, accession: str, keyword: str
) -> None:
    """Some programs number their objects by the order that they belong to, without what parts or begins it."""
    held = slices((1,))
    held[0].AccessionNumber = accession
    setattr(held[0], keyword, 12345)
    (name,) = await names_for(tmp_path, held)
    assert "12345" not in name


@pytest.mark.parametrize("date", ["20180312\\20180313", "\\20180312", "20180312-20180313", "yesterday"])
async def test_a_study_date_that_is_not_one_day_never_becomes_a_name(tmp_path: Path, date: str) -> None:
    """Several dates have a backslash between them, and a blank behind."""
    held = slices((1,))
    held[0].add_new(0x00080020, "LO", date)
    (name,) = await names_for(tmp_path, held)
    assert re.fullmatch(r"ses-[a-z2-7]{8}", name.split("/")[1])


def requested(**values: str) -> Dataset:
    """Make an item of a sequence."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


POINTING = {
    "AccessionNumber": "4711",
    "PatientID": "MRN-0004711",
    "OtherPatientIDs": ["12", "0004711"],
    "StudyID": "2017/4711",
    "AdmissionID": " 4711 ",
    "ServiceEpisodeID": "4711",
    "RequestAttributesSequence": [requested(RequestedProcedureID="MR-4711")],
    "OtherPatientIDsSequence": [requested(PatientID="4711")],
}


@pytest.mark.parametrize("keyword", list(POINTING))
async def test_a_number_that_stands_in_what_points_to_the_patient_never_becomes_a_name(
    tmp_path: Path, keyword: str
) -> None:
    """Some scanners number series by the order or the patient: where the digits are those, letters take their place."""
    (held,) = slices((1,))
    held.SeriesNumber, held.InstanceNumber = 4711, "00004711"
    setattr(held, keyword, POINTING[keyword])
    (name,) = await names_for(tmp_path, [held], "MRN-0004711")
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("number", [999, 1234, 47110])
async def test_a_number_that_points_to_nobody_stays_in_the_name(tmp_path: Path, number: int) -> None:
    """Short ones all studies have; others differ from all that the header says of the patient."""
    (held,) = slices((1,))
    held.AccessionNumber, held.StudyID, held.SeriesNumber = "4711", "999", number
    (name,) = await names_for(tmp_path, [held])
    assert name.split("/")[2] == f"{number}-CT"


async def test_without_dates_a_session_has_letters(tmp_path: Path) -> None:
    """The strict policy keeps no date; the studies stay apart all the same, and each is one."""
    held = [*slices((1, 2)), slice_of(1, study=2)]
    clinic = Clinic(tmp_path, held)
    clinic.policy = read_policy("strict")
    async with clinic.open() as hospital:
        await hospital.harvest()
        sessions = [name.split("/")[1] for name in hospital.names()]
    assert all(re.fullmatch(r"ses-[a-z2-7]{8}", session) for session in sessions)
    assert sorted(map(sessions.count, set(sessions))) == [1, 2]


async def test_no_name_holds_a_real_identifier_or_what_one_could_look_up(tmp_path: Path) -> None:
    """Neither UIDs, Patient ID and dates, nor any usual digest of them in any usual spelling."""
    held = [*slices((1, 2)), *slices((1, 2), series=2), slice_of(1, study=2)]
    issuer = "GENERAL"  # long enough for chance not to write it
    for instance in held:
        instance.SeriesNumber = instance.InstanceNumber = None
        instance.IssuerOfPatientID = issuer
    clinic = Clinic(tmp_path, held)
    clinic.inclusion = including(PatientKey(issuer, "TEST-1"))
    async with clinic.open() as hospital:
        await hospital.harvest()
        names = " ".join(hospital.names()).lower()
        assert all(NAME.fullmatch(name) for name in hospital.names())
    uids = {str(it[k].value) for it in held for k in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")}
    for secret in {*uids, "TEST-1", issuer, "20180312", "Test^Synthetic"}:
        assert secret.lower() not in names
        for digest in ("md5", "sha1", "sha256", "sha512"):
            octets = hashlib.new(digest, secret.encode(), usedforsecurity=False).digest()
            assert octets.hex()[:8] not in names
            assert base64.b32encode(octets)[:8].decode().lower() not in names
        assert uuid.uuid5(uuid.NAMESPACE_OID, secret).hex[:8] not in names


async def test_a_name_is_fixed_at_registration(tmp_path: Path) -> None:
    """Late instances that claim another number or date of the series go where it is."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        late = slice_of(2)
        late.SeriesNumber, late.StudyDate = 99, "20190101"
        clinic.pacs.held.append(late)
        await hospital.harvest()
        assert len({Lfn(tuple(name.split("/"))).parent for name in hospital.names()}) == 1
