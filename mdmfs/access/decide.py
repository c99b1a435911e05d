"""Decide: whether a principal has a right, by values alone. Only this module makes ``Granted``."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mdmfs.access.acl import ALL_RIGHTS, Acl, Entry, EntryKind, Right
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid

_UNLIMITED: Final = ALL_RIGHTS.value


class Refusal(enum.StrEnum):
    """Why the answer is no: whole in the audit, short to the caller."""

    CREDENTIAL_EXPIRED = "credential expired"
    NO_ENTRY = "no entry names the principal"
    NOT_ALLOWED = "the deciding entry does not allow it"
    NO_TRAVERSE = "a directory above cannot be traversed"
    NO_ACL = "no ACL is known"


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What one ACL says, and the entry that says so (None: closed by default)."""

    allowed: bool
    entry: Entry | None
    refusal: Refusal | None


@dataclasses.dataclass(frozen=True, slots=True)
class Granted:
    """Proof that a principal may have one file; whoever lets bytes or shares out asks for it."""

    principal: Principal
    guid: Guid
    right: Right
    entry: Entry | None
    """The entry of the file's ACL that decided."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Why there is no ``Granted``."""

    refusal: Refusal
    entry: Entry | None = None
    """The entry that decided, of the file's ACL or of one above it; None where no entry did."""


def decide(principal: Principal, acl: Acl, right: Right, now: float) -> Verdict:
    """Apply the algorithm of POSIX.1e (draft 17, section 23.1.5): the first class that matches decides.

    The owner is the principal whose DN is the ACL's owner. Named entries and groups are limited by the mask, if there
    is one. Of several groups that match, one that allows is enough. An entry past its end is not there. Nobody is
    allowed ``Right.NONE``. ``now`` is in seconds since the epoch. (DNs and FQANs are compared by their canonical
    strings, which are equal exactly when the parsed names are.)
    """
    if not now < principal.not_after:
        return Verdict(allowed=False, entry=None, refusal=Refusal.CREDENTIAL_EXPIRED)
    live = [entry for entry in acl.entries if entry.not_after is None or now < entry.not_after]
    mask = next((entry.rights for entry in live if entry.kind is EntryKind.MASK), _UNLIMITED)
    name = str(principal.dn)
    if name == acl.owner:
        return _verdict([entry for entry in live if entry.kind is EntryKind.OWNER], right, _UNLIMITED)
    named = [entry for entry in live if entry.kind is EntryKind.USER and entry.qualifier == name]
    if named:
        return _verdict(named, right, mask)
    member = principal.memberships
    groups = [entry for entry in live if entry.kind is EntryKind.GROUP and entry.qualifier in member]
    if groups:
        return _verdict(groups, right, mask)
    return _verdict([entry for entry in live if entry.kind is EntryKind.OTHER], right, _UNLIMITED)


def grant(principal: Principal, guid: Guid, aliases: Iterable[Sequence[Acl | None]], now: float) -> Granted | Refused:
    """Decide whether a principal may read a file.

    ``aliases`` holds, for each name the file has, the ACLs of every directory above it, outermost first, and last the
    file's own; None stands for an ACL that is not known and closes that way. One open way is enough.
    """
    return _answer(principal, guid, (_walk(principal, chain, now) for chain in aliases))


class Grants:
    """Decides as ``grant`` for one principal at one moment, about many files: what siblings share is walked once."""

    def __init__(self, principal: Principal, acl: Callable[[bytes], Acl | None], now: float) -> None:
        """``acl`` gives what an ACL says, by its id; None closes."""
        self._principal = principal
        self._acl = acl
        self._now = now
        self._verdicts: dict[tuple[bytes, ...], Verdict] = {}

    def grant(self, guid: Guid, aliases: Iterable[tuple[bytes, ...]]) -> Granted | Refused:
        """Decide whether he may read a file; ``aliases`` are those of ``grant``, by the ids of their ACLs."""
        return _answer(self._principal, guid, map(self._verdict, aliases))

    def _verdict(self, ids: tuple[bytes, ...]) -> Verdict:
        known = self._verdicts.get(ids)
        if known is None:
            known = self._verdicts[ids] = _walk(self._principal, [self._acl(one) for one in ids], self._now)
        return known


def _answer(principal: Principal, guid: Guid, verdicts: Iterable[Verdict]) -> Granted | Refused:
    refused = None
    for verdict in verdicts:
        if verdict.allowed:
            return Granted(principal, guid, Right.READ, verdict.entry)
        refused = refused if verdict.refusal is None else Refused(verdict.refusal, verdict.entry)
    return refused or Refused(Refusal.NO_ACL)


def _walk(principal: Principal, chain: Sequence[Acl | None], now: float) -> Verdict:
    verdict = Verdict(allowed=False, entry=None, refusal=Refusal.NO_ACL)
    for position, acl in enumerate(chain):
        if acl is None:
            return Verdict(allowed=False, entry=None, refusal=Refusal.NO_ACL)
        is_file = position == len(chain) - 1
        verdict = decide(principal, acl, Right.READ if is_file else Right.TRAVERSE, now)
        if not verdict.allowed:
            is_told_as_it_is = is_file or verdict.refusal is Refusal.CREDENTIAL_EXPIRED
            return verdict if is_told_as_it_is else dataclasses.replace(verdict, refusal=Refusal.NO_TRAVERSE)
    return verdict


def _verdict(entries: Sequence[Entry], right: Right, mask: int) -> Verdict:
    if not entries:
        return Verdict(allowed=False, entry=None, refusal=Refusal.NO_ENTRY)
    wanted = right.value
    for entry in entries:
        if wanted and wanted & entry.rights & mask == wanted:
            return Verdict(allowed=True, entry=entry, refusal=None)
    return Verdict(allowed=False, entry=entries[0], refusal=Refusal.NOT_ALLOWED)
