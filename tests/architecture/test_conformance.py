"""The conformance statements claim what the code does: codes, editions, generation, limits and every number in them."""

from __future__ import annotations

import pathlib
import re
from typing import Final

from mdmfs.hospital.deid import csa, profile, untold
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.deid.marks import _BASIC, _OPTIONS, _PIXELS
from mdmfs.hospital.deid.policy import APPROVED_BY_NAME, Option
from mdmfs.hospital.deid.pseudonyms import MAX_WEEKS_BACK, MIN_WEEKS_BACK
from mdmfs.hospital.deid.residue import MAX_DESCRIBED, MAX_NAMES, MAX_SEARCHED
from mdmfs.hospital.deid.tables import profile as profile_table
from mdmfs.hospital.deid.tables import safe_private
from mdmfs.hospital.deid.terms import DESCRIPTORS
from mdmfs.hospital.deid.tokens import MIN_DIGITS, MIN_LETTERS, MIN_NUMBER_DIGITS
from mdmfs.hospital.dicom import breaker, negotiation, receive, remote
from mdmfs.hospital.dicom.link import MIN_PROGRESS_BYTES
from mdmfs.hospital.dicom.pacs import Politeness
from mdmfs.hospital.dicom.pdu import MAX_PDU_BYTES
from mdmfs.hospital.dicom.receive import ReceiverLimits

DOCS: Final = pathlib.Path(__file__).parents[2] / "docs"
STATEMENT: Final = (DOCS / "conformance.md").read_text(encoding="utf-8")
FLAT: Final = " ".join(STATEMENT.split())
PACS_PAGE: Final = (DOCS / "pacs.md").read_text(encoding="utf-8")
NUMBERS: Final = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def claims() -> dict[str, str]:
    """Read which code is claimed when."""
    return dict(re.findall(r"^\| [^|]+ \| (\d+) \| ([^|]+) \|$", STATEMENT, re.MULTILINE))


def test_every_option_is_claimed_under_the_code_that_images_carry() -> None:
    """By the name that a policy gives it; two are the engine's own, and two are never claimed."""
    by_policy = {code: re.findall(r"`([a-z-]+)`", when) for code, when in claims().items()}
    told = {names[0]: code for code, names in by_policy.items() if names}
    assert told == {option.value: code.value.decode() for option, code in _OPTIONS.items()}
    assert _OPTIONS.keys() == set(Option)
    assert claims()[_BASIC.value.decode()] == "always"
    assert "rule fits" in claims()[_PIXELS.value.decode()]
    others = claims().keys() - set(told.values()) - {_BASIC.value.decode(), _PIXELS.value.decode()}
    assert {code: claims()[code].partition(":")[0] for code in others} == {"113102": "no", "113110": "never"}


def test_what_needs_an_approval_is_said_to() -> None:
    """Whoever signs must know which options he is asked for by name."""
    approved = {code for code, when in claims().items() if "with a named approval" in when}
    assert approved == {_OPTIONS[option].value.decode() for option in APPROVED_BY_NAME}


def test_the_statement_is_of_this_engine_and_these_tables() -> None:
    """Of another generation, or another edition, it would be of another program."""
    assert f"engine generation {ENGINE_GENERATION}," in FLAT
    for title, table in (("E.1-1", profile_table), ("E.3.10-1", safe_private)):
        edition = re.search(r"\b20\d\d[a-e]\b", table.__doc__ or "")
        assert edition
        assert f"Table {title} of edition {edition[0]}" in FLAT


def test_every_number_of_the_statement_is_the_engines() -> None:
    """Who reads it decides by them."""
    assert f"({MIN_WEEKS_BACK} to {MAX_WEEKS_BACK}, back)" in FLAT
    assert f"of {len(DESCRIPTORS)} descriptors" in FLAT
    assert f"{NUMBERS[len(profile.REVIEWED_PRIVATE)]} numbers that we reviewed" in FLAT
    assert f"written anew from {NUMBERS[len(csa._ALLOWED)]} names" in FLAT  # noqa: SLF001
    floats = f"0 or from {untold.MIN_FLOAT:.0e} to {untold.MAX_FLOAT:.0f}".replace("e-0", "e-")
    assert floats in FLAT
    limits = (MIN_LETTERS, MIN_DIGITS, MIN_NUMBER_DIGITS)
    assert "less than {} letters, numbers of less than {} digits ({} in".format(*(NUMBERS[it] for it in limits)) in FLAT
    assert f"more than {MAX_SEARCHED >> 20} MiB of different texts and codes" in FLAT
    assert f"{MAX_NAMES >> 10} KiB of names alone" in FLAT
    assert f"or {MAX_DESCRIBED >> 20} MiB of free text" in FLAT
    assert f"a single integer below 2^{untold.MAX_INTEGER.bit_length() - 1}" in FLAT


def test_a_pacs_bears_what_its_page_says() -> None:
    """Its people have agreed to that, and to no more."""
    ours, its = Politeness(), ReceiverLimits()
    told = (
        f"`pacs.associations` ({ours.max_associations})",
        f"{ours.idle_seconds:.0f} s, then released",
        f"aborted: {remote._CLOSE_SECONDS:.0f} s at most",  # noqa: SLF001 no other place has a use for it
        f"negotiating | {ours.connect_timeout:.0f} s",
        f"less than {MIN_PROGRESS_BYTES // 2**10} KiB of an image | {ours.progress_timeout:.0f} s",
        f"{NUMBERS[breaker.TOLERATED]} failures in a row",
        f"for {breaker.FIRST_PAUSE:.0f} s, then twice as long each time, {breaker.LONGEST_PAUSE / 60:.0f} min at most",
        f"up to {ours.list_size} instances",
        f"{NUMBERS[len(negotiation.SERVICES)]} for the services",
        f"up to {negotiation.MAX_STORAGE_CONTEXTS} for storage",
        f"{MAX_PDU_BYTES // 2**10} KiB are announced",
        f"class {negotiation.IMPLEMENTATION_CLASS_UID}, version {negotiation.IMPLEMENTATION_VERSION}",
        f"more than {its.associations} of one PACS",
        f"{its.connections} at once; {its.negotiation_timeout:.0f} s to negotiate",
        f"{its.progress_timeout:.0f} s without 64 KiB",
        f"{its.idle_timeout:.0f} s between two requests",
    )
    flat = " ".join(PACS_PAGE.lower().split())
    assert [one for one in told if one.lower() not in flat] == []


def test_every_status_that_our_scp_answers_is_told() -> None:
    """Whoever sees one in the PACS's log looks there."""
    codes = (receive._SUCCESS, receive._NOT_KEPT, receive._NOBODY_WAITS, receive._NOT_UNDERSTOOD)  # noqa: SLF001
    assert {f"{code:04X}" for code in codes} == set(re.findall(r"^\| ([0-9A-F]{4}) \|", PACS_PAGE, re.MULTILINE))
