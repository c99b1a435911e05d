"""What every ``Pacs`` does: the twin, and ours over the network, by C-GET and by C-MOVE, against pynetdicom's SCP."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from pydicom import Dataset
from pydicom.uid import MRImageStorage, RLELossless

from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_MOVE
from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceFound, InstanceKey, Pacs, PacsAddress, Politeness
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.model.errors import InstanceLostError, MalformedNameError, RecallFailedError
from tests.twins.images import ct_slice
from tests.twins.pacs import TwinPacs, encoded_data_set, keys_of
from tests.twins.receiver import AE_TITLE, receiving
from tests.twins.servers import pynetdicom_scp


@dataclasses.dataclass(frozen=True)
class Server:
    """A running SCP; what it holds, and where it may move to, is replaced by each test."""

    address: PacsAddress
    served: list[Dataset]
    destinations: dict[str, int]


Opener = Callable[[list[Dataset]], contextlib.AbstractAsyncContextManager[Pacs]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one server with C-GET for all tests."""
    served: list[Dataset] = []
    with pynetdicom_scp(served) as address:
        yield Server(address, served, {})


@pytest.fixture(scope="module")
def moving_server() -> Iterator[Server]:
    """Run one server with C-MOVE and without C-GET for all tests."""
    served: list[Dataset] = []
    destinations: dict[str, int] = {}
    with pynetdicom_scp(served, retrieval=STUDY_ROOT_MOVE, destinations=destinations) as address:
        yield Server(address, served, destinations)


@contextlib.asynccontextmanager
async def open_twin(held: list[Dataset]) -> AsyncIterator[Pacs]:
    """Open the twin over instances."""
    yield TwinPacs(held)


@pytest.fixture(params=["twin", "get", "move"])
def opening(request: pytest.FixtureRequest, server: Server, moving_server: Server) -> Opener:
    """Give each implementation in turn."""

    @contextlib.asynccontextmanager
    async def open_remote(held: list[Dataset]) -> AsyncIterator[Pacs]:
        server.served[:] = held
        async with open_pacs(server.address) as pacs:
            yield pacs

    @contextlib.asynccontextmanager
    async def open_moving(held: list[Dataset]) -> AsyncIterator[Pacs]:
        moving_server.served[:] = held
        async with receiving(moving_server.address) as reception:
            moving_server.destinations[AE_TITLE] = reception.port
            async with open_pacs(moving_server.address, Politeness(progress_timeout=3), reception.surroundings) as pacs:
                yield pacs
            assert reception.noted == []

    openers: dict[str, Opener] = {"twin": open_twin, "get": open_remote, "move": open_moving}
    return openers[request.param]


@pytest.fixture
def held() -> list[Dataset]:
    """Make three slices of one series, the second one compressed."""
    return [ct_slice(1), ct_slice(2, syntax=RLELossless), ct_slice(3)]


async def collect(pacs: Pacs, keys: list[InstanceKey], into: dict[str, bytes]) -> None:
    """Retrieve instances and keep their bytes."""
    async with pacs.retrieve(keys) as instances:
        async for instance in instances:
            content = b"".join([bytes(buffer) async for buffer in instance])
            assert instance.is_complete
            assert instance.instance_uid not in into
            into[instance.instance_uid] = content


async def exhaust(stepping: AsyncIterator[memoryview]) -> None:
    """Step until it ends or raises."""
    async for _ in stepping:
        pass


async def drop(instances: AsyncIterator[IncomingInstance]) -> None:
    """Read what comes, to the end."""
    async for instance in instances:
        async for _ in instance:
            pass


def as_sent(instances: list[Dataset]) -> dict[str, bytes]:
    """Say what must arrive."""
    return {str(it.SOPInstanceUID): encoded_data_set(it) for it in instances}


async def test_a_pacs_that_runs_answers_an_echo(opening: Opener, held: list[Dataset]) -> None:
    """More than once."""
    async with opening(held) as pacs:
        await pacs.echo()
        await pacs.echo()


