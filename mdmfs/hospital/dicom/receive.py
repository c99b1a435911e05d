"""The hospital's SCP: answers C-ECHO and C-STORE of listed PACSs, as the destination of our moves and for notices.

It is no archive. What belongs to a move goes to whoever waits for it; of anything else that a PACS stores the UIDs are
noted and the data set is dropped as it streams by.
"""

from __future__ import annotations

import collections
import dataclasses
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import structlog
import trio

from mdmfs.daemon.outline import outline
from mdmfs.hospital.deid.header import EXPLICIT_BIG, NATIVE_SYNTAXES
from mdmfs.hospital.deid.tables.uids import ENCAPSULATED_SYNTAXES
from mdmfs.hospital.dicom.acceptor import ContextResult, InvitedAssociation, Rejection
from mdmfs.hospital.dicom.association import Fragment, Released
from mdmfs.hospital.dicom.commands import Command, CommandField, encode_echo_response, encode_store_response
from mdmfs.hospital.dicom.glance import Glance
from mdmfs.hospital.dicom.link import Link
from mdmfs.hospital.dicom.move import Delivery, Moves
from mdmfs.hospital.dicom.negotiation import VERIFICATION, Context, Invitation, Proposal
from mdmfs.hospital.dicom.recall import LOSSLESS
from mdmfs.hospital.dicom.security import DicomTls, shake_hands
from mdmfs.hospital.dicom.senders import Sender, Senders
from mdmfs.model.errors import MdmfsError, PacsUnreachableError, RecallFailedError

log = structlog.get_logger()

_STORAGE_ROOT: Final = "1.2.840.10008.5.1.4.1.1."
_KNOWN_SYNTAXES: Final = (NATIVE_SYNTAXES | ENCAPSULATED_SYNTAXES) - {EXPLICIT_BIG}
_SUCCESS: Final = 0x0000
_NOT_KEPT: Final = 0xA700
"""Out of resources: the notice could not be stored; the PACS sends again."""
_NOBODY_WAITS: Final = 0xA701
"""An instance of a move of ours that has ended."""
_NOT_UNDERSTOOD: Final = 0xC000


class StoredInstance(NamedTuple):
    """What is noted of an instance that a PACS stored to us."""

    pacs: str
    study_uid: str
    series_uid: str
    instance_uid: str
    class_uid: str

    def __repr__(self) -> str:
        """Tell nothing of it."""
        return "<StoredInstance>"


