"""Character sets: Patient IDs and names are read as they were written, or not at all."""

from __future__ import annotations

import pytest

from mdmfs.hospital.deid.charsets import codec_of, decode
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.refusal import RefusedError
from mdmfs.hospital.deid.tokens import tokens_among
from mdmfs.hospital.deid.walk import Trace
from tests.twins.deidentified import deidentification_of, deidentified, header_of, with_elements


@pytest.mark.parametrize(
    ("declared", "octets", "text"),
    [
        (b"", b"Smith", "Smith"),
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", "山田".encode(), "山田"),
        (b"GB18030", "王小东".encode("gb18030"), "王小东"),
        (b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B^x", "Yamada=山田^x"),
        (b"\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3", "Hong=洪"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 100", b"\x1b-AB\xe4r", "Bär"),
        (b"", b"M\xfcller", None),
        (b"ISO_IR 192", b"\xff\xfe", None),
        (b"", b"\x1b(Zx", "x"),
    ],
)
def test_values_are_decoded_as_declared(declared: bytes, octets: bytes, text: str | None) -> None:
    """PS3.5 section 6.1, with the escape sequences of code extensions."""
    assert decode(octets, codec_of(declared)) == text


@pytest.mark.parametrize("declared", [b"UTF-8", b"ISO_IR 999", b"ISO_IR 100\\ISO_IR 101", b"\\latin1"])
def test_undefined_terms_are_refused(declared: bytes) -> None:
    """PS3.3 C.12.1.1.2 lists the terms; a guess could read another patient's number."""
    with pytest.raises(RefusedError, match="character-set"):
        codec_of(declared)


def test_one_patient_has_one_key_in_every_character_set() -> None:
    """A PACS may convert character sets; the patient is the same."""
    latin = with_elements(
        encode(head(0x00080005, b"CS"), b"ISO_IR 100"), encode(head(0x00100020, b"LO"), "Ä-17".encode("latin_1"))
    )
    utf8 = with_elements(
        encode(head(0x00080005, b"CS"), b"ISO_IR 192"), encode(head(0x00100020, b"LO"), "Ä-17".encode())
    )
    assert header_of(latin).patient == header_of(utf8).patient


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (b"\\ISO 2022 IR 87", "小林".encode("iso2022_jp")),  # two octets of it are NS, those of a word
        (b"", "小林".encode("iso2022_jp")),
        (b"GB18030", "晄 俽".encode("gb18030")),
        (b"", "晄 俽".encode("gb18030")),
        (b"ISO_IR 100", "für".encode("latin_1")),
        (b"", "für".encode()),
    ],
)
def test_octets_of_another_script_in_a_description_are_no_words(declared: bytes, text: bytes) -> None:
    """Some are those of letters and digits; a name would stay in them."""
    elements = encode(head(0x00080005, b"CS"), declared), encode(head(0x0008103E, b"LO"), b"t1 " + text + b" sag")
    assert encode(head(0x0008103E, b"LO"), b"t1 sag") in deidentified(with_elements(*elements))


def test_what_goes_of_another_script_is_remembered() -> None:
    """In letters of ASCII it may stand elsewhere."""
    described = encode(head(0x0008103E, b"LO"), "t1 Müllermann".encode())
    removed = deidentification_of(with_elements(described)).traces.values(Trace.DESCRIPTION)
    assert tokens_among({"other", "muller", "mullermann"}, removed, "ascii") == {"mullermann"}
