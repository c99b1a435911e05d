"""The metadata service: keeps what its hospital tells it, and lets everyone find what he may read, and nothing else.

It decides alone, as a keystore does: by ACLs that it was told, and only while the hospital keeps it current.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa
import structlog

from mdmfs.metadata.schema import Level
from mdmfs.metadata.store.about import know_epoch, known_epoch
from mdmfs.metadata.store.collections import define
from mdmfs.metadata.store.database import Database
from mdmfs.metadata.store.entries import forget, put_records
from mdmfs.metadata.store.finding import Known, Reader
from mdmfs.metadata.store.images import put_images, show_series
from mdmfs.metadata.store.records import records_of
from mdmfs.metadata.store.rights import set_acls
from mdmfs.metadata.store.snapshots import create, drop, frozen_page, frozen_series, snapshots_of
from mdmfs.model.errors import AccessDeniedError, BusyError, MalformedMessageError
from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.currency import Currency, Hearing, KnownEpoch
from mdmfs.wire.messages.keystores import AskEpoch, ConfirmEpoch, EpochHeld, Outcome, Outcomes, SetAcls, Unregister
from mdmfs.wire.messages.message import MAX_BATCH
from mdmfs.wire.messages.metadata import (
    AskFrozen,
    AskFrozenSeries,
    AskRecords,
    AskSchema,
    AskSnapshots,
    Counted,
    CountFound,
    CreateSnapshot,
    DefineCollection,
    Done,
    Dropped,
    DropSnapshot,
    Explain,
    Explanation,
    Find,
    FoundPage,
    FrozenPage,
    FrozenSeries,
    Parcel,
    PutImages,
    PutRecords,
    RecordPage,
    SchemaTold,
    ShowSeries,
    Snapshot,
    Snapshots,
    Tell,
    Told,
)

MAX_PARCELS: Final = 256
"""Told at once."""
SNAPSHOT_SECONDS: Final = 60.0
"""How long one may take to freeze: nothing else is written meanwhile."""

_KINDS: Final[Mapping[Parcel, type[Told]]] = {
    Parcel.IMAGES: PutImages,
    Parcel.SHOW: ShowSeries,
    Parcel.COLLECTION: DefineCollection,
    Parcel.RECORDS: PutRecords,
}
T = TypeVar("T")


class Metadata:
    """What a metadata service does, whoever carries the messages; the connection has proven the principal.

    Every method raises ``CredentialExpiredError``, ``StoreError``, ``OutOfSpaceError`` and ``MalformedMessageError``,
    and nothing is done then. Those from ``set_acls`` to ``confirm`` raise ``AccessDeniedError`` to everyone but the
    hospital; the others raise ``BusyError`` while the service is not current, or where a question takes too long.
    """

    def __init__(
        self,
        database: Database,
        hospital: Dn,
        clock: Callable[[], float] = time.time,
        currency: Currency | None = None,
    ) -> None:
        """``clock`` gives seconds since the epoch."""
        self._database = database
        self._hospital = hospital
        self._clock = clock
        self._currency = currency or Currency()
        self._known = Known()
        self._hearing = Hearing(self._currency, self._known_epoch, self._know_epoch)
        self._log: Any = structlog.get_logger("mdmfs.metadata")

    # What the hospital tells

    async def set_acls(self, principal: Principal, message: SetAcls) -> Outcomes:
        """Know ACLs. CONFLICT: a later version, or another ACL of the same version, is there and stays."""
        return Outcomes(await self._change(principal, lambda c: set_acls(c, _limited(message.acls))))

    async def unregister(self, principal: Principal, message: Unregister) -> Outcomes:
        """Take images, and records by the GUIDs of their keys, away for ever."""
        guids = list(_limited(message.guids))
        await self._change(principal, lambda c: forget(c, guids))
        self._log.info("unregister", guids=len(guids))
        return Outcomes([Outcome.DONE] * len(guids))

    async def tell(self, principal: Principal, message: Tell) -> Done:
        """Keep what is told, in one transaction. An ACL of which a later version is there stays as it is."""
        self._owner(principal)
        if len(message.parcels) > MAX_PARCELS:
            text = f"at most {MAX_PARCELS} parcels are told at once, not {len(message.parcels)}"
            raise MalformedMessageError(text)
        _limited(message.acls)
        told = [_opened(*parcel) for parcel in message.parcels]

        def act(connection: sa.Connection) -> None:
            set_acls(connection, message.acls)
            keep(connection, told)

        await self._change(principal, act)
        for one in told:
            if isinstance(one, DefineCollection):
                self._log.info("define", project=one.project, collection=one.name, attributes=len(one.attributes))
        return Done()

    async def epoch(self, principal: Principal, message: AskEpoch) -> EpochHeld:
        """Tell up to where the hospital's changes are known; waits as ``AskEpoch`` says."""
        return await self._hearing.epoch(self._owner(principal), message)

    async def confirm(self, principal: Principal, message: ConfirmEpoch) -> EpochHeld:
        """Believe the hospital that all its changes up to an epoch have been told."""
        return await self._hearing.confirm(self._owner(principal), message)

    # What readers ask

    async def find(self, principal: Principal, message: Find) -> FoundPage:
        """Give a page of what a query finds; raises ``MalformedQueryError``."""
        page = await self._ask(principal, lambda reader: reader.page(message))
        self._log.info("find", dn=str(principal.dn), found=len(page.paths), level=message.level.value)
        return page

    async def count(self, principal: Principal, message: CountFound) -> Counted:
        """Count what a query finds; raises ``MalformedQueryError``."""
        level = Level(message.level.value)
        count = await self._ask(principal, lambda reader: reader.count(message.query, level))
        self._log.info("count", dn=str(principal.dn), found=count, level=message.level.value)
        return Counted(count)

    async def explain(self, principal: Principal, message: Explain) -> Explanation:
        """Tell what a query is understood as; raises ``MalformedQueryError``."""
        level = Level(message.level.value)
        return await self._ask(principal, lambda reader: reader.explain(message.query, level))

    async def schema(self, principal: Principal, _: AskSchema) -> SchemaTold:
        """Tell what the caller may ask for."""
        return await self._ask(principal, lambda reader: reader.told_schema())

    async def records(self, principal: Principal, message: AskRecords) -> RecordPage:
        """Give records of a subject, as much of them as the caller may read."""
        page = await self._ask(principal, lambda reader: records_of(reader, message))
        self._log.info("records", dn=str(principal.dn), subject=message.subject[:20], found=len(page.records))
        return page

    async def create_snapshot(self, principal: Principal, message: CreateSnapshot) -> Snapshot:
        """Freeze what a query finds for the caller at this moment."""
        now, author = self._refuse_outdated(principal), str(principal.dn)
        frozen = await self._database.write(
            lambda c: create(self._known.reader(c, principal, now), message, author, now),
            seconds=SNAPSHOT_SECONDS,
        )
        self._log.info("snapshot", dn=author, files=frozen.files)
        return frozen

    async def drop_snapshot(self, principal: Principal, message: DropSnapshot) -> Dropped:
        """Forget a snapshot of the caller's own."""
        principal.refuse_expired(self._clock())
        return Dropped(await self._database.write(lambda c: drop(c, str(principal.dn), message.name)))

    async def snapshots(self, principal: Principal, _: AskSnapshots) -> Snapshots:
        """Give the caller's own snapshots."""
        return await self._ask(principal, lambda reader: snapshots_of(reader, str(principal.dn)))

    async def frozen_series(self, principal: Principal, message: AskFrozenSeries) -> FrozenSeries:
        """Give a page of the series of one; raises ``NoSuchFileError``."""
        return await self._ask(principal, lambda reader: frozen_series(reader, str(principal.dn), message))

    async def frozen(self, principal: Principal, message: AskFrozen) -> FrozenPage:
        """Give a page of the files of one, and what has become of each; raises ``NoSuchFileError``."""
        return await self._ask(principal, lambda reader: frozen_page(reader, str(principal.dn), message))

    async def _change(self, principal: Principal, act: Callable[[sa.Connection], T]) -> T:
        self._owner(principal)
        return await self._database.write(act)

    async def _ask(self, principal: Principal, question: Callable[[Reader], T]) -> T:
        now = self._refuse_outdated(principal)
        return await self._database.read(lambda c: question(self._known.reader(c, principal, now)))

    def _refuse_outdated(self, principal: Principal) -> float:
        now = self._clock()
        principal.refuse_expired(now)
        if not self._currency.is_current(str(self._hospital)):
            message = "the metadata service has yet to hear from its hospital what was decided lately: ask again soon"
            raise BusyError(message)
        return now

    def _owner(self, principal: Principal) -> str:
        principal.refuse_expired(self._clock())
        if principal.dn != self._hospital:
            self._log.warning("refused", dn=str(principal.dn), reason="not the hospital")
            message = "only the hospital that this service is configured for may do that"
            raise AccessDeniedError(message)
        return str(principal.dn)

    async def _known_epoch(self, _: str) -> KnownEpoch:
        return await self._database.read(known_epoch)

    async def _know_epoch(self, _: str, known: KnownEpoch) -> None:
        await self._database.write(lambda c: know_epoch(c, known))


