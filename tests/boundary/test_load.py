"""Many workers at one server, small: ``./run bench load`` has a thousand, and a hospitald on one core."""

from __future__ import annotations

import random

import trio
from prometheus_client import REGISTRY

from mdmfs.demo.pki import delegate
from mdmfs.wire.client import Client
from mdmfs.wire.server import Address, Limits
from mdmfs.worker.hospital.remote import RemoteHospital
from tests.twins import certificates as make
from tests.twins.hospital import ROOT, TwinHospital
from tests.twins.hospital_service import HospitalOnTheWire
from tests.twins.load import Load, Names, crowd
from tests.twins.wire import context_of, serving

WORKERS = 20
SHOWN = make.host("hospital")
TIGHT = Limits(connections=2 * WORKERS + 2, requests_a_second=20.0, burst=10, patience_seconds=0.5)


NARROW = Limits(handshakes_of_a_host=2)


def clients_of(address: Address, name: str, count: int) -> list[Client]:
    """Be so many workers of one user."""
    context = context_of(delegate(make.person(name), make.VALID))
    return [Client(address, context, expected=SHOWN.dn) for _ in range(count)]


def worker(client: Client) -> RemoteHospital:
    """Ask through one client."""
    return RemoteHospital(lambda: client, deadline=60.0, mount=bytes(16))


def dice() -> random.Random:
    """Throw the same in each run."""
    return random.Random(1)  # noqa: S311 nothing is secret in it


def connections() -> float:
    """Give what the metric tells."""
    return REGISTRY.get_sample_value("mdmfs_connections") or 0.0


def all_were_served(load: Load) -> bool:
    """Whether each was answered twice."""
    return all(len(each) >= 2 for each in load.seconds)


def somebody_was_refused(load: Load) -> bool:
    """Whether the limit was met."""
    return bool(load.failures)


async def test_a_crowd_is_served_and_leaves_nothing_behind() -> None:
    """All come at once and queue for two places; none is refused, everyone is answered, and no connection stays."""
    twin = TwinHospital()
    twin.add_file(f"{ROOT}/a/1.dcm", b"image")
    before = connections()
    async with serving(HospitalOnTheWire(twin).service(), shown=SHOWN, limits=NARROW) as address:
        clients = clients_of(address, "jane", WORKERS)
        hospitals = [worker(client) for client in clients]
        names = await Names.below(hospitals[0], ROOT)
        load = await crowd(hospitals, names, dice(), gap=0.5, until=all_were_served)
        assert not load.failures
        assert connections() >= before + WORKERS
        for client in clients:
            await client.aclose()
        with trio.fail_after(60):
            while connections() > before:  # noqa: ASYNC110 the server has no event for it
                await trio.sleep(0.05)


async def test_one_user_who_floods_is_refused_and_another_is_not() -> None:
    """His workers hear that he asks too much; the other's question is answered."""
    twin = TwinHospital()
    twin.add_file(f"{ROOT}/a/1.dcm", b"image")
    async with serving(HospitalOnTheWire(twin).service(), shown=SHOWN, limits=TIGHT) as address:
        flood, other = clients_of(address, "jane", 20), clients_of(address, "john", 1)
        names = await Names.below(worker(other[0]), ROOT)
        load = await crowd([worker(one) for one in flood], names, dice(), gap=0.05, until=somebody_was_refused)
        assert set(load.failures) == {"busy"}
        calm = await crowd([worker(one) for one in other], names, dice(), gap=0.3, until=all_were_served)
        assert not calm.failures
        for client in (*flood, *other):
            await client.aclose()
