"""Brings instances by as few requests as the PACS allows: a series, lists, and one by one what is missing."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from pynetdicom import AllStoragePresentationContexts

from mdmfs.hospital.dicom.connection import Connection, StaleAssociationError
from mdmfs.hospital.dicom.move import Move
from mdmfs.hospital.dicom.negotiation import MAX_STORAGE_CONTEXTS, Offer
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceKey, RetrievalService
from mdmfs.hospital.dicom.pool import Pool
from mdmfs.hospital.dicom.query import check_uids, find_instances, is_held
from mdmfs.hospital.dicom.retrieve import Exchange, Retrieval
from mdmfs.model.errors import InstanceLostError, MdmfsError, RecallFailedError

MAX_MISSING: Final = 8
"""So many instances may be missing one by one before a recall gives up the rest."""

USUAL_TRANSFER_SYNTAXES: Final = tuple(
    "1.2.840.10008.1.2" + ending
    for ending in (
        ".1",  # Explicit VR Little Endian
        "",  # Implicit VR Little Endian
        ".4.70",  # JPEG Lossless, first-order prediction
        ".4.57",  # JPEG Lossless
        ".4.80",  # JPEG-LS Lossless
        ".4.90",  # JPEG 2000 Lossless
        ".5",  # RLE Lossless
        ".4.50",  # JPEG Baseline
        ".4.51",  # JPEG Extended
        ".4.91",  # JPEG 2000
        ".4.201",  # High-Throughput JPEG 2000 Lossless
        ".1.99",  # Deflated Explicit VR Little Endian
        ".2",  # Explicit VR Big Endian
        ".4.81",  # JPEG-LS Near-Lossless
        ".4.203",  # High-Throughput JPEG 2000
    )
)
"""Offered where the stored one is not known: native ones first, then lossless ones.

Offered all at once, Orthanc and pynetdicom choose the stored one. dcmqrscp takes the first that it accepted: it
converts between native ones and fails for compressed ones. Those are then offered one by one in this order; a PACS that
could decode a lossy image has sent it natively before a lossy transfer syntax stands alone: none is compressed for us.
"""

USUAL_CLASSES: Final = tuple(
    "1.2.840.10008.5.1.4.1.1." + ending
    for ending in (
        "2",  # CT
        "2.1",  # Enhanced CT
        "4",  # MR
        "4.1",  # Enhanced MR
        "128",  # Positron Emission Tomography
        "130",  # Enhanced PET
        "20",  # Nuclear Medicine
        "7",  # Secondary Capture
        "481.2",  # RT Dose
        "481.3",  # RT Structure Set
        "481.5",  # RT Plan
        "66.4",  # Segmentation
    )
)
"""Offered where a PACS does not tell the SOP class (dcmqrscp does not), in the ten most usual transfer syntaxes."""

_REFUSED_SERVICE: Final = frozenset({0x0122, 0x0124, 0x0211})
"""SOP class not supported, not authorized, unrecognized operation (PS3.7 Annex C)."""
LOSSLESS: Final = frozenset(USUAL_TRANSFER_SYNTAXES[:7])
"""Of the usual ones, those in which no pixel can have been altered for us."""
FOR_UNKNOWN_CLASSES: Final = dict.fromkeys(USUAL_CLASSES, USUAL_TRANSFER_SYNTAXES[:10])


_FOR_RARE_CLASSES: Final = tuple(USUAL_TRANSFER_SYNTAXES[place] for place in (0, 1, 2, 7))
"""Both native ones, and the most usual lossless and lossy ones."""


class Level(enum.StrEnum):
    """What a request names (PS3.4 section C.6.2.1)."""

    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one request asks for: instances of one series, and the contexts that they may come in."""

    level: Level
    keys: Sequence[InstanceKey] = dataclasses.field(repr=False)
    offer: Offer
    alone: str | None = None
    """The one transfer syntax of this request, where several are tried in turn because none is recorded."""
    next_alone: tuple[str, ...] = ()
    """What is tried next, for what has not come."""
    next_offers: tuple[Offer, ...] = ()
    """Other classes to be tried for what has not come, on associations of their own: one has too few contexts."""
    was_alone: bool = False
    """Whether each transfer syntax has been, or is being, tried by itself."""
    is_rare: bool = False
    """Whether it offers classes that are not usual, because none is recorded and the PACS tells none."""


