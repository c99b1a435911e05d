"""Damaged instances by number: the same number gives the same damage, which must be refused quietly or read."""

from __future__ import annotations

import functools
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Final

from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import RefusedError
from tests.twins.deidentified import RESEARCH, STRICT, deidentified, example, part10, reviewed, with_elements
from tests.twins.frames import END, JPEG, JPEG_2000, JPEG_LS, RLE, encapsulated, item, jpeg, jpeg_2000, rle
from tests.twins.planted import Kind, OtherKind

META_END: Final = 132
QUIET: Final = re.compile(r"the instance is refused: [a-z-]+(?: at \([0-9a-f]{4},[0-9a-f]{4}\))?")
BLANKED: Final = Policy.parse(
    f'name = "b"\nheads = "agreement"\n[[regions]]\nsop_class = "{Kind.CT.value}"\nblank = [[0, 0, 2, 2]]'
)

Damage = Callable[[bytearray, random.Random], None]


def flip(octets: bytearray, chosen: random.Random) -> None:
    """Change a few bytes."""
    for _ in range(chosen.randint(1, 4)):
        octets[chosen.randrange(META_END, len(octets))] = chosen.randrange(256)


def cut(octets: bytearray, chosen: random.Random) -> None:
    """End too early."""
    del octets[chosen.randrange(META_END, len(octets)) :]


def splice(octets: bytearray, chosen: random.Random) -> None:
    """Copy a part to another place."""
    start = chosen.randrange(META_END, len(octets))
    part = octets[start : start + chosen.randint(1, 64)]
    place = chosen.randrange(META_END, len(octets))
    octets[place:place] = part


def stretch(octets: bytearray, chosen: random.Random) -> None:
    """Write an extreme length somewhere."""
    place = chosen.randrange(META_END, len(octets) - 4)
    octets[place : place + 4] = struct.pack("<I", chosen.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]))


def pour(octets: bytearray, chosen: random.Random) -> None:
    """Let anything follow."""
    octets[chosen.randrange(META_END, len(octets)) :] = chosen.randbytes(chosen.randint(0, 200))


DAMAGES: Final = (flip, cut, splice, stretch, pour)


@functools.cache
def whole() -> tuple[tuple[bytes, Policy], ...]:
    """Give small instances of every encoding, each with a policy that lets it through."""
    meta = read_file_meta(example())
    plain = example()[meta.size :]
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = stream.compress(plain) + stream.flush()
    code = encode(head(0x00080100, b"SH"), b"113100") + encode(head(0x00080102, b"SH"), b"DCM")
    nested = with_elements(
        encode_items(head(0x00081115, b"SQ"), [encode_items(head(0x00081199, b"SQ"), [code, b""])]),
        encode(head(0x00190010, b"LO"), b"SIEMENS MR HEADER") + encode(head(0x0019100A, b"US"), b"\x24\0"),
        encode(head(0x0008103E, b"LO"), b"t1_mprage Jane Doe"),
    )
    text = encode(head(0x0040A160, b"UT"), b"seen by Jane Doe") + encode_items(head(0x0040A730, b"SQ"), [b""])
    tree = encode_items(head(0x0040A730, b"SQ"), [encode_items(head(0x0040A043, b"SQ"), [code]) + text])
    report = _report(tree)
    return (
        (example(), RESEARCH),
        (nested, RESEARCH),
        (nested, STRICT),
        (part10({}, b"1.2.840.10008.1.2.1.99") + deflated + b"\0" * (len(deflated) & 1), RESEARCH),
        (encapsulated(JPEG, item(jpeg() + END)), RESEARCH),
        (encapsulated(JPEG_LS, item(jpeg(frame=0xF7) + END)), RESEARCH),
        (encapsulated(JPEG_2000, item(jpeg_2000() + END)), RESEARCH),
        (encapsulated(RLE, item(rle(b"\xf1\0", b"\xf1\7"))), RESEARCH),
        (encapsulated(RLE, item(rle(b"\xf1\0", b"\xf1\7"))), BLANKED),
        (encapsulated(JPEG_2000, item(jpeg_2000() + END)), BLANKED),
        (report, reviewed(OtherKind.SR.value)),
    )


def _report(tree: bytes) -> bytes:
    parts = {
        0x00080016: encode(head(0x00080016, b"UI"), OtherKind.SR.value.encode(), b"\0"),
        0x00080018: encode(head(0x00080018, b"UI"), b"1.2.3.4.5.1", b"\0"),
        0x00100020: encode(head(0x00100020, b"LO"), b"H1234567"),
        0x0020000D: encode(head(0x0020000D, b"UI"), b"1.2.3.4.5.2", b"\0"),
        0x0020000E: encode(head(0x0020000E, b"UI"), b"1.2.3.4.5.3", b"\0"),
        0x0040A730: tree,
    }
    return part10(parts)


def survives(number: int) -> bool:
    """Damage an instance; tell whether it was refused; raises whatever else comes, and for a refusal that is loud."""
    chosen = random.Random(number)  # noqa: S311 - seeded damage
    file, policy = whole()[number % len(whole())]
    octets = bytearray(file)
    for _ in range(chosen.choice((1, 1, 1, 2, 3))):
        if len(octets) > META_END + 4:
            chosen.choice(DAMAGES)(octets, chosen)
    try:
        deidentified(bytes(octets), policy)
    except RefusedError as refusal:
        if QUIET.fullmatch(str(refusal)):
            return True
        message = "a refusal shows something of its input"
        raise ValueError(message) from None
    return False
