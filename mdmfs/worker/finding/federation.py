"""Federation: one question to every hospital's metadata service, the ordered answers merged, the silent ones named.

Each is asked as the caller and decides alone. One that is dead or slow holds up nobody beyond the deadline, and is
never left out in silence.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    MalformedMessageError,
    MalformedNameError,
    MalformedQueryError,
    MdmfsError,
    PeerTimedOutError,
    again,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import (
    COUNT_PATH,
    FIND_PATH,
    Counted,
    CountFound,
    Find,
    FoundLevel,
    FoundPage,
    Scalar,
)

PAGE: Final = 1000
DEADLINE: Final = 10.0
"""Seconds for each page of each hospital."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Caller(Protocol):
    """What is needed of ``mdmfs.wire.client.Client``."""

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """POST a message and give its answer; ``deadline`` is a time of ``trio.current_time()``."""


class Row(NamedTuple):
    """One series or image that was found."""

    hospital: str
    """Whose metadata service found it, by its name in the configuration."""
    lfn: Lfn
    values: Mapping[str, Scalar]
    """Empty where paths were enough."""
    guid: bytes
    """Of an image; empty for a series."""
    key: tuple[Scalar, ...]

    @property
    def path(self) -> str:
        """Its LFN as text."""
        return str(self.lfn)


class Found:
    """What comes of a question, in order; ``silent`` is complete when the rows have ended."""

    def __init__(self) -> None:
        self.silent: dict[str, str] = {}
        """Who did not answer, or not to the end, and why."""
        self._streams: list[_Stream] = []
        self._scope = trio.CancelScope()
        self._given = 0
        self._has_begun = False
        self._taken: _Stream | None = None
        """Whose row was given last."""

    @property
    def has_answers(self) -> bool:
        """Whether at least one hospital has given a page."""
        return any(stream.has_answered for stream in self._streams)

    def end(self) -> None:
        """Ask no further."""
        self._scope.cancel()

    async def pump(self) -> None:
        """Fetch what every stream gives, until ``end`` or the end of all."""
        with self._scope:
            async with open_plain_nursery() as nursery:
                for stream in self._streams:
                    nursery.start_soon(stream.pump)

    def __aiter__(self) -> Found:
        """Give the rows; raises what ``refuse_own_affair`` does where nobody answers."""
        return self

    async def __anext__(self) -> Row:
        """Give the next row, when all who may have it have answered or have been given up."""
        if not self._has_begun:
            await self._begin()
        elif self._taken is not None:
            await self._taken.advance()
            self._note_failures()
        self._taken = None
        there = [stream for stream in self._streams if stream.head is not None]
        limits = [stream.limit for stream in self._streams if stream.limit is not None]
        if not there or (limits and self._given >= min(limits)):
            raise StopAsyncIteration
        first = min(there, key=lambda stream: stream.sort_key)
        row = first.head
        assert row is not None  # noqa: S101 it was just looked at
        self._given += 1
        self._taken = first
        return row

    async def _begin(self) -> None:
        for stream in self._streams:
            await stream.advance()
        self._has_begun = True
        self._note_failures()
        if not self.has_answers:
            refuse_own_affair([one.failure for one in self._streams if one.failure is not None])

    def _note_failures(self) -> None:
        for stream in self._streams:
            if stream.failure is not None:
                self.silent.setdefault(stream.name, str(stream.failure))


class Federation:
    """The metadata services of all hospitals, reached with the caller's credential."""

    def __init__(self, clients: Callable[[], Mapping[str, Caller]], *, deadline: float = DEADLINE) -> None:
        """``clients`` gives those of the moment, by name. ``deadline`` is in seconds."""
        self._clients = clients
        self._deadline = deadline

    @contextlib.asynccontextmanager
    async def finding(
        self, query: str, level: FoundLevel = FoundLevel.SERIES, *, is_bare: bool = False
    ) -> AsyncIterator[Found]:
        """Ask everyone; in the block the rows come, in the query's order, over all hospitals."""
        async with open_plain_nursery() as nursery:
            found = self.begin(query, nursery, level, is_bare=is_bare)
            yield found
            nursery.cancel_scope.cancel()

    def begin(
        self, query: str, nursery: trio.Nursery, level: FoundLevel = FoundLevel.SERIES, *, is_bare: bool = False
    ) -> Found:
        """Ask everyone, in a nursery that outlives the answer; who begins has to ``end`` it.

        ``is_bare``: for paths only, at a third of the work.
        """
        found, question = Found(), Find(query, level, (), PAGE, is_bare=is_bare)
        found._streams += [  # noqa: SLF001 the two are one
            _Stream(name, client, question, self._deadline) for name, client in self._clients().items()
        ]
        nursery.start_soon(found.pump)
        return found

    async def count(self, query: str, level: FoundLevel = FoundLevel.SERIES) -> tuple[int, dict[str, str]]:
        """Count over all hospitals; gives the sum of those that answered, and who did not and why.

        Raises as ``ask_all``, and ``PeerTimedOutError`` where nobody answers.
        """
        counts, silent = await self.ask_all(COUNT_PATH, CountFound(query, level), Counted)
        if not counts:
            raise told_silence(silent)
        return sum(answer.count for answer in counts.values()), silent

    async def ask_all(self, path: str, question: Message, reply: type[M]) -> tuple[dict[str, M], dict[str, str]]:
        """Ask everyone one thing; gives the answers, and who did not answer and why.

        Raises what ``refuse_own_affair`` does where nobody answers.
        """
        answers, failures = await self.ask(path, question, reply)
        return answers, {name: str(error) for name, error in failures.items()}

    async def ask(
        self, path: str, question: Message, reply: type[M], *, only: Collection[str] | None = None
    ) -> tuple[dict[str, M], dict[str, MdmfsError]]:
        """Ask as ``ask_all`` does, everyone or some; gives the answers and the failures."""
        answers: dict[str, M] = {}
        failures: dict[str, MdmfsError] = {}

        async def ask(name: str, client: Caller) -> None:
            try:
                deadline = trio.current_time() + self._deadline
                answers[name] = await client.call(path, question, reply, deadline=deadline)
            except MdmfsError as error:
                failures[name] = error

        async with open_plain_nursery() as nursery:
            for name, client in self._clients().items():
                if only is None or name in only:
                    nursery.start_soon(ask, name, client)
        if not answers:
            refuse_own_affair(list(failures.values()))
        return answers, failures


