"""What a hospital tells Prometheus of itself: how much waits, what is full, and who does not answer."""

from __future__ import annotations

from typing import Final

import trio
from prometheus_client import Gauge

from mdmfs.hospital.health import health_of
from mdmfs.hospital.hospital import Hospital

INTERVAL: Final = 15.0

FILES: Final = Gauge("mdmfs_files", "Files that are visible.")
OUTBOX: Final = Gauge("mdmfs_outbox_items", "What keystores and the metadata service have yet to be told.")
NOTICES: Final = Gauge("mdmfs_notices", "Series that PACSs told of and that are not registered yet.")
STAGING: Final = Gauge("mdmfs_staging_bytes", "Ciphertext in staging.")
STAGING_LIMIT: Final = Gauge("mdmfs_staging_limit_bytes", "What staging may hold.")
PACS_AWAY: Final = Gauge("mdmfs_pacs_away", "1 while a PACS is left alone because it does not answer.", ["pacs"])


async def keep_gauges(hospital: Hospital) -> None:
    """Look every quarter of a minute, until cancelled: what is asked from another thread must not look itself."""
    STAGING_LIMIT.set(hospital.staging.limit)
    while True:
        health = health_of(hospital)
        FILES.set(health.files)
        OUTBOX.set(health.outbox)
        NOTICES.set(health.notices)
        STAGING.set(hospital.staging.octets)
        for pacs in health.pacs:
            PACS_AWAY.labels(pacs.name).set(pacs.is_left_alone)
        await trio.sleep(INTERVAL)
