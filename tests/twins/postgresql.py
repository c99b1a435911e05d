"""A PostgreSQL of our own: in a folder, on a socket in it, as a user without rights, stopped by its process id."""

from __future__ import annotations

import os
import pathlib
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg

START_SECONDS = 30.0
USER = "postgres"
USER_OF_TESTS = "mdmfs"


def programs() -> pathlib.Path:
    """Find Debian's newest PostgreSQL."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is not installed: ./run test brings it"
    return found[-1].parent


@contextmanager
def running_postgresql() -> Iterator[str]:
    """Start one and give its URL; it is gone at the end, and its folder too."""
    with _folder() as folder:
        _initialise(folder)
        with started(folder):
            yield _url_of(folder)


class Pair(NamedTuple):
    """A primary, and a standby that has every commit before it is acknowledged."""

    url: str
    """Of both: whichever takes writes."""
    primary: Server
    standby: pathlib.Path

    @property
    def standby_url(self) -> str:
        """Of the standby alone, which takes no writes."""
        return _url_of(self.standby)

    def fail_over(self) -> None:
        """Kill the primary, all its processes, and let the standby take its place."""
        self.primary.kill()
        with psycopg.connect(_url_of(self.standby), autocommit=True) as connection:
            connection.execute("select pg_promote()")
            connection.execute("alter system reset synchronous_standby_names")
            connection.execute("select pg_reload_conf()")


@contextmanager
def running_pair() -> Iterator[Pair]:
    """Start a primary and its synchronous standby."""
    with _folder() as first, _folder() as second:
        _initialise(first)
        with started(first, "synchronous_standby_names=*") as primary:
            source = f"host={first} user={USER_OF_TESTS}"
            _run(second, "pg_basebackup", "--pgdata", second / "data", "--dbname", source, "--write-recovery-conf")
            with started(second):
                _wait_for_standby(first)
                yield Pair(f"postgresql://{USER_OF_TESTS}@/postgres?host={first},{second}", primary, second)


class Server(NamedTuple):
    """One that runs."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill it with all its processes, as a machine does that loses its power."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def emptied_of(url: str) -> None:
    """Do as ``emptied``."""
    with psycopg.connect(url, autocommit=True, target_session_attrs="read-write") as connection:
        emptied(connection)


@contextmanager
def started(folder: pathlib.Path, *settings: str) -> Iterator[Server]:
    """Start what is in a folder, and stop it at the end."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    options = [word for setting in ("listen_addresses=", "fsync=off", *settings) for word in ("-c", setting)]
    process = subprocess.Popen(  # type: ignore[call-overload]
        [programs() / "postgres", "-D", folder / "data", "-k", folder, *options],
        stdout=log,
        stderr=log,
        cwd=folder,
        env=_bare(folder),
        start_new_session=True,
        **_as_user(),
    )
    os.close(log)
    try:
        _wait(folder, process)
        yield Server(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()


@contextmanager
def _folder() -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg-"))
    if os.getuid() == 0:
        account = pwd.getpwnam(USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _as_user() -> dict[str, object]:
    if os.getuid() != 0:
        return {}
    account = pwd.getpwnam(USER)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _bare(folder: pathlib.Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}


def _run(folder: pathlib.Path, program: str, *options: object) -> None:
    command = [programs() / program, *map(str, options)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=_bare(folder), **_as_user())  # type: ignore[call-overload]


def _initialise(folder: pathlib.Path) -> None:
    options = ["--auth", "trust", "--encoding", "UTF8", "--no-sync", "--username", USER_OF_TESTS]
    _run(folder, "initdb", "--pgdata", folder / "data", *options)


def _url_of(folder: pathlib.Path) -> str:
    return f"postgresql://{USER_OF_TESTS}@/postgres?host={folder}"


def _wait_for_standby(primary: pathlib.Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with psycopg.connect(_url_of(primary), autocommit=True) as connection:
        while connection.execute("select sync_state from pg_stat_replication").fetchall() != [("sync",)]:
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.05)


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """Make a database for one test and give its URL; it is dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    try:
        yield url.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


def emptied(connection: psycopg.Connection[Any]) -> None:
    """Take everything of a store out of a database, and whoever works on it."""
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid() and usename is not null"
    )
    connection.execute("drop table if exists kept, commits, state, present")


def _wait(folder: pathlib.Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(_url_of(folder)).close()
        except psycopg.OperationalError:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)
        else:
            return
