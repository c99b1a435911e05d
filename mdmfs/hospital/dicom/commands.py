"""DIMSE command sets (PS3.7 section 6.3.1 and Annex E): group 0000 in Implicit VR Little Endian, both ways."""

from __future__ import annotations

import dataclasses
import enum
import re
import struct
from collections.abc import Mapping
from typing import Final

from mdmfs.model.errors import RecallFailedError

MAX_COMMAND_BYTES: Final = 64 * 2**10

_HEADER: Final = struct.Struct("<HHI")
_US: Final = struct.Struct("<H")
_NO_DATA_SET: Final = 0x0101
_DATA_SET_FOLLOWS: Final = 0x0001
_MEDIUM_PRIORITY: Final = 0x0000
_RESPONSE: Final = 0x8000
_UID = re.compile(rb"[0-9.]{1,64}")

# Element numbers of group 0000 (PS3.7 Table E.1-1)
_GROUP_LENGTH: Final = 0x0000
_AFFECTED_SOP_CLASS_UID: Final = 0x0002
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO: Final = 0x0120
_MOVE_DESTINATION: Final = 0x0600
_PRIORITY: Final = 0x0700
_COMMAND_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
_MOVE_ORIGINATOR_AE_TITLE: Final = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID: Final = 0x1031


class CommandField(enum.IntEnum):
    """What a command asks for or answers (PS3.7 Table E.1-1, tag (0000,0100)); those that this package speaks."""

    STORE_RQ = 0x0001
    STORE_RSP = 0x8001
    GET_RQ = 0x0010
    GET_RSP = 0x8010
    FIND_RQ = 0x0020
    FIND_RSP = 0x8020
    MOVE_RQ = 0x0021
    MOVE_RSP = 0x8021
    ECHO_RQ = 0x0030
    ECHO_RSP = 0x8030


_KNOWN_FIELDS: Final = frozenset(CommandField)


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One command as it was received."""

    context_id: int
    field: CommandField
    message_id: int
    """Of a request its own, of a response the one it answers."""
    has_data_set: bool
    status: int
    """Of a response; 0 in a request."""
    class_uid: str
    """Empty where the command names none."""
    instance_uid: str = dataclasses.field(repr=False)
    """Empty where the command names none."""
    move_ae_title: str = ""
    """Of a C-STORE request that belongs to a C-MOVE: who asked for the move; empty where the command names nobody."""
    move_message_id: int | None = None
    """Of the same: the message ID of the C-MOVE request."""


def is_pending(status: int) -> bool:
    """Tell whether more responses to the same request follow (PS3.7 Annex C.1.3)."""
    return status in {0xFF00, 0xFF01}


def parse_command(context_id: int, encoded: bytes | bytearray) -> Command:
    """Read a whole command set; raises ``RecallFailedError`` for anything that is not one of ours."""
    elements = _elements(encoded)
    number = _number(elements, _COMMAND_FIELD)
    if number not in _KNOWN_FIELDS:
        message = f"it sent the unexpected command 0x{number:04X}"
        raise RecallFailedError(message)
    is_response = bool(number & _RESPONSE)
    return Command(
        context_id,
        CommandField(number),
        _number(elements, _MESSAGE_ID_BEING_RESPONDED_TO if is_response else _MESSAGE_ID),
        _number(elements, _COMMAND_DATA_SET_TYPE) != _NO_DATA_SET,
        _number(elements, _STATUS) if is_response else 0,
        _uid(elements, _AFFECTED_SOP_CLASS_UID),
        _uid(elements, _AFFECTED_SOP_INSTANCE_UID),
        elements.get(_MOVE_ORIGINATOR_AE_TITLE, b"").decode("ascii", "replace").strip(" \0"),
        _number(elements, _MOVE_ORIGINATOR_MESSAGE_ID) if _MOVE_ORIGINATOR_MESSAGE_ID in elements else None,
    )


def encode_request(
    field: CommandField, message_id: int, class_uid: str, *, has_data_set: bool, destination: str = ""
) -> bytes:
    """Write the command set of a C-ECHO, C-FIND, C-GET or C-MOVE request (PS3.7 section 9.3).

    ``destination`` is the AE title that a C-MOVE sends to.
    """
    elements = {
        _AFFECTED_SOP_CLASS_UID: _padded(class_uid),
        _COMMAND_FIELD: _US.pack(field),
        _MESSAGE_ID: _US.pack(message_id),
        _COMMAND_DATA_SET_TYPE: _US.pack(_DATA_SET_FOLLOWS if has_data_set else _NO_DATA_SET),
    }
    if has_data_set:
        elements[_PRIORITY] = _US.pack(_MEDIUM_PRIORITY)
    if destination:
        elements[_MOVE_DESTINATION] = _spaced(destination)
    return _encoded(elements)


def encode_echo_response(request: Command) -> bytes:
    """Write the answer to a C-ECHO request (PS3.7 section 9.3.5.2)."""
    return _encoded(
        {
            _AFFECTED_SOP_CLASS_UID: _padded(request.class_uid),
            _COMMAND_FIELD: _US.pack(CommandField.ECHO_RSP),
            _MESSAGE_ID_BEING_RESPONDED_TO: _US.pack(request.message_id),
            _COMMAND_DATA_SET_TYPE: _US.pack(_NO_DATA_SET),
            _STATUS: _US.pack(0),
        }
    )


def encode_store_response(request: Command, status: int) -> bytes:
    """Write the answer to a C-STORE request (PS3.7 section 9.3.1.2)."""
    return _encoded(
        {
            _AFFECTED_SOP_CLASS_UID: _padded(request.class_uid),
            _COMMAND_FIELD: _US.pack(CommandField.STORE_RSP),
            _MESSAGE_ID_BEING_RESPONDED_TO: _US.pack(request.message_id),
            _COMMAND_DATA_SET_TYPE: _US.pack(_NO_DATA_SET),
            _STATUS: _US.pack(status),
            _AFFECTED_SOP_INSTANCE_UID: _padded(request.instance_uid),
        }
    )


def _elements(encoded: bytes | bytearray) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    at, end = 0, len(encoded)
    while at < end:
        if end - at < _HEADER.size:
            raise _malformed()
        group, element, length = _HEADER.unpack_from(encoded, at)
        at += _HEADER.size
        if group != 0 or length > end - at or element in elements:
            raise _malformed()
        elements[element] = bytes(encoded[at : at + length])
        at += length
    return elements


def _number(elements: Mapping[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != _US.size:
        raise _malformed()
    number: int = _US.unpack(value)[0]
    return number


def _uid(elements: Mapping[int, bytes], element: int) -> str:
    value = elements.get(element, b"").rstrip(b"\0 ")
    if value and not _UID.fullmatch(value):
        raise _malformed()
    return value.decode("ascii")


def _malformed() -> RecallFailedError:
    return RecallFailedError("it sent a command set that is malformed")


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def _spaced(title: str) -> bytes:
    value = title.encode("ascii")
    return value + b" " * (len(value) % 2)


def _encoded(elements: Mapping[int, bytes]) -> bytes:
    body = b"".join(
        _HEADER.pack(0, element, len(value)) + value for element, value in sorted(elements.items())
    )  # in the order of tags, PS3.7 section 6.3.1
    return _HEADER.pack(0, _GROUP_LENGTH, 4) + struct.pack("<I", len(body)) + body
