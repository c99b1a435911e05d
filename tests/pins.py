"""Writes one file of pins from several, in sections: each package stands in the first section that needs it."""

from __future__ import annotations

import pathlib
import re
import sys

_PIN = re.compile(r"^(\S+)==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)


def pins(path: str) -> dict[str, str]:
    """Read the pins of a file by package name."""
    return {match[1]: match[0] for match in _PIN.finditer(pathlib.Path(path).read_text(encoding="utf-8"))}


def main(*sections: str) -> None:
    """Print each ``HEADING=FILE``: the heading, and those of the file's pins that no earlier section holds."""
    sys.stdout.write("# Versions and hashes, chosen by ./run pin\n")
    written: set[str] = set()
    for section in sections:
        heading, _, path = section.partition("=")
        own = {name: pin for name, pin in pins(path).items() if name not in written}
        sys.stdout.write(heading + "\n" + "".join(own.values()))
        written |= own.keys()


if __name__ == "__main__":
    main(*sys.argv[1:])
