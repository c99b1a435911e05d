"""Every command, really run with ``--json`` on the site of a demonstration, and what each said.

The calls share a process of their own, ``python -m tests.twins.every_command STATE MOUNTPOINT``, which prints that: a
command leaves much to the end of its process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from mdmfs.cli.main import cli
from mdmfs.cli.output import run
from mdmfs.demo.people import CHEST
from mdmfs.demo.site import PROJECT, READER

SECONDS: Final = 60.0
_SHORT: Final = {"stage": "stage start"}
_COLLECTION: Final = """\
project = "neuro"
name = "followup"
issuer = "AMC"
[[attributes]]
name = "Grade"
type = "integer"
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What came of one call; each line was an object."""

    typed: str
    exit_code: int
    results: list[dict[str, Any]]
    remarks: list[dict[str, Any]]


class Caller:
    """Calls commands, in this process where that is possible."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def call(self, command: str, *words: object) -> Said:
        """Call one; fails where a line is no object."""
        octets = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(one, "utf-8") for one in octets)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = run(cli, [*command.split(), *map(str, words), "--json"])
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
        out.flush()
        err.flush()
        return self._note(_SHORT.get(command, command), code, *(one.getvalue().decode() for one in octets))

    def call_alone(self, command: str, *words: object, stdin: str = "") -> Said:
        """Call one in a process of its own."""
        typed = [sys.executable, "-m", "mdmfs.cli", "--json", *command.split(), *map(str, words)]
        done = subprocess.run(typed, check=False, capture_output=True, text=True, input=stdin, timeout=SECONDS)
        return self._note(command, done.returncode, done.stdout, done.stderr)

    def _note(self, command: str, code: int, out: str, err: str) -> Said:
        said = Said(command, code, *([json.loads(line) for line in text.splitlines()] for text in (out, err)))
        assert all(isinstance(one, dict) for one in (*said.results, *said.remarks)), said
        self.said.append(said)
        return said


