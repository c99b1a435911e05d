"""The header of an instance as it arrives: whose it is and what it is, before anything of it may leave."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from mdmfs.hospital.deid.bigendian import BigEndianInstance
from mdmfs.hospital.deid.charsets import CHARACTER_SET_TAG, codec_of, codec_within, decode, in_utf_8
from mdmfs.hospital.deid.classes import MODALITIES
from mdmfs.hospital.deid.elements import (
    Element,
    Elements,
    Head,
    ReadHead,
    read_explicit_head,
    read_implicit_head,
    read_sequence,
)
from mdmfs.hospital.deid.inflate import Inflation
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.scan import Scanner
from mdmfs.hospital.deid.tables.uids import ENCAPSULATED_SYNTAXES

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_HEADER_BYTES: Final = 64 * 2**20

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
NATIVE_SYNTAXES: Final = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED_LITTLE, EXPLICIT_BIG})
"""Their pixels leave as Explicit VR Little Endian; encapsulated ones leave as they came."""

_UID: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")
_INTEGER: Final = re.compile(r"[0-9]{1,12}")
_MAX_UID: Final = 64

_SOP_CLASS: Final = 0x00080016
_SOP_INSTANCE: Final = 0x00080018
_PATIENT_ID: Final = 0x00100020
_ISSUER: Final = 0x00100021


POINTING: Final = frozenset(
    {
        0x00080050,  # Accession Number
        0x00100020,  # Patient ID
        0x00101000,  # Other Patient IDs
        0x00101090,  # Medical Record Locator
        0x00200010,  # Study ID
        0x00380010,  # Admission ID
        0x00380060,  # Service Episode ID
        0x00400009,  # Scheduled Procedure Step ID
        0x00400253,  # Performed Procedure Step ID
        0x00401001,  # Requested Procedure ID
        0x00402016,  # Placer Order Number
        0x00402017,  # Filler Order Number
    }
)
"""The numbers that lead from an object to its patient."""


class IdentifiedHeader:
    """A whole header that still says who the patient is; it never leaves the hospital zone and has no telling repr.

    Made by ``IncomingHeader`` only. ``raw`` gives the text of any other element of the top level.
    """

    def __init__(self, octets: bytes, scanner: Scanner, source: _Source, rest: Buffer) -> None:
        self.whole: Final = octets
        """All bytes of the header, those of the head of Pixel Data included."""
        self.read_head: Final = source.read_head
        self.inflation: Final = source.inflation
        """The stream that the rest must go through, if the instance is deflated."""
        self.rest: Final = rest
        """Bytes after the head of Pixel Data that came in the same piece."""
        self.pixels: Final[Head | None] = scanner.pixels
        """Tag, VR (empty in Implicit VR) and length of Pixel Data, and where its value starts; None without pixels."""
        self.elements: Final[Elements] = scanner.elements
        for place in scanner.nesting:
            self.elements[place] = read_sequence(self.elements[place], octets, source.read_head)
        self.sequences: Final[Elements] = [self.elements[place] for place in scanner.nesting]
        """Those that have items, or could."""
        self.by_tag: Final[dict[int, Element]] = {element[0]: element for element in self.elements}
        """The elements of the top level, in their order."""
        self.codec: Final = codec_of(self.value(CHARACTER_SET_TAG))
        self.transfer_syntax: Final = source.transfer_syntax
        self.sop_class: Final = self._uid(_SOP_CLASS)
        self.sop_instance: Final = self._uid(_SOP_INSTANCE)
        if source.sop_class not in {"", self.sop_class}:
            raise RefusedError(Reason.OTHER_INSTANCE, _SOP_CLASS)
        if source.sop_instance not in {"", self.sop_instance}:
            raise RefusedError(Reason.OTHER_INSTANCE, _SOP_INSTANCE)
        self.study_instance: Final = self._uid(0x0020000D)
        self.series_instance: Final = self._uid(0x0020000E)
        self.patient: Final = self._patient()

    def number(self, tag: int) -> int:
        """Give the number of a US element of the top level; 0 where there is none."""
        return int.from_bytes(self.octets(tag), "little")

    @property
    def frames(self) -> int:
        """Number of Frames (0028,0008), 1 where it is missing; raises where it is no number."""
        text = self.value(0x00280008) or b"1"
        if not _INTEGER.fullmatch(text.decode("latin_1")):
            raise RefusedError(Reason.INVALID_VALUE, 0x00280008)
        return int(text)

    @property
    def modality(self) -> str:
        """Modality (0008,0060); empty where it is missing or none of the defined terms."""
        value = self.value(0x00080060)
        return value.decode() if value in MODALITIES else ""

    @property
    def series_number(self) -> str:
        """Series Number (0020,0011) as digits; empty where it is missing or no number from 0 on."""
        return self._integer(0x00200011)

    @property
    def instance_number(self) -> str:
        """Instance Number (0020,0013) as digits; empty where it is missing or no number from 0 on."""
        return self._integer(0x00200013)

    def value(self, tag: int) -> bytes:
        """Give the value of an element of the top level without its padding; empty where there is none."""
        element = self.by_tag.get(tag)
        return b"" if element is None else self.whole[element[2] : element[3]].strip(b" \0")

    def octets(self, tag: int) -> bytes:
        """Give the value of an element of the top level as it lies there; empty where there is none."""
        element = self.by_tag.get(tag)
        return b"" if element is None else self.whole[element[2] : element[3]]

    def values(self, tags: frozenset[int], *, is_everywhere: bool) -> tuple[bytes, ...]:
        """Give the values of some elements of the top level, or at every depth, without their padding.

        Those of items that are not in ASCII are there in UTF-8 too: an item may have characters of its own.
        """
        found = [self.value(tag) for tag in tags if tag in self.by_tag]
        if is_everywhere:
            found += _nested(self.sequences, tags, self.whole, self.codec)
        return tuple(found)

    def raw(self, tag: int) -> str:
        """Give the text of an element of the top level, each byte a character."""
        return self.value(tag).decode("latin_1")

    def _uid(self, tag: int) -> str:
        uid = self.raw(tag)
        if len(uid) > _MAX_UID or not _UID.fullmatch(uid):
            raise RefusedError(Reason.NO_IDENTITY, tag)
        return uid

    def _integer(self, tag: int) -> str:
        text = self.raw(tag)
        return text if _INTEGER.fullmatch(text) else ""

    def _patient(self) -> PatientKey:
        patient_id = decode(self.value(_PATIENT_ID), self.codec)
        issuer = decode(self.value(_ISSUER), self.codec)
        if patient_id is None or issuer is None:
            raise RefusedError(Reason.CHARACTER_SET, _PATIENT_ID)
        if not patient_id.strip():
            raise RefusedError(Reason.NO_PATIENT, _PATIENT_ID)
        return PatientKey(issuer.strip(), patient_id.strip())


def _nested(sequences: Elements, tags: frozenset[int], octets: bytes, codec: str) -> list[bytes]:
    """List the values of some elements of what is in sequences, at every depth."""
    found: list[bytes] = []
    for item in (item for sequence in sequences for item in sequence[4] or ()):
        within = codec_within(item, octets, codec)
        for value in (octets[start:stop].strip(b" \0") for tag, _, start, stop, _ in item if tag in tags):
            found += [value, *in_utf_8(value, within)]
        found += _nested([element for element in item if element[4]], tags, octets, within)
    return found


class _Source:
    """How the bytes of an instance are written, and what its sender said that it is."""

    __slots__ = ("inflation", "read_head", "sop_class", "sop_instance", "transfer_syntax")

    def __init__(self, transfer_syntax: str, sop_class: str, sop_instance: str) -> None:
        if transfer_syntax not in NATIVE_SYNTAXES and transfer_syntax not in ENCAPSULATED_SYNTAXES:
            raise RefusedError(Reason.TRANSFER_SYNTAX)
        self.transfer_syntax = transfer_syntax
        self.sop_class = sop_class
        self.sop_instance = sop_instance
        self.read_head: ReadHead = read_implicit_head if transfer_syntax == IMPLICIT_LITTLE else read_explicit_head
        self.inflation = Inflation() if transfer_syntax == DEFLATED_LITTLE else None


class IncomingHeader:
    """Takes a data set as a C-STORE delivers it, in any pieces, until its header is whole.

    Raises ``RefusedError`` for a transfer syntax that the engine does not read; so do ``feed`` and ``finish`` for
    everything that PS3.5 does not allow, another class or instance than announced, and a missing patient.
    An empty ``sop_class`` or ``sop_instance`` announces nothing.
    """

    def __init__(
        self, transfer_syntax: str, sop_class: str, sop_instance: str, *, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        self._source = _Source(transfer_syntax, sop_class, sop_instance)
        self._scanner = Scanner(self._source.read_head)
        self._big_endian = BigEndianInstance() if transfer_syntax == EXPLICIT_BIG else None
        self._octets = bytearray()
        self._max_header_bytes = max_header_bytes

    def feed(self, data: Buffer) -> IdentifiedHeader | None:
        """Take the next bytes; gives the header when the head of Pixel Data was in them, else None.

        ``bytes`` are kept as they are until ``Deidentification.feed`` passes them on; other buffers are copied, so the
        caller may use them again at once. An instance in Big Endian is collected as a whole, so that its header is
        only given by ``finish``.
        """
        if self._big_endian is not None:
            self._big_endian.feed(data)
            return None
        inflation = self._source.inflation
        if inflation is None:
            return self._take(data)
        for inflated in inflation.feed(data):
            header = self._take(inflated)
            if header is not None:
                return header
        return None

    def finish(self) -> IdentifiedHeader:
        """Say that the object has ended without Pixel Data; raises if it ended inside an element."""
        if self._big_endian is not None:
            header = self._take(self._big_endian.finish())
            if header is not None:
                return header
        if self._source.inflation is not None:
            self._source.inflation.finish()
        self._scanner.finish(self._octets)
        return IdentifiedHeader(bytes(self._octets), self._scanner, self._source, b"")

    def _take(self, data: Buffer) -> IdentifiedHeader | None:
        if self._octets:
            self._octets += data
        whole: bytes | bytearray = self._octets or bytes(data)
        found = self._scanner.advance(whole)
        if self._scanner.position > self._max_header_bytes:
            raise RefusedError(Reason.TOO_LARGE)
        if found:
            stop = self._scanner.position
            rest = memoryview(whole)[stop:] if isinstance(whole, bytes) else bytes(memoryview(whole)[stop:])
            return IdentifiedHeader(bytes(memoryview(whole)[:stop]), self._scanner, self._source, rest)
        if whole is not self._octets:
            self._octets += whole
        return None
