"""Contact sheets: which frames, what is black and white, and what cannot be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from mdmfs.cli.view import view
from mdmfs.demo.view import LABEL, Tile, Window, cells, grey, letters, sheet, tiles_below
from mdmfs.model.errors import ConfigurationError, NoSuchFileError, UnusableFileError

SIDE = 16


def image(path: Path, *, frames: int = 1, **values: object) -> Path:
    """Write an image whose rows rise from 0 to 1500, shifted to begin at -1000."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Rows = made.Columns = SIDE
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 15, 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.RescaleSlope, made.RescaleIntercept = 1, -1000
    if frames > 1:
        made.NumberOfFrames = frames
    for keyword, value in values.items():
        setattr(made, keyword, value)
    rows = np.repeat(np.arange(SIDE, dtype="<u2") * 100, SIDE)
    made.add_new(0x7FE00010, "OW", rows.tobytes() * frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def levels(path: Path, window: Window | None = None) -> list[int]:
    """Give the grey of each row."""
    return [int(row[0]) for row in grey(Tile(path, 0, is_one_of_many=False), window)]


def test_a_window_says_what_is_black_and_what_is_white(tmp_path: Path) -> None:
    """In the image's units, after the rescale; what is outside is cut off."""
    path = image(tmp_path / "1.dcm", WindowCenter=[-750, 0], WindowWidth=[501, 10])
    assert levels(path, Window(0, 201))[8:13] == [0, 0, 128, 255, 255]
    assert levels(path)[:6] == [0, 51, 102, 153, 204, 255]  # the image's own, the first of them
    assert levels(image(tmp_path / "2.dcm"))[0] == 0  # none: by its values
    inverted = image(tmp_path / "3.dcm", PhotometricInterpretation="MONOCHROME1")
    assert levels(inverted, Window(0, 201))[8:13] == [255, 255, 127, 0, 0]


@pytest.mark.parametrize("text", ["", "40", "40/0", "a/b", "40/400/1", "nan/400", "40/inf"])
def test_a_window_that_is_none_is_told(text: str) -> None:
    """With an example."""
    with pytest.raises(ConfigurationError):
        Window.parse(text)


def test_of_a_study_each_series_is_shown_evenly(tmp_path: Path) -> None:
    """First and last among them; a multi-frame file counts by its frames."""
    for number in range(1, 10):
        image(tmp_path / "001-CT" / f"{number:04}.dcm")
    image(tmp_path / "002-MR" / "0001.dcm", frames=5)
    (tmp_path / "002-MR" / "notes.txt").touch()
    labels = [tile.label for tile in tiles_below(tmp_path, 6)]
    assert labels == ["001-CT/0001", "001-CT/0005", "001-CT/0009", "002-MR/0001:1", "002-MR/0001:3", "002-MR/0001:5"]
    assert [tile.label for tile in tiles_below(tmp_path / "001-CT" / "0002.dcm")] == ["001-CT/0002"]
    with pytest.raises(NoSuchFileError):
        tiles_below(tmp_path / "002-MR" / "none")


def test_a_sheet_is_a_png_and_cells_of_a_terminal(tmp_path: Path) -> None:
    """As many columns as were asked for, two pixels in a cell."""
    for number in range(3):
        image(tmp_path / "001-CT" / f"{number}.dcm")
    drawn = sheet(tiles_below(tmp_path), columns=2, size=32)
    assert drawn.size == (64, 2 * (32 + LABEL))
    lines = cells(drawn, 40).splitlines()
    plain = letters(drawn, 40).splitlines()
    assert len(plain) == len(lines)
    assert max(map(len, plain)) <= 40
    assert set("".join(plain)) <= set(" .:-=+*#%@")
    assert len(set("".join(plain))) > 3
    assert {line.count("▀") for line in lines} == {40}
    output = tmp_path / "sheet.png"
    done = CliRunner().invoke(view, [str(tmp_path), "-o", str(output), "--window", "0/2000"])
    assert (done.exit_code, done.output) == (0, f"{output}\n")
    with Image.open(output) as read:
        assert read.format == "PNG"


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    """The file, and why."""
    broken = tmp_path / "1.dcm"
    broken.write_bytes(b"no DICOM")
    with pytest.raises(UnusableFileError, match=r"1\.dcm"):
        tiles_below(broken)
    header = image(tmp_path / "2.dcm", Rows=2**15, Columns=2**15)
    with pytest.raises(UnusableFileError, match="too large"):
        grey(Tile(header, 0, is_one_of_many=False), None)
    short = image(tmp_path / "3.dcm", Rows=2 * SIDE)
    with pytest.raises(UnusableFileError, match=r"3\.dcm cannot be shown"):
        grey(Tile(short, 0, is_one_of_many=False), None)
