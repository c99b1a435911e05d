"""The programs that people read images with, and a site with our mount on which they are tried."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.processes import running
from mdmfs.demo.site import PROJECT, READER, fill_pacs, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration

PACKAGES = (
    "dcmtk dicom3tools dcm2niix libgdcm-tools vtk-dicom-tools plastimatch mrtrix3 medcon libvtkgdcm-tools "
    "mricron aeskulap xvfb imagemagick"
)
"""Debian's, in which they are."""
SECONDS = 120.0
_TIME = re.compile(rb"[0-9.]+ (?=seconds|for core)")
FOLDER, IMAGE, MR, OUT = "FOLDER", "IMAGE", "MR", "OUT"
"""What stands in a command for a series of 60 CT slices, one slice of it, an MR series, and a new folder."""
_PYDICOM = "import pydicom, sys; print(pydicom.dcmread(sys.argv[1]).pixel_array.sum())"
_SCAN = """\
import pathlib, pydicom, sys
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(file.name, pydicom.dcmread(file, stop_before_pixels=True).InstanceNumber)
"""
_SIMPLEITK = """\
import SimpleITK, sys
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
print(SimpleITK.Hash(reader.Execute()))
"""
_NIBABEL = "import nibabel.nicom.dicomwrappers as w, sys; print(w.wrapper_from_file(sys.argv[1]).get_data().sum())"


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A command, in which words stand for what it shall read and where it shall write."""

    name: str
    command: tuple[str, ...]

    def is_installed(self) -> bool:
        """Look for it."""
        return shutil.which(self.command[0]) is not None

    def run(self, series: Path, mr: Path, out: Path) -> dict[str, bytes]:
        """Run it; gives what it has written, to standard output with the paths taken out, and into the folder."""
        out.mkdir()
        words = {FOLDER: series, IMAGE: series / "0030.dcm", MR: mr, OUT: out}
        command = [_filled(word, words) for word in self.command]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
        told = done.stdout
        for path in (series, mr, out):
            told = told.replace(str(path).encode(), b"")
        lines = sorted(_TIME.sub(b"", told).splitlines())  # directories list in any order
        return {"": b"\n".join(lines)} | {path.name: path.read_bytes() for path in out.iterdir()}


PROGRAMS = (
    Program("pydicom", (sys.executable, "-c", _PYDICOM, IMAGE)),
    Program("pydicom, headers", (sys.executable, "-c", _SCAN, FOLDER)),
    Program("SimpleITK", (sys.executable, "-c", _SIMPLEITK, FOLDER)),
    Program("nibabel", (sys.executable, "-c", _NIBABEL, IMAGE)),
    Program("dcm2niix", ("dcm2niix", "-b", "n", "-f", "series", "-o", OUT, FOLDER)),
    Program("dcmdump", ("dcmdump", IMAGE)),
    Program("dcmftest", ("dcmftest", IMAGE)),
    Program("dcm2pnm", ("dcm2pnm", "--write-png", IMAGE, f"{OUT}/image.png")),
    Program("dciodvfy", ("sh", "-c", f"dciodvfy {IMAGE} 2>&1")),
    Program("gdcmscanner", ("gdcmscanner", "-d", FOLDER, "-t", "0020,0032", "-p")),
    Program("gdcminfo", ("gdcminfo", IMAGE)),
    Program("gdcmconv", ("gdcmconv", "--raw", IMAGE, f"{OUT}/image.dcm")),
    Program("dicomdump", ("dicomdump", IMAGE)),
    Program("dicomtonifti", ("dicomtonifti", "-o", f"{OUT}/series.nii", FOLDER)),
    Program("plastimatch", ("plastimatch", "convert", "--input", FOLDER, "--output-img", f"{OUT}/series.nii")),
    Program("mrconvert", ("mrconvert", "-quiet", MR, f"{OUT}/series.nii")),
    Program("medcon", ("medcon", "-f", IMAGE, "-c", "nifti", "-o", f"{OUT}/image", "-w")),
)
WINDOWS = (("gdcmviewer", "gdcmviewer"), ("MRIcron", "mricron"), ("aeskulap", "aeskulap"))
"""Programs with a window, by name and command; each takes the path of an image."""


def _filled(word: str, words: dict[str, Path]) -> str:
    for name, path in words.items():
        word = word.replace(name, str(path))
    return word


@contextlib.contextmanager
def mounted_series(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Run a whole site on synthetic patients; gives a CT series of 60 slices and an MR series on its mount."""
    site = make_site(folder / "site", pacs="", inclusion=None, deadline=60.0)
    fill_pacs(site)
    with running(site) as processes:
        processes.start_pacs()
        processes.start_keystores()
        processes.start_metadata()
        processes.start_hospital()
        trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        mountpoint = mountpoint_of(site.state, READER)
        processes.start_mount(READER, mountpoint)
        [series] = [path for path in mountpoint.rglob("001-CT") if (path / "0060.dcm").exists()]
        [mr] = [path for path in mountpoint.rglob("002-MR") if (path.parent / "005-MR").exists()]
        yield series, mr
