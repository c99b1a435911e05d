"""The part of a header that says who and where: a person written into every place where real headers hold one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, generate_uid

from mdmfs.demo.people import Person

PRIVATE_GROUP: Final = 0x0029
PRIVATE_CREATOR: Final = "MDMFS DEMONSTRATION"
_CSA_CREATOR = "SIEMENS CSA HEADER"
_SCHEME = "99MDMFSDEMO"


def planted_uid(*parts: object) -> UID:
    """Make the UID that these words always give; under pydicom's root, at most 64 characters."""
    return generate_uid(entropy_srcs=["mdmfs demonstration", *(str(part) for part in parts)])


def fill(dataset: Dataset, values: Mapping[str, object]) -> Dataset:
    """Set the elements with these keywords, and give the data set back."""
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def item(values: Mapping[str, object]) -> Dataset:
    """Make an item of a sequence."""
    return fill(Dataset(), values)


def items(*members: Mapping[str, object]) -> Sequence:
    """Make a sequence of items."""
    return Sequence([item(member) for member in members])


def code(value: str, scheme: str, meaning: str) -> Sequence:
    """Make a code sequence of one item (PS3.3 Table 8.8-1)."""
    return items({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning})


def reference(sop_class: UID, sop_instance: UID) -> dict[str, object]:
    """Make the members of a reference to an instance (PS3.3 Table 10-11)."""
    return {"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": sop_instance}


def identify(dataset: Dataset, person: Person, series: int) -> None:
    """Write a person and their visit into a data set, over whatever stood there; UIDs stay as they are."""
    dataset.SpecificCharacterSet = person.character_set
    fill(dataset, _patient(person))
    fill(dataset, _study(person))
    fill(dataset, _series(person, series))
    fill(dataset, _equipment(person))
    _plant_private_elements(dataset, person)


def date_all(dataset: Dataset, person: Person) -> None:
    """Set every date that a data set holds, at any depth, to the day of the study; birth dates stay."""
    for element in dataset.iterall():
        if element.VR == "DA" and element.keyword != "PatientBirthDate" and element.value:
            element.value = person.study_date


def _patient(person: Person) -> dict[str, object]:
    """PS3.3 section C.7.1.1, Patient, and C.7.2.2, Patient Study."""
    return {
        "PatientName": person.name,
        "PatientID": person.patient_id,
        "IssuerOfPatientID": person.issuer,
        "PatientBirthDate": person.birth_date,
        "PatientSex": person.sex,
        "PatientAge": f"{int(person.study_date[:4]) - int(person.birth_date[:4]):03d}Y",
        "PatientSize": "1.71",
        "PatientWeight": "68.5",
        "OtherPatientNames": f"{person.family.upper()}^{person.given.upper()}",
        "OtherPatientIDsSequence": items(
            {"PatientID": person.other_patient_id, "IssuerOfPatientID": person.issuer, "TypeOfPatientID": "TEXT"}
        ),
        "PatientBirthName": person.mother,
        "PatientMotherBirthName": person.mother,
        "PatientAddress": person.address,
        "PatientTelephoneNumbers": person.telephone,
        "PatientComments": person.comment,
        "AdditionalPatientHistory": f"Seen before as {person.other_patient_id}. {person.comment}",
    }


def _study(person: Person) -> dict[str, object]:
    """PS3.3 section C.7.2.1, General Study, and the visit."""
    staff = {
        "PersonIdentificationCodeSequence": code(person.operator_id, _SCHEME, person.referring.split("^")[0]),
        "PersonAddress": person.institution_address,
        "PersonTelephoneNumbers": person.referring_telephone,
        "InstitutionName": person.institution,
    }
    return {
        "StudyDate": person.study_date,
        "StudyTime": person.study_time,
        "StudyID": person.study_id,
        "AccessionNumber": person.accession,
        "StudyDescription": f"Follow-up {person.given} {person.family}",
        "ReferringPhysicianName": person.referring,
        "ReferringPhysicianIdentificationSequence": items(staff),
        "PhysiciansOfRecord": person.referring,
        "NameOfPhysiciansReadingStudy": person.referring,
        "RequestingPhysician": person.referring,
        "AdmissionID": person.admission,
        "ReferencedStudySequence": items(
            reference(UID("1.2.840.10008.3.1.2.3.1"), planted_uid(person.key, "referenced study"))
        ),
        "ReferencedPatientSequence": items(
            reference(UID("1.2.840.10008.3.1.2.1.1"), planted_uid(person.key, "referenced patient"))
        ),
    }


