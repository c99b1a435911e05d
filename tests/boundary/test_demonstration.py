"""The demonstration as a newcomer runs it: it proves what mdmfs promises, shows the tree, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageGrab, ImageOps, ImageStat

from mdmfs.cli.main import cli
from mdmfs.cli.reference import commands
from mdmfs.demo.checks import TRIALS
from tests.architecture.test_docs import rows, section
from tests.twins.every_command import UNKNOWN, Said, call_all

SHEET = Path(__file__).parents[2] / "docs" / "demo-chest.png"
VIEWER = SHEET.with_name("demo-viewer.png")
VIEWER_SECONDS = 5.0
SLICE = (240, 110, 370, 208)
"""Where the picture of the viewer shows the image, and nothing that is written."""
DIFFERENCE = 8
"""Of 255; an empty window differs by more than 40."""
CHECK_SECONDS = 240.0
START_SECONDS = 90.0
CANNOT = {
    "hospitald",
    "keystored",
    "metadatad",
    "migrate",
    "restore",
    "shelf forget-signer",
    "subject identify",
    "subject merge",
    "top",
}
"""What these are asked for cannot be, or is refused."""
SOME_REFUSED = {"record import", "subject forget"}
HAS_ATTRIBUTES = {"audit export", "audit what", "find", "record show"}
"""Whose objects have keys that no table of commands can name."""
CAN_BE_EMPTY = {*HAS_ATTRIBUTES, "names list", "replicas"}
STOP_SECONDS = 30.0


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for both, so that the synthetic patients are painted once."""
    return tmp_path_factory.mktemp("demonstration")


def demo_command(state: Path, *options: str) -> list[str]:
    """Give the command."""
    return [sys.executable, "-m", "mdmfs.cli", "demo", "--state", str(state), *options]


def processes_of(state: Path) -> list[int]:
    """Find the processes whose command line names the folder: every daemon's does."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(str(state)) in command:
                found.append(int(entry.name))
    return found


def end_a_keystore(state: Path, demonstration: subprocess.Popen[str]) -> None:
    """End one; all others go on, and what starts it again is told."""
    folder = str(state / "keystore-1")
    (keystore,) = processes_of(state / "keystore-1")
    os.kill(keystore, signal.SIGTERM)
    assert demonstration.stderr is not None
    told = iter(demonstration.stderr.readline, "")
    assert next(line for line in told if "has ended" in line).startswith("keystore-1 has ended, its log is in ")
    assert f"keystored {folder}" in next(told)


def mounts_below(state: Path) -> list[str]:
    """List what is mounted below the folder."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split(" ")[4] for line in lines if line.split(" ")[4].startswith(str(state))]


