"""Siemens CSA image headers: the numbers of diffusion and functional MR stay, nothing else does."""

from __future__ import annotations

import importlib.resources
import struct
import warnings

import pytest

from mdmfs.hospital.deid.csa import rewrite
from mdmfs.hospital.deid.encode import encode, head
from tests.twins.deidentified import STRICT, deidentified, with_elements

with warnings.catch_warnings(action="ignore"):  # nibabel calls its reader experimental
    from nibabel.nicom import csareader

KEPT = {
    "B_matrix",
    "B_value",
    "BandwidthPerPixelPhaseEncode",
    "DiffusionDirectionality",
    "DiffusionGradientDirection",
    "MosaicRefAcqTimes",
    "NumberOfImagesInMosaic",
    "PhaseEncodingDirectionPositive",
    "SliceNormalVector",
}


def sample(name: str) -> bytes:
    """Read a CSA header that comes with nibabel."""
    return importlib.resources.files("nibabel.nicom").joinpath(f"tests/data/{name}.bin").read_bytes()


@pytest.mark.parametrize("name", ["csa2_b0", "csa2_b1000"])
def test_the_kept_elements_read_as_before(name: str) -> None:
    """The reader of nibabel finds the same numbers, and no element that is not on the list."""
    before, after = (csareader.read(octets)["tags"] for octets in (sample(name), rewrite(sample(name))))
    assert {"SliceNormalVector", "B_value", "MosaicRefAcqTimes"} <= after.keys() <= KEPT
    for element, value in after.items():
        assert value["items"] == before[element]["items"]
    assert rewrite(rewrite(sample(name))) == rewrite(sample(name))


def test_text_in_an_element_and_between_elements_goes() -> None:
    """A name in an allowed element takes the element with it; padding and unused bytes are written anew."""
    octets = bytearray(sample("csa2_b1000"))
    place = octets.index(b"B_value\0") + 8
    octets[place : place + 10] = b"zqsmuggled"
    octets[4:8] = b"zqsm"
    assert b"zqsm" not in rewrite(bytes(octets))
    element = struct.pack("<64sI4sIII", b"B_value", 1, b"IS", 6, 1, 77)
    item = struct.pack("<IIII", 8, 8, 77, 8) + b"Jane Doe"
    assert rewrite(b"SV10\4\3\2\1" + struct.pack("<II", 1, 77) + element + item) == b""


@pytest.mark.parametrize("cut", [0, 3, 15, 16, 100, 1000])
def test_what_is_no_whole_header_goes(cut: int) -> None:
    """Version 1 headers, other private octets and cut ones are dropped."""
    assert rewrite(sample("csa2_b0")[:cut]) == b""
    assert rewrite(b"SV10" + b"\xff" * 200) == b""


def test_the_header_stays_under_its_creator_and_policy_only() -> None:
    """Retain Safe Private keeps it, the series header beside it goes, and Basic keeps none."""
    file = with_elements(
        encode(head(0x00290010, b"LO"), b"SIEMENS CSA HEADER"),
        encode(head(0x00291010, b"OB"), sample("csa2_b1000")),
        encode(head(0x00291020, b"OB"), b"protocol of Jane"),
    )
    assert rewrite(sample("csa2_b1000")) in deidentified(file)
    assert b"protocol" not in deidentified(file)
    assert b"SV10" not in deidentified(file, STRICT)