class Recall:
    """One call of ``Pacs.retrieve`` or ``Pacs.retrieve_series``."""

    def __init__(self, pool: Pool, batches: Iterator[Batch]) -> None:
        self._pool: Final = pool
        self._batches: Final = batches
        self._rare_offers: Final = rare_offers(pool.politeness.classes)
        self._rare_hits: Final[list[Offer]] = []  # of unusual classes that brought something
        self._hits: Final[dict[str, None]] = {}  # lossless syntaxes that brought something when they stood alone
        self._missing_count = 0
        self._failure: MdmfsError | None = None

    async def instances(self) -> AsyncGenerator[IncomingInstance, None]:
        """Ask for batch after batch, and for what is missing of one again; see ``Pacs.retrieve``."""
        again: collections.deque[Batch] = collections.deque()
        while (batch := again.popleft() if again else next(self._batches, None)) is not None:
            # A move needs no storage contexts on the association that asks.
            is_move = self._pool.retrieval is RetrievalService.MOVE
            connection = await self._pool.take({} if is_move else batch.offer)
            retrieval: Retrieval | None = None
            try:
                retrieval = self._retrieval(connection, batch)
                await retrieval.ask(batch.level)
                while (instance := await retrieval.next_instance()) is not None:
                    yield instance
                if self._is_refused(batch, retrieval) and self._pool.turn_to_move(connection):
                    again.appendleft(batch)
                    continue
            except StaleAssociationError:
                again.appendleft(batch)  # nothing had come; at most once for each association that was kept
                continue
            finally:
                if retrieval is not None:
                    retrieval.close()
                self._pool.give_back(connection)
            again.extendleft(reversed(await self._once_more(batch, retrieval)))
        if self._failure is not None:
            raise self._failure

    def _retrieval(self, connection: Connection, batch: Batch) -> Retrieval:
        address, destination = self._pool.address, self._pool.destination
        if self._pool.choose(connection) is RetrievalService.MOVE and destination is not None:
            return Move(connection, address, batch.keys, batch.offer, destination, self._pool.politeness)
        return Exchange(connection, address, batch.keys)

    @staticmethod
    def _is_refused(batch: Batch, retrieval: Retrieval) -> bool:
        """Tell whether the PACS does not do at all what it was asked, whatever the instances."""
        return retrieval.status in _REFUSED_SERVICE and len(retrieval.missing()) == len(batch.keys)

    async def _once_more(self, batch: Batch, exchange: Retrieval) -> list[Batch]:
        """Decide how to ask for what did not come: a series in lists, a list in single instances, these no more."""
        missing = exchange.missing()
        if batch.alone in LOSSLESS and len(missing) < len(batch.keys):
            self._hits[batch.alone] = None
        if batch.is_rare and len(missing) < len(batch.keys) and batch.offer not in self._rare_hits:
            self._rare_hits.append(batch.offer)
        if not missing:
            return []
        if batch.next_alone:
            return [_alone(missing, batch.next_alone)]
        if batch.next_offers:
            return [dataclasses.replace(_rare(missing, batch.next_offers), was_alone=batch.was_alone)]
        if len(batch.keys) == 1:
            return await self._judge(batch, exchange.status)
        return await self._in_smaller_ones(batch, missing)

    async def _in_smaller_ones(self, batch: Batch, missing: Sequence[InstanceKey]) -> list[Batch]:
        """Ask for several that are missing again: in lists, then in what has brought others, then one by one."""
        if batch.level is Level.SERIES:
            return list(image_batches(await self._described(missing), self._pool.politeness.list_size))
        if batch.alone is None and missing[0].transfer_syntax is None and self._hits:
            return [_alone(missing, tuple(self._hits))]
        if not batch.is_rare and not missing[0].class_uid and self._rare_hits:
            return [_rare(missing, tuple(self._rare_hits))]
        return list(image_batches(missing, 1))

    async def _described(self, keys: Sequence[InstanceKey]) -> Sequence[InstanceKey]:
        """Find out the SOP classes of instances that came in none of those offered, where only some were known."""
        if all(key.class_uid for key in keys):
            return keys
        listed = await find_instances(self._pool, keys[0].study_uid, keys[0].series_uid)
        found = {it.instance_uid: it for it in listed}
        return [
            dataclasses.replace(key, class_uid=it.class_uid, transfer_syntax=it.transfer_syntax)
            if (it := found.get(key.instance_uid)) is not None
            else key
            for key in keys
        ]

    async def _judge(self, batch: Batch, status: int) -> list[Batch]:
        """Find out why a single instance did not come; gives up when that happens too often."""
        (key,) = batch.keys
        if not await is_held(self._pool, key):
            self._failure = self._failure or InstanceLostError(f"{self._pool.address}: it no longer holds an instance")
        elif not key.class_uid and self._rare_hits and not batch.is_rare and not batch.was_alone:
            return [_rare(batch.keys, tuple(self._rare_hits))]
        elif key.transfer_syntax is None and not batch.was_alone:
            return [_alone(batch.keys, USUAL_TRANSFER_SYNTAXES)]
        elif not key.class_uid and not batch.is_rare:
            return [dataclasses.replace(_rare(batch.keys, self._rare_offers), was_alone=True)]
        else:
            message = f"{self._pool.address}: it holds an instance but does not send it (status 0x{status:04X})"
            self._failure = RecallFailedError(message)
        self._missing_count += 1
        if self._missing_count >= MAX_MISSING:
            raise self._failure
        return []


