"""Painted bodies: right in size, the same every time, and with something to see."""

from __future__ import annotations

import struct

import pytest

from mdmfs.demo import phantom


@pytest.mark.parametrize("scene", [phantom.chest, phantom.knee, phantom.abdomen])
def test_a_body_lies_in_air_and_changes_with_the_height(scene: phantom.Scene) -> None:
    """The corner is air, the middle is not, and two heights give two pictures."""
    tissues = phantom.CT_TISSUES if scene is phantom.chest else phantom.MR_TISSUES
    strips = phantom.noise_strips(tissues)
    low, high = (phantom.paint(scene(height), strips, 64) for height in (0.1, 0.7))
    assert len(low) == len(high) == 64 * 64 * 2
    assert low != high
    pixels = struct.unpack(f"<{64 * 64}H", low)
    assert pixels[0] < tissues["air"].level + tissues["air"].noise + 1
    assert max(pixels) > 10 * pixels[0]
    assert max(pixels) < 4096, "12 bits are stored"


def test_a_picture_is_the_same_every_time() -> None:
    """Two runs give the same bytes; another grain gives others."""
    pictures = [
        phantom.paint(phantom.chest(0.5), phantom.noise_strips(phantom.CT_TISSUES), 128, grain) for grain in (3, 3, 4)
    ]
    assert pictures[0] == pictures[1]
    assert pictures[0] != pictures[2]


def test_a_later_ellipse_covers_an_earlier_one_and_the_edge_cuts() -> None:
    """Painting order decides; what lies outside the picture is left out."""
    tissues = {"air": phantom.Tissue(1, 0), "fat": phantom.Tissue(7, 0), "bone": phantom.Tissue(9, 0)}
    ellipses = [phantom.Ellipse(0.5, 0.5, 2.0, 2.0, "fat"), phantom.Ellipse(1.0, 0.5, 0.25, 5.0, "bone")]
    pixels = struct.unpack("<64H", phantom.paint(ellipses, phantom.noise_strips(tissues), 8))
    assert pixels[32:40] == (7, 7, 7, 7, 7, 7, 9, 9)


def test_an_ellipse_without_height_paints_nothing() -> None:
    """An organ that has shrunk to nothing is no error."""
    strips = phantom.noise_strips({"air": phantom.Tissue(1, 0), "fat": phantom.Tissue(7, 0)})
    assert set(phantom.paint([phantom.Ellipse(0.5, 0.5, 0.1, 0.0, "fat")], strips, 8)) == {0, 1}
