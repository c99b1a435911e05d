"""``mdmfs getfacl`` and ``mdmfs setfacl``: ACLs as text, asked of the hospital with the caller's own credential."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import click
import trio

from mdmfs.access.edit import Edit, EditKind
from mdmfs.access.text import AclText, parse_acl, parse_names
from mdmfs.cli.arguments import parsed
from mdmfs.cli.mounted import CONFIGURATION_OF_MOUNT, Place, find_place, open_hospital
from mdmfs.cli.output import tell
from mdmfs.model.errors import NoSuchFileError
from mdmfs.wire.client import Client
from mdmfs.wire.messages.acls import (
    ACL_EFFECT_PATH,
    CHANGE_ACL_PATH,
    READ_ACL_PATH,
    AclEffect,
    AclTexts,
    AskAclEffect,
    ChangeAcl,
    ChangedAcls,
    ReadAcl,
)

DEADLINE: Final = 60.0
INTERVAL: Final = 0.1
TIMEOUT: Final = 90.0
"""Longer than the usual lease: a mount that was killed has lapsed by then."""
PENDING: Final = 3
"""The exit code while a change does not hold everywhere yet."""
_VERSION: Final = re.compile(r"^# version: ([0-9]{1,18})$", re.MULTILINE)


class Begun(NamedTuple):
    """A change that is made at the hospital."""

    place: Place
    changed: ChangedAcls


@click.command()
@click.argument("path", nargs=-1, required=True)
@click.option("--files", is_flag=True, help="Of a directory, the ACL that the files directly in it share.")
@CONFIGURATION_OF_MOUNT
def getfacl(path: tuple[str, ...], configuration: pathlib.Path | None, *, files: bool) -> None:
    """Print the ACL of PATH, on a mount; a file without its own has the one that the files of its directory share."""
    for place in (find_place(one, configuration) for one in path):
        told = trio.run(_with_client, place, lambda client, place=place: _read(client, place))
        shown = told.texts[-1 if files else 0]
        if files and not shown.partition("\n")[0].endswith("/*"):
            message = f"{place.lfn} has no files yet"
            raise NoSuchFileError(message, what_to_do="look at its default entries: files will begin with them")
        _tell_acl(shown)


@click.command()
@click.argument("path", nargs=-1, required=True)
@click.option("-m", "--modify", multiple=True, metavar="ENTRIES", help="Add entries, or change their rights.")
@click.option("-x", "--remove", multiple=True, metavar="ENTRIES", help="Remove entries; without their rights.")
@click.option("-b", "--remove-all", is_flag=True, help="Leave the entries of the owner and of others only.")
@click.option("-k", "--remove-default", is_flag=True, help="Remove the default entries.")
@click.option("-d", "--default", "is_default", is_flag=True, help="-m and -x mean the default entries.")
@click.option("--set-file", type=click.File(), help="Entries in place of all others, as getfacl prints; - is stdin.")
@click.option("-n", "--no-mask", is_flag=True, help="Leave the mask as it is.")
@click.option("-R", "--recursive", is_flag=True, help="Of all directories below too, and of their files.")
@click.option("--files", is_flag=True, help="The ACL that the files directly in the directory share, not its own.")
@click.option("--test", "is_test", is_flag=True, help="Change nothing; print what the ACLs would be.")
@click.option("--timeout", type=float, default=TIMEOUT, show_default=True, help="Seconds to wait for its effect.")
@CONFIGURATION_OF_MOUNT
def setfacl(path: tuple[str, ...], configuration: pathlib.Path | None, timeout: float, **options: Any) -> None:  # noqa: ANN401 as click gives them
    """Change the ACLs of PATH, directories and files on a mount, and wait until the change holds everywhere.

    A file gets an ACL of its own; --files means the one that its siblings go on sharing.

    ENTRIES are [default:]user|group|mask|other:NAME:RIGHTS[@END]; with the rights r, w, x, a and i.
    Exit code 3: the change is made, and somebody has yet to hear of it; he is named.
    """
    edits, version = _edits(options)
    if not edits:
        message = "say what to change: -m, -x, -b, -k or --set-file"
        raise click.UsageError(message)
    begun: list[Begun] = []
    for place in [find_place(one, configuration) for one in path]:
        wish = ChangeAcl(
            str(place.lfn),
            edits,
            files=options["files"],
            recursive=options["recursive"],
            keeps_mask=options["no_mask"],
            is_test=options["is_test"],
            expected_version=version,
        )
        changed = trio.run(_with_client, place, lambda client, wish=wish: _change(client, wish))
        if changed is not None:
            begun.append(Begun(place, changed))
    waits = [trio.run(_with_client, one.place, lambda client, one=one: _wait(client, one, timeout)) for one in begun]
    sys.exit(PENDING if any(waits) else 0)


def _edits(options: dict[str, Any]) -> tuple[list[Edit], int]:
    """Give the steps in the order in which ``setfacl`` does them, and the version that a file speaks of."""
    edits: list[Edit] = []
    version = 0
    if options["set_file"] is not None:
        text = options["set_file"].read()
        edits.append(_edit(EditKind.REPLACE, [parse_acl(text)], is_default=False))
        found = _VERSION.findall(text)
        version = int(found[0]) if len(found) == 1 else 0
    if options["remove_all"]:
        edits.append(Edit(EditKind.CLEAR))
    if options["remove_default"]:
        edits.append(Edit(EditKind.CLEAR_DEFAULTS))
    if options["remove"]:
        edits.append(
            _edit(
                EditKind.REMOVE,
                [parsed(parse_names, one) for one in options["remove"]],
                is_default=options["is_default"],
            )
        )
    if options["modify"]:
        edits.append(
            _edit(
                EditKind.MODIFY, [parsed(parse_acl, one) for one in options["modify"]], is_default=options["is_default"]
            )
        )
    return edits, version


def _edit(kind: EditKind, texts: Iterable[AclText], *, is_default: bool) -> Edit:
    read = list(texts)
    entries = tuple(entry for text in read for entry in text.entries)
    defaults = tuple(entry for text in read for entry in text.defaults)
    return Edit(kind, (), entries + defaults) if is_default else Edit(kind, entries, defaults)


async def _with_client(place: Place, ask: Callable[[Client], Any]) -> Any:  # noqa: ANN401 whatever ``ask`` gives
    async with contextlib.aclosing(open_hospital(place.configuration)) as client:
        return await ask(client)


async def _read(client: Client, place: Place) -> AclTexts:
    return await client.call(READ_ACL_PATH, ReadAcl(str(place.lfn)), AclTexts, deadline=trio.current_time() + DEADLINE)


async def _change(client: Client, wish: ChangeAcl) -> ChangedAcls | None:
    """Change; or, for a test, print, and then there is nothing to wait for."""
    deadline = trio.current_time() + DEADLINE
    changed = await client.call(CHANGE_ACL_PATH, wish, ChangedAcls, deadline=deadline, is_idempotent=False)
    if wish.is_test:
        for text in changed.texts:
            _tell_acl(text)
        return None
    return changed


async def _wait(client: Client, begun: Begun, timeout: float) -> bool:  # noqa: ASYNC109 told, not raised
    """Wait; True where the change does not hold everywhere yet."""
    give_up_at = trio.current_time() + timeout
    while True:
        asked, deadline = AskAclEffect(begun.changed.epoch, begun.changed.version), trio.current_time() + DEADLINE
        effect = await client.call(ACL_EFFECT_PATH, asked, AclEffect, deadline=deadline)
        if effect.is_effective:
            return _tell_effect(str(begun.place.lfn), [])
        if trio.current_time() >= give_up_at:
            return _tell_effect(str(begun.place.lfn), [*effect.keystores, *effect.mounts])
        await trio.sleep(INTERVAL)


def _tell_acl(text: str) -> None:
    """Tell an ACL as it is printed; as an object: what its comments say, and its entries."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    comments = [line.removeprefix("# ").partition(": ") for line in lines if line.startswith("# ")]
    entries = [line for line in lines if not line.startswith("#")]
    tell({name: value for name, _, value in comments} | {"entries": entries}, text)


def _tell_effect(lfn: str, missing: Sequence[str]) -> bool:
    """Tell who has not heard of a change, if anybody; gives whether it is pending. What holds is told as JSON only."""
    pending = f"PENDING: {lfn} is changed at the hospital, and these have yet to hear of it:"
    told = {"file": lfn, "state": "PENDING" if missing else "effective", "missing": missing}
    tell(told, notes=[pending, *(f"  {name}" for name in missing)] if missing else ())
    return bool(missing)
