"""A nursery whose errors come out as what they are: no ``ExceptionGroup`` crosses an API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from mdmfs.model.errors import MdmfsError


@contextlib.asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery; of what its tasks and its body raise, one error comes out, the others are its context.

    What ends the process (Ctrl-C, ``SystemExit``) goes before all others, then an error that mdmfs raises on purpose,
    because somebody has a sentence for it. Its cause stays.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        first = _first(group)
        raise first from first.__cause__


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    leaves = _leaves(group)
    ends = [error for error in leaves if not isinstance(error, Exception | trio.Cancelled)]
    wanted = [error for error in leaves if isinstance(error, MdmfsError)]
    errors = [error for error in leaves if isinstance(error, Exception)]
    return (ends or wanted or errors or leaves)[0]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]
