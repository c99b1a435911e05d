"""De-identification of one instance: its header as a whole, its pixels as they pass, what follows them at the end."""

from __future__ import annotations

import bisect
import dataclasses
import enum
import functools
import re
from collections.abc import Iterable
from typing import Final

from mdmfs.hospital.deid.acceptance import accept
from mdmfs.hospital.deid.charsets import readings
from mdmfs.hospital.deid.decode import native_form, native_length
from mdmfs.hospital.deid.elements import OFFSET_TABLES, Elements, read_elements
from mdmfs.hospital.deid.encode import SHORT_HEAD, head
from mdmfs.hospital.deid.header import (
    EXPLICIT_LITTLE,
    NATIVE_SYNTAXES,
    POINTING,
    RLE_LOSSLESS,
    Buffer,
    IdentifiedHeader,
)
from mdmfs.hospital.deid.marks import file_meta, marks
from mdmfs.hospital.deid.pixels import open_pixels
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.pseudonyms import PatientKey, Subject
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.regions import region_rule
from mdmfs.hospital.deid.rules import compile_rules
from mdmfs.hospital.deid.tables.dictionary import VRS
from mdmfs.hospital.deid.tokens import BETWEEN, ORDINARY, joined_names, orders_of, spelled, tokens
from mdmfs.hospital.deid.walk import Memory, Traces, Walk

ENGINE_GENERATION: Final = 14
"""Part of every rendition: raised whenever the same input gives other bytes than before."""
MAX_REST_BYTES: Final = 16 * 2**20
"""Bytes after Pixel Data: padding and signatures, all of which are removed."""

_PIXEL_VRS: Final = {0x7FE00008: b"OF", 0x7FE00009: b"OD", 0x7FE00010: b"OW"}
_STUDY_DATE: Final = 0x00080020
_NAMES: Final = frozenset(tag for tag, choice in VRS.items() if choice == (b"PN",))
_PIXEL_REPRESENTATION: Final = 0x00280103
_SIGNED: Final = b"\1\0"
_DAY: Final = re.compile(rb"\d{8}")
_WORD: Final = re.compile(r"[a-z]+")
_RUN: Final = re.compile(r"[a-z0-9]{4,}")
_SHORT_NUMBER: Final = re.compile(r"[1-9][0-9]{4,5}")
_NUMBERS: Final = frozenset({0x00100020, 0x00080050, 0x00100030, 0x00101000, 0x00380010})
"""Patient ID, Accession Number, Birth Date, Other Patient IDs, Admission ID."""
_OTHER_NUMBERS: Final = POINTING.union({_STUDY_DATE, 0x00080021, 0x00080022, 0x00080023}) - _NUMBERS
"""What else leads to the patient, and when he was there; step numbers are words at times, which do not count."""
_PLACES: Final = frozenset({0x00080080, 0x00080081})
"""Institution Name and Address."""
_RETAINING: Final = frozenset({Option.DEVICE, Option.INSTITUTION})
"""Under these, texts stay as they are."""