def call_all(state: Path, mountpoint: Path) -> tuple[list[Said], list[Said]]:
    """Call every command but ``demo`` once at least; gives what each said, and what was said to mistakes."""
    typed = [sys.executable, "-m", "tests.twins.every_command", str(state), str(mountpoint)]
    done = subprocess.run(typed, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    said, mistaken = ([Said(**one) for one in each] for each in json.loads(done.stdout))
    return said, mistaken


def _call_all(state: Path, mountpoint: Path) -> list[list[Said]]:
    """Call them here; what ends files comes last."""
    caller, mistaken = Caller(), Caller()
    work = state / "commands"
    work.mkdir()
    files = sorted(path for path in mountpoint.rglob("*.dcm"))
    _ask(caller, state, work, mountpoint, files[0])
    _allow(caller, state, files[0])
    _mistake(mistaken, state, mountpoint, files[0])
    _keep(caller, state, work, mountpoint, files)
    _change(caller, state, work, files[0])
    return [caller.said, mistaken.said]


def _lfn(mountpoint: Path, path: Path) -> str:
    return f"/grid/medical/{path.relative_to(mountpoint)}"


def _ask(caller: Caller, state: Path, work: Path, mountpoint: Path, file: Path) -> None:
    """Call what only asks."""
    hospital, worker = state / "hospital" / "hospital.toml", state / "worker" / f"{READER}.toml"
    image = next(path for path in sorted((state / "pacs").rglob("*")) if path.is_file() and path.stat().st_size > 2**16)
    file.read_bytes()
    (reader, *_) = caller.call("audit who", hospital, os.getxattr(file, "user.guid").decode()).results
    caller.call("audit who", hospital, _lfn(mountpoint, file.parent))
    caller.call_alone("audit patient", hospital, stdin=f"{CHEST.patient_id}^^^{CHEST.issuer}\n")
    caller.call("audit what", hospital, reader["dn"])
    caller.call("audit verify", hospital)
    caller.call("audit export", hospital, "--output", work / "audit.jsonl")
    caller.call("audit export", hospital)
    caller.call("doctor", worker)
    for option in ("--images", "--count", "--explain", "--schema"):
        caller.call("find", 'Modality == "CT" limit 2', "--at", mountpoint, option)
    caller.call("top", worker, "--count", "1")
    caller.call("getfacl", file)
    caller.call("why", file)
    caller.call("view", file, "--output", work / "sheet.png")
    caller.call("policy digest", "research")
    caller.call("policy explain", image, "--policy", "research")
    caller.call("deidentify", image, "--output", work / "out", "--policy", "research")
    for command in ("hospitald", "keystored", "metadatad"):
        caller.call(command, worker)


UNKNOWN: Final = "nobody-knows-this"
"""What every mistake names, and its error has to name again."""


def _mistake(caller: Caller, state: Path, mountpoint: Path, file: Path) -> None:
    """Call commands about what there is not."""
    hospital, worker = state / "hospital" / "hospital.toml", state / "worker" / f"{READER}.toml"
    missing = f"/grid/medical/amc/{UNKNOWN}"
    for command in ("audit who", "names list", "names remove", "withdraw"):
        caller.call(command, hospital, missing)
        caller.call(command, hospital, UNKNOWN)
    for command in ("harvest", "reconcile", "quarantine explain", "quarantine retry"):
        caller.call(command, hospital, UNKNOWN)
    for task in ("keys verify", "keys rotate"):
        caller.call(task, hospital, "--guid", UNKNOWN)
        caller.call(task, hospital, "--project", UNKNOWN)
        caller.call(task, hospital, "--subject", UNKNOWN)
    caller.call("subject forget", hospital, UNKNOWN)
    caller.call("subject forget", hospital, "--project", UNKNOWN)
    caller.call("audit what", hospital, UNKNOWN)
    caller.call("audit export", hospital, "--format", "dicom", "--syslog", UNKNOWN)
    caller.call("rerender", hospital, "--project", UNKNOWN)
    caller.call("backup", hospital, state / UNKNOWN / "backup", "--recovery", state / "pki" / "hospital.pem")
    caller.call("policy digest", UNKNOWN)
    caller.call("deidentify", file, "--output", state / "pki" / "ca.pem" / UNKNOWN, "--policy", "research")
    caller.call("getfacl", mountpoint / "amc" / UNKNOWN)
    caller.call("getfacl", state / UNKNOWN)
    caller.call("setfacl", file, "-m", f"u:{UNKNOWN}:r")
    caller.call("setfacl", file, "-m", UNKNOWN)
    caller.call("find", f"{UNKNOWN.replace('-', '')} == 1", "--at", mountpoint)
    caller.call("snapshot create", f"{UNKNOWN}?", 'Modality == "CT"', "--at", mountpoint)
    caller.call("record show", UNKNOWN, "--at", mountpoint)
    caller.call("subject identify", worker, UNKNOWN, "--purpose", "a test")
    caller.call("stage start", mountpoint / "amc" / UNKNOWN)
    caller.call("stage", f'Modality == "{UNKNOWN}"', "--at", mountpoint)
    for command in ("stage status", "stage cancel", "stage release"):
        caller.call(command, UNKNOWN, "--at", mountpoint)
    caller.call("shelf forget-signer", state / "keystore-1" / "keystore.toml", f"/CN={UNKNOWN}")
    caller.call("top", UNKNOWN)
    caller.call("umount", state / UNKNOWN)
    caller.call("unseal", file, "--mount-config", worker, "--guid", UNKNOWN, "--output", state / "x.dcm")
    caller.call("view", file, "--output", state / UNKNOWN / "x.png")
    caller.call("view", file, "--output", state / "x.png", "--window", UNKNOWN)


def _keep(caller: Caller, state: Path, work: Path, mountpoint: Path, files: list[Path]) -> None:
    """Call what makes something beside the files: snapshots, requests, backups, mounts, records."""
    hospital, worker = state / "hospital" / "hospital.toml", state / "worker" / f"{READER}.toml"
    for kind, words in _CONFIGURATIONS.items():
        caller.call(f"init {kind}", work / f"{kind}.toml", "--no-check", *words)
    caller.call("snapshot create", "few", 'Modality == "CT"', "--at", mountpoint)
    caller.call("snapshot list", "--at", mountpoint)
    caller.call("snapshot drop", "few", "--at", mountpoint)
    request = caller.call("stage start", files[0]).results[0].get("request", "")
    caller.call("stage", 'Modality == "CT"', "--at", mountpoint, "--wait")
    caller.call("stage status", "--configuration", worker)
    for command in ("stage status", "stage cancel", "stage release"):
        caller.call(command, request, "--at", mountpoint)
    sealed = next(iter((state / "worker" / f"{READER}-cache" / "complete").iterdir()))
    caller.call("inspect", sealed)
    caller.call("unseal", sealed, "--mount-config", worker, "--output", work / "unsealed.dcm")
    caller.call("backup", hospital, work / "backup", "--recovery", state / "pki" / "hospital.pem")
    caller.call("restore", hospital, work / "backup", "--key", state / "pki" / "hospital.key")
    caller.call("migrate", hospital)
    second = worker.with_name("second.toml")
    second.write_text(worker.read_text().replace(f"{READER}-cache", "second-cache"))
    (state / "grid" / "second").mkdir()
    caller.call("mount", second, state / "grid" / "second", "--daemon", "--log", work / "mount.log")
    caller.call("umount", state / "grid" / "second")
    (work / "followup.toml").write_text(_COLLECTION)
    (work / "rows.csv").write_text(f"patient_id,Grade\n{CHEST.patient_id},2\n,3\n")
    caller.call("record define", hospital, work / "followup.toml")
    caller.call("record import", hospital, work / "followup.toml", work / "rows.csv")
    for subject in sorted(path.name for path in (mountpoint / "amc" / PROJECT).iterdir()):
        caller.call("record show", subject, "--at", mountpoint)


def _allow(caller: Caller, state: Path, file: Path) -> None:
    """Change rights with the hospital's own certificate; mounts of before its daemon's start are not waited for."""
    own = state / "worker" / "own.toml"
    text = (state / "worker" / f"{READER}.toml").read_text()
    credential = 'certificate = "../pki/hospital.pem"\nkey = "../pki/hospital.key"'
    own.write_text(text.replace(f'proxy = "../pki/{READER}.proxy"', credential))
    subject = next(part for part in file.parts if part.startswith("sub-"))
    lfn = f"/grid/medical/{'/'.join(file.parts[file.parts.index('amc') :])}"
    for options in (["--test"], ["--timeout", "0.5"]):
        caller.call("setfacl", lfn, "-m", "u:/DC=org/CN=Nobody:r", "--configuration", own, *options)
    caller.call("subject identify", own, subject, "--purpose", "a test")


def _change(caller: Caller, state: Path, work: Path, file: Path) -> None:
    """Call what changes files and keys."""
    hospital, guid = state / "hospital" / "hospital.toml", os.getxattr(file, "user.guid").decode()
    (work / "merges").write_text("patient A^^^AMC\ninto B^^^AMC\n")
    caller.call("subject merge", hospital, PROJECT, "--from", work / "merges", "--dry-run")
    caller.call("subject forget", hospital, "--project", PROJECT, "--dry-run")
    caller.call("replicas", hospital)
    for command in ("harvest", "reconcile"):
        caller.call(command, hospital, PROJECT)
    handles = [one["handle"] for one in caller.call("quarantine list", hospital).results]
    caller.call("quarantine explain", hospital, *handles[:1])
    caller.call("quarantine retry", hospital, *handles[:1])
    caller.call("names list", hospital, f"/grid/medical/amc/{PROJECT}")
    caller.call("names remove", hospital, f"/grid/medical/amc/{PROJECT}")
    for task in ("verify", "resplit", "rotate"):
        caller.call(f"keys {task}", hospital, "--guid", guid)
    caller.call("rerender", hospital, "--project", PROJECT)
    caller.call("shelf forget-signer", state / "keystore-1" / "keystore.toml", "/DC=org/CN=Nobody")
    caller.call("withdraw", hospital, "--guid", guid)
    caller.call("keys destroy", hospital, "--guid", guid)


_TLS: Final = ("--certificate", "c.pem", "--key", "k.pem", "--trust", "ca")
_KEYSTORE: Final = ("--keystore", "one", "localhost:2", "/DC=org/CN=one")
_CONFIGURATIONS: Final[dict[str, tuple[str, ...]]] = {
    "hospital": ("--name", "amc", "--threshold", "1", "--pacs", "main", "PACS@localhost:104", *_KEYSTORE, *_TLS),
    "keystore": ("--name", "one", "--hospital", "/DC=org/CN=hospital", *_TLS),
    "metadata": ("--hospital", "/DC=org/CN=hospital", *_TLS),
    "worker": ("--address", "localhost:1", "--dn", "/DC=org/CN=hospital", "--trust", "ca", *_KEYSTORE),
}


if __name__ == "__main__":
    print(json.dumps([[dataclasses.asdict(one) for one in each] for each in _call_all(*map(Path, sys.argv[1:]))]))  # noqa: T201 to who asked
