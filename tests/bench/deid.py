"""De-identification of one CT slice of 512 KiB in memory, engine and gate, beside dicom-anonymizer and dicognito."""

from __future__ import annotations

import io
import statistics
import time
import warnings
from collections.abc import Callable

import pydicom
from dicognito.anonymizer import Anonymizer
from dicomanonymizer import anonymize_dataset
from pydicom import Dataset
from pydicom.data import get_testdata_file

from mdmfs.hospital.deid.deidentify import Deidentification, deidentify
from mdmfs.hospital.deid.part10 import read_file_meta
from mdmfs.hospital.deid.residue import ResidueGate
from tests.bench._frame import Bench, Measured
from tests.twins.deidentified import RESEARCH, SUBJECT

SIZE = 512
PIECE = 128 * 2**10
ROUNDS = 4
SLICES = 25

Deidentify = Callable[[bytes], bytes]


def slice_file() -> bytes:
    """Write a slice with the header of a real scanner (pydicom's CT_small) and 512 x 512 pixels of 12 bits in 16."""
    image = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    image.Rows = image.Columns = SIZE
    image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 0
    image.PixelData = b"".join(((number * 2654435761) >> 20 & 0xFFF).to_bytes(2, "little") for number in range(SIZE**2))
    image["PixelData"].VR = "OW"
    return saved(image)


def saved(dataset: Dataset) -> bytes:
    """Write a data set as a file in memory."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def ours(file: bytes) -> bytes:
    """Go the way of a registration: header, rules, residue, pixels, in the pieces that a PACS sends."""
    meta = read_file_meta(file)
    view = memoryview(file)[meta.size :]
    header = meta.incoming().feed(view[:PIECE])
    assert header is not None
    gate = ResidueGate(deidentify(header, RESEARCH, SUBJECT))
    return fed(gate, view)


def unsearched(file: bytes) -> bytes:
    """Go the same way, but for the search for residue, without which nothing leaves."""
    meta = read_file_meta(file)
    view = memoryview(file)[meta.size :]
    header = meta.incoming().feed(view[:PIECE])
    assert header is not None
    return fed(deidentify(header, RESEARCH, SUBJECT), view)


def fed(engine: ResidueGate | Deidentification, view: memoryview) -> bytes:
    """Pass what follows the first piece."""
    rest = range(PIECE, len(view), PIECE)
    pieces = [piece.octets for start in rest for piece in engine.feed(view[start : start + PIECE])]
    return b"".join([*pieces, *(piece.octets for piece in engine.finish())])


def dicom_anonymizer(file: bytes) -> bytes:
    """Read, anonymise by its rules of 2023, write."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    anonymize_dataset(dataset)
    return saved(dataset)


def dicognito() -> Deidentify:
    """Give its anonymiser, which is made once for all instances."""
    anonymizer = Anonymizer(seed="bench")

    def run(file: bytes) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(file))
        anonymizer.anonymize(dataset)
        return saved(dataset)

    return run


def milliseconds(engines: dict[str, Deidentify], file: bytes) -> dict[str, float]:
    """Take the median of a core's time: each engine does series in turns, of which the first slice does not count."""
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            engine(file)
            for _ in range(SLICES):
                start = time.process_time()
                engine(file)
                spent[name].append(time.process_time() - start)
    return {name: statistics.median(each) * 1e3 for name, each in spent.items()}


def measure() -> Measured:
    """Compare with the faster of the two; beside it, what the search for residue takes of our time (at most 20 %)."""
    warnings.simplefilter("ignore", UserWarning)  # of pydicom, about what the peers write
    file = slice_file()
    engines = {
        "mdmfs, research policy": ours,
        "mdmfs without the search for residue": unsearched,
        "dicom-anonymizer 2.1.0": dicom_anonymizer,
        "dicognito": dicognito(),
    }
    spent = milliseconds(engines, file)
    mine, engine_alone, *theirs = spent.values()
    rows = [("the search for residue takes", f"{100 * (mine - engine_alone) / mine:.0f} %", "")]
    rows += [(name, f"{each:.2f}", f"{len(file) / each / 1e3:.0f}") for name, each in spent.items()]
    return Measured(("one CT slice of 512 KiB", "ms", "MB/s"), rows, min(theirs) / mine)


BENCH = Bench(measure, bar=10)
