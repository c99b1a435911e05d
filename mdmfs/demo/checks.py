"""``mdmfs demo --check``: everything that mdmfs promises, tried on a running site."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import time
from collections.abc import Callable

from mdmfs.demo import metadata_trials, trials
from mdmfs.demo.ground import BrokenPromiseError, Ground
from mdmfs.demo.processes import Processes
from mdmfs.demo.site import Site
from mdmfs.model.errors import MdmfsError


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How one trial ended."""

    claim: str
    is_met: bool
    detail: str
    seconds: float


Trial = Callable[[Ground], str]
"""Tries one promise: gives what was seen, raises ``BrokenPromiseError`` where it does not hold."""

TRIALS: tuple[tuple[str, Trial], ...] = (
    ("every file opens; size and SHA-256 as told before; a second process reads the same", trials.everything_opens),
    ("dcmdump, gdcminfo, dciodvfy, SimpleITK and dcm2niix work on the mount", trials.programs_work),
    ("no planted identifier outside the hospital", trials.nothing_identifying),
    ("a stranger sees and opens nothing", trials.stranger_gets_nothing),
    ("no certificate, or one of another CA: nothing", trials.outsiders_get_nothing),
    (
        "series are found by attributes, by whom may read them only; kill -9 loses nothing",
        metadata_trials.attributes_find_images,
    ),
    (
        "no planted identifier in what is found: formats, plans, errors, directories, snapshots, logs, database",
        metadata_trials.finding_tells_nothing,
    ),
    ("flipped, cut or swapped ciphertext: EIO or a fresh fetch, never wrong bytes", trials.damage_is_noticed),
    ("one keystore stopped: everything reads; two: a clear error in time; one back: reads", trials.keystores_may_fail),
    ("PACS stopped: cached files read, others fail in time, listings work", trials.pacs_may_fail),
    ("kill -9 of the mount: the next one needs no cleaning up", trials.mount_may_be_killed),
)
OWN_PACS_ONLY = frozenset({trials.nothing_identifying, metadata_trials.finding_tells_nothing, trials.pacs_may_fail})
"""With a real PACS nobody knows what is planted in it, and it is not ours to stop."""


def check(site: Site, processes: Processes, mountpoint: pathlib.Path, *, has_own_pacs: bool) -> list[Result]:
    """Try everything, and tell how each promise held."""
    ground = Ground(site, processes, mountpoint)
    return [_try(claim, trial, ground) for claim, trial in TRIALS if has_own_pacs or trial not in OWN_PACS_ONLY]


def _try(claim: str, trial: Trial, ground: Ground) -> Result:
    begun = time.monotonic()
    try:
        detail, is_met = trial(ground), True
    except (BrokenPromiseError, MdmfsError, OSError, subprocess.SubprocessError) as error:
        detail, is_met = f"{type(error).__name__}: {error}", False
    return Result(claim, is_met, detail, time.monotonic() - begun)
