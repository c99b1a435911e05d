"""What ``mdmfs doctor`` looks at on a worker node: credential, CAs, FUSE, the cache's room, and who is asked."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import trio

from mdmfs.daemon.configuration import KeystorePeer
from mdmfs.daemon.diagnosis import (
    GIB,
    LEAST_ROOM,
    Check,
    authorities_check,
    credential_check,
    free_bytes,
    judge_clock,
)
from mdmfs.model.finding import Finding
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.messages.files import TOTALS_PATH, AskTotals, Totals
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collect, Collected
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import SCHEMA_PATH, AskSchema, SchemaTold
from mdmfs.wire.peers import open_client
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.configuration import HospitalPeer, MetadataPeer, MountConfiguration
from mdmfs.worker.fuse.control import CONNECTIONS, are_reached

HOSPITAL: Final = "hospital"
"""The check that asks a hospital."""
DEADLINE: Final = 10.0
"""Seconds for an answer of a peer."""
_DEVICE: Final = Path("/dev/fuse")
_HELPER: Final = "fusermount3"

M = TypeVar("M", bound=Message)


def checks_of(configuration: MountConfiguration) -> list[Check]:
    """Give everything that is looked at, as the user who runs this."""
    credential = own_credential(configuration)
    return [
        credential_check(str(credential.certificate_file), credential),
        Check("fuse", str(_DEVICE), look_at_fuse),
        Check("room", str(configuration.cache_folder), functools.partial(_look_at_room, configuration)),
        *(check for name, told in configuration.each.items() for check in _of_hospital(name, told, credential)),
    ]


def _of_hospital(name: str, told: MountConfiguration, credential: Credential) -> list[Check]:
    """Give what is looked at for one hospital; ``name`` where there are several."""
    anchors, of = TrustAnchors(told.path(told.trust)), f" of {name}" if name else ""
    return [
        authorities_check(f"trust{of}", anchors),
        Check(
            HOSPITAL,
            name or told.hospital.address,
            functools.partial(_look_at_hospital, told, credential, anchors),
        ),
        *(
            Check("keystore", f"{peer.name}{of}", functools.partial(_look_at_keystore, peer, credential, anchors))
            for peer in told.keystores
        ),
        *(
            Check("metadata", peer.name, functools.partial(_look_at_metadata, peer, credential, anchors))
            for peer in told.metadata
        ),
    ]


async def look_at_fuse(check: Check, is_controlled: Callable[[], bool] = are_reached) -> Sequence[Finding]:
    """Look at the device, the helper, and where the kernel's limits are raised."""
    await trio.lowlevel.checkpoint()
    if not _DEVICE.exists():
        return [check.fault("is missing: load the module (modprobe fuse), or allow it in the container")]
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return [check.fault("may not be opened by this user")]
    if os.geteuid() != 0 and shutil.which(_HELPER) is None:
        return [check.fault(f"{_HELPER} is not installed: it is in the package fuse3")]
    if not await trio.to_thread.run_sync(is_controlled):
        found = f"is there; {CONNECTIONS} is not mounted (mount -t fusectl fusectl {CONNECTIONS})"
        return [check.warning(f"{found}: behind 12 READs that wait, a mapping may be read on after its lease lapsed")]
    return [check.ok("is there")]


async def _look_at_room(configuration: MountConfiguration, check: Check) -> Sequence[Finding]:
    free = await trio.to_thread.run_sync(free_bytes, configuration.cache_folder)
    text = f"{free / GIB:.1f} GiB are free for a cache of at most {configuration.cache_size / GIB:.1f}"
    if free < LEAST_ROOM:
        return [check.fault(f"{text}: make room, or put cache.directory elsewhere")]
    return [check.ok(text)]


async def _look_at_hospital(
    configuration: MountConfiguration, credential: Credential, anchors: TrustAnchors, check: Check
) -> Sequence[Finding]:
    wanted = AskTotals(str(configuration.root))
    totals, clock = await _ask(configuration.hospital, TOTALS_PATH, wanted, Totals, credential, anchors)
    if not totals.files:
        return [check.warning("answers, but there is no file for this identity: is it in a project?"), clock]
    return [check.ok(f"answers; {totals.files} files, {totals.size / GIB:.1f} GiB, for this identity"), clock]


async def _look_at_keystore(
    peer: KeystorePeer, credential: Credential, anchors: TrustAnchors, check: Check
) -> Sequence[Finding]:
    """Ask it for nothing, which anybody may."""
    _, clock = await _ask(peer, COLLECT_PATH, Collect([]), Collected, credential, anchors)
    return [check.ok("answers"), clock]


async def _look_at_metadata(
    peer: MetadataPeer, credential: Credential, anchors: TrustAnchors, check: Check
) -> Sequence[Finding]:
    """Ask what there is to ask for, which looks at no image."""
    _, clock = await _ask(peer, SCHEMA_PATH, AskSchema(), SchemaTold, credential, anchors)
    return [check.ok("answers"), clock]


async def _ask(
    peer: HospitalPeer | KeystorePeer | MetadataPeer,
    path: str,
    message: Message,
    kind: type[M],
    credential: Credential,
    anchors: TrustAnchors,
) -> tuple[M, Finding]:
    client = open_client(peer.address, peer.dn, credential, anchors)
    async with contextlib.aclosing(client):
        answer = await client.call(path, message, kind, deadline=trio.current_time() + DEADLINE)
    return answer, judge_clock(getattr(peer, "name", peer.address), client.skew)
