"""A real mount over the twin hospital in a process of its own, ``python -m tests.twins.mount``, driven by its stdin."""

from __future__ import annotations

import functools
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import structlog
import trio

from mdmfs.metadata.store.entries import forget
from mdmfs.metadata.store.images import show_series
from mdmfs.model.errors import AccessDeniedError, MdmfsError
from mdmfs.model.names import Lfn
from mdmfs.worker.cache.room import SharedRoom
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.fuse.leaving import LEAVE_SECONDS, leave_in_time
from mdmfs.worker.keys import ring
from mdmfs.worker.lease import Lease
from mdmfs.worker.service import Mounting, serve_mount
from mdmfs.worker.serving import Ports, Site
from tests.twins.disk import let_stick
from tests.twins.hospital import ROOT, TwinHospital, unreachable
from tests.twins.metadata_filled import FilledMetadata, callers

HOLD_SECONDS = 1.0
"""For so long shares are held here: nobody wants to wait for what users get."""


class Stage:
    """The twins behind a mount, and the commands that a test gives them."""

    def __init__(self, scene: dict[str, object]) -> None:
        self.hospital = TwinHospital(random.Random(0).randbytes)  # noqa: S311 the same files after a restart
        self.metadata: dict[str, FilledMetadata] = {}
        self.hospital.lease = float(str(scene.get("lease", 3600.0)))
        folders = scene["folders"]
        assert isinstance(folders, list)
        self.size = folders[0][2]
        for folder, count, size in folders:
            self.hospital.add_sibling_files(folder, count, size)

    async def open_metadata(self, folder: Path, found: dict[str, list[list[str]]]) -> None:
        """Begin the metadata services: of each hospital the paths of series, each with its modality."""
        for name, series in found.items():
            self.metadata[name] = service = FilledMetadata(folder / name)
            await service.begin()
            for path, modality in series:
                await service.add(path, {"Modality": modality}, self.hospital.guids_in(path), self.size)

    def on_silent(self, name: str) -> None:
        """Let a metadata service answer nobody."""
        self.metadata[name].be_silent()

    def on_hide(self, path: str) -> None:
        """Let a series be found no longer."""
        for service in self.metadata.values():
            service.service.database.write_now(lambda c: show_series(c, path, is_visible=False))

    def on_freeze(self, name: str) -> None:
        """Make a snapshot of all MRs."""
        for service in self.metadata.values():
            service.freeze(name, 'Modality == "MR"')

    def on_withdraw(self, lfn: str) -> None:
        """Take a file away for ever: its name, and what is known of it."""
        path = Lfn.parse(lfn)
        guid = self.hospital.guids_in(str(path.parent))[path.name]
        self.hospital.remove(lfn)
        for service in self.metadata.values():
            service.service.database.write_now(lambda c: forget(c, [guid.octets]))

    def obey(self, command: str, argument: str) -> str:
        """Carry a command out and give its answer."""
        return str(getattr(self, f"on_{command}")(argument) or "done")

    def on_dead(self, is_dead: str) -> None:
        """Answer nothing any more, or again."""
        self.hospital.failure = unreachable if is_dead == "yes" else None

    def on_broken(self, is_broken: str) -> None:
        """Raise what no program should, or no longer."""
        self.hospital.failure = cast("Callable[[], MdmfsError]", _break) if is_broken == "yes" else None

    def on_refuse(self, is_refusing: str) -> None:
        """Refuse every fetch, or no longer."""
        self.hospital.refusal = (lambda: AccessDeniedError("no")) if is_refusing == "yes" else None

    def on_slow(self, seconds: str) -> None:
        """Take so long for each recall."""
        self.hospital.recall_seconds = float(seconds)

    def on_pause(self, seconds: str) -> None:
        """Take so long for each piece."""
        self.hospital.pause = float(seconds)

    def on_headers(self, are_given: str) -> None:
        """Give headers by themselves, or no longer."""
        self.hospital.has_headers = are_given == "yes"

    def on_stop_after(self, count: str) -> None:
        """Send no more than so many bytes, or go on."""
        self.hospital.stops_after = int(count) if count else None
        self.hospital.goes_on.set()
        self.hospital.goes_on = trio.Event()

    def on_cut(self, count: str) -> None:
        """End each stream after so many bytes, or no longer."""
        self.hospital.damage = (lambda sealed: sealed[: int(count)]) if count else bytes

    def on_silence(self, names: str) -> None:
        """Stop these keystores."""
        for name in names.split():
            self.hospital.keystores[name].failure = unreachable

    def on_remove(self, lfn: str) -> None:
        """Take a name away."""
        self.hospital.remove(lfn)

    def on_add(self, lfn: str) -> None:
        """Register another file."""
        self.hospital.add_file(lfn, b"new")

    def on_stuck(self, _: str) -> None:
        """Let the disk answer nobody any more."""
        let_stick()

    def on_fault(self, _: str) -> None:
        """End by a fault of the program."""
        raise _break()

    def on_year(self, _: str) -> str:
        """Tell the year by this process's wall clock."""
        return time.strftime("%Y")

    def on_fetches(self, _: str) -> str:
        """Count the fetches so far."""
        return str(self.hospital.fetches)


