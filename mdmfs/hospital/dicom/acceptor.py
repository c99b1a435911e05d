"""The side of an association that is asked (PS3.8 section 9.2): reads an A-ASSOCIATE-RQ, answers it; without I/O."""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Final

from mdmfs.hospital.dicom.association import ESTABLISHED_TRANSITIONS, Event, State, UpperLayer
from mdmfs.hospital.dicom.negotiation import (
    APPLICATION_CONTEXT,
    CONTEXT_HEADER,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    ITEM_HEADER,
    MAX_CONTEXTS,
    MAXIMUM_LENGTH_ITEM,
    TRANSFER_SYNTAX_ITEM,
    USER_INFORMATION_ITEM,
    Accepted,
    Context,
    Invitation,
    Proposal,
    associate_items,
    max_length_of,
)
from mdmfs.hospital.dicom.pdu import MAX_PDU_BYTES, PduType, encode_pdu
from mdmfs.model.errors import PacsUnreachableError

MAX_TRANSFER_SYNTAXES: Final = 64
"""Of one presentation context; a peer that proposes more is not read to the end."""

_HEADER: Final = struct.Struct(">H2x16s16s32s")
_VERSION_1: Final = 1
_APPLICATION_CONTEXT_ITEM: Final = 0x10
_PROPOSED_CONTEXT_ITEM: Final = 0x20
_CONTEXT_RESULT_ITEM: Final = 0x21
_ABSTRACT_SYNTAX_ITEM: Final = 0x30
_IMPLEMENTATION_CLASS_ITEM: Final = 0x52
_IMPLEMENTATION_VERSION_ITEM: Final = 0x55
_MAX_NAME_BYTES: Final = 64


class ContextResult(enum.IntEnum):
    """What becomes of a proposed presentation context (PS3.8 Table 9-18)."""

    ACCEPTED = 0
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


