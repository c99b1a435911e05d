"""``mdmfs subject identify``: the way back to the patient, for two people who both may, on the hospital's network."""

from __future__ import annotations

import contextlib
import pathlib
import sys

import click
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.hospital import ask
from mdmfs.cli.mounted import open_hospital
from mdmfs.cli.output import tell
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.projects import escaped_patient
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.records import IDENTIFY_PATH, Identified, Identify
from mdmfs.worker.configuration import MountConfiguration

PENDING = 3
"""The exit code while a second person is waited for."""


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("subject_id", metavar="SUBJECT")
@click.option("--purpose", required=True, help="What for: goes into the audit log; both must say the same.")
def identify(configuration: pathlib.Path, subject_id: str, purpose: str) -> None:
    """Print who SUBJECT is, to the second of two people who ask within 15 minutes. CONFIGURATION is a mount's.

    Each shows an own certificate or proxy and needs the right i in the project. 3 while the second is waited for.
    """
    forbid_core_dumps()
    asked = Identify(parsed(SubjectId.parse, subject_id).text, purpose)
    told = trio.run(_ask, MountConfiguration.read(configuration), asked)
    if told.is_pending:
        waiting = "noted: a second person has to ask for the same subject and purpose within 15 minutes"
        tell({"state": "PENDING"}, notes=[waiting])
        sys.exit(PENDING)
    tell(
        {"patient_id": told.patient_id, "issuer": told.issuer, "date_offset_days": told.date_offset_days},
        f"patient {escaped_patient(PatientKey(told.issuer, told.patient_id))}",
        notes=[f"dates were moved by {told.date_offset_days} days"],
    )


async def _ask(configuration: MountConfiguration, asked: Identify) -> Identified:
    async with contextlib.aclosing(open_hospital(configuration)) as client:
        return await ask(client, IDENTIFY_PATH, asked, Identified)
