"""Clean Pixel Data by rules: what a policy names is blanked in every frame, everything else of its class is refused."""

from __future__ import annotations

import io
import tracemalloc
from typing import Final

import numpy as np
import pydicom
import pytest

from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.model.errors import ConfigurationError
from tests.twins.deidentified import (
    RESEARCH,
    deidentification_of,
    deidentified,
    elements_of_example,
    part10,
    with_elements,
)
from tests.twins.frames import END, JPEG, encapsulated, item, jpeg
from tests.twins.planted import OtherKind, find_planted, planted_file

US: Final = "1.2.840.10008.5.1.4.1.1.6.1"
ULTRASOUND: Final = Policy.parse(f"""
name = "ultrasound"
heads = "agreement"

[[regions]]
sop_class = "{US}"
manufacturer = "Acme  Sound"
model = "One"
rows = 4
columns = 6
blank = [[0, 0, 6, 1], [4, 2, 9, 9]]

[[regions]]
sop_class = "{US}"
manufacturer = "other"
keep_ultrasound = true
blank = [[1, 1, 1, 1]]

[[regions]]
sop_class = "1.2.840.10008.5.1.4.1.1.7"
blank = [[0, 0, 6, 4]]
""")
FIRST: Final = [[0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]
"""What the first rule leaves."""


def us(element: int, number: int) -> bytes:
    """Write an element of VR US."""
    return encode(head(element, b"US"), number.to_bytes(2, "little"))


def region(left: int, top: int, right: int, bottom: int) -> bytes:
    """Write an item of Sequence of Ultrasound Regions."""
    corners = zip((0x00186018, 0x0018601A, 0x0018601C, 0x0018601E), (left, top, right, bottom), strict=True)
    return b"".join(encode(head(tag, b"UL"), value.to_bytes(4, "little")) for tag, value in corners)


def ultrasound(
    *added: bytes, maker: bytes = b"ACME SOUND", samples: int = 1, planar: int = 0, frames: int = 1, bits: int = 8
) -> bytes:
    """Write a small ultrasound of 4 rows and 6 columns, all pixels 1."""
    octets = (1).to_bytes(bits // 8, "little") * (24 * samples * frames)
    elements = [
        encode(head(0x00080008, b"CS"), b"DERIVED\\SECONDARY"),
        encode(head(0x00080016, b"UI"), US.encode(), b"\0"),
        encode(head(0x00080060, b"CS"), b"US"),
        encode(head(0x00080070, b"LO"), maker),
        encode(head(0x00081090, b"LO"), b"one"),
        us(0x00280002, samples),
        encode(head(0x00280004, b"CS"), b"MONOCHROME2" if samples == 1 else b"RGB"),
        us(0x00280006, planar),
        encode(head(0x00280008, b"IS"), str(frames).encode()),
        us(0x00280010, 4),
        us(0x00280011, 6),
        us(0x00280100, bits),
        us(0x00280101, bits),
        us(0x00280102, bits - 1),
        encode(head(0x00280301, b"CS"), b"YES"),
        encode(head(0x7FE00010, b"OW"), octets),
        *added,
    ]
    return with_elements(*elements)


def parsed(file: bytes) -> pydicom.Dataset:
    """De-identify and read with the oracle."""
    return pydicom.dcmread(io.BytesIO(deidentified(file, ULTRASOUND)))


def reason_of(file: bytes, policy: Policy = ULTRASOUND) -> Reason:
    """Tell why a file is refused; fails if it is not."""
    with pytest.raises(RefusedError) as caught:
        deidentified(file, policy)
    return caught.value.reason


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("samples", "planar"), [(1, 0), (3, 0), (3, 1)])
@pytest.mark.parametrize("frames", [1, 3])
def test_rectangles_are_blanked_in_every_frame(bits: int, samples: int, planar: int, frames: int) -> None:
    """By pixel and by plane, in colour and in grey."""
    out = parsed(ultrasound(samples=samples, planar=planar, frames=frames, bits=bits))
    pixels = out.pixel_array.reshape((frames, 4, 6, samples))
    for frame in pixels:
        for sample in range(samples):
            assert frame[:, :, sample].tolist() == FIRST


def test_ultrasound_regions_are_kept_and_nothing_else() -> None:
    """A rectangle of the rule is blanked within them, too."""
    regions = encode_items(head(0x00186011, b"SQ"), [region(0, 1, 2, 2), region(5, 3, 9, 9)])
    out = parsed(ultrasound(regions, maker=b"OTHER"))
    assert out.pixel_array.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_blanked_images_say_so() -> None:
    """(0028,0301) and the code of the option, in these images only."""
    out = parsed(ultrasound())
    assert out.BurnedInAnnotation == "NO"
    codes = [item.CodeValue for item in out.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113101"]
    other = pydicom.dcmread(io.BytesIO(deidentified(with_elements(), ULTRASOUND)))
    assert "BurnedInAnnotation" not in other
    assert [item.CodeValue for item in other.DeidentificationMethodCodeSequence] == ["113100"]


@pytest.mark.parametrize("size", [1, 2, 5, 7, 24, 100])
def test_pieces_of_any_size_are_blanked_alike(size: int) -> None:
    """Where a piece ends has nothing to do with rows and frames."""
    file = ultrasound(frames=3, bits=16)
    length = 24 * 2 * 3
    run = deidentification_of(file[:-length], ULTRASOUND)
    pieces = [bytes(piece.octets) for piece in run.feed(b"")]
    for place in range(len(file) - length, len(file), size):
        pieces += [bytes(piece.octets) for piece in run.feed(file[place : place + size])]
    assert b"".join([*pieces, *(bytes(piece.octets) for piece in run.finish())]) == deidentified(file, ULTRASOUND)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (ultrasound(maker=b"NOBODY"), Reason.NO_REGION),
        (ultrasound(us(0x00280010, 3), encode(head(0x7FE00010, b"OW"), bytes(18))), Reason.NO_REGION),
        (ultrasound(maker=b"OTHER"), Reason.NO_REGION),
        (ultrasound(encode_items(head(0x00186011, b"SQ"), [region(5, 1, 2, 2)]), maker=b"OTHER"), Reason.NO_REGION),
        (ultrasound(encode_items(head(0x00186011, b"SQ"), [b""]), maker=b"OTHER"), Reason.NO_REGION),
        (ultrasound(us(0x00280100, 0), encode(head(0x7FE00010, b"OW"), b"")), Reason.PIXEL_LENGTH),
    ],
)
def test_what_no_rule_fits_is_refused(file: bytes, reason: Reason) -> None:
    """Another machine, another size, no regions to keep."""
    assert reason_of(file) is reason


