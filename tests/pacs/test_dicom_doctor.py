"""What the doctor and the harvest learn from real PACSs: their services, contexts and limits."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mdmfs.hospital.dicom.pacs import Politeness
from mdmfs.hospital.dicom.probe import visit
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.model.errors import RecallFailedError
from tests.twins.images import ct_slice
from tests.twins.servers import dcmqrscp, orthanc, pynetdicom_scp, store


async def test_a_visit_tells_what_a_pacs_offers(tmp_path: Path) -> None:
    """C-GET and C-MOVE of Orthanc, C-MOVE alone of a dcmqrscp that is told so, C-GET alone of pynetdicom's."""
    with orthanc(tmp_path) as address:
        seen = await visit(address, Politeness())
        assert seen.services == ("C-FIND", "C-GET", "C-MOVE")
        assert seen.accepted > 100
        assert not seen.refused_classes
    with dcmqrscp(tmp_path, ["--disable-get"]) as address:
        assert (await visit(address, Politeness())).services == ("C-FIND", "C-MOVE")
    with pynetdicom_scp([ct_slice(1)]) as address:
        assert (await visit(address, Politeness())).services == ("C-FIND", "C-GET")


async def test_orthancs_limit_of_answers_is_gone_round_or_told(tmp_path: Path) -> None:
    """More studies than it names at once are found by their dates; a list of instances that is cut is an error."""
    held = []
    for study in range(1, 10):
        instance = ct_slice(1, study=study, series=study)
        instance.StudyDate = f"{dt.date(2010, 1, 1) + dt.timedelta(days=100 * study):%Y%m%d}"
        held.append(instance)
    held += [ct_slice(number, study=1, series=1) for number in range(2, 8)]
    for instance in held[9:]:
        instance.StudyDate = held[0].StudyDate
    with orthanc(tmp_path, {"LimitFindResults": 4, "LimitFindInstances": 4}) as address:
        store(address, held)
        async with open_pacs(address) as pacs:
            found = await pacs.find_series(patient_id="TEST-1")
            assert len({series.study_uid for series in found}) == 9
            uids = {"study_uid": str(held[0].StudyInstanceUID), "series_uid": str(held[0].SeriesInstanceUID)}
            with pytest.raises(RecallFailedError, match="may limit its answers"):
                await pacs.find_instances(**uids)
