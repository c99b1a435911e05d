"""Rules that the import contracts cannot show."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[2] / "mdmfs"


def test_the_import_contracts_hold() -> None:
    """Zones do not know one another, and each library is spoken where it belongs."""
    # in a process of its own: the program sets up logging for everybody
    command = [pathlib.Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=PACKAGE.parent, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_fuse_is_spoken_in_one_package() -> None:
    """Whatever module comes: the contracts would have to name each of the worker's others."""
    imports = re.compile(r"^\s*(?:import|from) pyfuse3\b", re.MULTILINE)
    speakers = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if imports.search(path.read_text())}
    assert speakers == {pathlib.Path("worker/fuse")}


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


def test_whoever_asks_for_patients_leaves_no_core_file() -> None:
    """A module whose command has them typed in, or names them, keeps its memory from being written to a disk."""
    asks = re.compile(r'^ +invite\(|"--identify"', re.MULTILINE)
    askers = [path for path in (PACKAGE / "cli").glob("*.py") if asks.search(path.read_text())]
    assert {"audit.py", "quarantine.py", "subject.py"} <= {path.name for path in askers}
    assert [path.name for path in askers if "    forbid_core_dumps()" not in path.read_text()] == []
