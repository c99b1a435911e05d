"""The gate: what was removed in one place must not stand in another, and names that are words harm nobody."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.residue import ResidueGate
from mdmfs.hospital.deid.walk import Trace
from tests.twins.deidentified import deidentification_of, deidentified, example, with_elements

NAMED = encode(head(0x00100010, b"PN"), b"Vandermeulen^Josephina^^Prof^Junior")
NUMBERED = encode(head(0x00100020, b"LO"), b"84729103")

SYLLABLES = ("an", "ber", "co", "dra", "el", "fis", "gu", "hof", "in", "jo")
ORDINARY_NAMES = [
    "Li",
    "Ng",
    "MR",
    "Head",
    "Philips",
    "Siemens",
    "Axial",
    "Brain",
    "Long",
    "Short",
    "White",
    "Gray",
    "Rest",
    "Stone",
    "Original",
    "Primary",
    "Other",
    "Chest",
    "Field",
    "Young",
    "Basic",
    "Clean",
    "Removed",
    "Policy",
    "Annex",
    "Research",
    "Modified",
    "Phase",
    "Body",
    "Abdomen",
    "Liver",
    "Standard",
    "Yes",
    "No",
    "Ma",
    "Wu",
    "Oh",
]
SURNAMES = [*ORDINARY_NAMES, *("".join(parts).title() for parts in itertools.product(SYLLABLES, repeat=3))]


@pytest.mark.parametrize(
    "leak",
    [
        encode(head(0x00080068, b"CS"), b"VANDERMEULEN"),
        encode(head(0x00080008, b"CS"), b"ORIGINAL\\PRIMARY\\JOSEPHINA"),
        encode(head(0x00185100, b"CS"), b"HFS VANDERMEULEN"),
        encode(head(0x00200012, b"IS"), b"84729103"),
        encode(head(0x00181060, b"DS"), b"1\\84729103"),
        encode(head(0x00185100, b"CS"), b"A84729103"),
        encode_items(head(0x00081115, b"SQ"), [encode(head(0x00080068, b"CS"), b"VANDERMEULEN")]),
    ],
)
def test_a_value_that_was_removed_elsewhere_is_found(leak: bytes) -> None:
    """Codes and numbers are kept by type; the patient's own name or number in one refuses the instance."""
    with pytest.raises(RefusedError, match=r"residue at \([0-9a-f]{4},[0-9a-f]{4}\)$"):
        deidentified(with_elements(NAMED, NUMBERED, leak))


LATIN: Final = encode(head(0x00080005, b"CS"), b"ISO_IR 100")
NAMES: Final = [
    ("Müller^Jürgen".encode("latin_1"), b"MULLER"),
    ("Müller^Jürgen".encode("latin_1"), b"ORIGINAL\\JUERGEN"),
    ("Sørensen^Åse".encode("latin_1"), b"SORENSEN"),
    ("Sørensen^Åse".encode("latin_1"), b"SOERENSEN"),
    ("Weiß^Jo".encode("latin_1"), b"WEISS"),
    (b"O'Hannigan^Jo", b"OHANNIGAN"),
    (b"Meyer-Landrut^Jo", b"MEYERLANDRUT"),
    (b"von der Aue^Jo", b"VONDERAUE"),
    (b"Doe^Jo^M^^\\Vandermeulen^Jo", b"VANDERMEULEN"),
]


@pytest.mark.parametrize(("name", "code"), NAMES)
@pytest.mark.parametrize("declared", [LATIN, encode(head(0x00080005, b"CS"), b"")])
def test_a_name_is_found_as_it_is_spelled_in_a_code(name: bytes, code: bytes, declared: bytes) -> None:
    """Code strings have neither accents nor apostrophes, and many senders do not say in what their names are."""
    named, coded = encode(head(0x00101001, b"PN"), name), encode(head(0x00185100, b"CS"), code)
    assert deidentified(with_elements(declared, named))
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(declared, named, coded))


def test_a_name_in_utf_8_that_nobody_declared_is_found() -> None:
    """It is no ASCII, which is what an object without a character set is in."""
    named, coded = "Müller^Jo".encode(), encode(head(0x00185100, b"CS"), b"MUELLER")
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(encode(head(0x00100010, b"PN"), named), coded))


@pytest.mark.parametrize(
    ("patient_id", "vr", "number"),
    [
        (b"1234567", b"IS", b"0001234567"),
        (b"0001234567", b"IS", b"1234567"),
        (b"1234567", b"IS", b"+1234567"),
        (b"1234567", b"IS", b"-1234567"),
        (b"1234567", b"DS", b"1.5\\1234567.0"),
        (b"1234567", b"DS", b"1.5\\1234567E0"),
        (b"1234567", b"DS", b"+1.234567e+06"),
        (b"1234567", b"DS", b"123456.7E1"),
        (b"1234567", b"DS", b"123456700E-2"),
        (b"12-34-567", b"IS", b"1234567"),
        (b"12 34 567", b"CS", b"NO 1234567"),
        (b"1234567", b"CS", b"0001234567"),
        (b"H 12-345", b"CS", b"H12345"),
    ],
)
def test_a_number_is_found_however_it_is_written(patient_id: bytes, vr: bytes, number: bytes) -> None:
    """With zeros before it, a sign, a point, an exponent, or without what parts it."""
    tag = {b"IS": 0x00200012, b"DS": 0x00181060, b"CS": 0x00185100}[vr]
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(encode(head(0x00100020, b"LO"), patient_id), encode(head(tag, vr), number)))


