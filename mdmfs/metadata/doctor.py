"""What ``mdmfs doctor`` looks at in a metadata service: certificate, CAs, database, its volume, and the daemon."""

from __future__ import annotations

import functools
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import trio

from mdmfs.daemon.diagnosis import GIB, LEAST_ROOM, Check, authorities_check, credential_check, free_bytes
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.store.database import shown
from mdmfs.metadata.volume import is_encrypted
from mdmfs.model.errors import BusyError
from mdmfs.model.finding import Finding
from mdmfs.wire.messages.metadata import SCHEMA_PATH, AskSchema, SchemaTold
from mdmfs.wire.peers import open_client

DEADLINE: Final = 10.0
"""Seconds for the daemon's, and for the database's, answer."""


def checks_of(configuration: MetadataConfiguration) -> list[Check]:
    """Give everything that is looked at; a password in the database's URL is never told."""
    checks = [credential_check("[tls]", configuration.credential), authorities_check("[tls]", configuration.anchors)]
    if "://" in configuration.database:
        url = shown(sa.make_url(configuration.database))
        checks += [
            Check("database", url, functools.partial(_look_at_server, configuration.database)),
            Check("volume", url, _look_at_no_volume),
        ]
    else:
        path = Path(configuration.database)
        checks += [
            Check("database", str(path), functools.partial(_look_at_file, path)),
            Check("room", str(path.parent), functools.partial(_look_at_room, path.parent)),
            Check("volume", str(path.parent), functools.partial(_look_at_volume, path.parent)),
        ]
    return [*checks, Check("daemon", str(configuration.listen), functools.partial(_look_at_daemon, configuration))]


async def _look_at_file(path: Path, check: Check) -> Sequence[Finding]:
    return await trio.to_thread.run_sync(_judge_file, path, check)


def _judge_file(path: Path, check: Check) -> Sequence[Finding]:
    open_to = [one for one in (path, path.parent) if one.exists() and stat.S_IMODE(one.stat().st_mode) & 0o077]
    if open_to:
        return [check.fault(f"others may look at {open_to[0]}: chmod go= it")]
    if not path.exists():
        return [check.warning("is not there yet: the daemon makes it when it starts")]
    return [check.ok("is there, and for its owner only")]


async def _look_at_server(url: str, check: Check) -> Sequence[Finding]:
    def ask() -> str:
        options = {"connect_timeout": int(DEADLINE)}
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), connect_args=options)
        try:
            with engine.connect() as connection:
                return str(connection.execute(sa.text("show server_version")).scalar_one())
        finally:
            engine.dispose()

    try:
        version = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
    except ModuleNotFoundError:
        return [check.fault('the extra is missing: pip install "mdmfs[postgresql]", or ./run install postgresql')]
    except sa.exc.SQLAlchemyError as error:
        return [check.fault(f"cannot be used ({type(error).__name__}): does it run, and is there a role for us?")]
    return [check.ok(f"PostgreSQL {version} answers")]


async def _look_at_room(directory: Path, check: Check) -> Sequence[Finding]:
    free = await trio.to_thread.run_sync(free_bytes, directory)
    text = f"{free / GIB:.1f} GiB are free"
    if free < LEAST_ROOM:
        return [check.fault(f"{text}: nothing can be told on a full disk, make room")]
    return [check.ok(text)]


async def _look_at_volume(directory: Path, check: Check) -> Sequence[Finding]:
    encrypted = await trio.to_thread.run_sync(is_encrypted, directory)
    if encrypted:
        return [check.ok("lies on an encrypted volume")]
    if encrypted is None:
        return [check.warning("whether its volume is encrypted cannot be told from here: make sure that it is")]
    return [
        check.warning("lies on a volume that is not encrypted here: put it on LUKS, or know that the host does that")
    ]


async def _look_at_no_volume(check: Check) -> Sequence[Finding]:
    await trio.lowlevel.checkpoint()
    return [check.warning("whether PostgreSQL's volume is encrypted cannot be told from here: make sure that it is")]


async def _look_at_daemon(configuration: MetadataConfiguration, check: Check) -> Sequence[Finding]:
    credential = configuration.credential
    client = open_client(str(configuration.listen), str(credential.subject()), credential, configuration.anchors)
    try:
        await client.call(SCHEMA_PATH, AskSchema(), SchemaTold, deadline=trio.current_time() + DEADLINE)
    except BusyError as error:
        return [check.warning(str(error))]
    finally:
        await client.aclose()
    return [check.ok("answers, and knows what its hospital decided")]
