"""``mdmfs doctor``: look at a site from its configuration, and say what somebody has to see to."""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Final

import click
import trio

from mdmfs.cli.arguments import FILE
from mdmfs.cli.output import tell
from mdmfs.daemon.configuration import read_tables
from mdmfs.daemon.diagnosis import Check, examine
from mdmfs.daemon.slips import kind_of
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.finding import Finding, Severity, worst

EXIT: Final = {Severity.OK: 0, Severity.FAULT: 1, Severity.WARNING: 3}
COLOURS: Final = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.FAULT: "red"}

DOCTORS: Final = {
    "hospital": ("mdmfs.hospital", "HospitalConfiguration"),
    "keystore": ("mdmfs.keystore", "KeystoreConfiguration"),
    "mount": ("mdmfs.worker", "MountConfiguration"),
    "metadata": ("mdmfs.metadata", "MetadataConfiguration"),
}
"""The package that looks at a kind of configuration, imported when it is asked for, and what it reads one as."""
_ELSEWHERE: Final = "name the configuration of a hospital, a keystore, a metadata service or a mount; \
a hospital's names its projects, collections are looked at by mdmfs record define, policies by mdmfs policy digest"


@click.command()
@click.argument("configuration", type=FILE)
def doctor(configuration: pathlib.Path) -> None:
    """Look at everything that CONFIGURATION names, and tell what is wrong and what soon will be.

    0: all is well; 3: warnings; 1: faults. Nothing is changed, and nothing identifying is printed.
    """
    sys.exit(report(trio.run(examine, checks_for(configuration))))


def report(found: list[Finding]) -> int:
    """Print what was found, and give the exit code that says how bad it is."""
    severity = worst(found)
    findings = [finding._asdict() for finding in found]
    tell({"severity": severity.value, "findings": findings}, *map(_line, found))
    return EXIT[severity]


def checks_for(path: pathlib.Path) -> list[Check]:
    """Tell by its tables whose configuration it is, and give the checks; raises ``ConfigurationError``."""
    kind = kind_of(read_tables(path))
    if kind not in DOCTORS:
        message = f"{path} is no configuration of a zone" + (f" but that of a {kind}" if kind else "")
        raise ConfigurationError(message, what_to_do=_ELSEWHERE)
    package, name = DOCTORS[kind]
    configuration = getattr(importlib.import_module(f"{package}.configuration"), name).read(path)
    checks: list[Check] = importlib.import_module(f"{package}.doctor").checks_of(configuration)
    return checks


def _line(finding: Finding) -> str:
    severity = click.style(f"{finding.severity.value:8}", fg=COLOURS[finding.severity])
    return f"{severity}{finding.check:13}{finding.subject}: {finding.text}"
