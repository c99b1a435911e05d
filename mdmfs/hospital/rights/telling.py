"""What of the feed one mount is told: what its principal sees and has lost, and for how long he may hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from mdmfs.access.acl import Right
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.projects import Project
from mdmfs.hospital.release.reported import write_down
from mdmfs.hospital.rights.change import before_by_id
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import AskChanges, Changes

USUAL_LEASE: Final = 60.0
"""Seconds, of a mount that shows no project to its principal."""
LEAST_LEASE: Final = 1.0
"""Seconds, of one whose credential is about to end: it asks again until then, and not without a pause."""

_DN: Final = "dn:"
_FEED: Final = "feed:"
"""With both of which no FQAN begins."""


async def tell(principal: Principal, address: str, asked: AskChanges, hospital: Hospital) -> Changes:
    """Note what a mount has applied, wait for something new, and tell its part with a new lease.

    Question and lease end with the credential. Where an attribute certificate has ended and the proxy around it has
    not, its user comes back without his groups: then the mount begins anew, as if nothing were known of what has gone.
    So it does where an older store was put back meanwhile: its feed may count further by now than the mount has heard.
    The mount itself says who asked before, with which groups, and of which history, so a start of hospitald changes
    nothing.
    """
    identity = [_DN + str(principal.dn), *sorted(principal.memberships)]
    has_lost = not {*identity, _history(hospital, asked.since)}.issuperset(asked.groups)
    if asked.mount:
        hospital.leases.hear(asked.mount, principal, address, asked.since)
        await write_down(principal, address, asked, hospital)
    left = principal.not_after - hospital.clock()
    changes = await hospital.feed.changes(asked.since, 0.0 if has_lost else min(asked.wait, left))
    if has_lost:
        changes = msgspec.structs.replace(changes, is_reset=True)
    told, lease = _of_this_second(principal, asked.since, changes, asked.root, hospital)
    told = msgspec.structs.replace(told, groups=[*identity, _history(hospital, told.version)])
    if not asked.mount:
        return told
    left = max(LEAST_LEASE, principal.not_after - hospital.clock())
    granted = hospital.leases.grant(asked.mount, principal, min(lease, left))
    return msgspec.structs.replace(told, lease=granted)


def _history(hospital: Hospital, version: int) -> str:
    return _FEED + hospital.store.read(lambda tx: tx.feed.mark(version)).hex()


def is_within(project: Lfn, lfn: Lfn) -> bool:
    """Tell whether a project lies at or below a name, or the name in the project."""
    return project.parts[: len(lfn.parts)] == lfn.parts[: len(project.parts)]


def _of_this_second(
    principal: Principal, since: int, changes: Changes, root: str, hospital: Hospital
) -> tuple[Changes, float]:
    """Tell all mounts of a principal the same while the store and the second stay: they often ask at once."""

    def tell_as_of(when: float) -> tuple[Changes, float]:
        def read(tx: Transaction) -> tuple[Changes, float]:
            lease = _lease(Sight(tx, principal, when), Lfn.parse(root) if root else Lfn(()), hospital.projects)
            return _told(tx, principal, since, changes, hospital, when), lease

        return hospital.store.read(read)

    question = since, changes.version, changes.is_reset, root
    return hospital.told.of_this_second(principal, question, hospital.clock(), hospital.store, tell_as_of)


def _told(
    tx: Transaction, principal: Principal, since: int, changes: Changes, hospital: Hospital, now: float
) -> Changes:
    """Leave out what is not for a principal: directories that he may not enter, and files if he may enter no project.

    Of ACLs that were set he learns what they take from him.
    """
    sight = Sight(tx, principal, now)
    directories = [inode for inode in changes.directories if sight.may_pass(inode)]
    lost: list[int] = []
    unreadable: list[int] = []
    barred: list[int] = []
    if not changes.is_reset:
        earlier = Sight(tx, principal, now, before_by_id(tx, since, changes.version))
        before = tx.feed.acls_before(since, changes.version)
        # whatever it said before: the one that it shared until then may have been set meanwhile too
        barred = [
            one.file
            for one in before
            if one.file and earlier.may_pass(one.directory) and not sight.allows(one.acl_id, Right.READ)
        ]
        for inode in {one.directory for one in before if not one.file}:
            if earlier.may_pass(inode) and not sight.may_pass(inode):
                lost.append(inode)
            elif earlier.may_read_files_of(inode) and not sight.may_read_files_of(inode):
                unreadable.append(inode)
    is_reader = any(sight.may_traverse(project.lfn) for project in hospital.projects.values())
    return msgspec.structs.replace(
        changes,
        directories=directories,
        files=sorted({*(changes.files if directories or lost or is_reader else ()), *barred}),
        lost=sorted(lost),
        unreadable=sorted(unreadable),
    )


def _lease(sight: Sight, root: Lfn, projects: Mapping[str, Project]) -> float:
    """Give the shortest lease of the projects that a mount shows to its principal."""
    shown = [one.lease for one in projects.values() if is_within(one.lfn, root) and sight.may_traverse(one.lfn)]
    return min(shown, default=USUAL_LEASE)
