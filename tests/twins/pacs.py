"""The twin of a PACS: instances in memory behind the port ``Pacs``, with knobs for what PACSs do to people."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager

import trio
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import encode

from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceFound, InstanceKey, RetrievalService, SeriesFound
from mdmfs.hospital.dicom.query import check_asked, check_uids
from mdmfs.model.errors import InstanceLostError, MdmfsError, PacsUnreachableError, RecallFailedError

BUFFER_BYTES = 64 * 2**10
POISON = 0xEE


class TwinPacs:
    """A PACS that holds what is in ``held``: append to the list, remove from it, or change an instance in place."""

    def __init__(self, held: list[Dataset], *, delay: float = 0.0, associations: int = 2) -> None:
        self.held = held
        self.delay = delay
        """Seconds before each instance."""
        self.is_stopped = False
        """Whether there is no association to be had."""
        self.counts = True
        """Whether it names Number of Series Related Instances."""
        self.may_look_ahead = True
        """False: it is in its clinical hours."""
        self.withheld: set[str] = set()
        """SOP Instance UIDs that it holds and does not send."""
        self.cut: set[str] = set()
        """SOP Instance UIDs that break off in the middle."""
        self.recalls = 0
        """How many retrievals have begun."""
        self.abandoned = 0
        """How many of them were left before their end."""
        self.listings = 0
        """How often the instances of a series were listed."""
        self.sent: collections.Counter[str] = collections.Counter()
        """How often each SOP Instance UID was begun to be sent."""
        self._places = trio.Semaphore(associations)

    @property
    def retrieval(self) -> RetrievalService | None:
        """By C-GET, as far as a twin goes."""
        return RetrievalService.GET if self.recalls else None

    @property
    def is_left_alone(self) -> bool:
        """A twin that is stopped is asked all the same."""
        return False

    async def echo(self) -> None:
        """Ask whether the PACS answers at all (C-ECHO)."""
        await self._reach()

    async def find_series(self, *, patient_id: str | None = None, study_uid: str | None = None) -> list[SeriesFound]:
        """List the series of a patient or of a study."""
        check_asked(patient_id, study_uid)
        await self._reach()
        found: dict[tuple[str, str], list[Dataset]] = {}
        for instance in self.held:
            if patient_id in {None, instance.PatientID} and study_uid in {None, instance.StudyInstanceUID}:
                found.setdefault((instance.PatientID, instance.SeriesInstanceUID), []).append(instance)
        return [_series(members, counts=self.counts) for members in found.values()]

    async def find_instances(
        self, *, study_uid: str, series_uid: str, are_described: bool = True
    ) -> list[InstanceFound]:
        """List the instances of a series."""
        check_uids((study_uid, series_uid))
        self.listings += 1
        await self._reach()
        found = [
            InstanceFound(str(it.SOPInstanceUID), str(it.SOPClassUID))
            for it in self.held
            if (it.StudyInstanceUID, it.SeriesInstanceUID) == (study_uid, series_uid)
        ]
        return found if are_described else found[:1] + [InstanceFound(it.instance_uid, "") for it in found[1:]]

    def retrieve(self, wanted: Sequence[InstanceKey]) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        """Bring instances."""
        keys = list({key.instance_uid: key for key in wanted}.values())
        return contextlib.aclosing(self._retrieve(keys))

    def retrieve_series(
        self, *, study_uid: str, series_uid: str, instances: Sequence[InstanceFound]
    ) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
        """Bring a whole series."""
        found = {it.instance_uid: it for it in instances}.values()
        keys = [InstanceKey(study_uid, series_uid, it.instance_uid, it.class_uid, it.transfer_syntax) for it in found]
        return contextlib.aclosing(self._retrieve(keys, series_uid))

    async def _retrieve(
        self, keys: Sequence[InstanceKey], series_uid: str = ""
    ) -> AsyncGenerator[IncomingInstance, None]:
        for key in keys:
            check_uids((key.study_uid, key.series_uid, key.instance_uid))
        if not keys:
            return
        await self._reach()
        failure: MdmfsError | None = None
        is_finished = False
        current: TwinInstance | None = None
        async with self._places:
            self.recalls += 1
            try:
                self._refuse_growth(keys, series_uid)
                for key in keys:
                    held = next((it for it in self.held if _is_meant(it, key)), None)
                    if held is None:
                        failure = failure or InstanceLostError("the twin no longer holds an instance")
                    elif not self._is_sent_as(held, key):
                        failure = RecallFailedError("the twin holds an instance but does not send it")
                    else:
                        current = await self._begin(held)
                        yield current
                        current.give_up()
                is_finished = True
            finally:
                self.abandoned += not is_finished
                if current is not None:
                    current.give_up()
        if failure is not None:
            raise failure

    async def _begin(self, held: Dataset) -> TwinInstance:
        await self._reach()
        await trio.sleep(self.delay)
        await self._reach()
        self.sent[held.SOPInstanceUID] += 1
        return TwinInstance(held, lambda: self.is_stopped, is_cut=held.SOPInstanceUID in self.cut)

    def _is_sent_as(self, held: Dataset, key: InstanceKey) -> bool:
        is_class = key.class_uid in {"", held.SOPClassUID}
        is_syntax = key.transfer_syntax in {None, held.file_meta.TransferSyntaxUID}
        return is_class and is_syntax and key.instance_uid not in self.withheld

    def _refuse_growth(self, keys: Sequence[InstanceKey], series_uid: str) -> None:
        known = {key.instance_uid for key in keys}
        if any(it.SeriesInstanceUID == series_uid and it.SOPInstanceUID not in known for it in self.held):
            message = "the twin sent an instance not asked for"
            raise RecallFailedError(message)

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_stopped:
            message = "the twin is stopped"
            raise PacsUnreachableError(message)


class TwinInstance:
    """One instance on its way; its buffers are spoiled at the next step, so that whoever keeps one notices."""

    def __init__(self, held: Dataset, is_stopped: Callable[[], bool], *, is_cut: bool) -> None:
        self.class_uid = str(held.SOPClassUID)
        self.instance_uid = str(held.SOPInstanceUID)
        self.transfer_syntax = str(held.file_meta.TransferSyntaxUID)
        self.is_complete = False
        self._is_stopped = is_stopped
        self._is_given_up = False
        self._encoded = encoded_data_set(held)
        self._end = len(self._encoded) // 2 if is_cut else len(self._encoded)
        self._at = 0
        self._buffer = bytearray()

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """Step through the data set once."""
        return self

    def give_up(self) -> None:
        """Let nobody read on."""
        self._is_given_up = True

    async def __anext__(self) -> memoryview:
        """Give the next buffer."""
        self._buffer[:] = bytes([POISON]) * len(self._buffer)
        was_given_up, self._is_given_up = self._is_given_up, True  # as a step that is cancelled does
        await trio.lowlevel.checkpoint()
        self._is_given_up = was_given_up
        if self.is_complete:
            raise StopAsyncIteration
        if self._is_given_up or self._is_stopped() or self._at == self._end:
            message = "the twin broke off in the middle of an instance"
            raise RecallFailedError(message)
        self._buffer = bytearray(self._encoded[self._at : min(self._at + BUFFER_BYTES, self._end)])
        self._at += len(self._buffer)
        self.is_complete = self._at == len(self._encoded)
        return memoryview(self._buffer)


def encoded_data_set(instance: Dataset) -> bytes:
    """Encode an instance in its own transfer syntax, as it travels: no preamble, no group 0002."""
    syntax = UID(instance.file_meta.TransferSyntaxUID)
    encoded = encode(instance, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert encoded is not None
    return encoded


def keys_of(instances: Sequence[Dataset]) -> Iterator[InstanceKey]:
    """Name instances as a registration records them."""
    for it in instances:
        yield InstanceKey(
            study_uid=str(it.StudyInstanceUID),
            series_uid=str(it.SeriesInstanceUID),
            instance_uid=str(it.SOPInstanceUID),
            class_uid=str(it.SOPClassUID),
            transfer_syntax=str(it.file_meta.TransferSyntaxUID),
        )


def _is_meant(held: Dataset, key: InstanceKey) -> bool:
    uids = (held.StudyInstanceUID, held.SeriesInstanceUID, held.SOPInstanceUID)
    return uids == (key.study_uid, key.series_uid, key.instance_uid)


def _series(members: Sequence[Dataset], *, counts: bool) -> SeriesFound:
    first = members[0]
    return SeriesFound(
        patient_id=str(first.PatientID),
        issuer=str(first.get("IssuerOfPatientID", "")),
        study_uid=str(first.StudyInstanceUID),
        series_uid=str(first.SeriesInstanceUID),
        modality=str(first.get("Modality", "")),
        study_date=str(first.get("StudyDate", "")),
        series_number=str(first.get("SeriesNumber", "")),
        instance_count=len(members) if counts else None,
    )