class _Stream:
    """The rows of one hospital: fetched a page ahead, looked at one by one."""

    def __init__(self, name: str, client: Caller, question: Find, deadline: float) -> None:
        self.name = name
        self.head: Row | None = None
        self.failure: MdmfsError | None = None
        self.has_answered = False
        self.limit: int | None = None
        self._client = client
        self._question = question
        self._deadline = deadline
        self._descending: Sequence[bool] = ()
        self._rows: list[Row] = []
        self._position = 0
        self._send, self._pages = trio.open_memory_channel[tuple[FoundPage, list[Lfn]]](1)

    async def pump(self) -> None:
        """Fetch page after page, one ahead of what is looked at; a failure ends the stream where it stands."""
        after: tuple[Scalar, ...] = ()
        async with self._send:
            while True:
                try:
                    page, lfns = await self._ask(msgspec.structs.replace(self._question, after=after))
                except MdmfsError as error:
                    self.failure = error
                    return
                await self._send.send((page, lfns))
                if page.is_last:
                    return
                after = tuple(page.keys[-1])

    async def advance(self) -> None:
        """Go to the next row; ``head`` is None at the end."""
        self.head = None
        while self._position == len(self._rows):
            try:
                page, lfns = await self._pages.receive()
            except trio.EndOfChannel:
                return
            self.has_answered = True
            self.limit, self._descending = page.limit, page.descending
            self._rows, self._position = self._rows_of(page, lfns), 0
        self.head = self._rows[self._position]
        self._position += 1

    @property
    def sort_key(self) -> _Ordered:
        """What the head is ordered by, over all hospitals."""
        key = () if self.head is None else self.head.key
        return _Ordered(key, self._descending)

    async def _ask(self, question: Find) -> tuple[FoundPage, list[Lfn]]:
        page = await self._client.call(FIND_PATH, question, FoundPage, deadline=trio.current_time() + self._deadline)
        lfns = _lfns(page.paths)
        if not len(page.rows) == len(lfns) == len(page.keys) or (not page.rows and not page.is_last):
            message = f"{self.name} answered with a page that cannot be"
            raise MalformedMessageError(message)
        if (
            question.after
            and page.keys
            and not _Ordered(question.after, page.descending) < _Ordered(page.keys[0], page.descending)
        ):
            message = f"{self.name} answers with the same page again"
            raise MalformedMessageError(message)
        return page, lfns

    def _rows_of(self, page: FoundPage, lfns: Sequence[Lfn]) -> list[Row]:
        guids = page.guids or (b"",) * len(page.rows)
        return [
            Row(self.name, lfn, dict(zip(page.columns, row, strict=True)), guid, tuple(key))
            for lfn, row, key, guid in zip(lfns, page.rows, page.keys, guids, strict=True)
        ]


@functools.total_ordering
class _Ordered:
    """A key in the order of a query: as asked for, what is missing last."""

    def __init__(self, key: Iterable[Scalar], descending: Sequence[bool]) -> None:
        self.key = tuple(key)
        self._descending = descending

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ordered) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __lt__(self, other: _Ordered) -> bool:
        for position, (mine, theirs) in enumerate(zip(self.key, other.key, strict=False)):
            if mine == theirs:
                continue
            if mine is None or theirs is None:
                return theirs is None
            is_descending = position < len(self._descending) and self._descending[position]
            return _is_less(theirs, mine) if is_descending else _is_less(mine, theirs)
        return False


def _is_less(left: str | float | bool, right: str | float | bool) -> bool:  # noqa: FBT001 values as they travel
    """Compare two values of one attribute; those of different types, by the names of their types."""
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    if isinstance(left, str) or isinstance(right, str):
        return isinstance(right, str)
    return left < right


def _lfns(paths: Iterable[str]) -> list[Lfn]:
    """Read paths up to the first that is none."""
    found: list[Lfn] = []
    with contextlib.suppress(MalformedNameError):
        for path in paths:
            found.append(Lfn.parse(path))  # noqa: PERF401 those before it count
    return found


def refuse_own_affair(failures: Sequence[MdmfsError]) -> None:
    """Of a question that nobody answered, raise what is the asker's own affair, and no outage.

    ``MalformedQueryError`` where somebody does not understand it; ``CredentialExpiredError`` or
    ``CredentialRefusedError`` where nobody lets the asker in.
    """
    refusals = [error for error in failures if isinstance(error, MalformedQueryError)]
    strangers = [error for error in failures if isinstance(error, (CredentialExpiredError, CredentialRefusedError))]
    if refusals:
        raise again(refusals[0])
    if strangers and len(strangers) == len(failures):
        raise again(strangers[0])


def told_silence(silent: Mapping[str, str]) -> PeerTimedOutError:
    """Make the error for a question that nobody answered."""
    told = "; ".join(f"{name}: {reason}" for name, reason in silent.items())
    return PeerTimedOutError(f"no metadata service answered; {told}")
