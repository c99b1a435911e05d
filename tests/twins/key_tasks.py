"""Tasks on the keys of a clinic, for tests: run one to its end, and wait until keystores have what was sent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys import renewals
from mdmfs.hospital.keys.currency import behind, keep_current
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.keys.tasks import Task
from mdmfs.hospital.store import Transaction
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.key_tasks import KeyProgress, KeyTask
from tests.twins.clinic import READER, SECONDS, Clinic, OpenClinic, slices


@contextlib.asynccontextmanager
async def clinic_with(folder: Path, count: int) -> AsyncIterator[OpenClinic]:
    """Give a hospital with registered slices, whose keystores it keeps current."""
    async with Clinic(folder, slices(range(1, count + 1))).open() as opened:
        await opened.harvest()
        opened.nursery.start_soon(keep_current, opened.hospital)
        yield opened


async def done(opened: OpenClinic, task: KeyTask, about: Sequence[Guid] | Selection = ()) -> KeyProgress:
    """Run a task to its end, and deliver what it sent."""
    run = Task(task, about if isinstance(about, Selection) else Selection(tuple(about)), opened.hospital)
    await run.run()
    await opened.deliver()
    away = {name for name, twin in opened.clinic.keystores.items() if twin.failure is not None}
    with trio.move_on_after(SECONDS):
        while not _waiting(opened.hospital) <= away:  # noqa: ASYNC110 somebody else tells them
            await trio.sleep(0.01)
    return run.progress()


def rotate_now(tx: Transaction, hospital: Hospital, guids: Sequence[Guid]) -> None:
    """Make new keys, whether keystores take them or not."""
    renewals.adopt(tx, hospital, renewals.new_keys(tx, hospital, guids))


def _waiting(hospital: Hospital) -> set[str]:
    """Name the keystores that have yet to hear something."""
    return set(hospital.store.read(lambda tx: behind(tx, hospital, tx.epochs.latest().number)))


async def is_clean(opened: OpenClinic) -> bool:
    """Verify everything."""
    found = await done(opened, KeyTask.VERIFY)
    assert not found.failure
    return not (found.faults or found.lost or found.silent)


def held(opened: OpenClinic, keystore: str, guid: Guid) -> Share | None:
    """Look onto a shelf."""
    record = opened.clinic.keystores[keystore].shelf.page.key(guid)
    return None if record is None else Share.parse(record.share)


async def is_readable(opened: OpenClinic, guid: Guid) -> bool:
    """Ask, as the reader, for enough shares of one split."""
    file = opened.hospital.store.read(lambda tx: tx.catalogue.file(guid))
    assert file is not None
    clients = {name: twin.as_seen_by(READER) for name, twin in opened.clinic.keystores.items()}
    async with trio.open_nursery() as nursery:
        deadline = trio.current_time() + 5
        answers = (await Keystores(clients, nursery).collect([guid], enough=file.threshold, deadline=deadline))[guid]
        nursery.cancel_scope.cancel()
    return answers.has(file.threshold)
