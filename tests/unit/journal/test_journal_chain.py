"""The chain of a journal: whatever is done to it is found, and where."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mdmfs.journal.chain import BEGINNING, Fault, Head, Kind, Line, Verifier, append
from mdmfs.journal.checkpoint import Checkpoint
from tests.bench.audit import attacks, found_beside, written

RECORDS = 500
"""Of the hundred thousand that the bench attacks."""


def chain(count: int, start: Head = BEGINNING, salt: str = "") -> list[bytes]:
    """Make lines that say their number."""
    lines, head = [], start
    for number in range(start.number + 1, start.number + count + 1):
        line, head = append(head, json.dumps({"what": f"{salt}{number}"}).encode())
        lines.append(line.removesuffix(b"\n"))
    return lines


def faults(lines: Iterable[bytes], checkpoints: dict[int, bytes] | None = None) -> list[Fault]:
    """Verify all lines."""
    verifier = Verifier(checkpoints)
    return [*(fault for line in lines for fault in verifier.follow(line)), *verifier.end()]


def links(lines: Iterable[bytes]) -> dict[int, bytes]:
    """Keep a checkpoint of each line."""
    parsed = [line for octets in lines if (line := Line.parse(octets))]
    return {line.number: line.link for line in parsed}


LINES = chain(10)


def test_a_line_is_json_with_its_number_first_and_its_link_last() -> None:
    """Any program can read it; only the link is new."""
    told = json.loads(LINES[2])
    assert list(told) == ["n", "what", "link"]
    assert (told["n"], told["what"]) == (3, "3")
    assert not faults(LINES, links(LINES))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([*LINES[:4], LINES[4].replace(b'"5"', b'"6"'), *LINES[5:]], [Fault(Kind.ALTERED, 4, 5)]),
        ([*LINES[:4], *LINES[5:]], [Fault(Kind.MISSING, 5, 5)]),
        (LINES[3:], [Fault(Kind.MISSING, 1, 3)]),
        ([*LINES[:4], LINES[5], LINES[4], *LINES[6:]], [Fault(Kind.MISSING, 5, 5), Fault(Kind.OUT_OF_ORDER, 5, 5)]),
        ([*LINES[:5], *LINES[4:]], [Fault(Kind.OUT_OF_ORDER, 5, 5)]),
        ([*LINES[:5], b"", *LINES[5:]], [Fault(Kind.GARBLED, 5, 6)]),
        ([*LINES[:4], LINES[4][:-9], *LINES[5:]], [Fault(Kind.GARBLED, 4, 5), Fault(Kind.MISSING, 5, 5)]),
        (LINES[:8], [Fault(Kind.CUT, 9, 10)]),
        ([], [Fault(Kind.CUT, 1, 10)]),
    ],
)
def test_what_was_done_to_it_is_named_with_its_place(lines: list[bytes], found: list[Fault]) -> None:
    """Edited, dropped, reordered, doubled, garbled, cut."""
    assert faults(lines, {10: links(LINES)[10]}) == found


def test_a_journal_written_anew_is_found_by_the_first_checkpoint_after() -> None:
    """Its links fit each other; those that others kept do not fit them, and tell from where on."""
    start = Line.parse(LINES[4])
    assert start is not None
    anew = [*LINES[:5], *chain(5, start.head, "other ")]
    assert not faults(anew)
    kept = links(LINES)
    assert faults(anew, {number: kept[number] for number in (3, 8)}) == [Fault(Kind.REWRITTEN, 4, 8)]
    assert faults(anew, {number: kept[number] for number in (5, 6, 9)}) == [
        Fault(Kind.REWRITTEN, 6, 6),
        Fault(Kind.REWRITTEN, 7, 9),
    ]


def test_no_attack_on_any_single_record_goes_unseen() -> None:
    """Each record edited, dropped, doubled, moved, with its link left or made anew, and all after it rewritten."""
    lines, checkpoints = written(RECORDS)
    for number in range(2, RECORDS + 1):
        for name, attacked in attacks(lines, number, checkpoints):
            assert found_beside(attacked, number, checkpoints), (name, number)


def test_noise_for_lines_is_never_taken_for_good() -> None:
    """Whatever a line is, the verifier says something of it or of what follows, and raises nothing."""
    dice = random.Random(6)  # noqa: S311 no secret
    for _ in range(2000):
        at = dice.randrange(1, 9)
        noise = bytearray(LINES[at])
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(noise))
            noise[place : place + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
        if bytes(noise) != LINES[at]:
            assert faults([*LINES[:at], bytes(noise), *LINES[at + 1 :]], links(LINES))


def test_a_checkpoint_is_nobody_elses() -> None:
    """Each of its fields is signed."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    signed = Checkpoint(bytes(16), Head(7, bytes(32)), 1.5).signed(key)
    public = key.public_key().public_bytes_raw()
    assert signed.is_signed_by(public)
    assert not signed.is_signed_by(other.public_key().public_bytes_raw())
    changes = [{"journal": b"1" * 16}, {"head": Head(8, bytes(32))}, {"head": Head(7, b"1" * 32)}, {"when": 2.5}]
    for change in [*changes, {"signature": bytes(64)}, {"signature": b""}, {"when": -1.0}]:
        assert not dataclasses.replace(signed, **change).is_signed_by(public)  # type: ignore[arg-type]
