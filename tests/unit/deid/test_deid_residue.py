"""The gate: what was removed in one place must not stand in another, and names that are words harm nobody."""

from __future__ import annotations

import itertools

import pytest

from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.residue import ResidueGate
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


def test_nothing_is_published_before_the_header_was_searched() -> None:
    """With a residue in the header not one piece comes out, however much was fed."""
    gate = ResidueGate(deidentification_of(with_elements(NAMED, encode(head(0x00080068, b"CS"), b"VANDERMEULEN"))))
    with pytest.raises(RefusedError):
        gate.feed(bytes(16))


def test_the_gate_gives_what_the_engine_gives() -> None:
    """It searches; it changes nothing."""
    run = deidentification_of(example())
    pieces = run.finish()
    assert b"".join(piece.octets for piece in pieces) == deidentified(example())
    assert ResidueGate(deidentification_of(example())).header_length == run.header_length
