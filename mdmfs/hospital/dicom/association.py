"""An association as a table of states (PS3.8 section 9.2), without I/O: bytes in, events and bytes to be sent out.

Errors say what "it", the peer, did; whoever owns the socket adds who that is. What both sides do alike stands in
``UpperLayer``; ``Association`` is the side that asks, ``acceptor.InvitedAssociation`` the side that is asked.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from mdmfs.hospital.dicom.commands import MAX_COMMAND_BYTES, Command, parse_command
from mdmfs.hospital.dicom.negotiation import (
    Accepted,
    Context,
    Invitation,
    encode_associate_request,
    parse_associate_accept,
    parse_associate_reject,
)
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.pdu import PduBuffer, PduType, Pdv, encode_message, encode_pdu
from mdmfs.model.errors import MdmfsError, PacsUnreachableError, RecallFailedError

_SERVICE_PROVIDER: Final = 2
_RELEASE_RQ: Final = encode_pdu(PduType.RELEASE_RQ, bytes(4))
_RELEASE_RP: Final = encode_pdu(PduType.RELEASE_RP, bytes(4))
_ABORT: Final = encode_pdu(PduType.ABORT, bytes(4))
_ABORT_REASONS: Final = {  # PS3.8 Table 9-26
    0: "no reason given",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter",
}


class State(enum.Enum):
    """Where an association stands (PS3.8 Tables 9-1 to 9-5)."""

    AWAITING_REQUEST = "Sta2"
    AWAITING_ACCEPT = "Sta5"
    ESTABLISHED = "Sta6"
    AWAITING_RELEASE = "Sta7"
    CLOSED = "Sta13"


@dataclasses.dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of the data set that belongs to the last command; the view is valid until the next bytes are received."""

    view: memoryview
    is_last: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Released:
    """The association has ended in order; ``reply`` is still to be sent."""

    reply: bytes


Event = Invitation | Accepted | Command | Fragment | Released


