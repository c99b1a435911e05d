"""Configuration, credentials, keys held, callers killed: what a mount is made of beside files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialRefusedError,
    InterruptedCallError,
    MalformedMessageError,
    UnusableFileError,
)
from mdmfs.pki.trust import TrustAnchors
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.worker.callers.credential import find_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import HospitalPeer, MountConfiguration
from mdmfs.worker.fuse.kernel import KernelCaches
from mdmfs.worker.fuse.mount import mounted
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import POLL_SECONDS, SignalWatch
from mdmfs.worker.hospital.remote import salt_of
from mdmfs.worker.keys.ring import HOLD_SECONDS, KeyRing, Lock
from tests.twins.hospital import TwinHospital
from tests.twins.waiting import counting_turns

TEXT = """
trust = "ca.pem"
[mount]
root = "/grid/medical/amc"
[hospital]
address = "hospital.example.org:8443"
dn = "/DC=org/CN=hospital"
[[keystores]]
name = "k1"
address = "k1.example.org:8444"
dn = "/DC=org/CN=k1"
"""


def read(folder: Path, text: str) -> MountConfiguration:
    """Read a configuration from a file."""
    path = folder / "mount.toml"
    path.write_text(text)
    return MountConfiguration.read(path)


@pytest.mark.parametrize("place", [".", "..", "cache/..", "ca.pem"])
def test_a_mount_hides_nothing_that_it_needs(tmp_path: Path, place: str) -> None:
    """It would wait for itself, and nothing but a kill -9 would end it."""
    configuration = read(tmp_path, f'{TEXT}[cache]\ndirectory = "cache"\n')
    configuration.refuse_hiding(tmp_path / "grid")
    with pytest.raises(UnusableFileError, match="would hide"):
        configuration.refuse_hiding(tmp_path / place)


def test_a_configuration_is_read_with_its_defaults(tmp_path: Path) -> None:
    """Paths are relative to its folder."""
    configuration = read(tmp_path, TEXT)
    assert str(configuration.root) == "/grid/medical/amc"
    assert configuration.mount.deadline == 60
    assert configuration.cache_size == 10 * 2**30
    assert configuration.path(configuration.trust) == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    "addition",
    [
        "[mount2]\n",
        "[cache]\nsize = 'much'\n",
        "[cache]\nsise = 5\n",
        "[credential]\ncertificate = 'a.pem'\n",
        "[credential]\nproxy = 'p'\ncertificate = 'a.pem'\nkey = 'k.pem'\n",
        "[[keystores]]\nname = 'k1'\naddress = 'a:1'\ndn = '/CN=x'\n",
        "[hospital",
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, addition: str) -> None:
    """A misspelt key would be silence."""
    with pytest.raises(ConfigurationError):
        read(tmp_path, TEXT + addition)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("site_cache = 'https://cache.example.org:8080'", "site_cache is written http://HOST:PORT"),
        ("site_cache = 'http://cache.example.org'", "HOST:PORT"),
        ("cache_of = ['https://se.example.org:443/mdmfs/']", "cache_of names URLs"),
        ("site_cache = 'http://cache:80'\ncache_of = ['se.example.org']", "cache_of names URLs"),
    ],
)
def test_a_site_cache_that_could_not_be_asked_is_refused(tmp_path: Path, line: str, told: str) -> None:
    """It is spoken with without TLS, and keeps what is named by URLs; without one there is nothing to keep."""
    with pytest.raises(ConfigurationError, match=told):
        read(tmp_path, TEXT.replace("[mount]\n", f"[mount]\n{line}\n"))


def test_metrics_that_others_would_reach_are_refused_before_anything_begins(tmp_path: Path) -> None:
    """So the doctor tells it, and ``mount --daemon`` before its daemon starts."""
    with pytest.raises(ConfigurationError, match=r"mount\.toml: mount\.metrics: a loopback address"):
        read(tmp_path, TEXT.replace("[mount]", '[mount]\nmetrics = "example.org:9464"'))


def test_the_credential_is_looked_for_where_grid_programs_keep_it(tmp_path: Path) -> None:
    """Configured, else X509_USER_PROXY, else /tmp/x509up_uUID."""
    plain = read(tmp_path, TEXT)
    assert find_credential(plain, {}, 1234).key_file == Path("/tmp/x509up_u1234")  # noqa: S108 the place
    assert find_credential(plain, {"X509_USER_PROXY": "/x/proxy"}, 1).certificate_file == Path("/x/proxy")
    proxy = read(tmp_path, TEXT + "[credential]\nproxy = 'p.pem'\n")
    assert find_credential(proxy, {"X509_USER_PROXY": "/x/proxy"}, 1).key_file == tmp_path / "p.pem"
    pair = read(tmp_path, TEXT + "[credential]\ncertificate = 'c.pem'\nkey = 'k.pem'\n")
    assert find_credential(pair, {}, 1).key_file == tmp_path / "k.pem"


async def test_a_missing_proxy_is_a_refused_credential_with_a_line_in_the_log(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """EACCES, and the reader of the log knows what to do; however often somebody asks, it stands there once."""
    configuration = read(tmp_path, TEXT + "[credential]\nproxy = 'p.pem'\n")
    credential = find_credential(configuration, {}, 1)
    peers = Peers(HospitalPeer("h:1", "/CN=h"), configuration.keystores, credential, TrustAnchors(tmp_path), nursery)
    with structlog.testing.capture_logs() as logs:
        for ask in (peers.hospital, peers.keystores):
            with pytest.raises(CredentialRefusedError):
                ask()
    (told,) = logs
    assert (told["log_level"], told["reason"]) == (
        "warning",
        f"{tmp_path / 'p.pem'} cannot be read: No such file or directory",
    )


@pytest.mark.parametrize("etag", ["", "zz" * 24, "ab" * 23, "ab" * 25, "W/xyz"])
def test_an_etag_that_is_no_salt_is_refused(etag: str) -> None:
    """Ciphertext is told from ciphertext by it."""
    with pytest.raises(MalformedMessageError):
        salt_of(etag)


# Keys


async def lock_and_ring(hospital: TwinHospital, nursery: trio.Nursery, count: int = 1) -> tuple[list[Lock], KeyRing]:
    """Give files to unlock, and a ring."""
    hospital.add_sibling_files("/grid/medical/a", count, 100)
    keystores = await hospital.open_keystores(nursery)
    locks = [Lock(ObjectContext(Role.BODY, guid, 0, 100), hospital.sealed(guid)[:56], 2) for guid in hospital.files]
    return locks, KeyRing(lambda: keystores, deadline=10)


async def test_shares_are_held_for_a_moment_and_not_longer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Opening a file again at once asks nobody; later the keystores decide anew."""
    hospital = TwinHospital()
    (lock,), ring = await lock_and_ring(hospital, nursery)
    calls = lambda: sum(twin.calls for twin in hospital.keystores.values())  # noqa: E731 short
    before = calls()
    await ring.unlock(lock)
    await trio.testing.wait_all_tasks_blocked()
    asked = calls()
    assert asked > before
    await ring.unlock(lock)
    assert calls() == asked
    await trio.sleep(HOLD_SECONDS)
    for twin in hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("no")
    with pytest.raises(AccessDeniedError):
        await ring.unlock(lock)


