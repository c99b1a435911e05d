"""Planted identifiers that are left by us, beside Orthanc, dicom-anonymizer and dicognito on the same files.

A refusal of a kind that the policy allows counts as a failure, by as much as was planted. What no policy allows is
shown and not counted.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.refusal import RefusedError
from tests.bench._frame import Bench, Measured
from tests.bench.deid import dicognito, dicom_anonymizer
from tests.twins.deidentified import RESEARCH, STRICT, deidentified, reviewed
from tests.twins.frames import commented
from tests.twins.planted import CHARACTERS, Kind, OtherKind, find_planted, in_characters_of, planted_file
from tests.twins.servers import free_port, orthanc

FAILED = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError, OSError)
"""What the peers raise where they do not get through."""

BLANKED_KINDS = {OtherKind.US, OtherKind.SC}
CLOSED_KINDS = {OtherKind.PDF.name}
"""No policy allows them."""
DEPTH = 3
POLICIES = {kind.name: [reviewed(kind.value, is_blanked=kind in BLANKED_KINDS)] for kind in OtherKind}
"""For what must be named by a policy, one that does."""

Deidentify = Callable[[bytes], bytes]


@contextlib.contextmanager
def orthanc_anonymize() -> Iterator[Deidentify]:
    """Start Orthanc with its REST interface and give its anonymisation of one instance."""
    port = free_port()
    settings = {"HttpServerEnabled": True, "HttpPort": port, "AuthenticationEnabled": False, "OverwriteInstances": True}

    def post(path: str, body: bytes) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=60) as answer:
            octets: bytes = answer.read()
            return octets

    def run(file: bytes) -> bytes:
        name = json.loads(post("/instances", file))["ID"]
        return post(f"/instances/{name}/anonymize", b"{}")

    with tempfile.TemporaryDirectory() as folder, orthanc(Path(folder), settings):
        yield run


def files() -> dict[str, tuple[bytes, frozenset[str]]]:
    """Give a file of each kind, with its tokens; the last one has some in a compressed frame too."""
    made = {kind.name: planted_file(kind, depth=DEPTH) for kind in (*Kind, *OtherKind)}
    made |= {f"MR, {charset}": in_characters_of(charset) for charset in CHARACTERS}
    return made | {"CT, JPEG 2000": commented(*planted_file(Kind.CT))}


def counted(engine: Deidentify, file: bytes, tokens: frozenset[str]) -> tuple[str, int]:
    """Tell how many tokens are left; where we do not get through, all of them count."""
    try:
        left = len(find_planted(engine(file), tokens))
    except RefusedError as refusal:
        return f"refused: {refusal.reason}", len(tokens)
    except FAILED as error:
        return f"failed: {type(error).__name__}", len(tokens)
    return str(left), left


def under(policy: Policy) -> Deidentify:
    """Give our engine under a policy."""
    return lambda file: deidentified(file, policy)


def measure() -> Measured:
    """Count for each file and engine; the ratio is what is left by us, in all."""
    warnings.simplefilter("ignore")  # pydicom and the peers warn of nearly everything in these files
    rows, ours = [], 0
    with orthanc_anonymize() as orthancs:
        peers = {"Orthanc": orthancs, "dicom-anonymizer": dicom_anonymizer, "dicognito": dicognito()}
        for name, (file, tokens) in files().items():
            policies = POLICIES.get(name, [STRICT, RESEARCH])
            mine = [(policy.name, *counted(under(policy), file, tokens)) for policy in policies]
            if name not in CLOSED_KINDS:
                ours += sum(left for _, _, left in mine)
            told = ", ".join(f"{policy}: {what}" for policy, what, _ in mine)
            rows.append((name, str(len(tokens)), told, *(counted(peer, file, tokens)[0] for peer in peers.values())))
    return Measured(("kind", "planted", "mdmfs, by policy", *peers), rows, float(ours))


BENCH = Bench(measure, bar=0, at_most=True)
