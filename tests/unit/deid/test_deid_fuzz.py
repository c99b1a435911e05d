"""Damaged and hostile bytes: refused by name, or de-identified; never another exception, and no input in a message."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmfs.hospital.deid.header import IdentifiedHeader, IncomingHeader
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deid_fuzz import survives
from tests.twins.deidentified import header_of
from tests.twins.planted import Kind, planted_file

EXPLICIT: Final = "1.2.840.10008.1.2.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG: Final = "1.2.840.10008.1.2.2"

SLICES: Final = 8
INPUTS: Final = 10_000
"""One of a hundred of those that the bench ``fuzz-deid`` tries."""


@pytest.mark.parametrize("part", range(SLICES))
def test_damaged_instances_are_refused_quietly_or_read(part: int) -> None:
    """Bytes changed, lost, doubled, poured in, and lengths gone wild, in every encoding that is let through."""
    refused = sum(survives(number) for number in range(part, INPUTS, SLICES))
    assert 0 < refused < INPUTS // SLICES


def test_a_refusal_of_what_does_not_parse_tells_no_unknown_tag() -> None:
    """Where a length was wrong, what stands in place of a tag may be a piece of a name."""
    assert str(RefusedError(Reason.MALFORMED, int.from_bytes(b"Jane", "big"))) == "the instance is refused: malformed"
    assert str(RefusedError(Reason.MALFORMED, 0x00100010)).endswith("malformed at (0010,0010)")


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
