"""Beside: a hospitald that follows another one's store answers readers from its copy; it decides, records and lets out.

What its copy is not enough for it leaves to the one that works: to recall, which a PACS must be asked for by one daemon
alone, and all that changes anything. Of what was taken away it hears as mounts do, by the feed: it holds a lease, the
change is not called effective before it has applied it or the lease has ended, and without one it answers nothing.
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.assembly import assemble, open_known_pacs, read_choices
from mdmfs.hospital.audit.witnesses import deposit_checkpoints
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.move import Moves
from mdmfs.hospital.gauges import keep_gauges
from mdmfs.hospital.health import health_of, health_routes
from mdmfs.hospital.hospital import Hospital, KnownPacs
from mdmfs.hospital.outward import current
from mdmfs.hospital.registration.harvest import Harvests
from mdmfs.hospital.release.decision import is_current
from mdmfs.hospital.release.elsewhere import FromAnother
from mdmfs.hospital.release.outdated import forget_outdated_headers
from mdmfs.hospital.service import HospitalFace
from mdmfs.hospital.store import Store
from mdmfs.model.errors import MdmfsError, PeerUnreachableError
from mdmfs.pki.tls import ServerContexts
from mdmfs.rows.following import Followed, Following
from mdmfs.wire.client import Client
from mdmfs.wire.currency import uptime
from mdmfs.wire.messages.administration import CopyHealth, Health
from mdmfs.wire.messages.files import CHANGES_PATH, SINCE_HEADER, AskChanges, Changes
from mdmfs.wire.peers import open_lasting_client
from mdmfs.wire.server import Limits, serve
from mdmfs.wire.service import Answer, Request, Respond, Service
from mdmfs.wire.stream import Address

LONGEST_WAIT: Final = 10.0
"""Seconds for which the other one may hold a question about changes open; less where leases are shorter."""
LATE: Final = 5.0
"""Seconds by which its answer may come later than that."""
PAUSE: Final = 0.5
"""Seconds before it is asked again, where it did not answer."""
CATCH_UP_SECONDS: Final = 2.0
"""For which a question waits that wants to have in its answer what has not come here yet."""
ID_SIZE: Final = 16
_VERSION: Final = re.compile(r"[0-9]{1,18}")
AT_ONCE: Final = 256
"""Staged objects looked through in one go."""

log = structlog.get_logger()


class Term:
    """For how long what is read here may be told."""

    def __init__(self, clock: Callable[[], float] = uptime) -> None:
        """Begin with none; ``clock`` goes on while the machine sleeps."""
        self.clock: Final = clock
        self._heard = self._until = clock()
        self._version = 0

    def renew(self, asked: float, seconds: float, version: int) -> None:
        """Know that it holds for so long from when it was asked for, and which version the one that works is at."""
        self._heard, self._version = asked, version
        self._until = max(self._until, asked + seconds)

    def health(self, applied: int) -> CopyHealth:
        """Say how a copy does that is at the version ``applied``."""
        now = self.clock()
        return CopyHealth(max(0, self._version - applied), now - self._heard, max(0.0, self._until - now))

    def refuse_stale(self) -> None:
        """Raise ``PeerUnreachableError`` where it has ended."""
        if self.clock() >= self._until:
            message = "this daemon has not heard lately from the one that works on its store"
            raise PeerUnreachableError(message)


async def answer_beside(
    configuration: HospitalConfiguration,
    following: Following,
    news: Callable[[], trio.Event],
    leader: Callable[[], Address | None],
    address: Address,
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer readers at ``address``, until cancelled; ``news`` gives what the next commit of the copy sets.

    The copy is there. Raises ``ConfigurationError`` and ``StoreError`` as a daemon's start does.
    """
    contexts = await trio.to_thread.run_sync(
        ServerContexts, configuration.credential, configuration.anchors, configuration.vomsdir
    )
    moves = None if configuration.dicom is None else Moves(configuration.dicom.ae_title)
    choices = read_choices(configuration)
    async with contextlib.AsyncExitStack() as stack:
        pacs = {it.name: await open_known_pacs(it, configuration, moves, choices, stack) for it in configuration.pacs}
        await _Beside(configuration, following, news, leader).answer(contexts, pacs, address, task_status)


