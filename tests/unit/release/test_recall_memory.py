"""What a recall found is remembered: a reader who asks again hears why, and a transfer that was cut goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from mdmfs.hospital.release.recall import MEMORY_SECONDS
from mdmfs.model.errors import InstanceChangedError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import GENERATION_HEADER, SEALED_PATH, THRESHOLD_HEADER
from mdmfs.wire.service import Request, StreamReply
from mdmfs.wire.stream import Address
from tests.twins.clinic import READER, Clinic, OpenClinic, sealed_octets, slice_of

SIZE = 2200
"""Rows and columns: more than two segments of 4 MiB, so that the end is found out after the beginning has gone out."""


async def test_an_instance_that_changed_late_is_refused_at_once_when_it_is_asked_for_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The stream is cut, the second question names the reason, and the PACS is left alone for some time."""
    autojump_clock.autojump_threshold = 0.1
    clinic = Clinic(tmp_path, [slice_of(1, size=SIZE)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        pixels = bytearray(clinic.pacs.held[0].PixelData)
        pixels[-1] ^= 1
        clinic.pacs.held[0].PixelData = bytes(pixels)
        before = clinic.pacs.recalls
        with pytest.raises(InstanceChangedError):
            await sealed_octets(await hospital.release(guid))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            with pytest.raises(InstanceChangedError):
                await hospital.release(guid)
        assert clinic.pacs.recalls == before + 1
        pixels[-1] ^= 1
        clinic.pacs.held[0].PixelData = bytes(pixels)
        await trio.sleep(MEMORY_SECONDS)
        assert len(await sealed_octets(await hospital.release(guid))) > SIZE * SIZE
        assert clinic.pacs.recalls == before + 2


async def test_the_rest_of_a_sealing_is_given_to_who_has_its_beginning_and_to_nobody_else(tmp_path: Path) -> None:
    """Another sealing is sent whole: no chunk of one ever follows chunks of the other."""
    clinic = Clinic(tmp_path, [slice_of(1)])
    async with clinic.open() as hospital:
        await hospital.harvest()
        (guid,) = hospital.files().values()
        whole = await _get(hospital, guid, {})
        octets = await _octets(whole)
        assert (whole.status, whole.length, octets[:24].hex()) == (200, len(octets), whole.etag)
        assert (whole.headers[GENERATION_HEADER], whole.headers[THRESHOLD_HEADER]) == ("1", "2")
        same = {"if-range": f'"{whole.etag}"'}
        rest = await _get(hospital, guid, {"range": "bytes=1000-", **same})
        assert await _octets(rest) == octets[1000:]
        assert (rest.status, rest.length) == (206, len(octets) - 1000)
        assert rest.headers["content-range"] == f"bytes 1000-{len(octets) - 1}/{len(octets)}"
        for other in (
            {"range": "bytes=1000-"},
            {"range": "bytes=1000-", "if-range": f'"{"0" * 48}"'},
            {"range": f"bytes={len(octets)}-", **same},
            {"range": "bytes=-5", **same},
            {"range": "bytes=1-5,7-9", **same},
        ):
            answer = await _get(hospital, guid, other)
            assert (answer.status, await _octets(answer)) == (200, octets)


async def _get(hospital: OpenClinic, guid: Guid, headers: dict[str, str]) -> StreamReply:
    async def no_body() -> bytes:
        raise AssertionError

    answer = await hospital.face.answer(
        Request("GET", SEALED_PATH + str(guid), headers, READER, Address("192.0.2.7", 1), no_body)
    )
    assert isinstance(answer, StreamReply)
    return answer


async def _octets(answer: StreamReply) -> bytes:
    return b"".join([bytes(piece) async for piece in answer.chunks])
