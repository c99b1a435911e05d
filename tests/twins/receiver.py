"""The hospital's SCP on a free port of the loopback interface, and what it noted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator

import trio

from mdmfs.hospital.dicom.move import Destination, Moves
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.pool import Surroundings
from mdmfs.hospital.dicom.receive import Receiver, ReceiverLimits, StoredInstance
from mdmfs.hospital.dicom.security import DicomTls
from mdmfs.hospital.dicom.senders import Sender, Senders
from mdmfs.model.errors import StoreError
from tests.twins.scripted_pacs import OUR_AE_TITLE

AE_TITLE = OUR_AE_TITLE
PACS = "main"


@dataclasses.dataclass
class Reception:
    """The SCP as a test sees it."""

    port: int
    moves: Moves
    noted: list[StoredInstance]
    is_full: bool = False
    """Whether no notice can be stored."""

    @property
    def surroundings(self) -> Surroundings:
        """Let a PACS move here."""
        return Surroundings(Destination(self.moves, PACS))

    async def note(self, instance: StoredInstance) -> None:
        """Keep a notice in a list."""
        await trio.lowlevel.checkpoint()
        if self.is_full:
            message = "the list is full"
            raise StoreError(message)
        self.noted.append(instance)


@contextlib.asynccontextmanager
async def receiving(
    *addresses: PacsAddress,
    port: int = 0,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    limits: ReceiverLimits | None = None,
    tls: DicomTls | None = None,
) -> AsyncIterator[Reception]:
    """Listen for some PACSs."""
    reception = Reception(port, Moves(AE_TITLE), [])
    senders = Senders(Sender(PACS, it.ae_title, hosts, it.calling_ae_title) for it in addresses)
    receiver = Receiver(reception.moves, senders, reception.note, limits)
    async with trio.open_nursery() as nursery:
        reception.port = await nursery.start(receiver.serve, "127.0.0.1", port, tls)
        try:
            yield reception
        finally:
            nursery.cancel_scope.cancel()