@functools.cache
def rare_offers(configured: tuple[str, ...]) -> tuple[Offer, ...]:
    """Spread the classes that are not usual over as many associations as they need: the configured ones first.

    All storage classes of the standard, and private and retired ones as configured.
    """
    known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    classes = [it for it in dict.fromkeys((*configured, *known)) if it not in USUAL_CLASSES]
    size = MAX_STORAGE_CONTEXTS // len(_FOR_RARE_CLASSES)
    parts = (classes[start : start + size] for start in range(0, len(classes), size))
    return tuple(dict.fromkeys(part, _FOR_RARE_CLASSES) for part in parts)


def _rare(keys: Sequence[InstanceKey], offers: tuple[Offer, ...]) -> Batch:
    """Ask for instances in the first of some offers of unusual classes; the others come after it."""
    first, *others = offers
    return Batch(Level.IMAGE, keys, first, next_offers=tuple(others), is_rare=True)


def _alone(keys: Sequence[InstanceKey], syntaxes: tuple[str, ...]) -> Batch:
    """Ask for instances in the first of some transfer syntaxes; the others come after it."""
    first, *others = syntaxes
    classes = {key.class_uid for key in keys}
    offer = dict.fromkeys(USUAL_CLASSES if "" in classes else sorted(classes), (first,))
    return Batch(Level.IMAGE, keys, offer, first, tuple(others), was_alone=True)


def image_batches(keys: Sequence[InstanceKey], size: int) -> Iterator[Batch]:
    """Cut instances into requests at IMAGE level, first ones first: one series, class and transfer syntax in each.

    One transfer syntax for a class, because a PACS that is offered a choice may convert; ``size`` at a time, and what
    is alike within each ``size`` together.
    """
    for start in range(0, len(keys), size):
        alike: dict[tuple[str, str, str, str | None], list[InstanceKey]] = {}
        for key in keys[start : start + size]:
            check_uids((key.study_uid, key.series_uid, key.instance_uid))
            alike.setdefault((key.study_uid, key.series_uid, key.class_uid, key.transfer_syntax), []).append(key)
        for members in alike.values():
            yield Batch(Level.IMAGE, members, _offer(members))


def series_batches(keys: Sequence[InstanceKey], size: int) -> Iterator[Batch]:
    """Ask for a whole series at once, or in lists where one association has too few contexts for its classes."""
    offer = _offer(keys)
    if sum(map(len, offer.values())) > MAX_STORAGE_CONTEXTS:
        yield from image_batches(keys, size)
    elif keys:
        check_uids((keys[0].study_uid, keys[0].series_uid))
        yield Batch(Level.SERIES, keys, offer)


def _offer(keys: Sequence[InstanceKey]) -> Offer:
    """Choose contexts for the classes that are known; those that are not known are most likely the same."""
    syntaxes: dict[str, dict[str, None]] = {}  # in the order first seen
    for key in keys:
        if key.class_uid:
            known = (key.transfer_syntax,) if key.transfer_syntax is not None else USUAL_TRANSFER_SYNTAXES
            syntaxes.setdefault(key.class_uid, {}).update(dict.fromkeys(known))
    if not syntaxes:
        return FOR_UNKNOWN_CLASSES
    return {class_uid: tuple(names) for class_uid, names in syntaxes.items()}
