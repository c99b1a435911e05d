"""``mdmfs doctor``: look at a site from its configuration, and say what somebody has to see to."""

from __future__ import annotations

import pathlib
import sys
import tomllib
from collections.abc import Callable
from typing import Final

import click
import trio

from mdmfs.cli.output import tell
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.doctor import checks_of as of_hospital
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.doctor import checks_of as of_keystore
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.doctor import checks_of as of_metadata
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.finding import Finding, Severity, worst
from mdmfs.wire.diagnosis import Check, examine
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.doctor import checks_of as of_mount

EXIT: Final = {Severity.OK: 0, Severity.FAULT: 1, Severity.WARNING: 3}
COLOURS: Final = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.FAULT: "red"}

Checks = Callable[[pathlib.Path], list[Check]]


KINDS: Final[dict[str, Checks]] = {
    "pacs": lambda path: of_hospital(HospitalConfiguration.read(path)),
    "keystore": lambda path: of_keystore(KeystoreConfiguration.read(path)),
    "trust": lambda path: of_mount(MountConfiguration.read(path)),
    "metadata": lambda path: of_metadata(MetadataConfiguration.read(path)),
}
"""A key that only this kind of configuration has, or none before it, and what is looked at then."""


@click.command()
@click.argument("configuration", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
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
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"{path} cannot be read as TOML: {error}"
        raise ConfigurationError(message) from error
    checks = next((checks for table, checks in KINDS.items() if table in tables), None)
    if checks is None:
        message = f"{path} is no configuration of a zone: it has none of {sorted(KINDS)}"
        raise ConfigurationError(message)
    return checks(path)


def _line(finding: Finding) -> str:
    severity = click.style(f"{finding.severity.value:8}", fg=COLOURS[finding.severity])
    return f"{severity}{finding.check:13}{finding.subject}: {finding.text}"
