"""Negotiates an association: which presentation contexts are proposed, which the PACS accepted (PS3.8 section 9.3)."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context, build_role

from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.pdu import MAX_PDU_BYTES
from mdmfs.model.errors import PacsUnreachableError

VERIFICATION: Final = "1.2.840.10008.1.1"
STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
MAX_CONTEXTS: Final = 128
SERVICES: Final = (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE)
MAX_STORAGE_CONTEXTS: Final = MAX_CONTEXTS - len(SERVICES)

Offer = Mapping[str, tuple[str, ...]]
"""Storage SOP Class UID to Transfer Syntax UIDs; each pair is a presentation context of its own."""

_UserInformation = (
    MaximumLengthNotification
    | ImplementationClassUIDNotification
    | ImplementationVersionNameNotification
    | SCP_SCU_RoleSelectionNegotiation
)
APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS_UID: Final = "2.25.107324008153038205182973015977216560743"
IMPLEMENTATION_VERSION: Final = "MDMFS"
_AC_HEADER_BYTES: Final = 68
ITEM_HEADER: Final = struct.Struct(">BxH")
CONTEXT_HEADER: Final = struct.Struct(">BxBx")
_ACCEPTED: Final = 0
_CONTEXT_ITEM: Final = 0x21
TRANSFER_SYNTAX_ITEM: Final = 0x40
USER_INFORMATION_ITEM: Final = 0x50
MAXIMUM_LENGTH_ITEM: Final = 0x51
_MIN_PEER_PDU_BYTES: Final = 64

_REJECTIONS: Final = {  # (source, reason) of PS3.8 Table 9-21
    (1, 1): "no reason given",
    (1, 2): "it does not know the application context",
    (1, 3): "it does not know our AE title as a calling one",
    (1, 7): "it is not called by that AE title",
    (2, 1): "no reason given (its ACSE)",
    (2, 2): "it does not speak this version of the protocol",
    (3, 1): "it is congested for the moment",
    (3, 2): "its limit of associations is reached",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """A presentation context: an abstract syntax in one transfer syntax."""

    abstract_syntax: str
    transfer_syntax: str


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """What an A-ASSOCIATE-AC grants."""

    contexts: Mapping[int, Context]
    """By presentation context ID; only those that were accepted."""
    max_length: int
    """Of a P-DATA-TF PDU that we send, without its header; 0 where the peer has no limit."""

    def context_id(self, abstract_syntax: str) -> int | None:
        """Find the context for a service; None if it was not accepted."""
        return next((number for number, it in self.contexts.items() if it.abstract_syntax == abstract_syntax), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """One presentation context as a requestor proposes it: an abstract syntax and its choice of transfer syntaxes."""

    number: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Invitation:
    """What an A-ASSOCIATE-RQ asks for."""

    called_ae_title: str
    calling_ae_title: str
    proposals: tuple[Proposal, ...]
    max_length: int
    """Of a P-DATA-TF PDU that we send, without its header; 0 where the peer has no limit."""
    is_dicom: bool
    """Whether it names version 1 of the protocol and DICOM's application context."""


def propose(offer: Offer) -> dict[int, Context]:
    """Give a number to each context of one association: ours for asking, then one for each pair of the offer.

    The odd numbers from 1 on (PS3.8 Table 9-13), so at most ``MAX_CONTEXTS``.
    """
    pairs = [Context(service, IMPLICIT_VR_LITTLE_ENDIAN) for service in SERVICES]
    pairs += [Context(class_uid, syntax) for class_uid, syntaxes in offer.items() for syntax in syntaxes]
    if len(pairs) > MAX_CONTEXTS:
        message = f"an association has at most {MAX_CONTEXTS} presentation contexts, not {len(pairs)}"
        raise ValueError(message)
    return {2 * index + 1: context for index, context in enumerate(pairs)}


