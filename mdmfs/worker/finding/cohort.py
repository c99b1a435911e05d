"""The files of a snapshot: which series it has and which files, asked of all hospitals, and where each file is now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import FilePlace
from mdmfs.wire.messages.message import MAX_BATCH, Message
from mdmfs.wire.messages.metadata import (
    FROZEN_PATH,
    FROZEN_SERIES_PATH,
    AskFrozen,
    AskFrozenSeries,
    FrozenFile,
    FrozenPage,
    FrozenSeries,
)
from mdmfs.worker.finding.federation import Federation, told_silence

M = TypeVar("M", bound=Message)


class Places(Protocol):
    """What is needed of ``mdmfs.worker.hospital.Hospital``."""

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """Say under which name each file is; None where it is not there, or not for the caller."""


Whereabouts = Callable[[str], Places | None]
"""Who knows where the files of a series are; None where the mount does not show its hospital."""


class Cohort:
    """The files of a snapshot, at whatever hospital they are."""

    def __init__(self, federation: Federation, name: str, places: Whereabouts) -> None:
        self._federation = federation
        self._name = name
        self._places = places

    async def series(self, after: str) -> tuple[list[str], bool]:
        """Give the series after one, in order, and whether they are the last."""
        question = AskFrozenSeries(self._name, after)
        pages = await self._asked(FROZEN_SERIES_PATH, question, FrozenSeries)
        ends = [page.paths[-1] for page in pages if not page.is_last and page.paths]
        # beyond the end of a page that is not the last nothing is known yet
        known = sorted({path for page in pages for path in page.paths if not ends or path <= min(ends)})
        return known, not ends

    async def files(self, series: str) -> list[FrozenFile]:
        """Give the files of one series."""
        found: list[FrozenFile] = []
        question = AskFrozen(self._name, series)
        while True:
            pages = await self._asked(FROZEN_PATH, question, FrozenPage)
            some = [file for page in pages for file in page.files if file.series == series]
            found += some
            if not some or all(page.is_last for page in pages):
                return found
            question = AskFrozen(self._name, series, (series, found[-1].name))

    async def files_between(self, first: str, last: str) -> dict[str, list[FrozenFile]]:
        """Give the files of all series from one to another, by series: in pages, however many series there are."""
        found: dict[str, list[FrozenFile]] = {}
        after = first, ""
        while True:
            pages = await self._asked(FROZEN_PATH, AskFrozen(self._name, after=after), FrozenPage)
            ends = [_place_of(page.files[-1]) for page in pages if not page.is_last and page.files]
            # beyond the end of a page that is not the last nothing is known yet
            known = [file for page in pages for file in page.files if not ends or _place_of(file) <= min(ends)]
            for file in sorted(known, key=_place_of):
                if file.series <= last:
                    found.setdefault(file.series, []).append(file)
            if not ends or min(ends)[0] > last:
                return found
            after = min(ends)

    async def places(self, series: str, files: Sequence[FrozenFile]) -> list[FilePlace | None]:
        """Ask the hospital of a series where files of it are."""
        found: list[FilePlace | None] = []
        places = self._places(series)
        if places is None:
            return [None] * len(files)
        for begin in range(0, len(files), MAX_BATCH):
            some = [Guid(file.guid) for file in files[begin : begin + MAX_BATCH]]
            found += await places.locate(some)
        return found

    async def _asked(self, path: str, question: Message, reply: type[M]) -> list[M]:
        """Ask everyone; those who know of no such snapshot have no part of it. Raises where one does not answer."""
        answers, failures = await self._federation.ask(path, question, reply)
        silent = {name: str(error) for name, error in failures.items() if not isinstance(error, NoSuchFileError)}
        if silent:
            raise told_silence(silent)
        return list(answers.values())


def _place_of(file: FrozenFile) -> tuple[str, str]:
    """Say where it is in the order of a snapshot."""
    return file.series, file.name
