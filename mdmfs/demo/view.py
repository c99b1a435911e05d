"""Contact sheets: the images of a file, a series or a study side by side, as a PNG or in the terminal's own cells.

For nodes without a screen. Grey values pass the modality rescale and a linear window (PS3.3 C.11.1 and C.11.2).
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TextIO, TypeVar

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_rescale
from pydicom.pixels.utils import pixel_array

from mdmfs.model.errors import ConfigurationError, NoSuchFileError, UnusableFileError

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

MAX_PIXELS: Final = 2**28
"""Of one frame that is read."""
TILE: Final = 128
LABEL: Final = 14
"""Pixels below a tile for its name."""
COLUMNS: Final = 6
MOST: Final = 24
_SHARE: Final = (1.0, 99.0)
"""Percentiles that stand for the window of an image that names none."""
_GREY: Final = "\x1b[38;2;{0};{0};{0}m\x1b[48;2;{1};{1};{1}m▀"
_PLAIN: Final = "\x1b[0m"
_LETTERS: Final = " .:-=+*#%@"


_WINDOW: Final = "write CENTRE/WIDTH, at least 1 wide, as 40/400"


class Window(NamedTuple):
    """Which values are black and which are white: centre and width, in the image's units (HU for CT)."""

    centre: float
    width: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``CENTRE/WIDTH``; raises ``ConfigurationError``."""
        try:
            centre, width = (float(part) for part in text.split("/"))
        except ValueError as error:
            message = f"{text!r} is no window"
            raise ConfigurationError(message, what_to_do=_WINDOW) from error
        if not (math.isfinite(centre) and math.isfinite(width) and width >= 1):
            message = f"{text!r} is no window: it is too narrow"
            raise ConfigurationError(message, what_to_do=_WINDOW)
        return cls(centre, width)


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """One frame to show."""

    path: pathlib.Path
    frame: int
    """From 0."""
    is_one_of_many: bool

    @property
    def label(self) -> str:
        """What stands below it."""
        name = f"{self.path.parent.name}/{self.path.stem}"
        return f"{name}:{self.frame + 1}" if self.is_one_of_many else name


def tiles_below(path: pathlib.Path, most: int = MOST) -> list[Tile]:
    """Choose frames of a file, or of all files below a directory, evenly; raises ``NoSuchFileError``.

    Of a study each series is shown, with as many frames as the others.
    """
    by_series: dict[pathlib.Path, list[pathlib.Path]] = {}
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*.dcm") if each.is_file())
    for file in files:
        by_series.setdefault(file.parent, []).append(file)
    if not by_series:
        message = f"there is no image at {path}"
        raise NoSuchFileError(message, what_to_do="name a file, a series or a study on a mount")
    each = max(most // len(by_series), 1)
    chosen = [_evenly(_frames(files, each), each) for files in by_series.values()]
    return [tile for tiles in chosen[:most] for tile in tiles]


def sheet(tiles: Sequence[Tile], *, window: Window | None = None, columns: int = COLUMNS, size: int = TILE) -> Image:
    """Draw tiles, row by row; raises ``ConfigurationError`` for a file that is no image."""
    image, draw_module = _pillow()
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    drawn: Image = image.new("L", (columns * size, rows * (size + LABEL)))
    draw = draw_module.Draw(drawn)
    for number, tile in enumerate(tiles):
        x, y = number % columns * size, number // columns * (size + LABEL)
        frame = image.fromarray(grey(tile, window))
        frame.thumbnail((size, size))
        drawn.paste(frame, (x + (size - frame.width) // 2, y + (size - frame.height) // 2))
        draw.text((x + 2, y + size + 1), tile.label[-(size // 6) :], fill=200)
    return drawn


def in_text(drawn: Image, stream: TextIO) -> str:
    """Give an image as lines for a stream: in cells of a terminal, or in letters where no colours are shown."""
    width = shutil.get_terminal_size().columns
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return letters(drawn, width) if is_plain else cells(drawn, width)


def letters(drawn: Image, width: int) -> str:
    """Give an image as lines of so many letters, denser where it is brighter, as on a dark screen."""
    width = min(width, drawn.width)
    grey = np.asarray(drawn.resize((width, max(round(drawn.height * width / drawn.width / 2), 1))))
    inked = np.array(list(_LETTERS))[grey.astype(int) * len(_LETTERS) // 256]
    return "".join("".join(row).rstrip() + "\n" for row in inked)


def cells(drawn: Image, width: int) -> str:
    """Give an image as lines for a terminal of so many columns: two pixels in each cell, one above the other."""
    width = min(width, drawn.width)
    height = max(2 * round(drawn.height * width / drawn.width / 2), 2)
    pixels = np.asarray(drawn.resize((width, height)))
    pairs = zip(pixels[::2], pixels[1::2], strict=True)
    return "".join("".join(_GREY.format(*it) for it in zip(*pair, strict=True)) + _PLAIN + "\n" for pair in pairs)


def grey(tile: Tile, window: Window | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read a frame as 8-bit grey values, rows by columns; raises ``ConfigurationError``."""
    try:
        dataset = pydicom.dcmread(tile.path, stop_before_pixels=True)
        if int(dataset.Rows) * int(dataset.Columns) > MAX_PIXELS:
            message = f"{tile.path} is too large to be shown: {dataset.Rows} x {dataset.Columns}"
            raise UnusableFileError(message, what_to_do="open it in a viewer of your own")
        stored = pixel_array(tile.path, index=tile.frame)  # reads no other frame of a long object
        values = np.asarray(apply_rescale(stored, _of_frame(dataset, tile.frame)), dtype=np.float64)
    except (InvalidDicomError, AttributeError, ValueError, NotImplementedError, RuntimeError, KeyError) as error:
        message = f"{tile.path} cannot be shown: {error}"
        raise UnusableFileError(message) from error
    if values.ndim > 2:  # noqa: PLR2004 colours
        values = values.mean(axis=-1)
    shown = _windowed(values, window or _window_of(dataset, tile.frame, values))
    return 255 - shown if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else shown


