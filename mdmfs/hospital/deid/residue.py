"""The last gate: what was taken away from an instance must not stand anywhere else in its output.

The gate reads the output by itself and knows nothing of rules. Only here does anything become ``Publishable``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import struct
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeAlias, TypeVar

from mdmfs.hospital.deid.deidentify import Deidentification, DeidentifiedPiece, Part
from mdmfs.hospital.deid.elements import LONG_VRS
from mdmfs.hospital.deid.header import Buffer
from mdmfs.hospital.deid.marks import METHOD, METHOD_CODES, PREAMBLE
from mdmfs.hospital.deid.refusal import NO_TAG, Reason, RefusedError
from mdmfs.hospital.deid.tables.dictionary import VRS
from mdmfs.hospital.deid.tokens import (
    BETWEEN,
    IN_CODES,
    MIN_LETTERS,
    MIN_NUMBER_DIGITS,
    MIN_WITHIN,
    ORDINARY,
    Identity,
    identity_of,
    tokens,
    tokens_among,
)
from mdmfs.hospital.deid.veiled import sliced, unveiled, unveiled_octets
from mdmfs.hospital.deid.walk import NUMBER_SIZES, TEXT_VRS, Trace

_DATE_DIGITS: Final = (6, 8)
_MOMENT_DIGITS: Final = (10, 12, 14)
"""With hours, minutes, seconds."""
_WITH_EXPONENT: Final = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)[Ee][+-]?\d+ *")
_ENGINES_OWN: Final = frozenset({METHOD, METHOD_CODES})
_HEAD: Final = struct.Struct("<HH2sH").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from
_DELIMITER_GROUP: Final = 0xFFFE
_HEAD_SIZE: Final = 8
_PIXEL_DATA: Final = 0x7FE00010
_LENGTH_SIZE: Final = 4
_SEARCHED: Final = TEXT_VRS | {b"CS", b"UI", b"IS", b"DS"}
_LISTED: Final = _SEARCHED - TEXT_VRS - {b"CS"}
_OCTETS: Final = frozenset({b"OB", b"OW", b"UN", *NUMBER_SIZES})
"""In tables and numbers of these a text can stand, from four letters on."""
_WRITTEN_NUMBERS: Final = frozenset({b"IS", b"DS"})
_COUNTED: Final = frozenset(
    {
        0x00081160,  # Referenced Frame Number
        0x00181060,  # Trigger Time
        0x00181153,  # Exposure in uAs
        0x00181170,  # Generator Power
        0x00181242,  # Actual Frame Duration
        0x00188150,  # Exposure Time in us
        0x00188151,  # X-Ray Tube Current in uA
        0x00200013,  # Instance Number
        0x00200110,  # Temporal Resolution
        0x00541300,  # Frame Reference Time
        0x00541310,  # Primary (Prompts) Counts Accumulated, and secondary ones
        0x00541311,
    }
)
"""What machines count and measure, mostly from image to image: a long series comes by every number of five digits."""
_SLICE: Final = 2**20
"""Bytes of a table that are taken apart at once: what that takes of memory does not grow with the table."""
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz"
_DIGITS: Final = b"0123456789"
_ONLY_BOTH, _ONLY_LETTERS, _ONLY_DIGITS = (
    bytes(byte if byte in kept else ord(" ") for byte in bytes(range(256)).lower())
    for kept in (_LETTERS + _DIGITS, _LETTERS, _DIGITS)
)
"""Tables that leave letters and digits, or one of both, in lower case, and blanks."""
_MAX_REMEMBERED: Final = 2**14
MAX_SEARCHED: Final = 2**20
"""Bytes of different texts and codes that are searched, and of what for: no object has as many, and each costs 60."""
MAX_DESCRIBED: Final = 16 * MAX_SEARCHED
"""Bytes of different free texts that are taken away: these are taken apart piece by piece."""
MAX_NAMES: Final = MAX_SEARCHED // 16
"""Bytes of different names to search for: each is spelled in many ways."""
_T = TypeVar("_T")
_Found: TypeAlias = tuple[int, bytes, bytes]
"""Tag, VR and value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Publishable:
    """Bytes of a de-identified file that may leave the hospital zone, sealed."""

    octets: Buffer = dataclasses.field(repr=False)
    """For pixels a view into the buffer that was fed: use it before that buffer is written again."""


