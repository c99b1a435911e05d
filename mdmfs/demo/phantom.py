"""Pictures of bodies that never were: ellipses filled with noisy tissue, as 16-bit pixels, made with bytes alone.

A row of pixels is cut from strips of noise, one strip for each tissue: a slice of 512 x 512 costs a few milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

BYTES_PER_PIXEL: Final = 2
_STRIP_PIXELS = 8192
_SEED = 20190312


@dataclasses.dataclass(frozen=True, slots=True)
class Ellipse:
    """A region of one tissue, in parts of the picture's width: centre, half axes, and the tissue's name."""

    x: float
    y: float
    half_width: float
    half_height: float
    tissue: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tissue:
    """How bright a tissue is: the mean of its pixels, and how far noise moves them."""

    level: int
    noise: int


Scene = Callable[[float], Sequence[Ellipse]]
"""From a height between 0 and 1 to what is cut there, painted in this order."""

CT_TISSUES: Final = {
    "air": Tissue(24, 8),
    "fat": Tissue(924, 18),
    "muscle": Tissue(1076, 18),
    "lung": Tissue(174, 40),
    "blood": Tissue(1180, 15),
    "bone": Tissue(1724, 90),
    "marrow": Tissue(1300, 60),
    "table": Tissue(700, 10),
}
"""Stored values with a rescale intercept of -1024 HU."""

MR_TISSUES: Final = {
    "air": Tissue(12, 10),
    "fat": Tissue(1500, 60),
    "muscle": Tissue(420, 40),
    "marrow": Tissue(1150, 90),
    "bone": Tissue(60, 25),
    "cartilage": Tissue(820, 40),
    "fluid": Tissue(240, 30),
    "liver": Tissue(700, 45),
    "kidney": Tissue(560, 50),
    "vessel": Tissue(1700, 50),
}


def chest(height: float) -> list[Ellipse]:
    """Cut a chest across: lungs that grow and shrink, a heart, a spine, ribs that wander."""
    swell = math.sin(math.pi * (0.12 + 0.8 * height))
    beat = math.sin(math.pi * height)
    ribs = [
        Ellipse(0.5 + 0.36 * math.cos(angle), 0.5 + 0.25 * math.sin(angle), 0.022, 0.014, "bone")
        for angle in (2.1 * height + 2 * math.pi * number / 11 for number in range(11))
    ]
    return [
        Ellipse(0.5, 0.93, 0.42, 0.03, "table"),
        Ellipse(0.5, 0.5, 0.40 + 0.03 * swell, 0.29 + 0.02 * swell, "fat"),
        Ellipse(0.5, 0.5, 0.38 + 0.02 * swell, 0.265 + 0.01 * swell, "muscle"),
        *ribs,
        Ellipse(0.33, 0.49, 0.13 * swell, 0.19 * swell, "lung"),
        Ellipse(0.67, 0.49, 0.13 * swell, 0.19 * swell, "lung"),
        Ellipse(0.55, 0.43, 0.03 + 0.10 * beat, 0.03 + 0.08 * beat, "blood"),
        Ellipse(0.50, 0.36, 0.018, 0.018, "lung"),
        Ellipse(0.56, 0.60, 0.026, 0.026, "blood"),
        Ellipse(0.5, 0.66, 0.052, 0.046, "bone"),
        Ellipse(0.5, 0.66, 0.042, 0.036, "marrow"),
        Ellipse(0.5, 0.735, 0.022, 0.022, "muscle"),
        Ellipse(0.5, 0.775, 0.012, 0.026, "bone"),
    ]


def knee(height: float) -> list[Ellipse]:
    """Cut a leg across around the knee: shaft, condyles, joint, plateau, shaft."""
    joint = math.exp(-(((height - 0.5) / 0.2) ** 2))
    wide = 0.08 + 0.13 * joint
    return [
        Ellipse(0.5, 0.5, 0.34 + 0.06 * height, 0.36 + 0.04 * height, "fat"),
        Ellipse(0.5, 0.53, 0.30 + 0.05 * height, 0.31 + 0.04 * height, "muscle"),
        Ellipse(0.5, 0.44, wide + 0.03, wide * 0.85 + 0.03, "cartilage"),
        Ellipse(0.5, 0.44, wide + 0.012, wide * 0.85 + 0.012, "bone"),
        Ellipse(0.5, 0.44, wide, wide * 0.85, "marrow"),
        Ellipse(0.5, 0.17, 0.09 * joint + 0.004, 0.04 * joint + 0.004, "marrow"),
        Ellipse(0.46, 0.72, 0.024, 0.024, "vessel"),
        Ellipse(0.55, 0.73, 0.018, 0.018, "vessel"),
        Ellipse(0.74, 0.60, 0.035 * height + 0.004, 0.035 * height + 0.004, "marrow"),
    ]


def abdomen(height: float) -> list[Ellipse]:
    """Cut a belly across: a liver that shrinks, kidneys that come, a spine and the great vessels."""
    liver = 1.0 - 0.75 * height
    kidney = math.sin(math.pi * min(1.0, max(0.0, (height - 0.2) / 0.75)))
    return [
        Ellipse(0.5, 0.5, 0.42, 0.30, "fat"),
        Ellipse(0.5, 0.5, 0.37, 0.255, "muscle"),
        Ellipse(0.5, 0.48, 0.34, 0.225, "fluid"),
        Ellipse(0.34, 0.45, 0.19 * liver, 0.17 * liver, "liver"),
        Ellipse(0.37, 0.42, 0.02 * liver, 0.03 * liver, "vessel"),
        Ellipse(0.66, 0.42, 0.09 + 0.03 * kidney, 0.08, "cartilage"),
        Ellipse(0.30, 0.61, 0.07 * kidney, 0.055 * kidney, "kidney"),
        Ellipse(0.70, 0.61, 0.07 * kidney, 0.055 * kidney, "kidney"),
        Ellipse(0.5, 0.66, 0.055, 0.048, "bone"),
        Ellipse(0.5, 0.66, 0.047, 0.040, "marrow"),
        Ellipse(0.45, 0.575, 0.022, 0.022, "vessel"),
        Ellipse(0.53, 0.575, 0.026, 0.024, "vessel"),
    ]


def noise_strips(tissues: dict[str, Tissue]) -> dict[str, bytes]:
    """Make a strip of little-endian pixels for each tissue; the same ones every time."""
    noise = random.Random(_SEED)  # noqa: S311 - a picture's grain, and it must be reproducible
    return {
        name: struct.pack(
            f"<{_STRIP_PIXELS}H",
            *(max(0, tissue.level + (tissue.noise * (octet - 128)) // 128) for octet in noise.randbytes(_STRIP_PIXELS)),
        )
        for name, tissue in tissues.items()
    }


def paint(ellipses: Sequence[Ellipse], strips: dict[str, bytes], size: int, grain: int = 0) -> bytes:
    """Paint a square picture of ``size`` pixels each way, little-endian; ``grain`` moves the noise."""
    rows = bytearray(size * size * BYTES_PER_PIXEL)
    for number, row in enumerate(_spans(ellipses, size)):
        start = number * size * BYTES_PER_PIXEL
        shift = ((number + 977 * grain) * 389 % (_STRIP_PIXELS - size)) * BYTES_PER_PIXEL
        for left, right, tissue in row:
            rows[start + left : start + right] = strips[tissue][shift + left : shift + right]
    return bytes(rows)


def _spans(ellipses: Sequence[Ellipse], size: int) -> Iterator[list[tuple[int, int, str]]]:
    """Yield for each row what covers it: first and last byte offset and tissue, in painting order."""
    for number in range(size):
        y = (number + 0.5) / size
        row = [(0, size * BYTES_PER_PIXEL, "air")]
        for ellipse in ellipses:
            reach = 1.0 - ((y - ellipse.y) / ellipse.half_height) ** 2 if ellipse.half_height > 0 else -1.0
            if reach > 0:
                half = ellipse.half_width * math.sqrt(reach)
                left = max(0, round((ellipse.x - half) * size))
                right = min(size, round((ellipse.x + half) * size))
                if left < right:
                    row.append((left * BYTES_PER_PIXEL, right * BYTES_PER_PIXEL, ellipse.tissue))
        yield row
