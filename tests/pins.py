"""Writes one file of pins from two: what runs mdmfs first, then what only the tests need."""

from __future__ import annotations

import pathlib
import re
import sys

_PIN = re.compile(r"^(\S+)==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)


def pins(path: str) -> dict[str, str]:
    """Read the pins of a file by package name."""
    return {match[1]: match[0] for match in _PIN.finditer(pathlib.Path(path).read_text(encoding="utf-8"))}


def main(runtime: str, both: str, heading: str) -> None:
    """Print the runtime's pins, the heading, and the pins that are only in ``both``."""
    first, second = pins(runtime), pins(both)
    sys.stdout.write("# Versions and hashes, chosen by ./run pin\n" + "".join(first.values()))
    sys.stdout.write(heading + "\n" + "".join(pin for name, pin in second.items() if name not in first))


if __name__ == "__main__":
    main(*sys.argv[1:])
