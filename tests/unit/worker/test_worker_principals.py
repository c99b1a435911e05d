"""The principals of a mount for many users: who is one, who is another, and what one cannot do to the others."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.demo.pki import Issued, delegate
from mdmfs.model.errors import (
    BusyError,
    ConfigurationError,
    CredentialRefusedError,
    MdmfsError,
    NoSuchFileError,
    OutOfSpaceError,
    PeerTimedOutError,
    StaleNumberError,
)
from mdmfs.model.names import Lfn
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.cache.room import Room
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.callers.finder import Found, ProxyFile
from mdmfs.worker.callers.numbers import MAX_PRINCIPALS, own_number, parse_number
from mdmfs.worker.callers.own_files import Directories
from mdmfs.worker.callers.principals import (
    IDLE_SECONDS,
    LOOK_SECONDS,
    MAX_LOOKS,
    MAX_OF_UID,
    MAX_WAITING,
    SHORTEST_SECONDS,
    SWEEP_SECONDS,
    WRITING_SECONDS,
    Arrival,
    Principals,
)
from mdmfs.worker.callers.seat import Seat
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.fuse.mount import MAX_TASKS
from mdmfs.worker.fuse.operations import MAX_WAITING_OPENS
from mdmfs.worker.lease import Lease
from mdmfs.worker.memory import Memory
from mdmfs.worker.numbered import FIRST_INODE
from mdmfs.worker.serving import Ports, Site
from tests.twins import certificates as make
from tests.twins.attributes import Ac, carrying
from tests.twins.hospital import ROOT, TwinHospital
from tests.twins.keystores import random_guid
from tests.twins.pages import NoPages

TEXT = """
trust = "ca.pem"
[mount]
multi_user = true
[hospital]
address = "hospital.example.org:8443"
dn = "/DC=org/CN=hospital"
[[keystores]]
name = "k1"
address = "k1.example.org:8444"
dn = "/DC=org/CN=k1"
"""
FILE = Lfn.parse("/grid/medical/a/0001.dcm")


class NoKernel(NoPages):
    """Remembers nothing."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Kernel``."""


