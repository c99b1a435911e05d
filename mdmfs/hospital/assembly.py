"""From the configuration to a hospital: stores, lists, keys, policies and PACSs, whoever works with them then."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import importlib.resources.abc
import pathlib
import time
from collections.abc import Mapping
from typing import Final

import trio

from mdmfs.hospital.bell import Bell
from mdmfs.hospital.configuration import HospitalConfiguration, PacsEntry
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.rules import prepare
from mdmfs.hospital.dicom.choices import FILE, Choices
from mdmfs.hospital.dicom.move import Destination, Moves
from mdmfs.hospital.dicom.pool import Surroundings
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.hospital.feed import Feed
from mdmfs.hospital.hospital import Hospital, KnownPacs
from mdmfs.hospital.kept.audit import Audit
from mdmfs.hospital.kept.escrow import Seal
from mdmfs.hospital.kept.headers import Headers
from mdmfs.hospital.kept.shares import Shares
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.kept.strides import Strides
from mdmfs.hospital.keys.lies import recording_lies
from mdmfs.hospital.opening import refuse_lost_keys
from mdmfs.hospital.projects import NOBODY, read_patient_list, read_projects
from mdmfs.hospital.release.decision import is_current
from mdmfs.hospital.replicas.placement import refuse_unknown_storage
from mdmfs.hospital.signing import SigningKey
from mdmfs.hospital.storage.elements import open_replicas
from mdmfs.hospital.store import Store
from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.peers import open_keystores

SHIPPED_POLICIES: Final = "mdmfs.hospital.deid"


async def assemble(
    configuration: HospitalConfiguration,
    store: Store,
    pacs: Mapping[str, KnownPacs],
    stack: contextlib.AsyncExitStack,
    nursery: trio.Nursery,
    *,
    is_beside: bool = False,
) -> Hospital:
    """Put the parts together and read what lies beside the store; the stack closes what is open.

    ``is_beside`` where another daemon works on the store. Raises ``ConfigurationError`` and ``StoreError``.
    """
    settings = configuration.hospital
    directory = configuration.path(settings.directory)
    refuse_lost_keys(store, directory)
    signing = SigningKey(directory / "signing.key")
    audit = Audit(directory / "audit.jsonl", signing)
    stack.callback(audit.close)
    headers = Headers(directory / "headers", settings.headers_bytes)
    stack.callback(headers.close)
    keystores = _keystores_of(configuration, nursery, audit, signing)
    hospital = Hospital(
        name=settings.name,
        dn=configuration.credential.subject(),
        store=store,
        pacs=pacs,
        projects=read_projects(configuration.path(settings.projects), settings.name, read_policy),
        opted_out=read_patient_list(configuration.path(settings.opt_out)) if settings.opt_out else NOBODY,
        keystores=keystores,
        seal=Seal(directory / "outbox.key"),
        threshold=configuration.keys.threshold,
        required=configuration.required_keystores,
        staging=Staging(directory / "staging", settings.staging_bytes),
        headers=headers,
        shares=Shares(keystores, Strides(store)),
        audit=audit,
        outbox=Bell(),
        feed=Feed(store),
        clock=time.time,
        is_beside=is_beside,
        has_metadata=configuration.metadata is not None,
        replicas=open_replicas(configuration, directory),
    )
    _refuse_unknown_pacs(hospital)
    for project in hospital.projects.values():
        await trio.to_thread.run_sync(prepare, project.policy)
    refuse_unknown_storage(hospital)
    hospital.staging.retain(functools.partial(is_current, hospital))
    return hospital


def _keystores_of(
    configuration: HospitalConfiguration, nursery: trio.Nursery, audit: Audit, signing: SigningKey
) -> Keystores:
    on_lie, credential = recording_lies(audit, time.time), configuration.credential
    return open_keystores(configuration.keystores, credential, configuration.anchors, nursery, on_lie, signing)


def read_policy(name: str) -> Policy:
    """Read a shipped policy by its name, or one from a file by its absolute path; raises ``ConfigurationError``."""
    if "/" in name:
        source: pathlib.Path | importlib.resources.abc.Traversable = pathlib.Path(name)
    else:
        source = importlib.resources.files(SHIPPED_POLICIES) / "policies" / f"{name}.toml"
    try:
        return Policy.parse(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        message = f"there is no policy {name}"
        what_to_do = "name a shipped one (strict, research), or give a path with a / in it"
        raise ConfigurationError(message, what_to_do=what_to_do) from error
    except ConfigurationError as error:
        message = f"policy {name}: {error}"
        raise ConfigurationError(message) from error


def read_choices(configuration: HospitalConfiguration) -> Choices:
    """Read by which service each PACS was found to give its images."""
    return Choices(configuration.path(configuration.hospital.directory) / FILE, time.time)


async def open_known_pacs(
    entry: PacsEntry,
    configuration: HospitalConfiguration,
    moves: Moves | None,
    choices: Choices,
    stack: contextlib.AsyncExitStack,
) -> KnownPacs:
    """Be ready to ask a PACS, which is connected with when something is asked of it."""
    before = choices.of(entry.name, entry.location)
    surroundings = Surroundings(
        None if moves is None else Destination(moves, entry.name),
        configuration.dicom_tls(entry.tls),
        remembered=None if before is None else before.service,
        remember=functools.partial(choices.keep, entry.name, entry.location),
    )
    pacs = await stack.enter_async_context(open_pacs(entry.location, entry.politeness, surroundings))
    return KnownPacs(pacs, entry.issuer)


def _refuse_unknown_pacs(hospital: Hospital) -> None:
    for project in hospital.projects.values():
        unknown = set(project.pacs) - set(hospital.pacs)
        if unknown:
            message = f"project {project.name} names PACSs that are not configured: {sorted(unknown)}"
            raise ConfigurationError(message)
