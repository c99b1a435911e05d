"""The tables are those of the standard, and every row of them has a rule."""

from __future__ import annotations

import importlib
from typing import Final

import pytest
from pydicom import uid
from pydicom.datadict import DicomDictionary

from mdmfs.hospital.deid import actions
from mdmfs.hospital.deid.classes import CLASSES
from mdmfs.hospital.deid.codes import UNKNOWN_CODE, known_code
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.profile import PROFILE, SAFE_PRIVATE, Row, required_types
from mdmfs.hospital.deid.rules import compile_rules
from mdmfs.hospital.deid.tables import safe_private
from mdmfs.hospital.deid.tables.dictionary import TIME_OF_DATE, VRS
from mdmfs.hospital.deid.tables.uids import ENCAPSULATED_SYNTAXES, KNOWN_UIDS
from mdmfs.hospital.deid.walk import TEXT_VRS
from tests.twins.deidentified import RESEARCH, STRICT

PEER: Final = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
CT: Final = "1.2.840.10008.5.1.4.1.1.2"
UNKNOWN_TO_PS3_6: Final = 25
"""Tags of the table that the data dictionary of pydicom 3.0.2 does not know; all of them are removed."""


def peer_actions() -> dict[int, str]:
    """Read the basic column as dicom-anonymizer has it, edition 2026c."""
    lists = vars(importlib.import_module(PEER))
    return {
        tag[0] << 16 | tag[1]: name.removesuffix("_TAGS").replace("_STAR", "*").replace("_", "/")
        for name, tags in lists.items()
        if name.endswith("_TAGS") and name != "ALL_TAGS"
        for tag in tags
        if len(tag) == 2
    }


def test_the_basic_column_is_that_of_a_second_source() -> None:
    """Editions 2026c and 2026d have the same 652 rows; masked groups and private elements stand beside them."""
    assert {tag: row.action for tag, row in PROFILE.items()} == peer_actions()


def test_every_row_has_a_rule_at_every_level() -> None:
    """What the dictionary knows has a rule; what it does not know is removed."""
    unknown = [tag for tag in PROFILE if tag >> 16 >= 8 and tag not in VRS]
    assert len(unknown) == UNKNOWN_TO_PS3_6
    assert all(PROFILE[tag].action == "X" for tag in unknown)
    rules = compile_rules(STRICT, CT)
    assert rules.top.keys() == rules.nested.keys() == VRS.keys()


@pytest.mark.parametrize("policy", [STRICT, RESEARCH], ids=lambda policy: policy.name)
def test_text_outside_the_table_is_closed(policy: Policy) -> None:
    """Whatever people can write into is dropped or reduced to reviewed words and codes."""
    open_to_text = {
        actions.keep_words,
        actions.keep_code_value,
        actions.keep_code_meaning,
        actions.keep_code_scheme,
        actions.name_subject,
        actions.keep_zone,
    }
    for sop_class in list(CLASSES)[::4]:
        rules = compile_rules(policy, sop_class)
        for level in (rules.top, rules.nested):
            kept = [rule.apply for rule in level.values() if rule.vr in TEXT_VRS and rule.apply is not actions.drop]
            assert set(kept) <= open_to_text


@pytest.mark.parametrize(
    ("action", "chosen"),
    [
        ("X", "XXX"),
        ("Z", "ZZD"),
        ("D", "DDD"),
        ("U", "UUU"),
        ("X/Z", "XZZ"),
        ("X/D", "XDD"),
        ("Z/D", "ZZD"),
        ("X/Z/D", "XZD"),
        ("X/Z/U*", "UUU"),
    ],
)
def test_compound_actions_are_resolved_by_type(action: str, chosen: str) -> None:
    """PS3.15 Table E.1-1a: remove type 3, empty type 2, replace type 1; references are mapped, not cut."""
    row = Row(action, {})
    assert "".join(row.resolve(required) for required in (None, "2", "1")) == chosen


def test_types_are_those_of_the_iod() -> None:
    """Series Date is optional in CT; Manufacturer is of type 2 there and 1 in enhanced objects."""
    top = required_types(CT, is_nested=False)
    assert 0x00080021 not in top
    assert (top[0x00080070], top[0x00100020], top[0x00080018]) == ("2", "2", "1")
    assert required_types(CT + ".1", is_nested=False)[0x00080070] == "1"
    assert all(required_types(sop_class, is_nested=True) for sop_class in CLASSES)


def test_safe_private_is_the_whole_list_and_the_reviewed_one() -> None:
    """Table E.3.10-1 has 479 rows in edition 2023b."""
    rows = [word for line in safe_private.ROWS.splitlines() for word in line.split("|")[2].split()]
    assert len(rows) == 479
    assert SAFE_PRIVATE["SIEMENS MR HEADER", 0x0019, 0x0C] == b"IS"
    assert SAFE_PRIVATE["GEMS_ACQU_01", 0x0019, 0xBB] == b"DS"


def test_options_choose_their_column() -> None:
    """Retain Modified Dates moves a date that the Basic Profile empties."""
    assert compile_rules(STRICT, CT).top[0x00080020].apply is actions.drop
    assert compile_rules(RESEARCH, CT).top[0x00080020].apply is actions.shift_dates
    only = Policy("p", STRICT.heads, options=frozenset({Option.CLEAN_DESCRIPTORS}))
    assert compile_rules(only, CT).top[0x0008103E].apply is actions.keep_words
    assert compile_rules(only, CT).top[0x00101010].apply is actions.drop


def test_the_dictionary_is_that_of_pydicom() -> None:
    """VRs by tag, dates with their times; a new release of pydicom shows here what has changed."""
    known = {tag: row[0] for tag, row in DicomDictionary.items() if tag >> 16 >= 8 and row[0] != "NONE"}
    assert {tag: b" or ".join(choice).decode() for tag, choice in VRS.items()} == known
    assert TIME_OF_DATE[0x00080020] == 0x00080030
    assert all(VRS[date] == (b"DA",) and VRS[time] == (b"TM",) for date, time in TIME_OF_DATE.items())


def test_uids_are_those_of_the_registry() -> None:
    """PS3.6 Annex A; encapsulated transfer syntaxes are those of still images."""
    assert {uid.CTImageStorage, uid.ExplicitVRLittleEndian} <= KNOWN_UIDS
    assert {uid.JPEG2000Lossless, uid.RLELossless, uid.JPEGLSLossless, uid.HTJ2KLossless} <= ENCAPSULATED_SYNTAXES
    assert not {uid.MPEG2MPML, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian} & ENCAPSULATED_SYNTAXES


def test_codes_are_known_by_scheme_and_value() -> None:
    """SNOMED CT and its older designators name one concept; the same value under another scheme is none."""
    assert known_code(b"SCT", b"10200004").meaning == b"Liver"
    assert known_code(b"SRT", b"T-62000").meaning == b"Liver"
    assert known_code(b"DCM", b"10200004") is UNKNOWN_CODE
    assert known_code(b"99HOSP", b"LIVER") is UNKNOWN_CODE
