"""ACLs as text: the lines that ``getfacl`` prints and ``setfacl`` reads, with DNs and FQANs for names.

``[default:]user:DN:rights``, ``group:FQAN:rights``, ``user::rights`` (the owner), ``mask::rights``, ``other::rights``;
``@2027-01-31T12:00:00Z`` behind the rights ends an entry. Kinds may be shortened to their first letter.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterable
from typing import Final

from mdmfs.access.acl import Acl, Entry, EntryKind, Right, format_rights, parse_rights
from mdmfs.model.errors import MalformedNameError

MAX_TEXT: Final = 2**20
"""Characters of an ACL's text."""
DEFAULT: Final = "default:"
_KINDS: Final = {
    "u": EntryKind.USER,
    "user": EntryKind.USER,
    "g": EntryKind.GROUP,
    "group": EntryKind.GROUP,
    "m": EntryKind.MASK,
    "mask": EntryKind.MASK,
    "o": EntryKind.OTHER,
    "other": EntryKind.OTHER,
}
_HEAD: Final = r"(?:d(?:efault)?:)?(?:u(?:ser)?|g(?:roup)?|m(?:ask)?|o(?:ther)?):"
_ENTRY: Final = re.compile(
    r"(?P<default>d(?:efault)?:)?(?P<kind>u(?:ser)?|g(?:roup)?|m(?:ask)?|o(?:ther)?):(?P<name>.*):"
    r"(?P<rights>[rwxai-]*)(?:@(?P<end>[0-9TZ:-]+))?",
    re.DOTALL,
)
_NAMED: Final = re.compile(rf"{_HEAD}.*", re.DOTALL)
_BETWEEN: Final = re.compile(rf",(?={_HEAD})")
_UNSURE: Final = re.compile(r"[:,\n]")


@dataclasses.dataclass(frozen=True, slots=True)
class AclText:
    """The entries of a text, in its order."""

    entries: tuple[Entry, ...]
    defaults: tuple[Entry, ...]


def format_acl(acl: Acl) -> str:
    """Write the entries, one a line, in ``getfacl``'s order; what a mask takes away stands behind ``#effective``."""
    lines = [*_lines("", acl.entries), *_lines(DEFAULT, acl.defaults)]
    return "".join(line + "\n" for line in lines)


def format_entry(entry: Entry) -> str:
    """Write one entry."""
    kind = EntryKind.USER if entry.kind is EntryKind.OWNER else entry.kind
    # a colon or comma inside a DN is escaped, so that the text reads in one way only
    name = _UNSURE.sub(lambda match: f"\\{ord(match[0]):02X}", entry.qualifier)
    end = "" if entry.not_after is None else "@" + format_time(entry.not_after)
    return f"{kind}:{name}:{format_rights(Right(entry.rights))}{end}"


def parse_acl(text: str) -> AclText:
    """Read the entries of a text: lines, or a list with commas; raises ``MalformedNameError``.

    ``#`` begins a comment.
    """
    entries: list[Entry] = []
    defaults: list[Entry] = []
    for piece in _pieces(text):
        match = _ENTRY.fullmatch(piece)
        if match is None:
            form = "[default:]user|group|mask|other:NAME:RIGHTS[@END], RIGHTS of r, w, x, a, i and -"
            message = f"an entry is {form}, not {piece[:200]!r}"
            raise MalformedNameError(message)
        entry = Entry(*_subject(match["kind"], match["name"]), parse_rights(match["rights"]).value, _end(match["end"]))
        (defaults if match["default"] else entries).append(entry)
    return AclText(tuple(entries), tuple(defaults))


def parse_names(text: str) -> AclText:
    """Read entries without rights, as ``setfacl -x`` has them: ``user:DN``; raises ``MalformedNameError``."""
    entries: list[Entry] = []
    defaults: list[Entry] = []
    for piece in _pieces(text):
        if not _NAMED.fullmatch(piece):
            message = f"what is to be removed is written [default:]user|group|mask|other:NAME, not {piece[:200]!r}"
            raise MalformedNameError(message)
        is_default = piece.startswith("d")
        kind, _, name = (piece.partition(":")[2] if is_default else piece).partition(":")
        entry = Entry(*_subject(kind, name), 0)
        (defaults if is_default else entries).append(entry)
    return AclText(tuple(entries), tuple(defaults))


def format_time(seconds: float) -> str:
    """Write a time as ISO 8601, UTC, in whole seconds."""
    told = dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=0, tzinfo=None)
    return f"{told.isoformat()}Z"  # strftime writes years before 1000 with fewer digits than strptime reads


def _lines(prefix: str, entries: Iterable[Entry]) -> list[str]:
    order = list(EntryKind)
    ordered = sorted(entries, key=lambda entry: (order.index(entry.kind), entry.qualifier))
    mask = next((entry.rights for entry in ordered if entry.kind is EntryKind.MASK), None)
    lines = []
    for entry in ordered:
        is_masked = mask is not None and entry.kind in {EntryKind.USER, EntryKind.GROUP} and entry.rights & ~mask
        effective = f"\t#effective:{format_rights(Right(entry.rights & (mask or 0)))}" if is_masked else ""
        lines.append(f"{prefix}{format_entry(entry)}{effective}")
    return lines


def _pieces(text: str) -> list[str]:
    if len(text) > MAX_TEXT:
        message = f"the text of an ACL has at most {MAX_TEXT} characters"
        raise MalformedNameError(message)
    lines = [line.partition("\t#")[0].strip() for line in text.split("\n")]
    return [
        stripped
        for line in lines
        if line and not line.startswith("#")
        for piece in _BETWEEN.split(line)
        if (stripped := piece.strip())
    ]


def _subject(kind: str, name: str) -> tuple[EntryKind, str]:
    """Tell whom an entry speaks of: ``user`` without a name is the owner."""
    found = _KINDS[kind]
    if name:
        return found, name
    if found is EntryKind.GROUP:
        message = "there is no owning group here: name one, as in group:/vo/group:rx"
        raise MalformedNameError(message)
    return (EntryKind.OWNER if found is EntryKind.USER else found), ""


def _end(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC).timestamp()
    except ValueError as error:
        message = f"an entry ends at a time like 2027-01-31T12:00:00Z (UTC), not {text!r}"
        raise MalformedNameError(message) from error
