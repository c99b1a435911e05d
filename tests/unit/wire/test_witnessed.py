"""What a keystore keeps of audit logs is asked for page by page, to its end, and not round and round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
import trio

from mdmfs.model.errors import MalformedMessageError
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.keystores import WITNESSED_PATH, AskWitnessed, Witness, Witnessed
from mdmfs.wire.messages.message import Message
from mdmfs.wire.peer import M

NAME = "keystore 1"


def checkpoint(journal: int, number: int) -> Witness:
    """Keep one."""
    return Witness(bytes([journal]) * 16, number, bytes(32), 1.0, bytes(64))


FIRST = [checkpoint(1, 5), checkpoint(1, 6), checkpoint(2, 1)]
SECOND = [checkpoint(2, 2), checkpoint(3, 1)]


class Pages:
    """A keystore that gives these pages, and then the last of them again and again."""

    def __init__(self, *pages: Sequence[Witness]) -> None:
        self._pages = list(pages)
        self.asked: list[AskWitnessed] = []

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """Give the next one."""
        await trio.lowlevel.checkpoint()
        assert (path, reply, deadline) == (WITNESSED_PATH, Witnessed, 1.0)
        self.asked.append(cast("AskWitnessed", message))
        page = self._pages.pop(0) if len(self._pages) > 1 else self._pages[0]
        return cast("M", Witnessed(list(page), is_last=page is SECOND))


async def test_pages_are_asked_for_to_the_last(nursery: trio.Nursery) -> None:
    """Each from where the one before ended; one without anything is the last, whatever it says."""
    pages = Pages(FIRST, SECOND)
    assert await Keystores({NAME: pages}, nursery).witnessed(NAME, deadline=1.0) == FIRST + SECOND
    assert pages.asked == [AskWitnessed(), AskWitnessed(bytes([2]) * 16, 1)]
    assert await Keystores({NAME: Pages(FIRST, [])}, nursery).witnessed(NAME, deadline=1.0) == FIRST


@pytest.mark.parametrize(
    "pages", [[FIRST], [FIRST, FIRST[:1]], [FIRST, FIRST[2:]], [[checkpoint(0, 0)]], [[*reversed(FIRST)]]]
)
async def test_a_keystore_that_tells_the_same_again_is_not_listened_to(
    pages: list[list[Witness]], nursery: trio.Nursery
) -> None:
    """It would fill the memory of whoever verifies a log, as fast as it can send."""
    with pytest.raises(MalformedMessageError, match="does not go on"):
        await Keystores({NAME: Pages(*pages)}, nursery).witnessed(NAME, deadline=1.0)
