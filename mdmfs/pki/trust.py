"""Trust anchors: the CAs whose word counts, as a PEM bundle or as a CA directory with hash names.

Here is where they are kept and whether they have changed; what they say is read by ``mdmfs.pki.authorities``.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mdmfs.model.errors import ConfigurationError

_HASH_NAME: Final = re.compile(r"[0-9a-f]{8}\.(?:r?[0-9]+|signing_policy)")
"""Certificates (``.0``), CRLs (``.r0``) and signing policies as grids lay them out."""
_ANCHORS: Final = "name a PEM bundle or a CA directory that whoever runs this may read"

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and modification time of every file that counts."""


class Crls(enum.StrEnum):
    """What to do about a CA that has no revocation list (``HASH.r0``) in the CA directory.

    A list that is there must be current and the CA's own, whatever this says: an expired or broken one refuses
    everybody below that CA. A PEM bundle has no lists.
    """

    IF_PRESENT = "if-present"
    """A CA without a list has revoked nothing."""
    REQUIRE = "require"
    """Nobody below a CA without a list is let in."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Where the CAs are kept: a PEM bundle, or a CA directory such as /etc/grid-security/certificates.

    In a directory every CA also has its signing policy (``HASH.signing_policy``); one without signs nothing.
    """

    path: Path
    crls: Crls = Crls.IF_PRESENT

    def trust_in(self, context: ssl.SSLContext) -> None:
        """Let a TLS context trust these CAs and no others; raises ``ConfigurationError``.

        OpenSSL reads a directory when a chain is verified, a bundle now.
        """
        try:
            if self.path.is_dir():
                self._refuse_empty()
                context.load_verify_locations(capath=str(self.path))
            else:
                context.load_verify_locations(cafile=str(self.path))
        except OSError as error:
            reason = "there is none in it" if isinstance(error, ssl.SSLError) else error.strerror
            message = f"no CA certificates can be read from {self.path}: {reason}"
            raise ConfigurationError(message, what_to_do=_ANCHORS) from error

    def stamp(self) -> Stamp:
        """Say in which state the files are: a context made under another stamp is no longer right."""
        try:
            return stamps_within(self.hash_named()) if self.path.is_dir() else (stamp_of(self.path),)
        except OSError as error:
            raise unreadable_anchors(self.path, error) from error

    def hash_named(self) -> list[Path]:
        """List the files of a CA directory that count by their names; raises ``OSError``."""
        return [file for file in self.path.iterdir() if _HASH_NAME.fullmatch(file.name)]

    def _refuse_empty(self) -> None:
        if not any(file.suffix[1:].isdigit() for file in self.hash_named()):
            message = f"the CA directory {self.path} holds no certificate under a hash name: run openssl rehash on it"
            raise ConfigurationError(message)


def stamps_within(files: Iterable[Path]) -> Stamp:
    """Say in which state files are that may come and go; a link is what it leads to. Raises ``OSError``."""
    return tuple(sorted(_stamp_or_gone(file) for file in files))


def _stamp_or_gone(file: Path) -> tuple[str, int, int, int]:
    try:
        return stamp_of(file)
    except FileNotFoundError:
        return file.name, 0, 0, 0


def stamp_of(file: Path) -> tuple[str, int, int, int]:
    """Say in which state a file is; raises ``OSError``."""
    status = file.stat()
    return file.name, status.st_ino, status.st_size, status.st_mtime_ns


def unreadable_anchors(path: Path, error: Exception) -> ConfigurationError:
    """Say that CAs cannot be read, and why where the system says it."""
    reason = f": {error.strerror}" if isinstance(error, OSError) else ""
    return ConfigurationError(f"the CA certificates under {path} cannot be read{reason}", what_to_do=_ANCHORS)