class Part(enum.Enum):
    """Which part of a file a piece belongs to."""

    HEAD = "head"
    """Preamble, file meta information and all elements before Pixel Data, with the head of Pixel Data: one piece."""
    PIXELS = "pixels"
    REST = "rest"
    """All elements after Pixel Data: one piece."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeidentifiedPiece:
    """Bytes of a de-identified file, in order; not publishable before ``ResidueGate`` has let them pass."""

    octets: Buffer = dataclasses.field(repr=False)
    """For pixels a view into the buffer that was fed: use it before that buffer is written again."""
    part: Part


def deidentify(
    header: IdentifiedHeader,
    policy: Policy,
    subject: Subject,
    *,
    expected: PatientKey | None = None,
    memory: Memory | None = None,
) -> Deidentification:
    """De-identify a header; raises ``RefusedError`` if the instance is not accepted or belongs to another patient.

    With the ``memory`` of a series it takes less time, and nothing else is different.
    """
    if expected is not None and expected != header.patient:
        raise RefusedError(Reason.OTHER_PATIENT)
    return Deidentification(header, policy, subject, is_head=accept(header, policy), memory=memory)


class Deidentification:
    """An instance whose header is de-identified and whose pixels are still to come; made by ``deidentify``.

    ``feed`` and ``finish`` give the pieces of a complete Part 10 file: Explicit VR Little Endian with native pixels,
    or the transfer syntax it came in with encapsulated ones.
    """

    def __init__(
        self,
        header: IdentifiedHeader,
        policy: Policy,
        subject: Subject,
        *,
        is_head: bool,
        memory: Memory | None = None,
    ) -> None:
        self.traces: Final = Traces(header.codec)
        """What was taken away; hospital zone only."""
        self.policy: Final = policy
        self.label: Final = subject.label
        """What stands for the patient in the output."""
        self.short_number: Final = _short_number(header.patient.patient_id)
        """The Patient ID as a number of five or six digits; 0 if it is none. Hospital zone only."""
        self._header = header
        self._rules = compile_rules(policy, header.sop_class)
        self._walk = open_walk(header, policy, subject, self.traces)
        if memory is not None:
            self._walk.remember(memory)
        rule = region_rule(header, policy)
        self._is_blanked: Final = rule is not None
        self.is_decoded: Final = rule is not None and header.transfer_syntax not in NATIVE_SYNTAXES
        """Whether compressed frames are decoded, because something in them is blanked."""
        self.is_slow: Final = self.is_decoded or header.transfer_syntax == RLE_LOSSLESS
        """Whether pixels are decoded or stepped through, which takes a thread's time."""
        native = self.is_decoded or header.transfer_syntax in NATIVE_SYNTAXES
        self.transfer_syntax: Final = EXPLICIT_LITTLE if native else header.transfer_syntax
        """Of the output."""
        self.sop_instance: Final = self._walk.pseudonymous_uid(header.sop_instance.encode()).decode()
        """SOP Instance UID of the output."""
        self.marks: Final = marks(policy, is_head=is_head, is_blanked=self._is_blanked)
        """The elements that the engine writes of its own, each with its tag; the same for everybody under a policy."""
        self.is_head: Final = is_head
        """Whether the pixels may show a face: (0028,0302) is YES."""
        self.study_date = ""
        """Study Date as the output has it, ``YYYYMMDD``; empty where it has none, or not just one."""
        pixel_head = self._pixel_head()
        self.pixel_head_length: Final = len(pixel_head)
        """How many bytes at the end of the header are the head of Pixel Data."""
        self._pending: bytes | None = self._write_head() + pixel_head
        self.header_length: Final = len(self._pending)
        """Bytes before the value of Pixel Data; of the whole file where there is none."""
        self._kept: list[bytes] = []
        self._pixels = None if header.pixels is None else open_pixels(header, header.pixels, rule, self._kept)
        self._rest = bytearray()

    def feed(self, data: Buffer) -> list[DeidentifiedPiece]:
        """Take the next bytes of the instance; the first call also gives the head."""
        pieces = self._start()
        for source in self._plain(data):
            self._pass(source, pieces)
        return pieces

    def take_kept(self) -> list[bytes]:
        """Give what stays of the segments of compressed frames in what was fed since this was asked last."""
        kept = self._kept[:]
        self._kept.clear()
        return kept

    def finish(self) -> list[DeidentifiedPiece]:
        """Say that no more bytes come; raises ``RefusedError`` unless the instance has just ended."""
        pieces = self.feed(b"")
        if self._header.inflation is not None:
            self._header.inflation.finish()
        if self._pixels is not None and not self._pixels.has_ended:
            raise RefusedError(Reason.TRUNCATED)
        rest = self._write_rest()
        return [*pieces, DeidentifiedPiece(rest, Part.REST)] if rest else pieces

    def _start(self) -> list[DeidentifiedPiece]:
        if self._pending is None:
            return []
        pieces = [DeidentifiedPiece(self._pending, Part.HEAD)]
        self._pending = None
        self._pass(self._header.rest, pieces)
        return pieces

    def _plain(self, data: Buffer) -> Iterable[Buffer]:
        return [data] if self._header.inflation is None else self._header.inflation.feed(data)

    def _pass(self, data: Buffer, pieces: list[DeidentifiedPiece]) -> None:
        view = memoryview(data)
        taken = 0
        if self._pixels is not None:
            taken, cleaned = self._pixels.take(view)
            pieces += [DeidentifiedPiece(octets, Part.PIXELS) for octets in cleaned]
        self._rest += view[taken:]
        if len(self._rest) > MAX_REST_BYTES:
            raise RefusedError(Reason.TOO_LARGE)

    def _write_head(self) -> bytes:
        elements = self._header.elements
        out = self._walk.dataset(elements, self._rules.top, by_tag=self._header.by_tag)
        tags = list(self._header.by_tag)
        if _STUDY_DATE in tags:
            written_date = out[tags.index(_STUDY_DATE)][SHORT_HEAD:]
            self.study_date = written_date.decode() if _DAY.fullmatch(written_date) else ""
        written = [*self.marks]
        if self.is_decoded:
            written += native_form(self._header)
        if self.transfer_syntax == EXPLICIT_LITTLE:
            written += [(tag, b"") for tag in OFFSET_TABLES if tag in self._header.by_tag]
        for tag, mark in sorted(written, reverse=True):
            place = bisect.bisect(tags, tag)
            if place and tags[place - 1] == tag:
                out[place - 1] = b""
            out.insert(place, mark)
        meta = file_meta(self._header.sop_class.encode(), self.sop_instance.encode(), self.transfer_syntax.encode())
        return b"".join([meta, *out])

    def _pixel_head(self) -> bytes:
        if self._header.pixels is None:
            return b""
        tag, _, length, _ = self._header.pixels
        if self.is_decoded:
            length = native_length(self._header)
        vr = _PIXEL_VRS[tag] if self.transfer_syntax == EXPLICIT_LITTLE else b"OB"
        return head(tag, vr) + b"\0\0" + length.to_bytes(4, "little")

    def _write_rest(self) -> bytes:
        octets = bytes(self._rest)
        elements: Elements = read_elements(octets, 0, len(octets), self._header.read_head)
        if not elements:
            return b""
        if self._header.pixels is None or elements[0][0] <= self._header.pixels[0]:
            raise RefusedError(Reason.MALFORMED, elements[0][0])
        walk = Walk(octets, self._header.read_head, self._rules, self.policy, self._walk.subject, self.traces)
        return b"".join(walk.dataset(elements, self._rules.top))


