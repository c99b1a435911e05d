"""What a hospital's daemon is told: who it is, its PACSs, its keystores, its projects."""

from __future__ import annotations

import ipaddress
import pathlib
from typing import Annotated, Literal

import msgspec

from mdmfs.daemon.configuration import KeystorePeer, Settings, TlsFiles, at_key, beside, read_configuration
from mdmfs.hospital.dicom.pacs import ClinicalHours, PacsAddress, Politeness, RetrievalService
from mdmfs.hospital.dicom.security import DicomTls
from mdmfs.hospital.dicom.senders import Sender
from mdmfs.hospital.ledger.records import MAX_DESTINATION_BYTES, METADATA, RENEWALS
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.peers import refuse_wrong_peer
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
    clinical_hours: str = ""
    """``HH:MM-HH:MM``, in the hospital's own time: one association must do then."""
    retrieval: Literal["", "get", "move"] = ""
    """``get`` or ``move``; empty for C-GET where the PACS has it, else C-MOVE to our own SCP."""
    senders: tuple[str, ...] = ()
    """Hosts that it stores from, where these are others than that of ``address``."""
    classes: tuple[Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)], ...] = ()
    """Private and retired SOP Class UIDs, for a PACS that does not tell the class of an instance."""
    tls: TlsFiles | None = None
    """For DICOM over TLS: our certificate towards it and the CAs of its own."""

    @property
    def politeness(self) -> Politeness:
        """What it is asked to bear; raises ``ConfigurationError``."""
        hours = ClinicalHours.parse(self.clinical_hours) if self.clinical_hours else None
        retrieval = RetrievalService(self.retrieval) if self.retrieval else None
        return Politeness(self.associations, clinical_hours=hours, retrieval=retrieval, classes=self.classes)

    @property
    def location(self) -> PacsAddress:
        """Where it listens, and what we call ourselves there; raises ``ConfigurationError``."""
        return PacsAddress.parse(self.address, calling_ae_title=self.calling)

    @property
    def sender(self) -> Sender:
        """Who it is when it stores to us."""
        return Sender(self.name, self.location.ae_title, self.senders or (self.location.host,), self.calling)


class DicomSettings(Settings, frozen=True):
    """The hospital's own SCP, to which PACSs store: what a C-MOVE brings, and notices of new images."""

    listen: str
    """``HOST:PORT``."""
    ae_title: str = "MDMFS"
    """Every PACS knows it as a destination."""
    settle: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    """Seconds between the latest notice of a series and its registration."""
    tls: TlsFiles | None = None
    """For DICOM over TLS: with it, nobody is heard in the clear."""

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        with at_key("dicom.listen"):
            Address.parse(self.listen)
        with at_key("dicom.ae_title"):
            PacsAddress(self.ae_title, "localhost", 1)


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
    """A file of patients whose images are never released, one ``patient ID^^^ISSUER`` on a line; without an issuer, a
    patient is meant under every one."""
    store: str = ""
    """``postgresql://...``: a database of its own, with a copy of it in ``directory``; LMDB there where it is empty."""
    reads: str = ""
    """``HOST:PORT`` where readers are answered also while another daemon works on the same ``store``."""
    only_reads: bool = False
    """Never to take over from another one: ``store`` may be a server that takes no writes."""
    public_address: str = ""
    """``HOST:PORT`` in SURLs; the address of ``listen`` where it is empty."""
    reconcile: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    """Seconds between two reconciliations of a project with its PACSs; 0 for never by itself."""
    keep_not_included: Annotated[float, msgspec.Meta(ge=0)] = 30 * 86_400.0
    """Seconds for which it is known of a series that a PACS told of that no project includes it; 0 for not at all."""
    staging_bytes: Annotated[int, msgspec.Meta(gt=0)] = 20 * 2**30
    headers_bytes: Annotated[int, msgspec.Meta(gt=0)] = 20 * 2**30
    """Of prefix objects, some 20 KiB a file: those registered longest ago make room."""
    recall_deadline: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    """Seconds that a caller waits for the PACS; the recall itself goes on."""
    identify_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks of the hospital, from which ``mdmfs subject identify`` is answered; nobody else learns a patient."""
    requests_per_second: Annotated[float, msgspec.Meta(ge=0)] = 1000.0
    """Of one DN, on average; 5,000 at once. Who asks more is made to wait; 0 for no limit."""
    metrics: str = ""
    """``HOST:PORT`` on loopback where Prometheus asks; nowhere where it is empty."""


class KeySettings(Settings, frozen=True):
    """How keys are shared."""

    threshold: int = 2
    """k: how many shares make a key."""
    required: int = 0
    """w: how many keystores must have acknowledged before a file is visible; 0 stands for all but one."""


class MetadataPeer(Settings, frozen=True):
    """The hospital's metadata service; without it nothing can be found by attributes, and no records are kept."""

    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""


