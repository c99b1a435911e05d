"""``mdmfs subject``: follow what a hospital did to its patients, and the way back to one."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import click
import msgspec
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.hospital import ask_each, asking
from mdmfs.cli.identify import identify
from mdmfs.cli.output import invite, tell
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.administration import (
    FORGET_PATH,
    MERGE_PATH,
    ForgetSubjects,
    Forgotten,
    Merged,
    MergeSubjects,
)


@click.group()
def subject() -> None:
    """See to who is who. CONFIGURATION is the hospital's; its daemon must run."""


subject.add_command(identify)


FORGET_SECONDS: Final = 300.0
"""For an answer: the last subject that it is about may have had 100,000 files."""
_FORM: Final = "write each merge as a line 'patient ID^^^ISSUER', and below it a line 'into ID^^^ISSUER'"


@subject.command()
@click.argument("configuration", type=FILE)
@click.argument("project")
@click.option(
    "--from", "source", type=click.File(encoding="utf-8"), default="-", help="A file; default: standard input."
)
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what would be done.")
def merge(configuration: pathlib.Path, project: str, source: TextIO, *, is_dry: bool) -> None:
    """Follow the hospital where it has merged patients: what was put away for that is shown again.

    Each merge is two lines: 'patient ID^^^ISSUER', and below it 'into ID^^^ISSUER'. Patients are never arguments:
    those are seen by everybody on the machine.
    """
    forbid_core_dumps()
    settings = HospitalConfiguration.read(configuration)
    invite(source, "'patient ID^^^ISSUER' on a line, 'into ID^^^ISSUER' on the next, again for more; then Ctrl-D:")
    merges = read_merges(source.read().splitlines())
    questions = [MergeSubjects(project, patient, into, is_dry) for patient, into in merges]
    for one in ask_each(settings, MERGE_PATH, questions, Merged):
        kept = "" if one.subject == one.continues else f"; new images come as sub-{one.continues}"
        would = "would be shown" if is_dry else "shown"
        told = {"subject": one.subject, "continues": one.continues, "series": one.series, "is_dry_run": is_dry}
        tell(told, f"sub-{one.subject}: {one.series} series {would} again{kept}")


def read_merges(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Read pairs of lines; raises ``ConfigurationError`` that names a line by its number and not by what it says."""
    told = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    told = [(number, line) for number, line in told if line and not line.startswith("#")]
    merges = []
    for (number, first), (_, second) in zip(told[::2], [*told[1::2], (0, "")], strict=False):
        if not first.startswith("patient ") or not second.startswith("into "):
            message = f"line {number} is of no merge"
            raise ConfigurationError(message, what_to_do=_FORM)
        merges.append((first.removeprefix("patient "), second.removeprefix("into ")))
    if not merges:
        message = "nothing to merge was given"
        raise ConfigurationError(message, what_to_do=_FORM)
    return merges


@subject.command()
@click.argument("configuration", type=FILE)
@click.argument("subjects", nargs=-1)
@click.option("--project", default="", help="All subjects of this project.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what would be done.")
def forget(configuration: pathlib.Path, subjects: tuple[str, ...], project: str, *, is_dry: bool) -> None:
    """Forget for ever who SUBJECTS (sub-...) are, of whom all files are destroyed; 1 if one has to be kept.

    Nothing leads from a pseudonym, a file or the audit log to the patient then: ask before who had his images.
    """
    if bool(subjects) == bool(project):
        message = "name subjects, or a --project"
        raise click.UsageError(message)
    named = [parsed(SubjectId.parse, one).text for one in subjects]
    done = trio.run(_forget, HospitalConfiguration.read(configuration), ForgetSubjects(named, project, is_dry=is_dry))
    for text, files in done.files.items():
        state = "would be forgotten" if is_dry else "forgotten"
        tell({"subject": text, "state": state, "files": files}, f"sub-{text}: {state}, {files} files")
    for text, why in done.kept.items():
        tell({"subject": text, "state": "kept", "why": why}, f"sub-{text}: kept, {why}")
    sys.exit(1 if done.kept else 0)


async def _forget(configuration: HospitalConfiguration, question: ForgetSubjects) -> Forgotten:
    files: dict[str, int] = {}
    kept: dict[str, str] = {}
    async with asking(configuration) as client:
        while True:
            told = await client.call(FORGET_PATH, question, Forgotten, deadline=trio.current_time() + FORGET_SECONDS)
            files |= told.files
            kept |= told.kept
            if not told.after:
                return Forgotten(files, kept)
            left = [one for one in question.subjects if one not in files and one not in kept]
            question = msgspec.structs.replace(question, subjects=left, after=told.after)
