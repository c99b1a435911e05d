"""Entries that end: when the time comes, keystores and mounts are told as of any other change."""

from __future__ import annotations

import functools
from typing import Final

import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.rights.change import end_entries
from mdmfs.model.errors import MdmfsError

log = structlog.get_logger()

LONGEST_SLEEP: Final = 60.0
"""Seconds between two looks at least: clocks are set, and an ACL may be given an earlier end."""
RETRY_SECONDS: Final = 5.0


async def end_what_has_ended(hospital: Hospital) -> None:
    """Take out entries as they end, until cancelled."""
    since = float("-inf")
    while True:
        ring = hospital.feed.bell.next()
        now, seconds = hospital.clock(), LONGEST_SLEEP
        try:
            if _next_end(hospital, since) <= now:
                count = await hospital.store.write(functools.partial(end_entries, hospital=hospital, now=now))
                if count:
                    log.info("entries of ACLs have ended", acls=count)
                    hospital.outbox.ring()
                    hospital.feed.bell.ring()
            since = now
            seconds = min(LONGEST_SLEEP, max(_next_end(hospital, now) - now, 0.01))
        except MdmfsError as error:
            log.error("entries that have ended cannot be taken out", reason=error.told_here)  # noqa: TRY400 the reason says it
            seconds = RETRY_SECONDS
        with trio.move_on_after(seconds):
            await ring.wait()


def _next_end(hospital: Hospital, after: float) -> float:
    return hospital.store.read(lambda tx: tx.acls.next_end(after))
