"""What of a series is dealt with: registered or refused, under the rules of today or under any."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import trio

from mdmfs.hospital.catalogue.records import FileState, Rendition
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.dicom.pacs import InstanceFound
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.projects import Project
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.records import SeriesKey

LOOKED_UP_AT_ONCE: Final = 1000


def rules_of(project: Project) -> bytes:
    """Write under which policy and engine a project's files are made now."""
    return project.policy.digest + ENGINE_GENERATION.to_bytes(2, "big")


def is_made_under(rules: bytes, rendition: Rendition) -> bool:
    """Tell whether a rendition was made under these rules."""
    return rendition.policy + rendition.engine_generation.to_bytes(2, "big") == rules


def is_half_anew(tx: Transaction, key: SeriesKey, rules: bytes) -> bool:
    """Tell whether an earlier run has begun to register a series anew and not ended."""
    series = tx.series.get(key)
    if series is None or series.state is not SeriesState.REGISTERING:
        return False
    found = (tx.catalogue.file(guid) for guid, _ in tx.uidmap.of_series(key))
    kinds = {(file.state, is_made_under(rules, file.rendition)) for file in found if file is not None}
    return kinds >= {(FileState.PENDING, True), (FileState.VISIBLE, False)}


async def missing_of(
    store: Store, key: SeriesKey, instances: Sequence[InstanceFound], rules: bytes | None
) -> list[InstanceFound]:
    """List what is neither registered nor refused, some at a time: a series may have tens of thousands."""
    missing: list[InstanceFound] = []
    for start in range(0, len(instances), LOOKED_UP_AT_ONCE):
        missing += store.read(
            functools.partial(
                _not_settled, key=key, instances=instances[start : start + LOOKED_UP_AT_ONCE], rules=rules
            )
        )
        await trio.lowlevel.checkpoint()
    return missing


def _not_settled(
    tx: Transaction, *, key: SeriesKey, instances: Sequence[InstanceFound], rules: bytes | None
) -> list[InstanceFound]:
    return [one for one in instances if not is_settled(tx, key, one.instance_uid, rules)]


def is_settled(tx: Transaction, key: SeriesKey, instance_uid: str, rules: bytes | None) -> bool:
    """Tell whether an instance is registered or refused, under these rules if any are named; or withdrawn for ever."""
    refusal = tx.quarantine.get(key, instance_uid)
    if refusal is not None:
        return rules is None or refusal.rules == rules
    newest = next(iter(tx.uidmap.guids_of(key.project, instance_uid)), None)
    if newest is None or rules is None:
        return newest is not None
    file = tx.catalogue.file(newest)
    return file is not None and (file.state is FileState.WITHDRAWN or is_made_under(rules, file.rendition))


def is_withdrawn(tx: Transaction, key: SeriesKey, instance_uid: str) -> bool:
    """Tell whether an instance was taken away for ever, and not because it is refused under some rules."""
    if tx.quarantine.get(key, instance_uid) is not None:
        return False
    newest = next(iter(tx.uidmap.guids_of(key.project, instance_uid)), None)
    file = None if newest is None else tx.catalogue.file(newest)
    return file is not None and file.state is FileState.WITHDRAWN
