"""The configuration of a mount: one TOML file to a frozen value."""

from __future__ import annotations

import os
import pathlib
import re
from typing import Final

import msgspec

from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import ROOT_PREFIX, Lfn
from mdmfs.wire.configuration import KeystorePeer, Settings, beside, read_configuration

CONFIGURATION_ATTRIBUTE: Final = "user.mdmfs.configuration"
"""Extended attribute of a mount point: the file that its mount was configured by."""
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
    metrics: str = ""
    """``HOST:PORT`` on loopback where Prometheus asks; nowhere where it is empty."""


class HospitalPeer(Settings, frozen=True):
    """``[hospital]``."""

    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""


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


class MetadataPeer(Settings, frozen=True):
    """``[[metadata]]``: one hospital's metadata service; questions go to all of them."""

    name: str
    """Of the hospital; for people, when it does not answer."""
    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""


class MountConfiguration(Settings, frozen=True):
    """All of it; paths are relative to the configuration's folder."""

    hospital: HospitalPeer
    keystores: list[KeystorePeer]
    trust: str
    """PEM bundle of trust anchors, or a CA directory with hash names."""
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
        configuration.refuse_nonsense()
        return configuration

    def refuse_nonsense(self) -> None:
        """Raise ``ConfigurationError`` for what no mount could run with."""
        if not self.keystores or len({peer.name for peer in self.keystores}) != len(self.keystores):
            message = "[[keystores]] names every keystore once, and at least one"
            raise ConfigurationError(message)
        if len({peer.name for peer in self.metadata}) != len(self.metadata):
            message = "[[metadata]] names every service once"
            raise ConfigurationError(message)
        if self.mount.deadline <= 0 or self.mount.lease_wait <= 0:
            message = "[mount] deadline and lease_wait are numbers of seconds above 0"
            raise ConfigurationError(message)
        if bool(self.credential.certificate) != bool(self.credential.key) or (
            self.credential.proxy and self.credential.certificate
        ):
            message = "[credential] has proxy, or certificate and key, or nothing"
            raise ConfigurationError(message)
        if self.mount.multi_user and self.credential != CredentialSettings():
            message = "with [mount] multi_user everybody is served by his own proxy: leave [credential] out"
            raise ConfigurationError(message)
        self.cache_size  # noqa: B018 raises

    @property
    def root(self) -> Lfn:
        """The directory that is shown; ``MalformedNameError`` for another text."""
        return Lfn.parse(self.mount.root)

    @property
    def cache_size(self) -> int:
        """The cache's limit in bytes."""
        match = _SIZE.fullmatch(self.cache.size.strip())
        if match is None:
            message = f"[cache] size is written like 10 GiB, not {self.cache.size!r}"
            raise ConfigurationError(message)
        return int(match[1]) * _UNITS[match[2]]

    @property
    def cache_folder(self) -> pathlib.Path:
        """Where the ciphertext is kept."""
        if self.cache.directory:
            return self.path(self.cache.directory)
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mdmfs"

    def path(self, text: str) -> pathlib.Path:
        """Resolve a path of the configuration."""
        return beside(pathlib.Path(self.file), text)
