"""hospitald: opens the stores, connects PACSs and keystores, and serves until it is told to stop."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import importlib.resources.abc
import pathlib
import time
from collections.abc import Mapping
from typing import Final

import structlog
import trio

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.hospital.audit.witnesses import deposit_checkpoints
from mdmfs.hospital.bell import Bell
from mdmfs.hospital.configuration import HospitalConfiguration, MetadataPeer, PacsEntry
from mdmfs.hospital.dav.face import DavFace
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.rules import prepare
from mdmfs.hospital.dicom.choices import FILE, Choices
from mdmfs.hospital.dicom.move import Destination, Moves
from mdmfs.hospital.dicom.pool import Surroundings
from mdmfs.hospital.dicom.receive import Receiver
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.hospital.dicom.senders import Senders
from mdmfs.hospital.feed import Feed
from mdmfs.hospital.gauges import keep_gauges
from mdmfs.hospital.health import health_routes
from mdmfs.hospital.hospital import Hospital, KnownPacs
from mdmfs.hospital.keys.currency import keep_current
from mdmfs.hospital.keys.face import key_routes
from mdmfs.hospital.keys.lies import recording_lies
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.hospital.metadata.delivery import MetadataService, deliver_metadata
from mdmfs.hospital.metadata.face import record_routes
from mdmfs.hospital.names.face import name_routes
from mdmfs.hospital.outward import current
from mdmfs.hospital.projects import NOBODY, read_patient_list, read_projects
from mdmfs.hospital.quarantined import quarantine_routes
from mdmfs.hospital.registration.deposit import deposit
from mdmfs.hospital.registration.ending import end_what_is_over
from mdmfs.hospital.registration.face import renewal_routes
from mdmfs.hospital.registration.harvest import Harvests
from mdmfs.hospital.registration.reconcile import Reconciliations
from mdmfs.hospital.registration.reconciliation_face import reconciliation_routes
from mdmfs.hospital.registration.rerender import Rerenderings
from mdmfs.hospital.registration.trigger import Trigger
from mdmfs.hospital.release.audit import Audit
from mdmfs.hospital.release.decision import is_current
from mdmfs.hospital.release.escrow import Seal
from mdmfs.hospital.release.headers import Headers
from mdmfs.hospital.release.recall import Recalls
from mdmfs.hospital.release.release import quarantine
from mdmfs.hospital.release.staging import Staging
from mdmfs.hospital.replicas.elements import open_replicas, refuse_unknown_storage
from mdmfs.hospital.replicas.face import replica_routes
from mdmfs.hospital.replicas.publish import keep_replicas
from mdmfs.hospital.rights.change import OWNERS, settle_top
from mdmfs.hospital.rights.ends import end_what_has_ended
from mdmfs.hospital.rights.face import rights_routes
from mdmfs.hospital.service import HospitalFace
from mdmfs.hospital.signing import SigningKey
from mdmfs.hospital.standby import open_or_stand_by, presence, relay_key_of
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.tape.face import TapeFace
from mdmfs.hospital.tape.stager import Stager
from mdmfs.hospital.transaction import RowStore
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import ServerContexts
from mdmfs.wire.nursery import open_plain_nursery
from mdmfs.wire.peers import open_client, open_keystores
from mdmfs.wire.server import Limits, serve
from mdmfs.wire.service import Service
from mdmfs.wire.stream import Address

log = structlog.get_logger()

SHIPPED_POLICIES: Final = "mdmfs.hospital.deid"
_EVERYBODY: Final = Entry(EntryKind.OTHER, "", Right.TRAVERSE.value)


async def run_hospital(
    configuration: HospitalConfiguration, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; ``started`` gives the address that is listened on.

    Raises ``ConfigurationError`` and ``StoreError`` when it cannot start. The process is the caller's: a daemon calls
    ``mdmfs.wire.process.forbid_core_dumps`` first.
    """
    contexts = await trio.to_thread.run_sync(
        ServerContexts, configuration.credential, configuration.anchors, configuration.vomsdir
    )
    moves = None if configuration.dicom is None else Moves(configuration.dicom.ae_title)
    store, started = await open_or_stand_by(configuration, task_status)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        choices = read_choices(configuration)
        pacs = {
            entry.name: await _open_pacs(entry, configuration, moves, choices, stack) for entry in configuration.pacs
        }
        await _run(configuration, store, contexts, moves, pacs, started)


