"""A daemon's configuration: one TOML file to a frozen value, with errors that name the file and the field."""

from __future__ import annotations

import contextlib
import pathlib
import tomllib
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from mdmfs.daemon.slips import told
from mdmfs.model.errors import ConfigurationError, MalformedNameError
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import Crls, TrustAnchors

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root of all tables: an unknown field is an error, because a misspelt one would be silence."""


class TlsFiles(Settings, frozen=True):
    """Who a daemon is and whom it believes; paths are relative to the configuration's folder."""

    certificate: str
    """PEM: the chain, leaf first."""
    key: str
    """PEM, readable by its owner only."""
    trust: str
    """PEM bundle of trust anchors, or a CA directory with hash names and signing policies."""
    vomsdir: str = ""
    """LSC files by VO, such as /etc/grid-security/vomsdir; without it nobody has VOMS groups and roles."""
    crls: Crls = Crls.IF_PRESENT
    """What to do about a CA without a revocation list: ``if-present`` lets its users in, ``require`` does not."""

    def credential(self, configuration: pathlib.Path) -> Credential:
        """Give the daemon's certificate and key."""
        return Credential(beside(configuration, self.certificate), beside(configuration, self.key))

    def anchors(self, configuration: pathlib.Path) -> TrustAnchors:
        """Give the CAs whose certificates count."""
        return TrustAnchors(beside(configuration, self.trust), self.crls)

    def voms(self, configuration: pathlib.Path) -> pathlib.Path | None:
        """Give the ``vomsdir``, if there is one."""
        return beside(configuration, self.vomsdir) if self.vomsdir else None


class KeystorePeer(Settings, frozen=True):
    """One keystore as its clients know it."""

    name: str
    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""


def read_tables(path: pathlib.Path) -> dict[str, Any]:
    """Read a TOML file; raises ``ConfigurationError`` that names file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not a valid configuration: {error}"
        raise ConfigurationError(message) from error


def read_configuration(path: pathlib.Path, kind: type[T]) -> T:
    """Read a TOML file into ``kind``; raises ``ConfigurationError`` that names file, line or key."""
    tables = read_tables(path)
    try:
        return msgspec.convert(tables, kind)
    except (msgspec.ValidationError, ConfigurationError) as error:
        reason = told(error, kind, tables) if isinstance(error, msgspec.ValidationError) else str(error)
        message = f"{path} is not a valid configuration: {reason}"
        raise ConfigurationError(message) from error


@contextlib.contextmanager
def at_key(key: str) -> Iterator[None]:
    """Let what is found wrong in the block begin with the key that says it; raises ``ConfigurationError``."""
    try:
        yield
    except (ConfigurationError, MalformedNameError) as error:
        message = f"{key}: {error}"
        raise ConfigurationError(message) from error


def beside(configuration: pathlib.Path, path: str) -> pathlib.Path:
    """Resolve a path of a configuration file: relative ones count from the file's folder, ``~`` is the home."""
    return (configuration.parent / pathlib.Path(path).expanduser()).absolute()
