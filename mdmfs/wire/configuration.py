"""A daemon's configuration: one TOML file to a frozen value, with errors that name the file and the field."""

from __future__ import annotations

import pathlib
import tomllib
from typing import TypeVar

import msgspec

from mdmfs.model.errors import ConfigurationError

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
    """PEM bundle of trust anchors, or a CA directory with hash names."""


class KeystorePeer(Settings, frozen=True):
    """One keystore as its clients know it."""

    name: str
    address: str
    """``HOST:PORT``."""
    dn: str
    """Of its certificate; no other is accepted."""


def read_configuration(path: pathlib.Path, kind: type[T]) -> T:
    """Read a TOML file into ``kind``; raises ``ConfigurationError`` that names file, line or field."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        message = f"{path} is not a valid configuration: {error}"
        raise ConfigurationError(message) from error


def beside(configuration: pathlib.Path, path: str) -> pathlib.Path:
    """Resolve a path of a configuration file: relative ones count from the file's folder, ``~`` is the home."""
    return (configuration.parent / pathlib.Path(path).expanduser()).absolute()
