"""Reading from replicas over real sockets, from storage elements that are dead, slow or lie: reads are right."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.model.errors import (
    BusyError,
    CredentialExpiredError,
    MalformedMessageError,
    MdmfsError,
    PeerTimedOutError,
    PeerUnreachableError,
    StoreError,
)
from mdmfs.wire.bundle import Event, Piece
from mdmfs.wire.exchange import HEAD_BYTES, ONE_PIECE_SECONDS
from mdmfs.wire.messages.files import Transfer
from mdmfs.wire.stream import Address
from mdmfs.worker.hospital import storage
from mdmfs.worker.hospital.storage import Storage
from mdmfs.worker.memory import SMALLEST_WINDOW, WINDOW, Memory
from tests.twins.farm import SIZE, Farm, name_of, open_farm
from tests.twins.octets import octets
from tests.twins.storage import Served
from tests.twins.wire import context_of


@pytest.fixture
async def farm(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Farm]:
    """Give a worker that has read nothing yet."""
    async with open_farm(tmp_path, nursery) as farm:
        yield farm


async def test_a_file_comes_from_its_replica_and_not_from_the_hospital(farm: Farm) -> None:
    """The hospital decides and names it; the bytes come from elsewhere, also where more follows them."""
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 0
    assert len(farm.served.asked) == len(farm.files)


async def test_what_is_fetched_ahead_comes_from_replicas_too_and_the_rest_from_the_hospital(farm: Farm) -> None:
    """Side by side, and in one answer what has none."""
    del farm.on_wire.replicas[farm.files[2].guid]
    await farm.opener.prefetch([farm.node(file) for file in farm.files])
    assert all(file.guid in farm.cache for file in farm.files)
    assert (farm.twin.fetches, len(farm.served.asked), farm.on_wire.transfers_asked) == (1, 3, 1)
    assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]


@pytest.mark.parametrize("fault", ["cut", "short", "tiny", "stalls", "silent", "forbidden", "rubbish", "dead"])
@pytest.mark.parametrize("is_ahead", [False, True])
async def test_a_storage_element_that_fails_fails_no_reader(
    farm: Farm, fault: str, monkeypatch: pytest.MonkeyPatch, *, is_ahead: bool
) -> None:
    """The hospital gives what it does not, and it is left alone for a while."""
    monkeypatch.setattr(storage, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(storage, "PACE_SECONDS", 0.3)
    farm.served.fault = fault
    if fault == "dead":
        for guid, told in farm.on_wire.replicas.items():
            farm.on_wire.replicas[guid] = Transfer("http://127.0.0.1:1/x", "tier1", told.size, 0, 2, told.header)
    if is_ahead:
        with trio.fail_after(20), contextlib.suppress(PeerUnreachableError, PeerTimedOutError):
            await farm.opener.prefetch([farm.node(file) for file in farm.files])
    assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]
    assert farm.twin.fetches > 0
    assert len(farm.served.asked) <= storage.AT_ONCE


@pytest.mark.parametrize("fault", ["forbidden", "tiny"])
async def test_who_refuses_or_lies_is_heard_at_once_and_who_does_so_suddenly_after_a_moment(
    farm: Farm, fault: str, autojump_clock: trio.testing.MockClock
) -> None:
    """That is less than is waited for in one piece, of a storage element that has given what it was asked for."""
    autojump_clock.autojump_threshold = 0.5  # what goes over the wire takes no time
    guids = [file.guid for file in farm.files]

    async def hear(_: int, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        assert not isinstance(event, MdmfsError)

    farm.served.fault, begun = fault, trio.current_time()
    await farm.hospital.fetch_all(guids, hear)
    assert trio.current_time() == begun
    assert (farm.twin.fetches, len(farm.served.asked)) == (1, storage.AT_ONCE)
    await trio.sleep(storage.DISTRUST_SECONDS)
    for farm.served.fault, moments in {"": 0, fault: 1}.items():
        begun = trio.current_time()
        await farm.hospital.fetch_all(guids, hear)
        assert trio.current_time() == pytest.approx(begun + moments * ONE_PIECE_SECONDS)
    assert (farm.twin.fetches, len(farm.served.asked)) == (2, 3 * storage.AT_ONCE)


@pytest.mark.parametrize("size", [-1, -HEAD_BYTES - WINDOW, 0, 1, 2**62])
async def test_a_hospital_that_names_a_replica_of_no_such_size_fails_no_reader(farm: Farm, size: int) -> None:
    """What it names is not there, and the mount goes on."""
    for guid, told in farm.on_wire.replicas.items():
        farm.on_wire.replicas[guid] = msgspec.structs.replace(told, size=size)
    with contextlib.suppress(MdmfsError):
        await farm.opener.prefetch([farm.node(file) for file in farm.files])
    farm.on_wire.replicas.clear()
    assert [await farm.read(file) for file in farm.files] == [file.plaintext for file in farm.files]


@pytest.mark.parametrize("where", [0, 30, 60, 20_000, SIZE])
async def test_flipped_bytes_are_found_out_and_fetched_from_the_hospital(farm: Farm, where: int) -> None:
    """In the salt, the commitment, the first chunk, one in the middle and the last."""
    file = farm.files[0]
    name = name_of(file)
    damaged = bytearray(farm.served.kept[name])
    damaged[where] ^= 1
    farm.served.kept[name] = bytes(damaged)
    assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 1


async def test_an_object_of_an_old_key_or_of_another_file_is_found_out(farm: Farm) -> None:
    """Whatever the storage element gives under the name, only what opens under the file's key is given."""
    old, swapped, other = farm.files[:3]
    told = farm.on_wire.replicas[old.guid]
    farm.replicate(old, generation=7)
    farm.on_wire.replicas[old.guid] = told
    farm.served.kept[name_of(swapped)] = farm.served.kept[name_of(other)]
    assert await farm.read(old) == old.plaintext
    assert await farm.read(swapped) == swapped.plaintext
    assert farm.twin.fetches == 2


