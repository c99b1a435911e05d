"""An ACL: whose a file or directory is and which principals may do what with it (POSIX.1e draft 17, by DN and FQAN)."""

from __future__ import annotations

import enum
import functools
from typing import Final

import msgspec

from mdmfs.model.errors import MalformedNameError
from mdmfs.model.identity import Dn, Fqan

ACL_ID_SIZE: Final = 16
ACL_FORMAT: Final = 1


class Right(enum.Flag):
    """What an entry can allow; letters as ``getfacl`` would write them."""

    NONE = 0
    READ = 1
    """r: read the de-identified image."""
    TRAVERSE = 2
    """x: traverse and list a directory."""
    WRITE = 4
    """w: change entries of a directory."""
    ADMINISTER = 8
    """a: change the ACL."""
    IDENTIFY = 16
    """i: the way back to the patient, inside the hospital zone only."""


ALL_RIGHTS: Final = Right.READ | Right.TRAVERSE | Right.WRITE | Right.ADMINISTER | Right.IDENTIFY

_LETTERS: Final = {
    "r": Right.READ,
    "w": Right.WRITE,
    "x": Right.TRAVERSE,
    "a": Right.ADMINISTER,
    "i": Right.IDENTIFY,
}


def parse_rights(text: str) -> Right:
    """Read letters of ``rwxai`` in any order, ``-`` for none; raises ``MalformedNameError``."""
    rights = Right.NONE
    for letter in text.replace("-", ""):
        if letter not in _LETTERS:
            message = f"rights are letters of rwxai, not {letter!r}"
            raise MalformedNameError(message)
        rights |= _LETTERS[letter]
    return rights


def format_rights(rights: Right) -> str:
    """Write the letters in the order ``rwxai``, ``-`` for each that is missing."""
    return "".join(letter if right in rights else "-" for letter, right in _LETTERS.items())


class EntryKind(enum.StrEnum):
    """Whom an entry speaks of (POSIX.1e section 23.1.4)."""

    OWNER = "owner"
    USER = "user"
    GROUP = "group"
    MASK = "mask"
    OTHER = "other"


_NEVER_END: Final = {EntryKind.OWNER, EntryKind.MASK}


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One line of an ACL; the qualifier is a DN (slash form) for USER, an FQAN for GROUP, else empty."""

    kind: EntryKind
    qualifier: str
    rights: int
    not_after: float | None = None
    """Seconds since the epoch after which the entry counts for nothing."""

    def __post_init__(self) -> None:
        """Bring the qualifier into its canonical form, so that equal entries are equal values."""
        msgspec.structs.force_setattr(self, "qualifier", _canonical(self.kind, self.qualifier))
        if self.rights & ~ALL_RIGHTS.value:
            message = "an entry holds a right that this program does not know"
            raise MalformedNameError(message)
        if self.not_after is not None and self.kind in _NEVER_END:
            message = f"an entry of kind {self.kind} cannot end: without it the ACL would allow more, or nobody own it"
            raise MalformedNameError(message)


class Acl(msgspec.Struct, frozen=True, array_like=True):
    """The whole list: an owner, the entries that decide here, the entries new children begin with."""

    owner: str
    """The owner's DN, slash form."""
    entries: tuple[Entry, ...]
    defaults: tuple[Entry, ...] = ()
    format: int = ACL_FORMAT

    def __post_init__(self) -> None:
        """Refuse an owner that is no DN, an unknown format, and doubled entries; a missing mask limits nothing."""
        msgspec.structs.force_setattr(self, "owner", _canonical(EntryKind.USER, self.owner))
        if self.format != ACL_FORMAT:
            message = f"this program reads ACLs of format {ACL_FORMAT}, not {self.format}"
            raise MalformedNameError(message)
        for entries in (self.entries, self.defaults):
            keys = [(entry.kind, entry.qualifier) for entry in entries]
            if len(set(keys)) != len(keys):
                message = "an ACL names each principal once"
                raise MalformedNameError(message)

    def encode(self) -> bytes:
        """Write the canonical bytes: equal ACLs have equal bytes, whatever order their entries came in."""
        ordered = msgspec.structs.replace(
            self, entries=tuple(sorted(self.entries, key=_order)), defaults=tuple(sorted(self.defaults, key=_order))
        )
        return msgspec.msgpack.encode(ordered)

    @classmethod
    def decode(cls, octets: bytes) -> Acl:
        """Read what ``encode`` wrote; raises ``MalformedNameError``."""
        try:
            return msgspec.msgpack.decode(octets, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = "the bytes are not an ACL"
            raise MalformedNameError(message) from error

    def inherited(self) -> Acl:
        """Give the ACL of a new entry below this directory: the defaults decide, and a directory passes them on."""
        return msgspec.structs.replace(self, entries=self.defaults, defaults=self.defaults)


@functools.lru_cache(maxsize=4096)
def _canonical(kind: EntryKind, qualifier: str) -> str:
    """Write a DN or FQAN in its one form; ACLs are read by the thousand and name few principals."""
    if kind is EntryKind.USER:
        return str(Dn.parse(qualifier))
    if kind is EntryKind.GROUP:
        return str(Fqan.parse(qualifier))
    if qualifier:
        message = f"an entry of kind {kind} has no qualifier"
        raise MalformedNameError(message)
    return ""


def _order(entry: Entry) -> tuple[int, str]:
    return list(EntryKind).index(entry.kind), entry.qualifier
