"""What is not let through, and by which name it is refused."""

from __future__ import annotations

import pytest

from mdmfs.hospital.deid.deidentify import deidentify
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.header import IncomingHeader
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.model.errors import InstanceRefusedError
from tests.twins.deidentified import (
    RESEARCH,
    STRICT,
    SUBJECT,
    deidentification_of,
    deidentified,
    elements_of_example,
    example,
    header_of,
    part10,
    with_elements,
    without,
)

SYNTAX = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def reason_of(file: bytes) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file)
    return caught.value.reason


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.7", b"\0"), Reason.SOP_CLASS),
        (encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.88.11", b"\0"), Reason.SOP_CLASS),
        (encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.104.1", b"\0"), Reason.SOP_CLASS),
        (encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.6.1", b"\0"), Reason.SOP_CLASS),
        (encode(head(0x00080008, b"CS"), b"DERIVED\\SECONDARY\\MPR"), Reason.IMAGE_TYPE),
        (encode(head(0x00080008, b"CS"), b"ORIGINAL\\PRIMARY\\SCREEN SAVE"), Reason.IMAGE_TYPE),
        (encode(head(0x00080008, b"CS"), b""), Reason.IMAGE_TYPE),
        (encode(head(0x00280004, b"CS"), b"RGB"), Reason.PHOTOMETRIC),
        (encode(head(0x00280004, b"CS"), b"PALETTE COLOR"), Reason.PHOTOMETRIC),
        (encode(head(0x00280301, b"CS"), b"YES"), Reason.BURNED_IN),
        (encode(head(0x00080064, b"CS"), b"WSD"), Reason.CONVERSION_TYPE),
        (encode(head(0x60000100, b"US"), b"\1\0"), Reason.EMBEDDED_OVERLAY),
        (
            encode(head(0x60000010, b"US"), b"\4\0") + encode(head(0x60000102, b"US"), b"\x0c\0"),
            Reason.EMBEDDED_OVERLAY,
        ),
        (
            encode(head(0x60020100, b"US"), b"\x10\0") + encode(head(0x60023000, b"OW"), b"\0\0"),
            Reason.EMBEDDED_OVERLAY,
        ),
        (encode(head(0x00280010, b"US"), b"\5\0"), Reason.PIXEL_LENGTH),
        (encode(head(0x00280008, b"IS"), b"2"), Reason.PIXEL_LENGTH),
        (encode(head(0x00280008, b"IS"), b"many"), Reason.INVALID_VALUE),
        (encode(head(0x00180050, b"DS"), b"Jane Doe"), Reason.INVALID_VALUE),
        (encode(head(0x00100020, b"LO"), b"  "), Reason.NO_PATIENT),
        (encode(head(0x00100020, b"LO"), b"\xe4\xf6"), Reason.CHARACTER_SET),
        (encode(head(0x00080005, b"CS"), b"ISO_IR 999"), Reason.CHARACTER_SET),
        (encode(head(0x00080005, b"CS"), b"\\ISO 2022 IR 999"), Reason.CHARACTER_SET),
        (encode(head(0x0020000D, b"UI"), b"not a uid"), Reason.NO_IDENTITY),
        (encode(head(0x0020000E, b"UI"), b""), Reason.NO_IDENTITY),
        (encode(head(0x0008010C, b"UI"), b"1.2.3.4", b"\0"), Reason.UNKNOWN_UID),
        (encode(head(0x00080062, b"UI"), CT.encode() + b"\\1.2.3", b"\0"), Reason.UNKNOWN_UID),
        (head(0x00280120, b"US") + b"\3\0abc", Reason.MALFORMED),
        (head(0x00281050, b"DS") + b"\3\0123", Reason.MALFORMED),
        (head(0x00280120, b"XX") + b"\2\0ab", Reason.MALFORMED),
        (encode(head(0x00189073, b"FD"), b"1234"), Reason.MALFORMED),
        (encode(head(0x00020010, b"UI"), b"1.2"), Reason.MALFORMED),
        (head(0x00080015, b"LT") + b"\xfe\xff", Reason.TRUNCATED),
    ],
)
def test_what_is_not_accepted_is_refused_by_name(element: bytes, reason: Reason) -> None:
    """One element of an acceptable image is changed, and the image is refused."""
    if reason is Reason.MALFORMED and element[:2] == b"\2\0":
        file = part10(elements_of_example() | {0x00080005: encode(head(0x00040010, b"LO"), b"x") + element})
        assert reason_of(file) is reason
    else:
        assert reason_of(with_elements(element)) is reason


@pytest.mark.parametrize("tag", [0x00080018, 0x00100020, 0x7FE00010, 0x00280010, 0x00080008])
def test_what_an_image_needs_must_be_there(tag: int) -> None:
    """An image without its identity, patient or pixels is refused."""
    assert reason_of(without(tag)) in {Reason.NO_IDENTITY, Reason.NO_PATIENT, Reason.PIXEL_LENGTH, Reason.IMAGE_TYPE}


@pytest.mark.parametrize(
    "region", [b"HEAD", b"BRAIN", b"NECK", b"WHOLEBODY", b"SMITH", b"", b"Chest"], ids=lambda region: region.decode()
)
def test_heads_and_unknown_regions_are_refused_without_an_agreement(region: bytes) -> None:
    """Faces can be rebuilt from head volumes: what does not say that it is none counts as one."""
    file = with_elements(encode(head(0x00180015, b"CS"), region))
    if region == b"Chest":
        assert b"YES" not in deidentified(file, STRICT)[-200:]
        return
    with pytest.raises(RefusedError, match="head"):
        deidentified(file, STRICT)
    marked = encode(head(0x00280302, b"CS"), b"YES")
    assert marked in deidentified(file, RESEARCH)
    assert marked not in deidentified(example(), RESEARCH)


def test_the_body_part_of_any_frame_counts() -> None:
    """Enhanced objects name regions by code, per frame; one head is enough."""

    def anatomy(code: bytes) -> bytes:
        values = [(0x00080100, b"SH", code), (0x00080102, b"SH", b"SCT"), (0x00080104, b"LO", b"Chest")]
        item = b"".join(encode(head(tag, vr), value) for tag, vr, value in values)
        return encode_items(head(0x00209071, b"SQ"), [encode_items(head(0x00082218, b"SQ"), [item])])

    chest, brain = anatomy(b"816094009"), anatomy(b"12738006")
    assert deidentified(with_elements(encode_items(head(0x52009230, b"SQ"), [chest, chest])), STRICT)
    with pytest.raises(RefusedError, match="head"):
        deidentified(with_elements(encode_items(head(0x52009230, b"SQ"), [chest, brain])), STRICT)


def test_another_patient_is_refused() -> None:
    """A correction at the PACS must not put one patient's image under another's name."""
    header = header_of(example())
    assert header.patient == PatientKey("", "H1234567")
    deidentify(header, RESEARCH, SUBJECT, expected=PatientKey("", "H1234567"))
    for other in (PatientKey("", "H1234568"), PatientKey("AMC", "H1234567")):
        with pytest.raises(RefusedError, match="other-patient"):
            deidentify(header, RESEARCH, SUBJECT, expected=other)


@pytest.mark.parametrize(("sop_class", "instance"), [("1.2.840.10008.5.1.4.1.1.4", ""), (CT, "1.2.3.4.5.9")])
def test_another_instance_than_announced_is_refused(sop_class: str, instance: str) -> None:
    """The header is believed, not the sender's word for it."""
    file = example()
    with pytest.raises(RefusedError, match="other-instance"):
        IncomingHeader(SYNTAX, sop_class, instance).feed(file[read_file_meta(file).size :])


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.94", "1.2.3.4", "", "1.2.840.10008.1.20"],
)
def test_transfer_syntaxes_that_are_not_read_are_refused(syntax: str) -> None:
    """Video, references to a server, private and unknown ones."""
    with pytest.raises(RefusedError, match="transfer-syntax"):
        IncomingHeader(syntax, CT, "1.2.3")


