"""The client's side of n keystores: ask k of them in turn, the others where these do not suffice, name who lies.

A keystore that does not answer delays nobody for long: after a moment the others are asked too. Its call runs on in the
background, since a cancelled one would cost the connection; while several do, it is asked only where the others do not
suffice. After a failure it is left alone for some seconds.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog
import trio
from prometheus_client import Counter

from mdmfs.model.errors import (
    ConfigurationError,
    MalformedMessageError,
    MdmfsError,
    PeerTimedOutError,
    PeerUnreachableError,
)
from mdmfs.model.names import Guid
from mdmfs.model.pauses import pause_after
from mdmfs.sealing.header import FileKey
from mdmfs.wire.answers import Answers, OnLie, Verify
from mdmfs.wire.messages.base import MAX_BATCH, Message
from mdmfs.wire.messages.key_tasks import Certificate
from mdmfs.wire.messages.keystores import (
    CERTIFY_PATH,
    COLLECT_PATH,
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
    Collect,
    Collected,
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

MAX_LAGGARDS: Final = 3
"""Calls that may run on at one keystore when nobody waits for their answers any more; with so many it is slow."""
SECOND_THOUGHT: Final = 0.05
"""Seconds after which the keystores are asked that were not asked at first."""
HESITATION: Final = 0.25
"""Seconds for which a slow keystore is not asked, in case the others suffice."""
MAX_BATCH_BYTES: Final = 8 * 2**20
_OVERHEAD: Final = 128
_SIZE_OF_ID: Final = 18
PATIENCE: Final = 1.0
"""Seconds a keystore gets at least before its silence counts as an outage."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 4.0
"""Seconds for which a keystore that did not answer is left alone, doubled with each failure."""

WRONG_SHARES: Final = Counter("mdmfs_wrong_shares", "Shares that contradicted the right key.", ["keystore"])
OUTAGES: Final = Counter("mdmfs_keystore_outages", "Times that a keystore ceased to answer.", ["keystore"])

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class Caller(Protocol):
    """What is needed of ``mdmfs.wire.client.Client``."""

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """POST a message and give its answer; ``deadline`` is a time of ``trio.current_time()``."""


class Keystores:
    """All keystores of a hospital, over clients with one credential. Every error is an ``MdmfsError``.

    Deadlines are times of ``trio.current_time()``. The calls run in the caller's nursery, which outlives this object's
    use; they raise nothing into it.
    """

    def __init__(self, clients: Mapping[str, Caller], nursery: trio.Nursery, on_lie: OnLie | None = None) -> None:
        """Ask these keystores; ``on_lie`` hears of each wrong share, beside the log and the metric."""
        if not clients:
            message = "no keystore is configured: keys cannot be shared or collected"
            raise ConfigurationError(message)
        self._peers = {name: _Peer(name, client) for name, client in clients.items()}
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

    def _chosen(self, enough: int | None) -> tuple[list[_Peer], list[_Peer]]:
        """Choose whom to ask at first, in turn of those that answer, and who is left; all where these are too few."""
        peers = list(self._peers.values())
        start = next(self._first)
        able = [peer for peer in peers[start:] + peers[:start] if peer.is_prompt]
        if enough is None or len(able) < enough:
            return peers, []
        return able[:enough], [peer for peer in peers if peer not in able[:enough]]

    def _ask(self, wanted: Sequence[Guid], gathering: Gathering, peers: Sequence[_Peer] | None = None) -> None:
        for peer in self._peers.values() if peers is None else peers:
            for batch in _batches(wanted):
                self._nursery.start_soon(_ask, peer, batch, gathering)

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
            _refuse_other_number(keystore, len(answer.statuses), len(batch))
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
            found += page.checkpoints
            if page.is_last or not page.checkpoints:
                return found

    async def _ask_outcomes(
        self, keystore: str, path: str, message: Message, count: int, deadline: float
    ) -> list[Outcome]:
        answer = await self._peers[keystore].call(path, message, Outcomes, deadline)
        _refuse_other_number(keystore, len(answer.outcomes), count)
        return answer.outcomes

    def note_lie(self, keystore: str, guid: Guid, reason: str) -> None:
        """Name a keystore that gave a wrong share: in the log, in a metric, and to who listens."""
        self.lies[keystore] += 1
        WRONG_SHARES.labels(keystore).inc()
        if self._on_lie is not None:
            self._on_lie(keystore, guid, reason)
        self._log.warning("a keystore gave a wrong share", keystore=keystore, guid=str(guid), reason=reason)


