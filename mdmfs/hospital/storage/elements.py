"""From the configuration to storage elements."""

from __future__ import annotations

import pathlib
import ssl
import urllib.parse
from collections.abc import Callable

from mdmfs.hospital.configuration import HospitalConfiguration, StorageEntry
from mdmfs.hospital.secret import own_secret
from mdmfs.hospital.storage.dav import DavElement
from mdmfs.hospital.storage.port import StorageElement
from mdmfs.hospital.storage.replicas import Replicas
from mdmfs.hospital.storage.s3 import S3Element
from mdmfs.model.errors import ConfigurationError
from mdmfs.pki.tls import ClientContexts


def open_replicas(configuration: HospitalConfiguration, directory: pathlib.Path) -> Replicas:
    """Open what is configured; the secret of names is made in ``directory`` at the first start."""
    if not configuration.storage:
        return Replicas()
    context = ClientContexts(configuration.credential, configuration.anchors)
    elements = {entry.name: open_element(entry, configuration, context) for entry in configuration.storage}
    return Replicas(elements, own_secret(directory / "replicas.key"))


def open_element(
    entry: StorageEntry, configuration: HospitalConfiguration, context: Callable[[], ssl.SSLContext]
) -> StorageElement:
    """Be ready to ask a storage element; raises ``ConfigurationError``."""
    scheme, host = urllib.parse.urlsplit(entry.url)[:2]
    if scheme not in {"https", "http"} or not host or (scheme == "http" and entry.kind != "s3"):
        message = f"storage {entry.name}: url is https://HOST:PORT/PATH, not {entry.url!r}"
        raise ConfigurationError(message)
    if entry.kind == "webdav":
        return DavElement(entry.name, entry.url, context, padding=entry.padding)
    return S3Element(
        entry.name,
        entry.url,
        region=entry.region,
        credentials=configuration.path(entry.credentials),
        ca=configuration.path(entry.ca) if entry.ca else None,
        padding=entry.padding,
    )