def _short_number(patient_id: str) -> int:
    digits = BETWEEN.sub("", patient_id).lstrip("0")
    return int(digits) if _SHORT_NUMBER.fullmatch(digits) else 0


def open_walk(header: IdentifiedHeader, policy: Policy, subject: Subject, traces: Traces) -> Walk:
    """Make ready to go through the elements of a header that was accepted."""
    walk = Walk(header.whole, header.read_head, compile_rules(policy, header.sop_class), policy, subject, traces)
    walk.is_signed = header.octets(_PIXEL_REPRESENTATION) == _SIGNED
    is_retaining = not policy.options.isdisjoint(_RETAINING)
    names, numbers = (header.values(tags, is_everywhere=is_retaining) for tags in (_NAMES, _NUMBERS))
    others = header.values(_OTHER_NUMBERS, is_everywhere=True) if is_retaining else ()
    is_device_alone = is_retaining and Option.INSTITUTION not in policy
    places = header.values(_PLACES, is_everywhere=True) if is_device_alone else ()
    walk.forbid(_forbidden(names, numbers, others, places, header.codec))
    return walk


@functools.lru_cache(maxsize=8)
def _forbidden(
    names: tuple[bytes, ...],
    numbers: tuple[bytes, ...],
    others: tuple[bytes, ...],
    places: tuple[bytes, ...],
    codec: str,
) -> frozenset[bytes]:
    """List the words of names, numbers and places in lower case, however they are spelled: once for a series.

    Of places, which a machine may be called after, without such words as any has.
    """
    words = _words(names, codec, _WORD)
    runs = _words(numbers, codec, _RUN)
    runs += [run for run in _words(others, codec, _RUN) if not run.isalpha()]
    orders = [order for run in runs for order in orders_of(run)]
    bare = [number for number in (run.lstrip("0") for run in runs) if _RUN.fullmatch(number)]
    joined = joined_names(_text(names, codec))
    places_own = [word for word in tokens(_text(places, codec)) - ORDINARY if word.isalpha()]
    return frozenset(word.encode() for word in [*words, *runs, *orders, *bare, *joined, *places_own])


def _words(values: tuple[bytes, ...], codec: str, pattern: re.Pattern[str]) -> list[str]:
    """Give the words of names or numbers, also as they are when nothing parts them."""
    text = _text(values, codec)
    return pattern.findall(text) + pattern.findall(BETWEEN.sub("", text))


def _text(values: tuple[bytes, ...], codec: str) -> str:
    return spelled("\0".join(reading for value in values for reading in readings(value, codec)))