@pytest.mark.parametrize("cut", [1, 2, 16, 31, 32, 33, 40, 44, 45, 60, 200, 300])
def test_an_instance_that_is_cut_off_is_refused(cut: int) -> None:
    """Wherever it ends too early, nothing of it counts as whole."""
    assert reason_of(example()[:-cut]) in {Reason.TRUNCATED, Reason.PIXEL_LENGTH, Reason.NO_IDENTITY, Reason.NO_PATIENT}


@pytest.mark.parametrize("garbage", [b"\0", b"Jane Doe", bytes(8), b"\xfc\xff\xfc\xffOB\0\0\x10\0\0\0"])
def test_what_follows_the_pixels_must_be_elements(garbage: bytes) -> None:
    """Bytes behind the end are somebody's."""
    assert reason_of(example() + garbage) in {Reason.TRUNCATED, Reason.MALFORMED}


def test_a_second_pixel_data_is_refused() -> None:
    """What is behind the pixels is no place for more of them."""
    second = encode(head(0x7FE00010, b"OW"), bytes(32))
    assert reason_of(example() + second) in {Reason.MALFORMED, Reason.PIXEL_LENGTH}


def test_a_header_that_does_not_end_is_refused() -> None:
    """Memory is bounded, whatever a length says."""
    incoming = IncomingHeader(SYNTAX, "", "", max_header_bytes=2**16)
    octets = part10({0x00082111: encode(head(0x00082111, b"UT"), bytes(2**17))})
    with pytest.raises(RefusedError, match="too-large"):
        incoming.feed(octets[read_file_meta(octets).size :])


def test_sequences_without_end_are_refused() -> None:
    """Nesting is bounded: no IOD needs 32 levels."""
    deep = b""
    for _ in range(40):
        deep = encode_items(head(0x00081115, b"SQ"), [deep])
    assert reason_of(with_elements(deep)) is Reason.TOO_DEEP
    opened = (head(0x00081115, b"SQ") + b"\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 40
    assert reason_of(part10({0x00080001: opened})) is Reason.TOO_DEEP


def test_too_much_behind_the_pixels_is_refused() -> None:
    """Padding is removed, but not held without bound."""
    run = deidentification_of(example())
    run.feed(b"")
    with pytest.raises(RefusedError, match="too-large"):
        run.feed(bytes(2**24 + 1))


def test_a_refusal_names_reason_and_tag_and_no_value() -> None:
    """Refusals end in logs and in messages to workers."""
    with pytest.raises(InstanceRefusedError) as caught:
        deidentified(with_elements(encode(head(0x00180050, b"DS"), b"Jane Doe")))
    assert str(caught.value) == "the instance is refused: invalid-value at (0018,0050)"


def test_a_file_that_is_no_dicom_file_is_refused() -> None:
    """Part 10 has a magic number, and meta information that ends."""
    for octets in (b"", b"hello", bytes(200), example()[:140], example()[:150]):
        with pytest.raises(RefusedError):
            deidentified(octets)