async def _run(
    configuration: HospitalConfiguration,
    store: RowStore,
    contexts: ServerContexts,
    moves: Moves | None,
    pacs: Mapping[str, KnownPacs],
    task_status: trio.TaskStatus[Address],
) -> None:
    """Serve between PACSs, which are closed last: each has a nursery of its own, and nurseries end in turn."""
    async with contextlib.AsyncExitStack() as stack, open_plain_nursery() as nursery:
        hospital = await _assemble(configuration, store, pacs, stack, nursery)
        recalls = Recalls(
            {entry.name: (hospital.pacs[entry.name].pacs, entry.associations) for entry in configuration.pacs},
            hospital.keystores,
            hospital.staging,
            hospital.headers,
            functools.partial(quarantine, hospital),
            configuration.hospital.recall_deadline,
        )
        _begin(hospital, recalls, configuration, nursery)
        hospital.leases.begin(max((project.lease for project in hospital.projects.values()), default=0.0))
        if moves is not None:
            await _receive(hospital, configuration, moves, nursery)
        face = HospitalFace(hospital, recalls, Harvests(hospital, nursery), configuration.public).service()
        reconciliations = Reconciliations(hospital, nursery, configuration.hospital.reconcile)
        nursery.start_soon(reconciliations.run_daily)
        tasks = Tasks(hospital, nursery)
        own = {
            **key_routes(hospital, tasks),
            **renewal_routes(hospital, Rerenderings(hospital, nursery), tasks),
            **health_routes(hospital),
            **replica_routes(hospital),
            **record_routes(hospital, configuration.hospital.identify_from),
            **quarantine_routes(hospital),
            **name_routes(hospital),
            **reconciliation_routes(hospital, reconciliations),
        }
        stager = Stager(hospital, recalls)
        nursery.start_soon(stager.run)
        grid = {**DavFace(hospital, recalls).routes(), **TapeFace(hospital, stager, configuration.public).routes()}
        routes = {**face.routes, **rights_routes(hospital), **own, **grid}
        service = Service(face.name, {route: current(hospital.store, respond) for route, respond in routes.items()})
        limits = Limits(requests_a_second=configuration.hospital.requests_per_second)
        await store.announce(presence(configuration))
        listen = functools.partial(
            serve, service, contexts, configuration.listen, limits=limits, relay_key=relay_key_of(configuration)
        )
        bound = await nursery.start(listen)
        log.info("hospital is open", name=hospital.name, projects=sorted(hospital.projects), files=_count(hospital))
        task_status.started(bound)


def _begin(hospital: Hospital, recalls: Recalls, configuration: HospitalConfiguration, nursery: trio.Nursery) -> None:
    """Begin what goes on beside all requests."""
    nursery.start_soon(hospital.store.run)
    nursery.start_soon(hospital.audit.run)
    nursery.start_soon(recalls.run)
    nursery.start_soon(hospital.headers.run)
    nursery.start_soon(deposit, hospital)
    if configuration.metadata is None:
        nursery.start_soon(keep_current, hospital)
    else:
        told = _open_metadata(configuration.metadata, configuration, nursery)
        nursery.start_soon(keep_current, hospital, told.peer)
        nursery.start_soon(deliver_metadata, hospital, told)
    nursery.start_soon(deposit_checkpoints, hospital)
    nursery.start_soon(end_what_is_over, hospital)
    nursery.start_soon(end_what_has_ended, hospital)
    nursery.start_soon(keep_replicas, hospital)
    if configuration.hospital.metrics:
        nursery.start_soon(keep_gauges, hospital)


def _open_metadata(peer: MetadataPeer, configuration: HospitalConfiguration, nursery: trio.Nursery) -> MetadataService:
    client = open_client(peer.address, peer.dn, configuration.credential, configuration.anchors)
    return MetadataService.of(client, nursery)