def test_every_promise_is_kept_in_the_demonstration(state: Path) -> None:
    """``mdmfs demo --check`` ends with 0 and a table in which no promise is broken."""
    environment = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(
        demo_command(state, "--check"),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout
    assert sum("│ ok │" in line for line in done.stdout.splitlines()) == len(TRIALS)
    assert (processes_of(state), mounts_below(state)) == ([], [])


@pytest.fixture
def screen() -> Iterator[str]:
    """Give a screen that nobody sees, by its name."""
    typed = ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield f":{server.stdout.readline().strip()}"
        server.terminate()


@pytest.fixture
def demonstration(state: Path, screen: str) -> Iterator[subprocess.Popen[str]]:
    """Run it with a viewer until the test ends it."""
    process = subprocess.Popen(
        demo_command(state, "--viewer"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "DISPLAY": screen},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def compare_sheet(series: Path, output: Path) -> None:
    """Draw the picture of docs/demo.md from the mount: it shows what is read now. MDMFS_DRAW=1 writes it anew."""
    typed = ["view", str(series), "--most", "12", "--size", "96", "-o", str(output)]
    subprocess.run([sys.executable, "-m", "mdmfs.cli", *typed], check=True, stdout=subprocess.DEVNULL)
    if os.environ.get("MDMFS_DRAW"):
        SHEET.write_bytes(output.read_bytes())
    with Image.open(output) as drawn, Image.open(SHEET) as told:
        assert drawn.size == told.size
        difference = ImageStat.Stat(ImageChops.difference(drawn, told)).mean[0]
    assert difference < 1  # of 255: fonts differ a little


def compare_viewer(screen: str) -> None:
    """Wait until the viewer shows what the picture of docs/demo.md does; only the pseudonym is another each time."""
    begun = time.monotonic()
    difference = math.inf
    while difference > DIFFERENCE:
        assert time.monotonic() - begun < START_SECONDS, f"the viewer shows something else: {difference}"
        time.sleep(0.3)
        seen = ImageGrab.grab(xdisplay=screen)
        if seen.getbbox() is None:
            continue
        seen = seen.crop(seen.getbbox())
        if os.environ.get("MDMFS_DRAW") and time.monotonic() - begun > VIEWER_SECONDS:
            seen.save(VIEWER)
        if VIEWER.exists():
            with Image.open(VIEWER) as told:
                shown = [ImageOps.fit(one.convert("L"), told.size).crop(SLICE) for one in (seen, told)]
            difference = ImageStat.Stat(ImageChops.difference(*shown)).mean[0]


def ask_why(path: Path) -> list[str]:
    """Give the first words of what ``mdmfs why`` says, those of one kind once."""
    typed = [sys.executable, "-m", "mdmfs.cli", "why", str(path)]
    said = subprocess.run(typed, check=True, capture_output=True, text=True).stdout.splitlines()
    return list(dict.fromkeys(line[:10].strip() for line in said if line[0] != " "))


def told_keys() -> dict[str, set[str]]:
    """Read from docs/commands.md what each command says; "as `X`" means what X says too."""
    told: dict[str, set[str]] = {}
    for names, _, keys in rows(section("commands.md", "JSON")):
        told |= {name: set(re.findall("`([^`]+)`", keys)) for name in re.findall("`([^`]+)`", names)}
    return {name: keys.union(*(told.get(key, ()) for key in keys)) for name, keys in told.items()}


def refuse_errors_without_subject_or_advice(mistaken: list[Said]) -> None:
    """Each mistake is answered by one error, which names what was mistaken and says what to do."""
    for one in mistaken:
        errors = [remark for remark in one.remarks if "error" in remark]
        assert (len(errors), one.exit_code) == (1, 1), one
        assert UNKNOWN in errors[0]["message"].replace("nobodyknowsthis", UNKNOWN), one
        assert errors[0]["what_to_do"], one


def refuse_what_no_page_says(said: list[Said]) -> None:
    """Every command was called and ended as expected; objects have the keys of its page, errors what they need."""
    paths = {context.command_path.removeprefix("mdmfs ") for context in commands(cli)}
    assert {one.typed for one in said} == paths - {"demo"}
    told = told_keys()
    for one in said:
        assert one.exit_code in ({1} if one.typed in {*CANNOT, *SOME_REFUSED} else {0, 3}), one
        if one.typed not in HAS_ATTRIBUTES:
            assert {key for result in one.results for key in result} <= told[one.typed], one.typed
        assert all(remark.keys() & {"error", "note", "event"} for remark in one.remarks), one
        errors = [remark for remark in one.remarks if "error" in remark]
        assert all(error["message"] and error["what_to_do"] and error["status"] == one.exit_code for error in errors), (
            one
        )
        assert bool(errors) == (one.typed in CANNOT), one
        assert one.results or errors or one.typed in CAN_BE_EMPTY, one


def test_the_demonstration_speaks_json_too(tmp_path: Path) -> None:
    """What cannot be done is an object on standard error, and nothing else is said."""
    (tmp_path / "thesis.txt").write_text("years of work")
    typed = demo_command(tmp_path, "--json")
    done = subprocess.run(typed, check=False, capture_output=True, text=True)
    told = json.loads(done.stderr)
    assert (done.stdout, told["error"], told["status"], done.returncode) == ("", "configuration", 1, 1)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_it_shows_the_tree_serves_and_leaves_nothing_behind(
    state: Path, demonstration: subprocess.Popen[str], screen: str, ending: signal.Signals
) -> None:
    """The last line names the mount point; a signal, even an impatient second one, ends every process and mount."""
    assert demonstration.stdout is not None
    lines: list[str] = []
    begun = time.monotonic()
    while not lines or not lines[-1].startswith("ready: "):
        assert time.monotonic() - begun < START_SECONDS
        line = demonstration.stdout.readline()
        assert line, demonstration.stderr.read() if demonstration.stderr else ""
        lines.append(line.rstrip("\n"))
    mountpoint = Path(lines[-1].removeprefix("ready: "))
    assert mountpoint.is_mount()
    shown = [line.split("/  ")[0] for line in lines[:-1]]
    assert shown
    assert all((mountpoint / series).is_dir() for series in shown)
    assert any("60 images" in line for line in lines)
    assert next(path for path in mountpoint.rglob("*.dcm")).read_bytes()[128:132] == b"DICM"
    assert len(processes_of(state)) > 5
    if ending is signal.SIGINT:
        longest = next(line.split("/  ")[0] for line in lines if "60 images" in line)
        compare_sheet(mountpoint / longest, state / "sheet.png")
        assert ask_why(mountpoint / longest) == ["identity", "allowed", "keystore"]
        of_a_file = ask_why(mountpoint / longest / "0001.dcm")
        assert of_a_file == ["identity", "allowed", "file", "PACS", "keystore", "bytes", "last open"]
        said, mistaken = call_all(state, mountpoint)
        refuse_errors_without_subject_or_advice(mistaken)
        refuse_what_no_page_says(said)
    else:
        compare_viewer(screen)
        end_a_keystore(state, demonstration)
        assert mountpoint.is_mount()
    demonstration.send_signal(ending)
    time.sleep(0.3)
    demonstration.send_signal(signal.SIGINT)
    assert demonstration.wait(STOP_SECONDS) == 0
    assert (processes_of(state), mounts_below(state)) == ([], [])
