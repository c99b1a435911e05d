"""Verifying the audit log: its own chain, and the checkpoints of it that keystores hold."""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.hospital.kept.audit import SignerOf, id_of, signers_of, time_of
from mdmfs.journal.chain import Fault, Head, Verifier
from mdmfs.journal.checkpoint import Checkpoint
from mdmfs.journal.files import lines_of
from mdmfs.model.errors import MdmfsError, StoreError
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import Witness

DEADLINE: Final = 60.0
TOLERATED_STEP: Final = 5.0
"""Seconds by which a record may be earlier than the one before it: each has the time at which what it tells was
decided, and they are written as they come."""


class StepBack(NamedTuple):
    """A record that is earlier than the one before it: a clock was set or ran wrong, or somebody wrote another time.

    Its place is certain all the same, since each record holds a hash of all before it.
    """

    number: int
    """Of the record."""
    seconds: float

    def __str__(self) -> str:
        """Say it."""
        return f"times go back: record {self.number} is {self.seconds:.0f} s earlier than the one before it"


class Report(NamedTuple):
    """What came of it."""

    records: int
    faults: list[Fault]
    problems: list[str]
    """What is wrong beside the records: keystores that vouch for nothing, or for something else."""
    vouched: dict[str, int]
    """For each keystore up to which record it vouches."""
    steps_back: Sequence[StepBack] = ()
    """Where times go back: no fault, since clocks are set."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults and not self.problems


class Log(NamedTuple):
    """A log whose first record can be read."""

    path: pathlib.Path
    id: bytes
    signers: list[SignerOf]

    @classmethod
    def at(cls, path: pathlib.Path) -> Log:
        """Read what a log begins with; raises ``StoreError``."""
        log = cls(path, id_of(path), signers_of(path))
        if not log.signers or log.signers[0].first != 1:
            message = f"the audit log {path} does not begin as one does"
            raise StoreError(message)
        return log

    def has_signed(self, checkpoint: Checkpoint) -> bool:
        """Ask whether the key signed it that the log names for this record."""
        keys = [signer.public for signer in self.signers if signer.first <= checkpoint.head.number]
        return bool(keys) and checkpoint.is_signed_by(keys[-1])


async def ask_witnesses(keystores: Keystores) -> tuple[dict[str, list[Checkpoint]], list[str]]:
    """Ask every keystore for the checkpoints that it keeps; those that give none are told as problems."""
    found: dict[str, list[Checkpoint]] = {}
    problems: list[str] = []

    async def ask(name: str) -> None:
        try:
            kept = await keystores.witnessed(name, deadline=trio.current_time() + DEADLINE)
        except MdmfsError as error:
            problems.append(f"{name} cannot be asked: {error}")
        else:
            found[name] = [_checkpoint(one) for one in kept]

    async with trio.open_nursery() as nursery:
        for name in keystores.names:
            nursery.start_soon(ask, name)
    return found, problems


def verify(logs: Sequence[Log], witnessed: Mapping[str, Sequence[Checkpoint]]) -> Report:
    """Verify logs, the current one first; ``witnessed`` was asked for before, since a log grows.

    A checkpoint that is not signed by the key that the log names for its record is no evidence but a problem of the
    keystore that shows it.
    """
    by_id = {log.id: log for log in logs}
    links: dict[bytes, dict[int, bytes]] = defaultdict(dict)
    problems: list[str] = []
    vouched = dict.fromkeys(witnessed, 0)
    for keystore, checkpoints in witnessed.items():
        elsewhere: dict[bytes, Checkpoint] = {}
        for one in checkpoints:
            if one.journal not in by_id:
                elsewhere[one.journal] = one
            elif not by_id[one.journal].has_signed(one):
                problems.append(f"{keystore} shows a checkpoint of record {one.head.number} that is not signed")
            elif links[one.journal].setdefault(one.head.number, one.head.link) != one.head.link:
                problems.append(
                    f"two checkpoints of record {one.head.number} differ, and both are signed: it was forked"
                )
            elif one.journal == logs[0].id:
                vouched[keystore] = max(vouched[keystore], one.head.number)
        problems += [
            f"{keystore} knows another log, {journal.hex()}, of {last.head.number} records: it is not here"
            for journal, last in elsewhere.items()
        ]
    if not any(vouched.values()):
        problems.append("no keystore vouches for any record: whoever keeps this log may have written it anew")
    records = 0
    faults: list[Fault] = []
    steps_back: list[StepBack] = []
    for log in logs:
        verifier, clock = Verifier(links[log.id]), _Clock()
        for line in lines_of(log.path):
            faults += verifier.follow(line)
            steps_back += clock.follow(line, verifier.head.number)
        faults += verifier.end()
        records += verifier.head.number
    return Report(records, faults, problems, vouched, tuple(steps_back))


class _Clock:
    """Follows the times of a log."""

    def __init__(self) -> None:
        self._before = float("-inf")

    def follow(self, octets: bytes, number: int) -> Iterator[StepBack]:
        """Take the next line; say so if it is too early."""
        now = time_of(octets)
        if now is None:
            return
        if now < self._before - TOLERATED_STEP:
            yield StepBack(number, self._before - now)
        self._before = now


def _checkpoint(message: Witness) -> Checkpoint:
    return Checkpoint(message.journal, Head(message.number, message.link), message.when, message.signature)
