"""Fetch one sealed object to disk; whoever reads it follows behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mdmfs.model.errors import InstanceChangedError, IntegrityError, MdmfsError, OutOfSpaceError, PeerUnreachableError
from mdmfs.sealing.layout import sealed_size
from mdmfs.wire.messages import FileDescription
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.store import CiphertextCache, Seal
from mdmfs.worker.hospital import Hospital, SealedDownload
from mdmfs.worker.open_file import OpenFile

FIRST_WRITE: Final = 256 * 2**10
"""Little, so that the first reader need not wait for more than he wants."""
WRITE: Final = 2**20


async def fetch(
    hospital: Hospital,
    cache: CiphertextCache,
    file: OpenFile,
    description: FileDescription,
    on_failure: Callable[[OpenFile, MdmfsError], Awaitable[None]],
    task_status: trio.TaskStatus[tuple[Ciphertext, Seal]],
) -> None:
    """Ask the hospital for a file's object and take it in; started when the hospital has begun to answer.

    Errors before that are raised, later ones are told to who waits for the ciphertext. Nothing stays in the cache that
    did not arrive whole.
    """
    with file.working():
        async with hospital.fetch(file.guid) as download:
            _refuse_other_size(download, file, description)
            ciphertext = await cache.receive(file.guid, download.length)
            file.adopt(ciphertext)
            seal = Seal(description.generation, description.threshold, download.salt)
            try:
                task_status.started((ciphertext, seal))
                await _receive(download, ciphertext, cache)
                if file.is_spoiled:
                    file.refuse_failed()
                cache.keep(ciphertext, seal)
            except MdmfsError as error:
                cache.abandon(ciphertext)
                ciphertext.fail(error)
                await on_failure(file, error)
            except BaseException:
                cache.abandon(ciphertext)
                ciphertext.fail(_interrupted(file))
                raise


def _interrupted(file: OpenFile) -> PeerUnreachableError:
    return PeerUnreachableError(f"the transfer of {file.guid} was interrupted; open it again")


def _refuse_other_size(download: SealedDownload, file: OpenFile, description: FileDescription) -> None:
    if description.size != file.size or download.length != sealed_size(file.size):
        message = f"{file.guid} is not of the size that its directory says; list the directory again"
        raise InstanceChangedError(message)


async def _receive(download: SealedDownload, ciphertext: Ciphertext, cache: CiphertextCache) -> None:
    room = memoryview(bytearray(min(WRITE, ciphertext.length)))
    while not ciphertext.is_complete:
        wanted = min(FIRST_WRITE if not ciphertext.arrived else WRITE, ciphertext.length - ciphertext.arrived)
        filled = 0
        while filled < wanted:
            count = await download.receive_into(room[filled:wanted])
            if not count:
                message = f"the sealed object of {ciphertext.guid} ended before its end; open it again"
                raise IntegrityError(message)
            filled += count
        await _write(ciphertext, room[:filled], cache)


async def _write(ciphertext: Ciphertext, octets: memoryview, cache: CiphertextCache) -> None:
    """Write to disk; where space could not be taken beforehand, older objects make room now."""
    while True:
        try:
            await trio.to_thread.run_sync(ciphertext.write, octets)
        except OSError as error:
            if not cache.evict_one():
                message = f"the sealed object of {ciphertext.guid} cannot be written to the cache: {error.strerror}"
                raise OutOfSpaceError(message) from error
        else:
            ciphertext.note(len(octets))
            return
