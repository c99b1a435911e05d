"""The demonstration as a newcomer runs it: it proves what mdmfs promises, shows the tree, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from mdmfs.demo.checks import TRIALS

SHEET = Path(__file__).parents[2] / "docs" / "demo-chest.png"
CHECK_SECONDS = 240.0
START_SECONDS = 90.0
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
def demonstration(state: Path) -> Iterator[subprocess.Popen[str]]:
    """Run it until the test ends it."""
    process = subprocess.Popen(
        demo_command(state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
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


def ask_why(path: Path) -> list[str]:
    """Give the first words of what ``mdmfs why`` says, those of one kind once."""
    typed = [sys.executable, "-m", "mdmfs.cli", "why", str(path)]
    said = subprocess.run(typed, check=True, capture_output=True, text=True).stdout.splitlines()
    return list(dict.fromkeys(line[:10].strip() for line in said if line[0] != " "))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_it_shows_the_tree_serves_and_leaves_nothing_behind(
    state: Path, demonstration: subprocess.Popen[str], ending: signal.Signals
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
    demonstration.send_signal(ending)
    time.sleep(0.3)
    demonstration.send_signal(signal.SIGINT)
    assert demonstration.wait(STOP_SECONDS) == 0
    assert (processes_of(state), mounts_below(state)) == ([], [])
