"""LSC files: the DNs of a VOMS server's certificate and of the CAs above it, as its VO announces them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mdmfs.model.errors import ConfigurationError, MalformedNameError
from mdmfs.model.identity import Dn
from mdmfs.pki.certificate import Certificate
from mdmfs.pki.dn import dn_of_oneline

MAX_BYTES: Final = 64 * 2**10
_NEXT: Final = re.compile(r"-+\s*NEXT CHAIN\s*-+")


@dataclasses.dataclass(frozen=True, slots=True)
class LscChain:
    """Pairs of subject and issuer, the server's own first."""

    pairs: tuple[tuple[Dn, Dn], ...]

    def matches(self, certificates: Sequence[Certificate]) -> bool:
        """Ask whether these are the server's certificates: every one that came must stand here, in order."""
        shown = tuple((one.subject, one.issuer) for one in certificates)
        return bool(shown) and self.pairs[: len(shown)] == shown


def read_lsc(file: Path) -> tuple[LscChain, ...]:
    """Read the chains of a file; raises ``ConfigurationError`` when it is missing or not understood."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES).decode()
        return parse_lsc(text)
    except (OSError, UnicodeDecodeError, MalformedNameError) as error:
        message = f"{file} is no LSC file: {error}"
        raise ConfigurationError(message) from error


def parse_lsc(text: str) -> tuple[LscChain, ...]:
    """Read chains of lines, a subject and its issuer by turns; raises ``MalformedNameError``.

    Names may stand in double quotes. ``NEXT CHAIN`` between dashes begins another server certificate.
    """
    return tuple(_chain(part) for part in _NEXT.split(text) if part.strip())


def _chain(part: str) -> LscChain:
    lines = [line.strip() for line in part.splitlines()]
    names = [dn_of_oneline(_without_quotes(line)) for line in lines if line and not line.startswith("#")]
    if not names or len(names) % 2:
        message = "a chain of an LSC file has a subject and an issuer for each certificate"
        raise MalformedNameError(message)
    return LscChain(tuple(zip(names[::2], names[1::2], strict=True)))


def _without_quotes(line: str) -> str:
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] == '"' else line