class ResidueGate:
    """Feeds one instance through its de-identification and lets nothing out before the header was searched as a whole.

    Raises ``RefusedError`` with ``Reason.RESIDUE`` and the tag where something was found, never the value.
    """

    def __init__(self, deidentification: Deidentification) -> None:
        self._deidentification = deidentification

    @property
    def is_slow(self) -> bool:
        """Whether pixels are decoded or stepped through on the way, which takes a thread's time."""
        return self._deidentification.is_slow

    def feed(self, data: Buffer) -> list[Publishable]:
        """Take the next bytes of the instance; gives what may be published of it so far, the header first."""
        return self._searched(self._deidentification.feed(data))

    def finish(self) -> list[Publishable]:
        """Say that no more bytes come; gives the last pieces."""
        return self._searched(self._deidentification.finish())

    def _searched(self, pieces: list[DeidentifiedPiece]) -> list[Publishable]:
        kept = self._deidentification.take_kept()
        if kept and _Suspects(self._deidentification).stand_in(kept):
            raise RefusedError(Reason.RESIDUE, _PIXEL_DATA)
        return [self._refuse_residue(piece) for piece in pieces]

    def _refuse_residue(self, piece: DeidentifiedPiece) -> Publishable:
        if piece.part is Part.HEAD:
            stop = len(piece.octets) - self._deidentification.pixel_head_length
            self._search(*self._without_marks(bytes(piece.octets), len(PREAMBLE), stop))
        elif piece.part is Part.REST:
            self._search(bytes(piece.octets), 0, len(piece.octets))
        return Publishable(piece.octets)

    def _search(self, octets: bytes, start: int, stop: int) -> None:
        suspects = _Suspects(self._deidentification)
        elements = _searchable(octets, start, stop)
        if not suspects.is_clean(elements):
            tags = (element[0] for element in elements if not suspects.is_clean([element]))
            raise RefusedError(Reason.RESIDUE, next(tags, NO_TAG))

    def _without_marks(self, octets: bytes, start: int, stop: int) -> tuple[bytes, int, int]:
        """Leave out what the engine wrote of its own, where it stands byte for byte: it tells of the policy alone."""
        for tag, mark in self._deidentification.marks:
            if tag in _ENGINES_OWN:
                left = octets.replace(mark, b"", 1)
                octets, stop = left, stop - (len(octets) - len(left))
        return octets, start, stop


