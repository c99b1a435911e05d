"""What ``mdmfs doctor`` looks at where a store lies in a database: whether it answers, and what it holds and loses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import trio

from mdmfs.daemon.diagnosis import Check
from mdmfs.model.finding import Finding
from mdmfs.rows.database import Database, LostError
from mdmfs.rows.port import Layout
from mdmfs.rows.url import DatabaseUrl

DATABASE: Final = "database"


def database_checks(url: str, layout: Layout) -> list[Check]:
    """Give what is looked at; nothing where the store is in LMDB."""
    return [Check(DATABASE, "store", functools.partial(_look, url, layout))] if url else []


async def _look(url: str, layout: Layout, check: Check) -> Sequence[Finding]:
    return await trio.to_thread.run_sync(_judge, url, layout, check, abandon_on_cancel=True)


def _judge(url: str, layout: Layout, check: Check) -> Sequence[Finding]:
    database = Database(DatabaseUrl(url), layout.what)
    try:
        version, is_durable = database.look()
        state = database.state()
    except LostError as error:
        return [check.fault(f"{error}: does it run, and may we reach it?")]
    finally:
        database.close()
    findings = [check.ok(f"PostgreSQL {version} answers")]
    if state is None:
        findings.append(check.warning(f"holds no {layout.what} yet: mdmfs migrate, or the daemon's start, brings one"))
    elif state.is_left:
        findings.append(check.fault(f"its {layout.what} was brought back into LMDB: leave store out"))
    else:
        findings.append(check.ok(f"holds the {layout.what}, {state.position.number} commits"))
    if not is_durable:
        findings.append(
            check.fault("fsync or full_page_writes is off: a power cut takes what was acknowledged, switch them on")
        )
    return findings
