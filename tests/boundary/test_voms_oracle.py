"""Our verdict beside that of the grid's own libraries, case by case; ``pytest -s`` prints the table."""

from __future__ import annotations

import dataclasses
import ssl
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mdmfs.model.errors import MdmfsError
from mdmfs.model.identity import Fqan
from tests.twins.grid import Grid, contexts_of, shake_hands
from tests.twins.grid_cases import HOSPITAL, JANE, ROOT, Case, cases, usual_grid

ORACLE = Path(__file__).parents[1] / "reference" / "grid_oracle.py"
LET_IN = {"0x1", "0x2", "0x30", "0x50"}
"""Globus's numbers for an end entity, a CA, RFC proxies full and limited; other kinds are the application's matter."""
REFUSED = "refused"
DIFFERENT = {
    "host above the VO": "the library follows ../ out of the VO's folder of vomsdir; we open no such name",
    "an AC known here and one that is not": "the library drops all ACs for the sake of one; we count each by itself",
    "root of its own along": "the library believes a CA that came inside the AC, if the LSC names it; ours count",
}
"""Where we are not of the library's opinion, and why."""


@dataclasses.dataclass(frozen=True)
class Told:
    """The FQANs that somebody has, or that he is refused, and why."""

    verdict: str
    why: str = ""


def ours(case: Case, grid: Grid) -> Told:
    """Let him shake hands with a server, and be judged."""
    contexts = contexts_of(grid, HOSPITAL)
    try:
        chain = shake_hands(contexts, case.shown, grid.folder, ROOT)
        principal = contexts.judge.judge(chain).principal(time.time())
    except ssl.SSLError as error:
        return Told(REFUSED, getattr(error, "verify_message", "") or str(error.reason))
    except MdmfsError as error:
        return Told(REFUSED, str(error))
    assert principal.dn == JANE.dn
    return Told(" ".join(map(str, principal.fqans)) or "no FQAN")


def theirs(grid: Grid) -> Told:
    """Ask Globus whether the chain holds, and libvomsapi which FQANs come with it."""
    types = ask("globus", grid.folder / "client", grid.certificates)
    if types[0].startswith(REFUSED) or not set(types) <= LET_IN:
        return Told(REFUSED, " ".join(types))
    fqans = ask("voms", grid.folder / "client", grid.vomsdir, grid.certificates)
    if not fqans or fqans[0].startswith(REFUSED):
        return Told("no FQAN", " ".join(fqans))
    return Told(" ".join(dict.fromkeys(str(Fqan.parse(fqan)) for fqan in fqans)))


def ask(mode: str, *arguments: Path) -> list[str]:
    """Run the oracle as a process of its own: it may die of what it is asked."""
    run = subprocess.run(
        [sys.executable, ORACLE, mode, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if run.returncode:
        return [f"{REFUSED}: the library ended with {run.returncode}"]
    return run.stdout.splitlines()


def say(line: str) -> None:
    """Print a line of the table."""
    sys.stdout.write(line + "\n")


def judge_both(case: Case, folder: Path) -> tuple[Told, Told]:
    """Put one case to both."""
    grid = usual_grid(folder)
    case.change(grid)
    mine = ours(case, grid)
    return mine, theirs(grid)


def test_our_verdict_is_the_oracles(tmp_path: Path) -> None:
    """In every case but those where we differ on purpose, each named with its reason."""
    (tmp_path / "made").mkdir()
    listed = list(cases(tmp_path / "made"))
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(judge_both, listed, [tmp_path / str(place) for place in range(len(listed))]))
    for case, (mine, their) in zip(listed, told, strict=True):
        is_same = mine.verdict == their.verdict
        say(
            f"{'=' if is_same else '#'} {case.name:44} {mine.verdict:58} {their.verdict:58} {mine.why or their.why:.80}"
        )
    different = {case.name for case, (mine, their) in zip(listed, told, strict=True) if mine.verdict != their.verdict}
    say(f"{len(listed)} cases, {len(listed) - len(different)} alike, {len(different)} different on purpose")
    assert different == set(DIFFERENT)
    assert len({case.name for case in listed}) == len(listed)
    assert len(listed) - len(different) >= 30
    assert Counter(mine.verdict for mine, _ in told)[REFUSED] < len(listed) / 2
