"""Noise on DICOM associations, from a seed: whatever a peer sends, out come events or one named error.

``FUZZERS`` gives each by name; a call with a count and a seed runs so many streams and tells how many were refused.
Streams arrive in pieces, as from a network. Each ends after at most as many events as it has bytes, and an association
never holds more than its buffer. The unit tests run a hundredth, ``./run bench fuzz-pdu`` a million.
"""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.acceptor import InvitedAssociation
from mdmfs.hospital.dicom.association import Accepted, Association, Event, Fragment, Invitation, Released, UpperLayer
from mdmfs.hospital.dicom.commands import Command, CommandField, parse_command
from mdmfs.hospital.dicom.glance import Glance
from mdmfs.hospital.dicom.identifier import parse_identifier
from mdmfs.hospital.dicom.negotiation import propose
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.receive import choose_context
from mdmfs.model.errors import MdmfsError
from tests.twins.images import ct_slice
from tests.twins.pacs import encoded_data_set
from tests.twins.scripted_pacs import (
    CT,
    EXPLICIT,
    FIND,
    PENDING,
    associate_accept,
    associate_request,
    encode_command,
    encode_identifier,
    message,
    pdu,
)

ADDRESS: Final = PacsAddress("PACS", "127.0.0.1", 104)
SPLICES: Final = (
    b"\xff\xff\xff\xff",
    b"\x04\x00\xff\xff\xff\xff",
    b"\x04\x00\x00\x00\x00\x00",
    b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01",
    b"\x00\x00\x00\x01\x01\x03",
    b"\x00\x00\x00\x02\x07\x00",
    b"\x50\x00\xff\xff",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\x08\x00\x18\x00\xff\xff\xff\xff",
)


def mutate(octets: bytes, draw: random.Random) -> bytes:
    """Flip, set, cut, repeat or splice, in one place mostly: much of what reads it is reached."""
    changed = bytearray(octets)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        # headers stand close together at the beginning: half of the places are there
        place = draw.randrange(min(len(changed), 400) + 1 if draw.randrange(2) else len(changed) + 1)
        match draw.randrange(8):
            case 0 | 1 if place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
            case 2 | 3 if place < len(changed):
                changed[place] = draw.choice((0, 1, 2, 4, 7, 0x7F, 0xFF, draw.randrange(256)))
            case 4:
                del changed[place : place + draw.choice((1, 1, 2, 8, 64, 4096))]
            case 5:
                changed[place:place] = changed[place : place + draw.choice((1, 6, 32, 500))]
            case 6:
                changed[place:] = b""
            case _:
                changed[place:place] = draw.choice(SPLICES)
    return bytes(changed)


def _events(association: UpperLayer, stream: bytes, draw: random.Random) -> Iterator[Event]:
    """Let a stream arrive in pieces; give what it means. More events than bytes would be a hang."""
    left, events = stream, 0
    piece = draw.choice((7, 100, 1000, 2**20))
    while left:
        space = association.space()
        size = min(len(space), piece, len(left))
        space[:size] = left[:size]
        association.received(size)
        left = left[size:]
        while (event := association.next_event()) is not None:
            events += 1
            assert events <= len(stream), "more events than bytes: it would never end"
            yield event
            if isinstance(event, Released):
                return


