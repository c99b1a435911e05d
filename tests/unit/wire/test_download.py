"""An answer's body is taken to its true end, or it is an error: a minute of silence, a cut, more than may be taken."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mdmfs.model.errors import MalformedMessageError, PeerTimedOutError, PeerUnreachableError
from mdmfs.wire.download import HOPE_SECONDS, STALL_SECONDS, Download, until
from mdmfs.wire.stream import Address
from tests.unit.wire.test_exchange import Script

PEER = Address("hospital.example.org", 8443)
CHUNKED = {"transfer-encoding": "chunked"}


class Silent(Script):
    """A stream that ends in silence."""

    async def receive_into(self, buffer: memoryview, hoped: int = 1) -> int:
        """Give the next piece, if there is one, and no more than that."""
        count = await super().receive_into(buffer, hoped)
        return count or await trio.sleep_forever()


def download_of(stream: Script, length: int, beginning: bytes = b"") -> Download:
    """Take an answer of so many bytes."""
    return Download(stream, 200, {"content-length": str(length)}, beginning, PEER)


async def test_a_minute_without_a_byte_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    """Counted anew from each that comes; who hopes for many at once waits a moment longer."""
    assert autojump_clock.rate == 0
    buffer = memoryview(bytearray(10))
    download = download_of(Silent([b"ab"]), 10)
    assert await download.receive_into(buffer) == 2
    begun = trio.current_time()
    with pytest.raises(PeerTimedOutError):
        await download.receive_into(buffer)
    assert trio.current_time() - begun == pytest.approx(STALL_SECONDS, abs=0.1)
    with pytest.raises(PeerTimedOutError):
        await Download(Silent([]), 200, CHUNKED, b"", PEER).receive_raw(buffer, 5)
    assert trio.current_time() - begun == pytest.approx(2 * STALL_SECONDS + HOPE_SECONDS, abs=0.1)
    with pytest.raises(PeerTimedOutError), until(trio.current_time() + 1, PEER):
        await trio.sleep_forever()


@pytest.mark.parametrize("ending", [None, ConnectionResetError(104, "reset")])
async def test_what_is_cut_is_never_an_end(ending: OSError | None) -> None:
    """However it is cut; what has come does not serve another question."""
    download = download_of(Script([b"abc"], ending), 5, b"a")
    with pytest.raises(PeerUnreachableError, match="1 bytes before its end"):
        await download.read()
    assert not download.is_reusable


async def test_a_body_is_read_up_to_the_limit_and_not_beyond() -> None:
    """What is longer is refused before any of it is taken."""
    assert await download_of(Script([b"bcd"]), 4, b"a").read(4) == b"abcd"
    stream = Script([b"bcde"])
    with pytest.raises(MalformedMessageError, match="at most 4"):
        await download_of(stream, 5, b"a").read(4)
    assert stream.is_readable()


async def test_a_chunked_body_is_taken_raw_alone() -> None:
    """Where it ends its own frames say: as a body of some length it would end at once."""
    download = Download(Script([b"cd"]), 200, CHUNKED, b"ab", PEER)
    buffer = memoryview(bytearray(10))
    for take in (download.receive_into(buffer), download.gather(1), download.read()):
        with pytest.raises(MalformedMessageError):
            await take
    assert [await download.receive_raw(buffer[:1]) for _ in range(2)] == [1, 1]
    assert await download.receive_raw(buffer) == 2
    assert not download.is_reusable
    download.finish()
    assert download.is_reusable
