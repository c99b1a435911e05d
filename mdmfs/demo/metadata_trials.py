"""The trials of ``mdmfs demo --check`` that are about the metadata service: what is found, and what is told with it."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mdmfs.demo.ground import PROGRAM_SECONDS, RECOVERY_SECONDS, Ground, copy_logs, expect, files_with
from mdmfs.demo.patients import included_patients, planted_octets
from mdmfs.demo.people import PEOPLE, Person
from mdmfs.demo.site import PROJECT, READER, STRANGER, Site

Commands = Mapping[str, Sequence[str]]
"""What is typed behind ``mdmfs``, each under a name."""

SNAPSHOT: Final = "trial"
QUERIES: Final = ("limit 99", 'Modality == "CT" order by StudyDate desc', 'Diagnosis == "glioma" and Grade == 4')
_WRONG: Final = ('Diagnosis == "glioma', "StudyDate == 3", "Remark is missing", "Nothing == 1")
_COLLECTION: Final = f"""\
project = "{PROJECT}"
name = "followup"
issuer = "ISSUER"
key = ["Visit"]
readers = ["READER"]
attributes = [
    {{ name = "Visit", type = "integer" }},
    {{ name = "Diagnosis", type = "text" }},
    {{ name = "Grade", type = "integer" }},
    {{ name = "Seen", type = "date" }},
    {{ name = "Remark", type = "note" }},
    {{ name = "Letter", type = "attachment" }},
]
"""
_SAID: Final = {
    "find-json-0": b'"Modality"',
    "find-csv-1": b",CT,",
    "find-table-1": b"StudyDate",
    "explain-2": b"SELECT",
    "wrong-3": b"column 1",
    "snapshot-list": b"glioma",
    "record-import": b"looks like",
    "directories": b"manifest",
    "database": b"glioma",
}
"""What stands in some of all that is said, so that something was searched."""
_EACH: Final = """
import contextlib, io, json, pathlib, sys
from mdmfs.cli.main import cli
from mdmfs.cli.output import run
codes = {}
for name, words in json.load(sys.stdin).items():
    octets = io.BytesIO()
    said = io.TextIOWrapper(octets, "utf-8")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            codes[name] = run(cli, words)
        except SystemExit as ended:
            codes[name] = ended.code
    said.flush()
    pathlib.Path(sys.argv[1], name).write_bytes(octets.getvalue())
print(json.dumps(codes))
"""
"""Runs commands one after the other in one process, and keeps what each says in a file."""


def attributes_find_images(ground: Ground) -> str:
    """Ask for series by what their headers say, as the reader and as the stranger; kill the service and ask again."""
    reader = ["--configuration", str(ground.site.mount_file(READER))]
    by_name = {path.parent for path in ground.files()}
    everything = _found("", *reader)
    expect(len(everything) == len(by_name), f"{len(everything)} series are found and {len(by_name)} are on the mount")
    wanted = {
        f"{path.parent.parent.name}/{path.parent.name}" for path in ground.files() if path.parent.name[-2:] == "CT"
    }
    told = _found('Modality == "CT" and Rows == 512 order by StudyDate desc', *reader)
    expect({"/".join(one.split("/")[-2:]) for one in told} <= wanted and bool(told), f"CT series: {told}")
    stranger = ["--configuration", str(ground.site.mount_file(STRANGER))]
    expect(not _found("", *stranger), "the stranger finds something")
    ground.processes.stop("metadata", signal.SIGKILL)
    try:
        refused = _mdmfs("find", "", "--timeout", "2", *reader)
        expect(refused.returncode != 0 and "no metadata service answered" in refused.stderr, refused.stderr[:200])
    finally:
        ground.processes.start_metadata()
    begun = time.monotonic()
    while _mdmfs("find", "", *reader).stdout.split() != everything:
        expect(time.monotonic() - begun < RECOVERY_SECONDS, "it does not come back after kill -9")
    back = time.monotonic() - begun
    return f"{len(everything)} series, {len(told)} by a query; the stranger none; back after {back:.1f} s"


def finding_tells_nothing(ground: Ground) -> str:
    """Import records of the planted patients, look at everything in every way, and search all that was said."""
    site = ground.site
    planted = planted_in_records()
    with tempfile.TemporaryDirectory() as folder:
        said = pathlib.Path(folder)
        taken, refused = import_planted(site, said)
        ways = look_at_everything(site.mount_file(READER), ground.mountpoint, said)
        copy_logs(site, said)
        (said / "database").write_bytes(_dumped(site))
        found = files_with(planted, [said, site.state / "metadata", site.state / "worker"])
        expect(not found, f"planted values in {found[:5]}")
        for name, there in _SAID.items():
            expect(there in (said / name).read_bytes(), f"{name} does not say {there!r}: there was nothing to search")
    return f"{len(planted)} values in none of {ways} ways to look; {taken} records taken, {refused} rows refused"


def planted_in_records() -> frozenset[bytes]:
    """List what is planted in images and records: dates also as databases write them."""
    days = {day for person in PEOPLE for day in (person.birth_date, person.study_date)}
    return planted_octets() | {dt.datetime.strptime(day, "%Y%m%d").date().isoformat().encode() for day in days}  # noqa: DTZ007 a day has no zone


def import_planted(site: Site, said: pathlib.Path) -> tuple[int, int]:
    """Import records as an operator does, with identifiers wherever a row has room; gives how many were taken."""
    people = [one for one in PEOPLE if any(one.patient_id == known.patient_id for known in included_patients())]
    people = [one for one in people if one.issuer == people[0].issuer]
    collection = site.state / "hospital" / "followup.toml"
    reader = str(site.pki.dns[READER])
    collection.write_text(_COLLECTION.replace("ISSUER", people[0].issuer).replace("READER", reader), encoding="utf-8")
    rows = site.state / "hospital" / "followup.json"
    taken, refused = [_good(person) for person in people], [row for person in people for row in _bad(person)]
    rows.write_text(json.dumps([*taken, *refused]), encoding="utf-8")
    configuration = str(site.hospital_file)
    commands = {
        "record-define": ("record", "define", configuration, str(collection)),
        "record-import": (
            *("record", "import", configuration, str(collection), str(rows), "--format", "json"),
            *("--report", str(said / "record-report")),
        ),
    }
    codes = run_each(commands, said)
    expect(codes == {"record-define": 0, "record-import": 1}, f"records are not imported: {codes}")
    told = (said / "record-report").read_text(encoding="utf-8").splitlines()
    wanted = [str(number) for number in range(len(taken) + 1, len(taken) + len(refused) + 1)]
    expect([line.split("\t")[0] for line in told] == wanted, f"rows of identifiers are taken, refused are {told}")
    return len(taken), len(refused)


def look_at_everything(
    mount_file: pathlib.Path, mountpoint: pathlib.Path, said: pathlib.Path, queries: Sequence[str] = QUERIES
) -> int:
    """Ask in every format, explain, err, freeze and list, as a mount's user; gives how many files ``said`` has then."""
    end = ("--configuration", str(mount_file))
    commands: dict[str, Sequence[str]] = {
        f"find-{form}-{number}": ("find", query, "--format", form, *end)
        for number, query in enumerate(queries)
        for form in ("paths", "json", "csv", "table")
    }
    for number, query in enumerate(queries):
        commands[f"images-{number}"] = ("find", query, "--images", "--format", "json", *end)
        commands[f"count-{number}"] = ("find", query, "--count", *end)
        commands[f"explain-{number}"] = ("find", query, "--explain", "--images", *end)
    commands["schema"] = ("find", "", "--schema", *end)
    commands["snapshot-create"] = ("snapshot", "create", SNAPSHOT, queries[-1], *end)
    commands["snapshot-list"] = ("snapshot", "list", "--json", *end)
    codes = run_each(commands, said)
    expect(set(codes.values()) == {0}, f"commands fail: {[name for name, code in codes.items() if code]}")
    run_each({f"wrong-{number}": ("find", query, *end) for number, query in enumerate(_WRONG)}, said)
    places = [mountpoint / ".find" / query for query in queries]
    lines = [line for place in (*places, mountpoint / ".snapshots") for line in _walked(place)]
    (said / "directories").write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    run_each({"snapshot-drop": ("snapshot", "drop", SNAPSHOT, *end)}, said)
    return sum(1 for path in said.rglob("*") if path.is_file())


