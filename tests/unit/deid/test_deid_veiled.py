"""Names and numbers that stand in an output in hex, base32 or base64 refuse it as they do when they are plain."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import pytest

from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.veiled import SLICE, sliced, unveiled
from tests.twins.deidentified import deidentified, with_elements

DEVICE: Final = Policy.parse('name = "d"\nheads = "agreement"\noptions = ["retain-device", "retain-modified-dates"]')
NAME: Final = encode(head(0x00100010, b"PN"), b"Vandermeulen^Jan")
NUMBER: Final = encode(head(0x00100020, b"LO"), b"48213977")
STEP: Final = b"48213977".hex().encode()
SERIAL: Final = 0x00181000
SEQUENCE: Final = 0x00180020
EXPOSURE: Final = 0x00181151
TABLE: Final = 0x00281201
DESCRIPTOR: Final = 0x00283002
"""Device Serial Number, Scanning Sequence, X-Ray Tube Current, a lookup table and a description of one."""

VEILED: Final = {
    "a serial number in hex": encode(head(SERIAL, b"LO"), STEP),
    "in hex, as a dump parts it": encode(head(SERIAL, b"LO"), b"48213977".hex("-").encode()),
    "in hex of 16 bits": encode(head(SERIAL, b"LO"), "Vandermeulen".encode("utf-16-le").hex().encode()),
    "in hex behind another digit": encode(head(SERIAL, b"LO"), b"7" + b"Vandermeulen".hex().upper().encode()),
    "in base64": encode(head(SERIAL, b"LO"), base64.b64encode(b"Vandermeulen")),
    "in base64 with other words": encode(head(SERIAL, b"LO"), base64.b64encode(b"id=48213977;v=2")),
    "in base64 of URLs": encode(head(SERIAL, b"LO"), base64.urlsafe_b64encode(b"\xfb\xff\xbf 48213977")),
    "in base64 behind a letter": encode(head(SERIAL, b"LO"), b"x" + base64.b64encode(b"48213977").rstrip(b"=")),
    "in base64 where others end in letters": encode(head(SERIAL, b"LO"), b"9VmFuZGVybWV1bGVuU"),
    "in hex between letters": encode(head(SERIAL, b"LO"), b"78" + b"Vandermeulen".hex().encode() + b"79"),
    "in hex between digits": encode(head(SERIAL, b"LO"), b"34" + STEP + b"35"),
    "in base32": encode(head(SERIAL, b"LO"), base64.b32encode(b"Vandermeulen")),
    "a code in hex": encode(head(SEQUENCE, b"CS"), STEP),
    "a code in base32": encode(head(SEQUENCE, b"CS"), base64.b32encode(b"48213977").rstrip(b"=")),
    "a number in hex": encode(head(EXPOSURE, b"DS"), STEP),
    "a table in base64": encode(head(TABLE, b"OW"), b"\1\2\3\0" + base64.b64encode(b"Vandermeulen") + bytes(20)),
    "a table in hex": encode(head(TABLE, b"OW"), b"\1\2\3\0" + STEP + bytes(20)),
    "letters of 16 bits in base64": encode(
        head(TABLE, b"OW"), base64.b64encode(b"48213977").decode().encode("utf-16-le")
    ),
    "numbers in base64": encode(head(DESCRIPTOR, b"US"), base64.b64encode(b"48213977")),
}


@pytest.mark.parametrize("leak", VEILED.values(), ids=VEILED)
def test_what_is_veiled_is_found(leak: bytes) -> None:
    """It passes in an image of somebody else."""
    with pytest.raises(RefusedError) as caught:
        deidentified(with_elements(NAME, NUMBER, leak), DEVICE)
    assert caught.value.reason is Reason.RESIDUE
    assert caught.value.tag == int.from_bytes(leak[:2], "little") << 16 | int.from_bytes(leak[2:4], "little")
    assert deidentified(with_elements(leak), DEVICE)


FOREIGN: Final = {
    "Latin 1": ("Jürgens", b"ISO_IR 100", "latin_1"),
    "Latin 1 in capitals": ("JÜRGENS", b"ISO_IR 100", "latin_1"),
    "UTF-8, though another is declared": ("Jürgens", b"ISO_IR 100", "utf_8"),
    "UTF-16": ("Jürgens", b"ISO_IR 192", "utf_16_le"),
    "Cyrillic": ("Иванова", b"ISO_IR 144", "iso8859_5"),
    "Cyrillic in UTF-16": ("Иванова", b"ISO_IR 192", "utf_16_be"),
}


@pytest.mark.parametrize(("name", "declared", "encoding"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("write", [bytes, lambda octets: octets.hex().encode(), base64.b64encode, base64.b32encode])
def test_names_that_are_not_ascii_are_found_in_tables(
    name: str, declared: bytes, encoding: str, write: Callable[[bytes], bytes]
) -> None:
    """As they are, and veiled, in whatever encoding they stand there."""
    charset = encode(head(0x00080005, b"CS"), declared)
    stored = {b"ISO_IR 100": "latin_1", b"ISO_IR 144": "iso8859_5", b"ISO_IR 192": "utf_8"}[declared]
    named = encode(head(0x00100010, b"PN"), name.encode(stored))
    leak = encode(head(TABLE, b"OW"), b"\1\2\3" + write(name.encode(encoding)) + bytes(21))
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(charset, named, NUMBER, leak), DEVICE)
    assert deidentified(with_elements(charset, NUMBER, leak), DEVICE)


@pytest.mark.parametrize("place", [-24, -12, -1, 0, 1000, 2000])
def test_long_tables_are_searched_in_slices(place: int) -> None:
    """Wherever at the edge of two something stands; what that takes of memory does not grow with the tables."""
    size = 2**17 - 100
    tables = [bytearray(size), bytearray(size), bytearray(size)]
    start = SLICE - 2 * (size + 1) + place
    tables[2][start : start + 24] = b"Vandermeulen".hex().encode()
    leak = b"".join(encode(head(TABLE + number, b"OW"), bytes(table)) for number, table in enumerate(tables))
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(NAME, leak), DEVICE)
    assert max(map(len, sliced(bytes(3 * SLICE)))) < 2 * SLICE


def test_a_number_of_five_digits_is_found_in_hex() -> None:
    """Ten digits in a row that each follow a 3 are no coincidence."""
    leak = encode(head(EXPOSURE, b"DS"), b"48213".hex().encode())
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(encode(head(0x00100020, b"LO"), b"48213"), leak))


ORDINARY: Final = (b"MONOCHROME2\\ORIGINAL\\PRIMARY", b"1.5 -0.25 17", b"\0\1\2\xff\xfe", b"CT MR PT")


@pytest.mark.parametrize("octets", ORDINARY)
def test_ordinary_words_and_numbers_stand_for_themselves(octets: bytes) -> None:
    """Nothing is made of what images of all machines have."""
    assert not unveiled(octets)
