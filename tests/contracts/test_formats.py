"""Every store carries the number of its format: a newer one is refused untouched, an older one brought up to date."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from mdmfs.daemon.formats import Format
from mdmfs.hospital.kept.audit import records_of
from mdmfs.journal.chain import Verifier
from mdmfs.journal.files import lines_of
from mdmfs.model.errors import StoreError
from tests.twins.formats import KEPT, Kept

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(name="kept", params=sorted(KEPT))
def each_kind(request: pytest.FixtureRequest) -> Kept:
    """Give one kind of store after the other."""
    return KEPT[request.param]


def formats_of(kept: Kept, steps: int) -> Format[object]:
    """Give the format after so many steps, each of which leaves a trace."""
    return Format("thing", *[kept.leave] * steps, oldest=kept.oldest)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Read all files, but for LMDB's lock."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock.mdb"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_older_store_is_brought_up_step_by_step_and_once(kept: Kept, tmp_path: pathlib.Path) -> None:
    """Each step is taken once, however often the store is opened then; a new one needs none."""
    kept.open(tmp_path / "store", formats_of(kept, 0))
    assert (kept.mark(tmp_path / "store"), kept.traces(tmp_path / "store")) == (kept.oldest, 0)
    for _ in range(2):
        kept.open(tmp_path / "store", formats_of(kept, 2))
        assert kept.mark(tmp_path / "store") == kept.oldest + 2
        assert kept.traces(tmp_path / "store") in {0, 2}  # of an audit log nothing is changed
    kept.open(tmp_path / "store", formats_of(kept, 3))
    assert kept.mark(tmp_path / "store") == kept.oldest + 3


def test_a_newer_store_is_refused_by_name_and_not_touched(kept: Kept, tmp_path: pathlib.Path) -> None:
    """The error names it, tells both numbers and what to do; whoever wrote it opens it again."""
    kept.open(tmp_path / "store", formats_of(kept, 0))
    kept.open(tmp_path / "store", formats_of(kept, 1))
    before = content(tmp_path)
    with pytest.raises(StoreError, match=rf"of format {kept.oldest + 1}, .* none after {kept.oldest}: nothing"):
        kept.open(tmp_path / "store", formats_of(kept, 0))
    assert content(tmp_path) == before
    kept.open(tmp_path / "store", formats_of(kept, 1))


@pytest.mark.parametrize("number", [1, 10**7])
def test_a_number_that_is_not_known_opens_nothing(kept: Kept, tmp_path: pathlib.Path, number: int) -> None:
    """Neither from before the first format that this program knows nor from a far future."""
    kept = kept._replace(oldest=2)
    kept.open(tmp_path / "store", formats_of(kept, 1))
    kept.write_mark(tmp_path / "store", number)
    with pytest.raises(StoreError, match=f"format {number}"):
        kept.open(tmp_path / "store", formats_of(kept, 1))


def test_a_kill_in_the_middle_of_a_step_leaves_the_step_before(tmp_path: pathlib.Path) -> None:
    """The mark says truly how far it came; the next start takes what is missing, and nothing twice."""
    changing = {name: kept for name, kept in KEPT.items() if name != "audit"}
    for name, kept in changing.items():
        (tmp_path / name).mkdir()
        kept.open(tmp_path / name / "store", formats_of(kept, 0))
    program = [sys.executable, "-m", "tests.twins.formats", str(tmp_path), *changing]
    subprocess.run(program, cwd=REPOSITORY, check=True)
    for name, kept in changing.items():
        store = tmp_path / name / "store"
        assert (name, kept.mark(store)) == (name, 2)
        kept.open(store, formats_of(kept, 2))
        assert (name, kept.mark(store), kept.traces(store)) == (name, 3, 2)


def test_an_audit_log_goes_on_in_a_new_file_that_tells_its_format(tmp_path: pathlib.Path) -> None:
    """Nothing that was recorded is changed, the chain holds, and a kill before the new file's first line is no harm."""
    kept = KEPT["audit"]
    kept.open(tmp_path / "store", formats_of(kept, 0))
    before = (tmp_path / "store" / "audit.jsonl").read_bytes()
    (tmp_path / "store" / "audit.jsonl").rename(tmp_path / "store" / f"audit.{1:012}.jsonl")
    kept.open(tmp_path / "store", formats_of(kept, 1))
    assert (tmp_path / "store" / f"audit.{1:012}.jsonl").read_bytes() == before
    verifier = Verifier()
    assert not [fault for line in lines_of(tmp_path / "store" / "audit.jsonl") for fault in verifier.follow(line)]
    assert [record.format for record in records_of(tmp_path / "store" / "audit.jsonl")] == [2, 3]


@pytest.mark.parametrize("name", sorted(KEPT.keys() - {"audit"}))
def test_a_step_that_fails_undoes_itself(name: str, tmp_path: pathlib.Path) -> None:
    """A full disk leaves the store of the format before; of an audit log nothing is changed anyway."""
    kept = KEPT[name]
    kept.open(tmp_path / "store", formats_of(kept, 0))

    def fail(store: object) -> None:
        kept.leave(store)
        message = "no room"
        raise StoreError(message)

    with pytest.raises(StoreError, match="no room"):
        kept.open(tmp_path / "store", Format("thing", fail, oldest=kept.oldest))
    assert kept.mark(tmp_path / "store") == kept.oldest
    kept.open(tmp_path / "store", formats_of(kept, 1))
    assert (kept.mark(tmp_path / "store"), kept.traces(tmp_path / "store")) == (kept.oldest + 1, 1)
