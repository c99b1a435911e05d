"""The credential of the mount's owner: from the configuration, or where grid programs keep a user's proxy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mdmfs.pki.tls import Credential
from mdmfs.worker.configuration import MountConfiguration


def find_credential(configuration: MountConfiguration, environment: Mapping[str, str], uid: int) -> Credential:
    """Say which files to show: as configured, else ``X509_USER_PROXY``, else ``/tmp/x509up_uUID``."""
    settings = configuration.credential
    if settings.certificate:
        return Credential(configuration.path(settings.certificate), configuration.path(settings.key))
    if settings.proxy:
        return Credential.of_proxy(configuration.path(settings.proxy))
    return Credential.of_proxy(Path(environment.get("X509_USER_PROXY") or f"/tmp/x509up_u{uid}"))  # noqa: S108 where grid programs keep it


def own_credential(configuration: MountConfiguration) -> Credential:
    """Find the credential of the user who runs this process."""
    return find_credential(configuration, os.environ, os.getuid())