@dataclasses.dataclass
class Scene:
    """A mount without FUSE, and what is in the proxies of its users' processes, by thread."""

    hospital: TwinHospital
    proxies: dict[int, tuple[str, bytes]] = dataclasses.field(default_factory=dict)
    states: dict[bytes, int] = dataclasses.field(default_factory=dict)
    arrived: list[Arrival] = dataclasses.field(default_factory=list)
    hanging: set[int] = dataclasses.field(default_factory=set)
    release: threading.Event = dataclasses.field(default_factory=threading.Event)
    looks: int = 0
    room: Room = dataclasses.field(default_factory=lambda: Room(2**20))
    failure: Exception | None = None
    may_close: trio.Event = dataclasses.field(default_factory=trio.Event)
    principals: Principals = dataclasses.field(init=False)

    def look(self, uid: int, tid: int, is_known: Callable[[ProxyFile], bool]) -> Found:
        """Be the finder."""
        self.looks += 1
        if uid in self.hanging:
            self.release.wait(30)
        path, octets = self.proxies[tid]
        state = self.states.setdefault(octets, len(self.states))
        file = ProxyFile(uid, path, 1, state, 0, 0, len(octets))
        return Found(file, None if is_known(file) else octets)

    def connect(self, arrival: Arrival, nursery: trio.Nursery, folder: Path) -> list[Site]:
        """Give the twins; or fail."""
        self.arrived.append(arrival)
        if self.failure is not None:
            nursery.start_soon(self._fail)
        nursery.start_soon(self._close)
        cache = CiphertextCache(folder, self.room.limit, self.room)
        return [Site(Ports(self.hospital, _no_keys), cache, Lease(trio.current_time))]

    async def _close(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await self.may_close.wait()

    async def _fail(self) -> None:
        await trio.sleep(5)
        assert self.failure is not None
        raise self.failure


def _no_keys() -> None:
    raise AssertionError


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    """Make it."""
    hospital = TwinHospital()
    hospital.add_file(str(FILE), bytes(1000))
    made = Scene(hospital)
    made.may_close.set()
    made.principals = Principals(
        made.connect,
        NoKernel(),
        ROOT,
        tmp_path / "principals",
        deadline=5,
        memory=Memory(),
        finder=made.look,
    )
    with structlog.testing.capture_logs():
        await nursery.start(made.principals.run)
        yield made
        made.release.set()
        made.may_close.set()


@pytest.fixture
def proxy(tmp_path: Path) -> Callable[[Issued], bytes]:
    """Give what makes fresh proxies."""

    def write(issued: Issued) -> bytes:
        path = tmp_path / "proxy"
        delegate(issued, make.VALID).save_proxy(path)
        return path.read_bytes()

    return write


Proxy = Callable[[Issued], bytes]


async def test_uid_path_dn_and_claims_make_a_principal(scene: Scene, proxy: Proxy) -> None:
    """A renewed proxy does not; and what the hospital is shown is always the newest."""
    jane, voms = make.person("jane"), make.host("voms")
    scene.proxies[1] = "/p", proxy(jane)
    first = await scene.principals.find(7, 7, 1)
    assert await scene.principals.find(7, 7, 1) is first
    scene.proxies[1] = "/p", proxy(jane)
    assert await scene.principals.find(7, 7, 1) is first
    shown = scene.arrived[0].credential().certificate_file.read_bytes()
    assert shown == scene.proxies[1][1]
    with_fqans = carrying([Ac(jane.leaf, voms).der()]).of(jane)
    others = [
        (8, ("/p", scene.proxies[1][1])),
        (7, ("/q", scene.proxies[1][1])),
        (7, ("/p", proxy(make.person("joe")))),
        (7, ("/p", proxy(with_fqans))),
    ]
    seats = [first]
    for uid, named in others:
        scene.proxies[1] = named
        seats.append(await scene.principals.find(uid, 7, 1))
    assert len({id(seat) for seat in seats}) == len(seats) == len(scene.arrived)
    numbers = []
    for seat in seats:
        directory = await seat.files.lookup(1, b"a")
        numbers.append((directory.inode, (await seat.files.lookup(directory.inode, b"0001.dcm")).inode))
    assert len({directory for directory, _ in numbers}) == 1
    assert len({file for _, file in numbers}) == len(seats)


@pytest.mark.parametrize(
    "octets", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
async def test_what_is_no_proxy_is_refused(scene: Scene, octets: bytes, mock_clock: trio.testing.MockClock) -> None:
    """And nobody is connected."""
    scene.proxies[1] = "/p", octets
    assert isinstance(await found_later(scene, mock_clock), CredentialRefusedError)
    assert scene.arrived == []


async def test_what_was_waited_for_in_vain_is_refused_at_once_until_it_changes(
    scene: Scene, proxy: Proxy, mock_clock: trio.testing.MockClock
) -> None:
    """Each request of such a user would hold a task of the mount for as long."""
    scene.proxies[1] = "/p", b"nonsense"
    assert isinstance(await found_later(scene, mock_clock), CredentialRefusedError)
    looks = scene.looks
    assert isinstance(await found_later(scene, mock_clock), CredentialRefusedError)
    assert scene.looks == looks + 1
    scene.proxies[1] = "/p", b"other nonsense"
    whole = proxy(make.person("jane"))
    seat = await found_later(scene, mock_clock, lambda: scene.proxies.update({1: ("/p", whole)}))
    assert isinstance(seat, Seat)


@pytest.mark.parametrize("written", [0, 100, 1000])
async def test_a_proxy_that_is_written_over_is_waited_for(
    scene: Scene, proxy: Proxy, written: int, mock_clock: trio.testing.MockClock
) -> None:
    """Many renew it so: who asks while there is half of one is no stranger."""
    whole = proxy(make.person("jane"))
    scene.proxies[1] = "/p", whole
    seat = await scene.principals.find(7, 7, 1)
    renewed = proxy(make.person("jane"))
    scene.proxies[1] = "/p", renewed[:written]
    assert await found_later(scene, mock_clock, lambda: scene.proxies.update({1: ("/p", whole)})) is seat


async def found_later(
    scene: Scene, clock: trio.testing.MockClock, act: Callable[[], object] = lambda: None
) -> Seat | CredentialRefusedError:
    """Find who asks while the clock goes on; something is done meanwhile."""
    found: list[Seat | CredentialRefusedError] = []

    async def find() -> None:
        try:
            found.append(await scene.principals.find(7, 7, 1))
        except CredentialRefusedError as error:
            found.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(find)
        while not found:
            await trio.to_thread.run_sync(time.sleep, 0.01)  # it is looked in threads
            clock.jump(WRITING_SECONDS / 10)
            if clock.current_time() > WRITING_SECONDS / 2:
                act()
    return found[0]


async def test_a_number_of_another_leads_nowhere(scene: Scene, proxy: Proxy) -> None:
    """Whatever is asked with it; and of what nobody looked up nobody knows."""
    seats = []
    for uid in (7, 8):
        scene.proxies[uid] = "/p", proxy(make.person("jane"))
        seats.append(await scene.principals.find(uid, 7, uid))
    directory = await seats[0].files.lookup(1, b"a")
    file = await seats[0].files.lookup(directory.inode, b"0001.dcm")
    for ask in (seats[1].files.attributes, seats[1].files.open_file, seats[1].files.stage):
        with pytest.raises(StaleNumberError):
            await ask(file.inode)
    with pytest.raises(StaleNumberError):
        seats[1].files.open_file_at_once(file.inode)
    assert await seats[1].files.attributes(directory.inode) == await seats[0].files.attributes(directory.inode)
    with pytest.raises(NoSuchFileError):
        await seats[1].files.attributes(directory.inode + 1000)


async def test_a_directory_is_forgotten_by_all_once_the_kernel_has(scene: Scene, proxy: Proxy) -> None:
    """The kernel counts it once for everybody."""
    seats = []
    for uid in (7, 8):
        scene.proxies[uid] = "/p", proxy(make.person("jane"))
        seats.append(await scene.principals.find(uid, 7, uid))
        directory = await seats[-1].files.lookup(1, b"a")
    scene.principals.forget(directory.inode, 1)
    for seat in seats:
        assert (await seat.files.attributes(directory.inode)).name == "a"
    scene.principals.forget(directory.inode, 1)
    with pytest.raises(NoSuchFileError):
        await seats[0].files.attributes(directory.inode)


async def test_a_user_with_a_root_that_hangs_holds_up_himself_alone(
    scene: Scene, proxy: Proxy, mock_clock: trio.testing.MockClock
) -> None:
    """With as many processes as he likes."""
    scene.hanging.add(7)
    scene.proxies[1] = "/p", proxy(make.person("jane"))
    failures = []

    async def ask() -> None:
        with pytest.raises(PeerTimedOutError):
            await scene.principals.find(7, 7, 1)
        failures.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(2 * MAX_LOOKS):
            nursery.start_soon(ask)
        await scene.principals.find(8, 8, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert failures == []
        mock_clock.jump(LOOK_SECONDS)
    assert len(failures) == 2 * MAX_LOOKS


async def test_a_user_with_a_root_that_hangs_takes_not_all_tasks_of_the_mount(
    scene: Scene, proxy: Proxy, nursery: trio.Nursery
) -> None:
    """Whoever else comes finds one."""
    scene.hanging.add(7)
    scene.proxies[1] = "/p", proxy(make.person("jane"))
    assert MAX_WAITING + MAX_LOOKS + MAX_WAITING_OPENS < MAX_TASKS

    async def ask() -> None:
        with pytest.raises(PeerTimedOutError):
            await scene.principals.find(7, 7, 1)

    for _ in range(MAX_WAITING + MAX_LOOKS):
        nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(BusyError):
        await scene.principals.find(7, 7, 1)
    await scene.principals.find(8, 8, 1)
    nursery.cancel_scope.cancel()


async def test_one_user_takes_no_more_than_his_share(
    scene: Scene, proxy: Proxy, mock_clock: trio.testing.MockClock
) -> None:
    """Who has nothing open makes room, once he has not asked for a while; others are served meanwhile."""
    octets = proxy(make.person("jane"))
    for number in range(MAX_OF_UID):
        scene.proxies[number] = f"/{number}", octets
        seat = await scene.principals.find(7, 7, number)
        if number == 0:
            await seat.files.open_directory(1)
    scene.proxies[99] = "/99", octets
    with pytest.raises(BusyError):
        await scene.principals.find(7, 7, 99)
    await scene.principals.find(8, 8, 99)
    mock_clock.jump(SHORTEST_SECONDS)
    await scene.principals.find(7, 7, 99)
    count = len(scene.arrived)
    await scene.principals.find(7, 7, 0)
    assert len(scene.arrived) == count
    await scene.principals.find(7, 7, 1)
    assert len(scene.arrived) == count + 1


async def test_who_has_nothing_open_for_long_is_served_no_more(
    scene: Scene, proxy: Proxy, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    """His ciphertext goes; he begins anew when he comes again, under another number."""
    scene.proxies[1] = "/p", proxy(make.person("jane"))
    seat = await scene.principals.find(7, 7, 1)
    file = await seat.files.lookup((await seat.files.lookup(1, b"a")).inode, b"0001.dcm")
    assert (tmp_path / "principals" / "1").is_dir()
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(IDLE_SECONDS)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(SWEEP_SECONDS)
    while (tmp_path / "principals" / "1").exists():
        await trio.to_thread.run_sync(time.sleep, 0.01)  # the end goes through threads
        mock_clock.jump(0.1)
    assert scene.hospital.given_back == []  # the kernel may still have pages of his
    again = await scene.principals.find(7, 7, 1)
    assert again is not seat
    with pytest.raises(StaleNumberError):
        await again.files.attributes(file.inode)


async def test_who_comes_while_his_part_ends_begins_anew(
    scene: Scene, proxy: Proxy, mock_clock: trio.testing.MockClock
) -> None:
    """To end takes seconds: connections are closed, the hospital hears a last word. Nobody is led to what ends."""
    scene.proxies[1] = "/p", proxy(make.person("jane"))
    scene.may_close = trio.Event()
    seat = await scene.principals.find(7, 7, 1)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(IDLE_SECONDS)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(SWEEP_SECONDS)
    await trio.testing.wait_all_tasks_blocked()
    again = await scene.principals.find(7, 7, 1)
    assert again is not seat
    assert (await again.files.lookup(1, b"a")).name == "a"
    scene.may_close.set()
    await trio.testing.wait_all_tasks_blocked()
    assert await scene.principals.find(7, 7, 1) is again


async def test_what_fails_for_one_ends_his_part_alone(
    scene: Scene, proxy: Proxy, mock_clock: trio.testing.MockClock
) -> None:
    """A fault of ours in his part is no other's outage; his handles lead nowhere."""
    scene.proxies[1] = "/p", proxy(make.person("jane"))
    sound = await scene.principals.find(8, 8, 1)
    scene.failure = ZeroDivisionError("a fault")
    broken = await scene.principals.find(7, 7, 1)
    handle = await broken.files.open_directory(1)
    assert scene.principals.of_handle(handle) is broken
    mock_clock.jump(5)
    while _leads_somewhere(scene.principals, handle):
        await trio.to_thread.run_sync(time.sleep, 0.01)
        mock_clock.jump(0.1)
    assert await scene.principals.find(8, 8, 1) is sound
    scene.failure = None
    assert await scene.principals.find(7, 7, 1) is not broken


def _leads_somewhere(principals: Principals, handle: int) -> bool:
    try:
        principals.of_handle(handle)
    except StaleNumberError:
        return False
    return True


# Numbers, directories, room


@given(st.integers(1, MAX_PRINCIPALS - 1), st.integers(0, 2**41 - 1), st.booleans())
def test_a_number_says_whose_and_which(principal: int, low: int, is_virtual: bool) -> None:  # noqa: FBT001 drawn
    """And no two are alike; none is that of a directory."""
    inode = low + FIRST_INODE if is_virtual else low
    number = own_number(principal, inode)
    assert parse_number(number) == (principal, inode)
    assert 2**62 <= number < 2**63
    if low:
        assert parse_number(low) is None


@pytest.mark.parametrize(("principal", "inode"), [(0, 1), (MAX_PRINCIPALS, 1), (1, 2**41), (1, FIRST_INODE + 2**41)])
def test_what_cannot_be_numbered_is_an_error_and_no_other_number(principal: int, inode: int) -> None:
    """One that were cut short would be somebody else's."""
    with pytest.raises(MdmfsError):
        own_number(principal, inode)


def test_a_principal_who_leaves_takes_no_directory_of_others_along() -> None:
    """His counts go, theirs stay."""
    known, lfn = Directories(), ROOT / "a"
    known.retain(5, lfn, 1, is_told=True)
    known.retain(5, lfn, 2, is_told=True)
    known.retain(5, lfn, 2, is_told=False)
    known.leave(1)
    assert known.forget(5, 1) == {}
    assert known.lfn(5) == lfn
    assert known.forget(5, 1) == {2: 2}
    with pytest.raises(NoSuchFileError):
        known.lfn(5)


async def test_caches_in_one_room_take_what_there_is_together(tmp_path: Path) -> None:
    """Who needs some takes it from the fullest; what arrives is nobody's to take."""
    room = Room(10_000)
    caches = [CiphertextCache(tmp_path / str(number), 10_000, room) for number in range(2)]
    with structlog.testing.capture_logs():
        for cache in caches:
            await cache.load()
    first, second = caches
    for _ in range(3):
        ciphertext = await first.receive(random_guid(), 3000)
        first.keep(ciphertext, Seal(1, 2, bytes(24)))
    arriving = await second.receive(random_guid(), 5000)
    assert (first.used, second.used) == (3000, 5000)
    await second.receive(random_guid(), 5000)
    assert first.used == 0
    with pytest.raises(OutOfSpaceError):
        await first.receive(random_guid(), 1)
    second.abandon(arriving)
    await first.receive(random_guid(), 5000)
    await second.destroy()
    assert not (tmp_path / "1").exists()
    assert room.caches == {first}


def test_a_mount_for_many_users_has_no_credential_of_its_own(tmp_path: Path) -> None:
    """It would serve nobody, and mislead."""
    path = tmp_path / "mount.toml"
    path.write_text(TEXT)
    assert MountConfiguration.read(path).mount.multi_user
    path.write_text(TEXT + "[credential]\nproxy = 'p.pem'\n")
    with pytest.raises(ConfigurationError, match="his own proxy"):
        MountConfiguration.read(path)
