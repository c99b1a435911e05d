"""Every error that is raised says what happened and to what, and every command says below it what to do."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from mdmfs.cli.output import run
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.quarantined import EXPLANATIONS
from mdmfs.model import errors
from mdmfs.wire.messages.message import Failure

SOURCES: Final = Path(errors.__file__).parents[1]
FEWEST_WORDS: Final = 3
OURS: Final = {kind.__name__ for kind in errors.ERRORS_BY_CODE.values()}

NAMED_ABOVE: Final = {
    "access": "the ACL's path is named by the command that was given it",
    "model": "what was typed, or the file that holds it, is named by whoever parses it",
    "pki": "the peer is named by the server's log, a file by whoever reads it",
    "sharing": "no share at all: the file is named by who asked for them",
    "wire": "the peer is named by the client, the request by the server",
    "hospital/catalogue": "the store names its directory",
    "hospital/dicom": "the PACS is named by the connection",
    "hospital/dav": "the path is the request's",
    "hospital/deid": "the value is the caller's",
    "hospital/uidmap": "the store names its directory",
    "hospital/rows.py": "the store names its directory",
    "rows": "the store names its directory, the configuration its database",
    "keystore": "the shelf names its directory, the client the keystore",
    "metadata": "the service is named by who asks several",
    "worker": "a program knows which path it named, and gets an errno; the log of the mount names the operation",
    "demo/archive.py": "the answer of a PACS to its caller",
}
"""Where a message need hold nothing of what it is about, and who adds that."""

WITHOUT_A_NAME: Final = {
    "cli/audit.py": "standard input",
    "cli/backup.py": "an option that is missing",
    "cli/certificates.py": "told beside the keystore's name",
    "cli/output.py": "the command itself",
    "cli/subject.py": "standard input",
    "demo/view.py": "an extra that is missing",
    "hospital/beside.py": "the client names the daemon that it asked",
    "hospital/configuration.py": "told behind the file's name",
    "hospital/kept": "its directory, which is told inside the hospital only",
    "hospital/keys": "a request without a file, and a task that was never begun",
    "hospital/metadata": "a question that names nobody, a table that is missing",
    "hospital/names": "a comment",
    "hospital/registration": "a patient, who is never named; a run that was never begun",
    "hospital/release": "nobody is told: what is fetched ahead was not asked for",
    "hospital/rights": "a change without an edit",
    "hospital/tape": "a field of a request, a batch",
}
"""Where there is nothing that could be named, or where it must not be."""

ABOUT_A_CONFIGURATION: Final = {"path", "file", "configuration", "whole.file"}
"""What a message begins with that is about a configuration, as the advice for such errors has it."""


class Raised(NamedTuple):
    """An error that a module makes."""

    where: str
    kind: str
    texts: list[ast.expr]
    has_advice: bool


@functools.cache
def raised() -> tuple[Raised, ...]:
    """Give each of our errors that is raised anywhere, with the texts that it may have."""
    return tuple(_raised())


def _raised() -> Iterator[Raised]:
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = dict(assigned(tree.body))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            values: dict[str, list[ast.expr]] = {}
            for name, value in assigned(ast.walk(function)):
                values.setdefault(name, []).append(value)
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("errors.") in OURS:
                    where = f"{path.relative_to(SOURCES)}:{node.lineno}"
                    assert node.args, where
                    first = node.args[0]
                    name = first.id if isinstance(first, ast.Name) else ""
                    texts = values.get(name) or ([constants[name]] if name in constants else [])
                    has_advice = any(word.arg == "what_to_do" for word in node.keywords)
                    yield Raised(where, ast.unparse(node.func), texts if name else [first], has_advice)


def assigned(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Give what names are made to stand for."""
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def words_of(message: ast.expr) -> int | None:
    """Count the words of a text, an inserted value being one; None for what is no text here."""
    if isinstance(message, ast.Constant):
        return len(str(message.value).split())
    if isinstance(message, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "value" for part in message.values]
        words = "".join(map(str, parts)).split()
        return len(words) if words != ["value:", "value"] else None  # another error, and where
    return None


def is_listed(where: str) -> bool:
    """Whether a place is in one of the lists."""
    return any(where.startswith((f"{place}/", f"{place}:")) for place in (*NAMED_ABOVE, *WITHOUT_A_NAME))


def test_every_error_says_what_happened() -> None:
    """A sentence, not a name; and no error without a text."""
    found = raised()
    short = [(one.where, words) for one in found for words in map(words_of, one.texts) if words is not None]
    assert [where for where, words in short if words < FEWEST_WORDS] == []
    assert len(found) > len(OURS)


def test_every_error_says_to_what_it_happened() -> None:
    """A path, a GUID, a name is in the text, or is added by whom the lists name."""
    nameless = [one.where for one in raised() if any(isinstance(text, ast.Constant) for text in one.texts)]
    assert [where for where in nameless if not is_listed(where)] == []
    unused = [place for place in WITHOUT_A_NAME if not any(where.startswith(place) for where in nameless)]
    assert unused == []


def test_an_error_of_a_command_that_is_about_no_configuration_says_itself_what_to_do() -> None:
    """To mend the configuration is wrong advice about an option or a file that is in the way."""
    for one in raised():
        if one.kind != "ConfigurationError" or one.has_advice or not one.where.startswith(("cli/", "demo/")):
            continue
        for text in one.texts:
            parts = text.values if isinstance(text, ast.JoinedStr) else []
            named = [ast.unparse(part.value) for part in parts if isinstance(part, ast.FormattedValue)]
            assert set(named[:1]) & ABOUT_A_CONFIGURATION, one.where


def test_each_kind_of_error_says_what_to_do_by_itself() -> None:
    """None takes that of the kind above it: a new one comes with what is to be done about it."""
    for kind in errors.ERRORS_BY_CODE.values():
        assert "what_to_do" in vars(kind), kind
        assert len(inspect.cleandoc(kind.what_to_do).split()) >= FEWEST_WORDS, kind


def test_there_is_advice_for_every_reason_of_a_refusal() -> None:
    """As ``mdmfs quarantine explain`` gives it."""
    assert all(EXPLANATIONS[reason].advice for reason in Reason)


def test_an_error_keeps_its_advice_and_its_place() -> None:
    """Raised again, or about something; a peer gets the advice, and never the place."""
    error = errors.StoreError("the store is full", what_to_do="make room")
    error.place = "/var/lib/mdmfs"
    for one in (errors.again(error), error.about("it")):
        assert (one.what_to_do, one.place, type(one)) == ("make room", "/var/lib/mdmfs", errors.StoreError)
        assert one.told_here.endswith("the store is full (in /var/lib/mdmfs)")
    told = Failure.of(error).error()
    assert (str(told), told.what_to_do, told.place) == ("the store is full", "make room", "")
    assert Failure.of(errors.StoreError("the store is full")).what_to_do == ""


def test_a_command_says_what_happened_to_which_path_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines."""
    from mdmfs.cli.main import cli  # noqa: PLC0415 beside its use

    path = tmp_path / "x.toml"
    path.write_text("trust = 'ca'\n")
    assert run(cli, ["doctor", str(path)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"mdmfs: {path}: ")
    assert second == f"  what to do: {errors.ConfigurationError.what_to_do}"
