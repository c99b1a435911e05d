"""What becomes otherwise while a question is answered: a right is taken away, the store is no longer the truth."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from mdmfs.access.acl import Acl, Right
from mdmfs.hospital.outward import current
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import NoSuchFileError, PeerUnreachableError
from mdmfs.wire.messages.files import (
    BUNDLE_PATH,
    DESCRIBE_PATH,
    LIST_PATH,
    SEALED_PATH,
    AskBundle,
    Describe,
    DirectoryPage,
    FileDescription,
    ListDirectory,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Answer, Request, Service, StreamReply
from tests.twins.clinic import READER, Clinic, OpenClinic, add_entry, slices
from tests.twins.store import MemoryRows, MemoryStore

T = TypeVar("T")


class RacedStore(MemoryStore):
    """A store into which somebody commits at a step of whoever asks; what was begun to be read stays as it was."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._act: Callable[[Transaction], object] | None = None

    @property
    def has_committed(self) -> bool:
        """Whether the step has come."""
        return self._act is None

    def commit_at(self, step: int, act: Callable[[Transaction], object]) -> None:
        """Commit when the store has been used so often: before or after a version is given or a transaction begun."""
        self._left, self._act = step, act

    def version(self) -> int:
        """Give it; the commit may come just before or just after."""
        self._step()
        found = super().version()
        self._step()
        return found

    def read(self, act: Callable[[Transaction], T]) -> T:
        """Read what is there at the beginning."""
        self._step()
        rows = MemoryRows(copy.deepcopy(self.table), is_writing=False)
        self._step()
        try:
            return act(self._open(rows))
        finally:
            rows.end()

    def _step(self) -> None:
        self._left -= 1
        if self._act is not None and not self._left:
            act, self._act = self._act, None
            self._version += 1
            self._run(act, is_writing=True)


async def test_a_right_that_is_taken_away_while_a_directory_is_listed_is_gone_in_the_next_answer(
    tmp_path: Path,
) -> None:
    """Wherever the commit falls: no page says that it shows it and does not, and no decision outlives it."""
    clinic, store = Clinic(tmp_path, slices([1])), RacedStore()
    clinic.store = store
    async with clinic.open() as hospital:
        await hospital.harvest()
        ((series,), (guid,)) = hospital.series(), hospital.files().values()
        listing, describing = ListDirectory(str(series.lfn)), Describe(guid.octets)

        def revoke(tx: Transaction) -> None:
            acl = tx.acls.find(tx.acls.ids_of(series.lfn)[0])
            assert acl is not None
            tx.acls.set(series.lfn, Acl(acl.acl.owner, (), acl.acl.defaults))

        for step in itertools.count(1):
            assert isinstance(await hospital.told(DESCRIBE_PATH, describing), FileDescription)
            store.commit_at(step, revoke)
            page = await told_or_refused(hospital, LIST_PATH, listing)
            if not store.has_committed:
                break
            assert not isinstance(page, DirectoryPage) or page.version < store.read(lambda tx: tx.feed.version())
            assert await told_or_refused(hospital, LIST_PATH, listing) is None
            assert await told_or_refused(hospital, DESCRIBE_PATH, describing) is None
            await add_entry(hospital, series.lfn, READER, Right.TRAVERSE)
        assert isinstance(page, DirectoryPage)
        assert step > 6


async def told_or_refused(hospital: OpenClinic, path: str, message: Message) -> Message | None:
    """Ask for something that may not be there for the reader: None."""
    try:
        return await hospital.told(path, message)
    except NoSuchFileError:
        return None


async def test_no_file_of_a_bundle_is_let_out_once_the_store_may_no_longer_be_true(tmp_path: Path) -> None:
    """What is decided while the answer runs is no more told than what was decided before it."""
    clinic, store = Clinic(tmp_path, slices([1, 2])), MemoryStore()
    clinic.store = store
    async with clinic.open() as hospital:
        await hospital.harvest()
        guids = [guid.octets for guid in hospital.files().values()]
        hospital.face = Service("hospital", {("POST", BUNDLE_PATH): current(store, hospital.face.answer)})
        answer = await hospital.ask(BUNDLE_PATH, AskBundle(guids))
        assert isinstance(answer, StreamReply)
        store.is_stale = True
        with pytest.raises(PeerUnreachableError):
            [told async for told in answer.chunks if told]


async def test_a_stream_that_is_not_answered_with_is_closed(tmp_path: Path) -> None:
    """The staged object was open, and nobody will ever take a step of it."""
    clinic, store = Clinic(tmp_path, slices([1])), MemoryStore()
    clinic.store = store
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        await hospital.read(guid)
    async with clinic.open() as hospital:  # what was in memory is on the disk only
        face = hospital.face

        async def grow_stale(request: Request) -> Answer:
            answer = await face.answer(request)
            assert open_files_below(tmp_path / "staging") == 1
            store.is_stale = True
            return answer

        hospital.face = Service("hospital", {("GET", SEALED_PATH): current(store, grow_stale)})
        with pytest.raises(PeerUnreachableError):
            await hospital.ask(f"{SEALED_PATH}{guid}")
        assert open_files_below(tmp_path / "staging") == 0


def open_files_below(folder: Path) -> int:
    """Count what this process has open of a folder."""
    links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.is_relative_to(folder.resolve()) for link in links)
