"""What a hospital's daemon is told: who it is, its PACSs, its keystores, its projects."""

from __future__ import annotations

import pathlib

import msgspec

from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.configuration import KeystorePeer, Settings, TlsFiles, beside, read_configuration
from mdmfs.wire.stream import Address


class PacsEntry(Settings, frozen=True):
    """One PACS."""

    name: str
    address: str
    """``AET@HOST:PORT``."""
    calling: str = "MDMFS"
    """Our own AE title towards it."""
    issuer: str = ""
    """Issuer of Patient ID for images that name none."""
    associations: int = 2


class HospitalSettings(Settings, frozen=True):
    """The daemon itself."""

    name: str
    """The hospital's directory: ``/grid/medical/NAME``."""
    listen: str
    directory: str
    """Holds the store, staging and the audit log; mode 0700."""
    projects: str
    """A folder with one TOML file for each project."""
    opt_out: str = ""
    """A file of patients whose images are never released, one ``patient ID^^^ISSUER`` on a line."""
    public_address: str = ""
    """``HOST:PORT`` in SURLs; the address of ``listen`` where it is empty."""
    staging_bytes: int = 20 * 2**30
    recall_deadline: float = 60.0
    """Seconds that a caller waits for the PACS; the recall itself goes on."""


class KeySettings(Settings, frozen=True):
    """How keys are shared."""

    threshold: int = 2
    """k: how many shares make a key."""
    required: int = 0
    """w: how many keystores must have acknowledged before a file is visible; 0 stands for all but one."""


class HospitalConfiguration(Settings, frozen=True):
    """The whole file; relative paths count from its folder (``path``)."""

    hospital: HospitalSettings
    tls: TlsFiles
    pacs: list[PacsEntry]
    keystores: list[KeystorePeer]
    keys: KeySettings = KeySettings()
    folder: str = "."
    """Where the configuration lies; set by ``read``."""

    @classmethod
    def read(cls, path: pathlib.Path) -> HospitalConfiguration:
        """Read a hospital's TOML file; raises ``ConfigurationError``."""
        return msgspec.structs.replace(read_configuration(path, cls), folder=str(path.parent.absolute()))

    def path(self, text: str) -> pathlib.Path:
        """Resolve a path of the configuration."""
        return beside(pathlib.Path(self.folder) / "hospital.toml", text)

    @property
    def credential(self) -> Credential:
        """The hospital's own certificate and key."""
        return Credential(self.path(self.tls.certificate), self.path(self.tls.key))

    @property
    def anchors(self) -> TrustAnchors:
        """The CAs whose certificates count."""
        return TrustAnchors(self.path(self.tls.trust))

    @property
    def listen(self) -> Address:
        """Where the daemon listens."""
        return Address.parse(self.hospital.listen)

    @property
    def public(self) -> Address:
        """Where others find it."""
        return Address.parse(self.hospital.public_address or self.hospital.listen)

    def __post_init__(self) -> None:
        """Refuse what could never work, before anything is opened."""
        total, threshold = len(self.keystores), self.keys.threshold
        for names in ([entry.name for entry in self.pacs], [entry.name for entry in self.keystores]):
            if len(set(names)) != len(names) or not all(names):
                message = "each PACS and each keystore has a name of its own"
                raise ConfigurationError(message)
        if not 1 <= threshold <= self.required_keystores <= total:
            message = (
                f"keys: threshold {threshold} <= required {self.required_keystores} <= {total} keystores does not hold"
            )
            raise ConfigurationError(message)
        Lfn((self.hospital.name,))
        Address.parse(self.hospital.listen)
        for entry in self.pacs:
            PacsAddress.parse(entry.address, calling_ae_title=entry.calling)
            Politeness(max_associations=entry.associations)

    @property
    def required_keystores(self) -> int:
        """w, with its default filled in: all keystores but one, and never below the threshold."""
        return self.keys.required or max(self.keys.threshold, len(self.keystores) - 1)
