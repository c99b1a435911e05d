"""Editing ACLs as ``setfacl`` does: modify, remove, clear, replace; values in, a value out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.model.errors import MalformedNameError

MAX_ENTRIES: Final = 1024
"""Of one list, and of one edit."""
MAX_EDITS: Final = 64
"""Of one change: it may be made on each of many directories."""
_NAMED: Final = {EntryKind.USER, EntryKind.GROUP}
_BASE: Final = {EntryKind.OWNER, EntryKind.OTHER}


class EditKind(enum.StrEnum):
    """What is done."""

    MODIFY = "modify"
    """-m: add these entries, or change their rights."""
    REMOVE = "remove"
    """-x: take entries away; their rights count for nothing."""
    CLEAR = "clear"
    """-b: leave the entries of the owner and of others, and no defaults."""
    CLEAR_DEFAULTS = "clear-defaults"
    """-k."""
    REPLACE = "replace"
    """--set-file: these entries and no others; defaults too, where some are given."""


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """One step."""

    kind: EditKind
    entries: tuple[Entry, ...] = ()
    defaults: tuple[Entry, ...] = ()


def edited(acl: Acl, edits: Sequence[Edit], *, keeps_mask: bool = False) -> Acl:
    """Do all steps, one after the other; raises ``MalformedNameError``.

    As POSIX.1e has it, a mask becomes the union of the entries that it limits when one of those is changed, unless the
    edit names the mask itself or ``keeps_mask``. The owner's entry cannot be removed.
    """
    if len(edits) > MAX_EDITS:
        message = f"one change makes at most {MAX_EDITS} edits: make several changes"
        raise MalformedNameError(message)
    for edit in edits:
        acl = msgspec.structs.replace(
            acl,
            entries=_changed(acl.entries, edit, edit.entries, keeps_mask=keeps_mask),
            defaults=_changed_defaults(acl.defaults, edit, keeps_mask=keeps_mask),
        )
        _refuse_long(acl.entries, acl.defaults)
    return acl


def without_ended(acl: Acl, now: float) -> Acl:
    """Leave out the entries that are past their end."""

    def left(entries: Iterable[Entry]) -> tuple[Entry, ...]:
        return tuple(entry for entry in entries if entry.not_after is None or now < entry.not_after)

    return msgspec.structs.replace(acl, entries=left(acl.entries), defaults=left(acl.defaults))


def endless(acl: Acl) -> Acl:
    """Give the ACL as it was before any of its entries ended."""
    return msgspec.structs.replace(
        acl, entries=tuple(msgspec.structs.replace(entry, not_after=None) for entry in acl.entries)
    )


def _refuse_long(*lists: Sequence[Entry]) -> None:
    if max(map(len, lists)) > MAX_ENTRIES:
        message = f"an ACL has at most {MAX_ENTRIES} entries: put people into groups"
        raise MalformedNameError(message)


def _changed_defaults(before: Sequence[Entry], edit: Edit, *, keeps_mask: bool) -> tuple[Entry, ...]:
    match edit.kind:
        case EditKind.CLEAR | EditKind.CLEAR_DEFAULTS:
            return ()
        case EditKind.REPLACE if not edit.defaults:
            return tuple(before)
        case _:
            return _changed(before, edit, edit.defaults, keeps_mask=keeps_mask)


def _changed(before: Sequence[Entry], edit: Edit, given: Sequence[Entry], *, keeps_mask: bool) -> tuple[Entry, ...]:
    _refuse_long(given)
    if len({_key(entry) for entry in given}) != len(given):
        message = "an edit names each principal once"
        raise MalformedNameError(message)
    found: dict[tuple[EntryKind, str], Entry] = {}
    match edit.kind:
        case EditKind.CLEAR:
            return tuple(entry for entry in before if entry.kind in _BASE)
        case EditKind.CLEAR_DEFAULTS:
            return tuple(before)
        case EditKind.MODIFY:
            found = {_key(entry): entry for entry in (*before, *given)}
        case EditKind.REMOVE:
            found = _removed(before, given)
        case EditKind.REPLACE:  # pragma: no branch - the last kind there is, as mypy checks
            kept = (entry for entry in before if entry.kind is EntryKind.OWNER or not given)
            found = {_key(entry): entry for entry in (*kept, *given)}
    is_limited_anew = any(entry.kind in _NAMED for entry in given)
    if is_limited_anew and not keeps_mask and not any(entry.kind is EntryKind.MASK for entry in given):
        _widen_mask(found)
    return tuple(found.values())


def _removed(before: Sequence[Entry], given: Sequence[Entry]) -> dict[tuple[EntryKind, str], Entry]:
    if any(entry.kind is EntryKind.OWNER for entry in given):
        message = "the owner's entry stays: change its rights instead"
        raise MalformedNameError(message)
    gone = {_key(entry) for entry in given}
    return {_key(entry): entry for entry in before if _key(entry) not in gone}


def _widen_mask(found: dict[tuple[EntryKind, str], Entry]) -> None:
    rights = 0
    for entry in found.values():
        if entry.kind in _NAMED:
            rights |= entry.rights
    found[EntryKind.MASK, ""] = Entry(EntryKind.MASK, "", rights)


def _key(entry: Entry) -> tuple[EntryKind, str]:
    return entry.kind, entry.qualifier
