"""A site whose daemons are killed, and what then lies in their stores; for tests and benches of kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import trio

from mdmfs.cli.keys import run_task
from mdmfs.demo.processes import Processes
from mdmfs.demo.site import KEYSTORES, PROJECT, Site
from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.keystore.row_shelf import RowDraft, shelf_layout
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid
from mdmfs.rows.embedded import Embedded
from mdmfs.sharing.shamir import Share
from mdmfs.wire.messages.administration import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    AskHarvest,
    HarvestProgress,
    StartHarvest,
)
from mdmfs.wire.messages.key_tasks import KeyProgress, KeyTask, StartKeyTask
from mdmfs.wire.peers import open_client

THRESHOLD: Final = 2
DEADLINE: Final = 20.0
NUMBERS: Final = range(1, KEYSTORES + 1)
VICTIMS: Final = ("hospital", *(f"keystore-{number}" for number in NUMBERS))


def start(processes: Processes, *names: str) -> None:
    """Start daemons by name, all at once."""

    def start_one(name: str) -> None:
        if name == "hospital":
            processes.start_hospital()
        else:
            processes.start_keystore(int(name.rpartition("-")[2]))

    with ThreadPoolExecutor() as threads:
        list(threads.map(start_one, names))


async def harvest_until(configuration: HospitalConfiguration, octets: int) -> HarvestProgress:
    """Let hospitald go on until it has measured so many bytes more of images, or all; gives how far it is."""
    credential = configuration.credential
    client = open_client(str(configuration.public), str(credential.subject()), credential, configuration.anchors)
    soon = trio.current_time() + DEADLINE
    progress = await client.call(HARVEST_PATH, StartHarvest(PROJECT), HarvestProgress, deadline=soon)
    wanted = progress.octets + octets
    while progress.octets < wanted and not progress.is_over:
        await trio.sleep(0.005)
        soon = trio.current_time() + DEADLINE
        progress = await client.call(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT), HarvestProgress, deadline=soon)
    await client.aclose()
    return progress


def files_kept(site: Site) -> list[FileRecord]:
    """Read the catalogue of a hospital, whether it runs or not."""
    with LmdbStore.looking(site.hospital_directory / "store") as store:
        return store.read(lambda tx: tx.catalogue.files(limit=100_000))


def generations_kept(site: Site, guids: list[Guid]) -> list[list[int]]:
    """Give the generations of what the shelves have of each file, whether their keystores run or not."""
    found: list[list[int]] = [[] for _ in guids]
    for number in NUMBERS:
        with Embedded.looking(site.keystore_file(number).parent / "shelf", shelf_layout()) as shelf:
            records = shelf.read(lambda rows: [RowDraft(rows).key(guid) for guid in guids])
        for generations, record in zip(found, records, strict=True):
            if record is not None:
                generations.append(Share.parse(record.share).generation)
    return found


def shares_kept(site: Site, guids: list[Guid]) -> list[int]:
    """Count on how many shelves each file has a share."""
    return [len(generations) for generations in generations_kept(site, guids)]


def closed(site: Site) -> int:
    """Count the files of which fewer shelves than open them have a share of the present key."""
    files = files_kept(site)
    kept = generations_kept(site, [file.guid for file in files])
    return sum(held.count(file.generation) < THRESHOLD for file, held in zip(files, kept, strict=True))


async def rotate_and_kill(configuration: HospitalConfiguration, process: int, seconds: float) -> None:
    """Start a rotation of all keys, and kill who is at it so many seconds later."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with contextlib.suppress(MdmfsError):
                await run_task(configuration, StartKeyTask(KeyTask.ROTATE))

        nursery.start_soon(run)
        await trio.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        nursery.cancel_scope.cancel()


def keys(site: Site, task: KeyTask) -> KeyProgress:
    """Run a task of ``mdmfs keys`` to its end."""
    return trio.run(run_task, HospitalConfiguration.read(site.hospital_file), StartKeyTask(task))
