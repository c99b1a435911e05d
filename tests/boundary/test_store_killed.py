"""The hospital's process is killed at random instants: nothing that was acknowledged is lost, nothing is half there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import Transaction
from tests.twins.records import SERIES_LFN, guid_of, instance_of

REPOSITORY = Path(__file__).parents[2]
ROUNDS = 8
LONGEST_SECONDS = 0.25

REGISTERING = textwrap.dedent("""
    import pathlib, sys, trio
    from mdmfs.hospital.lmdb_store import LmdbStore
    from tests.twins.records import NOW, OWNER_ONLY, SERIES_LFN, guid_of, instance_of, new_file

    def register(tx, number):
        tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY)
        for part in (2 * number, 2 * number + 1):
            tx.uidmap.tie(guid_of(part), instance_of(part))
            tx.catalogue.add_file(SERIES_LFN / str(part), new_file(part))
            tx.outbox.push("key1", "shares", instance_of(part).series.octets(), b"%d" % part)
        tx.catalogue.show([guid_of(2 * number), guid_of(2 * number + 1)])

    async def call(store, number):
        await store.write(lambda tx: register(tx, number))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()

    async def main():
        store = LmdbStore.open(pathlib.Path(sys.argv[1]), map_size=2**30)
        number = store.read(lambda tx: tx.catalogue.totals().files) // 2
        print("open", flush=True)
        while True:
            async with trio.open_nursery() as nursery:
                for number in range(number, number + 5):
                    nursery.start_soon(call, store, number)
            number += 1

    trio.run(main)
""")


def run_and_kill(path: Path, seconds: float) -> list[int]:
    """Let a process register until it is killed; give what it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", REGISTERING, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split("\n")
    assert process.returncode == -signal.SIGKILL
    return [int(line) for line in lines[:-1]]


def registered(tx: Transaction) -> set[int]:
    """Give the numbers that are registered, each whole in four views."""
    waiting = {int(item.payload) for item in tx.outbox.peek("key1", limit=10**6)}
    inode = tx.catalogue.make_directories(SERIES_LFN) if waiting else 1
    listed = {int(node.name) for node in tx.catalogue.list_page(inode, limit=10**6).nodes}
    tied = {guid for guid, _ in tx.uidmap.of_series(instance_of(0).series)}
    assert listed == waiting
    assert tied == {guid_of(part) for part in waiting}
    assert tx.catalogue.totals() == (len(waiting), 1000 * len(waiting))
    assert {file.state for file in tx.catalogue.files(limit=10**6)} <= {FileState.VISIBLE}
    numbers = {part // 2 for part in waiting}
    assert waiting == {part for number in numbers for part in (2 * number, 2 * number + 1)}
    return numbers


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """Rounds of kill -9 on one store; what was acknowledged is there, and each registration is whole or absent."""
    chance = random.Random(20180312)  # noqa: S311 - when to kill is no secret
    acknowledged: set[int] = set()
    for _ in range(ROUNDS):
        acknowledged |= set(run_and_kill(tmp_path / "store", chance.uniform(0.0, LONGEST_SECONDS)))
        store = LmdbStore.open(tmp_path / "store", map_size=2**30)
        found = await store.write(registered)
        await store.aclose()
        assert acknowledged <= found
        assert found == set(range(len(found)))
    assert len(acknowledged) > ROUNDS