async def test_the_series_of_a_patient_are_found(opening: Opener, held: list[Dataset]) -> None:
    """With all that a registration needs, and nobody else's."""
    held += [ct_slice(1, series=2), ct_slice(1, study=2), ct_slice(1, study=3, patient_id="TEST-2")]
    async with opening(held) as pacs:
        found = await pacs.find_series(patient_id="TEST-1")
    assert sorted((it.study_uid, it.series_uid, it.instance_count) for it in found) == sorted(
        (it.StudyInstanceUID, it.SeriesInstanceUID, count) for it, count in [(held[0], 3), (held[3], 1), (held[4], 1)]
    )
    first = found[0]
    assert (first.patient_id, first.issuer, first.modality) == ("TEST-1", "AMC", "CT")
    assert (first.study_date, first.series_number) == ("20180312", "1")


async def test_a_study_is_found_by_its_uid(opening: Opener, held: list[Dataset]) -> None:
    """And not when it is said to be another patient's."""
    async with opening(held) as pacs:
        study_uid = str(held[0].StudyInstanceUID)
        assert [it.patient_id for it in await pacs.find_series(study_uid=study_uid)] == ["TEST-1"]
        assert await pacs.find_series(study_uid=study_uid, patient_id="TEST-1")
        assert await pacs.find_series(study_uid=study_uid, patient_id="TEST-2") == []


@pytest.mark.parametrize("patient_id", ["", "*", "TEST-?", "TEST-1\\TEST-2", " TEST-1", "x" * 65, "a\nb"])
async def test_a_query_for_a_patient_cannot_match_more_than_one(
    opening: Opener, held: list[Dataset], patient_id: str
) -> None:
    """Empty, a wildcard and a list would bring in patients whom no inclusion list names."""
    async with opening(held) as pacs:
        with pytest.raises(MalformedNameError):
            await pacs.find_series(patient_id=patient_id)


@pytest.mark.parametrize("uid", ["", "*", "1.2.*", "1.2\\1.3", "1.2.", "x", "1" * 65])
async def test_what_is_no_uid_is_never_asked_for(opening: Opener, held: list[Dataset], uid: str) -> None:
    """Neither in a query nor in a retrieval."""
    async with opening(held) as pacs:
        with pytest.raises(MalformedNameError):
            await pacs.find_series(study_uid=uid)
        with pytest.raises(MalformedNameError):
            await pacs.find_instances(study_uid="1.2", series_uid=uid)
        with pytest.raises(MalformedNameError):
            await collect(pacs, [InstanceKey("1.2", "1.3", uid, "1.4")], {})


async def test_a_query_that_names_nothing_is_refused(opening: Opener) -> None:
    """It would list the whole hospital."""
    async with opening([]) as pacs:
        with pytest.raises(MalformedNameError):
            await pacs.find_series()


async def test_the_instances_of_a_series_are_found(opening: Opener, held: list[Dataset]) -> None:
    """Each once, with its SOP class."""
    held.append(ct_slice(1, series=2))
    async with opening(held) as pacs:
        found = await pacs.find_instances(
            study_uid=str(held[0].StudyInstanceUID), series_uid=str(held[0].SeriesInstanceUID)
        )
    assert [(it.instance_uid, it.class_uid) for it in found] == [(it.SOPInstanceUID, it.SOPClassUID) for it in held[:3]]


async def test_a_list_that_is_not_described_names_all_and_a_series_of_it_arrives_whole(opening: Opener) -> None:
    """Also the instances of another class than the first one's, which was all that was known."""
    held = [ct_slice(1), ct_slice(2), ct_slice(3)]
    held[1].SOPClassUID = held[1].file_meta.MediaStorageSOPClassUID = MRImageStorage
    uids = {"study_uid": str(held[0].StudyInstanceUID), "series_uid": str(held[0].SeriesInstanceUID)}
    came: dict[str, bytes] = {}
    async with opening(held) as pacs:
        found = await pacs.find_instances(**uids, are_described=False)
        async with pacs.retrieve_series(**uids, instances=found) as instances:
            async for instance in instances:
                came[instance.instance_uid] = b"".join([bytes(buffer) async for buffer in instance])
    assert [it.instance_uid for it in found] == [it.SOPInstanceUID for it in held]
    assert found[0].class_uid == held[0].SOPClassUID
    assert came == as_sent(held)