async def test_a_burst_is_one_question(nursery: trio.Nursery) -> None:
    """Fifty files at once cost two batches, not fifty."""
    hospital = TwinHospital()
    locks, ring = await lock_and_ring(hospital, nursery, 50)
    before = hospital.keystores["k1"].calls
    async with trio.open_nursery() as burst:
        for lock in locks:
            burst.start_soon(ring.unlock, lock)
    assert hospital.keystores["k1"].calls - before <= 2


@pytest.mark.parametrize("is_all", [False, True])
async def test_what_is_forgotten_while_keystores_are_asked_is_not_held(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, *, is_all: bool
) -> None:
    """They answered before they heard of a revocation: a share that came along with a sibling's opens nothing."""
    hospital = TwinHospital()
    (first, second), ring = await lock_and_ring(hospital, nursery, 2)
    for twin in hospital.keystores.values():
        twin.delay = 1.0
    async with trio.open_nursery() as asking:
        asking.start_soon(ring.unlock, first, [second.context.guid])
        await trio.sleep(0.5)
        ring.forget_all() if is_all else ring.forget(second.context.guid)
    assert ring.holds(first.context.guid) is not is_all
    for twin in hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("no")
    with pytest.raises(AccessDeniedError):
        await ring.unlock(second)


async def test_siblings_come_along_and_a_forgotten_one_is_asked_for_again(nursery: trio.Nursery) -> None:
    """A revocation reaches what is held."""
    hospital = TwinHospital()
    (first, second), ring = await lock_and_ring(hospital, nursery, 2)
    await ring.unlock(first, [second.context.guid])
    for twin in hospital.keystores.values():
        twin.failure = lambda: AccessDeniedError("no")
    await ring.unlock(second)
    ring.forget(second.context.guid)
    with pytest.raises(AccessDeniedError):
        await ring.unlock(second)


