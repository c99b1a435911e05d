"""Damaged and hostile bytes: refused by name, or de-identified; never another exception, and no input in a message."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmfs.hospital.deid.header import IdentifiedHeader, IncomingHeader
from mdmfs.hospital.deid.refusal import RefusedError
from tests.twins.deidentified import deidentified, example, header_of
from tests.twins.planted import Kind, planted_file

EXPLICIT: Final = "1.2.840.10008.1.2.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG: Final = "1.2.840.10008.1.2.2"
META_END: Final = 132

Mutation = Callable[[bytearray, random.Random], None]


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


MUTATIONS: Final = [flip, cut, splice, stretch]


def survives(octets: bytes) -> None:
    """De-identify or be refused, quietly."""
    message = ""
    try:
        deidentified(octets)
    except RefusedError as refusal:
        message = str(refusal)
    assert len(message) < 80


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED])
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_damaged_instances_are_refused_or_read(mutate: Mutation, syntax: str) -> None:
    """Elements, sequences, private blocks and pixels with bytes changed, lost, doubled and lengths gone wild."""
    chosen = random.Random(f"{mutate.__name__} {syntax}")  # noqa: S311 - seeded mutations
    file = planted_file(Kind.ENHANCED_MR, depth=0, outside=False, transfer_syntax=syntax)[0]
    for _ in range(8):
        octets = bytearray(file)
        mutate(octets, chosen)
        survives(bytes(octets))


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_small_instance_damaged_often(mutate: Mutation) -> None:
    """The example is short, so that most mutations hit a head or a length."""
    chosen = random.Random(mutate.__name__)  # noqa: S311 - seeded mutations
    for _ in range(250):
        octets = bytearray(example())
        mutate(octets, chosen)
        survives(bytes(octets))


@given(st.binary(max_size=300), st.sampled_from([EXPLICIT, IMPLICIT, DEFLATED, BIG]))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_any_bytes_are_refused(octets: bytes, syntax: str) -> None:
    """What is no instance is no header either."""
    with pytest.raises(RefusedError):
        read(IncomingHeader(syntax, "", ""), octets)


def read(incoming: IncomingHeader, octets: bytes) -> IdentifiedHeader:
    """Read a header to its end."""
    return incoming.feed(octets) or incoming.finish()


def test_scanning_is_linear_in_the_number_of_pieces() -> None:
    """A header that comes byte by byte is stepped over once: no more than a few steps for each byte."""
    file = planted_file(Kind.CT, depth=2, outside=False)[0]
    whole = header_of(file).whole
    incoming = IncomingHeader(EXPLICIT, "", "")
    found = [incoming.feed(whole[place : place + 1]) for place in range(len(whole))]
    assert [header is not None for header in found].index(True) == len(whole) - 1
