"""What becomes of a request at once: which files its maker may have, and which fail because he may not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord
from mdmfs.hospital.ledger.stages import StageFile, StageState
from mdmfs.hospital.release.decision import Denial, Standing, decide
from mdmfs.hospital.release.release import record_of_refusal
from mdmfs.hospital.replicas.placement import misplaced
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.tape.bodies import AskedFile
from mdmfs.model.errors import MdmfsError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_size

Find = Callable[[Transaction, str], Guid]
"""Finds the file of a path for the caller; raises ``NoSuchFileError`` and ``MalformedNameError``."""


class Judged(NamedTuple):
    """The files of a request as they begin."""

    files: list[StageFile]
    errors: list[MdmfsError]
    """Why some have failed."""
    refusals: list[AuditRecord]
    """To be recorded: decisions about files that are there."""


def judge(principal: Principal, address: str, asked: Sequence[AskedFile], hospital: Hospital, find: Find) -> Judged:
    """Decide about each file as for a release; raises ``MalformedMessageError`` for a lifetime or wish that is none."""
    lifetimes, wishes = [one.lifetime for one in asked], [one.wish_to(hospital.name) for one in asked]
    found = hospital.store.read(lambda tx: [_found(tx, one.path, find) for one in asked])
    decisions = iter(decide(principal, [it for it in found if isinstance(it, Guid)], hospital))
    judged = Judged([], [], [])
    for number, (one, lifetime, wish, it) in enumerate(zip(asked, lifetimes, wishes, found, strict=True)):
        decision = next(decisions) if isinstance(it, Guid) else Denial("", it)
        if isinstance(decision, Standing) and wish.replica and (error := misplaced(decision.project, wish.replica)):
            decision = Denial("", error)
        if isinstance(decision, Standing):
            file = decision.source.file
            size = sealed_size(file.rendition.size)
            begun = StageFile(number, one.path, file.guid.octets, size, lifetime, StageState.SUBMITTED)
            judged.files.append(msgspec.structs.replace(begun, element=wish.replica))
            continue
        now, text = hospital.clock(), str(decision.error)
        judged.files.append(StageFile(number, one.path, b"", 0, lifetime, StageState.FAILED, finished=now, error=text))
        judged.errors.append(decision.error)
        if decision.outcome and isinstance(it, Guid):
            judged.refusals.append(record_of_refusal(principal, it, hospital, address, decision))
    return judged


def _found(tx: Transaction, path: str, find: Find) -> Guid | MdmfsError:
    try:
        return find(tx, path)
    except MdmfsError as error:
        return error
