"""What commands say: results on standard output, all else on standard error; with ``--json``, each line is an object.

This is the one place where that is decided. A command gives every result twice: as names and values, and as lines.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NoReturn, TextIO, TypeVar

import click
from rich.console import Console
from rich.progress import Progress, ProgressColumn

from mdmfs.cli.logs import log_to_standard_error
from mdmfs.daemon.outline import outline
from mdmfs.model.errors import (
    InterruptedCallError,
    MdmfsError,
    OutOfSpaceError,
)

FAILED: Final = 1
OUR_MISTAKE: Final = 70
T = TypeVar("T")
ERROR: Final = "mdmfs: "
ADVICE: Final = "  what to do: "
"""With these the two lines of an error begin."""
_JSON: Final = "--json"
_KEY: Final = "mdmfs.json"
_GOES_ON: Final = "mend what it says, the hospital's log tells more; started again, it goes on where it stopped"
_REPORT: Final = "report it, with the version that mdmfs --version tells"
_DAEMONS: Final = {"hospitald", "keystored", "metadatad", "mount"}


def usual_level(root: click.Context) -> str:
    """Tell what is logged where nobody says: of a daemon its life, of a command what may be wrong."""
    return "info" if root.invoked_subcommand in _DAEMONS else "warning"


def _ask_for_json(context: click.Context, _: click.Parameter, is_json: bool) -> None:  # noqa: FBT001 of click
    """Note that JSON is wanted, and let logs be JSON too; the commands below see the same notes."""
    if is_json:
        context.meta[_KEY] = True
        root = context.find_root()
        log_to_standard_error(root.params.get("log_level") or usual_level(root), is_json=True)


def json_option() -> click.Option:
    """Make the option; before the command and after it, it means the same."""
    return click.Option(
        [_JSON],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_ask_for_json,
        help="Print results and errors as JSON, an object on each line.",
    )


def speak_json(command: click.Command) -> None:
    """Give a command, or all of a group, the option."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            speak_json(below)
    elif not any(_JSON in one.opts for one in command.params):
        command.params.append(json_option())


def is_json() -> bool:
    """Tell whether the command that runs was asked for JSON."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_KEY))


def tell(told: Mapping[str, object], *lines: str, notes: Iterable[str] = ()) -> None:
    """Tell a result: one object, or lines for people, and notes about it on standard error."""
    if is_json():
        click.echo(encoded(told))
        return
    for line in lines:
        click.echo(line)
    for line in notes:
        click.echo(line, err=True)


def note(text: str, **values: object) -> None:
    """Say something on standard error that is no result; ``values`` are what an object says beside the text."""
    click.echo(encoded({"note": text.strip(), **values}) if is_json() else text, err=True)


def invite(source: TextIO, text: str) -> None:
    """Tell whoever sits at a terminal what is read from it; a file or a pipe knows."""
    if source.isatty() and not is_json():
        click.echo(text, err=True)


def note_silence(silent: Mapping[str, str]) -> None:
    """Name hospitals that did not answer: what they have is missing."""
    for name, reason in silent.items():
        text = f"mdmfs: {name} did not answer, what it has is missing: {reason}"
        note(text, hospital=name, reason=reason)


def fail(message: str, code: str = "failed") -> NoReturn:
    """End the command: a daemon has told why it could not do its work."""
    _complain(message, code, FAILED, what_to_do=_GOES_ON, is_json=is_json())
    sys.exit(FAILED)


def run(command: click.Command, words: Sequence[str]) -> int:
    """Run what was typed, and tell what goes wrong and what to do; gives the exit code.

    What mdmfs raises on purpose is told as it is, anything else by where it arose only: its text may quote a patient.
    """
    wants = _JSON in words[: words.index("--") if "--" in words else len(words)]
    try:
        return command.main(list(words), "mdmfs", standalone_mode=False) or 0
    except click.UsageError as error:
        if wants:
            typed = error.ctx.command_path if error.ctx else "mdmfs"
            _complain(f"{error.format_message()} See {typed} -h", "usage", error.exit_code, is_json=True)
        else:
            error.show()
        return error.exit_code
    except click.ClickException as error:
        _complain(error.format_message(), "failed", error.exit_code, what_to_do=_GOES_ON, is_json=wants)
        return error.exit_code
    except click.Abort:
        stopped = InterruptedCallError("stopped before it was done")
        _complain(str(stopped), stopped.code, FAILED, what_to_do=stopped.what_to_do, is_json=wants)
        return FAILED
    except MdmfsError as error:
        _complain(error.told_here, error.code, FAILED, what_to_do=error.what_to_do, is_json=wants)
        return FAILED
    except Exception as error:  # noqa: BLE001 the command line: a traceback's last line may quote a patient
        return _tell_unforeseen(error, is_json=wants)


def _tell_unforeseen(error: Exception, *, is_json: bool) -> int:
    """Tell by where it arose what nobody foresaw; a disk that is full where output goes is no mistake of ours."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        what_to_do = "make room where its output goes"
        _complain(
            "there is no room left for what it writes",
            OutOfSpaceError.code,
            FAILED,
            what_to_do=what_to_do,
            is_json=is_json,
        )
        return FAILED
    message = f"this should not happen, please report it: {outline(error)}"
    _complain(message, "unexpected", OUR_MISTAKE, what_to_do=_REPORT, is_json=is_json)
    return OUR_MISTAKE


def open_bar(*columns: str | ProgressColumn) -> Progress:
    """Make a bar on standard error; with JSON nothing is drawn."""
    return Progress(*columns, console=Console(stderr=True), disable=is_json())


def _complain(message: str, code: str, status: int, *, what_to_do: str = "", is_json: bool) -> None:
    if is_json:
        told = {"error": code, "message": message, "status": status}
        told |= {"what_to_do": what_to_do} if what_to_do else {}
        click.echo(encoded(told), err=True)
        return
    click.echo(ERROR + message, err=True)
    if what_to_do:
        click.echo(ADVICE + what_to_do, err=True)


def encoded(told: Mapping[str, object]) -> str:
    """Write an object on one line, in ASCII: a name may be no UTF-8."""
    return json.dumps(told, default=str)
