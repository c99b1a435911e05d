"""A metadata service's configuration: one TOML file with the tables ``metadata`` and ``tls``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mdmfs.daemon.configuration import Settings, TlsFiles, at_key, beside, read_configuration
from mdmfs.model.identity import Dn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.stream import Address


class MetadataTable(Settings, frozen=True):
    """``[metadata]``."""

    listen: str
    """``HOST:PORT``."""
    database: str
    """The path of a file for SQLite, in a folder of mode 0700 on an encrypted volume, or ``postgresql://...``."""
    hospital: str
    """The DN of the one hospital that writes here."""
    metrics: str = ""
    """``HOST:PORT`` on loopback where Prometheus asks; nowhere where it is empty."""


class MetadataFile(Settings, frozen=True):
    """The file's own shape."""

    metadata: MetadataTable
    tls: TlsFiles


@dataclasses.dataclass(frozen=True, slots=True)
class MetadataConfiguration:
    """Everything a metadata service is told, as values."""

    listen: Address
    database: str
    hospital: Dn
    metrics: str
    credential: Credential
    anchors: TrustAnchors
    vomsdir: Path | None = None
    """For VOMS groups and roles."""

    @classmethod
    def read(cls, path: Path) -> MetadataConfiguration:
        """Read the file; raises ``ConfigurationError`` that names file and field."""
        file = read_configuration(path, MetadataFile)
        table = file.metadata
        with at_key(f"{path}: metadata.listen"):
            listen = Address.parse(table.listen)
        with at_key(f"{path}: metadata.metrics"):
            Address.parse_loopback(table.metrics)
        with at_key(f"{path}: metadata.hospital: {table.hospital!r}"):
            hospital = Dn.parse(table.hospital)
        return cls(
            listen=listen,
            database=table.database if "://" in table.database else str(beside(path, table.database)),
            hospital=hospital,
            metrics=table.metrics,
            credential=file.tls.credential(path),
            anchors=file.tls.anchors(path),
            vomsdir=file.tls.voms(path),
        )
