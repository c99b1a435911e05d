"""Whom a mount speaks with for each of its principals, as its configuration says, also while that changes."""

from __future__ import annotations

import functools
import secrets
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import trio
from prometheus_client import Gauge

from mdmfs.daemon.looks import next_look
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital.replicas import ReplicatedHospital
from mdmfs.worker.hospital.storage import Storage
from mdmfs.worker.lease import LOOK_SECONDS, Lease, boottime
from mdmfs.worker.memory import Memory
from mdmfs.worker.namespace.leavers import Leaver
from mdmfs.worker.serving import Ports

LEASE_HELD: Final = Gauge("mdmfs_lease_held", "1 while the hospital is heard and files may be served.", ["hospital"])
MOUNT_ID_SIZE: Final = 16
AWAKE_SECONDS: Final = 0.5
"""Between two looks whether the machine has slept."""
CLOSE_SECONDS: Final = 2.0


class Places:
    """Whom a mount speaks with, as its configuration says."""

    def __init__(self, configuration: MountConfiguration, memory: Memory) -> None:
        """``memory`` is that of the mount: what its transfers receive into counts there."""
        self._configuration = configuration
        self._memory = memory
        self._each = configuration.each
        self._peers: dict[str, weakref.WeakSet[Peers]] = {name: weakref.WeakSet() for name in self._each}
        self._leases: dict[str, weakref.WeakSet[Lease]] = {name: weakref.WeakSet() for name in self._each}
        for name, leases in self._leases.items():
            LEASE_HELD.labels(name).set_function(functools.partial(_are_held, leases))

    def own_credential(self) -> Credential:
        """Give that of the user who runs this process, as the configuration has it now."""
        return own_credential(self._configuration)

    def change(self, configuration: MountConfiguration) -> None:
        """Speak with whom a configuration names from the next question on; what is under way ends as it began.

        Hospitals that it does not name are spoken with as before, and others not at all.
        """
        self._configuration = configuration
        told = configuration.each
        self._each = {name: told.get(name, before) for name, before in self._each.items()}
        for name, settings in self._each.items():
            for peers in self._peers[name]:
                peers.change(settings.hospital, settings.keystores, settings.metadata, _anchors_of(settings))

    def lease(self, name: str) -> Lease:
        """Make the lease of a principal at one hospital."""
        lease = Lease(wait=self._each[name].mount.lease_wait)
        self._leases[name].add(lease)
        return lease

    async def watch_clock(self) -> None:
        """Tell all leases when the machine has slept, for ever: so that each of them need not look for itself."""
        told = boottime() - trio.current_time()
        while True:
            await next_look(AWAKE_SECONDS)
            ahead = boottime() - trio.current_time()
            if ahead - told > LOOK_SECONDS:  # also by many short sleeps
                told = ahead
                for leases in self._leases.values():
                    for lease in leases:
                        lease.look_again()

    def ports(
        self, credential: Credential | Callable[[], Credential], nursery: trio.Nursery, *, called: str = ""
    ) -> list[Ports]:
        """Connect one principal with each hospital; his connections end with the nursery."""
        return [self._ports(name, credential, nursery, called) for name in self._each]

    def _ports(
        self, name: str, credential: Credential | Callable[[], Credential], nursery: trio.Nursery, called: str
    ) -> Ports:
        told = self._each[name]
        peers = Peers(
            told.hospital,
            told.keystores,
            credential,
            _anchors_of(told),
            nursery,
            metadata=told.metadata,
            called=called,
            file=Path(told.file),
            root=told.root,
        )
        self._peers[name].add(peers)
        nursery.start_soon(_close_at_end, peers)
        storage = Storage(peers.storage_context, told.site_cache, told.mount.cache_of, self._memory)
        nursery.start_soon(_close_at_end, storage)
        hospital = ReplicatedHospital(
            peers.hospital,
            storage,
            deadline=told.mount.deadline,
            memory=self._memory,
            purpose=told.mount.purpose,
            mount=secrets.token_bytes(MOUNT_ID_SIZE),
            root=told.root,
            readers=peers.readers,
        )

        def when_another_follows(tell: Callable[[Leaver], None]) -> None:
            peers.on_leaving = lambda client: tell(hospital.as_before(client))

        metadata = peers.metadata if told.metadata else None
        look = None if called else peers.look  # what is kept of one of many is renewed when he asks
        return Ports(hospital, peers.keystores, metadata, name, look, when_another_follows)


def _anchors_of(settings: MountConfiguration) -> TrustAnchors:
    return TrustAnchors(settings.path(settings.trust))


def _are_held(leases: Iterable[Lease]) -> bool:
    return all(lease.is_held for lease in leases)


async def _close_at_end(connected: Peers | Storage) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await connected.aclose()
