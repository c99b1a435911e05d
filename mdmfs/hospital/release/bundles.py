"""The files that are let out together, as the frames of a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

from mdmfs.hospital.outward import outward
from mdmfs.hospital.release.arrivals import Released
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import Buffer
from mdmfs.wire.bundle import beginning, end, failed, octets_head
from mdmfs.wire.messages.files import SealedBeginning


async def frames(
    released: AsyncGenerator[tuple[int, Released | MdmfsError] | None], guids: Sequence[Guid]
) -> AsyncGenerator[Buffer]:
    """Write a bundle as its files come; an empty piece means that it may take a while until the next."""
    async with contextlib.aclosing(released):
        async for let_out in released:
            if let_out is None:
                yield b""
                continue
            place, one = let_out
            if isinstance(one, MdmfsError):
                yield failed(place, outward(guids[place], one))
                continue
            async with contextlib.aclosing(_file(place, guids[place], one)) as pieces:
                async for octets in pieces:
                    yield octets
    yield end()


async def _file(place: int, guid: Guid, released: Released) -> AsyncGenerator[Buffer]:
    staged = released.staged
    try:
        reader = staged.open()
    except MdmfsError as error:
        yield failed(place, outward(guid, error))
        return
    try:
        heads = beginning(place, SealedBeginning(staged.size, staged.generation, released.threshold, staged.salt))
        async with contextlib.aclosing(reader.octets(0, staged.size)) as pieces:
            async for octets in pieces:
                if not len(octets):
                    yield b""
                    continue
                yield heads + octets_head(place, len(octets))
                yield octets
                heads = b""
    except MdmfsError as error:
        yield failed(place, outward(guid, error))
    finally:
        reader.close()
