"""Who has had files: read from the audit log, for the day on which they are taken away."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from typing import Final

from mdmfs.hospital.kept.audit import Event, records_of
from mdmfs.wire.messages.administration import Reader

_GIVEN: Final = frozenset({Event.RELEASE, Event.HEADER, Event.CACHED_OPENS})


def readers_of(log: pathlib.Path, guids: Collection[str]) -> list[Reader]:
    """List who was given some of these files, the one with most first; raises ``StoreError``.

    The log tells of transfers of ciphertext, and of what mounts say of opens from their caches.
    """
    given: dict[str, dict[str, float]] = {}
    first: dict[str, float] = {}
    for record in records_of(log):
        if record.event in _GIVEN and record.guid in guids:
            given.setdefault(record.dn, {})[record.guid] = record.time
            first.setdefault(record.dn, record.time)
    readers = [Reader(dn, len(files), first[dn], max(files.values())) for dn, files in given.items()]
    return sorted(readers, key=lambda reader: (-reader.files, reader.dn))