class UpperLayer:
    """What both sides of an association do alike.

    ``space`` and ``received`` take bytes in; ``next_event`` says what they mean. It raises ``PacsUnreachableError``
    before the association is established and ``RecallFailedError`` after; then only ``abort`` is left.
    """

    transitions: ClassVar[Mapping[tuple[State, PduType], Callable[[Any], Event | None]]]
    """What a PDU means in a state (PS3.8 Table 9-10); what is not in it is answered with an abort (AA-8)."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.accepted = Accepted({}, 0)
        """The contexts that both sides agreed upon."""
        self._was_accepted = False
        self._buffer: Final = PduBuffer()
        self._command_bytes = bytearray()
        self._command: Command | None = None  # whose data set is being received
        self._context_id: int | None = None  # of the message that is being received
        self.space: Final = self._buffer.space
        self.received: Final = self._buffer.received

    def next_event(self) -> Event | None:
        """Say what has happened; None if more bytes are needed first."""
        try:
            while (kind := self._buffer.peek()) is not None:
                action = self.transitions.get((self.state, kind))
                if action is None:
                    message = f"it sent a {kind.name} PDU, which does not belong here"
                    raise RecallFailedError(message)  # noqa: TRY301 - refused as everything malformed is
                if (event := action(self)) is not None:
                    return event
        except RecallFailedError as error:
            raise self.failure(str(error)) from error
        return None

    def failure(self, message: str) -> MdmfsError:
        """Make the error that a fault of the peer or of the network means at this point."""
        return (RecallFailedError if self._was_accepted else PacsUnreachableError)(message)

    def message(self, context_id: int, command: bytes, data_set: bytes | None = None) -> bytes:
        """Write a message for the peer; the association is established."""
        return encode_message(context_id, command, data_set, self.accepted.max_length)

    def release(self) -> bytes:
        """Begin to end the association in order: the bytes to send before waiting for ``Released``."""
        self.state = State.AWAITING_RELEASE
        return _RELEASE_RQ

    def abort(self) -> bytes:
        """End the association at once: the bytes to send before closing; none if it has ended already."""
        was_open, self.state = self.state is not State.CLOSED, State.CLOSED
        return _ABORT if was_open else b""

    def _on_abort(self) -> Event:
        self.state = State.CLOSED
        _, _, source, reason = self._buffer.take()
        why = f"the provider: {_ABORT_REASONS.get(reason, 'unknown reason')}" if source == _SERVICE_PROVIDER else "user"
        message = f"it aborted the association (source {source}, reason {reason}; {why})"
        raise RecallFailedError(message)

    def _on_release_request(self) -> Event:
        self._buffer.take()
        self.state = State.CLOSED
        return Released(_RELEASE_RP)

    def _on_release_reply(self) -> Event:
        self._buffer.take()
        self.state = State.CLOSED
        return Released(b"")

    def _on_late_pdata(self) -> None:
        """Drop what was under way when we asked for the release."""
        self._buffer.take_pdv(self._buffer.peek_pdv())

    def _on_pdata(self) -> Event | None:
        pdv = self._buffer.peek_pdv()
        if self._context_id is None:
            self._context_id = pdv.context_id
        if pdv.context_id != self._context_id or pdv.is_command == (self._command is not None):
            message = "it mixed the fragments of two messages"
            raise RecallFailedError(message)
        if self._context_id not in self.accepted.contexts:
            message = "it sent a message in a presentation context that was not accepted"
            raise RecallFailedError(message)
        return self._on_command_fragment(pdv) if pdv.is_command else self._on_data_fragment(pdv)

    def _on_command_fragment(self, pdv: Pdv) -> Command | None:
        self._buffer.take_pdv(pdv)
        self._command_bytes += self._buffer.view[pdv.start : pdv.end]
        if len(self._command_bytes) > MAX_COMMAND_BYTES:
            message = f"it sent a command of more than {MAX_COMMAND_BYTES} bytes"
            raise RecallFailedError(message)
        if not pdv.is_last:
            return None
        command = parse_command(pdv.context_id, self._command_bytes)
        self._command_bytes = bytearray()
        self._command = command if command.has_data_set else None
        self._context_id = pdv.context_id if command.has_data_set else None
        return command

    def _on_data_fragment(self, pdv: Pdv) -> Fragment:
        run = self._buffer.take_run(pdv)
        if run.is_last:
            self._command = self._context_id = None
        return Fragment(self._buffer.view[run.start : run.end], run.is_last)


ESTABLISHED_TRANSITIONS: Final[Mapping[tuple[State, PduType], Callable[[UpperLayer], Event | None]]] = {
    (State.ESTABLISHED, PduType.P_DATA_TF): UpperLayer._on_pdata,  # noqa: SLF001 - the table of this class
    (State.ESTABLISHED, PduType.RELEASE_RQ): UpperLayer._on_release_request,  # noqa: SLF001
    (State.ESTABLISHED, PduType.ABORT): UpperLayer._on_abort,  # noqa: SLF001
    (State.AWAITING_RELEASE, PduType.P_DATA_TF): UpperLayer._on_late_pdata,  # noqa: SLF001
    (State.AWAITING_RELEASE, PduType.RELEASE_RP): UpperLayer._on_release_reply,  # noqa: SLF001
    (State.AWAITING_RELEASE, PduType.RELEASE_RQ): UpperLayer._on_release_request,  # noqa: SLF001 - collision, AR-8
    (State.AWAITING_RELEASE, PduType.ABORT): UpperLayer._on_abort,  # noqa: SLF001
}
"""PS3.8 Table 9-10 for both sides, from where the association stands."""


class Association(UpperLayer):
    """One association, seen from the side that asked for it."""

    def __init__(self, address: PacsAddress, proposed: Mapping[int, Context]) -> None:
        super().__init__(State.AWAITING_ACCEPT)
        self._address: Final = address
        self._proposed: Final = proposed

    @functools.cached_property
    def request(self) -> bytes:
        """The A-ASSOCIATE-RQ, to be sent first."""
        return encode_associate_request(self._address, self._proposed)

    def _on_accept(self) -> Event:
        self.accepted = parse_associate_accept(self._buffer.take(), self._proposed)
        self.state, self._was_accepted = State.ESTABLISHED, True
        return self.accepted

    def _on_reject(self) -> Event:
        self.state = State.CLOSED
        raise parse_associate_reject(self._buffer.take())


Association.transitions = {
    **ESTABLISHED_TRANSITIONS,
    (State.AWAITING_ACCEPT, PduType.ASSOCIATE_AC): Association._on_accept,  # noqa: SLF001 - the table of this class
    (State.AWAITING_ACCEPT, PduType.ASSOCIATE_RJ): Association._on_reject,  # noqa: SLF001
    (State.AWAITING_ACCEPT, PduType.ABORT): Association._on_abort,  # noqa: SLF001
}
