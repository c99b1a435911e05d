"""``mdmfs stage``: what is a path and what a query, and one bar for each hospital, whatever hinders it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdmfs.cli.stage import Watched, is_query, watch
from mdmfs.model.errors import CredentialExpiredError, MdmfsError, PeerUnreachableError
from mdmfs.worker.staging import FileProgress, RequestProgress, Stages

OF_ALL = "COMPLETED"


@pytest.mark.parametrize("text", ['Modality == "MR"', "Age>=60", 'Sex in ("F", "M")', "Age is missing", "not Age<3"])
def test_what_compares_is_a_query(text: str) -> None:
    """As typed, with blanks or without."""
    assert is_query(text)


@pytest.mark.parametrize(
    "text", ["/grid/medical/amc", "./a b", "../x=y", "~/grid/amc", "amc/neuro", "0001.dcm", "/a = b"]
)
def test_what_could_be_a_path_is_one(text: str) -> None:
    """Whether it is there or not: then it is told that there is none."""
    assert not is_query(text)


def test_what_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called."""
    (tmp_path / "Age >= 60").touch()
    monkeypatch.chdir(tmp_path)
    assert not is_query("Age >= 60")
    assert is_query("Age >= 61")


class ScriptedStages(Stages):
    """Answers each question about progress as the script says; the last answer stays."""

    def __init__(self, script: list[list[str] | MdmfsError]) -> None:
        self._script = script
        self.asked = 0

    async def progress(self, request_id: str) -> RequestProgress:
        """Give states, or raise."""
        self.asked += 1
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(step, MdmfsError):
            raise step
        files = [FileProgress(f"{request_id}-{number}", state, size=5) for number, state in enumerate(step)]
        return RequestProgress(request_id, files)


@pytest.mark.usefixtures("autojump_clock")
async def test_hospitals_are_watched_side_by_side_through_what_hinders_them(capsys: pytest.CaptureFixture[str]) -> None:
    """A lost network and an ended proxy are sat out; a request that is over is not asked for again."""
    first = ScriptedStages([["STARTED"], PeerUnreachableError("away"), CredentialExpiredError("ended"), [OF_ALL]])
    second = ScriptedStages([[OF_ALL, OF_ALL]])
    assert await watch([Watched("one", first, ["a"]), Watched("two", second, ["b", "c"])]) == 0
    assert (first.asked, second.asked) == (4, 2)
    told = capsys.readouterr()
    assert [line.partition(":")[0] for line in told.out.splitlines()] == ["a", "b", "c"]
    assert "one" in told.err
    assert "two" in told.err


@pytest.mark.usefixtures("autojump_clock")
async def test_a_file_that_failed_is_told_at_its_hospital() -> None:
    """And the command says 1."""
    stages = ScriptedStages([["STARTED", "FAILED"], [OF_ALL, "FAILED"]])
    assert await watch([Watched("one", stages, ["a"]), Watched("two", ScriptedStages([[OF_ALL]]), ["b"])]) == 1
