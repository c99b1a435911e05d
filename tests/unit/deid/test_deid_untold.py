"""What came as UN, or in Implicit VR under a private tag, in the place of numbers: numbers stay, text goes."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.untold import may_be_descriptor, may_be_numbers
from tests.twins.deidentified import deidentified, elements_of_example, part10, with_elements

B_VALUE: Final = 0x00189087
LUT_DESCRIPTOR: Final = 0x00283002
LUT_DATA: Final = 0x00283006
CREATOR: Final = encode(head(0x00190010, b"LO"), b"SIEMENS MR HEADER")
PHASE_BANDWIDTH: Final = 0x00191028
IMPLICIT: Final = b"1.2.840.10008.1.2"


def implicit(tag: int, value: bytes) -> bytes:
    """Write an element without a VR."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def implicit_file(*added: tuple[int, bytes]) -> bytes:
    """Write the example in Implicit VR, with some elements more."""
    elements = dict(added)
    for tag, element in elements_of_example().items():
        elements[tag] = element[12:] if element[4:6] == b"OW" else element[8:]
    return part10({tag: implicit(tag, value) for tag, value in elements.items()}, IMPLICIT)


TEXTS: Final = [
    b"Jane Doe",
    b"M\xfcller A",
    b"M\xfcller\0\0",
    b"Doe,\r\nJane",
    b"J\0a\0n\0e\0",
    "田中太郎".encode("shift_jis"),
    b"\1\2\3\4\5\6\7\x10Jane Doe",
    b"Jane Doe" + struct.pack("<d", 1000.0),
    b"Jane Do?",
    b"jdoe567@",
    b"H12345>?",
    b"<J. Doe> J.D.? @",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_without_a_vr_in_the_place_of_a_number_goes(text: bytes) -> None:
    """Whatever its characters are, and also if numbers stand beside it."""
    out = deidentified(with_elements(encode(head(B_VALUE, b"UN"), text)))
    assert head(B_VALUE, b"FD") not in out
    private = deidentified(implicit_file((0x00190010, b"SIEMENS MR HEADER "), (PHASE_BANDWIDTH, text)))
    assert head(PHASE_BANDWIDTH, b"FD") not in private
    assert head(0x00190010, b"LO") not in private


@pytest.mark.parametrize("numbers", [(0.0,), (1000.0,), (-0.70710678, 0.1, 1e-7), (131071.99,) * 40])
def test_numbers_without_a_vr_stay(numbers: tuple[float, ...]) -> None:
    """Diffusion and the times of slices need them, and archives with an old dictionary write them as UN."""
    value = struct.pack(f"<{len(numbers)}d", *numbers)
    assert encode(head(B_VALUE, b"FD"), value) in deidentified(with_elements(encode(head(B_VALUE, b"UN"), value)))
    private = implicit_file((0x00190010, b"SIEMENS MR HEADER "), (PHASE_BANDWIDTH, value))
    assert encode(head(PHASE_BANDWIDTH, b"FD"), value) in deidentified(private)


def test_text_with_a_vr_under_a_safe_private_tag_goes() -> None:
    """What is safe of a creator are its numbers; another version of its software may have meant a text."""
    out = deidentified(with_elements(CREATOR, encode(head(PHASE_BANDWIDTH, b"LO"), b"Jane Doe")))
    assert b"Jane" not in out
    assert b"SIEMENS MR HEADER" not in out


def test_a_question_mark_makes_no_text_a_short_number() -> None:
    """Each fourth byte of it may be one that numbers end with; what says nothing is no text."""
    assert not may_be_numbers(b"Ann?MARA", b"FL")
    assert not may_be_numbers(b"ID? 12345 7?", b"FL")
    assert may_be_numbers(struct.pack("<f", 2.0), b"FL")
    assert may_be_numbers(b"--+?", b"FL")


@pytest.mark.parametrize("zeros", [4, 8, 24])
def test_digits_with_zeros_behind_are_no_numbers(zeros: int) -> None:
    """As programs write a text into a field of fixed length; zeros alone are numbers."""
    assert not may_be_numbers(b"84729103" + bytes(zeros), b"FL")
    assert may_be_numbers(struct.pack("<2f", 1000.0, 0.1) + bytes(zeros), b"FL")
    assert may_be_numbers(bytes(zeros), b"FL")


def test_of_integers_without_a_vr_a_single_one_stays() -> None:
    """Two letters fit into 16 bits, three into what is kept of 32; lists of them would spell a name."""
    assert may_be_numbers(b"Jo", b"US")
    assert not may_be_numbers(b"\x4a\0\x61\0\x6e\0", b"US")
    assert may_be_numbers(struct.pack("<i", -70000), b"SL")
    assert not may_be_numbers(b"\xc4nne", b"UL")
    assert not may_be_numbers(b"\0nne", b"UL")
    assert not may_be_numbers(b"\0\0\0\1\0\0\0\0", b"SV")
    assert may_be_numbers(b"\x18\0\x63\x10", b"AT")
    assert not may_be_numbers(b"Anne", b"AT")
    assert not may_be_numbers(b"Ann?", b"AT")
    assert not may_be_numbers(b"\x18\0\x63\x10\x18\0\x64\x10", b"AT")


@pytest.mark.parametrize("value", [b"\4\1\0\0\x10\0", b"\4\0"])
def test_descriptions_of_tables_stay_without_a_vr(value: bytes) -> None:
    """Of three numbers the last says how many bits an entry has."""
    assert encode(head(LUT_DESCRIPTOR, b"US"), value) in deidentified(
        with_elements(encode(head(LUT_DESCRIPTOR, b"UN"), value))
    )


@pytest.mark.parametrize("value", [b"M\xfcller", b"Jane Doe", b"M\xfc\0\0", b"abc", b"Anne\0\0", b"Anne \0"])
def test_text_in_the_place_of_a_table_goes(value: bytes) -> None:
    """A table without a VR could be any text, and so could a description of one."""
    assert not may_be_descriptor(value)
    for tag in (LUT_DESCRIPTOR, LUT_DATA):
        out = deidentified(with_elements(encode(head(tag, b"UN"), value)))
        assert not any(head(tag, vr) in out for vr in (b"US", b"SS", b"OW"))


@pytest.mark.parametrize("tag", [0x00281201, 0x00281221, 0x7FE00001, 0x00420011])
@pytest.mark.parametrize("vr", [b"OB", b"OW"])
def test_fragments_outside_pixel_data_are_refused(tag: int, vr: bytes) -> None:
    """Only Pixel Data is ever encapsulated (PS3.5 section A.4): nothing hides between the fragments of a table."""
    fragments = b"\xff\xff\xff\xff\xfe\xff\0\xe0\x08\0\0\0Jane Doe\xfe\xff\xdd\xe0\0\0\0\0"
    with pytest.raises(RefusedError) as refused:
        deidentified(with_elements(head(tag, vr) + b"\0\0" + fragments))
    assert refused.value.reason is Reason.MALFORMED
