"""Checks of a site: how ``mdmfs doctor`` runs them, and those of files and peers that every zone has.

A check is a name and a look that gives findings. All run at once, each within its deadline; one that raises or hangs is
a fault of its own and spoils no other.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.daemon.outline import outline
from mdmfs.model.errors import MdmfsError, StoreError
from mdmfs.model.finding import Finding, Severity
from mdmfs.pki.health import AUTHORITIES, CERTIFICATE, examine_authorities, examine_credential
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors

DEADLINE: Final = 20.0
"""Seconds for one check."""
TOLERATED_SKEW: Final = 5.0
"""Seconds by which a peer's clock may differ: the Date of an answer tells whole ones."""
INTOLERABLE_SKEW: Final = 60.0
LEAST_ROOM: Final = 2**30
"""Bytes below which a disk is as good as full."""
GIB: Final = 2**30


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at: ``look`` is given this check, and raises ``MdmfsError`` where that tells what is wrong."""

    name: str
    """As docs/commands.md lists it."""
    subject: str
    look: Look

    def ok(self, text: str) -> Finding:
        """Say that all is well."""
        return Finding(self.name, self.subject, Severity.OK, text)

    def warning(self, text: str) -> Finding:
        """Say what somebody should see to."""
        return Finding(self.name, self.subject, Severity.WARNING, text)

    def fault(self, text: str) -> Finding:
        """Say what is wrong, and what to do."""
        return Finding(self.name, self.subject, Severity.FAULT, text)


Look = Callable[[Check], Awaitable[Sequence[Finding]]]


async def examine(checks: Sequence[Check], *, deadline: float = DEADLINE) -> list[Finding]:
    """Run all checks at once, each for ``deadline`` seconds at most; the findings come in the order of the checks."""
    found: list[Sequence[Finding]] = [()] * len(checks)

    async def run(place: int, check: Check) -> None:
        found[place] = [check.fault(f"no end of the check within {deadline:g} s")]
        with trio.move_on_after(deadline):
            found[place] = await _look(check)

    async with open_plain_nursery() as nursery:
        for place, check in enumerate(checks):
            nursery.start_soon(run, place, check)
    return [finding for findings in found for finding in findings]


async def _look(check: Check) -> Sequence[Finding]:
    try:
        return await check.look(check)
    except MdmfsError as error:
        told = error.told_here.removeprefix(f"{check.subject} ")  # a line begins with it
        knows = error.what_to_do != type(error).what_to_do  # what a kind of error advises is mostly to ask the doctor
        return [check.fault(f"{told}: {error.what_to_do}" if knows else told)]
    except Exception as error:  # noqa: BLE001 the service loop: one check must not end the others
        return [check.fault(f"the check itself failed, please report it: {outline(error)}")]


def judge_clock(name: str, skew: float | None) -> Finding:
    """Judge how far a peer's clock was ahead of ours, in seconds, by the Date of its last answer; None without one."""
    if skew is None:
        return Finding("clock", name, Severity.WARNING, "does not say what time it is: is it of an older version?")
    if abs(skew) <= TOLERATED_SKEW:
        return Finding("clock", name, Severity.OK, "agrees with ours")
    direction = "ahead of" if skew > 0 else "behind"
    severity = Severity.FAULT if abs(skew) > INTOLERABLE_SKEW else Severity.WARNING
    return Finding("clock", name, severity, f"is {abs(skew):.0f} s {direction} ours: let both machines follow NTP")


def credential_check(subject: str, credential: Credential) -> Check:
    """Look at each certificate of a chain that we show."""

    async def look(check: Check) -> Sequence[Finding]:
        return await trio.to_thread.run_sync(examine_credential, check.subject, credential, time.time())

    return Check(CERTIFICATE, subject, look)


def authorities_check(subject: str, anchors: TrustAnchors) -> Check:
    """Look at the CAs that are trusted, and at their revocation lists."""

    async def look(check: Check) -> Sequence[Finding]:
        return await trio.to_thread.run_sync(examine_authorities, check.subject, anchors, time.time())

    return Check(AUTHORITIES, subject, look)


def free_bytes(directory: Path) -> int:
    """Tell how much room there is for a directory that may not have been made yet; raises ``StoreError``."""
    try:
        there = next(it for it in (directory, *directory.parents) if it.exists())
        free = shutil.disk_usage(there).free
    except OSError as error:
        message = f"{directory} cannot be looked into: {error.strerror}"
        raise StoreError(message) from error
    if not there.is_dir():
        message = f"{directory} cannot be made: {there} is no directory"
        raise StoreError(message, what_to_do="name another one")
    return free
