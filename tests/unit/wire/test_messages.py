"""What a peer says of numbers, times and texts: what cannot be shown beside the words of others is no message."""

from __future__ import annotations

import math

import msgspec
import pytest

from mdmfs.model.errors import AccessDeniedError
from mdmfs.wire.messages.files import (
    Changes,
    DirectoryPage,
    FileDescription,
    FilePlace,
    Node,
    NodeKind,
    SealedBeginning,
    SealedHeader,
    Totals,
    Transfer,
)
from mdmfs.wire.messages.message import Failure
from mdmfs.wire.messages.metadata import Snapshot

NODE = Node("p", 7, NodeKind.DIRECTORY, 0, 0.0)
DESCRIBED = FileDescription(bytes(16), 7, 1, 1, bytes(32), 0, 2, "ONLINE", [])
SEALED = Transfer(), SealedBeginning(1, 0, 2, b""), SealedHeader()
SNAPSHOT = Snapshot("trial", "/CN=jane", "", 0.0, [], 0, 0)


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        *((NODE, "size", value) for value in (-1, 2**60 + 1, 2**64 - 1)),
        *((NODE, "modified", value) for value in (math.nan, math.inf, -1.0, 1e300)),
        *((NODE, "inode", value) for value in (-1, 0, 2**62, 2**64 - 1)),
        *((Changes(1, [], []), "lease", value) for value in (math.nan, math.inf, -1.0)),
        *((Totals(1, 1), field, value) for field in ("files", "size") for value in (-1, 2**64 - 1)),
        *((SNAPSHOT, "created", value) for value in (math.nan, math.inf, -1.0, 1e300)),
        *((message, "size", value) for message in (Transfer(), SealedBeginning(1, 0, 2, b"")) for value in (-1, 2**63)),
        *((message, "generation", value) for message in SEALED for value in (-1, 2**32)),
        *((message, "threshold", value) for message in SEALED for value in (-1, 256)),
    ],
)
def test_a_number_that_nobody_can_show_is_no_message(message: msgspec.Struct, field: str, value: float) -> None:
    """``ls`` of the directory above all hospitals, and ``df``, would fail by the word of one of them."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)) == message
    lie = msgspec.structs.replace(message, **{field: value})
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.msgpack.decode(msgspec.msgpack.encode(lie), type=type(message))


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        (NODE, "name", "n" * 256),
        (NODE, "target", "/" * 4001),
        (NODE, "guid", bytes(17)),
        (DESCRIBED, "guid", bytes(17)),
        (DESCRIBED, "sha256", bytes(33)),
        (DESCRIBED, "locality", "x" * 65),
        (DESCRIBED, "replicas", ["srm://x"] * 101),
        (DESCRIBED, "replicas", ["x" * 2001]),
        (FilePlace(NODE, "/p", [1]), "lfn", "/" * 4001),
        (FilePlace(NODE, "/p", [1]), "above", [1] * 2001),
    ],
)
def test_what_is_kept_of_many_files_is_not_long(message: msgspec.Struct, field: str, value: object) -> None:
    """A mount keeps it of a million entries, and thousands of files: one hospital would take the memory of all."""
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)) == message
    lie = msgspec.structs.replace(message, **{field: value})
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.msgpack.decode(msgspec.msgpack.encode(lie), type=type(message))


def test_a_directory_with_such_a_number_is_no_page() -> None:
    """Its own, or that of one of its entries."""
    lie = msgspec.structs.replace(NODE, modified=math.nan)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(Changes(1, [], [], [2**63])), type=Changes)
    for page in (DirectoryPage(lie, [], True, 0), DirectoryPage(NODE, [lie], True, 0)):  # noqa: FBT003 a message
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(page), type=DirectoryPage)


def test_what_a_peer_says_of_a_failure_is_fit_for_a_log_wherever_it_says_so() -> None:
    """No line of its own, no command for a terminal, and not without an end."""
    told = Failure(AccessDeniedError.code, "no\nb: heard\x1b[2J" + "x" * 5000, "1\n2", "do\rthis").error()
    assert isinstance(told, AccessDeniedError)
    assert str(told).startswith("no?b: heard?[2Jxxx")
    assert str(told).endswith("x (incident 1?2)")
    assert len(str(told)) < 1100
    assert told.what_to_do == "do?this"
