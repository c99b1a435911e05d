"""A real mount for many users over a twin hospital that shows each DN its own folders; a process, driven by stdin."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog
import trio

from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import (
    Changes,
    DirectoryPage,
    FileDescription,
    FilePlace,
    OpensReport,
    SealedHeader,
    Totals,
)
from mdmfs.worker.cache.room import Room
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.principals import Arrival
from mdmfs.worker.hospital.port import Beginning, Hear
from mdmfs.worker.lease import Lease
from mdmfs.worker.service import Mounting, serve_for_all
from mdmfs.worker.serving import Ports, Site
from tests.twins.hospital import ROOT, TwinDownload, TwinHospital


class SeenHospital:
    """What a hospital shows one principal: some of the folders below its root, and nothing of the others."""

    def __init__(self, twin: TwinHospital, folders: set[str], root: Lfn = ROOT) -> None:
        self._twin = twin
        self._folders = folders
        self._root = root

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """See ``Hospital``."""
        self._refuse(lfn)
        page = await self._twin.list_directory(lfn, after)
        entries = [node for node in page.entries if lfn != self._root or node.name in self._folders]
        return DirectoryPage(page.directory, entries, page.is_last, page.version)

    async def describe(self, guid: Guid) -> FileDescription:
        """See ``Hospital``."""
        self._refuse_file(guid)
        return await self._twin.describe(guid)

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """See ``Hospital``."""
        return await self._twin.changes(since, wait, report, groups)

    async def give_back(self) -> None:
        """See ``Hospital``."""
        await self._twin.give_back()

    async def totals(self, lfn: Lfn) -> Totals:
        """See ``Hospital``."""
        await self._twin.totals(lfn)
        sizes = [len(file.plaintext) for guid, file in self._twin.files.items() if self._may(guid)]
        return Totals(len(sizes), sum(sizes))

    async def headers(self, guids: Sequence[Guid]) -> list[SealedHeader]:
        """See ``Hospital``."""
        given = await self._twin.headers(guids)
        return [one if self._may(guid) else SealedHeader() for guid, one in zip(guids, given, strict=True)]

    async def locate(self, guids: Sequence[Guid]) -> list[FilePlace | None]:
        """See ``Hospital``."""
        places = await self._twin.locate(guids)
        return [place if self._may(guid) else None for guid, place in zip(guids, places, strict=True)]

    async def acl(self, lfn: Lfn) -> list[str]:
        """See ``Hospital``."""
        self._refuse(lfn)
        return await self._twin.acl(lfn)

    async def stage(self, guids: Sequence[Guid]) -> None:
        """See ``Hospital``."""
        for guid in guids:
            self._refuse_file(guid)
        await self._twin.stage(guids)

    @contextlib.asynccontextmanager
    async def fetch(self, guid: Guid, *, beginning: Beginning | None = None) -> AsyncIterator[TwinDownload]:
        """See ``Hospital``."""
        self._refuse_file(guid)
        async with self._twin.fetch(guid, beginning=beginning) as download:
            yield download

    def doubt(self, guid: Guid) -> bool:
        """Know no other place."""
        del guid
        return False

    async def fetch_all(self, guids: Sequence[Guid], hear: Hear) -> None:
        """See ``Hospital``."""
        for guid in guids:
            self._refuse_file(guid)
        await self._twin.fetch_all(guids, hear)

    def _may(self, guid: Guid) -> bool:
        return any(self._twin.holds(self._root / folder, guid) for folder in self._folders)

    def _refuse_file(self, guid: Guid) -> None:
        if not self._may(guid):
            message = f"there is no file {guid}"
            raise NoSuchFileError(message)

    def _refuse(self, lfn: Lfn) -> None:
        below = lfn.parts[len(self._root.parts) :]
        if below and below[0] not in self._folders:
            message = f"there is no {lfn}"
            raise NoSuchFileError(message)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Mount what stdin's first line describes and say that it is ready; each other line asks for opens reported."""
    scene = json.loads(sys.stdin.readline())
    hospitals = {name: TwinHospital() for name in scene.get("hospitals", [""])}
    for name, hospital in hospitals.items():
        hospital.has_headers = scene.get("has_headers", False)
        for folder, count, size in scene["folders"]:
            hospital.add_sibling_files(folder.replace("{hospital}", name), count, size)
    async with trio.open_nursery() as nursery:
        keystores = {name: await hospital.open_keystores(nursery) for name, hospital in hospitals.items()}

        room = Room(2**30)

        def connect(arrival: Arrival, _: trio.Nursery, folder: Path) -> list[Site]:
            folders = set(scene["rights"].get(arrival.identity.dn, ()))
            return [
                Site(
                    Ports(
                        SeenHospital(hospital, folders, ROOT / name if name else ROOT),
                        functools.partial(keystores.__getitem__, name),
                        name=name,
                    ),
                    CiphertextCache(folder / name, room.limit, room),
                    Lease(wait=5.0, patience=0.0),
                )
                for name, hospital in hospitals.items()
            ]

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await serve_for_all(
                connect,
                Path(scene["cache"]),
                Mounting(root=ROOT, mountpoint=Path(scene["mountpoint"]), deadline=5.0),
                task_status=task_status,
            )
            _say(str(sum(len(hospital.given_back) for hospital in hospitals.values())))
            nursery.cancel_scope.cancel()

        await nursery.start(serve)
        _say("ready")
        async with trio.lowlevel.FdStream(0) as stdin:
            async for _ in stdin:
                reports = [report for hospital in hospitals.values() for report in hospital.reports]
                _say(str(sum(one.count for report in reports for one in report.opens)))


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main)
