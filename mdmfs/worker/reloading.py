"""SIGHUP: read the configuration again and change in the running mount what can be changed there; the rest is named."""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import Callable, Iterator
from typing import Final

import structlog
import trio
from msgspec.structs import replace

from mdmfs.model.errors import MdmfsError
from mdmfs.worker.cache.room import Room
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.memory import Memory
from mdmfs.worker.places import Places

FIXED: Final = ("root", "deadline", "purpose", "lease_wait", "multi_user", "site_cache", "cache_of", "metrics")
"""Of ``[mount]``: what is built upon them would have to be built anew."""

log = structlog.get_logger(__name__)


class Reloading:
    """The configuration that a mount goes by."""

    def __init__(
        self,
        configuration: MountConfiguration,
        mountpoint: pathlib.Path,
        places: Places,
        room: Room,
        memory: Memory,
        log_as: Callable[[MountConfiguration], None],
    ) -> None:
        self._begun = self._told = configuration
        self._mountpoint = mountpoint
        self._turn = trio.Lock()
        self._places = places
        self._room = room
        self._memory = memory
        self._log_as = log_as

    async def reload(self) -> None:
        """Read the file again; where it is wrong, in whatever it says, the log tells and all stays as it was."""
        async with self._turn:
            try:
                told = await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
            except MdmfsError as error:
                log.warning("the configuration is wrong, and all stays as it was", reason=error.told_here)
                return
            left = ", ".join(_built_upon(self._begun, told))
            self._told = told = _with_what_stays(self._begun, told)
            self._log_as(told)
            self._places.change(told)
            self._memory.pushed = told.pushed
            self._memory.resize(told.memory)
            await self._room.resize(told.cache_size, told.cache_floor, told.cache_folder)
            log.info("the configuration was read again", file=told.file)
            if left:
                log.warning("some of it is only taken over by a new mount", keys=left)

    def _read(self) -> MountConfiguration:
        told = MountConfiguration.read_again(pathlib.Path(self._begun.file))
        told.refuse_hiding(self._mountpoint)
        told.refuse_missing_authorities()
        if told.credential != self._told.credential:
            own_credential(told).show_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return told


def _built_upon(begun: MountConfiguration, told: MountConfiguration) -> Iterator[str]:
    """Name the keys that are others than those that a mount began with, and cannot change in it."""
    yield from (f"mount.{key}" for key in FIXED if getattr(begun.mount, key) != getattr(told.mount, key))
    if begun.cache_folder != told.cache_folder:
        yield "cache.directory"
    before, after = begun.each, told.each
    if before.keys() != after.keys():
        yield "hospitals"
    if any(bool(before[name].metadata) != bool(after[name].metadata) for name in before.keys() & after.keys()):
        yield "metadata"


def _with_what_stays(begun: MountConfiguration, told: MountConfiguration) -> MountConfiguration:
    kept = {key: getattr(begun.mount, key) for key in FIXED}
    cache = replace(told.cache, directory=str(begun.cache_folder))
    return replace(told, mount=replace(told.mount, **kept), cache=cache)
