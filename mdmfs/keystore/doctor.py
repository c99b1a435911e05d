"""What ``mdmfs doctor`` looks at in a keystore: its certificate, the CAs, room, and whether the daemon answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import trio

from mdmfs.daemon.diagnosis import GIB, LEAST_ROOM, Check, authorities_check, credential_check, free_bytes
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.model.finding import Finding
from mdmfs.rows.diagnosis import database_checks
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collect, Collected
from mdmfs.wire.peers import open_client

DEADLINE: Final = 10.0
"""Seconds for the daemon's answer."""


def checks_of(configuration: KeystoreConfiguration) -> list[Check]:
    """Give everything that is looked at."""
    return [
        credential_check("[tls]", configuration.credential),
        authorities_check("[tls]", configuration.anchors),
        *database_checks(configuration.store, shelf_layout()),
        Check("room", str(configuration.directory), functools.partial(_look_at_room, configuration)),
        Check("daemon", str(configuration.listen), functools.partial(_look_at_daemon, configuration)),
    ]


async def _look_at_room(configuration: KeystoreConfiguration, check: Check) -> Sequence[Finding]:
    free = await trio.to_thread.run_sync(free_bytes, configuration.directory)
    text = f"{free / GIB:.1f} GiB are free"
    if free < LEAST_ROOM:
        return [check.fault(f"{text}: no key can be registered on a full disk, make room")]
    return [check.ok(text)]


async def _look_at_daemon(configuration: KeystoreConfiguration, check: Check) -> Sequence[Finding]:
    """Ask it as anybody may, for nothing."""
    credential = configuration.credential
    client = open_client(str(configuration.listen), str(credential.subject()), credential, configuration.anchors)
    try:
        await client.call(COLLECT_PATH, Collect([]), Collected, deadline=trio.current_time() + DEADLINE)
    finally:
        await client.aclose()
    return [check.ok("answers")]
