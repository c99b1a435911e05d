"""Finding the proxy of whoever asks, by real processes: what they name, and what of it is refused."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mdmfs.model.errors import CredentialRefusedError
from mdmfs.worker.callers.finder import MAX_PROXY, Found, UnfinishedProxyError, find_proxy, refuse_old_kernel

UID = os.getuid()


@contextlib.contextmanager
def process(environment: Mapping[str, str], *, cwd: Path = Path("/")) -> Iterator[int]:
    """Run a program with an environment; gives its number once it runs: in the midst of execve(2) nobody sees it."""
    with subprocess.Popen(
        ["/usr/bin/cat"], env=dict(environment), cwd=cwd, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b".")
        assert running.stdout.read(1) == b"."
        yield running.pid


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    """Write what may be one."""
    path = tmp_path / "proxy"
    path.write_bytes(b"a proxy")
    path.chmod(0o600)
    return path


def look(path: str, **more: str) -> Found:
    """Look for the proxy of a process that names a path."""
    with process({"X509_USER_PROXY": path, **more}) as pid:
        return find_proxy(UID, pid, lambda _: False)


def test_the_file_that_a_process_names_is_found_and_read_once(proxy: Path) -> None:
    """In the same state it need not be read again; in another it is another file."""
    found = look(str(proxy))
    assert found.octets == b"a proxy"
    assert (found.file.uid, found.file.path, found.file.size) == (UID, str(proxy), 7)
    with process({"X509_USER_PROXY": str(proxy)}) as pid:
        assert find_proxy(UID, pid, {found.file}.__contains__) == Found(found.file, None)
        proxy.write_bytes(b"another")
        os.utime(proxy, ns=(0, found.file.modified))
        assert find_proxy(UID, pid, {found.file}.__contains__).octets == b"another"


def test_the_first_of_two_variables_counts_and_an_empty_one_does_not(proxy: Path) -> None:
    """As getenv and grid programs have it."""
    script = f"exec env -i X509_USER_PROXYX=/x X509_USER_PROXY={proxy} /usr/bin/sleep 60"
    running = subprocess.Popen(["/bin/sh", "-c", script])
    try:
        environ = Path(f"/proc/{running.pid}/environ")
        while b"PROXYX" not in environ.read_bytes():
            pass
        assert find_proxy(UID, running.pid, lambda _: False).octets == b"a proxy"
    finally:
        running.kill()
        running.wait()
    for environment in ({"X509_USER_PROXY": ""}, {"HOME": "/"}, {}):
        with process(environment) as pid, contextlib.suppress(CredentialRefusedError):
            assert find_proxy(UID, pid, lambda _: False).file.path == f"/tmp/x509up_u{UID}"  # noqa: S108 the place


def test_a_thread_is_found_as_its_process(proxy: Path) -> None:
    """The kernel names threads."""
    script = (
        "import threading, time; t = threading.Thread(target=time.sleep, args=(60,)); t.start();"
        "print(t.native_id, flush=True)"
    )
    running = subprocess.Popen(
        ["/usr/bin/python3", "-I", "-c", script], env={"X509_USER_PROXY": str(proxy)}, stdout=subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        tid = int(running.stdout.readline())
        assert tid != running.pid
        assert find_proxy(UID, tid, lambda _: False).octets == b"a proxy"
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o610, 0o601, 0o620])
def test_what_others_may_reach_is_refused(proxy: Path, mode: int) -> None:
    """Any right of group or others."""
    proxy.chmod(mode)
    with pytest.raises(CredentialRefusedError, match="chmod 600"):
        look(str(proxy))


def test_what_is_no_plain_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    """A pipe would hold us, a device might do something; neither is touched."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (str(pipe), str(tmp_path), "/dev/null", "/dev/tty"):
        with pytest.raises(CredentialRefusedError):
            look(path)


def test_what_is_empty_or_huge_is_no_proxy(proxy: Path) -> None:
    """It would be read into memory."""
    refusals = (0, UnfinishedProxyError, "empty"), (MAX_PROXY + 1, CredentialRefusedError, "too large")
    for size, kind, reason in refusals:
        os.truncate(proxy, size)
        with pytest.raises(kind, match=reason) as refused:
            look(str(proxy))
        if isinstance(refused.value, UnfinishedProxyError):
            assert refused.value.file is not None
            assert refused.value.file.inode == proxy.stat().st_ino