def fuzz_answers(count: int, seed: int) -> int:
    """Mutate what a PACS answers: the association, an instance and the end of its retrieval, matches of a query."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    proposed = propose({CT: (EXPLICIT,)})
    contexts = {number: (it.abstract_syntax, it.transfer_syntax) for number, it in proposed.items()}
    request = Association(ADDRESS, proposed).request
    accept = associate_accept(request[6:], contexts, 16_384)
    number = next(number for number, it in proposed.items() if it.abstract_syntax == CT)
    find = next(number for number, it in proposed.items() if it.abstract_syntax == FIND)
    store = message(
        number, {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3"}, b"pixels" * 60, 90
    )
    answer = {0x0100: 0x8020, 0x0120: 1, 0x0800: 1, 0x0900: PENDING}
    match = message(find, answer, encode_identifier({tags.PATIENT_ID: "TEST-1", tags.STUDY_INSTANCE_UID: "1.2"}))
    last = message(find, {0x0100: 0x8020, 0x0120: 1, 0x0800: 0x0101, 0x0900: 0})
    stream = accept + store + match + last + pdu(6, bytes(4))
    refused = 0
    for _ in range(count):
        association = Association(ADDRESS, proposed)
        identifier = bytearray()
        is_identifier = False
        try:
            # two thirds of the streams get past the negotiation unharmed
            noise = mutate(stream, draw) if draw.randrange(3) == 0 else accept + mutate(stream[len(accept) :], draw)
            for event in _events(association, noise, draw):
                match event:
                    case Accepted():
                        assert set(event.contexts) <= set(proposed)
                    case Command(field=field):
                        is_identifier = field is CommandField.FIND_RSP
                        identifier.clear()
                    case Fragment(view=view) if is_identifier:
                        identifier += view
                        if event.is_last:
                            parse_identifier(identifier)
                    case _:
                        pass
        except MdmfsError as error:
            refused += _is_quiet(error)
    return refused


def fuzz_invitations(count: int, seed: int) -> int:
    """Mutate what somebody sends to our SCP: the request for an association, a C-ECHO, a slice, the release."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    slice_ = ct_slice(1, size=8)
    store: dict[int, int | str] = {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1}
    store[0x1000] = str(slice_.SOPInstanceUID)
    begin = associate_request()
    rest = message(1, {0x0002: "1.2.840.10008.1.1", 0x0100: 0x30, 0x0110: 3, 0x0800: 0x0101})
    rest += message(3, store, encoded_data_set(slice_), 400) + pdu(5, bytes(4))
    refused = 0
    for _ in range(count):
        association = InvitedAssociation()
        glance = Glance(EXPLICIT)
        try:
            noise = mutate(begin + rest, draw) if draw.randrange(3) == 0 else begin + mutate(rest, draw)
            for event in _events(association, noise, draw):
                if isinstance(event, Invitation):
                    association.accept(event, {it.number: choose_context(it, []) for it in event.proposals})
                elif isinstance(event, Fragment):
                    glance.feed(event.view)
        except MdmfsError as error:
            refused += _is_quiet(error)
        glance.series()
    return refused


def fuzz_commands(count: int, seed: int) -> int:
    """Mutate command sets alone: every element counts here."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = [
        encode_command(
            {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3", 0x1030: "MDMFS", 0x1031: 9}
        ),
        encode_command({0x0100: 0x8010, 0x0120: 1, 0x0800: 0x0101, 0x0900: PENDING, 0x1020: 3, 0x1021: 4}),
    ]
    return _count_refused(good, functools.partial(parse_command, 1), count, draw)


def fuzz_identifiers(count: int, seed: int) -> int:
    """Mutate matches of queries alone, with sequences of both kinds."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    sequence = struct.pack("<HHI", 0x0008, 0x1140, 2**32 - 1) + struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    flat = encode_identifier({tags.PATIENT_ID: "TEST-1", tags.ISSUER_OF_PATIENT_ID: "AMC", tags.SERIES_NUMBER: "7"})
    good = [flat, sequence + flat + ends + flat, sequence + sequence + flat + ends + ends + flat]
    return _count_refused(good, parse_identifier, count, draw)


def _count_refused(good: list[bytes], parse: Callable[[bytes], object], count: int, draw: random.Random) -> int:
    refused = 0
    for _ in range(count):
        try:
            parse(mutate(draw.choice(good), draw))
        except MdmfsError as error:
            refused += _is_quiet(error)
    return refused


def _is_quiet(error: MdmfsError) -> bool:
    """Make sure that an error is a sentence of ours, and quotes no long piece of what came."""
    assert 0 < len(str(error)) < 300
    return True


FUZZERS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "answers": fuzz_answers,
    "invitations": fuzz_invitations,
    "commands": fuzz_commands,
    "identifiers": fuzz_identifiers,
}
"""By name; together they try what a peer may send."""
SHARES: Final = {"answers": 0.4, "invitations": 0.4, "commands": 0.1, "identifiers": 0.1}
"""Of a count of streams."""


def run(count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Run so many streams in all; give for each fuzzer how many there were and how many were refused."""
    parts = {name: int(count * share) for name, share in SHARES.items()}
    return {name: (part, FUZZERS[name](part, seed)) for name, part in parts.items()}
