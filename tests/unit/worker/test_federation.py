"""One question to three hospitals: one order over all of them, and whoever is silent is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    MalformedMessageError,
    MalformedQueryError,
    MdmfsError,
    PeerTimedOutError,
    PeerUnreachableError,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import Counted, Find, FoundPage, Scalar
from mdmfs.worker.finding.federation import Federation

DEADLINE = 5.0


class TwinHospitalMetadata:
    """Serves rows in the order of ``order by Age desc``, some to a page."""

    def __init__(self, rows: Sequence[tuple[int | None, str]], size: int = 2) -> None:
        self.rows = sorted(rows, key=lambda row: (row[0] is None, -(row[0] or 0), row[1]))
        self.size = size
        self.pause = 0.0
        self.limit: int | None = None
        self.refusal: Exception | None = None
        self.fails_after = 10**9
        self.asked = 0
        self.repeats = False

    async def call(self, path: str, message: Message, reply: type[Any], *, deadline: float) -> Any:  # noqa: ANN401 as asked
        """Answer, late or never where it shall."""
        assert path
        self.asked += 1
        with trio.CancelScope(deadline=deadline):
            await trio.sleep(self.pause)
            if self.refusal is not None or self.asked > self.fails_after:
                raise self.refusal or PeerUnreachableError("gone")
            return Counted(len(self.rows)) if reply is Counted else self.page(message)
        text = "no answer in time"
        raise PeerTimedOutError(text)

    def page(self, asked: Message) -> FoundPage:
        """Give what follows a key."""
        assert isinstance(asked, Find)
        keys: list[tuple[Scalar, ...]] = [tuple(row) for row in self.rows]
        begin = keys.index(asked.after) + 1 if asked.after and not self.repeats else 0
        some = self.rows[begin : begin + self.size]
        return FoundPage(
            ["Age"],
            [[age] for age, _ in some],
            [path for _, path in some],
            [list(row) for row in some],
            [True],
            self.limit,
            begin + self.size >= len(self.rows) and not self.repeats,
        )


A = [(90, "/grid/medical/a/1"), (60, "/grid/medical/a/2"), (60, "/grid/medical/a/3"), (None, "/grid/medical/a/4")]
B = [(75, "/grid/medical/b/1"), (60, "/grid/medical/b/2"), (None, "/grid/medical/b/3")]
C = [(100, "/grid/medical/c/1")]
MERGED = [path for _, path in sorted(A + B + C, key=lambda row: (row[0] is None, -(row[0] or 0), row[1]))]


class Scene:
    """Three hospitals."""

    def __init__(self) -> None:
        self.hospitals = {"a": TwinHospitalMetadata(A), "b": TwinHospitalMetadata(B), "c": TwinHospitalMetadata(C)}
        self.federation = Federation(lambda: self.hospitals, deadline=DEADLINE)

    async def found(self) -> tuple[list[str], dict[str, str]]:
        """Ask, and go through all that comes."""
        async with self.federation.finding("order by Age desc") as found:
            return [row.path async for row in found], found.silent


async def test_ordered_answers_are_merged_in_order(autojump_clock: trio.abc.Clock) -> None:
    """Descending, what is missing last, equal ones by path, over all pages of all hospitals."""
    scene = Scene()
    assert await scene.found() == (MERGED, {})
    assert autojump_clock.current_time() < DEADLINE


async def test_one_dead_and_one_slow_take_nothing_from_the_third_and_are_named(autojump_clock: trio.abc.Clock) -> None:
    """Within the deadline."""
    scene = Scene()
    scene.hospitals["a"].refusal = PeerUnreachableError("nobody listens there")
    scene.hospitals["b"].pause = 1000
    begun = trio.current_time()
    paths, silent = await scene.found()
    assert paths == [path for _, path in C]
    assert silent.keys() == {"a", "b"}
    assert "nobody listens there" in silent["a"]
    assert trio.current_time() - begun <= DEADLINE
    assert autojump_clock is not None


async def test_one_that_dies_in_the_middle_is_named_too(autojump_clock: trio.abc.Clock) -> None:
    """What came of it stays, and the answer is marked."""
    assert autojump_clock is not None
    scene = Scene()
    scene.hospitals["a"].fails_after = 1
    paths, silent = await scene.found()
    assert silent.keys() == {"a"}
    assert paths == [path for path in MERGED if path not in {"/grid/medical/a/3", "/grid/medical/a/4"}]


async def test_a_limit_counts_over_all_hospitals() -> None:
    """Not for each of them."""
    scene = Scene()
    for hospital in scene.hospitals.values():
        hospital.limit = 3
    assert (await scene.found())[0] == MERGED[:3]


async def test_a_question_that_only_some_understand_is_answered_by_those() -> None:
    """One hospital may keep records that another does not have; that one is named, with its reason."""
    scene = Scene()
    scene.hospitals["c"].refusal = MalformedQueryError("column 1: there is no attribute Diagnosis")
    paths, silent = await scene.found()
    assert paths == [path for path in MERGED if path != "/grid/medical/c/1"]
    assert "column 1" in silent["c"]


async def test_a_question_that_nobody_understands_is_an_error_with_its_column() -> None:
    """Not an empty answer."""
    scene = Scene()
    for hospital in scene.hospitals.values():
        hospital.refusal = MalformedQueryError("column 5: equal is written ==")
    with pytest.raises(MalformedQueryError, match="column 5"):
        await scene.found()
    with pytest.raises(MalformedQueryError, match="column 5"):
        await scene.federation.count("Age = 1")


@pytest.mark.parametrize("kind", [CredentialExpiredError, CredentialRefusedError])
async def test_a_credential_that_nobody_takes_is_no_outage(kind: type[MdmfsError]) -> None:
    """Who asks hears what to do; where one has answered, or one is away, the others are named as silent."""
    scene = Scene()
    for hospital in scene.hospitals.values():
        hospital.refusal = kind("the proxy has expired")
    with pytest.raises(kind, match="the proxy has expired"):
        await scene.found()
    with pytest.raises(kind, match="the proxy has expired"):
        await scene.federation.count("")
    scene.hospitals["a"].refusal = PeerUnreachableError("nobody listens there")
    assert (await scene.found())[1].keys() == {"a", "b", "c"}
    scene.hospitals["a"].refusal = None
    paths, silent = await scene.found()
    assert (len(paths), silent.keys()) == (len(A), {"b", "c"})


async def test_where_nobody_answers_nothing_is_counted() -> None:
    """A 0 would be believed."""
    scene = Scene()
    for hospital in scene.hospitals.values():
        hospital.refusal = PeerUnreachableError("nobody listens there")
    with pytest.raises(PeerTimedOutError, match="no metadata service answered"):
        await scene.federation.count("")


async def test_counts_are_added_and_the_silent_named(autojump_clock: trio.abc.Clock) -> None:
    """A sum without one of them says so."""
    assert autojump_clock is not None
    scene = Scene()
    scene.hospitals["a"].pause = 1000
    count, silent = await scene.federation.count("")
    assert (count, silent.keys()) == (len(B) + len(C), {"a"})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda page: FoundPage(page.columns, page.rows, page.paths[1:], page.keys, page.descending, None, page.is_last),
        lambda page: FoundPage(page.columns, [], [], [], page.descending, None, is_last=False),
        lambda page: FoundPage(
            page.columns, page.rows, page.paths, page.keys[:-1], page.descending, None, page.is_last
        ),
    ],
)
async def test_a_page_that_cannot_be_ends_that_hospitals_answer(spoil: Callable[[FoundPage], FoundPage]) -> None:
    """A hostile service cannot break the others' answer."""

    class Hostile(TwinHospitalMetadata):
        def page(self, asked: Message) -> FoundPage:
            return spoil(super().page(asked))

    scene = Scene()
    scene.hospitals["a"] = Hostile(A)
    paths, silent = await scene.found()
    assert paths == [path for path in MERGED if "/a/" not in path]
    assert silent.keys() == {"a"}


async def test_a_service_that_sends_the_same_page_for_ever_is_found_out() -> None:
    """It would never end."""
    scene = Scene()
    scene.hospitals["a"].repeats = True
    _, silent = await scene.found()
    assert "same page" in silent["a"]
    assert issubclass(MalformedMessageError, Exception)
