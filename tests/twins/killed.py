"""A site whose daemons are killed, and what then lies in their stores; for tests and benches of kill -9."""

from __future__ import annotations

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
from mdmfs.model.names import Guid
from mdmfs.rows.embedded import Embedded
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


def shares_kept(site: Site, guids: list[Guid]) -> list[int]:
    """Count on how many shelves each file has a share, whether their keystores run or not."""
    counts = [0] * len(guids)
    for number in NUMBERS:
        with Embedded.looking(site.keystore_file(number).parent / "shelf", shelf_layout()) as shelf:
            held = shelf.read(lambda rows: [RowDraft(rows).key(guid) is not None for guid in guids])
        counts = [before + more for before, more in zip(counts, held, strict=True)]
    return counts


def keys(site: Site, task: KeyTask) -> KeyProgress:
    """Run a task of ``mdmfs keys`` to its end."""
    return trio.run(run_task, HospitalConfiguration.read(site.hospital_file), StartKeyTask(task))