class Gathering:
    """The answers that have come so far, for the GUIDs of one batch."""

    def __init__(
        self,
        answers: Iterable[Answers],
        deadline: float,
        ask: Callable[[Sequence[Guid], Gathering, Sequence[_Peer] | None], None],
        others: Sequence[_Peer] = (),
        awaited: Collection[Guid] = (),
    ) -> None:
        """``others`` have not been asked yet; they are for what is ``awaited`` and not to be had of those who were."""
        self.answers: dict[Guid, Answers] = {answer.guid: answer for answer in answers}
        self.deadline = deadline
        self._ask = ask
        self._others = others
        self._names_of_others = frozenset(peer.name for peer in others)
        self._left = set(awaited) if others else set()
        """For which the others have not been asked."""
        self._second_thought = trio.current_time() + SECOND_THOUGHT if others else deadline
        self._changed = trio.Event()
        self._closed = trio.Event()

    async def key(self, guid: Guid, verify: Verify, *, threshold: int) -> FileKey:
        """Give the key of a GUID of the batch as soon as the shares that came make one which passes ``verify``.

        The caller owns and closes it. ``threshold`` is what the hospital says, for judging when waiting is in vain.
        Where the answers are torn the keystores are asked once more. Raises, at the deadline at the latest, what
        ``Answers.failure`` says.
        """
        is_second = False
        while True:
            answers = self.answers[guid]
            key = answers.find_key(verify)
            if key is not None:
                return key
            self._reconsider([answers])
            if answers.is_settled(threshold) and answers.are_torn and not is_second:
                is_second = True
                self.answers[guid] = answers.anew()
                self._ask([guid], self, None)
            elif answers.is_settled(threshold) or not await self._has_changed():
                raise answers.failure(threshold)

    async def wait_for(self, enough: int) -> None:
        """Wait until each GUID has ``enough`` shares of one split or cannot get them, to the deadline at most."""
        while lacking := [it for it in self.answers.values() if not (it.has(enough) or it.is_settled(enough))]:
            self._reconsider(lacking)
            if not await self._has_changed():
                return

    def take(self, keystore: str, guids: Sequence[Guid], collected: Collected) -> None:
        """Note a keystore's answer to a batch."""
        if not self._closed.is_set():
            for guid, outcome, share in zip(guids, collected.outcomes, collected.shares, strict=True):
                self.answers[guid].take(keystore, outcome, share)
            found = zip(guids, collected.outcomes, strict=True)
            self._ask_others(guid for guid, outcome in found if outcome is not Outcome.DONE)
            self._tell_waiters()

    def take_failure(self, keystore: str, guids: Sequence[Guid], error: MdmfsError) -> None:
        """Note that a keystore does not answer a batch."""
        if not self._closed.is_set():
            for guid in guids:
                self.answers[guid].take_failure(keystore, error)
            self._ask_others(guids)
            self._tell_waiters()

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._closed.is_set() or trio.current_time() >= self.deadline

    def close(self) -> None:
        """Take no more answers, and ask no keystore that has not been asked yet."""
        self._closed.set()

    async def hesitate(self) -> None:
        """Wait a moment, or until the gathering is closed."""
        with trio.move_on_after(HESITATION):
            await self._closed.wait()

    async def _has_changed(self) -> bool:
        """Wait for the next answer, or until it is time to ask the others; False when the deadline came before."""
        with trio.move_on_at(min(self.deadline, self._second_thought)) as scope:
            await self._changed.wait()
        if scope.cancelled_caught:
            if trio.current_time() >= self.deadline:
                return False
            self._second_thought = self.deadline
            self._ask_others(guid for guid, answers in self.answers.items() if not self._is_left_to_others(answers))
        return True  # an answer may have come in that very moment

    def _reconsider(self, lacking: Iterable[Answers]) -> None:
        """Ask the others where all who were asked have answered, and that does not suffice."""
        self._ask_others(answers.guid for answers in lacking if self._is_left_to_others(answers))

    def _is_left_to_others(self, answers: Answers) -> bool:
        """Whether all who were asked at first have answered."""
        return self._names_of_others.issuperset(answers.waiting_for)

    def _ask_others(self, guids: Iterable[Guid]) -> None:
        """Ask the others, for each GUID once."""
        wanted = [guid for guid in guids if guid in self._left]
        self._left.difference_update(wanted)
        if wanted:
            self._ask(wanted, self, self._others)

    def _tell_waiters(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Peer:
    """One keystore: its client, the collects under way, and until when it is left alone."""

    def __init__(self, name: str, client: Caller) -> None:
        self.name = name
        self._client = client
        self._collecting: list[Gathering] = []
        self._failures = 0
        self._paused_at = float("-inf")
        self._paused_until = float("-inf")

    async def call(self, path: str, message: Message, reply: type[M], deadline: float) -> M:
        begun = trio.current_time()
        try:
            answer = await self._client.call(path, message, reply, deadline=deadline)
        except (PeerUnreachableError, PeerTimedOutError) as error:
            self._note_outage(begun, error)
            raise
        except MdmfsError:
            self._note_life()
            raise
        self._note_life()
        return answer

    async def collect(self, guids: Sequence[Guid], gathering: Gathering) -> Collected:
        self._refuse_while_paused()
        self._collecting.append(gathering)
        try:
            return await self.ask(guids, gathering.deadline)
        finally:
            self._collecting.remove(gathering)

    async def ask(self, guids: Sequence[Guid], deadline: float) -> Collected:
        """Ask for shares, whether the keystore is left alone or not."""
        wanted = Collect([guid.octets for guid in guids])
        collected = await self.call(COLLECT_PATH, wanted, Collected, deadline)
        _refuse_other_number(self.name, len(collected.outcomes), len(guids))
        _refuse_other_number(self.name, len(collected.shares), len(guids))
        return collected

    @property
    def is_prompt(self) -> bool:
        return not self.is_slow and trio.current_time() >= self._paused_until

    @property
    def is_slow(self) -> bool:
        return sum(gathering.is_over for gathering in self._collecting) >= MAX_LAGGARDS

    def _refuse_while_paused(self) -> None:
        left = self._paused_until - trio.current_time()
        if left > 0:
            message = f"it did not answer, and is asked again in {left:.1f} s"
            raise PeerUnreachableError(message)

    def _note_outage(self, begun: float, error: MdmfsError) -> None:
        now = trio.current_time()
        was_hasty = isinstance(error, PeerTimedOutError) and now - begun < PATIENCE
        # calls that were under way together fail together: that is one outage
        if begun <= self._paused_at or was_hasty:
            return
        OUTAGES.labels(self.name).inc()
        self._paused_at = now
        self._paused_until = now + pause_after(self._failures, FIRST_PAUSE, LONGEST_PAUSE)
        self._failures += 1

    def _note_life(self) -> None:
        self._failures = 0
        self._paused_until = float("-inf")


async def _ask(peer: _Peer, guids: list[Guid], gathering: Gathering) -> None:
    """Ask one keystore, if anybody still waits for it, and tell the gathering what came of it."""
    if peer.is_slow:
        await gathering.hesitate()
    if gathering.is_over:
        return
    try:
        collected = await peer.collect(guids, gathering)
    except MdmfsError as error:
        gathering.take_failure(peer.name, guids, error)
    else:
        gathering.take(peer.name, guids, collected)


def _refuse_other_number(keystore: str, got: int, asked: int) -> None:
    if got != asked:
        message = f"the keystore {keystore} gave {got} answers to a batch of {asked}"
        raise MalformedMessageError(message)


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


def _size_of_entry(entry: KeyEntry) -> int:
    return len(entry.share) + sum(_SIZE_OF_ID * len(chain) for chain in entry.aliases) + _OVERHEAD


def _size_of_acl(acl: VersionedAcl) -> int:
    return len(acl.acl) + _OVERHEAD
