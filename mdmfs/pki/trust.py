"""Trust anchors: the CAs whose word counts, as a PEM bundle or as a CA directory with hash names."""

from __future__ import annotations

import dataclasses
import re
import ssl
from pathlib import Path
from typing import Final

from mdmfs.model.errors import ConfigurationError

_HASH_NAME: Final = re.compile(r"[0-9a-f]{8}\.(?:r?[0-9]+|signing_policy)")
"""Certificates (``.0``), CRLs (``.r0``) and signing policies as grids lay them out."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and modification time of every file that counts."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Where the CAs are kept: a PEM bundle, or a CA directory such as /etc/grid-security/certificates."""

    path: Path

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
            message = f"no CA certificates can be read from {self.path}: give a PEM bundle or a CA directory"
            raise ConfigurationError(message) from error

    def stamp(self) -> Stamp:
        """Say in which state the files are: a context made under another stamp is no longer right."""
        try:
            files = sorted(self._hash_named()) if self.path.is_dir() else [self.path]
            return tuple(_stamp_of(file) for file in files)
        except OSError as error:
            message = f"the CA certificates under {self.path} cannot be read"
            raise ConfigurationError(message) from error

    def _hash_named(self) -> list[Path]:
        return [file for file in self.path.iterdir() if _HASH_NAME.fullmatch(file.name)]

    def _refuse_empty(self) -> None:
        if not any(file.suffix[1:].isdigit() for file in self._hash_named()):
            message = f"the CA directory {self.path} holds no certificate under a hash name: run openssl rehash on it"
            raise ConfigurationError(message)


def _stamp_of(file: Path) -> tuple[str, int, int, int]:
    status = file.stat()
    return file.name, status.st_ino, status.st_size, status.st_mtime_ns
