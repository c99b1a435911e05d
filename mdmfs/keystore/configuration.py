"""A keystore's configuration: one TOML file with the tables ``keystore`` and ``tls``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Final

import msgspec

from mdmfs.daemon.configuration import Settings, TlsFiles, at_key, beside, read_configuration
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.identity import Dn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.stream import Address

DEFAULT_BACKUP_DAYS: Final = 90


@dataclasses.dataclass(frozen=True, slots=True)
class KeystoreConfiguration:
    """Everything a keystore is told, as values."""

    name: str
    """As the hospitals and workers call it; for logs."""
    listen: Address
    directory: Path
    """Of the shelf; mode 0700."""
    hospitals: frozenset[Dn]
    """Who may register, and nobody else."""
    credential: Credential
    anchors: TrustAnchors
    vomsdir: Path | None = None
    """For VOMS groups and roles."""
    metrics: str = ""
    """``HOST:PORT`` on loopback where Prometheus asks; nowhere where it is empty."""
    recovery: Path | None = None
    """The certificate for which backups are sealed."""
    backup_days: int = DEFAULT_BACKUP_DAYS
    """For how long backups are kept."""
    store: str = ""
    """``postgresql://...``: a database of its own, with a copy of it in ``directory``; LMDB there where it is empty."""

    @classmethod
    def read(cls, path: Path) -> KeystoreConfiguration:
        """Read the file; raises ``ConfigurationError`` that names file and field."""
        file = read_configuration(path, _File)
        if not file.keystore.hospitals:
            message = f"{path}: keystore.hospitals is empty, so nobody could register a key"
            raise ConfigurationError(message)
        with at_key(f"{path}: keystore.listen"):
            listen = Address.parse(file.keystore.listen)
        with at_key(f"{path}: keystore.metrics"):
            Address.parse_loopback(file.keystore.metrics)
        return cls(
            name=file.keystore.name,
            listen=listen,
            directory=beside(path, file.keystore.directory),
            hospitals=frozenset(_parse_dn(path, text) for text in file.keystore.hospitals),
            credential=file.tls.credential(path),
            anchors=file.tls.anchors(path),
            vomsdir=file.tls.voms(path),
            metrics=file.keystore.metrics,
            recovery=beside(path, file.keystore.recovery) if file.keystore.recovery else None,
            backup_days=file.keystore.backup_days,
            store=file.keystore.store,
        )


class _Table(Settings, frozen=True):
    name: str
    listen: str
    directory: str
    hospitals: list[str]
    metrics: str = ""
    recovery: str = ""
    backup_days: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_BACKUP_DAYS
    store: str = ""


class _File(Settings, frozen=True):
    keystore: _Table
    tls: TlsFiles


def _parse_dn(path: Path, text: str) -> Dn:
    with at_key(f"{path}: keystore.hospitals: {text!r}"):
        return Dn.parse(text)