class _Suspects:
    """What must not be found; a value is only taken apart when there is something to compare it with."""

    def __init__(self, deidentification: Deidentification) -> None:
        self._traces = deidentification.traces
        self._terms = deidentification.policy.terms
        self._ordinary = ORDINARY | self._terms if self._terms else ORDINARY
        retained = self._traces.values(Trace.RETAINED)
        self._is_retaining = bool(retained)
        self._retained = tokens(b"\n".join(retained).decode("ascii"))
        self._label = deidentification.label
        self._number = deidentification.short_number
        self._uids = frozenset(self._traces.values(Trace.UID))
        self._looked_up: set[str] = set()
        self._described: set[str] = set()

    def is_clean(self, elements: list[_Found]) -> bool:
        """Tell whether nothing of it stands in these elements, all of which must be ASCII as the engine writes it."""
        found_texts, found_codes, found_others, octets = [], [], [], []
        for _, vr, value in elements:
            if vr in _LISTED:
                found_others.append(value)
            elif vr == b"CS":
                found_codes.append(value)
            elif vr in _OCTETS:
                octets.append(value)
            elif value != self._label:
                found_texts.append(value)
        texts, codes = (b"\n".join(dict.fromkeys(found)) for found in (found_texts, found_codes))
        others = b"\\".join(found_others).split(b"\\")
        both = texts + b"\n" + codes
        _check_length(both)
        words = tokens(texts.decode("ascii", "replace")) - self._ordinary - self._retained
        if self._describes(words) or not both.isascii() or b"\0" in both:
            return False
        in_codes = _tokens_of_codes(codes) - self._terms
        numbers = _long_numbers(others)
        written = words | in_codes | numbers
        veiled = [*(number.encode() for number in numbers)]
        veiled += [texts] if words or self._is_retaining else []
        veiled += [codes] if in_codes else []
        suspicious = written.union(*map(_within, written))
        return (
            self._uids.isdisjoint([value.rstrip(b"\0") for value in others])
            and not (suspicious and self._identifies(suspicious, in_codes))
            and not (self._number and self._is_written(elements))
            and not self._is_parted(texts)
            and not (octets and self.stand_in(octets))
            and not (veiled and self._are_veiled_in(b"\n".join(veiled)))
        )

    def _describes(self, words: set[str]) -> bool:
        """Tell whether one of some words stood in free text that was taken away.

        That is taken apart once, when the words of all elements are looked up; those of each are among them.
        """
        new = words - self._looked_up
        if new:
            texts = dict.fromkeys(self._traces.values(Trace.DESCRIPTION))
            _check_length(b"".join(texts), MAX_DESCRIBED)
            self._looked_up |= new
            self._described |= tokens_among(new, texts, self._traces.codec)
        return not self._described.isdisjoint(words)

    def _identifies(self, suspicious: set[str], in_codes: frozenset[str]) -> bool:
        """Tell whether one of some tokens names the patient, or one in a code has such a name in its middle."""
        identity = self._identity
        if not suspicious.isdisjoint(identity.tokens):
            return True
        return any(name in code or _begins(name, code) for name in identity.long_names for code in in_codes)

    def _is_parted(self, texts: bytes) -> bool:
        """Tell whether a number of the patient stands in a text, in parts that are too short to tell anything."""
        lines = _joined(texts)
        return any(number in lines for number in self._identity.long_numbers)

    def stand_in(self, octets: list[bytes]) -> bool:
        """Tell whether a name or a long number of the patient stands in octets."""
        words_in = any(not self._identity.octets.isdisjoint(words) for words in _words_in(octets))
        joined = b"\1".join(octets)
        return words_in or any(map(self._is_foreign_in, sliced(joined))) or self._are_veiled_in(joined)

    def _are_veiled_in(self, octets: bytes) -> bool:
        """Tell whether a name or number of the patient stands in octets as digits of hex, base32 or base64."""
        pieces = sliced(octets)
        return any(self._names(_unveiled(one)) or self._is_foreign_in(one, _unveiled_octets) for one in pieces)

    def _is_foreign_in(self, octets: bytes, read: Callable[[bytes], bytes] = bytes) -> bool:
        """Tell whether a name that is not of ASCII alone stands in what is read of octets."""
        foreign, codec = self._identity.foreign, self._traces.codec
        return bool(foreign) and any(name in text for text in _encoded(read(octets), codec) for name in foreign)

    def _names(self, text: str) -> bool:
        """Tell whether something of the patient stands in a text, what is long enough also within a word or number."""
        identity = self._identity
        is_named = not identity.tokens.isdisjoint(tokens(text))
        return is_named or any(token in text for token in identity.long_tokens)

    @functools.cached_property
    def _identity(self) -> Identity:
        names, others = (dict.fromkeys(self._traces.values(kind)) for kind in (Trace.NAME, Trace.IDENTITY))
        _check_length(b"".join(names), MAX_NAMES)
        _check_length(b"".join([*names, *others]))
        return identity_of(tuple(names), tuple(others), self._traces.codec)

    def _is_written(self, elements: list[_Found]) -> bool:
        """Tell whether the patient's number stands in the place of a number, though it is a short one."""
        numbers = [value for tag, vr, value in elements if vr in _WRITTEN_NUMBERS and tag not in _COUNTED]
        return any(abs(float(number)) == self._number for number in b"\\".join(numbers).split(b"\\") if number.strip())


def _begins(name: str, code: str) -> bool:
    """Tell whether a code is the begin of a name: it has room for 16 letters, and some systems give it less."""
    return len(code) >= MIN_WITHIN and name.startswith(code)


def _check_length(octets: bytes, most: int = MAX_SEARCHED) -> None:
    if len(octets) > most:
        raise RefusedError(Reason.TOO_LARGE)


class _OfSeries(Generic[_T]):
    """Remembers what becomes of texts that the images of a series have in common, but of no long ones."""

    def __init__(self, function: Callable[[bytes], _T]) -> None:
        self._function: Final = function
        self._remembered: Final = functools.lru_cache(maxsize=64)(function)

    def __call__(self, text: bytes) -> _T:
        return self._remembered(text) if len(text) <= _MAX_REMEMBERED else self._function(text)


@_OfSeries
def _tokens_of_codes(codes: bytes) -> frozenset[str]:
    """Give what is no word of defined terms in codes, also as they are when nothing parts them."""
    text = codes.decode("ascii")
    return frozenset(tokens(text) | tokens(BETWEEN.sub("", text))) - IN_CODES