def _series(person: Person, series: int) -> dict[str, object]:
    """PS3.3 section C.7.3.1, General Series, with the request behind it."""
    operator = {
        "PersonIdentificationCodeSequence": code(person.operator_id, _SCHEME, person.operator.split("^")[0]),
        "InstitutionName": person.institution,
    }
    request = {
        "AccessionNumber": person.accession,
        "StudyInstanceUID": planted_uid(person.key, "requested study"),
        "RequestedProcedureID": person.requested_procedure,
        "RequestedProcedureDescription": f"Requested for {person.family}, {person.patient_id}",
        "ScheduledProcedureStepID": person.scheduled_step,
        "ScheduledProcedureStepDescription": f"Scheduled by {person.referring.split('^')[0]}",
    }
    return {
        "SeriesNumber": series,
        "SeriesDate": person.study_date,
        "SeriesTime": person.study_time,
        "SeriesDescription": f"Series {series} of {person.family.upper()}",
        "ProtocolName": f"Protocol {person.given}",
        "OperatorsName": person.operator,
        "OperatorIdentificationSequence": items(operator),
        "PerformingPhysicianName": person.operator,
        "RequestAttributesSequence": items(request),
        "ReferencedPerformedProcedureStepSequence": items(
            reference(UID("1.2.840.10008.3.1.2.3.3"), planted_uid(person.key, series, "performed step"))
        ),
        "PerformedProcedureStepID": person.scheduled_step,
        "PerformedProcedureStepStartDate": person.study_date,
        "PerformedProcedureStepStartTime": person.study_time,
        "PerformedProcedureStepDescription": f"Performed by {person.operator.split('^')[0]}",
        "CommentsOnThePerformedProcedureStep": person.comment,
    }


def _equipment(person: Person) -> dict[str, object]:
    """PS3.3 section C.7.5.1, General Equipment, and comments on the image."""
    return {
        "InstitutionName": person.institution,
        "InstitutionAddress": person.institution_address,
        "InstitutionalDepartmentName": person.department,
        "StationName": person.station,
        "DeviceSerialNumber": person.serial,
        "GantryID": person.detector,
        "ImageComments": f"{person.comment}; study {planted_uid(person.key, 'study')}",
    }


def _plant_private_elements(dataset: Dataset, person: Person) -> None:
    """Hide the person in private elements: a name, bytes of no known kind, a sequence, a vendor's header."""
    encoded = person.name.encode("utf-8" if person.character_set == "ISO_IR 192" else "latin-1")
    ours = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    ours.add_new(0x01, "PN", person.name)
    ours.add_new(0x02, "LO", person.patient_id)
    ours.add_new(0x03, "LT", person.comment)
    ours.add_new(0x04, "UN", _padded(b"NAME=" + encoded + b"\0ID=" + person.patient_id.encode()))
    nested = item({"PatientName": person.name, "AccessionNumber": person.accession})
    inner = nested.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    inner.add_new(0x01, "LO", person.telephone)
    ours.add_new(0x05, "SQ", Sequence([nested]))
    csa = dataset.private_block(PRIVATE_GROUP, _CSA_CREATOR, create=True)
    csa.add_new(0x10, "OB", _padded(b"SV10\4\3\2\1" + b"PatientName\0" + encoded + b"\0" * 16 + person.serial.encode()))


def _padded(octets: bytes) -> bytes:
    return octets.ljust(2 * math.ceil(len(octets) / 2), b"\0")