async def test_instances_arrive_as_they_are_stored(opening: Opener, held: list[Dataset]) -> None:
    """Byte for byte, compressed ones too, each in its recorded transfer syntax."""
    came: dict[str, bytes] = {}
    async with opening(held) as pacs:
        await collect(pacs, list(keys_of(held)), came)
    assert came == as_sent(held)


async def test_an_instance_wanted_twice_comes_once(opening: Opener, held: list[Dataset]) -> None:
    """So two waiters of one file are one recall."""
    came: dict[str, bytes] = {}
    async with opening(held) as pacs:
        await collect(pacs, [*keys_of(held[:1])] * 2, came)
    assert came == as_sent(held[:1])


async def test_nothing_wanted_is_nothing_asked(opening: Opener, held: list[Dataset]) -> None:
    """The iteration ends at once."""
    async with opening(held) as pacs:
        await collect(pacs, [], {})
        async with pacs.retrieve_series(study_uid="1.2", series_uid="1.3", instances=[]) as instances:
            assert [it async for it in instances] == []


async def test_more_than_one_request_may_be_needed(opening: Opener) -> None:
    """Lists are cut, and their sum is whole."""
    held = [ct_slice(number, size=8) for number in range(1, 72)]
    came: dict[str, bytes] = {}
    async with opening(held) as pacs:
        await collect(pacs, list(keys_of(held)), came)
    assert came == as_sent(held)


async def test_a_series_arrives_whole(opening: Opener, held: list[Dataset]) -> None:
    """Each instance as it is stored, although nobody said how that is."""
    uids = {"study_uid": str(held[0].StudyInstanceUID), "series_uid": str(held[0].SeriesInstanceUID)}
    came, syntaxes = {}, {}
    async with opening(held) as pacs:
        found = await pacs.find_instances(**uids)
        async with pacs.retrieve_series(**uids, instances=found) as instances:
            async for instance in instances:
                came[instance.instance_uid] = b"".join([bytes(buffer) async for buffer in instance])
                syntaxes[instance.instance_uid] = instance.transfer_syntax
    assert came == as_sent(held)
    assert syntaxes == {it.SOPInstanceUID: it.file_meta.TransferSyntaxUID for it in held}


async def test_a_series_that_grows_is_not_taken_for_whole(opening: Opener, held: list[Dataset]) -> None:
    """An instance that the query did not name is a failure, not a surprise for later."""
    uids = {"study_uid": str(held[0].StudyInstanceUID), "series_uid": str(held[0].SeriesInstanceUID)}
    known = [InstanceFound(str(held[1].SOPInstanceUID), str(held[1].SOPClassUID))]
    async with opening(held) as pacs, pacs.retrieve_series(**uids, instances=known) as instances:
        with pytest.raises(RecallFailedError):
            await drop(instances)


async def test_what_is_not_read_of_an_instance_is_dropped(opening: Opener, held: list[Dataset]) -> None:
    """Whoever steps on gets the next instance from its first byte."""
    seen = []
    async with opening(held) as pacs, pacs.retrieve(list(keys_of(held[::2]))) as instances:
        async for instance in instances:
            seen.append(instance.instance_uid)
            first = bytes(await anext(aiter(instance)))
            assert encoded_data_set(held[2 * len(seen) - 2]).startswith(first)
    assert seen == [it.SOPInstanceUID for it in held[::2]]


