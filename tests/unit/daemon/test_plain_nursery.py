"""A nursery whose errors come out one by one, the one that somebody has a sentence for first."""

from __future__ import annotations

import pytest
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import MdmfsError, StoreError


async def fail(error: BaseException, cause: Exception | None = None) -> None:
    """Raise an error."""
    await trio.lowlevel.checkpoint()
    raise error from cause


async def test_nothing_wrong_is_nothing_raised() -> None:
    """And what runs is waited for."""
    done = []

    async def work() -> None:
        await trio.sleep(0.01)
        done.append(1)

    async with open_plain_nursery() as nursery:
        nursery.start_soon(work)
    assert done


async def test_an_error_comes_out_bare_with_its_cause() -> None:
    """From a task as from the body."""
    cause = OSError("the disk")
    with pytest.raises(StoreError) as raised:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail, StoreError("full"), cause)
    assert raised.value.__cause__ is cause
    with pytest.raises(KeyError):
        async with open_plain_nursery():
            raise KeyError


async def test_what_was_raised_on_purpose_goes_first() -> None:
    """Before a mistake of the program that it may have caused."""

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    for _ in range(5):
        with pytest.raises(MdmfsError):  # noqa: PT012 the nursery is what raises
            async with open_plain_nursery() as nursery:
                nursery.start_soon(fail_late)
                nursery.start_soon(fail, StoreError("full"))


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
async def test_the_end_of_the_process_goes_before_everything(end: type[BaseException]) -> None:
    """Ctrl-C is not lost in an error that it meets."""

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            message = "closed while writing"
            raise StoreError(message)

    with pytest.raises(end):  # noqa: PT012 the nursery is what raises
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail_late)
            nursery.start_soon(fail, end())


async def test_a_cancelled_scope_stays_cancelled() -> None:
    """Leaving by cancellation raises nothing outside the scope."""
    with trio.move_on_after(0.01) as scope:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
    assert scope.cancelled_caught
