"""The configuration of a mount: one TOML file to a frozen value."""

from __future__ import annotations

import os
import pathlib
import re
import ssl
import urllib.parse
from typing import Final

import msgspec

from mdmfs.daemon.configuration import KeystorePeer, Settings, at_key, beside, read_configuration
from mdmfs.model.errors import ConfigurationError, MalformedNameError, UnusableFileError
from mdmfs.model.names import ROOT_PREFIX, Lfn
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.peers import refuse_wrong_peer
from mdmfs.wire.stream import Address
from mdmfs.worker.cache.room import BESIDE
from mdmfs.worker.numbered import MAX_HOSPITALS

CONFIGURATION_ATTRIBUTE: Final = "user.mdmfs.configuration"
"""Extended attribute of a mount point: the file that its mount was configured by."""
LEAST_MEMORY: Final = 16 * 2**20
LOG_LEVELS: Final = ("", "debug", "info", "warning", "error")
_UNITS: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE: Final = re.compile(r"(\d+) ?(|KiB|MiB|GiB|TiB)")


class MountSettings(Settings, frozen=True):
    """``[mount]``."""

    root: str = ROOT_PREFIX
    """The LFN of the directory that is shown."""
    deadline: float = 60.0
    """Seconds that an open waits for its first bytes."""
    purpose: str = ""
    """What the images are read for, in the user's own words; the hospital records it with each release."""
    lease_wait: float = 120.0
    """Seconds that a read, an open or a look waits for a hospital that is not heard."""
    multi_user: bool = False
    """Serve everybody on this machine, each by the proxy of the process that asks."""
    site_cache: str = ""
    """``http://HOST:PORT`` of a proxy that keeps replicas for the nodes of this site; none where it is empty."""
    cache_of: tuple[str, ...] = ()
    """With what the ``https://`` URLs begin that the site's cache is asked for, too; those of ``http://`` all are."""
    metrics: str = ""
    """``HOST:PORT`` on loopback where Prometheus asks; nowhere where it is empty."""
    memory: str = "256 MiB"
    """What all that is kept in memory may take; written like ``cache.size``."""
    push: str = "4 MiB"
    """Files up to this size are put into the page cache whole before their open returns."""
    log_level: str = ""
    """What is logged: debug, info, warning or error; what the command says where it is empty, or says so itself."""


class HospitalPeer(Settings, frozen=True):
    """``[hospital]``."""

    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""
    reads: str = ""
    """Where its daemons answer readers that do not work on its store, ``HOST:PORT`` with commas between them."""


class CredentialSettings(Settings, frozen=True):
    """``[credential]``: a proxy, or a certificate with its key; with neither the user's proxy is looked for."""

    proxy: str = ""
    certificate: str = ""
    key: str = ""


class CacheSettings(Settings, frozen=True):
    """``[cache]``."""

    directory: str = ""
    """By default ``$XDG_CACHE_HOME/mdmfs`` or ``~/.cache/mdmfs``."""
    size: str = "10 GiB"
    """Bytes, or a number with KiB, MiB, GiB or TiB."""
    free: str = "0"
    """So much of the disk is left free for others, written likewise."""


class MetadataPeer(Settings, frozen=True):
    """``[[metadata]]``: one hospital's metadata service; questions go to all of them."""

    name: str
    """Of the hospital; for people, when it does not answer."""
    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""


class JoinedHospital(Settings, frozen=True):
    """``[[hospitals]]``: one of several that a mount joins, in place of ``[hospital]``, ``[[keystores]]`` and so on."""

    name: str
    """Of its directory below ``/grid/medical``, as it calls itself."""
    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""
    keystores: tuple[KeystorePeer, ...]
    reads: str = ""
    """As that of ``[hospital]``."""
    trust: str = ""
    """Its own trust anchors; those of the mount where it names none."""
    metadata: tuple[MetadataPeer, ...] = ()


