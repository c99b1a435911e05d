"""Every error that is raised says what happened, and every command says below it what to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from mdmfs.cli.advice import ADVICE
from mdmfs.cli.output import run
from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.quarantined import EXPLANATIONS
from mdmfs.model import errors

SOURCES: Final = Path(errors.__file__).parents[1]
OF_THE_COMMAND_LINE: Final = {"failed", "unexpected"}
FEWEST_WORDS: Final = 3
OURS: Final = {kind.__name__ for kind in errors.ERRORS_BY_CODE.values()}


def raised(tree: ast.AST) -> Iterator[tuple[ast.Call, dict[str, list[ast.expr]]]]:
    """Give each of our errors that a module raises, with what the names in its function stand for."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            values: dict[str, list[ast.expr]] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    values.setdefault(node.targets[0].id, []).append(node.value)
            for node in ast.walk(function):
                call = node.exc if isinstance(node, ast.Raise) else None
                if isinstance(call, ast.Call) and ast.unparse(call.func) in OURS:
                    yield call, values


def words_of(message: ast.expr) -> int | None:
    """Count the words of a text, an inserted value being one; None for what is no text here."""
    if isinstance(message, ast.Constant):
        return len(str(message.value).split())
    if isinstance(message, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "value" for part in message.values]
        words = "".join(map(str, parts)).split()
        return len(words) if words != ["value:", "value"] else None  # another error, and where
    return None


def test_every_error_says_what_happened() -> None:
    """A sentence, not a name; and no error without a text."""
    count = 0
    for path in sorted(SOURCES.rglob("*.py")):
        for call, values in raised(ast.parse(path.read_text(encoding="utf-8"))):
            assert call.args, (path.name, call.lineno)
            first = call.args[0]
            texts = values.get(first.id, []) if isinstance(first, ast.Name) else [first]
            words = [words_of(text) for text in texts]
            assert all(number is None or number >= FEWEST_WORDS for number in words), (path.name, call.lineno, words)
            count += 1
    assert count > len(OURS)


def test_there_is_advice_for_every_code_and_no_other() -> None:
    """A new error comes with what is to be done about it."""
    assert ADVICE.keys() == errors.ERRORS_BY_CODE.keys() | OF_THE_COMMAND_LINE


def test_there_is_advice_for_every_reason_of_a_refusal() -> None:
    """As ``mdmfs quarantine explain`` gives it."""
    assert all(EXPLANATIONS[reason].advice for reason in Reason)


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
    assert second == f"  what to do: {ADVICE['configuration']}"