def run_each(commands: Commands, said: pathlib.Path) -> dict[str, int]:
    """Run commands, what each says going into a file of its name; gives how each ended."""
    done = subprocess.run(  # noqa: S603 our own program
        [sys.executable, "-c", _EACH, str(said)],
        check=True,
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PROGRAM_SECONDS,
        env={**os.environ, "COLUMNS": "1000"},
    )
    codes: dict[str, int] = json.loads(done.stdout)
    return codes


def _good(person: Person) -> dict[str, object]:
    """Write a row with all that a hospital's table may have; only named columns are taken, text is sealed."""
    talk = f"{person.given} {person.family}, {person.telephone}, {person.birth_date}"
    beside = {name: getattr(person, name) for name in ("name", "address", "birth_date", "accession", "referring")}
    values = {"Visit": 1, "Diagnosis": "glioma", "Grade": 4, "Seen": person.study_date}
    letter = base64.b64encode(f"{talk}, {person.address}".encode()).decode()
    return {"patient_id": person.patient_id, **beside, **values, "Remark": f"Spoke with {talk}", "Letter": letter}


def _bad(person: Person) -> Iterable[dict[str, object]]:
    """Write rows that must be refused: identifiers in a text, a date that is none, a patient that nobody knows."""
    born = dt.datetime.strptime(person.birth_date, "%Y%m%d").date()  # noqa: DTZ007 a day has no zone
    for text in (f"of {person.patient_id}", f"born {born}", f"call {person.telephone}", f"see {person.accession}"):
        yield {"patient_id": person.patient_id, "Visit": 2, "Diagnosis": text}
    yield {"patient_id": person.patient_id, "Visit": 3, "Seen": f"about {person.birth_date}"}
    yield {"patient_id": person.other_patient_id, "Visit": 4, "Diagnosis": "glioma"}


def _walked(place: pathlib.Path) -> Iterable[str]:
    """Give the names below a directory, where links lead, small files and attributes: all that a user can see."""
    for path in (place, *sorted(place.rglob("*"))):
        yield str(path)
        if path.is_symlink():
            yield str(path.readlink())
        elif path.is_file() and path.suffix != ".dcm":
            yield path.read_text(encoding="utf-8")
        yield from (f"{name}={os.getxattr(path, name)!r}" for name in os.listxattr(path, follow_symlinks=False))


def _dumped(site: Site) -> bytes:
    """Give what the service's database holds, as statements."""
    file = site.state / "metadata" / "data" / "metadata.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump()).encode()


def _found(query: str, *options: str) -> list[str]:
    done = _mdmfs("find", query, *options)
    expect(done.returncode == 0, f"mdmfs find ends with {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout.split()


def _mdmfs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 our own program
        [sys.executable, "-m", "mdmfs.cli", "--log-level", "error", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
    )
