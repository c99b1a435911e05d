"""A store that cannot be read or written for a while, as the copy of a database on a full disk, ends no hospital."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import pytest
import trio
import trio.testing

from mdmfs.hospital.gauges import keep_gauges
from mdmfs.hospital.health import health_of
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.currency import keep_current
from mdmfs.hospital.ledger.replicas import Replica, ReplicaState
from mdmfs.hospital.outbox.deposit import deposit
from mdmfs.hospital.registration.ending import Ending
from mdmfs.hospital.registration.reconcile import Reconciliations
from mdmfs.hospital.registration.trigger import Trigger
from mdmfs.hospital.replicas.publish import keep_replicas
from mdmfs.hospital.rights.ends import end_what_has_ended
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import OutOfSpaceError, StoreError
from tests.twins.clinic import Clinic, OpenClinic, including, slices, until
from tests.twins.records import guid_of
from tests.twins.storage import TwinElement
from tests.unit.registration.test_register import CuttingStore

T = TypeVar("T")
DAY: Final = 86_400.0

Run = Callable[[Hospital, trio.Nursery], Awaitable[None]]
TASKS: Final[dict[str, Run]] = {
    "replicas": lambda hospital, _: keep_replicas(hospital),
    "notices": lambda hospital, _: Trigger(hospital, 0).run(),
    "reconciliation": lambda hospital, nursery: Reconciliations(hospital, nursery, DAY).run_daily(),
    "metrics": lambda hospital, _: keep_gauges(hospital, functools.partial(health_of, hospital)),
    "endings": lambda hospital, _: Ending(hospital).run(),
    "entries": lambda hospital, _: end_what_has_ended(hospital),
    "keystores": lambda hospital, _: keep_current(hospital),
    "deposits": lambda hospital, _: deposit(hospital),
}


class AwayStore(CuttingStore):
    """A store that refuses to be read, or to be written."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, 10**6, is_kept=True)
        self.refuses_reads = self.refuses_writes = True
        self.refused = self.read_times = 0

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Read."""
        if self.refuses_reads:
            self.refused += 1
            message = "the copy is behind its database"
            raise StoreError(message)
        self.read_times += 1
        return super().read(act)

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Run it, and write nothing."""

        def fail(tx: Transaction) -> T:
            result = act(tx)
            if not self.refuses_writes:
                return result
            self.refused += 1
            message = "no room"
            raise OutOfSpaceError(message)

        return await super().write(fail)


@pytest.mark.parametrize("task", TASKS)
async def test_what_goes_on_beside_all_requests_goes_on_when_the_store_is_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, task: str
) -> None:
    """It would end hospitald, or itself; after its pause it looks again."""
    assert autojump_clock.rate == 0
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.opted_out = including(studies=["1.2.3"])
    async with clinic.open(deposits=False) as opened:
        store = AwayStore(opened.hospital.store)
        begin = functools.partial(TASKS[task], dataclasses.replace(opened.hospital, store=store), opened.nursery)
        opened.nursery.start_soon(begin)
        await until(lambda: store.refused > 0)
        store.refuses_reads = False
        await trio.sleep(600)
        assert store.read_times > 0


async def test_replicas_that_were_left_are_taken_away_when_there_is_room(tmp_path: Path) -> None:
    """The first look for them writes down that they are to go; on a full disk that fails."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.elements = [TwinElement()]
    left = Replica(guid_of(1).octets, "tier1", f"{1:064x}", 1, bytes(56), 9, 4e9, ReplicaState.COMING)
    async with clinic.open() as opened:
        await trio.testing.wait_all_tasks_blocked()
        await opened.hospital.store.write(lambda tx: tx.replicas.put(left))
        store = AwayStore(opened.hospital.store)
        store.refuses_reads = False
        hospital = dataclasses.replace(opened.hospital, store=store)
        opened.nursery.start_soon(keep_replicas, hospital)
        await until(lambda: store.refused > 0)
        assert states_of(opened) == [ReplicaState.COMING]
        store.refuses_writes = False
        hospital.replicas.departures.ring()  # as time does; the object may yet appear, and is looked for again
        await until(lambda: states_of(opened) == [ReplicaState.LEAVING] and not clinic.elements[0].kept)


def states_of(opened: OpenClinic) -> list[ReplicaState]:
    """Tell how its replicas are."""
    return [it.state for it in opened.hospital.store.read(lambda tx: tx.replicas.page(9))]