class MountConfiguration(Settings, frozen=True):
    """All of it; paths are relative to the configuration's folder."""

    trust: str
    """PEM bundle of trust anchors, or a CA directory with hash names."""
    hospital: HospitalPeer = HospitalPeer("", "")
    keystores: tuple[KeystorePeer, ...] = ()
    hospitals: tuple[JoinedHospital, ...] = ()
    mount: MountSettings = MountSettings()
    credential: CredentialSettings = CredentialSettings()
    cache: CacheSettings = CacheSettings()
    metadata: tuple[MetadataPeer, ...] = ()
    file: str = "mount.toml"
    """The configuration itself; set by ``read``."""

    @classmethod
    def read(cls, path: pathlib.Path) -> MountConfiguration:
        """Read a file; raises ``ConfigurationError``."""
        configuration = msgspec.structs.replace(read_configuration(path, cls), file=str(path.absolute()))
        try:
            configuration.refuse_nonsense()
        except (ConfigurationError, MalformedNameError) as error:
            message = f"{path}: {error}"
            raise ConfigurationError(message) from error
        return configuration

    @classmethod
    def read_again(cls, path: pathlib.Path) -> MountConfiguration:
        """Read the file of a mount that runs, as ``read``; a named pipe would be waited for."""
        if path.exists() and not path.is_file():
            message = f"{path} is no plain file"
            raise ConfigurationError(message)
        return cls.read(path)

    def refuse_nonsense(self) -> None:
        """Raise ``ConfigurationError`` for what no mount could run with."""
        if self.hospitals:
            self._refuse_wrong_hospitals()
            return
        if not self.hospital.address or not self.hospital.dn:
            message = "[hospital] has the address and the dn of the one that is mounted; or there are [[hospitals]]"
            raise ConfigurationError(message)
        if not self.keystores or len({peer.name for peer in self.keystores}) != len(self.keystores):
            message = "[[keystores]] names every keystore once, and at least one"
            raise ConfigurationError(message)
        if len({peer.name for peer in self.metadata}) != len(self.metadata):
            message = "[[metadata]] names every service once"
            raise ConfigurationError(message)
        self._refuse_wrong_peers()
        self._refuse_wrong_limits()
        if bool(self.credential.certificate) != bool(self.credential.key) or (
            self.credential.proxy and self.credential.certificate
        ):
            message = "[credential] has proxy, or certificate and key, or nothing"
            raise ConfigurationError(message)
        if self.mount.multi_user and self.credential != CredentialSettings():
            message = "with [mount] multi_user everybody is served by his own proxy: leave [credential] out"
            raise ConfigurationError(message)
        for begin in self.mount.cache_of:
            parts = urllib.parse.urlsplit(begin)
            if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path or not self.site_cache:
                message = f"[mount] cache_of names URLs https://HOST:PORT/ of what site_cache keeps, not {begin!r}"
                raise ConfigurationError(message)

    def _refuse_wrong_peers(self) -> None:
        refuse_wrong_peer("hospital", self.hospital)
        for place, keystore in enumerate(self.keystores):
            refuse_wrong_peer(f"keystores[{place}]", keystore)
        for place, service in enumerate(self.metadata):
            refuse_wrong_peer(f"metadata[{place}]", service)
        if self.hospital.reads:
            with at_key("hospital.reads"):
                Address.parse_all(self.hospital.reads)

    def refuse_missing_authorities(self) -> None:
        """Raise ``ConfigurationError`` where the CAs of a hospital cannot be read: nobody could be asked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for told in self.each.values():
            TrustAnchors(told.path(told.trust)).trust_in(context)

    def _refuse_wrong_limits(self) -> None:
        if self.mount.deadline <= 0 or self.mount.lease_wait <= 0:
            message = "[mount] deadline and lease_wait are numbers of seconds above 0"
            raise ConfigurationError(message)
        with at_key("mount.root"):
            self.root  # noqa: B018 raises
        with at_key("mount.metrics"):
            Address.parse_loopback(self.mount.metrics)
        self.cache_size, self.cache_floor, self.site_cache, self.pushed  # noqa: B018 raise
        if self.memory < LEAST_MEMORY:
            message = f"[mount] memory is {LEAST_MEMORY // 2**20} MiB or more, not {self.mount.memory!r}"
            raise ConfigurationError(message)
        if self.mount.log_level not in LOG_LEVELS:
            message = f"[mount] log_level is one of {', '.join(LOG_LEVELS[1:])}, not {self.mount.log_level!r}"
            raise ConfigurationError(message)

    def _refuse_wrong_hospitals(self) -> None:
        """Look at each of several hospitals as if it were mounted alone."""
        if self.hospital.address or self.keystores or self.metadata:
            message = "with [[hospitals]] each has its own keystores and metadata: leave [hospital], [[keystores]] out"
            raise ConfigurationError(message)
        if len({one.name for one in self.hospitals}) != len(self.hospitals) or len(self.hospitals) > MAX_HOSPITALS:
            message = f"[[hospitals]] names every hospital once, and at most {MAX_HOSPITALS}"
            raise ConfigurationError(message)
        names = [peer.name for one in self.hospitals for peer in one.metadata]
        if len(set(names)) != len(names):
            message = "[[hospitals.metadata]] names every service once"
            raise ConfigurationError(message)
        if self.root.parts:
            message = f"[mount] root is {ROOT_PREFIX} where several hospitals are joined"
            raise ConfigurationError(message)
        for one in self.hospitals:
            if one.name.startswith("."):
                message = f"[[hospitals]] name is that of a directory, and none begins with a dot: {one.name!r}"
                raise ConfigurationError(message)
            with at_key(f"[[hospitals]] {one.name}"):
                self.of(self.root / one.name).refuse_nonsense()

    def of(self, lfn: Lfn) -> MountConfiguration:
        """Give the configuration by which the hospital alone would be mounted that has a name; raises as ``read``."""
        if not self.hospitals:
            return self
        joined = next((one for one in self.hospitals if lfn.is_below(self.root / one.name)), None)
        if joined is None:
            message = f"{lfn} is at no hospital of this mount: it joins {', '.join(one.name for one in self.hospitals)}"
            raise ConfigurationError(message)
        return msgspec.structs.replace(
            self,
            hospital=HospitalPeer(joined.address, joined.dn, joined.reads),
            keystores=joined.keystores,
            metadata=joined.metadata,
            trust=joined.trust or self.trust,
            mount=msgspec.structs.replace(self.mount, root=str(self.root / joined.name)),
            cache=msgspec.structs.replace(self.cache, directory=str(self.cache_folder / BESIDE / joined.name)),
            hospitals=(),
        )

    @property
    def each(self) -> dict[str, MountConfiguration]:
        """The configuration of each hospital alone, by its name; of the only one by the empty name."""
        if not self.hospitals:
            return {"": self}
        return {one.name: self.of(self.root / one.name) for one in self.hospitals}

    @property
    def root(self) -> Lfn:
        """The directory that is shown; ``MalformedNameError`` for another text."""
        return Lfn.parse(self.mount.root)

    @property
    def site_cache(self) -> Address | None:
        """Where the site's cache listens; raises ``ConfigurationError``."""
        if not self.mount.site_cache:
            return None
        scheme, _, rest = self.mount.site_cache.partition("://")
        if scheme != "http":
            message = f"[mount] site_cache is written http://HOST:PORT, not {self.mount.site_cache!r}"
            raise ConfigurationError(message)
        return Address.parse(rest.rstrip("/"))

    @property
    def cache_size(self) -> int:
        """The cache's limit in bytes."""
        return _bytes_of("[cache] size", self.cache.size)

    @property
    def cache_floor(self) -> int:
        """How many bytes of the cache's disk are left free."""
        return _bytes_of("[cache] free", self.cache.free)

    @property
    def memory(self) -> int:
        """How many bytes may be kept in memory."""
        return _bytes_of("[mount] memory", self.mount.memory)

    @property
    def pushed(self) -> int:
        """Up to which size in bytes files are pushed whole."""
        return _bytes_of("[mount] push", self.mount.push)

    @property
    def cache_folder(self) -> pathlib.Path:
        """Where the ciphertext is kept."""
        if self.cache.directory:
            return self.path(self.cache.directory)
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mdmfs"

    def refuse_hiding(self, mountpoint: pathlib.Path) -> None:
        """Refuse to mount over what the mount itself needs: it would wait for itself. Nothing is touched."""
        own = self.credential
        needed = [self.path(text) for text in (self.file, self.trust, own.proxy, own.certificate, own.key) if text]
        point = os.path.abspath(mountpoint)  # noqa: PTH100 links on a mount would be followed
        for path in (*needed, self.cache_folder):
            if pathlib.Path(os.path.abspath(path)).is_relative_to(point):  # noqa: PTH100 as above
                message = f"a mount at {mountpoint} would hide {path}, which it needs"
                raise UnusableFileError(message, what_to_do="take an empty directory elsewhere")

    def path(self, text: str) -> pathlib.Path:
        """Resolve a path of the configuration."""
        return beside(pathlib.Path(self.file), text)


def _bytes_of(key: str, text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = f"{key} is written like 10 GiB, not {text!r}"
        raise ConfigurationError(message)
    return int(match[1]) * _UNITS[match[2]]