def _opened(kind: Parcel, octets: bytes | msgspec.Raw) -> Told:
    """Read a parcel; raises ``MalformedMessageError``."""
    try:
        return msgspec.msgpack.decode(octets, type=_KINDS[kind])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"a parcel of {kind} is none"
        raise MalformedMessageError(message) from error


def keep(connection: sa.Connection, told: Iterable[Told]) -> None:
    """Keep what was told, in order; images that come, and series that are shown, go together as far as they can."""
    waiting = _Waiting()
    for one in told:
        if not waiting.takes(one):
            waiting.keep(connection)
            waiting = _Waiting()
        match one:
            case PutImages():
                _limited(one.images)
                waiting.images.append(one)
            case ShowSeries(path):
                waiting.shown[path] = one
            case DefineCollection():
                define(connection, one)
            case PutRecords():
                _limited(one.records)
                put_records(connection, one)
    waiting.keep(connection)


class _Waiting:
    """Images that are to be put, and then series that are to be shown or not; each series at most once."""

    def __init__(self) -> None:
        self.images: list[PutImages] = []
        self.shown: dict[str, ShowSeries] = {}

    def takes(self, one: Told) -> bool:
        """Ask whether something may be kept together with this, and it comes to the same."""
        match one:
            case PutImages(series):
                return series.path not in self.shown
            case ShowSeries(path):
                return path not in self.shown
            case _:
                return not self.images and not self.shown

    def keep(self, connection: sa.Connection) -> None:
        if self.images:
            put_images(connection, *self.images)
        for is_visible in (True, False):
            some = [one for one in self.shown.values() if one.is_visible is is_visible]
            hidden = [guid for one in some for guid in one.hidden]
            show_series(connection, *(one.path for one in some), is_visible=is_visible, hidden=hidden)


def _limited(batch: Sequence[T]) -> Sequence[T]:
    if len(batch) > MAX_BATCH:
        message = f"a batch has at most {MAX_BATCH} entries, not {len(batch)}"
        raise MalformedMessageError(message)
    return batch
