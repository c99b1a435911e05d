"""A nursery whose errors come out as what they are: no ``ExceptionGroup`` crosses an API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from mdmfs.model.errors import MdmfsError


@contextlib.asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery; of what its tasks and its body raise, one error comes out, the others are its context.

    An error that mdmfs raises on purpose goes before all others, because somebody has a sentence for it.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    leaves = _leaves(group)
    wanted = [error for error in leaves if isinstance(error, MdmfsError)]
    errors = [error for error in leaves if isinstance(error, Exception)]
    return (wanted or errors or leaves)[0]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]
