"""The audit log: opens with and without it, and every attack on a single record of a hundred thousand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from mdmfs.hospital.release.audit import AuditRecord, Event
from mdmfs.journal.chain import BEGINNING, Head, Kind, Line, Verifier, append

EVERY = 20
"""Records between two checkpoints."""

Attacked = tuple[Head, list[bytes]]
"""Where an attack begins to show, and the lines from there on."""


def written(count: int) -> tuple[list[bytes], dict[int, bytes]]:
    """Write a log; gives its lines, and checkpoints, the last of them at its end."""
    lines, checkpoints, head = [], {}, BEGINNING
    for number in range(1, count + 1):
        record = AuditRecord(time=float(number), event=Event.RELEASE, dn="/CN=reader", outcome=f"user:{number % 7}")
        line, head = append(head, msgspec.json.encode(record))
        lines.append(line.removesuffix(b"\n"))
        if number % EVERY == 0 or number == count:
            checkpoints[number] = head.link
    return lines, checkpoints


def attacks(lines: list[bytes], number: int, checkpoints: Mapping[int, bytes]) -> Iterator[tuple[str, Attacked]]:
    """Do to one record, which is not the first, all that can be done to one; lines go to the next checkpoint.

    What is put in after the last record of a log is found when the next one is written, or at the next checkpoint.
    """
    until = next((kept for kept in range(number + 1, len(lines) + 1) if kept in checkpoints), number)
    before, after = lines[number - 2], lines[number : until + 1]
    here, head = lines[number - 1], _head(lines[number - 3]) if number > 2 else BEGINNING
    edited = here.replace(b"/CN=reader", b"/CN=nobody")
    anew = _chained(_head(before), [edited])
    yield "edited", (head, [before, edited, *after])
    yield "edited, with a link that fits", (head, [before, *anew, *after])
    yield "edited, and all after it written anew", (head, [before, *_chained(_head(before), [edited, *after])])
    yield "dropped", (head, [before, *after])
    yield "dropped, and all after it written anew", (head, [before, *_chained(_head(before), after)])
    yield "doubled", (head, [before, here, here, *after])
    yield "put before the one before it", (head, [here, before, *after])
    yield "cut in the middle", (head, [before, here[: len(here) // 2], *after])
    if until == number:
        return
    yield "joined with the next", (head, [before, here + after[0], *after[1:]])
    yield "another put in after it", (head, [before, here, *_chained(_head(here), [edited]), *after])
    yield (
        "put in after it, and all after it written anew",
        (
            head,
            [before, here, *_chained(_head(here), [edited, *after])],
        ),
    )


def found_beside(attacked: Attacked, number: int, checkpoints: Mapping[int, bytes]) -> bool:
    """Tell whether an attack is found, and its place is told rightly: up to the next checkpoint at most."""
    head, lines = attacked
    near = {kept: checkpoints[kept] for kept in range(number, number + EVERY + 1) if kept in checkpoints}
    verifier = Verifier(near, head)
    found = [fault for line in lines for fault in verifier.follow(line)]
    found += verifier.end()
    if not found:
        return False
    # what was left out at the end, and the rest written anew, is told as what is missing at the end
    is_near = found[0].first <= number + 1 or (found[0].kind is Kind.CUT and found[0].last <= number + EVERY)
    return is_near and found[0].last >= number - 1


def _head(octets: bytes) -> Head:
    line = Line.parse(octets)
    assert line is not None
    return line.head


def _chained(head: Head, lines: Iterable[bytes]) -> list[bytes]:
    """Write what lines say anew, with links that fit."""
    chained = []
    for octets in lines:
        line = Line.parse(octets)
        assert line is not None
        _, _, body = line.hashed.partition(b",")
        new, head = append(head, b"{" + body + b"}")
        chained.append(new.removesuffix(b"\n"))
    return chained
