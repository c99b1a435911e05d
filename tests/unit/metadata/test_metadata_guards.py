"""Who may ask a metadata service for what, path by path, and how much at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio

from mdmfs.metadata.metadata import Metadata
from mdmfs.metadata.service import metadata_service
from mdmfs.metadata.store.database import Database, open_database
from mdmfs.model.errors import AccessDeniedError, BusyError, CredentialExpiredError, MalformedMessageError
from mdmfs.model.identity import Principal
from mdmfs.wire.currency import Currency
from mdmfs.wire.messages.keystores import (
    CONFIRM_PATH,
    EPOCH_PATH,
    SET_ACLS_PATH,
    UNREGISTER_PATH,
    AskEpoch,
    ConfirmEpoch,
    SetAcls,
    Unregister,
    VersionedAcl,
)
from mdmfs.wire.messages.message import MAX_BATCH, Message
from mdmfs.wire.messages.metadata import (
    COUNT_PATH,
    DROP_SNAPSHOT_PATH,
    EXPLAIN_PATH,
    FIND_PATH,
    FROZEN_PATH,
    FROZEN_SERIES_PATH,
    RECORDS_PATH,
    SCHEMA_PATH,
    SNAPSHOT_PATH,
    SNAPSHOTS_PATH,
    TELL_PATH,
    AskFrozen,
    AskFrozenSeries,
    AskRecords,
    AskSchema,
    AskSnapshots,
    CountFound,
    CreateSnapshot,
    DropSnapshot,
    Explain,
    Find,
    Parcel,
    Tell,
)
from mdmfs.wire.service import Reply, Request
from mdmfs.wire.stream import Address
from tests.twins.keystores import HOSPITAL, always_current, principal

NOW = 1e9
READER = principal("/DC=org/DC=demo/CN=reader")
ACL = VersionedAcl(bytes(16), 1, b"")
TOLD: dict[str, Message] = {
    SET_ACLS_PATH: SetAcls([]),
    UNREGISTER_PATH: Unregister([bytes(16)]),
    EPOCH_PATH: AskEpoch(),
    CONFIRM_PATH: ConfirmEpoch(1, bytes(16), bytes(16)),
    TELL_PATH: Tell([], [(Parcel.IMAGES, msgspec.Raw(b"\xc0"))]),  # what a stranger sends is not even read
}
"""By the hospital."""
ASKED: dict[str, Message] = {
    FIND_PATH: Find(""),
    COUNT_PATH: CountFound(""),
    EXPLAIN_PATH: Explain(""),
    SCHEMA_PATH: AskSchema(),
    RECORDS_PATH: AskRecords("a" * 16),
    SNAPSHOT_PATH: CreateSnapshot("trial", "", bytes(16)),
    SNAPSHOTS_PATH: AskSnapshots(),
    FROZEN_PATH: AskFrozen("trial"),
    FROZEN_SERIES_PATH: AskFrozenSeries("trial"),
}
"""By readers; in this order each is answered."""
GIVEN_UP: dict[str, Message] = {DROP_SNAPSHOT_PATH: DropSnapshot("trial")}
"""By readers also while nothing is sure: who gives up his own learns nothing."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Give an empty one."""
    opened = open_database(str(tmp_path / "metadata" / "metadata.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def metadata(database: Database) -> Metadata:
    """Give a service that has heard of its hospital."""
    return Metadata(database, HOSPITAL, lambda: NOW, always_current(HOSPITAL))


async def ask(metadata: Metadata, path: str, message: Message, who: Principal) -> Message:
    """Ask on a path."""

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return msgspec.msgpack.encode(message)

    answer = await metadata_service(metadata).answer(Request("POST", path, {}, who, Address("192.0.2.7", 1), body))
    assert isinstance(answer, Reply)
    return answer.message


def test_every_path_is_one_of_these(metadata: Metadata) -> None:
    """Whoever adds one says whose it is."""
    assert {path for _, path in metadata_service(metadata).routes} == TOLD.keys() | ASKED.keys() | GIVEN_UP.keys()


@pytest.mark.parametrize("path", list(TOLD))
async def test_nobody_but_the_hospital_tells_it_anything(metadata: Metadata, path: str) -> None:
    """A reader who sets ACLs would read everything; who tries is on record."""
    with structlog.testing.capture_logs() as lines, pytest.raises(AccessDeniedError, match="only the hospital"):
        await ask(metadata, path, TOLD[path], READER)
    assert [(line["event"], line["dn"]) for line in lines] == [("refused", str(READER.dn))]


@pytest.mark.parametrize("path", [*TOLD, *ASKED, *GIVEN_UP])
async def test_a_credential_that_has_expired_opens_no_path(metadata: Metadata, path: str) -> None:
    """Not the hospital's either, at its last instant."""
    who = Principal(HOSPITAL if path in TOLD else READER.dn, (), NOW)
    with pytest.raises(CredentialExpiredError):
        await ask(metadata, path, (TOLD | ASKED | GIVEN_UP)[path], who)


async def test_readers_are_answered_only_while_all_is_known_that_was_decided(database: Database) -> None:
    """A right that was taken away meanwhile would count; to give up what is one's own is no question."""
    outdated = Metadata(database, HOSPITAL, lambda: NOW, Currency())
    current = Metadata(database, HOSPITAL, lambda: NOW, always_current(HOSPITAL))
    for path, message in ASKED.items():
        with pytest.raises(BusyError, match="has yet to hear"):
            await ask(outdated, path, message, READER)
        await ask(current, path, message, READER)
    for path, message in GIVEN_UP.items():
        await ask(outdated, path, message, READER)


async def test_more_than_a_batch_is_refused_whole(metadata: Metadata) -> None:
    """By itself, or told together with other things."""
    who, many = principal(HOSPITAL), MAX_BATCH + 1
    for path, message in (
        (SET_ACLS_PATH, SetAcls([ACL] * many)),
        (UNREGISTER_PATH, Unregister([bytes(16)] * many)),
        (TELL_PATH, Tell([ACL] * many, [])),
    ):
        with pytest.raises(MalformedMessageError, match="at most 10000"):
            await ask(metadata, path, message, who)


async def test_a_snapshot_is_asked_for_with_a_nonce(metadata: Metadata) -> None:
    """Of its size: by an empty one two questions would be one."""
    for nonce in (b"", bytes(15), bytes(17)):
        with pytest.raises(MalformedMessageError, match="nonce"):
            await ask(metadata, SNAPSHOT_PATH, CreateSnapshot("trial", "", nonce), READER)