def encode_associate_request(address: PacsAddress, proposed: Mapping[int, Context]) -> bytes:
    """Write the A-ASSOCIATE-RQ: we are SCU of the services, and SCP of the storage classes (PS3.4 section C.5.3)."""
    request = A_ASSOCIATE()
    request.application_context_name = APPLICATION_CONTEXT
    request.calling_ae_title = address.calling_ae_title
    request.called_ae_title = address.ae_title
    contexts = []
    for number, proposal in proposed.items():
        context = build_context(proposal.abstract_syntax, proposal.transfer_syntax)
        context.context_id = number
        contexts.append(context)
    request.presentation_context_definition_list = contexts
    request.user_information = [*_user_information({it.abstract_syntax for it in proposed.values()} - set(SERVICES))]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    encoded: bytes = pdu.encode()
    return encoded


def _user_information(storage_classes: set[str]) -> list[_UserInformation]:
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = MAX_PDU_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION
    return [length, implementation, version, *(build_role(it, scp_role=True) for it in sorted(storage_classes))]


def parse_associate_accept(body: bytes, proposed: Mapping[int, Context]) -> Accepted:
    """Read an A-ASSOCIATE-AC (PS3.8 section 9.3.3) against what was proposed.

    Read here and not with pynetdicom's classes, because a hostile PDU must end in one error of ours:
    ``PacsUnreachableError``.
    """
    contexts, max_length = {}, 0
    for kind, item in associate_items(body[_AC_HEADER_BYTES:]):
        if kind == _CONTEXT_ITEM:
            contexts.update(_accepted_context(item, proposed))
        elif kind == USER_INFORMATION_ITEM:
            max_length = next(
                (max_length_of(value) for sub, value in associate_items(item) if sub == MAXIMUM_LENGTH_ITEM), 0
            )
    return Accepted(contexts, max_length)


def _accepted_context(item: bytes, proposed: Mapping[int, Context]) -> dict[int, Context]:
    if len(item) < CONTEXT_HEADER.size:
        raise _malformed()
    number, result = CONTEXT_HEADER.unpack_from(item)
    if result != _ACCEPTED:
        return {}
    syntaxes = [value for kind, value in associate_items(item[CONTEXT_HEADER.size :]) if kind == TRANSFER_SYNTAX_ITEM]
    context = proposed.get(number)
    if context is None or [value.rstrip(b"\0 ") for value in syntaxes] != [context.transfer_syntax.encode("ascii")]:
        raise _malformed()
    return {number: context}


def max_length_of(value: bytes) -> int:
    """Read a Maximum Length item (PS3.8 Table D.1-1); 0 means that there is none."""
    length = int.from_bytes(value, "big")
    if len(value) != 4 or 0 < length < _MIN_PEER_PDU_BYTES:  # noqa: PLR2004 - PS3.8 Table D.1-1
        raise _malformed()
    return length


def associate_items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through the items of an A-ASSOCIATE PDU; raises ``PacsUnreachableError`` where one does not fit."""
    at = 0
    while at < len(encoded):
        if len(encoded) - at < ITEM_HEADER.size:
            raise _malformed()
        kind, length = ITEM_HEADER.unpack_from(encoded, at)
        at += ITEM_HEADER.size
        if length > len(encoded) - at:
            raise _malformed()
        yield kind, encoded[at : at + length]
        at += length


def _malformed() -> PacsUnreachableError:
    return PacsUnreachableError("it negotiated the association with a PDU that is malformed")


def parse_associate_reject(body: bytes) -> PacsUnreachableError:
    """Read an A-ASSOCIATE-RJ (4 bytes, PS3.8 section 9.3.4) as the error that it is."""
    _, result, source, reason = body
    why = _REJECTIONS.get((source, reason), "for a reason that the standard does not know")
    lasting = "for the moment" if result == 2 else "for good"  # noqa: PLR2004 - PS3.8 Table 9-21
    return PacsUnreachableError(
        f"it rejected the association {lasting}: {why} (result {result}, source {source}, reason {reason})"
    )