async def test_a_lost_instance_is_named_lost_after_the_others_came(opening: Opener, held: list[Dataset]) -> None:
    """One gap does not cost the readers of the other files anything."""
    keys, others, came = list(keys_of(held)), as_sent(held[1:]), dict[str, bytes]()
    del held[0]
    async with opening(held) as pacs:
        with pytest.raises(InstanceLostError) as caught:
            await collect(pacs, keys, came)
    assert came == others
    assert keys[0].instance_uid not in str(caught.value)


async def test_an_instance_recorded_as_another_class_does_not_come(opening: Opener, held: list[Dataset]) -> None:
    """The PACS holds it, so it is not lost; but it is not what was registered."""
    (key,) = keys_of(held[:1])
    wrong = InstanceKey(key.study_uid, key.series_uid, key.instance_uid, str(MRImageStorage), key.transfer_syntax)
    async with opening(held) as pacs:
        with pytest.raises(RecallFailedError):
            await collect(pacs, [wrong], {})


async def test_a_recall_left_early_harms_nobody(opening: Opener, held: list[Dataset]) -> None:
    """The next one, and one in another task, find the PACS as before."""
    came: dict[str, bytes] = {}
    async with opening(held) as pacs:
        for _ in range(5):
            async with pacs.retrieve(list(keys_of(held))) as instances:
                await anext(aiter(await anext(instances)))
        await collect(pacs, list(keys_of(held)), came)
    assert came == as_sent(held)


async def test_a_cancelled_recall_frees_its_association(opening: Opener, held: list[Dataset]) -> None:
    """Readers are killed all the time; the associations are two."""
    came: dict[str, bytes] = {}
    async with opening(held) as pacs:
        for _ in range(5):
            with trio.CancelScope() as scope:
                async with pacs.retrieve(list(keys_of(held))) as instances:
                    async for _instance in instances:
                        scope.cancel()
            assert scope.cancelled_caught
        await collect(pacs, list(keys_of(held)), came)
    assert came == as_sent(held)


async def test_an_instance_given_up_never_looks_whole(opening: Opener) -> None:
    """After its context has ended, stepping on raises; it does not end."""
    big = [ct_slice(1, size=1024)]
    async with opening(big) as pacs:
        async with pacs.retrieve(list(keys_of(big))) as instances:
            instance = await anext(instances)
            stepping = aiter(instance)
            await anext(stepping)
            with trio.CancelScope() as scope:
                scope.cancel()
                await exhaust(stepping)
            assert scope.cancelled_caught
            with pytest.raises(RecallFailedError):
                await anext(stepping)
        for _ in range(3):
            with pytest.raises(RecallFailedError):
                await exhaust(stepping)
        assert not instance.is_complete


async def test_the_last_instance_stepped_over_never_looks_whole(opening: Opener) -> None:
    """Its association may serve somebody else by now."""
    held = [ct_slice(1, size=1024)]
    async with opening(held) as pacs, pacs.retrieve(list(keys_of(held))) as instances:
        only = await anext(instances)
        stepping = aiter(only)
        await anext(stepping)
        assert [it async for it in instances] == []
        with trio.fail_after(1), pytest.raises(RecallFailedError):
            await anext(stepping)
        assert not only.is_complete


async def test_an_instance_stepped_over_never_looks_whole(opening: Opener) -> None:
    """Whoever kept it finds an error where its rest was."""
    held = [ct_slice(1, size=1024), ct_slice(2)]
    async with opening(held) as pacs, pacs.retrieve(list(keys_of(held))) as instances:
        first = await anext(instances)
        stepping = aiter(first)
        await anext(stepping)
        await anext(instances)
        for _ in range(3):
            with pytest.raises(RecallFailedError):
                await anext(stepping)
        assert not first.is_complete


async def test_many_tasks_share_a_pacs(opening: Opener) -> None:
    """More of them than associations; everyone gets everything."""
    held = [ct_slice(number) for number in range(1, 9)]
    results: list[dict[str, bytes]] = [{} for _ in range(6)]
    async with opening(held) as pacs, trio.open_nursery() as nursery:
        for result in results:
            nursery.start_soon(collect, pacs, list(keys_of(held)), result)
    assert results == [as_sent(held)] * 6
