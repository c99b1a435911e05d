"""``mdmfs stage``: what is a path and what a query, and one bar for each hospital, whatever hinders it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from mdmfs.cli.stage import Name, Watched, is_query, paths_below, tell_submitted, watch
from mdmfs.model.errors import CredentialExpiredError, MdmfsError, NoSuchFileError, PeerUnreachableError
from mdmfs.model.names import Lfn
from mdmfs.worker.hospital.staging import FileProgress, RequestProgress, Stages, Submitted
from tests.twins.hospital import TwinHospital

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


def test_who_asks_for_more_than_is_granted_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error; what is granted as it was asked for, and a hospital that does not say, need no word."""
    for granted, asked in (("P2D", "P2D"), ("", "P30D"), ("P1D", "")):
        tell_submitted(Submitted("1f", granted), asked)
        assert capsys.readouterr() == ("1f\n", "")
    tell_submitted(Submitted("1f", "P7D"), "P30D")
    told = capsys.readouterr()
    assert told.out == "1f\n"
    assert told.err == "  stays for P7D, the longest that the hospital grants, not P30D\n"


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


async def test_hospitals_are_watched_side_by_side_through_what_hinders_them(
    capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    """A lost network and an ended proxy are sat out; a request that is over is not asked for again."""
    first = ScriptedStages([["STARTED"], PeerUnreachableError("away"), CredentialExpiredError("ended"), [OF_ALL]])
    second = ScriptedStages([[OF_ALL, OF_ALL]])
    assert await watch([Watched("one", first, ["a"]), Watched("two", second, ["b", "c"])]) == 0
    assert (first.asked, second.asked) == (4, 2)
    told = capsys.readouterr()
    assert [line.partition(":")[0] for line in told.out.splitlines()] == ["a", "b", "c"]
    assert "one" in told.err
    assert "two" in told.err


async def test_a_file_that_failed_is_told_at_its_hospital(autojump_clock: trio.testing.MockClock) -> None:
    """And the command says 1."""
    stages = ScriptedStages([["STARTED", "FAILED"], [OF_ALL, "FAILED"]])
    assert await watch([Watched("one", stages, ["a"]), Watched("two", ScriptedStages([[OF_ALL]]), ["b"])]) == 1


async def test_a_series_that_has_gone_since_it_was_found_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """All others are staged, in the order in which they were found; a name that somebody typed has to be there."""
    hospital = TwinHospital()
    there = [Lfn.parse(f"/grid/medical/a/{number:02}") for number in range(20)]
    for lfn in there:
        hospital.add_file(f"{lfn}/1.dcm", b"x")
    gone = Lfn.parse("/grid/medical/a/gone")
    names = [Name(lfn, is_found=True) for lfn in (*there[10:], gone, *there[:10])]
    assert await paths_below(hospital, names) == [f"{lfn}/1.dcm.sealed" for lfn in (*there[10:], *there[:10])]
    assert str(gone) in capsys.readouterr().err
    with pytest.raises(NoSuchFileError, match="no file below /grid/medical/a/gone"):
        await paths_below(hospital, [Name(there[0]), Name(gone)])