def test_links_are_followed_to_what_is_his_own_and_links_of_proc_are_not(proxy: Path) -> None:
    """Who names /proc/self, or another's root, would mean us."""
    link = proxy.with_name("link")
    link.symlink_to(proxy)
    assert look(str(link)).octets == b"a proxy"
    descriptor = os.open(proxy, os.O_RDONLY)
    try:
        for path in (
            f"/proc/{os.getpid()}/fd/{descriptor}",
            f"/proc/self/fd/{descriptor}",
            f"/proc/self/root{proxy}",
            f"/proc/{os.getpid()}/root{proxy}",
            f"/proc/{os.getpid()}/cwd/pyproject.toml",
            "/proc/self/environ",
            f"/proc/{os.getpid()}/environ",
            f"/proc/self/task/{threading.get_native_id()}/mem",
            "/dev/fd/0",
        ):
            with pytest.raises(CredentialRefusedError):
                look(path)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("path", ["proxy", "./proxy", "../proxy", "~/proxy", "FILE:/tmp/proxy"])
def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    """Below what, only the process knows."""
    with pytest.raises(CredentialRefusedError, match="no absolute path"):
        look(path)


def test_a_path_cannot_forge_a_line_of_the_log() -> None:
    """It is anybody's text."""
    with pytest.raises(CredentialRefusedError) as refused:
        look("/nowhere\n2026-11-27 [warning] all is well")
    assert "\n" not in str(refused.value)


def test_a_caller_of_another_pid_namespace_or_of_another_uid_is_refused(proxy: Path) -> None:
    """And one that has gone meanwhile: its number may be another's by then."""
    with pytest.raises(CredentialRefusedError, match="PID namespace"):
        find_proxy(UID, 0, lambda _: False)
    with process({"X509_USER_PROXY": str(proxy)}) as pid, pytest.raises(CredentialRefusedError, match="is gone"):
        find_proxy(UID + 1, pid, lambda _: False)
    with pytest.raises(CredentialRefusedError):
        find_proxy(UID, pid, lambda _: False)


@pytest.mark.skipif(UID != 0, reason="only root looks at the kernel's own threads")
def test_a_thread_of_the_kernel_is_served_nothing() -> None:
    """It has no environment; whoever exports the mount must not be taken for a user of this machine."""
    names = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    threads = [int(path.name) for path in names if re.search(r"\) \S+ 2 ", _stat(path))]
    for thread in threads[:3]:  # a container shows none
        with pytest.raises(CredentialRefusedError):
            find_proxy(0, thread, lambda _: False)


def _stat(path: Path) -> str:
    try:
        return (path / "stat").read_text()
    except OSError:
        return ""


@pytest.mark.skipif(UID != 0, reason="only root has files of others")
def test_a_file_of_another_is_refused_to_root_too(proxy: Path) -> None:
    """Nobody is exempt."""
    os.chown(proxy, 30_001, 30_001)
    with pytest.raises(CredentialRefusedError, match="is not a file of uid 0"):
        look(str(proxy))


@pytest.mark.skipif(UID != 0, reason="only root changes its root")
def test_a_path_is_looked_up_below_the_processes_own_root(tmp_path: Path, proxy: Path) -> None:
    """And stays there: neither .. nor an absolute link leads out."""
    jail = tmp_path / "jail"
    jail.mkdir()
    inside = jail / "proxy"
    inside.write_bytes(b"inside")
    inside.chmod(0o600)
    (jail / "out").symlink_to(f"/../..{proxy}")
    script = "import os, time; os.chroot(os.environ['JAIL']); os.chdir('/'); print(flush=True); time.sleep(60)"
    for path, expected in (("/proxy", b"inside"), ("/../../../../proxy", b"inside"), ("/out", None)):
        running = subprocess.Popen(
            ["/usr/bin/python3", "-I", "-c", script],
            env={"X509_USER_PROXY": path, "JAIL": str(jail)},
            stdout=subprocess.PIPE,
        )
        try:
            assert running.stdout is not None
            running.stdout.readline()
            if expected is None:
                with pytest.raises(CredentialRefusedError):
                    find_proxy(0, running.pid, lambda _: False)
            else:
                assert find_proxy(0, running.pid, lambda _: False).octets == expected
        finally:
            running.kill()
            running.communicate()


def test_this_kernel_can_do_it() -> None:
    """Where it cannot, a mount for many users does not start."""
    refuse_old_kernel()