Note = Callable[[StoredInstance], Awaitable[None]]
"""Remembers an instance durably; raises an ``MdmfsError`` if it cannot."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """What the SCP bears."""

    connections: int = 32
    """At once; one more is closed without a word."""
    strangers: int = 4
    """Of these from addresses where no PACS is: they are told why they are refused, but cannot keep PACSs out."""
    associations: int = 8
    """Of one PACS."""
    negotiation_timeout: float = 10.0
    """Seconds from the connection to the association, TLS included (ARTIM of PS3.8 section 9.1.5)."""
    progress_timeout: float = 30.0
    """Seconds in which an instance that is noted must end or bring another 64 KiB."""
    idle_timeout: float = 300.0
    """Seconds between two requests."""


class Receiver:
    """One SCP for all PACSs of a hospital."""

    def __init__(self, moves: Moves, senders: Senders, note: Note, limits: ReceiverLimits | None = None) -> None:
        self._moves: Final = moves
        self._senders: Final = senders
        self._note: Final = note
        self._limits: Final = limits or ReceiverLimits()
        self._connections = self._strangers = 0
        self._associations: Final[collections.Counter[str]] = collections.Counter()

    async def serve(
        self,
        host: str,
        port: int,
        tls: DicomTls | None = None,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled, in TLS only if it is given; ``started`` gives the port. Raises ``OSError``."""

        async def answer(stream: trio.SocketStream) -> None:
            await self._answer(stream, tls)

        listeners = await trio.open_tcp_listeners(port, host=host)
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(answer, listeners)

    async def _answer(self, stream: trio.SocketStream, tls: DicomTls | None) -> None:
        """Serve one connection; nothing that its peer does ends more than that."""
        connected = socket.socket(fileno=stream.socket.detach())
        if self._connections >= self._limits.connections:
            connected.close()
            return
        self._connections += 1
        try:
            await self._identify(connected, tls)
        except (MdmfsError, OSError) as error:
            log.info("a DICOM association ended early", reason=str(error))
        except Exception as error:  # noqa: BLE001 the service loop: one peer must not end the SCP
            log.error("a DICOM association failed", incident=secrets.token_hex(4), where=outline(error))  # noqa: TRY400 a traceback quotes values
        finally:
            self._connections -= 1
            connected.close()

    async def _identify(self, connected: socket.socket, tls: DicomTls | None) -> None:
        connected.setblocking(False)  # noqa: FBT003 - the standard library's signature
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = str(connected.getpeername()[0])
        senders = await self._senders.at(address)
        is_stranger = not senders
        if is_stranger and self._strangers >= self._limits.strangers:
            return
        self._strangers += is_stranger
        try:
            await self._negotiate(connected, tls, address, senders)
        finally:
            self._strangers -= is_stranger

    async def _negotiate(
        self, connected: socket.socket, tls: DicomTls | None, address: str, senders: list[Sender]
    ) -> None:
        association = InvitedAssociation()
        link: Link | None = None
        try:
            sender = None
            with trio.fail_after(self._limits.negotiation_timeout):
                if tls is not None:
                    connected = await shake_hands(connected, tls.server())
                link = Link(connected, association, f"a DICOM peer at {address}")
                invitation = await link.next_event()
                if not isinstance(invitation, Invitation):
                    return
                sender = await self._judge(link, association, invitation, senders)
            if sender is not None:
                await self._converse(link, association, sender)
        except trio.TooSlowError as error:
            message = f"a DICOM peer at {address} did not establish an association in time"
            raise PacsUnreachableError(message) from error
        finally:
            if link is not None:
                link.abort()

    async def _judge(
        self, link: Link, association: InvitedAssociation, invitation: Invitation, senders: list[Sender]
    ) -> Sender | None:
        """Accept or reject an association (PS3.8 section 9.3.4)."""
        sender = next((it for it in senders if it.ae_title == invitation.calling_ae_title), None)
        rejection = self._objection(invitation, sender)
        if rejection is None and sender is not None:
            await link.send(association.accept(invitation, self._contexts(invitation, sender)))
            return sender
        rejection = rejection or Rejection.UNKNOWN_CALLING_AE_TITLE
        log.warning("a DICOM association is refused", reason=rejection.name, is_listed_address=bool(senders))
        await link.send(association.reject(rejection))
        return None

    def _objection(self, invitation: Invitation, sender: Sender | None) -> Rejection | None:
        if not invitation.is_dicom:
            return Rejection.NO_DICOM
        if invitation.called_ae_title != self._moves.ae_title:
            return Rejection.UNKNOWN_CALLED_AE_TITLE
        if sender is None:
            return Rejection.UNKNOWN_CALLING_AE_TITLE
        if self._associations[sender.pacs] >= self._limits.associations:
            return Rejection.TOO_MANY_ASSOCIATIONS
        return None

    def _contexts(self, invitation: Invitation, sender: Sender) -> Mapping[int, Context | ContextResult]:
        return {
            proposal.number: choose_context(proposal, self._moves.offers(sender.pacs, proposal.abstract_syntax))
            for proposal in invitation.proposals
        }

    async def _converse(self, link: Link, association: InvitedAssociation, sender: Sender) -> None:
        """Answer one request after another until the PACS releases the association."""
        self._associations[sender.pacs] += 1
        try:
            while True:
                link.wait_at_most(self._limits.idle_timeout)
                event = await link.next_said()
                if isinstance(event, Released):
                    await link.send(event.reply)
                    return
                if not isinstance(event, Command):
                    message = f"PACS {sender.pacs} sent a data set without a command"
                    raise RecallFailedError(message)
                await self._reply(link, event, association.accepted.contexts[event.context_id], sender)
        finally:
            self._associations[sender.pacs] -= 1

    async def _reply(self, link: Link, request: Command, context: Context, sender: Sender) -> None:
        is_whole = request.class_uid == context.abstract_syntax
        is_verification = context.abstract_syntax == VERIFICATION
        if is_whole and is_verification and request.field is CommandField.ECHO_RQ and not request.has_data_set:
            await link.reply(request.context_id, encode_echo_response(request))
        elif is_whole and not is_verification and request.field is CommandField.STORE_RQ and _names_all(request):
            await self._store(link, request, context, sender)
        else:
            message = f"PACS {sender.pacs} sent something else than a C-ECHO or a whole C-STORE request"
            raise RecallFailedError(message)

    async def _store(self, link: Link, request: Command, context: Context, sender: Sender) -> None:
        move = self._moves.find(sender.pacs, request, sender.originators)
        if move is not None:
            await move.deliver(Delivery(link, request, context))
            return
        link.wait_at_most(self._limits.progress_timeout)
        glance = Glance(context.transfer_syntax)
        while True:
            fragment = await link.next_event()
            if not isinstance(fragment, Fragment):
                message = f"PACS {sender.pacs} sent a command where the rest of an instance belongs"
                raise RecallFailedError(message)
            link.gained(len(fragment.view))
            glance.feed(fragment.view)
            if fragment.is_last:
                break
        status = await self._noted(request, glance, sender)
        await link.reply(request.context_id, encode_store_response(request, status))

    async def _noted(self, request: Command, glance: Glance, sender: Sender) -> int:
        """Note an instance that no move waits for; gives the status of the response."""
        if self._moves.is_of_the_past(request, sender.originators):
            return _NOBODY_WAITS
        series = glance.series()
        if series is None:
            log.warning("a PACS stored what cannot be understood", pacs=sender.pacs)
            return _NOT_UNDERSTOOD
        try:
            await self._note(StoredInstance(sender.pacs, *series, request.instance_uid, request.class_uid))
        except MdmfsError as error:
            log.error("a notice could not be stored", pacs=sender.pacs, reason=error.told_here)  # noqa: TRY400 the reason says it
            return _NOT_KEPT
        return _SUCCESS


def choose_context(proposal: Proposal, offers: list[tuple[str, ...]]) -> Context | ContextResult:
    """Choose one transfer syntax of a proposal: for what moves wait for one that they take, else any that we can read.

    Where several will do: one that all moves take, then lossless compressed ones (they are taken as they are), then
    native ones; a lossy one only where it stands alone, since the PACS might compress for us.
    """
    name = proposal.abstract_syntax
    if name != VERIFICATION and not name.startswith(_STORAGE_ROOT) and not offers:
        return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    taken = {syntax for offer in offers for syntax in offer} if offers else _KNOWN_SYNTAXES
    candidates = [syntax for syntax in proposal.transfer_syntaxes if syntax in taken]
    if not candidates:
        return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    return Context(name, min(candidates, key=lambda syntax: (not all(syntax in it for it in offers), _loss(syntax))))


def _loss(syntax: str) -> int:
    if syntax in NATIVE_SYNTAXES:
        return 1
    return 0 if syntax in LOSSLESS else 2


def _names_all(request: Command) -> bool:
    return request.has_data_set and bool(request.instance_uid)