def test_classes_without_a_rule_stay_closed() -> None:
    """A rule for one class opens no other."""
    assert reason_of(ultrasound(), RESEARCH) is Reason.SOP_CLASS
    multi = encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.3.1", b"\0")
    assert reason_of(ultrasound(multi)) is Reason.SOP_CLASS


def test_frames_that_are_not_decoded_are_refused_by_name() -> None:
    """Where no decoder gives back all bits, as of JPEG with 16."""
    capture = encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.7", b"\0")
    file = encapsulated(JPEG, item(jpeg() + END), extra={0x00080016: capture})
    assert reason_of(file) is Reason.COMPRESSED_REGION


def test_pixels_that_are_no_integers_are_refused() -> None:
    """Rules speak of pictures."""
    elements = elements_of_example() | {
        0x00080016: encode(head(0x00080016, b"UI"), b"1.2.840.10008.5.1.4.1.1.7", b"\0"),
        0x00280100: us(0x00280100, 32),
        0x7FE00008: encode(head(0x7FE00008, b"OF"), bytes(64)),
    }
    del elements[0x7FE00010]
    assert reason_of(part10(elements)) is Reason.PIXEL_LENGTH


@pytest.mark.parametrize("kind", [OtherKind.US, OtherKind.SC])
def test_no_planted_value_is_left_in_reviewed_images(kind: OtherKind) -> None:
    """The header goes the way of all headers."""
    file, tokens = planted_file(kind)
    policy = Policy.parse(
        f'name = "reviewed"\nheads = "refuse"\n[[regions]]\nsop_class = "{kind.value}"\nblank = [[0, 0, 32, 8]]'
    )
    out = deidentified(file, policy)
    assert find_planted(out, tokens) == []
    assert not np.any(pydicom.dcmread(io.BytesIO(out)).pixel_array[:8])


def test_rules_are_part_of_what_is_signed() -> None:
    """The digest covers them; a policy without any has the digest that it always had."""
    plain = 'name = "a"\nheads = "refuse"\n'
    ruled = plain + f'[[regions]]\nsop_class = "{US}"\nblank = [[0, 0, 1, 1]]'
    texts = [plain, ruled, ruled.replace("1, 1]", "1, 2]"), ruled + "\nrows = 4", ruled + "\nkeep_ultrasound = true"]
    assert len({Policy.parse(text).digest for text in texts}) == len(texts)
    assert RESEARCH.digest.hex() == "2adab76fed698237b2d945f54a7e9c8a20455b0775eb2b9c593bdf86b5361eab"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("regions = 1", "'regions' is a list"),
        ("regions = [1]", "'regions' is [[regions]] tables"),
        (f'[[regions]]\nsop_class = "{US}"\nrectangles = []', "'regions' is [[regions]] tables"),
        ("[[regions]]\nblank = [[0, 0, 1, 1]]", "'sop_class' must match"),
        (f'[[regions]]\nsop_class = "{US}"', "'blank' or keep_ultrasound"),
        (f'[[regions]]\nsop_class = "{US}"\nkeep_ultrasound = 1', "'blank' or keep_ultrasound"),
        (f'[[regions]]\nsop_class = "{US}"\nblank = 1', "'blank' is a list"),
        (f'[[regions]]\nsop_class = "{US}"\nblank = [[0, 0, 1]]', "'blank' is a list"),
        (f'[[regions]]\nsop_class = "{US}"\nblank = [[0, 0, 1, -1]]', "'blank' is a whole number"),
        (f'[[regions]]\nsop_class = "{US}"\nrows = true\nblank = [[0, 0, 1, 1]]', "'rows' is a whole number"),
        (f'[[regions]]\nsop_class = "{US}"\nmodel = "\\u00e4"\nblank = [[0, 0, 1, 1]]', "'model' must match"),
    ],
)
def test_a_wrong_rule_is_refused(table: str, message: str) -> None:
    """With its field, and its line where it has one."""
    with pytest.raises(ConfigurationError) as caught:
        Policy.parse(f'name = "a"\nheads = "refuse"\n{table}')
    assert message in str(caught.value)


def test_a_header_of_a_huge_image_costs_little() -> None:
    """What a header claims is not allocated before it has come."""
    size = 65534 * 65534
    file = ultrasound(
        us(0x00280010, 65534),
        us(0x00280011, 65534),
        head(0x7FE00010, b"OW") + b"\0\0" + size.to_bytes(4, "little"),
        encode_items(head(0x00186011, b"SQ"), [region(1, 1, 9, 9)]),
        maker=b"OTHER",
    )
    tracemalloc.start()
    run = deidentification_of(file, ULTRASOUND)
    run.feed(b"")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
