"""New keystores get their shares before any other changes over; so readers always find enough of one split."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from mdmfs.hospital.kept.escrow import key_check
from mdmfs.keystore.shelf import KeyRecord, Tombstone
from mdmfs.model.errors import TooFewSharesError, WrongKeyError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.key_tasks import KeyTask
from mdmfs.wire.messages.keystores import Outcome
from mdmfs.wire.messages.message import Message
from mdmfs.wire.peer import Peer
from tests.twins.clinic import KEYSTORES, OWNER, READER, OpenClinic
from tests.twins.key_tasks import clinic_with, done, held, is_readable
from tests.twins.keystores import TwinKeystore, random_guid, shares_of, unreachable

FIRST, SECOND, THIRD = KEYSTORES
M = TypeVar("M", bound=Message)


class ChangingOver:
    """A keystore that gets a new share just after it was asked."""

    def __init__(self, twin: TwinKeystore, guid: Guid, record: KeyRecord) -> None:
        self._twin = twin
        self._asked: Peer = twin.as_seen_by(READER)
        self._change = (guid, record)
        self.questions = 0

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """See ``Peer``."""
        self.questions += 1
        answer = await self._asked.call(path, message, reply, deadline=deadline)
        guid, record = self._change
        self._twin.shelf.page.keys[guid] = record
        return answer


def replacing(opened: OpenClinic) -> OpenClinic:
    """Tell the hospital that a new keystore stands in the place of the third."""
    opened.clinic.keystores["k4"] = TwinKeystore(OWNER.dn)
    clients = {name: opened.clinic.keystores[name].as_seen_by(OWNER) for name in (FIRST, SECOND, "k4")}
    hospital = dataclasses.replace(opened.hospital, keystores=Keystores(clients, opened.nursery))
    return OpenClinic(opened.clinic, hospital, opened.recalls, opened.nursery, delivers=True)


async def test_while_a_new_keystore_is_away_nothing_changes_and_it_is_named(tmp_path: Path) -> None:
    """The third is gone for good: were another to change over now, no two would hold shares of one split."""
    async with clinic_with(tmp_path, 2) as opened:
        guids = list(opened.files().values())
        before = {(name, guid): held(opened, name, guid) for name in (FIRST, SECOND) for guid in guids}
        opened.clinic.keystores[THIRD].failure = unreachable
        grown = replacing(opened)
        opened.clinic.keystores["k4"].failure = unreachable
        found = await done(grown, KeyTask.RESPLIT)
        assert (found.changed, list(found.silent)) == (0, ["k4"])
        assert {(name, guid): held(opened, name, guid) for name in (FIRST, SECOND) for guid in guids} == before
        opened.clinic.keystores["k4"].failure = None
        assert (await done(grown, KeyTask.RESPLIT)).changed == 2
        assert all([await is_readable(grown, guid) for guid in guids])


async def test_with_the_lost_one_gone_every_step_of_the_change_can_be_read(tmp_path: Path) -> None:
    """The new keystore and one that changed over, or the two that did not: k of one split at each instant."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        opened.clinic.keystores[THIRD].failure = unreachable
        grown = replacing(opened)
        first = opened.clinic.keystores[FIRST].shelf.page.keys[guid]
        assert (await done(grown, KeyTask.RESPLIT)).changed == 1
        opened.clinic.keystores[FIRST].shelf.page.keys[guid] = first  # as before its share came through
        assert await is_readable(grown, guid)


async def test_a_share_that_is_destroyed_for_ever_holds_up_no_others(tmp_path: Path) -> None:
    """A keystore with a tombstone takes none; the file has the others, and its siblings all."""
    async with clinic_with(tmp_path, 2) as opened:
        buried, other = opened.files().values()
        grown = replacing(opened)
        assert (await done(opened, KeyTask.VERIFY)).faults == {}
        page = opened.clinic.keystores["k4"].shelf.page
        page.bury(buried, Tombstone(owner=str(OWNER.dn), destroyed_at=0.0))
        assert (await done(grown, KeyTask.RESPLIT)).changed == 2
        assert held(opened, "k4", buried) is None
        assert all([await is_readable(grown, guid) for guid in (buried, other)])


