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
from contextlib import contextmanager
from typing import Any

import psycopg

START_SECONDS = 30.0
USER = "postgres"


def programs() -> pathlib.Path:
    """Find Debian's newest PostgreSQL."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is not installed: ./run test brings it"
    return found[-1].parent


@contextmanager
def running_postgresql() -> Iterator[str]:
    """Start one and give its URL; it is gone at the end, and its folder too."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg-"))
    account = pwd.getpwnam(USER) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    as_user: dict[str, object] = {}
    if os.getuid() == 0:
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    bare = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    options = [
        "--pgdata",
        str(folder / "data"),
        "--auth",
        "trust",
        "--encoding",
        "UTF8",
        "--no-sync",
        "--username",
        "mdmfs",
    ]
    subprocess.run([programs() / "initdb", *options], check=True, capture_output=True, cwd=folder, env=bare, **as_user)  # type: ignore[call-overload]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    server = subprocess.Popen(  # type: ignore[call-overload]
        [programs() / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=log,
        stderr=log,
        cwd=folder,
        env=bare,
        **as_user,
    )
    os.close(log)
    try:
        _wait(folder, server)
        yield f"postgresql://mdmfs@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(folder)


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
    connection.execute("drop table if exists kept, commits, state")


def _wait(folder: pathlib.Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(f"postgresql://mdmfs@/postgres?host={folder}").close()
        except psycopg.OperationalError:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)
        else:
            return
