"""The recalls that wait for one PACS: who has opened a file first, look-aheads after them and only where they may be.

A look-ahead is asked for by a mount whose program reads the siblings of a file one after the other (the request says
so). The hospital decides when it is polite: never before a waiter, never on the last association while there are
several, not at all in clinical hours, and no more than ``MAX_AHEAD`` at a time. See docs/adr/0008-look-ahead.md.
"""

from __future__ import annotations

import collections
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.deid.header import IdentifiedHeader
from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.hospital.release.render import Admission
from mdmfs.hospital.uidmap.records import InstanceRecord, SeriesKey
from mdmfs.model.errors import BusyError, MdmfsError, again
from mdmfs.model.names import Guid

MAX_BATCH: Final = 32
"""Instances in one C-GET."""
MAX_AHEAD: Final = 128
"""Look-aheads that wait for one PACS: those of a few mounts."""


class Source(NamedTuple):
    """Where a file comes from and what it must become."""

    file: FileRecord
    instance: InstanceRecord
    admit: Callable[[IdentifiedHeader], Awaitable[Admission]]
    is_current: Callable[[], bool]
    """Whether the file may still be opened under the key that it had when this was asked."""
    uid: str = ""
    """The SOP Instance UID that a reader sees."""
    claim: bytes = b""
    """For whom a header must have been registered to be known again (``kept/known.py``)."""


class PendingRecall:
    """One file on its way, and everyone who waits for it."""

    def __init__(self, source: Source, *, is_ahead: bool = False) -> None:
        self.source = source
        self.is_ahead = is_ahead
        """Whether nobody has opened it: only a mount looks ahead."""
        self.askers = 0
        self.has_begun = False
        """Whether the first verified bytes are staged, or it is known that there will be none."""
        self.staged: StagedObject | None = None
        """Where it is put: what the disk refuses at the end is still in memory."""
        self._failure: MdmfsError | None = None
        self._fault: MdmfsError | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def guid(self) -> Guid:
        """Which file."""
        return self.source.file.guid

    @property
    def series(self) -> SeriesKey:
        """Of which series its instance is."""
        return self.source.instance.series

    @property
    def failure(self) -> MdmfsError | None:
        """Why there will be no bytes, as an exception of its own for each who waits."""
        return None if self._failure is None else again(self._failure)

    @property
    def fault(self) -> MdmfsError | None:
        """Why it ended after it had begun: what came is dropped, as an exception of its own for each who asks."""
        return None if self._fault is None else again(self._fault)

    def tell(self, listener: Callable[[], None]) -> None:
        """Call a function once it has begun; at once if it has."""
        if self.has_begun:
            listener()
        else:
            self._listeners.append(listener)

    def begin(self) -> None:
        """Say that the first verified bytes are there."""
        self.has_begun = True
        while self._listeners:
            self._listeners.pop()()

    def fail(self, error: MdmfsError) -> None:
        """Say that there will be none, or no more; then who reads is told by what he reads."""
        if self.has_begun:
            self._fault = self._fault or error
            return
        self._failure = error
        self.begin()


class Batch(NamedTuple):
    """What one retrieval is to bring."""

    recalls: list[PendingRecall]
    """Of one series, each instance once."""
    is_ahead: bool
    """Whether it was taken as look-aheads; some may be waited for by now."""


_CLINICAL_HOURS: Final = "the PACS is in its clinical hours: nothing is fetched ahead, open the file itself"


class _Line:
    """Recalls by series: each series in turn, so that a large one keeps nobody waiting."""

    def __init__(self) -> None:
        self._waiting: dict[SeriesKey, collections.OrderedDict[PendingRecall, None]] = {}
        self.count = 0

    def put(self, recall: PendingRecall) -> None:
        self._waiting.setdefault(recall.series, collections.OrderedDict())[recall] = None
        self.count += 1

    def remove(self, recall: PendingRecall) -> bool:
        """Take one out; False where it does not wait here."""
        waiting = self._waiting.get(recall.series)
        if waiting is None or recall not in waiting:
            return False
        del waiting[recall]
        self.count -= 1
        if not waiting:
            del self._waiting[recall.series]
        return True

    def take(self) -> list[PendingRecall]:
        """Take a batch: of the series whose turn it is those that wait longest, each instance once."""
        series = next(iter(self._waiting))
        waiting = self._waiting.pop(series)
        batch: dict[str, PendingRecall] = {}
        while waiting and len(batch) < MAX_BATCH:
            recall = next(iter(waiting))
            if recall.source.instance.instance_uid in batch:
                break
            del waiting[recall]
            batch[recall.source.instance.instance_uid] = recall
        if waiting:
            self._waiting[series] = waiting
        self.count -= len(batch)
        return list(batch.values())


class RecallQueue:
    """What waits for one PACS, for as many servers as it bears associations."""

    def __init__(self, associations: int = 1, may_look_ahead: Callable[[], bool] = lambda: True) -> None:
        """Ask ``may_look_ahead`` each time: clinical hours come and go."""
        self._waiters = _Line()
        self._ahead = _Line()
        self._may_look_ahead = may_look_ahead
        self._places_ahead = max(associations - 1, 1)
        self._ahead_under_way = 0
        self._arrival = Bell()

    def put(self, recall: PendingRecall) -> None:
        """Queue a recall; raises ``BusyError`` for a look-ahead that would be impolite now."""
        if recall.is_ahead:
            self._refuse_impolite()
        (self._ahead if recall.is_ahead else self._waiters).put(recall)
        self._arrival.ring()

    def promote(self, recall: PendingRecall) -> None:
        """Say that somebody has opened a file that was only looked ahead for; it goes to the waiters."""
        recall.is_ahead = False
        if self._ahead.remove(recall):
            self._waiters.put(recall)
            self._arrival.ring()

    def withdraw(self, recall: PendingRecall) -> bool:
        """Take back a look-ahead that nobody wants any more; False where it is under way or somebody waits."""
        return self._ahead.remove(recall)

    async def take(self) -> Batch:
        """Wait for the next batch: waiters first. Every batch is given back by ``done``."""
        while True:
            arrival = self._arrival.next()
            if self._waiters.count:
                return Batch(self._waiters.take(), is_ahead=False)
            self._heed_the_hours()
            if self._ahead.count and self._ahead_under_way < self._places_ahead:
                batch = Batch(self._ahead.take(), is_ahead=True)
                self._ahead_under_way += 1
                return batch
            await arrival.wait()

    def done(self, batch: Batch) -> None:
        """Say that a batch has ended."""
        if batch.is_ahead:
            self._ahead_under_way -= 1
            self._arrival.ring()

    def _refuse_impolite(self) -> None:
        """Raise ``BusyError`` where a look-ahead would not be taken now."""
        if not self._may_look_ahead():
            raise BusyError(_CLINICAL_HOURS)
        if self._ahead.count >= MAX_AHEAD:
            message = "so much is being fetched ahead already that nothing more is: open the file itself"
            raise BusyError(message)

    def _heed_the_hours(self) -> None:
        """Give up what was looked ahead for when clinical hours begin."""
        while self._ahead.count and not self._may_look_ahead():
            for recall in self._ahead.take():
                recall.fail(BusyError(_CLINICAL_HOURS))
