"""A patient's own number in a row of records, however it is written: as a number, parted, with zeros, in full width."""

from __future__ import annotations

import pytest

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.ledger.records import AttributeOfRecords, CollectionRecord
from mdmfs.hospital.metadata.rows import RefusedRowError, translate
from tests.twins.deidentified import SUBJECT

KINDS = {"Count": "integer", "Level": "number", "Text": "text", "Note": "note"}
COLLECTION = CollectionRecord("neuro", "followup", "/", [AttributeOfRecords(n, k, n) for n, k in KINDS.items()], [])

FULL_WIDTH = "".join(chr(ord(digit) + 0xFEE0) for digit in "8472910")
"""As text in Japanese has digits."""


@pytest.mark.parametrize(
    ("patient_id", "name", "value"),
    [
        ("8472910", "Count", 8472910),
        ("8472910", "Count", "8472910.0"),
        ("0008472910", "Count", "8472910"),
        ("H-84.729.10", "Count", "8472910"),
        ("8472910", "Level", "+8.472910e6"),
        ("0008472910", "Level", 8472910.0),
        ("12345678901234567890", "Level", "12345678901234567890"),
        ("8472910", "Note", "seen as 84 729 10"),
        ("0008472910", "Note", "seen as 8472910"),
        ("8472910", "Note", "seen as 00/8472910"),
        ("H-84.729.10", "Note", "seen as h84729-10"),
        (FULL_WIDTH, "Note", "seen as 8472910"),
        ("8472910", "Note", f"seen as {FULL_WIDTH}"),
    ],
)
def test_the_patients_own_number_refuses_a_row(patient_id: str, name: str, value: str | float) -> None:
    """It would lead everybody who knows it to the subject."""
    with pytest.raises(RefusedRowError, match=f"^{name}: the patient's own number stands in it$"):
        translate({name: value}, COLLECTION, PatientKey("", patient_id), SUBJECT)


@pytest.mark.parametrize("patient_id", ["1234", "TEST-1", "0001234", "84729101"])
def test_other_numbers_are_taken(patient_id: str) -> None:
    """A short number is anything's."""
    values = {"Count": 1234, "Level": 8472910.5}
    assert translate(values, COLLECTION, PatientKey("", patient_id), SUBJECT).values == values
