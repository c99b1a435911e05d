"""Programs that know nothing of us make the same of the mount as of a plain directory with the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image

from tests.twins.programs import PACKAGES, PROGRAMS, WINDOWS, Program, mounted_series

pytestmark = pytest.mark.skipif(
    shutil.which("plastimatch") is None, reason=f"these programs are many: apt-get install {PACKAGES}"
)
DIFFERENCE, LEVELS = 0.0005, 32
"""Of the pixels of a screen, and of their gray levels: a path in a title, a caret that blinks."""
PAUSE_SECONDS = 2.0
TRIES = 8
PICTURES = os.environ.get("MDMFS_PICTURES", "")
"""A folder to leave the pictures in, for people."""
Screen = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[tuple[Path, Path], tuple[Path, Path]]]:
    """Give a CT and an MR series, on the mount and as plain copies."""
    folder = tmp_path_factory.mktemp("programs")
    with mounted_series(folder) as (series, mr):
        plain = folder / "plain" / "ct", folder / "plain" / "mr"
        for source, copy in zip((series, mr), plain, strict=True):
            shutil.copytree(source, copy)
        yield (series, mr), plain


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_makes_the_same_of_the_mount_as_of_a_plain_directory(
    program: Program, folders: tuple[tuple[Path, Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    """What it writes is equal, byte for byte, and is something."""
    mounted, plain = folders
    ours = program.run(*mounted, tmp_path / "ours")
    assert ours == program.run(*plain, tmp_path / "theirs")
    assert any(ours.values())


@pytest.fixture(scope="module")
def display(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Screen]]:
    """Run a screen; gives what takes a picture of it."""
    picture = tmp_path_factory.mktemp("screen") / "screen.png"
    ready, told = os.pipe()
    command = ["Xvfb", "-displayfd", str(told), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=[told], stderr=subprocess.DEVNULL)
    os.close(told)
    try:
        with os.fdopen(ready) as answer:
            os.environ["DISPLAY"] = f":{answer.readline().strip()}"
            os.environ["HOME"] = str(picture.parent)  # programs remember what they showed last

        def take() -> Screen:
            subprocess.run(["import", "-window", "root", str(picture)], check=True)
            with Image.open(picture) as image:
                return np.asarray(image.convert("L"))

        yield take
    finally:
        process.terminate()
        process.wait()
        os.environ.pop("DISPLAY", None)


def shown(command: str, image: Path, take: Callable[[], Screen]) -> Screen:
    """Let a program show an image, and give the picture when it no longer changes.

    gdcmviewer 3.0.21 crashes every third time, wherever the file is: then it is started again.
    """
    blank = _still(take)
    for _ in range(TRIES):
        process = subprocess.Popen([command, str(image)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                picture = _still(take)
                if _differ(picture, blank) > DIFFERENCE and process.poll() is None:
                    return picture
        finally:
            process.kill()
            process.wait()
    raise AssertionError


def _still(take: Callable[[], Screen]) -> Screen:
    """Wait until the picture no longer changes."""
    before = take()
    while True:
        time.sleep(PAUSE_SECONDS)
        now = take()
        if _differ(now, before) == 0:
            return now
        before = now


@pytest.mark.parametrize(("name", "command"), WINDOWS, ids=[name for name, _ in WINDOWS])
def test_a_window_shows_the_image_of_the_mount(
    name: str,
    command: str,
    folders: tuple[tuple[Path, Path], tuple[Path, Path]],
    display: Callable[[], Screen],
    tmp_path: Path,
) -> None:
    """Its picture is that of the plain file, and another one where only the pixels stand upside down."""
    (mounted, _), (plain, _) = folders
    turned = pydicom.dcmread(plain / "0030.dcm")
    turned.PixelData = np.ascontiguousarray(turned.pixel_array[::-1]).tobytes()
    (tmp_path / "turned").mkdir()
    turned.save_as(tmp_path / "turned" / "0030.dcm")
    pictures, link = [], tmp_path / "series"  # one path for all three: titles show it
    for folder in (mounted, plain, tmp_path / "turned"):
        link.symlink_to(folder)
        pictures.append(shown(command, link / "0030.dcm", display))
        link.unlink()
    ours, same, other = pictures
    if PICTURES:
        Image.fromarray(ours).save(Path(PICTURES) / f"{name}.png")
    assert _differ(ours, same) < DIFFERENCE < _differ(ours, other), name


def _differ(one: Screen, other: Screen) -> float:
    """Give the part of the pixels that are not alike."""
    return float((np.abs(one.astype(int) - other) > LEVELS).mean())