async def _beside(name: str, folder: Path, room: SharedRoom, nursery: trio.Nursery) -> Site:
    """Make another hospital, with one file, to be joined with the one on the stage."""
    hospital = TwinHospital()
    hospital.add_file(f"/grid/medical/{name}/p/0001.dcm", name.encode() * 1000)
    keystores = await hospital.open_keystores(nursery)
    beside = CiphertextCache(folder / "hospitals" / name, room.limit, room)
    return Site(Ports(hospital, lambda: keystores, name=name), beside, Lease(wait=5.0, patience=0.0))


def _break() -> Exception:
    return ZeroDivisionError("a fault of the program")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Mount what the first line of stdin describes, say that it is ready, obey the other lines."""
    ring.HOLD_SECONDS = HOLD_SECONDS  # type: ignore[misc] # a constant for all others
    scene = json.loads(sys.stdin.readline())
    stage = Stage(scene)
    room = SharedRoom(Path(scene["cache"]), scene.get("cache_size", 2**32))
    cache = CiphertextCache(Path(scene["cache"]), room.limit, room)
    async with trio.open_nursery() as nursery:
        keystores = await stage.hospital.open_keystores(nursery, reader=scene.get("reader"))

        await stage.open_metadata(Path(scene["cache"]).parent, scene.get("found", {}))

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            await serve_mount(
                [
                    Site(
                        Ports(
                            stage.hospital,
                            lambda: keystores,
                            (lambda: callers(stage.metadata)) if stage.metadata else None,
                            "amc" if scene.get("beside") else "",
                        ),
                        cache,
                        Lease(wait=scene.get("lease_wait", 120.0), patience=scene.get("patience", 0.0)),
                    ),
                    *[await _beside(name, Path(scene["cache"]), room, nursery) for name in scene.get("beside", ())],
                ],
                Mounting(
                    root=ROOT,
                    mountpoint=Path(scene["mountpoint"]),
                    deadline=scene.get("deadline", 5.0),
                    configuration=scene.get("configuration", ""),
                    on_ending=functools.partial(leave_in_time, seconds=scene.get("leave", LEAVE_SECONDS)),
                ),
                task_status=task_status,
            )
            _say(f"given back after {stage.hospital.given_back} opens")
            nursery.cancel_scope.cancel()

        await nursery.start(serve)
        _say("ready")
        async with trio.lowlevel.FdStream(0) as stdin:
            buffer = b""
            async for octets in stdin:
                buffer += octets
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    command, _, argument = line.decode().partition(" ")
                    _say(stage.obey(command, argument))


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main)
