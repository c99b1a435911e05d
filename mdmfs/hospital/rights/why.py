"""Why: which entry decides at every step of a path. Nobody learns more by it than the refusal told him."""

from __future__ import annotations

from collections.abc import Iterator

from mdmfs.access.acl import Entry, EntryKind, Right
from mdmfs.access.decide import Verdict
from mdmfs.access.text import format_entry
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.release.decision import Denial, decide_in
from mdmfs.hospital.replicas.face import locality_anywhere
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, NoSuchFileError
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.model.locality import Locality
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.acls import AskWhy, Why, WhyStep
from mdmfs.wire.messages.files import Node, NodeKind


def explain(tx: Transaction, principal: Principal, asked: AskWhy, hospital: Hospital) -> Why:
    """Explain a path to its caller; for another DN to those only who may administer what it leads to.

    For the caller the way ends at the first step that he may not take, with the words of the refusal, whether something
    is behind it or not. Raises ``NoSuchFileError`` and ``AccessDeniedError``.
    """
    lfn, now = Lfn.parse(asked.lfn), hospital.clock()
    who = principal
    if asked.dn:
        _refuse_curious(tx, principal, lfn, hospital)
        fqans = tuple(Fqan.parse(text) for text in asked.fqans)
        who = Principal(Dn.parse(asked.dn), fqans, float("inf"))
    sight = Sight(tx, who, now)
    steps = list(_steps(tx, sight, lfn, is_told_all=bool(asked.dn)))
    node = tx.catalogue.look_up(lfn)
    is_known = node is not None and all(step.is_allowed for step in steps if step.right == "x")
    guid = Guid(node.guid) if node is not None and is_known and node.kind is NodeKind.FILE else None
    if guid is not None and steps[-1].is_allowed:
        [decision] = decide_in(tx, who, [guid], hospital)
        if isinstance(decision, Denial):
            steps[-1] = WhyStep(str(lfn), "r", is_allowed=False, reason=str(decision.error))
    return Why(
        dn=str(who.dn),
        fqans=[str(fqan) for fqan in who.fqans],
        not_after=who.not_after,
        steps=steps,
        guid=b"" if guid is None else guid.octets,
        locality="" if guid is None else _locality(tx, guid, hospital),
        pacs=_pacs(tx, guid, hospital) if guid is not None and all(step.is_allowed for step in steps) else "",
    )


def _steps(tx: Transaction, sight: Sight, lfn: Lfn, *, is_told_all: bool) -> Iterator[WhyStep]:
    """Give each step; one that the caller may not take looks like one that is not there, but to who administers it."""
    unknown = "there is no such name, or it is not for this identity"
    for length in range(len(lfn.parts) + 1):
        step = Lfn(lfn.parts[:length])
        node = tx.catalogue.look_up(step)
        if node is None:
            yield WhyStep(str(step), "x", is_allowed=False, reason=unknown)
            return
        told = _step(tx, sight, step, node)
        if told.right == "x" and not told.is_allowed:
            yield told if is_told_all else WhyStep(str(step), "x", is_allowed=False, reason=unknown)
            return
        yield told


def _step(tx: Transaction, sight: Sight, lfn: Lfn, node: Node) -> WhyStep:
    is_file = node.kind is NodeKind.FILE
    verdict = sight.verdict(_acl_id(tx, lfn, node), Right.READ if is_file else Right.TRAVERSE)
    is_allowed = verdict is not None and verdict.allowed
    return WhyStep(str(lfn), "r" if is_file else "x", is_allowed=is_allowed, reason=_told(verdict))


def _acl_id(tx: Transaction, lfn: Lfn, node: Node) -> bytes:
    """Give the id of the ACL that a file or directory goes by; empty, which closes, where there is none."""
    if node.kind is NodeKind.FILE:
        file = tx.catalogue.file(Guid(node.guid))
        return b"" if file is None else file.acl
    return tx.acls.ids_of(lfn)[0]


def _told(verdict: Verdict | None) -> str:
    if verdict is None:
        return "no ACL is known"
    entry = verdict.entry
    if verdict.allowed and entry is not None:
        return _entry(entry)
    reason = verdict.refusal.value if verdict.refusal is not None else ""
    return reason if entry is None else f"{reason}: {_entry(entry)}"


def _entry(entry: Entry) -> str:
    """Write the caller's own entry; that of everybody and that of the owner are no secrets."""
    return f"{'the owner: ' if entry.kind is EntryKind.OWNER else ''}{format_entry(entry)}"


def _refuse_curious(tx: Transaction, principal: Principal, lfn: Lfn, hospital: Hospital) -> None:
    """Let those ask for somebody else who may change the rights that they ask about."""
    if principal.dn == hospital.dn:
        return
    sight = Sight(tx, principal, hospital.clock())
    node = tx.catalogue.look_up(lfn)
    directory = lfn.parent if node is not None and node.kind is NodeKind.FILE else lfn
    if node is None or not sight.may_traverse(directory):
        message = f"there is no {lfn}, or it is not for this identity"
        raise NoSuchFileError(message)
    if not sight.allows(_acl_id(tx, lfn, node), Right.ADMINISTER):
        message = f"asking for another DN takes the right a on {lfn}, which this identity has not"
        raise AccessDeniedError(message)


def _locality(tx: Transaction, guid: Guid, hospital: Hospital) -> str:
    file = tx.catalogue.file(guid)
    return (Locality.NEARLINE if file is None else locality_anywhere(tx, hospital, file)).value


def _pacs(tx: Transaction, guid: Guid, hospital: Hospital) -> str:
    instance = tx.uidmap.resolve(guid)
    known = None if instance is None else hospital.pacs.get(instance.pacs)
    if known is None:
        return "its PACS is not configured any more"
    if known.pacs.is_left_alone:
        return "does not answer and is left alone for a while"
    return "is asked: it has not failed several times in a row"
