"""What keystores hold of some files, as they tell it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.judge import Held
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid

DEADLINE: Final = 20.0

Answers = Mapping[str, Sequence[Held]]


class Holders(NamedTuple):
    """What came of asking."""

    answers: Answers
    """By keystore, in the order of the files."""
    silent: dict[str, str]
    """Who did not answer, and why."""


async def ask_holders(hospital: Hospital, guids: Sequence[Guid], names: Iterable[str]) -> Holders:
    """Ask keystores, all at once, for what they hold of each of these files."""
    answers: dict[str, list[Held]] = {}
    silent: dict[str, str] = {}

    async def ask(name: str) -> None:
        try:
            answer = await hospital.keystores.collect_from(name, guids, deadline=trio.current_time() + DEADLINE)
        except MdmfsError as error:
            silent[name] = str(error)
        else:
            answers[name] = [Held.parse(guid, *one) for guid, one in zip(guids, answer, strict=True)]

    async with open_plain_nursery() as nursery:
        for name in names:
            nursery.start_soon(ask, name)
    return Holders(answers, silent)
