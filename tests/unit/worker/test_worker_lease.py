"""Leases on the worker: what waits when one lapses, what is refused, and what goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import AccessDeniedError, CredentialExpiredError, PeerTimedOutError, PeerUnreachableError
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import HOLD_SECONDS
from mdmfs.worker.lease import LONGEST_POLL, LOOK_SECONDS, MARGIN, Lease
from mdmfs.worker.memory import Memory
from mdmfs.worker.serving import Branch, Ports
from tests.twins.hospital import ROOT, TwinHospital
from tests.twins.pages import BusyKernel
from tests.twins.waiting import counting_turns

LEASE, WAIT = 10.0, 120.0
Clock = trio.testing.MockClock


class Tenant:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def suspend(self) -> None:
        """See ``Tenant``."""
        self.told.append("suspend")

    def resume(self) -> None:
        """See ``Tenant``."""
        self.told.append("resume")

    async def forget_pages(self) -> None:
        """See ``Tenant``."""
        self.told.append("pages")

    async def forget_everything(self) -> None:
        """See ``Tenant``."""
        self.told.append("everything")


class Scene:
    """A lease that is kept, and its tenant."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.lease = Lease(trio.current_time, wait=WAIT)
        self.tenant = Tenant()
        self.nursery = nursery
        self.answers = 0
        nursery.start_soon(self.lease.keep, self.tenant, nursery)

    def grant(self) -> None:
        """Hear from the hospital."""
        self.lease.grant(trio.current_time(), LEASE)

    async def ask(self) -> int:
        """Be what somebody wants."""
        self.answers += 1
        return self.answers


@pytest.fixture
def scene(nursery: trio.Nursery) -> Scene:
    """Make it."""
    return Scene(nursery)


async def test_while_the_lease_is_held_nobody_waits(scene: Scene, autojump_clock: Clock) -> None:
    """Renewals keep it so, and their questions are short enough."""
    scene.grant()
    for _ in range(20):
        begin = trio.current_time()
        await scene.lease.held(scene.ask)
        assert trio.current_time() == begin
        assert scene.lease.seconds_to_ask() == min(LONGEST_POLL, LEASE / 3)
        await trio.sleep(LEASE / 3)
        scene.grant()
    assert "suspend" not in scene.tenant.told


async def test_it_counts_from_when_it_was_asked_for(scene: Scene, autojump_clock: Clock) -> None:
    """An answer that took long is worth less."""
    sent = trio.current_time()
    await trio.sleep(LEASE - 1)
    scene.lease.grant(sent, LEASE)
    assert scene.lease.seconds_left() == pytest.approx(1)
    await trio.sleep(1)
    assert not scene.lease.is_held


async def test_a_lapse_makes_everyone_wait_and_go_on_afterwards(scene: Scene, autojump_clock: Clock) -> None:
    """Pages go before the end, keys at it; nobody is refused."""
    scene.grant()
    begin, done = trio.current_time(), []

    async def read() -> None:
        await scene.lease.held(scene.ask)
        done.append(trio.current_time() - begin)

    await trio.sleep(LEASE + 1)
    assert scene.tenant.told == ["pages", "suspend", "pages", "pages"]
    for _ in range(50):
        scene.nursery.start_soon(read)
    await trio.sleep(60)
    assert not done
    scene.grant()
    await trio.sleep(1)
    assert len(done) == 50
    assert scene.tenant.told[4:] == ["resume"]


async def test_who_waits_too_long_is_timed_out(scene: Scene, autojump_clock: Clock) -> None:
    """By the lease's own patience, and not refused."""
    scene.grant()
    await trio.sleep(LEASE + 1)
    begin = trio.current_time()
    with pytest.raises(PeerTimedOutError, match="120 s"):
        await scene.lease.held(scene.ask)
    assert trio.current_time() - begin == pytest.approx(WAIT, abs=1)
    assert scene.answers == 0


async def test_a_decision_is_told_at_once_to_all_who_wait_and_who_come(scene: Scene, autojump_clock: Clock) -> None:
    """And names are taken back with the pages."""
    scene.grant()
    await trio.sleep(LEASE + 1)

    async def decide() -> None:
        await trio.sleep(5)
        scene.lease.refuse(CredentialExpiredError("renew the proxy"))

    scene.nursery.start_soon(decide)
    with pytest.raises(CredentialExpiredError):
        await scene.lease.held(scene.ask)
    assert trio.current_time() < LEASE + 10
    with pytest.raises(CredentialExpiredError):
        await scene.lease.held(scene.ask)
    scene.grant()
    await trio.sleep(2 * LOOK_SECONDS)
    assert await scene.lease.held(scene.ask) == 1
    scene.lease.refuse(AccessDeniedError("no"))
    await trio.sleep(2 * LOOK_SECONDS)
    await trio.sleep(2 * LOOK_SECONDS)
    assert scene.tenant.told[-3:] == ["suspend", "everything", "pages"]


