"""The conformance statement claims what the engine does: codes, editions, generation and every number in it."""

from __future__ import annotations

import pathlib
import re
from typing import Final

from mdmfs.hospital.deid import csa, profile, untold
from mdmfs.hospital.deid.deidentify import ENGINE_GENERATION
from mdmfs.hospital.deid.marks import _BASIC, _OPTIONS, _PIXELS
from mdmfs.hospital.deid.policy import APPROVED_BY_NAME, Option
from mdmfs.hospital.deid.pseudonyms import MAX_WEEKS_BACK, MIN_WEEKS_BACK
from mdmfs.hospital.deid.tables import profile as profile_table
from mdmfs.hospital.deid.tables import safe_private
from mdmfs.hospital.deid.terms import DESCRIPTORS

STATEMENT: Final = (pathlib.Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
FLAT: Final = " ".join(STATEMENT.split())
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
    assert f"a single integer below 2^{untold.MAX_INTEGER.bit_length() - 1}" in FLAT
