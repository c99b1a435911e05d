"""A thousand mounts in one thread, thin enough to measure with: TLS connections in one ``epoll``, and no library.

Each mount does at the wire what ``mdmfs.worker`` does: it follows the feed with one long question after the other,
lists anew what it holds and has changed, and asks for directories and files when its programs want them. Those come
whether or not the one before has been answered, and their time runs from when they were due. How late the crowd itself
was, with sending and with reading, is noted beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import random
import secrets
import select
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.acls import CHANGE_ACL_PATH, ChangedAcls
from mdmfs.wire.messages.files import (
    CHANGES_PATH,
    DESCRIBE_PATH,
    LIST_PATH,
    AskChanges,
    Changes,
    Describe,
    DirectoryPage,
    FileDescription,
    ListDirectory,
    NodeKind,
)
from mdmfs.wire.messages.message import MEDIA_TYPE, Failure, Message
from mdmfs.wire.stream import Address
from mdmfs.worker.hospital.remote import LATE
from mdmfs.worker.namespace.feed import JITTER, RETRY_SECONDS
from tests.twins.load import POLL_SECONDS, Load

PATIENCE = 60.0
"""Seconds after which a question is taken for lost."""
_OK = 200
_ROOM = 2**18
_LOOK_SECONDS = 0.1
_NUMBERS = itertools.count()

Then = Callable[[bytes], object]


def _nothing() -> None:
    """Let nothing follow."""


@dataclasses.dataclass
class _Asked:
    """A question that waits to be sent, or for its answer."""

    octets: bytes
    then: Then
    otherwise: Callable[[], None]
    patience: float
    number: int = -1


@dataclasses.dataclass
class Shared(Load):
    """What came of a crowd, and whose the time was: all in seconds."""

    own: list[float] = dataclasses.field(default_factory=list)
    """Of the same questions, from when they were due, how much of that at most was the crowd's: sent or read late."""
    served: list[float] = dataclasses.field(default_factory=list)
    """The rest of it: at least so much was the hospital's."""
    heard: list[float] = dataclasses.field(default_factory=list)
    """From the answer to each change until the last mount had heard of it."""
    listed_anew: int = 0


@dataclasses.dataclass(frozen=True)
class Names:
    """What there is to ask about: the directories with files, by inode, and the files."""

    directories: dict[int, Lfn]
    files: Sequence[Guid]


