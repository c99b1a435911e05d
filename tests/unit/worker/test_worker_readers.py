"""A mount asks daemons that only answer readers first; what they refuse or fail at, the one that works decides."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import AccessDeniedError, MdmfsError, NoSuchFileError, PeerUnreachableError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import (
    GENERATION_HEADER,
    SINCE_HEADER,
    THRESHOLD_HEADER,
    Changes,
    DirectoryPage,
    Node,
    NodeKind,
)
from mdmfs.worker.hospital.remote import READERS_REST_SECONDS, RemoteHospital

GUID = Guid(bytes(16))
ROOT = Lfn(())
PAGE = DirectoryPage(Node("", 1, NodeKind.DIRECTORY, 0, 0.0), [], True, 7)  # noqa: FBT003 as on the wire


class Answering:
    """What is needed of ``mdmfs.wire.client.Client``."""

    def __init__(self) -> None:
        self.failure: MdmfsError | None = None
        self.asked: list[tuple[str, str]] = []
        """Paths, and what an answer had to know of."""
        self.etag, self.status, self.length = "00" * 24, 200, 4
        self.headers = {GENERATION_HEADER: "1", THRESHOLD_HEADER: "2"}
        self.closed = trio.Event()

    async def call(
        self, path: str, message: object, reply: type, *, deadline: float, headers: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 whatever is asked for
        """Answer what there is an answer to."""
        del message
        await trio.lowlevel.checkpoint()
        assert deadline > trio.current_time()
        self._note(path, headers)
        return Changes(9, [], [], False) if reply is Changes else PAGE  # noqa: FBT003 as on the wire

    @contextlib.asynccontextmanager
    async def get(self, path: str, *, headers: Mapping[str, str], deadline: float) -> AsyncIterator[Answering]:
        """Give a sealed object."""
        del deadline
        await trio.lowlevel.checkpoint()
        self._note(path.rpartition("/")[0], headers)
        yield self

    def _note(self, path: str, headers: Mapping[str, str] | None) -> None:
        self.asked.append((path, (headers or {}).get(SINCE_HEADER, "")))
        if self.failure is not None:
            raise self.failure


def remote(working: Answering, reader: Answering) -> RemoteHospital:
    """Make the port before both."""
    clients: list[Callable[[], Any]] = [lambda: working, lambda: reader]
    return RemoteHospital(clients[0], deadline=60, readers=clients[1])


async def test_readers_are_asked_for_what_is_only_read(autojump_clock: trio.testing.MockClock) -> None:
    """They are told what the mount knows already; leases are the business of the one that works."""
    del autojump_clock
    working, reader = Answering(), Answering()
    hospital = remote(working, reader)
    assert await hospital.list_directory(ROOT, "") == PAGE
    await hospital.changes(7, 0.0)
    async with hospital.fetch(GUID) as download:
        assert download.length == reader.length
    assert working.asked == [("/v1/changes", "")]
    assert reader.asked == [("/v1/list", "0"), ("/v1/sealed", "9")]


@pytest.mark.parametrize("failure", [NoSuchFileError, AccessDeniedError])
async def test_what_a_reader_refuses_the_one_that_works_decides(failure: type[MdmfsError]) -> None:
    """A copy may not have it yet: that is no reason to say that it is not there."""
    working, reader = Answering(), Answering()
    hospital, reader.failure = remote(working, reader), failure("no")
    assert await hospital.list_directory(ROOT, "") == PAGE
    async with hospital.fetch(GUID):
        pass
    assert [path for path, _ in working.asked] == [path for path, _ in reader.asked] == ["/v1/list", "/v1/sealed"]
    working.failure = failure("no, indeed")
    with pytest.raises(failure, match="indeed"):
        await hospital.list_directory(ROOT, "")


async def test_what_a_reader_cuts_off_is_asked_of_the_one_that_works() -> None:
    """The next time; else one with a broken disk would fail whoever reads there again."""
    working, reader = Answering(), Answering()
    hospital = remote(working, reader)
    with structlog.testing.capture_logs(), pytest.raises(PeerUnreachableError):
        async with hospital.fetch(GUID):
            raise PeerUnreachableError("the answer was cut off")  # noqa: EM101, TRY003 in a test
    async with hospital.fetch(GUID):
        pass
    assert (len(working.asked), len(reader.asked)) == (1, 1)


async def test_a_reader_that_does_not_answer_is_left_alone_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    """And nobody waits for it twice."""
    del autojump_clock
    working, reader = Answering(), Answering()
    hospital, reader.failure = remote(working, reader), PeerUnreachableError("gone")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert await hospital.list_directory(ROOT, "") == PAGE
    assert (len(working.asked), len(reader.asked), len(logs)) == (3, 1, 1)
    reader.failure = None
    await trio.sleep(READERS_REST_SECONDS)
    await hospital.list_directory(ROOT, "")
    assert (len(working.asked), len(reader.asked)) == (3, 2)