async def _assemble(
    configuration: HospitalConfiguration,
    store: RowStore,
    pacs: Mapping[str, KnownPacs],
    stack: contextlib.AsyncExitStack,
    nursery: trio.Nursery,
) -> Hospital:
    settings = configuration.hospital
    directory = configuration.path(settings.directory)
    signing = SigningKey(directory / "signing.key")
    audit = Audit(directory / "audit.jsonl", signing)
    stack.callback(audit.close)
    headers = Headers(directory / "headers", settings.headers_bytes)
    stack.callback(headers.close)
    credential = configuration.credential
    hospital = Hospital(
        name=settings.name,
        dn=credential.subject(),
        store=store,
        pacs=pacs,
        projects=read_projects(configuration.path(settings.projects), settings.name, read_policy),
        opted_out=read_patient_list(configuration.path(settings.opt_out)) if settings.opt_out else NOBODY,
        keystores=open_keystores(
            configuration.keystores,
            credential,
            configuration.anchors,
            nursery,
            recording_lies(audit, time.time),
            signing,
        ),
        seal=Seal(directory / "outbox.key"),
        threshold=configuration.keys.threshold,
        required=configuration.required_keystores,
        staging=Staging(directory / "staging", settings.staging_bytes),
        headers=headers,
        audit=audit,
        outbox=Bell(),
        feed=Feed(store),
        clock=time.time,
        has_metadata=configuration.metadata is not None,
        replicas=open_replicas(configuration, directory),
    )
    _refuse_unknown_pacs(hospital)
    for project in hospital.projects.values():
        await trio.to_thread.run_sync(prepare, project.policy)
    refuse_unknown_storage(hospital)
    hospital.staging.retain(functools.partial(is_current, hospital))
    await store.write(lambda tx: make_project_directories(tx, hospital))
    return hospital


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


async def _open_pacs(
    entry: PacsEntry,
    configuration: HospitalConfiguration,
    moves: Moves | None,
    choices: Choices,
    stack: contextlib.AsyncExitStack,
) -> KnownPacs:
    before = choices.of(entry.name, entry.location)
    surroundings = Surroundings(
        None if moves is None else Destination(moves, entry.name),
        configuration.dicom_tls(entry.tls),
        remembered=None if before is None else before.service,
        remember=functools.partial(choices.keep, entry.name, entry.location),
    )
    pacs = await stack.enter_async_context(open_pacs(entry.location, entry.politeness, surroundings))
    return KnownPacs(pacs, entry.issuer)


async def _receive(
    hospital: Hospital, configuration: HospitalConfiguration, moves: Moves, nursery: trio.Nursery
) -> None:
    """Listen for the PACSs, and work on what they tell of."""
    settings = configuration.dicom
    if settings is None:
        return
    trigger = Trigger(hospital, settings.settle)
    receiver = Receiver(moves, Senders(entry.sender for entry in configuration.pacs), trigger.note)
    listen, tls = Address.parse(settings.listen), configuration.dicom_tls(settings.tls)
    port = await nursery.start(receiver.serve, listen.host, listen.port, tls)
    nursery.start_soon(trigger.run)
    log.info("PACSs may store to us", ae_title=settings.ae_title, port=port, is_tls=tls is not None)


def _refuse_unknown_pacs(hospital: Hospital) -> None:
    for project in hospital.projects.values():
        unknown = set(project.pacs) - set(hospital.pacs)
        if unknown:
            message = f"project {project.name} names PACSs that are not configured: {sorted(unknown)}"
            raise ConfigurationError(message)


def make_project_directories(tx: Transaction, hospital: Hospital) -> None:
    """Make the directories above the images.

    Everybody may pass the root. The hospital's directory lets those pass who may enter one of its projects, so that
    nobody else learns even its name. A project's directory begins with what its file says; from then on ``setfacl``
    decides, and the file is compared with what it began with.
    """
    now, owner = hospital.clock(), str(hospital.dn)
    tx.catalogue.make_directories(Lfn(()), now=now, acl=Acl(owner, (*OWNERS, _EVERYBODY)))
    tx.catalogue.make_directories(Lfn((hospital.name,)), now=now, acl=Acl(owner, OWNERS))
    for project in hospital.projects.values():
        inode = tx.catalogue.make_directories(project.lfn, now=now, acl=project.acl)
        first = tx.catalogue.first_acl(tx.catalogue.acl_ids_above(inode)[-1])
        if first is None or first.encode() != project.acl.encode():
            message = (
                f"[access] of project {project.name} is not what its directory was made with, and a file cannot change "
                "the access to images that are registered: put back what it said, and use mdmfs setfacl"
            )
            raise ConfigurationError(message)
    settle_top(tx, hospital)


def _count(hospital: Hospital) -> int:
    return hospital.store.read(lambda tx: tx.catalogue.totals()).files
