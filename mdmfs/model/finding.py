"""What a look at a site finds: one sentence about one thing, and whether anybody has to do something about it."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Severity(enum.StrEnum):
    """How bad it is; the worst first."""

    FAULT = "fault"
    """Something does not work, or is about to give way."""
    WARNING = "warning"
    """It works, and somebody should look before it does not."""
    OK = "ok"
    """As it should be."""


class Finding(NamedTuple):
    """One result of a check."""

    check: str
    """The check's name, as docs/commands.md lists it."""
    subject: str
    """What was looked at: a PACS, a keystore, a file, by the name that the configuration gives it."""
    severity: Severity
    text: str
    """What is so, and what to do about it. Nothing identifying, no key."""


def worst(findings: list[Finding]) -> Severity:
    """Give the worst severity; OK where there is nothing."""
    order = list(Severity)
    return min((finding.severity for finding in findings), key=order.index, default=Severity.OK)