class Loop:
    """Readiness and time."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.arrived_after = 0.0
        """What is read now had not arrived by then."""

    def watch(self, descriptor: int, line: Line) -> None:
        """Tell a line whenever something has arrived."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._lines[descriptor] = line

    def leave(self, descriptor: int) -> None:
        """Tell it no longer."""
        self._epoll.unregister(descriptor)
        del self._lines[descriptor]

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at a time of ``time.monotonic``."""
        heapq.heappush(self._timers, (when, next(self._numbers), act))

    def run(self, is_over: Callable[[], bool]) -> None:
        """Go on until it is over."""
        looked = time.monotonic()
        while not is_over():
            ready = self._epoll.poll(0)
            self.arrived_after = looked
            if not ready:
                wait = self._timers[0][0] - time.monotonic() if self._timers else _LOOK_SECONDS
                ready = self._epoll.poll(min(max(wait, 0.0), _LOOK_SECONDS))
                self.arrived_after = time.monotonic()
            looked = time.monotonic()
            for descriptor, _ in ready:
                if descriptor in self._lines:
                    self._lines[descriptor].read()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()


class Line:
    """One kept connection: one question after the other, the next ones waiting; begun again when it breaks."""

    def __init__(self, loop: Loop, context: ssl.SSLContext, address: Address, failed: Callable[[str], None]) -> None:
        """``failed`` is told the code of whatever goes wrong."""
        self._loop = loop
        self._context = context
        self._address = address
        self._failed = failed
        self._waiting: deque[_Asked] = deque()
        self._tls: ssl.SSLSocket | None = None
        self._is_in = False
        self._read = bytearray()

    def ask(
        self, path: str, message: Message, then: Then, otherwise: Callable[[], None], patience: float = PATIENCE
    ) -> None:
        """Ask; ``then`` is given the message of the answer, ``otherwise`` called when there is none."""
        body = msgspec.msgpack.encode(message)
        head = f"POST {path} HTTP/1.1\r\nhost: {self._address}\r\ncontent-type: {MEDIA_TYPE}\r\n"
        octets = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self._waiting.append(_Asked(octets, then, otherwise, patience))
        if len(self._waiting) == 1:
            self._send_next()

    def close(self) -> None:
        """Close, and tell nobody."""
        self._waiting.clear()
        self._drop()

    def read(self) -> None:
        """Take what has arrived."""
        try:
            if not self._is_in:
                self._shake_hands()
                return
            assert self._tls is not None
            while octets := self._tls.recv(_ROOM):
                self._read += octets
            self._fail("peer-unreachable")
        except ssl.SSLWantReadError:
            self._answer()
        except OSError:
            self._fail("peer-unreachable")

    def _send_next(self) -> None:
        asked = self._waiting[0]
        asked.number = next(_NUMBERS)
        self._loop.at(time.monotonic() + asked.patience, functools.partial(self._expire, asked.number))
        try:
            if self._tls is None:
                self._connect()
            elif self._is_in:
                self._tls.send(asked.octets)
        except OSError:
            self._fail("peer-unreachable")

    def _expire(self, number: int) -> None:
        if self._waiting and self._waiting[0].number == number:
            self._fail("peer-timed-out")

    def _connect(self) -> None:
        plain = socket.create_connection((self._address.host, self._address.port))
        plain.setblocking(False)  # noqa: FBT003 the socket's own
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = self._context.wrap_socket(plain, do_handshake_on_connect=False)
        self._loop.watch(self._tls.fileno(), self)
        self._shake_hands()

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._is_in = True
        self._tls.send(self._waiting[0].octets)

    def _answer(self) -> None:
        end = self._read.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = bytes(self._read[:end]).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        if len(self._read) < end + length:
            return
        body = bytes(self._read[end : end + length])
        del self._read[: end + length]
        asked = self._waiting.popleft()
        if self._waiting:
            self._send_next()
        if int(head[9:12]) == _OK:
            asked.then(body)
        else:
            self._failed(msgspec.msgpack.decode(body, type=Failure).code)
            asked.otherwise()

    def _fail(self, code: str) -> None:
        self._drop()
        if not self._waiting:
            return
        asked = self._waiting.popleft()
        self._failed(code)
        if self._waiting:
            self._send_next()
        asked.otherwise()

    def _drop(self) -> None:
        if self._tls is not None:
            self._loop.leave(self._tls.fileno())
            self._tls.close()
        self._tls, self._is_in = None, False
        self._read.clear()


class Mount:
    """One mount of the crowd: a line for the feed, and one for what its programs want."""

    def __init__(self, crowd: Crowd, context: ssl.SSLContext, noted: list[float]) -> None:
        """Note the time of each question in ``noted``."""
        self._crowd = crowd
        self._noted = noted
        self._feed, self._asking = crowd.line(context), crowd.line(context)
        self._name = secrets.token_bytes(16)
        self._groups: list[str] = []
        self._held: set[int] = set()
        self.version = -1
        """Of the feed, that is applied."""

    def arrive(self) -> None:
        """List the root, follow the feed from that version on, and ask a first question over a second connection."""
        self._feed.ask(LIST_PATH, ListDirectory(str(Lfn(())), ""), self._is_in, self._again(self.arrive))

    def work(self) -> None:
        """Ask now and then, for ever; with a gap of 0 as soon as there is an answer."""
        if self._crowd.gap:
            self._ask_at(time.monotonic() + self._crowd.dice.uniform(0, self._crowd.gap))
        else:
            self._ask_on()

    def close(self) -> None:
        """Go away."""
        self._feed.close()
        self._asking.close()

    def _again(self, act: Callable[[], None]) -> Callable[[], None]:
        """Give what does something again after one to five seconds, as ``mdmfs.worker.namespace.feed`` does."""
        return lambda: self._crowd.loop.at(time.monotonic() + self._crowd.dice.uniform(*RETRY_SECONDS), act)

    def _is_in(self, body: bytes) -> None:
        self.version = msgspec.msgpack.decode(body, type=DirectoryPage).version
        self._follow(wait=0.0)
        self._ask(self._crowd.count_in)

    def _follow(self, *, wait: float | None = None) -> None:
        if wait is None:
            wait = POLL_SECONDS * self._crowd.dice.uniform(*JITTER)
        question = AskChanges(self.version, wait, self._name, groups=self._groups)
        patience = wait + min(max(wait, LATE[0]), LATE[1])
        self._feed.ask(CHANGES_PATH, question, self._apply, self._again(self._follow), patience)

    def _apply(self, body: bytes) -> None:
        told = msgspec.msgpack.decode(body, type=Changes)
        self._crowd.load.waits += 1
        self._groups, before, self.version = told.groups, self.version, told.version
        self._crowd.hear(before, told.version)
        self._renew([inode for inode in told.directories if inode in self._held])

    def _renew(self, outdated: list[int]) -> None:
        """List what has changed and is here, one after the other, and then wait for the next change."""
        if not outdated:
            self._follow()
            return
        due, lfn = time.monotonic(), self._crowd.names.directories[outdated.pop()]
        answered, failed = self._noting(due, due, lambda: self._renew(outdated), self._again(self._follow))

        def listed(body: bytes) -> None:
            self._crowd.load.listed_anew += 1
            self._hold(body)
            answered()

        self._feed.ask(LIST_PATH, ListDirectory(str(lfn), ""), listed, failed)

    def _ask_at(self, due: float) -> None:
        def ask() -> None:
            if self._crowd.is_over:
                return
            self._ask(*self._noting(due, time.monotonic()))
            self._ask_at(due + self._crowd.dice.expovariate(1 / self._crowd.gap))

        self._crowd.loop.at(due, ask)

    def _ask_on(self) -> None:
        if not self._crowd.is_over:
            sent = time.monotonic()
            self._ask(*self._noting(sent, sent, self._ask_on, self._ask_on))

    def _ask(self, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """List a directory or describe a file."""
        dice, names = self._crowd.dice, self._crowd.names
        otherwise = otherwise or self._again(lambda: self._ask(then))
        if dice.random() < 0.5:

            def listed(body: bytes) -> None:
                self._hold(body)
                then()

            lfn = dice.choice(list(names.directories.values()))
            self._asking.ask(LIST_PATH, ListDirectory(str(lfn), ""), listed, otherwise)
        else:

            def described(body: bytes) -> None:
                assert msgspec.msgpack.decode(body, type=FileDescription).guid == guid.octets
                then()

            guid = dice.choice(names.files)
            self._asking.ask(DESCRIBE_PATH, Describe(guid.octets), described, otherwise)

    def _hold(self, body: bytes) -> None:
        page = msgspec.msgpack.decode(body, type=DirectoryPage)
        assert any(node.kind is NodeKind.FILE for node in page.entries)
        self._held.add(page.directory.inode)

    def _noting(
        self, due: float, sent: float, then: Callable[[], None] = _nothing, otherwise: Callable[[], None] = _nothing
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Count a question as open until there is an answer, whose time is noted, or none."""
        self._crowd.open += 1

        def answered() -> None:
            self._crowd.open -= 1
            self._note(due, sent)
            then()

        def failed() -> None:
            self._crowd.open -= 1
            otherwise()

        return answered, failed

    def _note(self, due: float, sent: float) -> None:
        now, load = time.monotonic(), self._crowd.load
        own = sent - due + now - max(self._crowd.loop.arrived_after, sent)
        self._noted.append(now - due)
        load.own.append(own)
        load.served.append(now - due - own)


