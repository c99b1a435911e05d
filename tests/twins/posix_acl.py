"""POSIX.1e, told anew from the text of draft 17 (23.1.5) and on plain tuples: nothing of ``mdmfs.access`` decides here.

A principal is a DN and group names, an ACL an owner and rows, a row (tag, name, rights as a set of letters, end or
None). Random ones of both are made here too, and compared with ``decide``.
"""

from __future__ import annotations

import random
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from mdmfs.access.acl import Acl, Entry, EntryKind, Right, parse_rights
from mdmfs.access.decide import decide
from mdmfs.model.identity import Dn, Fqan, Principal

NOW: Final = 1000.0
LETTERS: Final = "rwxai"
DNS: Final = ("/O=x/CN=a", "/O=x/CN=b", "/O=x/CN=c", "/O=x/CN=a\\/CN=b", "/O=y/CN=a", "/O=x/EMAILADDRESS=a@b")
GROUPS: Final = ("/v", "/v/g", "/v/g/h", "/v/gg", "/w", "/v/Role=r", "/v/g/Role=r", "/w/Role=r")
TAGS: Final = {"owner": (), "user": DNS, "group": GROUPS, "mask": (), "other": ()}

Row = tuple[str, str, frozenset[str], float | None]


class Compared(NamedTuple):
    """What came of a comparison."""

    allowed: int
    differing: list[str]


def allows(dn: str, groups: AbstractSet[str], owner: str, rows: list[Row], wanted: AbstractSet[str]) -> bool:
    """Say whether an ACL lets somebody do all of ``wanted``."""
    rows = [row for row in rows if row[3] is None or row[3] > NOW]
    masks = [rights for tag, _, rights, _ in rows if tag == "mask"]
    mask = masks[0] if masks else frozenset(LETTERS)
    # (1) the owner is decided by the owner's entry alone
    if dn == owner:
        return any(wanted <= rights for tag, _, rights, _ in rows if tag == "owner")
    # (2) a named user by the entry that names him, within the mask
    for tag, name, rights, _ in rows:
        if tag == "user" and name == dn:
            return wanted <= rights & mask
    # (3) a member of named groups by any one of their entries, within the mask
    his = [rights for tag, name, rights, _ in rows if tag == "group" and name in groups]
    if his:
        return any(wanted <= rights & mask for rights in his)
    # (4) everybody else by the entry for others
    return any(wanted <= rights for tag, _, rights, _ in rows if tag == "other")


def member_of(fqans: list[str]) -> set[str]:
    """Name every group and role that a holder is in: all groups above, roles only where they are held."""
    found = set(fqans)
    for fqan in fqans:
        segments = fqan.partition("/Role=")[0].split("/")[1:]
        found |= {"/" + "/".join(segments[:length]) for length in range(1, len(segments) + 1)}
    return found


def compare(count: int, seed: int) -> Compared:
    """Compare so many random decisions."""
    draw = random.Random(seed)  # noqa: S311 an example, not a secret
    allowed, differing = 0, []
    for number in range(count):
        owner, rows = draw.choice(DNS), _rows(draw)
        dn, fqans = draw.choice(DNS), draw.sample(GROUPS, draw.randrange(3))
        wanted = frozenset(draw.sample(LETTERS, draw.choice((1, 1, 1, 2))))
        expires = draw.choice((NOW + 1, NOW + 1, NOW + 1, NOW, NOW - 1))
        expected = expires > NOW and allows(dn, member_of(fqans), owner, rows, wanted)
        principal = Principal(Dn.parse(dn), tuple(map(Fqan.parse, fqans)), expires)
        entries = tuple(
            Entry(EntryKind(tag), name, parse_rights("".join(rights)).value, end) for tag, name, rights, end in rows
        )
        verdict = decide(principal, Acl(owner, entries), Right(parse_rights("".join(wanted)).value), NOW)
        allowed += expected
        if verdict.allowed != expected:
            differing.append(f"{number}: {dn} {fqans} wants {sorted(wanted)} of {owner} {rows}")
    return Compared(allowed, differing)


def _rows(draw: random.Random) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for _ in range(draw.randrange(9)):
        tag = draw.choice(list(TAGS))
        name = draw.choice(TAGS[tag]) if TAGS[tag] else ""
        rights = frozenset(letter for letter in LETTERS if draw.random() < 0.7)
        end = None if tag in {"owner", "mask"} else draw.choice((None, None, NOW - 1, NOW, NOW + 1))
        rows[tag, name] = (tag, name, rights, end)
    return list(rows.values())
