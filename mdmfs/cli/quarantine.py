"""``mdmfs quarantine``: what was refused or not included, and why; identifying nobody unless that is asked for."""

from __future__ import annotations

import pathlib
import time

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.hospital import ask_each
from mdmfs.cli.output import note, tell
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.wire.messages.administration import (
    QUARANTINE_EXPLAIN_PATH,
    QUARANTINE_PATH,
    QUARANTINE_RETRY_PATH,
    ExplainQuarantine,
    ListQuarantine,
    QuarantineExplanation,
    QuarantineGroup,
    QuarantineGroups,
    RealUids,
    Retried,
    RetryQuarantined,
)


@click.group()
def quarantine() -> None:
    """See what is not released, and why. CONFIGURATION is the hospital's; its daemon must run."""


@quarantine.command(name="list")
@click.argument("configuration", type=FILE)
@click.option("--project", default="", help="Only of this project.")
def list_(configuration: pathlib.Path, project: str) -> None:
    """List quarantined images by series and reason, the latest first."""
    settings = HospitalConfiguration.read(configuration)
    [found] = ask_each(settings, QUARANTINE_PATH, [ListQuarantine(project)], QuarantineGroups)
    for group in found.groups:
        tell(_object(group), _line(group))
    if found.left_out:
        note(f"and {found.left_out} more series: name a --project", left_out=found.left_out)
    if not found.groups:
        note("nothing is quarantined")


@quarantine.command()
@click.argument("configuration", type=FILE)
@click.argument("handles", nargs=-1, required=True)
@click.option("--identify", is_flag=True, help="Print the real UIDs, too. They name a patient's images: it is audited.")
def explain(configuration: pathlib.Path, handles: tuple[str, ...], *, identify: bool) -> None:
    """Explain what HANDLES of the list stand for, and what can be done."""
    if identify:
        forbid_core_dumps()
    settings, questions = HospitalConfiguration.read(configuration), [ExplainQuarantine(it, identify) for it in handles]
    for found in ask_each(settings, QUARANTINE_EXPLAIN_PATH, questions, QuarantineExplanation):
        group = found.group
        lines = [_line(group), f"  why: {found.what}", f"  what to do: {found.advice}"]
        if group.is_registered:
            lines.append("  it was registered, and its name was taken away; its keys are kept")
        lines += [_known_by(uids) for uids in found.uids]
        is_series = any(not uids.instance for uids in found.uids)
        left = 0 if is_series or not found.uids else group.images - len(found.uids)
        more = [f"  and {left} more"] if left else []
        uids = [{"study": one.study, "series": one.series, "instance": one.instance} for one in found.uids]
        tell(_object(group) | {"why": found.what, "what_to_do": found.advice, "uids": uids}, *lines, notes=more)


@quarantine.command()
@click.argument("configuration", type=FILE)
@click.argument("handles", nargs=-1, required=True)
def retry(configuration: pathlib.Path, handles: tuple[str, ...]) -> None:
    """Forget the refusals of HANDLES, after something was mended in the PACS: the next harvest asks again."""
    settings = HospitalConfiguration.read(configuration)
    done = ask_each(settings, QUARANTINE_RETRY_PATH, map(RetryQuarantined, handles), Retried)
    images = sum(one.images for one in done)
    tell({"images": images}, f"{images} images will be asked for again by the next harvest")


def _object(group: QuarantineGroup) -> dict[str, object]:
    return {name: getattr(group, name) for name in group.__struct_fields__}


def _known_by(uids: RealUids) -> str:
    instance = f" instance {uids.instance}" if uids.instance else ""
    return f"  study {uids.study} series {uids.series}{instance}"


def _line(group: QuarantineGroup) -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(group.latest))
    at = f" at {group.tag}" if group.tag else ""
    where = group.directory or "not registered"
    return f"{group.handle}  {day}  {group.project or '-'}  {group.images} images  {group.reason}{at}  {where}"
