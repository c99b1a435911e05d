"""Real files of other projects: each is de-identified into a valid file or refused by name, and none crashes."""

from __future__ import annotations

import collections
import gzip
import importlib.util
import io
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Final

import pydicom
import pytest

from mdmfs.hospital.deid.marks import (
    BURNED_IN,
    IDENTITY_REMOVED,
    METHOD,
    METHOD_CODES,
    RECOGNIZABLE_FEATURES,
    TIMES_MODIFIED,
)
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from tests.twins.deidentified import deidentified

PACKAGES: Final = ("pydicom", "data_store", "nibabel", "deid_data", "pynetdicom")
MAGIC_AT: Final = 128
LARGEST: Final = 40 * 2**20
MODALITIES: Final = frozenset({"CT", "MR", "PT", "RTPLAN", "RTDOSE", "RTSTRUCT", "SEG"})
EXPECTED: Final = frozenset(
    {Reason.IMAGE_TYPE, Reason.NO_PATIENT, Reason.CONVERSION_TYPE, Reason.PIXEL_LENGTH, Reason.SOP_CLASS}
)
"""Refusals that the policy asks for: derived images, no patient, digitised film, files without their pixels."""

BROKEN: Final = frozenset(
    {
        "badVR.dcm",  # its Number of Frames is 1A
        "bad_sequence.dcm",  # names no instance
        "ctbrain1.dcm",  # tags out of order, and a capture that calls itself CT
        "ctbrain2.dcm",
        "decimal_rescale.dcm",  # names no class
        "rtdose_expb.dcm",  # 32 bits in Big Endian: pydicom and DCMTK read different numbers
        "rtdose_expb_1frame.dcm",
        "rtplan_truncated.dcm",
    }
)
"""Files of allowed classes that are no valid objects."""
ACCEPTED_SHARE: Final = 0.95
"""Of valid objects of the modalities that the policy lets through."""
MIN_ACCEPTED: Final = 45
NUMBERS: Final = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "DS", "IS"})
MARKS: Final = {BURNED_IN, IDENTITY_REMOVED, METHOD, METHOD_CODES, RECOGNIZABLE_FEATURES, TIMES_MODIFIED}
SHORTENED: Final = 0x0040A730
"""Content Sequence loses items that tell who somebody is."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of what is wrong with its test files


def files() -> Iterator[pathlib.Path]:
    """List the files of the packages' folders, as far as they are installed."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())


def instances() -> Iterator[tuple[str, bytes]]:
    """Read those that are DICOM files, also where they are compressed."""
    for path in files():
        if path.stat().st_size <= LARGEST:
            octets = path.read_bytes()
            octets = gzip.decompress(octets) if path.name.endswith(".dcm.gz") else octets
            if octets[MAGIC_AT : MAGIC_AT + 4] == b"DICM":
                yield path.name, octets


def errors_of(octets: bytes) -> collections.Counter[str]:
    """Ask dciodvfy; values in its messages are left out, since they are replaced."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(octets)
        file.flush()
        run = subprocess.run(["dciodvfy", file.name], capture_output=True, check=False)
    lines = (run.stderr + run.stdout).decode("latin_1").splitlines()
    return collections.Counter(re.sub(r"<[0-9.]+>", "<uid>", line) for line in lines if line.startswith("Error"))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_real_files_come_out_valid_or_are_refused_by_name() -> None:
    """No new error by dciodvfy, the same pixels by pydicom, and refusals of what the policy refuses."""
    accepted, refused = [], collections.Counter[Reason]()
    unexpected = []
    for name, octets in instances():
        try:
            out = deidentified(octets)
        except RefusedError as refusal:
            refused[refusal.reason] += 1
            modality = pydicom.dcmread(io.BytesIO(octets), stop_before_pixels=True, force=True).get("Modality")
            if modality in MODALITIES and refusal.reason not in EXPECTED and name not in BROKEN:
                unexpected.append((name, refusal.reason))
            continue
        accepted.append(name)
        assert not errors_of(out) - errors_of(octets), name
        assert pixels(octets) == pixels(out), name
        before, after = (pydicom.dcmread(io.BytesIO(file)) for file in (octets, out))
        assert list(differences(before, after)) == [], name
    assert len(accepted) >= MIN_ACCEPTED
    assert len(accepted) >= ACCEPTED_SHARE * (len(accepted) + len(unexpected)), unexpected
    assert sum(refused.values()) > 0


def differences(before: pydicom.Dataset, after: pydicom.Dataset) -> Iterator[str]:
    """Compare what pydicom reads of both: nothing new but our marks, all numbers and items as they were."""
    for element in after:
        tag = element.tag
        if tag in MARKS:
            continue
        if tag not in before:
            yield f"{tag} is new"
        elif element.VR == "SQ":
            items = before[tag].value or []
            if len(items) != len(element.value) and tag != SHORTENED:
                yield f"{tag} has {len(element.value)} items of {len(items)}"
            for one, other in zip(items, element.value, strict=False):
                yield from differences(one, other)
        elif element.VR in NUMBERS and before[tag].value != element.value:
            yield f"{tag} is another number"


def pixels(file: bytes) -> object:
    """Decode the pixels of a file; with pydicom where it needs no plugin, else with GDCM."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    if "PixelData" not in dataset:
        return None
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return dataset.pixel_array.tolist()
    with tempfile.TemporaryDirectory() as folder:
        source, decoded = pathlib.Path(folder) / "in.dcm", pathlib.Path(folder) / "out.dcm"
        source.write_bytes(file)
        subprocess.run(["gdcmconv", "--raw", source, decoded], check=True, capture_output=True)
        return pydicom.dcmread(decoded).PixelData
