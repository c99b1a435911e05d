"""A patient's own number in a row of records, and dates, however written: parted, with zeros, in full width."""

from __future__ import annotations

import pytest

from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.ledger.records import AttributeOfRecords, CollectionRecord
from mdmfs.hospital.metadata.rows import RefusedRowError, translate
from tests.twins.deidentified import SUBJECT

KINDS = {"Count": "integer", "Level": "number", "Text": "text", "Note": "note", "Day": "date"}
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


@pytest.mark.parametrize(
    "text",
    [
        "born 4. 3. 69",
        "born 4 / 3 / 69",
        "born 4\u20133\u201369",
        "born \uff14\uff0f\uff13\uff0f\uff16\uff19",
        "born 4 Mar 1969",
        "born 04MAR69",
        "born 4. M\u00e4rz 1969",
        "born March 4, 1969",
        "n\u00e9 le 4 f\u00e9vrier 69",
        "nacido el 4 de marzo de 1969",
        "1969 Mar 4",
        "jane\uff20example",
    ],
)
def test_a_date_in_a_text_refuses_a_row_however_it_is_written(text: str) -> None:
    """It would stay where it is, and all others move."""
    with pytest.raises(RefusedRowError, match="looks like a date"):
        translate({"Text": text}, COLLECTION, PatientKey("", "TEST-1"), SUBJECT)


@pytest.mark.parametrize(
    "text", ["grade 2 may be 3", "3 of 12, then 2", "mark 4", "cT2 cN1, 2-3 nodes", "deceased 2019"]
)
def test_what_is_no_date_in_a_text_is_taken(text: str) -> None:
    """Grades, counts, and a year."""
    assert translate({"Text": text}, COLLECTION, PatientKey("", "TEST-1"), SUBJECT).values == {"Text": text}


@pytest.mark.parametrize(("name", "value"), [("Count", 19690304), ("Count", "19690304"), ("Level", 1.9690304e7)])
def test_a_day_as_a_number_refuses_a_row(name: str, value: str | float) -> None:
    """In an attribute of dates it moves; no day, and no whole number, is any other."""
    with pytest.raises(RefusedRowError, match="reads as a date"):
        translate({name: value}, COLLECTION, PatientKey("", "TEST-1"), SUBJECT)
    others = {"Count": 19691304, "Level": 19690304.5}
    assert translate(others, COLLECTION, PatientKey("", "TEST-1"), SUBJECT).values == others


@pytest.mark.parametrize("day", ["1900-01-01", "19700101", "2000-01-01", "9999-12-31"])
def test_a_day_that_stands_for_none_refuses_a_row(day: str) -> None:
    """Moved, it would tell by how much all others moved."""
    with pytest.raises(RefusedRowError, match="stands for a missing one"):
        translate({"Day": day}, COLLECTION, PatientKey("", "TEST-1"), SUBJECT)