@_OfSeries
def _unveiled(octets: bytes) -> str:
    """Give what stands in octets as digits of hex, base32 or base64; also as it is when nothing parts it."""
    text = unveiled(octets)
    return f"{text}\0{BETWEEN.sub('', text)}" if text else ""


_unveiled_octets: Final = _OfSeries(unveiled_octets)


def _encoded(octets: bytes, codec: str) -> Iterator[str]:
    """Read octets in each encoding in which a name may stand among them, in lower case; what is no text is left out."""
    for encoding in (codec, "utf_8", "latin_1"):
        yield octets.decode(encoding, "ignore").lower()
    for encoding in ("utf_16_le", "utf_16_be"):
        yield from (octets[start:].decode(encoding, "ignore").lower() for start in range(2))


@_OfSeries
def _joined(texts: bytes) -> str:
    """Give texts, each a line, as they are when nothing parts them."""
    return BETWEEN.sub("", texts.decode("ascii")).lower()


def _words_in(values: list[bytes]) -> Iterator[list[bytes]]:
    """Give the words and long numbers in octets, also with a zero behind each letter."""
    octets = b"\1".join(values)
    for reading in [octets, octets.replace(b"\0", b"")] if b"\0" in octets else [octets]:
        plain, start = reading.translate(_ONLY_BOTH), 0
        while start < len(plain):
            stop = plain.find(b" ", start + _SLICE)
            runs = [run for run in plain[start : None if stop < 0 else stop].split() if len(run) >= MIN_LETTERS]
            joined = b" ".join(runs)
            numbers = joined.translate(_ONLY_DIGITS).split()
            yield runs
            yield joined.translate(_ONLY_LETTERS).split()
            yield numbers
            yield [each for number in numbers for each in _numbers_in(number)]
            start = len(plain) if stop < 0 else stop


def _numbers_in(digits: bytes) -> list[bytes]:
    return [each.encode() for each in _within(digits.decode())] if len(digits) >= MIN_NUMBER_DIGITS else []


def _long_numbers(values: list[bytes]) -> set[str]:
    """Give the whole numbers that are long enough to be somebody's, however they are written."""
    likely = {value for value in values if len(value) >= MIN_NUMBER_DIGITS and value[1:MIN_NUMBER_DIGITS].isdigit()}
    scaled = [b"%.0f" % float(value) for value in values if _has_exponent(value)]
    whole = (value.split(b".")[0].strip(b" +-") for value in [*likely, *scaled])
    return {number.decode("ascii") for number in whole if number.isdigit() and len(number) >= MIN_NUMBER_DIGITS}


def _has_exponent(value: bytes) -> bool:
    return (b"E" in value or b"e" in value) and _WITH_EXPONENT.fullmatch(value) is not None


def _within(token: str) -> list[str]:
    """Give a number without the zeros before it, and the dates that one begins with that may be a date and time."""
    if not token.isdigit():
        return []
    bare = token.lstrip("0")
    dates = [token[:digits] for digits in _DATE_DIGITS] if len(token) in _MOMENT_DIGITS else []
    return [bare, *dates] if len(bare) >= MIN_NUMBER_DIGITS else dates


def _searchable(octets: bytes, position: int, stop: int) -> list[_Found]:
    """List the elements at every depth that hold text, codes, UIDs or written numbers; raises unless all parses."""
    found: list[_Found] = []
    while position < stop:
        group, number, vr, length = _HEAD(octets, position)
        position += _HEAD_SIZE
        if group == _DELIMITER_GROUP:
            continue
        if vr in LONG_VRS:
            length = _LENGTH(octets, position)[0]
            position += _LENGTH_SIZE
        if vr == b"SQ":
            continue
        if vr in _SEARCHED:
            found.append((group << 16 | number, vr, octets[position : position + length]))
        elif length >= MIN_LETTERS and vr in _OCTETS:
            value = octets[position : position + length]
            found.append(_untold(group << 16 | number, value) if vr == b"UN" else (group << 16 | number, vr, value))
        position += length
    if position != stop:
        raise RefusedError(Reason.MALFORMED)
    return found


def _untold(tag: int, value: bytes) -> _Found:
    """Give what is UN; text that is, because it is too long for its own VR, under that one (PS3.5 section 6.2.2)."""
    own = VRS.get(tag, (b"CS",))[0]
    is_text = own in _SEARCHED and value.isascii() and b"\0" not in value
    return tag, own if is_text else b"UN", value
