"""A PACS over the network: the port ``Pacs`` on associations of our own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.dicom.connection import StaleAssociationError
from mdmfs.hospital.dicom.echo import echo
from mdmfs.hospital.dicom.pacs import (
    IncomingInstance,
    InstanceFound,
    InstanceKey,
    PacsAddress,
    Politeness,
    RetrievalService,
    SeriesFound,
)
from mdmfs.hospital.dicom.pool import Pool, Surroundings
from mdmfs.hospital.dicom.query import find_instances, find_series
from mdmfs.hospital.dicom.recall import Batch, Recall, image_batches, series_batches

_CLOSE_SECONDS: Final = 2.0


class RemotePacs:
    """One PACS, asked over a pool of associations; ``open_pacs`` makes it. The contract is ``Pacs``."""

    def __init__(self, pool: Pool) -> None:
        self._pool: Final = pool

    @property
    def retrieval(self) -> RetrievalService | None:
        """The service that instances are retrieved by; None until it was negotiated."""
        return self._pool.retrieval

    @property
    def is_left_alone(self) -> bool:
        """Whether the PACS has failed so often that it is not asked at the moment."""
        return self._pool.breaker.is_open

    @property
    def may_look_ahead(self) -> bool:
        """Whether it may be asked now for what nobody has opened yet."""
        return not self._pool.is_clinical_hour

    async def echo(self) -> None:
        """Ask whether the PACS answers at all (C-ECHO)."""
        while True:
            connection = await self._pool.take({})
            try:
                return await echo(connection, self._pool.address)
            except StaleAssociationError:
                continue  # at most once for each association that was kept
            finally:
                self._pool.give_back(connection)

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List the series of a patient or of a study."""
        return await find_series(self._pool, patient_id, study_uid)

    async def find_instances(
        self, *, study_uid: str, series_uid: str, are_described: bool = True
    ) -> list[InstanceFound]:
        """List the instances of a series."""
        return await find_instances(self._pool, study_uid, series_uid, are_described=are_described)

    def retrieve(self, wanted: Sequence[InstanceKey]) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        """Bring instances in lists."""
        keys = list({key.instance_uid: key for key in wanted}.values())
        return self._recall(image_batches(keys, self._pool.politeness.list_size))

    def retrieve_series(
        self, *, study_uid: str, series_uid: str, instances: Sequence[InstanceFound]
    ) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        """Bring a whole series."""
        found = {it.instance_uid: it for it in instances}.values()
        keys = [InstanceKey(study_uid, series_uid, it.instance_uid, it.class_uid, it.transfer_syntax) for it in found]
        return self._recall(series_batches(keys, self._pool.politeness.list_size))

    def _recall(self, batches: Iterator[Batch]) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        return contextlib.aclosing(Recall(self._pool, batches).instances())


@contextlib.asynccontextmanager
async def open_pacs(
    address: PacsAddress, politeness: Politeness | None = None, surroundings: Surroundings | None = None
) -> AsyncIterator[RemotePacs]:
    """Be ready to ask a PACS; connects when something is asked, and releases what is kept at the end."""
    pool = Pool(address, politeness or Politeness(), surroundings or Surroundings())
    pacs = RemotePacs(pool)
    try:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(pool.release_idle)
            yield pacs
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(deadline=trio.current_time() + _CLOSE_SECONDS, shield=True):
            await pool.aclose()
