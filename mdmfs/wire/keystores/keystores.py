"""The client's side of n keystores: ask k of them in turn, the others where these do not suffice, name who lies.

A keystore that does not answer delays nobody for long: after a moment the others are asked too. While it is slow, it is
asked only where the others do not suffice.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog
import trio
from prometheus_client import Counter

from mdmfs.model.errors import ConfigurationError, MalformedMessageError
from mdmfs.model.names import Guid
from mdmfs.wire.keystores.answers import Answers, OnLie
from mdmfs.wire.keystores.gathering import Gathering
from mdmfs.wire.keystores.keystore import OUTAGES, RemoteKeystore, refuse_other_number
from mdmfs.wire.messages.key_tasks import Certificate
from mdmfs.wire.messages.keystores import (
    CERTIFY_PATH,
    CONFIRM_PATH,
    EPOCH_PATH,
    REGISTER_PATH,
    SET_ACLS_PATH,
    STATUS_PATH,
    UNREGISTER_PATH,
    WITNESS_PATH,
    WITNESSED_PATH,
    AskEpoch,
    AskStatus,
    AskWitnessed,
    Certify,
    ConfirmEpoch,
    EpochHeld,
    KeyEntry,
    KeyStatus,
    Outcome,
    Outcomes,
    Register,
    SetAcls,
    Statuses,
    Unregister,
    VersionedAcl,
    Witness,
    Witnessed,
)
from mdmfs.wire.messages.message import MAX_BATCH, Message
from mdmfs.wire.peer import Peer

MAX_BATCH_BYTES: Final = 8 * 2**20
_OVERHEAD: Final = 128
_SIZE_OF_ID: Final = 18

WRONG_SHARES: Final = Counter("mdmfs_wrong_shares", "Shares that contradicted the right key.", ["keystore"])

T = TypeVar("T")


class Keystores:
    """All keystores of a hospital, over clients with one credential. Every error is an ``MdmfsError``.

    Deadlines are times of ``trio.current_time()``. The calls run in the caller's nursery, which outlives this object's
    use; they raise nothing into it.
    """

    def __init__(self, clients: Mapping[str, Peer], nursery: trio.Nursery, on_lie: OnLie | None = None) -> None:
        """Ask these keystores; ``on_lie`` hears of each wrong share, beside the log and the metric."""
        if not clients:
            message = "no keystore is configured: keys cannot be shared or collected"
            raise ConfigurationError(message)
        self._peers = {name: RemoteKeystore(name, client) for name, client in clients.items()}
        self._nursery = nursery
        self._first = itertools.cycle(range(len(self._peers)))
        self._on_lie = on_lie
        self.lies: collections.Counter[str] = collections.Counter()
        """How many wrong shares each keystore gave."""
        for name in self._peers:
            WRONG_SHARES.labels(name)
            OUTAGES.labels(name)
        self._log: Any = structlog.get_logger("mdmfs.keystores")

    @property
    def names(self) -> tuple[str, ...]:
        """Name the keystores, in the order of the configuration."""
        return tuple(self._peers)

    @contextlib.asynccontextmanager
    async def collecting(
        self, guids: Iterable[Guid], *, along: Iterable[Guid] = (), deadline: float, enough: int | None = None
    ) -> AsyncIterator[Gathering]:
        """Ask keystores for the shares of these GUIDs in parallel; in the block what comes is gathered.

        With ``enough`` only so many are asked at first, and all others as soon as one of these fails, gives no share,
        gives a wrong one, or keeps whoever waits waiting; else all at once. ``along`` are GUIDs that nobody waits for:
        they are in the same question, and no other keystore is asked for their sake.
        """
        awaited = set(guids := list(guids))
        wanted = list(dict.fromkeys([*guids, *along]))
        first, others = self._chosen(enough)
        answers = [Answers(guid, self.names, self.note_lie) for guid in wanted]
        gathering = Gathering(answers, deadline, self._ask, others, awaited)
        self._ask(wanted, gathering, first)
        try:
            yield gathering
        finally:
            gathering.close()

    async def collect(self, guids: Iterable[Guid], *, enough: int, deadline: float) -> dict[Guid, Answers]:
        """Give what the keystores answer, as soon as each GUID has ``enough`` shares of one split or cannot get them.

        For GUIDs whose keys are needed later: ``Answers.key`` makes the key, or says why not, when the header of the
        sealed object is at hand. Where it raises although shares were there, ``collecting`` asks again.
        """
        async with self.collecting(guids, deadline=deadline, enough=enough) as gathering:
            await gathering.wait_for(enough)
            return gathering.answers

    def _chosen(self, enough: int | None) -> tuple[list[RemoteKeystore], list[RemoteKeystore]]:
        """Choose whom to ask at first, in turn of those that answer, and who is left; all where these are too few."""
        peers = list(self._peers.values())
        start = next(self._first)
        able = [peer for peer in peers[start:] + peers[:start] if peer.is_prompt]
        if enough is None or len(able) < enough:
            return peers, []
        return able[:enough], [peer for peer in peers if peer not in able[:enough]]

    def _ask(self, wanted: Sequence[Guid], gathering: Gathering, peers: Sequence[RemoteKeystore] | None = None) -> None:
        for peer in self._peers.values() if peers is None else peers:
            for batch in _batches(wanted):
                self._nursery.start_soon(gathering.ask, peer, batch)

    async def register(self, keystore: str, entries: Sequence[KeyEntry], *, deadline: float) -> list[Outcome]:
        """Deposit key entries at one keystore; safe to repeat. An error leaves open how many of them are kept."""
        return [
            outcome
            for batch in _batches(entries, _size_of_entry)
            for outcome in await self._ask_outcomes(keystore, REGISTER_PATH, Register(batch), len(batch), deadline)
        ]

    async def set_acls(self, keystore: str, acls: Sequence[VersionedAcl], *, deadline: float) -> list[Outcome]:
        """Make ACLs known to one keystore; safe to repeat. CONFLICT: it knows a later version."""
        return [
            outcome
            for batch in _batches(acls, _size_of_acl)
            for outcome in await self._ask_outcomes(keystore, SET_ACLS_PATH, SetAcls(batch), len(batch), deadline)
        ]

    async def unregister(self, keystore: str, guids: Sequence[Guid], *, deadline: float) -> list[Outcome]:
        """Destroy shares at one keystore for ever; safe to repeat."""
        return [
            outcome
            for batch in _batches([guid.octets for guid in guids])
            for outcome in await self._ask_outcomes(keystore, UNREGISTER_PATH, Unregister(batch), len(batch), deadline)
        ]

    async def status(self, keystore: str, guids: Sequence[Guid], *, deadline: float) -> list[KeyStatus]:
        """Ask one keystore what it keeps of these GUIDs."""
        statuses: list[KeyStatus] = []
        for batch in _batches([guid.octets for guid in guids]):
            answer = await self._peers[keystore].call(STATUS_PATH, AskStatus(batch), Statuses, deadline)
            refuse_other_number(keystore, len(answer.statuses), len(batch))
            statuses += answer.statuses
        return statuses

    async def collect_from(
        self, keystore: str, guids: Sequence[Guid], *, deadline: float
    ) -> list[tuple[Outcome, bytes]]:
        """Ask one keystore, as the owner does who checks what each keeps; an outcome but DONE comes without a share."""
        found: list[tuple[Outcome, bytes]] = []
        for batch in _batches(guids):
            collected = await self._peers[keystore].ask(batch, deadline)
            found += zip(collected.outcomes, collected.shares, strict=True)
        return found

    async def epoch(self, keystore: str, *, wait: float = 0.0, deadline: float) -> EpochHeld:
        """Ask one keystore up to where it knows the hospital's changes; a current one answers after ``wait`` s."""
        return await self._peers[keystore].call(EPOCH_PATH, AskEpoch(wait), EpochHeld, deadline)

    async def confirm(self, keystore: str, epoch: int, mark: bytes, nonce: bytes, *, deadline: float) -> EpochHeld:
        """Tell one keystore that it knows every change up to an epoch; ``nonce`` is of its answer to ``epoch``."""
        message = ConfirmEpoch(epoch, mark, nonce)
        return await self._peers[keystore].call(CONFIRM_PATH, message, EpochHeld, deadline)

    async def certify(self, keystore: str, guids: Sequence[Guid], *, deadline: float) -> Certificate:
        """Have one keystore certify what it destroyed of at most ``MAX_BATCH`` GUIDs."""
        message = Certify([guid.octets for guid in guids])
        return await self._peers[keystore].call(CERTIFY_PATH, message, Certificate, deadline)

    async def witness(self, keystore: str, checkpoint: Witness, *, deadline: float) -> Outcome:
        """Have one keystore keep where the audit log is. CONFLICT: it knows that the log was further, or another."""
        (outcome,) = await self._ask_outcomes(keystore, WITNESS_PATH, checkpoint, 1, deadline)
        return outcome

    async def witnessed(self, keystore: str, *, deadline: float) -> list[Witness]:
        """Ask one keystore for all that it keeps of this hospital's audit logs."""
        found: list[Witness] = []
        while True:
            last = found[-1] if found else Witness(b"", 0, b"", 0.0, b"")
            message = AskWitnessed(last.journal, last.number)
            page = await self._peers[keystore].call(WITNESSED_PATH, message, Witnessed, deadline)
            if page.checkpoints and _place(page.checkpoints[-1]) <= _place(last):
                reason = f"the keystore {keystore} does not go on behind what it has told"
                raise MalformedMessageError(reason)
            found += page.checkpoints
            if page.is_last or not page.checkpoints:
                return found

    async def _ask_outcomes(
        self, keystore: str, path: str, message: Message, count: int, deadline: float
    ) -> list[Outcome]:
        answer = await self._peers[keystore].call(path, message, Outcomes, deadline)
        refuse_other_number(keystore, len(answer.outcomes), count)
        return answer.outcomes

    def note_lie(self, keystore: str, guid: Guid, reason: str) -> None:
        """Name a keystore that gave a wrong share: in the log, in a metric, and to who listens."""
        self.lies[keystore] += 1
        WRONG_SHARES.labels(keystore).inc()
        if self._on_lie is not None:
            self._on_lie(keystore, guid, reason)
        self._log.warning("a keystore gave a wrong share", keystore=keystore, guid=str(guid), reason=reason)


def _batches(items: Iterable[T], size: Callable[[T], int] = lambda _: 0) -> Iterator[list[T]]:
    """Divide into batches that a keystore takes; ``size`` estimates an item's bytes in the message."""
    batch: list[T] = []
    filled = 0
    for item in items:
        octets = size(item)
        if batch and (len(batch) == MAX_BATCH or filled + octets > MAX_BATCH_BYTES):
            yield batch
            batch, filled = [], 0
        batch.append(item)
        filled += octets
    if batch:
        yield batch


def _place(checkpoint: Witness) -> tuple[bytes, int]:
    return checkpoint.journal, checkpoint.number


def _size_of_entry(entry: KeyEntry) -> int:
    return len(entry.share) + sum(_SIZE_OF_ID * len(chain) for chain in entry.aliases) + _OVERHEAD


def _size_of_acl(acl: VersionedAcl) -> int:
    return len(acl.acl) + _OVERHEAD
