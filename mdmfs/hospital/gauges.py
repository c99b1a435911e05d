"""What a hospital tells Prometheus of itself: how much waits, what is full, and who does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from prometheus_client import Gauge

from mdmfs.hospital.hospital import Hospital
from mdmfs.model.errors import MdmfsError
from mdmfs.wire.messages.administration import CopyHealth, Health

INTERVAL: Final = 15.0

FILES: Final = Gauge("mdmfs_files", "Files that are visible.")
HEADERLESS: Final = Gauge("mdmfs_files_without_header", "Visible files of which no header is kept, at least.")
OUTBOX: Final = Gauge("mdmfs_outbox_items", "What keystores and the metadata service have yet to be told.")
NOTICES: Final = Gauge("mdmfs_notices", "Series that PACSs told of and that are not registered yet.")
STAGING: Final = Gauge("mdmfs_staging_bytes", "Ciphertext in staging.")
STAGING_LIMIT: Final = Gauge("mdmfs_staging_limit_bytes", "What staging may hold.")
PACS_AWAY: Final = Gauge("mdmfs_pacs_away", "1 while a PACS is left alone because it does not answer.", ["pacs"])
ROLE: Final = Gauge("mdmfs_role", "1 by what a daemon does: work on its store, or answer readers beside it.", ["role"])
COPY_BEHIND: Final = Gauge("mdmfs_copy_behind_changes", "Changes that the copy of a daemon beside has yet to hold.")
COPY_SILENCE: Final = Gauge("mdmfs_copy_silence_seconds", "Since the one that works was heard by a daemon beside it.")
COPY_LEASE: Final = Gauge("mdmfs_copy_lease_seconds", "For which a daemon beside may answer yet; at 0 it does not.")


async def keep_gauges(hospital: Hospital, look: Callable[[], Health]) -> None:
    """Look every quarter of a minute, until cancelled: what is asked from another thread must not look itself."""
    STAGING_LIMIT.set(hospital.staging.limit)
    while True:
        try:
            tell(look())
        except MdmfsError:  # a copy that is made anew or cannot go on: what else was seen last stays
            COPY_LEASE.set(0.0)
        STAGING.set(hospital.staging.octets)
        await trio.sleep(INTERVAL)


def tell(health: Health) -> None:
    """Set what is told, of a daemon that works or of one beside it."""
    FILES.set(health.files)
    HEADERLESS.set(health.headerless)
    OUTBOX.set(health.outbox)
    NOTICES.set(health.notices)
    for pacs in health.pacs:
        PACS_AWAY.labels(pacs.name).set(pacs.is_left_alone)
    ROLE.labels("works").set(health.copy is None)
    ROLE.labels("beside").set(health.copy is not None)
    copy = health.copy or CopyHealth(behind=0, silence=0.0, lease=0.0)
    COPY_BEHIND.set(copy.behind)
    COPY_SILENCE.set(copy.silence)
    COPY_LEASE.set(copy.lease)