class _Beside:
    def __init__(
        self,
        configuration: HospitalConfiguration,
        following: Following,
        news: Callable[[], trio.Event],
        leader: Callable[[], Address | None],
    ) -> None:
        self._configuration = configuration
        self._term = Term()
        self._store = Store(Followed(following, self._term.refuse_stale))
        self._news = news
        self._other = TheOther(configuration, leader)

    async def answer(
        self,
        contexts: ServerContexts,
        pacs: Mapping[str, KnownPacs],
        address: Address,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        """Answer between PACSs, which nobody asks here, and which are closed last."""
        configuration, other = self._configuration, self._other
        async with contextlib.AsyncExitStack() as stack, open_plain_nursery() as nursery:
            hospital = await assemble(configuration, self._store, pacs, stack, nursery, is_beside=True)
            stack.push_async_callback(other.aclose)
            recalls = FromAnother(hospital.staging, other.client, configuration.hospital.recall_deadline)
            for task in (hospital.audit.run, hospital.headers.run, hospital.staging.keep_room, recalls.run):
                nursery.start_soon(task)
            nursery.start_soon(forget_outdated_headers, hospital)
            nursery.start_soon(deposit_checkpoints, hospital)
            nursery.start_soon(keep_term, hospital, other.client, self._term, self._news)
            look = functools.partial(health_beside, hospital, self._term)
            if configuration.hospital.metrics:
                nursery.start_soon(keep_gauges, hospital, look)
            face = HospitalFace(hospital, recalls, Harvests(hospital, nursery), configuration.public)
            reading = {it: self._guarded(respond) for it, respond in face.reading().items()}
            service = Service("hospital", {**reading, **health_routes(hospital, look)})
            limits = Limits(requests_a_second=configuration.hospital.requests_per_second)
            bound = await nursery.start(functools.partial(serve, service, contexts, address, limits=limits))
            log.info("hospital answers readers beside the daemon that works", name=hospital.name)
            task_status.started(bound)

    def _guarded(self, respond: Respond) -> Respond:
        return current(self._store, caught_up(self._store, self._news, respond))


class TheOther:
    """The daemon that works, wherever it is by now."""

    def __init__(self, configuration: HospitalConfiguration, leader: Callable[[], Address | None]) -> None:
        self._configuration = configuration
        self._leader = leader
        self._client: Client | None = None

    def client(self) -> Client:
        """Give a client of it; raises ``PeerUnreachableError`` where nobody works."""
        address = self._leader()
        if address is None:
            message = "no daemon works on the store at the moment"
            raise PeerUnreachableError(message)
        if self._client is None or str(self._client.address) != str(address):
            credential = self._configuration.credential
            own = str(credential.subject())
            self._client = open_lasting_client(str(address), own, credential, self._configuration.anchors)
        return self._client

    async def aclose(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()


def health_beside(hospital: Hospital, term: Term) -> Health:
    """Look now, also without a lease; raises ``PeerUnreachableError`` while the copy is made anew."""
    return msgspec.structs.replace(health_of(hospital), copy=term.health(_version(hospital.store)))


async def keep_term(
    hospital: Hospital, other: Callable[[], Client], term: Term, news: Callable[[], trio.Event]
) -> None:
    """Hear of changes, say what has been applied, and hold a lease, until cancelled."""
    own, wait, is_heard, has_news = secrets.token_bytes(ID_SIZE), 0.0, False, True
    while True:
        try:
            applied = _version(hospital.store)
            if (
                has_news
            ):  # by the copy as it is now, before it is said to be applied: it may have come later than the news
                await _forget_outdated(hospital)
            asked = term.clock()
            question, deadline = AskChanges(applied, wait, own), trio.current_time() + wait + LATE
            changes = await other().call(CHANGES_PATH, question, Changes, deadline=deadline)
            # whoever takes over reckons with the projects' leases, whatever this principal may see
            lease = min([changes.lease, *(project.lease for project in hospital.projects.values())])
            term.renew(asked, lease, changes.version)
            wait, is_heard = min(LONGEST_WAIT, lease / 3), True
            has_news = bool(changes.files or changes.is_reset)
            with trio.move_on_after(max(wait, PAUSE)):
                await _reach(hospital.store, changes.version, news)
        except MdmfsError as error:  # also of the copy, which is closed while this daemon takes over
            if is_heard:
                log.warning("the daemon that works is not heard", reason=error.told_here)
            is_heard = False
            await trio.sleep(PAUSE)


def caught_up(store: Store, news: Callable[[], trio.Event], respond: Respond) -> Respond:
    """Answer once that is here which the question says must be; raises ``PeerUnreachableError`` where it is not."""

    async def respond_then(request: Request) -> Answer:
        told = _VERSION.fullmatch(request.headers.get(SINCE_HEADER, ""))
        with trio.move_on_after(CATCH_UP_SECONDS) as waiting:
            await _reach(store, int(told[0]) if told else 0, news)
        if waiting.cancelled_caught:
            message = "this daemon has yet to hear of what was decided lately"
            raise PeerUnreachableError(message)
        return await respond(request)

    return respond_then


async def _reach(store: Store, version: int, news: Callable[[], trio.Event]) -> None:
    while True:
        heard = news()
        if _version(store) >= version:
            return
        await heard.wait()


async def _forget_outdated(hospital: Hospital) -> None:
    """Drop the ciphertext of what is gone or has another key: none of it is let out any more."""
    staged = hospital.staging.known()
    for begin in range(0, len(staged), AT_ONCE):
        for guid, generation in staged[begin : begin + AT_ONCE]:
            if not is_current(hospital, guid, generation):
                hospital.staging.discard(guid)
        await trio.lowlevel.checkpoint()


def _version(store: Store) -> int:
    return store.read(lambda tx: tx.feed.version())
