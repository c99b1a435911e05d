"""Files of records: rows come one after another, whatever their number, and a file that breaks off says where."""

from __future__ import annotations

import csv
import io
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mdmfs.cli.record import CollectionFile, Report
from mdmfs.cli.rows import BATCH, MAX_CHARACTERS, batches, read_rows
from mdmfs.model.errors import ConfigurationError, NameTakenError
from mdmfs.wire.messages.records import PatientRecord

FILE = CollectionFile("neuro", "followup", [], issuer="AMC")
COLUMNS = {"grade": "Grade", "remark": "Remark"}
SECRET = "Mustermann"  # noqa: S105 a name


class Endless(io.RawIOBase):
    """A file that is made as it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Give what comes next."""
        while not self._left:
            following = next(self._pieces, None)
            if following is None:
                return 0
            self._left = following
        some, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(some)] = some
        return len(some)


def read(text: str, form: str) -> list[tuple[int, PatientRecord | None]]:
    """Read a whole file."""
    return [tuple(row) for row in read_rows(io.StringIO(text), form, FILE, COLUMNS)]  # type: ignore[misc]


def lines(count: int) -> Iterator[bytes]:
    """Make a long CSV."""
    yield b"patient_id,grade,remark\n"
    for number in range(count):
        yield b"P%d,%d,%s\n" % (number, number % 5, b"x" * 200)


def objects(count: int) -> Iterator[bytes]:
    """Make a long list."""
    for number in range(count):
        told = json.dumps({"patient_id": f"P{number}", "grade": number % 5, "remark": "x" * 200}).encode()
        yield (b"[" if number == 0 else b",\n") + told
    yield b"]"


def peak_of(form: str, pieces: Iterator[bytes], count: int) -> int:
    """Tell how many bytes were held at most while so many rows were read."""
    text = io.TextIOWrapper(io.BufferedReader(Endless(pieces)), encoding="utf-8")
    tracemalloc.start()
    assert sum(len(batch) for batch in batches(read_rows(text, form, FILE, COLUMNS))) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(("form", "made"), [("csv", lines), ("json", objects)])
def test_a_long_file_is_never_in_memory(form: str, made: Callable[[int], Iterator[bytes]]) -> None:
    """Three batches need the memory that twelve need; a million rows are as many turns of the same."""
    few, many = (peak_of(form, made(count), count) for count in (3 * BATCH, 12 * BATCH))
    assert many < 1.3 * few


@pytest.mark.parametrize("seed", range(8))
def test_both_forms_say_the_same_wherever_pieces_of_the_file_end(seed: int) -> None:
    """Texts with commas, quotes, brackets, line ends and signs of every plane."""
    draw = random.Random(seed)  # noqa: S311 a seed
    given = [
        {"patient_id": f"P{n}", "remark": "".join(draw.choices('a,"\n]}\\{[é\U0001f9e0', k=draw.randrange(1, 40)))}
        for n in range(draw.randrange(30))
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["patient_id", "remark"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(given)
    wanted = [(one["patient_id"], one["remark"]) for one in given]
    for form, text in (("csv", out.getvalue()), ("json", json.dumps(given, indent=draw.choice([None, 2])))):
        pieces = (octet.to_bytes() for octet in text.encode())
        source = io.TextIOWrapper(io.BufferedReader(Endless(pieces), 16), encoding="utf-8", newline="")
        rows = [row.record for row in read_rows(source, form, FILE, COLUMNS)]
        assert [(row.patient_id, row.values["Remark"]) for row in rows if row is not None] == wanted


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("csv", f'patient_id,grade\nP1,1\nP2,"{SECRET}', "behind row 2"),
        ("csv", f'patient_id,remark\nP1,"{"x" * MAX_CHARACTERS}{SECRET}"\n', "behind row 0"),
        ("json", "", "a JSON file holds a list"),
        ("json", '{"patient_id": "P1"}', "a JSON file holds a list"),
        ("json", f'[{{"patient_id": "P1"}}, {{"{SECRET}', "element 2 does not end"),
        ("json", f'[{{"patient_id": "P1"}} {{"{SECRET}": 1}}]', "behind element 1"),
        ("json", f'[{{"patient_id": "P1"}}, "{SECRET}"]', "element 2 is no object"),
        ("json", f'[{{"patient_id": ["{SECRET}"]}}]', "element 1 is no object"),
        ("json", f'["{"x" * MAX_CHARACTERS}{SECRET}', "element 1 "),
        ("json", "[" * 100_000, "no JSON"),
        ("json", "[" + "9" * 5000 + "]", "no JSON"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_not_what(form: str, text: str, said: str) -> None:
    """However it breaks off, in bounded memory."""
    with pytest.raises(ConfigurationError, match=said) as refused:
        read(text, form)
    assert SECRET not in str(refused.value)
    assert "were taken" in str(refused.value)


def test_a_row_without_a_patient_is_one_refused_row() -> None:
    """The others are read."""
    found = read('patient_id,grade\nP1,1\n,2\n" ",3\nP4,4\n', "csv")
    assert [(number, record is None) for number, record in found] == [(2, False), (3, True), (4, True), (5, False)]
    found = read('[{"patient_id": 7}, {"grade": 1}, {"patient_id": true}]', "json")
    assert [record is None for _, record in found] == [False, True, True]
    assert read("[ ]", "json") == []


def test_what_goes_together_fits_into_a_message() -> None:
    """By number, and by length."""
    small = list(batches(read_rows(io.StringIO(b"".join(lines(BATCH + 1)).decode()), "csv", FILE, COLUMNS)))
    assert [len(batch) for batch in small] == [BATCH, 1]
    large = [{"patient_id": "P", "remark": "x" * (4 * 2**20)} for _ in range(3)]
    assert [len(b) for b in batches(read_rows(io.StringIO(json.dumps(large)), "json", FILE, COLUMNS))] == [2, 1]


def test_refused_rows_are_written_as_they_come(tmp_path: Path) -> None:
    """To a new file that is its owner's alone."""
    path = tmp_path / "report"
    with Report(path) as report:
        for number, reason in ((2, ""), (3, "no patient_id"), (4, "")):
            report.note(number, reason)
    assert path.read_text() == "3\tno patient_id\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (report.rows, report.reasons) == (3, {"no patient_id": 1})
    with pytest.raises(NameTakenError, match="there already"), Report(path):
        pass
