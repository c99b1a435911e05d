"""``mdmfs deidentify`` and ``mdmfs policy explain``: whole files or none, and no value anywhere."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pydicom
import pytest
from click.testing import CliRunner

from mdmfs.cli.deidentify import Run, deidentify_files
from mdmfs.cli.policy import policy
from mdmfs.hospital.deid.encode import encode, head
from mdmfs.model.errors import ConfigurationError, NameTakenError, UnusableFileError
from tests.twins.deidentified import RESEARCH, example, with_elements
from tests.twins.planted import Kind, find_planted, planted_file


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a directory of two images of one patient, one of another, a text and a file that is cut off."""
    source = tmp_path / "Doe^Jane"
    (source / "below").mkdir(parents=True)
    for name, uid in (("1", b"1.2.3.4.5.1"), ("below/2", b"1.2.3.4.5.2")):
        file = with_elements(encode(head(0x00080018, b"UI"), uid, b"\0"))
        (source / name).write_bytes(file.replace(b"1.2.3.4.5.1\0", uid + b"\0", 1))
    other = encode(head(0x00100020, b"LO"), b"H7654321")
    third = with_elements(other, encode(head(0x00080018, b"UI"), b"1.2.3.4.5.3", b"\0"))
    (source / "3").write_bytes(third.replace(b"1.2.3.4.5.1\0", b"1.2.3.4.5.3\0", 1))
    (source / "notes.txt").write_text("Jane Doe was here")
    (source / "cut").write_bytes(example()[:-10])
    return source


def run(*arguments: object) -> str:
    """Run the command; what it raises comes through."""
    result = CliRunner().invoke(deidentify_files, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_directory_becomes_files_named_by_pseudonyms(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """One directory a patient; what is refused is counted by reason; the report has digests."""
    report = tmp_path / "report.json"
    told = run(folder, "-o", tmp_path / "out", "--policy", "research", "--report", report)
    outputs = sorted((tmp_path / "out").rglob("*.dcm"))
    assert "3 of 5 files de-identified, policy research" in told
    assert "1 not: not-dicom" in told
    assert "1 not: truncated" in told
    assert "throw-away" in told
    assert "not anonymous" in told
    assert "Doe" not in told
    assert len({path.parent for path in outputs}) == 2
    assert {pydicom.dcmread(path).PatientID for path in outputs} == {path.parent.name for path in outputs}
    files = json.loads(report.read_text())["files"]
    written = {file["output"]: file["sha256"] for file in files if "output" in file}
    assert written == {
        str(path.relative_to(tmp_path / "out")): hashlib.sha256(path.read_bytes()).hexdigest() for path in outputs
    }
    assert report.stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_single_file_comes_out_clean(tmp_path: pathlib.Path) -> None:
    """The same engine as the daemon's, with its gate."""
    file, tokens = planted_file(Kind.CT)
    (tmp_path / "in.dcm").write_bytes(file)
    run(tmp_path / "in.dcm", "-o", tmp_path / "out", "--policy", "strict")
    (path,) = (tmp_path / "out").rglob("*.dcm")
    assert find_planted(path.read_bytes(), tokens) == []


def test_one_instance_twice_is_written_once(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What is there stays."""
    (folder / "again").write_bytes((folder / "1").read_bytes())
    told = run(folder, "-o", tmp_path / "out", "--policy", "research")
    assert "1 not: already-there" in told
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 3


def test_a_source_that_cannot_be_opened_does_not_end_the_run(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Such as one that was moved away meanwhile: it is told, and the next one is taken."""
    run = Run(RESEARCH, tmp_path / "out")
    assert run.take(folder / "moved.dcm").reason == "unreadable"
    assert run.take(folder / "1").output


def test_outputs_do_not_lie_among_sources(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The next run would take them for images of patients."""
    with pytest.raises(ConfigurationError, match="which is read"):
        run(folder, "-o", folder / "out", "--policy", "research")
    (tmp_path / "report").write_text("")
    with pytest.raises(NameTakenError, match="already"):
        run(folder, "-o", tmp_path / "out", "--policy", "research", "--report", tmp_path / "report")
    with pytest.raises(UnusableFileError, match="cannot be used"):
        run(folder, "-o", tmp_path / "more", "--policy", "research", "--report", tmp_path / "no" / "report")


def test_a_directory_that_cannot_be_written_to_ends_the_run(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A file stands where the output directory should be."""
    (tmp_path / "out").write_text("")
    with pytest.raises(UnusableFileError, match=r"out/sub-.* cannot be used: Not a directory"):
        run(folder, "-o", tmp_path / "out", "--policy", "research")


def explained(file: bytes, name: str, folder: pathlib.Path) -> tuple[str, int]:
    """Explain a file; gives what is printed, and the exit code."""
    (folder / "in.dcm").write_bytes(file)
    result = CliRunner().invoke(policy, ["explain", str(folder / "in.dcm"), "--policy", name], catch_exceptions=False)
    return result.stdout, result.exit_code


def test_a_policy_is_explained_element_by_element(tmp_path: pathlib.Path) -> None:
    """Effect and clause, at every depth, and no planted value."""
    file, tokens = planted_file(Kind.CT)
    text, code = explained(file, "research", tmp_path)
    assert code == 0
    assert find_planted(text.encode(), tokens) == []
    lines = {line.split()[0]: line for line in reversed(text.splitlines()) if line.startswith("(")}
    for tag, *words in (
        ("(0010,0010)", "changed", "Basic Profile: Z"),
        ("(0010,0020)", "changed", "Basic Profile"),
        ("(0008,0020)", "changed", "E.3.6"),
        ("(0008,0080)", "removed", "Basic Profile"),
        ("(0008,0008)", "kept", "ours"),
        ("(0019,100a)", "kept", "E.3.10"),
        ("(0011,1001)", "removed", "Private"),
        ("(6000,3000)", "removed", "Overlay"),
        ("(0008,0005)", "removed", "ASCII"),
        ("(0008,0ff0)", "removed", "not in PS3.6"),
        ("(0028,0010)", "kept", "ours"),
        ("(0008,0050)", "emptied", "Basic Profile: Z"),
    ):
        assert all(word in lines[tag] for word in words), lines[tag]
    assert "\n  (0010,0010)" in text


def test_a_refusal_is_explained_too(tmp_path: pathlib.Path) -> None:
    """By its name, behind the elements where there are rules for the class."""
    text, code = explained(with_elements(encode(head(0x00280301, b"CS"), b"YES")), "strict", tmp_path)
    assert code == 1
    assert text.splitlines()[-1].endswith("burned-in-annotation at (0028,0301)")
    assert len(text.splitlines()) > 10
    text, code = explained(with_elements(encode(head(0x00080016, b"UI"), b"1.2.840.10008.1.1")), "strict", tmp_path)
    assert code == 1