async def test_a_file_that_is_read_again_comes_from_its_replica_again(farm: Farm) -> None:
    """That it went from the cache is no reason to doubt it."""
    for _ in range(3):
        assert await farm.read(farm.files[0]) == farm.files[0].plaintext
        farm.forget(farm.files[0])
    assert (farm.twin.fetches, len(farm.served.asked)) == (0, 3)


async def test_what_the_hospital_has_sent_is_not_doubted(farm: Farm) -> None:
    """Only what a replica brought, and once: what is unsound at the hospital itself is not fetched without end."""
    file = farm.files[0]
    assert not farm.hospital.doubt(file.guid)
    await farm.read(file)
    assert [farm.hospital.doubt(file.guid) for _ in range(2)] == [True, False]
    farm.forget(file)
    assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 1
    assert not farm.hospital.doubt(file.guid)


async def test_what_fills_up_an_object_costs_no_connection(farm: Farm) -> None:
    """It is passed over, and the connection serves the next file."""
    for file in farm.files:
        farm.replicate(file, padding=50_000)
        assert await farm.read(file) == file.plaintext
    assert (len(farm.served.asked), farm.served.connections) == (len(farm.files), 1)


async def test_bundles_at_once_share_what_fetches_side_by_side(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection costs a handshake, and what was asked for first is wanted first."""
    monkeypatch.setattr(storage, "FAR_SECONDS", 600.0)  # a busy machine is no reason for more
    files = [farm.twin.add_file(f"/grid/medical/b/{number}.dcm", octets(SIZE, str(number))) for number in range(24)]
    for file in files:
        farm.replicate(file)
    async with trio.open_nursery() as nursery:
        for begin in range(0, 24, 8):
            nursery.start_soon(farm.opener.prefetch, [farm.node(file) for file in files[begin : begin + 8]])
            await trio.testing.wait_all_tasks_blocked()
    asked = [[name_of(file).encode() in line for line in farm.served.asked].index(True) for file in files]
    assert max(asked[:8]) < min(asked[8:16]) + storage.AT_ONCE
    assert max(asked[8:16]) < min(asked[16:]) + storage.AT_ONCE
    assert all(file.guid in farm.cache for file in files)
    assert farm.served.connections == farm.hospital._storage.lanes("tier1").total_tokens == storage.AT_ONCE  # noqa: SLF001
    assert farm.memory.used == 0


async def test_one_that_does_not_shake_hands_is_waited_for_once_whoever_waits_behind(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundles that waited for a place know by then that it failed: each would wait as long, and say so again."""
    monkeypatch.setattr(storage, "HEAD_SECONDS", 0.3)
    files = [farm.twin.add_file(f"/grid/medical/b/{number}.dcm", octets(SIZE, str(number))) for number in range(24)]
    for file in files:
        farm.replicate(file)
    farm.place(f"https://{farm.served.address}/")
    context = context_of(None)
    farm.context = lambda: context
    farm.go_through(None)
    async with trio.open_nursery() as nursery:
        for begin in range(0, 24, 8):
            nursery.start_soon(farm.opener.prefetch, [farm.node(file) for file in files[begin : begin + 8]])
    assert all(file.guid in farm.cache for file in files)
    assert farm.served.connections == storage.AT_ONCE


async def test_a_storage_element_that_is_slow_holds_up_no_other(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked of it before goes on, and what lies elsewhere does not wait behind it."""
    monkeypatch.setattr(storage, "PACE_SECONDS", 600.0)
    slow = Served()
    slow.fault = "stalls"
    await farm.nursery.start(slow.serve)
    files = [farm.twin.add_file(f"/grid/medical/b/{number}.dcm", octets(SIZE, str(number))) for number in range(8)]
    for file in files:
        farm.replicate(file)
        slow.kept[name_of(file)] = farm.served.kept[name_of(file)]
        told = farm.on_wire.replicas[file.guid]
        there = msgspec.structs.replace(told, turl=slow.url(name_of(file)), element="tier2")
        farm.on_wire.replicas[file.guid] = there
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.opener.prefetch, [farm.node(file) for file in files])
        with trio.fail_after(20):
            while len(slow.asked) < storage.AT_ONCE:
                await trio.testing.wait_all_tasks_blocked()
            await farm.opener.prefetch([farm.node(file) for file in farm.files])
        nursery.cancel_scope.cancel()
    assert all(file.guid in farm.cache for file in farm.files)
    assert (farm.twin.fetches, len(slow.asked)) == (0, storage.AT_ONCE)


async def test_of_a_storage_element_that_is_far_away_more_comes_side_by_side(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a bound, and as long as the budget has room for what they receive into."""
    monkeypatch.setattr(storage, "FAR_SECONDS", 0.0)

    async def lanes_after_five() -> float:
        for _ in range(5):
            for file in farm.files:
                farm.forget(file)
            await farm.opener.prefetch([farm.node(file) for file in farm.files])
        return farm.hospital._storage.lanes("tier1").total_tokens  # noqa: SLF001 a number of no other effect here

    assert await lanes_after_five() == storage.MOST_AT_ONCE
    farm.memory.take(farm.memory.limit // 2)
    assert await lanes_after_five() == storage.AT_ONCE
    farm.memory.give(farm.memory.limit // 2)
    assert await lanes_after_five() == storage.MOST_AT_ONCE
    assert farm.memory.used == 0


async def test_what_lanes_and_bundles_receive_into_counts_in_the_budget_of_the_mount(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it is there."""
    monkeypatch.setattr(storage, "PACE_SECONDS", 600.0)
    sealed, received = farm.on_wire.replicas[farm.files[0].guid].size, list[int]()
    guids = [file.guid for file in farm.files]

    async def hear(_: int, __: Event) -> None:
        await trio.lowlevel.checkpoint()
        received.append(farm.memory.used)

    farm.served.fault = "stalls"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.hospital.fetch_all, guids, hear)
        with trio.fail_after(20):
            while len(farm.served.asked) < storage.AT_ONCE:
                await trio.testing.wait_all_tasks_blocked()
        assert farm.memory.used == storage.AT_ONCE * (sealed + HEAD_BYTES)
        nursery.cancel_scope.cancel()
    assert farm.memory.used == 0
    await farm.hospital.fetch_from_hospital(guids, hear)
    assert set(received) == {WINDOW}
    assert farm.memory.used == 0


@pytest.mark.parametrize("is_replicated", [True, False])
async def test_where_the_budget_is_small_objects_come_in_small_pieces(
    tmp_path: Path, nursery: trio.Nursery, *, is_replicated: bool
) -> None:
    """From storage elements and from the hospital, and they are the same."""
    async with open_farm(tmp_path, nursery, memory=Memory(0)) as farm:
        told = [farm.on_wire.replicas[file.guid] for file in farm.files]
        sealed = [farm.served.kept[name_of(file)][: it.size] for file, it in zip(farm.files, told, strict=True)]
        farm.twin.staged = {file.guid: each for file, each in zip(farm.files, sealed, strict=True)}
        if not is_replicated:
            farm.on_wire.replicas.clear()
        came = [b""] * len(sealed)

        async def hear(place: int, event: Event) -> None:
            await trio.lowlevel.checkpoint()
            if isinstance(event, Piece):
                assert len(event.octets) <= SMALLEST_WINDOW
                came[place] += event.octets

        await farm.hospital.fetch_all([file.guid for file in farm.files], hear)
    assert came == sealed
    assert (farm.twin.fetches > 0, bool(farm.served.asked)) == (not is_replicated, is_replicated)


@pytest.mark.parametrize("padding", [0, 100, storage.MAX_PASSED_OVER + 1])
async def test_what_is_longer_than_a_piece_comes_in_pieces(farm: Farm, padding: int) -> None:
    """Each of them where it was received."""
    long = farm.twin.add_file("/grid/medical/b/long.dcm", octets(2 * WINDOW + 12_345, "long"))
    farm.replicate(long, padding=padding)
    await farm.opener.prefetch([farm.node(long), *(farm.node(file) for file in farm.files)])
    found = farm.cache.open(long.guid, len(long.plaintext))
    assert found is not None
    assert found[0].read(0, found[0].length) == farm.served.kept[name_of(long)][: found[0].length]
    found[0].close()
    assert (farm.twin.fetches, len(farm.served.asked)) == (0, 1 + len(farm.files))


@pytest.mark.parametrize(
    "turl", ["ftp://127.0.0.1/x", "http://", "http:///x", "http://127.0.0.1:x/y", "http://a b/", "/x"]
)
async def test_a_replica_at_no_url_comes_from_the_hospital(farm: Farm, turl: str) -> None:
    """Whatever it is."""
    file = farm.files[0]
    farm.on_wire.replicas[file.guid] = msgspec.structs.replace(farm.on_wire.replicas[file.guid], turl=turl)
    await farm.opener.prefetch([farm.node(file)])
    assert await farm.read(file) == file.plaintext
    assert (farm.twin.fetches, farm.served.asked) == (1, [])


async def test_a_renewed_credential_ends_the_connections_of_the_old_one_whoever_comes_first(farm: Farm) -> None:
    """Several fetches at once find several connections of before."""
    contexts = [context_of(None), context_of(None)]
    storage = Storage(lambda: contexts[-1])
    told = farm.on_wire.replicas[farm.files[0].guid]
    transfers = [msgspec.structs.replace(told, turl=f"https://127.0.0.1:{port}/x") for port in (1, 2, 3)]

    async def fail(transfer: Transfer) -> None:
        with pytest.raises(PeerUnreachableError):
            async with storage.fetch(transfer, 0):
                pass

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for transfer in transfers:
                nursery.start_soon(fail, transfer)
        contexts.append(context_of(None))
    await storage.aclose()


async def test_a_hospital_without_storage_elements_is_not_asked_each_time(farm: Farm) -> None:
    """One question in five minutes tells that there are none."""
    farm.on_wire.replicas.clear()
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert farm.on_wire.transfers_asked == 1


@pytest.mark.parametrize("failure", [BusyError("not now"), CredentialExpiredError("it has ended"), StoreError("full")])
async def test_a_refusal_is_not_taken_for_a_hospital_without_storage_elements(farm: Farm, failure: MdmfsError) -> None:
    """Replicas are asked for again with the next file; meanwhile the hospital gives the bytes, or says why not."""
    farm.on_wire.transfers_failure = failure
    assert await farm.read(farm.files[0]) == farm.files[0].plaintext
    farm.on_wire.transfers_failure = None
    assert await farm.read(farm.files[1]) == farm.files[1].plaintext
    assert (farm.twin.fetches, len(farm.served.asked)) == (1, 1)


async def test_a_hospital_that_does_not_know_the_question_is_not_asked_each_time(farm: Farm) -> None:
    """It is of a version without replicas."""
    farm.on_wire.transfers_failure = MalformedMessageError("the hospital has no such path")
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert farm.on_wire.transfers_asked == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_site_cache_is_asked_in_place_of_the_storage_element(farm: Farm, scheme: str) -> None:
    """As a proxy is (RFC 9112 section 3.2.2): it gets the whole URL, and no certificate."""
    farm.go_through(farm.served.address, ["https://se.example.org:9000/"])
    farm.place(f"{scheme}://se.example.org:9000/bucket/")
    assert await farm.read(farm.files[0]) == farm.files[0].plaintext
    assert farm.twin.fetches == 0
    assert farm.served.asked[0].startswith(f"GET {scheme}://se.example.org:9000/bucket/".encode())


async def test_what_the_cache_is_not_for_goes_past_it(farm: Farm) -> None:
    """A host with a longer name, too; and over TLS a storage element that nobody knows is none."""
    farm.go_through(farm.served.address, ["https://se.example.org:1/"])
    farm.place("https://127.0.0.1:1/bucket/")
    assert await farm.read(farm.files[0]) == farm.files[0].plaintext
    assert (farm.served.asked, farm.twin.fetches) == ([], 1)


@pytest.mark.parametrize("fault", ["dead", "forbidden", "rubbish", "short"])
async def test_a_site_cache_that_fails_is_passed_by_for_a_while(farm: Farm, fault: str) -> None:
    """The storage element is asked itself, and is not taken for the one that failed."""
    for file in farm.files:
        farm.replicate(file)
    broken = Served()
    broken.kept, broken.fault = farm.served.kept, fault
    await farm.nursery.start(broken.serve)
    farm.go_through(Address("127.0.0.1", 1) if fault == "dead" else broken.address)
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert farm.twin.fetches == 0
    assert len(broken.asked) == (fault != "dead")
    assert len(farm.served.asked) == len(farm.files)


async def test_a_fetch_that_goes_past_the_cache_does_not_come_back_to_it(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the cache has rested long enough by then: it is decided once for each fetch."""
    monkeypatch.setattr(storage, "DISTRUST_SECONDS", 0.0)
    farm.go_through(Address("127.0.0.1", 1))
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert (farm.twin.fetches, len(farm.served.asked)) == (0, len(farm.files))


async def test_a_site_cache_that_lies_is_found_out(farm: Farm) -> None:
    """As a storage element is: what does not open comes from the hospital."""
    lying = Served()
    lying.kept = {name: octets[:-2000] + bytes(2000) for name, octets in farm.served.kept.items()}
    await farm.nursery.start(lying.serve)
    farm.go_through(lying.address)
    for file in farm.files:
        assert await farm.read(file) == file.plaintext
    assert (len(lying.asked), farm.twin.fetches) == (len(farm.files), len(farm.files))


async def test_a_transfer_that_was_cut_goes_on_by_range_at_the_hospital(farm: Farm) -> None:
    """Where that has the same sealing, nothing comes twice."""
    file = farm.files[0]
    farm.twin.staged = {file.guid: farm.served.kept[name_of(file)][: farm.on_wire.replicas[file.guid].size]}
    farm.served.fault = "cut"
    assert await farm.read(file) == file.plaintext
    assert [one is not None and one.length > 0 for one in farm.twin.beginnings] == [True]
