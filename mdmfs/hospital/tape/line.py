"""The files that are to be staged from one PACS: batches of one series, each series in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid

BATCH: Final = 32


class Job(NamedTuple):
    """One file of a request that is to be staged."""

    request: bytes
    number: int
    guid: Guid
    size: int
    """Of the sealed object."""
    lifetime: float
    created: float
    """When the request was made."""
    series: SeriesKey
    principal: Principal
    """Who asked; without an end, because rights are looked up anew and a proxy ends before a long request."""
    address: str
    is_again: bool = False
    """Whether it was staged before, and its copy has gone while it is pinned: as when the machine was restarted."""
    element: str = ""
    """The storage element at which a replica is wanted."""


class Line:
    """Jobs by series."""

    def __init__(self) -> None:
        self._waiting: dict[SeriesKey, dict[tuple[bytes, int], Job]] = {}
        self._arrival = Bell()

    def put(self, job: Job) -> None:
        """Let a job wait; last of its series."""
        self._waiting.setdefault(job.series, {})[job.request, job.number] = job
        self._arrival.ring()

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Let jobs that were taken, all of one series, be the first to be taken again."""
        if not jobs:
            return
        series = jobs[0].series
        first = {(job.request, job.number): job for job in jobs}
        self._waiting = {series: first | self._waiting.pop(series, {}), **self._waiting}
        self._arrival.ring()

    async def take(self) -> list[Job]:
        """Wait for the next batch, of the series whose turn it is and of one caller; each file once."""
        while not self._waiting:
            await self._arrival.next().wait()
        series = next(iter(self._waiting))
        waiting = self._waiting.pop(series)
        batch: dict[Guid, Job] = {}
        first = next(iter(waiting.values()))
        for key, job in list(waiting.items()):
            is_his = (job.principal, job.address) == (first.principal, first.address)
            if is_his and len(batch) < BATCH and job.guid not in batch:
                batch[job.guid] = waiting.pop(key)
        if waiting:
            self._waiting[series] = waiting
        return list(batch.values())