@pytest.mark.parametrize("moment", [b"1950123118", b"195012311830", b"19501231183000", b"19501231183000.25"])
def test_a_date_is_found_that_a_moment_begins_with(moment: bytes) -> None:
    """A birth date with the hour is one."""
    birth = encode(head(0x00100030, b"DA"), b"19501231")
    with pytest.raises(RefusedError, match="residue"):
        deidentified(with_elements(birth, encode(head(0x00181060, b"DS"), moment)))


def test_a_number_with_zeros_before_it_is_no_short_one() -> None:
    """Instance numbers are written that way."""
    numbered = encode(head(0x00100020, b"LO"), b"00012"), encode(head(0x00080050, b"SH"), b"12345")
    assert deidentified(with_elements(*numbered, encode(head(0x00200012, b"IS"), b"0012345")))


def test_a_value_that_is_too_long_for_its_vr_is_searched_too() -> None:
    """It is written as UN (PS3.5 section 6.2.2), under which its own VR still counts."""
    long = b"\\".join([b"AXIAL"] * 11_000)
    private = encode(head(0x20010010, b"LO"), b"Philips Imaging DD 001")
    for tag in (0x00181048, 0x20011004):
        elements = [NAMED, private, encode(head(tag, b"CS"), long)]
        assert deidentified(with_elements(*elements))
        with pytest.raises(RefusedError, match=f"residue at .{tag >> 16:04x},{tag & 0xFFFF:04x}"):
            deidentified(with_elements(*elements[:2], encode(head(tag, b"CS"), long + b"\\VANDERMEULEN")))


def test_prefixes_and_suffixes_of_names_are_words() -> None:
    """Prof and Junior say nothing about who it is."""
    assert deidentified(with_elements(NAMED, encode(head(0x00080068, b"CS"), b"PROF JUNIOR")))


@pytest.mark.parametrize("patient_id", [b"1", b"512", b"MR", b"0001", b"20180312"])
def test_surnames_and_short_numbers_do_not_refuse_clean_images(patient_id: bytes) -> None:
    """A thousand surnames and the shortest numbers: none is found in an image that does not hold it."""
    numbered = encode(head(0x00100020, b"LO"), patient_id)
    for surname in SURNAMES if patient_id == b"1" else ORDINARY_NAMES:
        named = encode(head(0x00100010, b"PN"), f"{surname}^{surname}".encode())
        assert deidentified(with_elements(named, numbered))
    assert len(SURNAMES) > 1000


@pytest.mark.parametrize("name", [b"Norm^Al", b"Wall^Jo"])
def test_a_name_that_machines_write_into_most_image_types_refuses_no_series(name: bytes) -> None:
    """Of MR that was normalized, and of the walls of a heart; that such a term stands there says nothing."""
    named = encode(head(0x00081070, b"PN"), name)
    kind = encode(head(0x00080008, b"CS"), b"ORIGINAL\\PRIMARY\\M\\ND\\" + name[:4].upper())
    assert deidentified(with_elements(named, kind))


def test_nothing_is_published_before_the_header_was_searched() -> None:
    """With a residue in the header not one piece comes out, however much was fed."""
    gate = ResidueGate(deidentification_of(with_elements(NAMED, encode(head(0x00080068, b"CS"), b"VANDERMEULEN"))))
    with pytest.raises(RefusedError):
        gate.feed(bytes(16))


class CountedText(bytes):
    """A text that counts how often it is looked for among others, which is whenever they are taken apart."""

    times = 0

    def __hash__(self) -> int:
        """Count."""
        CountedText.times += 1
        return super().__hash__()


def test_free_text_is_taken_apart_once_however_many_elements_are_searched() -> None:
    """It may be long, and where something is found each element is searched by itself to name it."""
    typed = [encode(head(tag, b"LO"), b"TE1000") for tag in (0x0008103E, 0x00181030)]
    run = deidentification_of(with_elements(NAMED, *typed, encode(head(0x00185100, b"CS"), b"VANDERMEULEN")))
    CountedText.times = 0
    run.traces.add(Trace.DESCRIPTION, CountedText(b"seen before"))
    with pytest.raises(RefusedError) as refused:
        ResidueGate(run).feed(b"")
    assert refused.value.tag == 0x00185100
    assert CountedText.times == 1


def test_free_text_is_not_taken_apart_for_a_code_that_the_engine_has_removed() -> None:
    """What stands in its place is the engine's own word, and many objects have such a code."""
    code = encode(head(0x00080100, b"SH"), b"X1") + encode(head(0x00080102, b"SH"), b"99LOCAL")
    run = deidentification_of(with_elements(NAMED, encode_items(head(0x00082218, b"SQ"), [code])))
    CountedText.times = 0
    run.traces.add(Trace.DESCRIPTION, CountedText(b"seen before"))
    assert b"99MDMFS" in bytes(ResidueGate(run).feed(b"")[0].octets)
    assert CountedText.times == 0


def test_the_gate_gives_what_the_engine_gives() -> None:
    """It searches; it changes nothing."""
    run = deidentification_of(example())
    pieces = run.finish()
    assert b"".join(piece.octets for piece in pieces) == deidentified(example())