class StorageEntry(Settings, frozen=True):
    """One storage element, on which projects may have sealed objects kept."""

    name: str
    kind: Literal["s3", "webdav"]
    """``webdav`` also for XRootD over HTTPS."""
    url: str
    """``https://HOST/BUCKET``, or the collection's URL."""
    region: str = "us-east-1"
    """Of the bucket."""
    credentials: str = ""
    """For S3: a TOML file, mode 0600, with ``access_key_id`` and ``secret_access_key``."""
    ca: str = ""
    """For S3: PEM of CAs besides those of the system."""
    padding: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Sizes are rounded up to multiples of so many bytes."""


class HospitalConfiguration(Settings, frozen=True):
    """The whole file; relative paths count from its folder (``path``)."""

    hospital: HospitalSettings
    tls: TlsFiles
    pacs: list[PacsEntry]
    keystores: list[KeystorePeer]
    keys: KeySettings = KeySettings()
    dicom: DicomSettings | None = None
    storage: tuple[StorageEntry, ...] = ()
    metadata: MetadataPeer | None = None
    folder: str = "."
    """Where the configuration lies; set by ``read``."""

    @classmethod
    def read(cls, path: pathlib.Path) -> HospitalConfiguration:
        """Read a hospital's TOML file; raises ``ConfigurationError``."""
        return msgspec.structs.replace(read_configuration(path, cls), folder=str(path.parent.absolute()))

    def path(self, text: str) -> pathlib.Path:
        """Resolve a path of the configuration."""
        return beside(self._file, text)

    @property
    def credential(self) -> Credential:
        """The hospital's own certificate and key."""
        return self.tls.credential(self._file)

    @property
    def anchors(self) -> TrustAnchors:
        """The CAs whose certificates count."""
        return self.tls.anchors(self._file)

    @property
    def vomsdir(self) -> pathlib.Path | None:
        """Where the LSC files lie, if VOMS groups and roles count."""
        return self.tls.voms(self._file)

    def credential_of(self, files: TlsFiles) -> Credential:
        """Give the certificate and key of a table of TLS files."""
        return files.credential(self._file)

    def anchors_of(self, files: TlsFiles) -> TrustAnchors:
        """Give the CAs of a table of TLS files."""
        return files.anchors(self._file)

    def dicom_tls(self, files: TlsFiles | None) -> DicomTls | None:
        """Give the certificates of one side of DICOM over TLS, if it is spoken there."""
        return None if files is None else DicomTls(files.credential(self._file), files.anchors(self._file))

    @property
    def _file(self) -> pathlib.Path:
        return pathlib.Path(self.folder) / "hospital.toml"

    @property
    def listen(self) -> Address:
        """Where the daemon listens."""
        return Address.parse(self.hospital.listen)

    @property
    def reads(self) -> Address | None:
        """Where it answers readers, whoever works."""
        return Address.parse(self.hospital.reads) if self.hospital.reads else None

    @property
    def public(self) -> Address:
        """Where others find it."""
        return Address.parse(self.hospital.public_address or self.hospital.listen)

    def __post_init__(self) -> None:
        """Refuse what could never work, before anything is opened."""
        total, threshold = len(self.keystores), self.keys.threshold
        for names in (
            [entry.name for entry in self.pacs],
            [entry.name for entry in self.keystores],
            [it.name for it in self.storage],
        ):
            if len(set(names)) != len(names) or not all(map(_is_name, names)):
                message = "each PACS, keystore and storage has a name of its own, printable and at most 128 bytes long"
                raise ConfigurationError(message)
        for name, whose in ((METADATA, "the metadata service's name"), (RENEWALS, "the name of a queue of ours")):
            if name in {entry.name for entry in self.keystores}:
                message = f"no keystore may be called {name}: that is {whose}"
                raise ConfigurationError(message)
        if not 1 <= threshold <= self.required_keystores <= total:
            message = (
                f"keys: threshold {threshold} <= required {self.required_keystores} <= {total} keystores does not hold"
            )
            raise ConfigurationError(message)
        if self.hospital.only_reads and not (self.hospital.store and self.hospital.reads):
            message = "hospital.only_reads needs hospital.store, which another daemon works on, and hospital.reads"
            raise ConfigurationError(message)
        for network in self.hospital.identify_from:
            _refuse_no_network(network)
        self._refuse_wrong_addresses()

    def _refuse_wrong_addresses(self) -> None:
        with at_key("hospital.name"):
            Lfn((self.hospital.name,))
        for key in ("listen", "public_address", "reads"):
            with at_key(f"hospital.{key}"):
                Address.parse(getattr(self.hospital, key) or self.hospital.listen)
        with at_key("hospital.metrics"):
            Address.parse_loopback(self.hospital.metrics)
        for place, entry in enumerate(self.pacs):
            with at_key(f"pacs[{place}]"):
                entry.location  # noqa: B018 an address that cannot be parsed raises here
                if entry.politeness.retrieval is RetrievalService.MOVE and self.dicom is None:
                    message = f"{entry.name} is to be retrieved from by C-MOVE, and there is no [dicom] to move to"
                    raise ConfigurationError(message)
        for place, keystore in enumerate(self.keystores):
            refuse_wrong_peer(f"keystores[{place}]", keystore)
        if self.metadata:
            refuse_wrong_peer("metadata", self.metadata)

    @property
    def required_keystores(self) -> int:
        """w, with its default filled in: all keystores but one, and never below the threshold."""
        return self.keys.required or max(self.keys.threshold, len(self.keystores) - 1)


def _refuse_no_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        message = f"hospital.identify_from: {text!r} is no network such as 10.0.0.0/8"
        raise ConfigurationError(message) from error


def _is_name(text: str) -> bool:
    return 0 < len(text.encode()) <= MAX_DESTINATION_BYTES and text.isprintable()
