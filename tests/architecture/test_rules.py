"""Rules that the import contracts cannot show."""

from __future__ import annotations

import ast
import pathlib

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

PACKAGE = pathlib.Path(__file__).parents[2] / "mdmfs"


def test_the_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Zones do not know one another, and each library is spoken where it belongs."""
    status = lint_imports(str(PACKAGE.parent / "pyproject.toml"), no_logo=True, cache_dir=None)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize(
    ("proof", "maker"),
    [("Publishable", "hospital/deid/residue.py"), ("Granted", "access/decide.py")],
)
def test_a_proof_is_made_in_one_module(proof: str, maker: str) -> None:
    """Whoever else could make one would need no residue search, or no decision."""
    makers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == proof
    }
    assert makers == {maker}