# Callers


@pytest.mark.parametrize(
    ("pending", "caught", "blocked", "is_freed"),
    [
        (0x100, 0, 0, True),  # SIGKILL, or any fatal one
        (0x4000, 0, 0, False),  # SIGTERM that nobody has caught: it would be fatal, and the kernel says so itself
        (0x2, 0x2, 0, True),  # SIGINT with a handler
        (0x2, 0x2, 0x2, False),  # the same in a thread that blocks it
        (0x2000, 0x2000, 0, False),  # SIGALRM with a handler
        (0x1, 0x1, 0, False),  # SIGHUP with a handler: a daemon that reads its configuration again
        (0, 0x4007, 0, False),
    ],
)
async def test_a_caller_who_is_to_end_is_freed_and_no_other(
    tmp_path: Path, nursery: trio.Nursery, pending: int, caught: int, blocked: int, *, is_freed: bool
) -> None:
    """Killed, or told to end by a signal that he handles; pending in the thread or in the process."""
    watch = SignalWatch(tmp_path)
    nursery.start_soon(watch.run)
    for pid, (own, shared) in enumerate(((pending, 0), (0, pending))):
        (tmp_path / str(pid)).mkdir()
        text = f"Name:\tcat\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n"
        (tmp_path / str(pid) / "status").write_text(f"{text}SigBlk:\t{blocked:016x}\nSigCgt:\t{caught:016x}\n")
        with pytest.raises(InterruptedCallError) if is_freed else contextlib.nullcontext(), watch.interruptible(pid):
            await trio.sleep(3 * POLL_SECONDS)
    with watch.interruptible(2):
        await trio.sleep(2 * POLL_SECONDS)


async def test_while_nobody_waits_nobody_is_looked_at(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Most mounts do nothing most of the time."""
    watch = SignalWatch()
    nursery.start_soon(watch.run)
    with watch.interruptible(os.getpid()):
        await trio.sleep(3 * POLL_SECONDS)
    await trio.sleep(POLL_SECONDS)
    with counting_turns() as turns:
        await trio.sleep(100 * POLL_SECONDS)
    assert turns.count <= 2  # of this test, to sleep and to wake up


async def test_the_kernel_shows_a_fatal_signal_as_the_watch_expects(nursery: trio.Nursery) -> None:
    """A stopped process to which SIGKILL was sent would die; this one blocks nothing and is seen alive."""
    watch = SignalWatch()
    nursery.start_soon(watch.run)
    sleeper = subprocess.Popen(  # noqa: ASYNC220 it starts at once
        [sys.executable, "-c", "import time; time.sleep(30)"]
    )
    try:
        with watch.interruptible(sleeper.pid):
            await trio.sleep(3 * POLL_SECONDS)
        assert os.path.exists(f"/proc/{sleeper.pid}")  # noqa: ASYNC240, PTH110 /proc does not block
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()


def test_a_process_leaves_in_time_whatever_fails_meanwhile() -> None:
    """Nothing else would end it: its log has nobody who reads it, and of its mount it cannot let go."""
    program = """
import os, sys, threading
from mdmfs.worker.fuse.leaving import leave_in_time
def let_go():
    os.write(2, b"let go")
    raise OSError
sys.stdout.close()
leave_in_time(let_go, seconds=0)
def wait_within_mdmfs():
    threading.Event().wait()
exec(compile("wait_within_mdmfs()", "/mdmfs/it.py", "exec"))
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr[:6]) == (1, b"let go")


@pytest.mark.parametrize(("name", "reason"), [("nothing", "No such file"), ("file", "is no directory")])
def test_what_is_no_directory_is_not_mounted_on(tmp_path: Path, name: str, reason: str) -> None:
    """The error says what to do; libfuse would mount on a file."""
    (tmp_path / "file").touch()
    operations = cast("MdmfsOperations", None)
    with pytest.raises(UnusableFileError, match=reason) as told, mounted(operations, KernelCaches(), tmp_path / name):
        pass
    assert "empty directory" in told.value.what_to_do