async def test_a_refusal_ends_the_lease_at_once(scene: Scene, autojump_clock: Clock) -> None:
    """Not when the tenant is told of it, and however long it would run."""
    scene.grant()
    assert scene.lease.is_held
    scene.lease.refuse(AccessDeniedError("no longer"))
    assert not scene.lease.is_held
    assert scene.lease.seconds_left() == 0


async def test_nothing_is_served_again_before_the_tenant_goes_on(scene: Scene, autojump_clock: Clock) -> None:
    """What was held before the lapse goes first."""
    scene.grant()
    await trio.sleep(LEASE + 1)
    scene.grant()
    assert not scene.lease.is_held
    await trio.sleep(2 * LOOK_SECONDS)
    assert scene.lease.is_held
    assert scene.tenant.told[-1] == "resume"


async def test_pages_go_before_each_end_that_comes_near(scene: Scene, autojump_clock: Clock) -> None:
    """Also where the lease was renewed since they went the last time."""
    for _ in range(3):
        scene.grant()
        await trio.sleep(LEASE - 2 * LOOK_SECONDS)
    assert scene.tenant.told == ["pages"] * 3


async def test_an_answer_that_came_too_late_is_asked_for_again(scene: Scene, autojump_clock: Clock) -> None:
    """What was found under a lease that lapsed meanwhile is not given out."""
    scene.grant()

    async def slow() -> int:
        await trio.sleep(LEASE + 1)
        return await scene.ask()

    async def renew() -> None:
        await trio.sleep(LEASE + 5)
        while True:
            scene.grant()
            await trio.sleep(1)

    scene.nursery.start_soon(renew)
    assert await scene.lease.held(slow) == 2


async def test_without_a_lease_ever_an_outage_is_told_as_it_is(scene: Scene, autojump_clock: Clock) -> None:
    """A mount that was made while the hospital is away does not hang for two minutes."""
    scene.lease.fail(PeerUnreachableError("nobody there"))
    with pytest.raises(PeerUnreachableError):
        await scene.lease.held(scene.ask)


async def test_a_sleeping_machine_wakes_up_without_a_lease() -> None:
    """The clock counts on while trio's does not."""
    now = [0.0]
    lease = Lease(lambda: now[0], wait=0.1)
    lease.grant(0.0, LEASE)
    assert lease.is_held
    now[0] = 3600.0
    assert not lease.is_held
    with pytest.raises(PeerTimedOutError):
        await lease.wait()


async def test_a_hospital_that_is_started_again_fails_nobody(scene: Scene, autojump_clock: Clock) -> None:
    """Under a lease, who cannot reach it tries again; without end he does not."""
    lease = Lease(trio.current_time, wait=WAIT)
    lease.grant(trio.current_time(), 10 * WAIT)
    back_at = trio.current_time() + 30

    async def reach() -> int:
        if trio.current_time() < back_at:
            message = "nobody there"
            raise PeerUnreachableError(message)
        return await scene.ask()

    assert await lease.held(reach) == 1
    assert trio.current_time() == pytest.approx(back_at, abs=1)
    back_at = float("inf")
    begun = trio.current_time()
    with pytest.raises(PeerUnreachableError):
        await lease.held(reach)
    assert trio.current_time() - begun == pytest.approx(WAIT, abs=1)


async def test_what_timed_out_over_a_lapse_is_asked_again_and_nothing_else(scene: Scene, autojump_clock: Clock) -> None:
    """It was asked of a hospital that has gone since; one that is there and does not answer is told of."""
    scene.grant()

    async def time_out(seconds: float) -> int:
        if await scene.ask() == 1:
            await trio.sleep(seconds)
            message = "no answer"
            raise PeerTimedOutError(message)
        return scene.answers

    async def renew() -> None:
        await trio.sleep(LEASE + 5)
        scene.grant()

    with pytest.raises(PeerTimedOutError, match="no answer"):
        await scene.lease.held(lambda: time_out(1))
    scene.answers = 0
    scene.nursery.start_soon(renew)
    assert await scene.lease.held(lambda: time_out(LEASE + 8)) == 2