class Rejection(enum.Enum):
    """Why an association is refused: result, source and reason (PS3.8 Table 9-21)."""

    NO_DICOM = (1, 1, 2)
    """Another application context, or another version of the protocol."""
    UNKNOWN_CALLING_AE_TITLE = (1, 1, 3)
    UNKNOWN_CALLED_AE_TITLE = (1, 1, 7)
    TOO_MANY_ASSOCIATIONS = (2, 3, 2)

    def encode(self) -> bytes:
        """Write the A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
        return encode_pdu(PduType.ASSOCIATE_RJ, bytes((0, *self.value)))


class InvitedAssociation(UpperLayer):
    """One association, seen from the side that was asked; ``accept`` or ``reject`` answers the ``Invitation``."""

    def __init__(self) -> None:
        super().__init__(State.AWAITING_REQUEST)
        self._request = b""

    def accept(self, invitation: Invitation, contexts: Mapping[int, Context | ContextResult]) -> bytes:
        """Establish it with some of the contexts proposed: the A-ASSOCIATE-AC, to be sent."""
        agreed = {number: it for number, it in contexts.items() if isinstance(it, Context)}
        self.accepted = Accepted(agreed, invitation.max_length)
        self.state, self._was_accepted = State.ESTABLISHED, True
        return encode_associate_accept(self._request, contexts)

    def reject(self, reason: Rejection) -> bytes:
        """Refuse it: the A-ASSOCIATE-RJ, to be sent before closing."""
        self.state = State.CLOSED
        return reason.encode()

    def _on_request(self) -> Event:
        self._request = self._buffer.take()
        return parse_associate_request(self._request)


InvitedAssociation.transitions = {
    **ESTABLISHED_TRANSITIONS,
    (State.AWAITING_REQUEST, PduType.ASSOCIATE_RQ): InvitedAssociation._on_request,  # noqa: SLF001 - the table of this class
    (State.AWAITING_REQUEST, PduType.ABORT): InvitedAssociation._on_abort,  # noqa: SLF001
}


def parse_associate_request(body: bytes) -> Invitation:
    """Read an A-ASSOCIATE-RQ (PS3.8 section 9.3.2); raises ``PacsUnreachableError`` for what is none.

    A context ID that comes twice, or is even, and more than 128 contexts are no request that could be answered.
    """
    if len(body) < _HEADER.size:
        raise _malformed()
    version, called, calling, _ = _HEADER.unpack_from(body)
    application, max_length = b"", 0
    proposals: dict[int, Proposal] = {}
    for kind, item in associate_items(body[_HEADER.size :]):
        if kind == _APPLICATION_CONTEXT_ITEM:
            application = item.rstrip(b"\0 ")
        elif kind == _PROPOSED_CONTEXT_ITEM:
            proposal = _parse_proposal(item)
            if proposal.number in proposals or len(proposals) == MAX_CONTEXTS:
                raise _malformed()
            proposals[proposal.number] = proposal
        elif kind == USER_INFORMATION_ITEM:
            max_length = next(
                (max_length_of(value) for sub, value in associate_items(item) if sub == MAXIMUM_LENGTH_ITEM), 0
            )
    return Invitation(
        _ae_title(called),
        _ae_title(calling),
        tuple(proposals.values()),
        max_length,
        bool(version & _VERSION_1) and application == APPLICATION_CONTEXT.encode(),
    )


def encode_associate_accept(request: bytes, contexts: Mapping[int, Context | ContextResult]) -> bytes:
    """Write the A-ASSOCIATE-AC (PS3.8 section 9.3.3); AE titles and reserved bytes come back as they were sent."""
    items = [_item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode())]
    for number, context in contexts.items():
        is_accepted = isinstance(context, Context)
        result = ContextResult.ACCEPTED if isinstance(context, Context) else context
        syntax = context.transfer_syntax.encode() if isinstance(context, Context) else b""
        header = CONTEXT_HEADER.pack(number, result)
        # Of a context that is refused the transfer syntax means nothing, but its item must be there.
        items.append(_item(_CONTEXT_RESULT_ITEM, header + _item(TRANSFER_SYNTAX_ITEM, syntax if is_accepted else b"")))
    user = _item(MAXIMUM_LENGTH_ITEM, MAX_PDU_BYTES.to_bytes(4, "big"))
    user += _item(_IMPLEMENTATION_CLASS_ITEM, IMPLEMENTATION_CLASS_UID.encode())
    user += _item(_IMPLEMENTATION_VERSION_ITEM, IMPLEMENTATION_VERSION.encode())
    items.append(_item(USER_INFORMATION_ITEM, user))
    version = struct.pack(">H2x", _VERSION_1)
    return encode_pdu(PduType.ASSOCIATE_AC, version + request[len(version) : _HEADER.size] + b"".join(items))


def _parse_proposal(item: bytes) -> Proposal:
    if len(item) < CONTEXT_HEADER.size:
        raise _malformed()
    number, _ = CONTEXT_HEADER.unpack_from(item)
    abstract, syntaxes = "", list[str]()
    for kind, value in associate_items(item[CONTEXT_HEADER.size :]):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract = _name(value)
        elif kind == TRANSFER_SYNTAX_ITEM:
            syntaxes.append(_name(value))
    if not number % 2 or not abstract or not 0 < len(syntaxes) <= MAX_TRANSFER_SYNTAXES:
        raise _malformed()
    return Proposal(number, abstract, tuple(syntaxes))


def _name(value: bytes) -> str:
    name = value.rstrip(b"\0 ")
    if not 0 < len(name) <= _MAX_NAME_BYTES or not name.isascii():
        raise _malformed()
    return name.decode("ascii")


def _ae_title(value: bytes) -> str:
    """Read an AE title: spaces around it mean nothing (PS3.8 Table 9-11)."""
    return value.decode("ascii", "replace").strip(" \0")


def _item(kind: int, value: bytes) -> bytes:
    return ITEM_HEADER.pack(kind, len(value)) + value


def _malformed() -> PacsUnreachableError:
    return PacsUnreachableError("it asked for an association with a PDU that is malformed")
