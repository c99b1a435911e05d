"""Witnesses: every keystore is told where the audit log is, signed, so that nobody can write the log anew unseen."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.model.errors import MdmfsError
from mdmfs.wire.messages.keystores import Outcome, Witness

INTERVAL: Final = 10.0
"""Seconds between two checkpoints: what a log's keeper could change in the meantime, nobody would know."""
DEADLINE: Final = 10.0

log = structlog.get_logger()


async def deposit_checkpoints(hospital: Hospital) -> None:
    """Tell every keystore where the log is, whenever it has grown, until cancelled."""
    async with trio.open_nursery() as nursery:
        for keystore in hospital.keystores.names:
            nursery.start_soon(_deposit, keystore, hospital)


async def deposit_one(keystore: str, hospital: Hospital) -> int:
    """Tell one keystore where the log is; gives the number of the last record that it knows of then.

    Raises what a call raises. A keystore that knows better is an error in the log, and stays one.
    """
    checkpoint = hospital.audit.checkpoint(hospital.clock())
    number, link = checkpoint.head
    told = Witness(checkpoint.journal, number, link, checkpoint.when, checkpoint.signature)
    outcome = await hospital.keystores.witness(keystore, told, deadline=trio.current_time() + DEADLINE)
    if outcome is not Outcome.DONE:
        log.error("a keystore knows the audit log to be further, or another: mdmfs audit verify", keystore=keystore)
    return number


async def _deposit(keystore: str, hospital: Hospital) -> None:
    known, is_silent = 0, False
    while True:
        try:
            if hospital.audit.head.number != known:
                known = await deposit_one(keystore, hospital)
            is_silent = False
        except MdmfsError as error:
            if not is_silent:
                log.warning(
                    "a keystore takes no checkpoint of the audit log", keystore=keystore, reason=error.told_here
                )
            is_silent = True
        await trio.sleep(INTERVAL)
