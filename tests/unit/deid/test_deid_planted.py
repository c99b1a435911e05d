"""No planted identifier comes out, wherever it stood."""

from __future__ import annotations

import io

import pydicom
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deidentified import OTHER_SUBJECT, RESEARCH, STRICT, SUBJECT, deidentified, example, with_elements
from tests.twins.planted import Kind, find_planted, planted, planted_file, written


@pytest.mark.parametrize("policy", [STRICT, RESEARCH], ids=lambda policy: policy.name)
@pytest.mark.parametrize("kind", Kind)
def test_no_planted_value_is_left(kind: Kind, policy: Policy) -> None:
    """Every tag of the table at three depths, text beside it, private, unknown, overlays, curves, meta, padding."""
    file, tokens = planted_file(kind)
    assert len(find_planted(file, tokens)) == len(tokens) > 3000
    assert find_planted(deidentified(file, policy), tokens) == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_no_planted_value_is_left_in_other_transfer_syntaxes(syntax: str) -> None:
    """Implicit VR hides which elements are text; deflated ones arrive compressed."""
    file, tokens = planted_file(Kind.CT, depth=1, outside=False, transfer_syntax=syntax)
    assert find_planted(deidentified(file), tokens) == []


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Äneas^Rüdiger"),
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 144", "Люксембург^Роза"),
    ],
)
def test_names_in_other_scripts_are_removed(charset: str | list[str], name: str) -> None:
    """A name goes from all places, whatever character set it is written in."""
    dataset, _ = planted(Kind.MR, depth=0, outside=False)
    dataset.SpecificCharacterSet = charset
    item = Dataset()
    item.PersonName = name
    dataset.PatientName = dataset.OperatorsName = name
    dataset.SeriesDescription = "t1 " + name.partition("^")[0]
    dataset.ReferencedSeriesSequence = Sequence([item])
    file = written(dataset)
    encoded = pydicom.dcmread(io.BytesIO(file)).PatientName.original_string.partition(b"^")[0]
    assert encoded in file
    out = deidentified(file)
    assert encoded not in out
    assert all(part.encode() not in out for part in name.replace("=", "^").split("^"))


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00180022, b"LO"),
        (0x0018115E, b"LT"),
        (0x00189346, b"UT"),
        (0x00181149, b"OB"),
        (0x00180060, b"UC"),
        (0x00189073, b"UN"),
        (0x00280120, b"UN"),
        (0x00280106, b"LT"),
        (0x00281201, b"UN"),
        (0x00283010, b"LO"),
        (0x00081140, b"LO"),
        (0x0020000D + 0x45, b"UN"),
    ],
)
def test_a_tag_with_another_vr_hides_nothing(tag: int, vr: bytes) -> None:
    """Text under a tag that should hold a number, a code or a sequence does not slip through."""
    item = encode(head(tag, vr), b"zqsmuggled")
    out, reason = b"", Reason.INVALID_VALUE
    try:
        out = deidentified(with_elements(item))
    except RefusedError as refusal:
        reason = refusal.reason
    assert reason is Reason.INVALID_VALUE
    assert b"smuggled" not in out


@pytest.mark.parametrize("vr", [b"PN", b"LO", b"UC", b"UT", b"AE", b"AS", b"DA", b"DS"])
def test_a_name_in_capitals_is_no_code_string_if_it_says_what_it_is(vr: bytes) -> None:
    """With the VR of a code, or none, capitals are taken for one."""
    tag = 0x00180022
    assert b"SMUGGLED" not in deidentified(with_elements(encode(head(tag, vr), b"ZQ SMUGGLED")))
    assert encode(head(tag, b"CS"), b"PFP") in deidentified(with_elements(encode(head(tag, b"UN"), b"PFP ")))


@pytest.mark.parametrize("tag", [0x00080060, 0x00080068, 0x00189073])
def test_a_code_string_that_is_none_does_not_stay(tag: int) -> None:
    """Code strings hold capitals, digits and the underscore; other text in them is somebody's."""
    assert b"smuggled" not in deidentified(with_elements(encode(head(tag, b"CS"), b"Jo-smuggled"))).lower()


def test_two_projects_share_no_value() -> None:
    """Under two subjects one image has no UID, date or label in common."""
    file = example()
    one, two = (pydicom.dcmread(io.BytesIO(deidentified(file, RESEARCH, s))) for s in (SUBJECT, OTHER_SUBJECT))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID", "StudyDate", "StudyTime"):
        assert one[keyword].value != two[keyword].value