class Crowd:
    """Mounts at one hospital, and its administrator, from when they come until they leave."""

    def __init__(
        self,
        address: Address,
        users: Sequence[ssl.SSLContext],
        administrator: ssl.SSLContext,
        names: Names,
        dice: random.Random,
    ) -> None:
        """Nobody is there yet; mounts will be of the ``users`` in turn."""
        self.names = names
        self.dice = dice
        self.gap = 0.0
        """Seconds between two questions of a mount, on average."""
        self.loop = Loop()
        self.load = Shared([])
        self.open = 0
        """Questions that were due, and wait for their answer."""
        self.is_over = False
        """Nobody asks anything more."""
        self._address = address
        self._users = users
        self._owner = self.line(administrator)
        self._mounts: list[Mount] = []
        self._missing = 0
        self._unheard: list[_Unheard] = []

    def line(self, context: ssl.SSLContext) -> Line:
        """Give a connection to the hospital that is made when it is used."""

        def failed(code: str) -> None:
            self.load.failures[code] += 1

        return Line(self.loop, context, self._address, failed)

    def count_in(self) -> None:
        """Know that one more has come in."""
        self._missing -= 1

    def hear(self, before: int, after: int) -> None:
        """Know that a mount has heard of the changes between two versions."""
        for one in self._unheard:
            if before < one.version <= after:
                one.mounts -= 1
                if not one.mounts:
                    self.load.heard.append(time.monotonic() - one.since)
        self._unheard = [one for one in self._unheard if one.mounts]

    def come(self, count: int) -> None:
        """Let so many mounts in all at once, as after a restart of the hospital, and wait until they are."""
        self.load = Shared([[] for _ in range(count)])
        self._mounts = [
            Mount(self, self._users[each % len(self._users)], noted) for each, noted in enumerate(self.load.seconds)
        ]
        self._missing, begun = count, time.monotonic()
        for mount in self._mounts:
            mount.arrive()
        self.loop.run(lambda: not self._missing)
        self.load.arrived = time.monotonic() - begun

    def work(self, gap: float, seconds: float) -> None:
        """Let those who have come in ask, each every ``gap`` seconds on average; at 0, again when answered."""
        self.gap, end = gap, time.monotonic() + seconds
        for mount in self._mounts:
            mount.work()
        self.loop.run(lambda: time.monotonic() >= end)

    def leave(self) -> Shared:
        """Wait for what is open, let all go, and give what came of it."""
        self.is_over, end = True, time.monotonic() + PATIENCE
        self.loop.run(lambda: not (self.open or self._unheard) or time.monotonic() >= end)
        left = Counter({"not answered": self.open, "a change not heard of": len(self._unheard)})
        self.load.failures += left  # what is 0 is not kept
        for mount in self._mounts:
            mount.close()
        self._owner.close()
        return self.load

    def change(self, every: float, edits: Iterator[Message]) -> None:
        """Have the administrator change an ACL every so many seconds."""

        def changed(body: bytes) -> None:
            version = msgspec.msgpack.decode(body, type=ChangedAcls).version
            missing = sum(mount.version < version for mount in self._mounts)
            if missing:
                self._unheard.append(_Unheard(version, missing, time.monotonic()))
            else:
                self.load.heard.append(0.0)
            again()

        def again() -> None:
            self.loop.at(time.monotonic() + every, ask)

        def ask() -> None:
            if not self.is_over:
                self._owner.ask(CHANGE_ACL_PATH, next(edits), changed, again)

        again()


@dataclasses.dataclass
class _Unheard:
    """A change that some mounts have not heard of."""

    version: int
    mounts: int
    since: float
