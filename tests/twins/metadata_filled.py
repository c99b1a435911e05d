"""Metadata services of several hospitals with series in them that a reader may find, ready to be asked."""

from __future__ import annotations

import hashlib
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
import sqlalchemy as sa
import trio

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.metadata.store.finding import Known
from mdmfs.metadata.store.images import put_images, show_series
from mdmfs.metadata.store.snapshots import create
from mdmfs.model.errors import PeerUnreachableError
from mdmfs.model.identity import Dn, Principal
from mdmfs.model.names import Guid
from mdmfs.wire.messages.keystores import (
    CONFIRM_PATH,
    EPOCH_PATH,
    SET_ACLS_PATH,
    AskEpoch,
    ConfirmEpoch,
    EpochHeld,
    Outcomes,
    SetAcls,
    VersionedAcl,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import (
    TELL_PATH,
    CreateSnapshot,
    Done,
    ImageEntry,
    Parcel,
    PutImages,
    SeriesEntry,
    ShowSeries,
    Tell,
)
from mdmfs.worker.finding.federation import Caller
from tests.twins.keystores import HOSPITAL, principal
from tests.twins.metadata_service import TwinCaller, TwinMetadataService

OWNER = Principal(HOSPITAL, (), 2e10)
READER = principal("/DC=org/DC=demo/CN=reader")
ROOT = b"r" * 16
CHAIN = [[ROOT, ROOT]]

M = TypeVar("M", bound=Message)


class FilledMetadata:
    """One hospital's service."""

    def __init__(self, folder: pathlib.Path, where: str = "") -> None:
        """``where`` is the URL of its database, unless it is SQLite's in the folder."""
        self.service = TwinMetadataService(folder, HOSPITAL, time.time, where)
        self.owner = self.service.as_seen_by(OWNER)
        self.reader = self.service.as_seen_by(READER)

    async def begin(self) -> None:
        """Make it current, and let the reader read."""
        await let_read(self.owner, HOSPITAL, READER.dn)

    async def be_current(self) -> None:
        """Say that all was told."""
        await be_current(self.owner)

    async def add(
        self,
        path: str,
        attributes: Mapping[str, str | float | bool],
        guids: Mapping[str, Guid] | None = None,
        size: int = 9,
    ) -> None:
        """Register a series; without files it has one."""
        await register(self.owner, path, attributes, guids, size)

    def add_many(self, paths: Sequence[str], modality: str) -> None:
        """Register series, in one transaction."""

        def put(connection: sa.Connection) -> None:
            for path in paths:
                put_images(connection, _images(path, {"Modality": modality}))
                show_series(connection, path, is_visible=True)

        self.service.database.write_now(put)

    async def show(self, path: str, *, is_visible: bool = True) -> None:
        """Let a series be found, or no longer."""
        await _told(self.owner, ShowSeries(path, is_visible))

    def freeze(self, name: str, query: str) -> None:
        """Make a snapshot, as the reader."""

        def act(connection: sa.Connection) -> None:
            reader = Known().reader(connection, READER, time.time())
            create(reader, CreateSnapshot(name, query, bytes(16)), str(READER.dn), time.time())

        self.service.database.write_now(act)

    def be_silent(self, *, is_silent: bool = True) -> None:
        """Answer nobody, or again."""
        self.service.failure = _unreachable if is_silent else None

    def close(self) -> None:
        """Let go of the database."""
        self.service.database.close()


async def be_current(owner: Caller) -> None:
    """Say to a service, as its hospital, that all was told."""
    held = await _tell(owner, EPOCH_PATH, AskEpoch(), EpochHeld)
    await _tell(owner, CONFIRM_PATH, ConfirmEpoch(held.epoch, held.mark, held.nonce), EpochHeld)


async def let_read(owner: Caller, hospital: Dn, reader: Dn) -> None:
    """Make a service current, and let somebody read what will be registered there."""
    await be_current(owner)
    acl = Acl(str(hospital), (Entry(EntryKind.USER, str(reader), 3),))
    await _tell(owner, SET_ACLS_PATH, SetAcls([VersionedAcl(ROOT, 1, acl.encode())]), Outcomes)


async def register(
    owner: Caller,
    path: str,
    attributes: Mapping[str, str | float | bool],
    guids: Mapping[str, Guid] | None = None,
    size: int = 9,
) -> None:
    """Register a series; without files it has one."""
    await _told(owner, _images(path, attributes, guids, size), ShowSeries(path, is_visible=True))


async def _told(owner: Caller, *messages: PutImages | ShowSeries) -> None:
    kinds = {PutImages: Parcel.IMAGES, ShowSeries: Parcel.SHOW}
    parcels = [(kinds[type(one)], msgspec.Raw(msgspec.msgpack.encode(one))) for one in messages]
    await _tell(owner, TELL_PATH, Tell([], parcels), Done)


async def _tell(owner: Caller, path: str, message: Message, reply: type[M]) -> M:
    return await owner.call(path, message, reply, deadline=trio.current_time() + 10)


def _images(
    path: str, attributes: Mapping[str, str | float | bool], guids: Mapping[str, Guid] | None = None, size: int = 9
) -> PutImages:
    files = guids or {"0001.dcm": Guid(hashlib.sha256(path.encode()).digest()[:16])}
    images = [ImageEntry(guid.octets, name, 1, size, bytes(32), bytes(32), CHAIN, {}) for name, guid in files.items()]
    return PutImages(SeriesEntry(path, CHAIN, dict(attributes)), images)


def callers(services: Mapping[str, FilledMetadata]) -> dict[str, TwinCaller]:
    """Give all of them, as the reader asks them."""
    return {name: service.reader for name, service in services.items()}


def _unreachable() -> PeerUnreachableError:
    return PeerUnreachableError("nobody listens there")