async def test_a_new_keystore_lets_readers_have_its_shares(tmp_path: Path) -> None:
    """The ACLs come with them: of the two that are there one is new."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        opened.clinic.keystores[THIRD].failure = unreachable
        assert (await done(replacing(opened), KeyTask.RESPLIT)).changed == 1
        opened.clinic.keystores[FIRST].failure = unreachable
        assert await is_readable(opened, guid)


async def test_a_file_of_which_a_new_keystore_takes_no_share_stays_as_it_is(tmp_path: Path) -> None:
    """Another hospital's GUID lies in its way; its siblings change over, and the keystore is named."""
    async with clinic_with(tmp_path, 2) as opened:
        stays, changes = opened.files().values()
        before = held(opened, FIRST, stays)
        grown = replacing(opened)
        foreign = KeyRecord(owner="/CN=another hospital", share=b"its share", aliases=())
        opened.clinic.keystores["k4"].shelf.page.keys[stays] = foreign
        found = await done(grown, KeyTask.RESPLIT)
        assert (found.changed, found.silent) == (1, {"k4": "it refused 1 of 2 new shares"})
        assert held(opened, FIRST, stays) == before
        assert opened.clinic.keystores["k4"].shelf.page.keys[stays] == foreign
        assert held(opened, "k4", changes) is not None
        assert all([await is_readable(grown, guid) for guid in (stays, changes)])


@pytest.mark.parametrize(
    ("given", "torn"),
    [((0, 1), False), ((0, None), True), ((None, None), False)],
    ids=["one split", "one has none", "none at all"],
)
def test_shares_of_a_split_that_others_lack_are_torn(given: tuple[int | None, ...], *, torn: bool) -> None:
    """It is asked for once more then."""
    guid = random_guid()
    shares = shares_of(guid, bytes(32))
    answers = Answers(guid, KEYSTORES, lambda *_: None)
    for name, which in zip(KEYSTORES, given, strict=False):
        if which is None:
            answers.take(name, Outcome.UNKNOWN, b"")
        else:
            answers.take(name, Outcome.DONE, shares[which].encode())
    assert answers.are_torn is torn
    assert not answers.anew().shares


def test_shares_of_two_splits_are_torn_and_make_no_key() -> None:
    """Each is right, and they never combine."""
    guid = random_guid()
    answers = Answers(guid, KEYSTORES[:2], lambda *_: None)
    for number, name in enumerate(KEYSTORES[:2]):
        answers.take(name, Outcome.DONE, shares_of(guid, bytes(32))[number].encode())
    assert answers.are_torn
    with pytest.raises(TooFewSharesError):
        answers.key(lambda _: None, threshold=2)


async def test_who_asks_across_a_change_asks_once_more_and_has_the_key(tmp_path: Path) -> None:
    """One had changed over, one not yet, and the new one had nothing when it was asked; now it has."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        file = opened.hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        twins = opened.clinic.keystores
        old = dict(twins[SECOND].shelf.page.keys)
        grown = replacing(opened)
        assert (await done(grown, KeyTask.RESPLIT)).changed == 1
        late = twins["k4"].shelf.page.keys.pop(guid)
        twins[SECOND].shelf.page.keys.update(old)
        changing = ChangingOver(twins["k4"], guid, late)
        clients: dict[str, Peer] = {name: twins[name].as_seen_by(READER) for name in (FIRST, SECOND)}
        keystores = Keystores({**clients, "k4": changing}, opened.nursery)

        def verify(key: FileKey) -> None:
            if key_check(key.octets, guid, file.generation) != file.key_check:
                message = "another key"
                raise WrongKeyError(message)

        async with keystores.collecting([guid], deadline=trio.current_time() + 5) as gathering:
            (await gathering.key(guid, verify, threshold=2)).close()
        assert changing.questions == 2