def _windowed(values: np.ndarray[Any, Any], window: Window) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Apply the function LINEAR (PS3.3 section C.11.2.1.2.1)."""
    width = max(window.width - 1, 1e-6)
    scaled = ((values - (window.centre - 0.5)) / width + 0.5) * 255
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _window_of(dataset: pydicom.Dataset, frame: int, values: np.ndarray[Any, Any]) -> Window:
    """Take the first window that the image names, else one from its values."""
    named = _of_frame(dataset, frame)
    centre, width = _first(named.get("WindowCenter")), _first(named.get("WindowWidth"))
    if centre is not None and width is not None and width >= 1:
        return Window(centre, width)
    low, high = np.percentile(values, _SHARE)
    return Window((low + high) / 2, max(high - low, 1.0))


def _of_frame(dataset: pydicom.Dataset, frame: int) -> pydicom.Dataset:
    """Gather rescale and window of a frame: enhanced objects have them in functional groups (PS3.3 C.7.6.16)."""
    gathered = pydicom.Dataset()
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or ())
    groups = [*shared, *list(dataset.get("PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1]]
    nested = [it for group in groups for name in _GROUPS for it in group.get(name) or ()]
    for source in (dataset, *nested):
        for keyword in _KEYWORDS:
            if keyword in source:
                gathered[keyword] = source[keyword]
    return gathered


_GROUPS: Final = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_KEYWORDS: Final = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


def _first(value: Any) -> float | None:  # noqa: ANN401 one or many of pydicom's decimals
    values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return None if not values or values[0] is None else float(values[0])


def _frames(files: Sequence[pathlib.Path], most: int) -> list[Tile]:
    """List the frames of a series; only a file that may be shown with several is looked into."""
    if len(files) > 1:
        return [Tile(file, 0, is_one_of_many=False) for file in files]
    try:
        count = int(pydicom.dcmread(files[0], stop_before_pixels=True).get("NumberOfFrames") or 1)
    except (InvalidDicomError, ValueError) as error:
        message = f"{files[0]} is no DICOM file, or is damaged"
        raise UnusableFileError(message) from error
    return [Tile(files[0], frame, is_one_of_many=count > 1) for frame in _evenly(range(count), most)]


def _evenly(items: Sequence[T], most: int) -> list[T]:
    if len(items) <= most:
        return list(items)
    return [items[round(number * (len(items) - 1) / max(most - 1, 1))] for number in range(most)]


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw  # noqa: PLC0415 of the extra view
    except ImportError as error:
        message = "mdmfs view needs Pillow, which is not installed"
        raise ConfigurationError(message, what_to_do="pip install 'mdmfs[view]', or ./run install view") from error
    return Image, ImageDraw