async def test_who_was_let_through_before_a_lapse_waits_no_longer_than_who_came_after(
    scene: Scene, autojump_clock: Clock
) -> None:
    """A read that hangs on a hospital that is away is timed out with all others."""
    scene.grant()
    begun = trio.current_time()
    with pytest.raises(PeerTimedOutError, match="120 s"):
        await scene.lease.held(trio.sleep_forever)
    assert trio.current_time() - begun == pytest.approx(LEASE + WAIT, abs=1)


async def test_who_was_let_through_before_a_refusal_hears_it_at_once(scene: Scene, autojump_clock: Clock) -> None:
    """And does not wait for keys that never come."""
    scene.grant()

    async def decide() -> None:
        await trio.sleep(5)
        scene.lease.refuse(CredentialExpiredError("renew the proxy"))

    scene.nursery.start_soon(decide)
    begun = trio.current_time()
    with pytest.raises(CredentialExpiredError):
        await scene.lease.held(trio.sleep_forever)
    assert trio.current_time() - begun == pytest.approx(5, abs=1)


async def test_a_lease_that_runs_takes_no_turn_of_the_loop(scene: Scene, autojump_clock: Clock) -> None:
    """A mount has one for each user and hospital, and most of them do nothing."""
    scene.grant()
    await trio.testing.wait_all_tasks_blocked()
    with counting_turns() as turns:
        await trio.sleep((1 - 2 * MARGIN) * LEASE)
    assert turns.count <= 2  # of this test, to sleep and to wake up


async def test_the_pages_go_at_once_when_the_machine_wakes_up(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    """Trio's clock stood still while the lease ran out."""
    slept = 0.0
    lease, tenant = Lease(lambda: trio.current_time() + slept, wait=WAIT), Tenant()
    nursery.start_soon(lease.keep, tenant, nursery)
    lease.grant(trio.current_time(), LEASE)
    await trio.sleep(LEASE / 2)
    slept = 10 * LEASE
    await trio.testing.wait_all_tasks_blocked()
    assert not tenant.told
    lease.look_again()
    await trio.testing.wait_all_tasks_blocked()
    assert tenant.told[:2] == ["suspend", "pages"]


class ForgetfulKernel(BusyKernel):
    """Notes of which inodes pages are pushed, and what shall be done meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.pushed: set[int] = set()

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """See ``Pages``."""
        del offset, octets
        self.pushed.add(inode)


@pytest.mark.parametrize(("slept", "seconds"), [(0.0, LEASE), (LEASE + 1, LEASE), (HOLD_SECONDS + 1, 3600.0)])
async def test_nothing_is_opened_ahead_or_again_once_the_lease_or_the_shares_are_over(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: Clock, slept: float, seconds: float
) -> None:
    """Also where nobody has noticed yet: the machine has just slept, and by the clock of the shares no time went by."""
    del mock_clock
    since_start = 0.0
    lease = Lease(lambda: since_start, wait=WAIT)
    lease.grant(0.0, seconds)
    hospital, kernel, cache = TwinHospital(), ForgetfulKernel(), CiphertextCache(tmp_path, 2**30)
    hospital.add_sibling_files("/grid/medical/a", 4, 5000)
    keystores = await hospital.open_keystores(nursery)
    with structlog.testing.capture_logs():
        await cache.load()
    branch = Branch(
        Ports(hospital, lambda: keystores),
        cache,
        ROOT,
        kernel,
        nursery,
        deadline=5,
        lease=lease,
        tree=0,
        shown=ROOT,
        memory=Memory(),
    )
    files = branch.files
    directory = (await files.lookup(1, b"a")).inode
    files.close_directory(await files.open_directory(directory))
    inodes = [(await files.lookup(directory, f"{number:04}.dcm".encode())).inode for number in range(1, 5)]
    for inode in inodes:
        files.close_file(await files.open_file(inode))
    kernel.rest()
    files.forget(inodes[-1], 1)
    await files.lookup(directory, b"0004.dcm")
    kernel.pushed.clear()
    for inode in inodes[1:3]:
        handle = files.open_file_at_once(inode)
        assert handle is not None
        files.close_file(handle)
    since_start = slept
    kernel.rest()
    assert kernel.pushed == (set() if slept else {inodes[-1]})
    assert (files.open_file_at_once(inodes[1]) is None) == bool(slept)
