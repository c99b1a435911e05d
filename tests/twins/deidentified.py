"""The engine as tests use it: a subject, the shipped policies, and a file turned into a de-identified one."""

from __future__ import annotations

import importlib.resources
import itertools
import json
from collections.abc import Iterable
from typing import Final

from mdmfs.hospital.deid.deidentify import Deidentification, deidentify
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.hospital.deid.header import IdentifiedHeader, IncomingHeader
from mdmfs.hospital.deid.marks import file_meta
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.pseudonyms import Subject
from mdmfs.hospital.deid.residue import ResidueGate
from mdmfs.model.subject import SubjectId

SUBJECT: Final = Subject(SubjectId("k7qf3x2mzt5wd4ha"), -7 * 104, 137, bytes(range(32)))
OTHER_SUBJECT: Final = Subject(SubjectId("b2vn5c7xqy3rj6wa"), -7 * 300, 861, bytes(range(32, 64)))


def shipped(name: str) -> Policy:
    """Read a policy that comes with the package."""
    folder = importlib.resources.files("mdmfs.hospital.deid").joinpath("policies")
    return Policy.parse(folder.joinpath(f"{name}.toml").read_text())


def reviewed(*sop_classes: str, is_blanked: bool = False) -> Policy:
    """Make a policy with what research has and structured content, that names closed classes."""
    rule = "blank = [[0, 0, 32, 8]]" if is_blanked else 'review = "two readers, 200 objects of 2025, nothing found"'
    table = "regions" if is_blanked else "reviews"
    options = sorted([*RESEARCH.options, Option.STRUCTURED_CONTENT])
    return Policy.parse(
        f'name = "reviewed"\nheads = "agreement"\noptions = {json.dumps(options)}\n'
        + "".join(f'[[{table}]]\nsop_class = "{sop_class}"\n{rule}\n' for sop_class in sop_classes)
    )


RESEARCH: Final = shipped("research")
STRICT: Final = shipped("strict")


def header_of(file: bytes) -> IdentifiedHeader:
    """Read the header of a file at once."""
    meta = read_file_meta(file)
    incoming = IncomingHeader(meta.transfer_syntax, "", "")
    return incoming.feed(file[meta.size :]) or incoming.finish()


def deidentification_of(file: bytes, policy: Policy = RESEARCH, subject: Subject = SUBJECT) -> Deidentification:
    """De-identify the header of a file."""
    return deidentify(header_of(file), policy, subject)


def deidentified(file: bytes, policy: Policy = RESEARCH, subject: Subject = SUBJECT) -> bytes:
    """De-identify a file and let the gate search it."""
    gate = ResidueGate(deidentification_of(file, policy, subject))
    return b"".join(piece.octets for piece in [*gate.feed(b""), *gate.finish()])


def deidentified_in_pieces(
    file: bytes, cuts: Iterable[int], *, is_reused: bool = False, policy: Policy = RESEARCH
) -> bytes:
    """De-identify a file that arrives cut at these places; with ``is_reused`` all through one buffer."""
    meta = read_file_meta(file)
    octets = file[meta.size :]
    edges = [0, *sorted(cuts), len(octets)]
    incoming = IncomingHeader(meta.transfer_syntax, meta.sop_class, "")
    gate: ResidueGate | None = None
    out = b""
    for start, stop in itertools.pairwise(edges):
        piece = octets[start:stop]
        reused = bytearray(piece)
        buffer = reused if is_reused else piece
        if gate is None:
            header = incoming.feed(buffer)
            reused[:] = bytes(len(reused))
            gate = None if header is None else ResidueGate(deidentify(header, policy, SUBJECT))
        else:
            out += b"".join(publishable.octets for publishable in gate.feed(buffer))
    gate = gate or ResidueGate(deidentify(incoming.finish(), policy, SUBJECT))
    return out + b"".join(publishable.octets for publishable in gate.finish())


def elements_of_example() -> dict[int, bytes]:
    """Write the smallest CT image that the engine lets through, element by element, Explicit VR Little Endian."""
    text = {
        0x00080008: (b"CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        0x00080016: (b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        0x00080018: (b"UI", b"1.2.3.4.5.1"),
        0x00080020: (b"DA", b"20180312"),
        0x00080030: (b"TM", b"101530.250"),
        0x00080060: (b"CS", b"CT"),
        0x00080070: (b"LO", b"SIEMENS"),
        0x00100010: (b"PN", b"Doe^Jane"),
        0x00100020: (b"LO", b"H1234567"),
        0x00180015: (b"CS", b"CHEST"),
        0x0020000D: (b"UI", b"1.2.3.4.5.2"),
        0x0020000E: (b"UI", b"1.2.3.4.5.3"),
        0x00200011: (b"IS", b"3"),
        0x00200013: (b"IS", b"12"),
        0x00280002: (b"US", b"\1\0"),
        0x00280004: (b"CS", b"MONOCHROME2"),
        0x00280010: (b"US", b"\4\0"),
        0x00280011: (b"US", b"\4\0"),
        0x00280100: (b"US", b"\x10\0"),
        0x00280103: (b"US", b"\0\0"),
        0x7FE00010: (b"OW", bytes(range(32))),
    }
    return {tag: encode(head(tag, vr), value) for tag, (vr, value) in text.items()}


def part10(elements: dict[int, bytes], syntax: bytes = b"1.2.840.10008.1.2.1") -> bytes:
    """Write a file of elements, in the order of their tags."""
    meta = file_meta(b"1.2.840.10008.5.1.4.1.1.2", b"1.2.3.4.5.1", syntax)
    return meta + b"".join(element for _, element in sorted(elements.items()))


def example() -> bytes:
    """Write the smallest CT image that the engine lets through."""
    return part10(elements_of_example())


def with_elements(*elements: bytes) -> bytes:
    """Write the example with some elements added or replaced."""
    added = {int.from_bytes(e[:2], "little") << 16 | int.from_bytes(e[2:4], "little"): e for e in elements}
    return part10(elements_of_example() | added)


def without(tag: int) -> bytes:
    """Write the example without an element."""
    return part10({other: element for other, element in elements_of_example().items() if other != tag})
