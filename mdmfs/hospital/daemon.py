"""hospitald: opens the stores, connects PACSs and keystores, and serves until it is told to stop."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Final

import structlog
import trio

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.assembly import assemble, open_known_pacs, read_choices
from mdmfs.hospital.audit.witnesses import deposit_checkpoints
from mdmfs.hospital.catalogue.rights import OWNERS
from mdmfs.hospital.configuration import HospitalConfiguration, MetadataPeer
from mdmfs.hospital.dav.face import DavFace
from mdmfs.hospital.dicom.move import Moves
from mdmfs.hospital.dicom.receive import Receiver
from mdmfs.hospital.dicom.senders import Senders
from mdmfs.hospital.gauges import keep_gauges
from mdmfs.hospital.health import health_of, health_routes
from mdmfs.hospital.hospital import Hospital, KnownPacs
from mdmfs.hospital.keys.currency import keep_current
from mdmfs.hospital.keys.face import key_routes
from mdmfs.hospital.keys.tasks import Tasks
from mdmfs.hospital.metadata.face import record_routes
from mdmfs.hospital.names.face import name_routes
from mdmfs.hospital.outbox.delivery import MetadataService, deliver_metadata
from mdmfs.hospital.outbox.deposit import deposit
from mdmfs.hospital.outward import current
from mdmfs.hospital.quarantined import quarantine_routes
from mdmfs.hospital.registration.ending import Ending
from mdmfs.hospital.registration.face import renewal_routes
from mdmfs.hospital.registration.harvest import Harvests
from mdmfs.hospital.registration.merge import take_up_merges
from mdmfs.hospital.registration.not_included import forget_old
from mdmfs.hospital.registration.reconcile import Reconciliations
from mdmfs.hospital.registration.reconciliation_face import reconciliation_routes
from mdmfs.hospital.registration.rerender import Rerenderings
from mdmfs.hospital.registration.trigger import Trigger
from mdmfs.hospital.release.outdated import forget_outdated_headers
from mdmfs.hospital.release.recall import Recalls
from mdmfs.hospital.release.release import quarantine
from mdmfs.hospital.replicas.face import replica_routes
from mdmfs.hospital.replicas.publish import keep_replicas
from mdmfs.hospital.rights.change import settle_top
from mdmfs.hospital.rights.ends import end_what_has_ended
from mdmfs.hospital.rights.face import rights_routes
from mdmfs.hospital.service import HospitalFace
from mdmfs.hospital.standby import open_or_stand_by, presence, relay_key_of
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.tape.face import TapeFace
from mdmfs.hospital.tape.stager import Stager
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.pki.tls import ServerContexts
from mdmfs.wire.peers import open_lasting_client
from mdmfs.wire.server import Limits, serve
from mdmfs.wire.service import Service
from mdmfs.wire.stream import Address

log = structlog.get_logger()

_EVERYBODY: Final = Entry(EntryKind.OTHER, "", Right.TRAVERSE.value)


async def run_hospital(
    configuration: HospitalConfiguration, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; ``started`` gives the address that is listened on.

    Raises ``ConfigurationError`` and ``StoreError`` when it cannot start. The process is the caller's: a daemon calls
    ``mdmfs.daemon.process.forbid_core_dumps`` first.
    """
    contexts = await trio.to_thread.run_sync(
        ServerContexts, configuration.credential, configuration.anchors, configuration.vomsdir
    )
    moves = None if configuration.dicom is None else Moves(configuration.dicom.ae_title)
    store, started = await open_or_stand_by(configuration, task_status)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        choices = read_choices(configuration)
        pacs = {it.name: await open_known_pacs(it, configuration, moves, choices, stack) for it in configuration.pacs}
        await _run(configuration, store, contexts, moves, pacs, started)


async def _run(
    configuration: HospitalConfiguration,
    store: Store,
    contexts: ServerContexts,
    moves: Moves | None,
    pacs: Mapping[str, KnownPacs],
    task_status: trio.TaskStatus[Address],
) -> None:
    """Serve between PACSs, which are closed last: each has a nursery of its own, and nurseries end in turn."""
    async with contextlib.AsyncExitStack() as stack, open_plain_nursery() as nursery:
        hospital = await assemble(configuration, store, pacs, stack, nursery)
        await store.write(lambda tx: make_project_directories(tx, hospital))
        recalls = Recalls(
            {entry.name: (hospital.pacs[entry.name].pacs, entry.associations) for entry in configuration.pacs},
            hospital.shares,
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
        nursery.start_soon(tasks.take_up)
        own = {
            **key_routes(hospital, tasks),
            **renewal_routes(hospital, Rerenderings(hospital, nursery), tasks),
            **health_routes(hospital, functools.partial(health_of, hospital)),
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
        await store.announce(presence(configuration))
        bound = await _listen(configuration, service, contexts, nursery)
        log.info("hospital is open", name=hospital.name, projects=sorted(hospital.projects), files=_count(hospital))
        task_status.started(bound)


async def _listen(
    configuration: HospitalConfiguration, service: Service, contexts: ServerContexts, nursery: trio.Nursery
) -> Address:
    """Answer where everybody asks, and where readers do whoever works."""
    limits = Limits(requests_a_second=configuration.hospital.requests_per_second)
    begin = functools.partial(serve, service, contexts, limits=limits)
    relay_key = relay_key_of(configuration)
    bound: Address = await nursery.start(functools.partial(begin, address=configuration.listen, relay_key=relay_key))
    if configuration.reads is not None:
        await nursery.start(functools.partial(begin, address=configuration.reads))
    return bound


def _begin(hospital: Hospital, recalls: Recalls, configuration: HospitalConfiguration, nursery: trio.Nursery) -> None:
    """Begin what goes on beside all requests."""
    nursery.start_soon(hospital.store.run)
    nursery.start_soon(hospital.audit.run)
    nursery.start_soon(recalls.run)
    nursery.start_soon(hospital.headers.run)
    nursery.start_soon(hospital.staging.keep_room)
    nursery.start_soon(deposit, hospital)
    if configuration.metadata is None:
        nursery.start_soon(keep_current, hospital)
    else:
        told = _open_metadata(configuration.metadata, configuration, nursery)
        nursery.start_soon(keep_current, hospital, told.peer)
        nursery.start_soon(deliver_metadata, hospital, told)
    nursery.start_soon(deposit_checkpoints, hospital)
    nursery.start_soon(Ending(hospital).run)
    nursery.start_soon(take_up_merges, hospital)
    nursery.start_soon(forget_outdated_headers, hospital)
    nursery.start_soon(forget_old, hospital, configuration.hospital.keep_not_included)
    nursery.start_soon(end_what_has_ended, hospital)
    nursery.start_soon(keep_replicas, hospital)
    if configuration.hospital.metrics:
        nursery.start_soon(keep_gauges, hospital, functools.partial(health_of, hospital))


def _open_metadata(peer: MetadataPeer, configuration: HospitalConfiguration, nursery: trio.Nursery) -> MetadataService:
    client = open_lasting_client(peer.address, peer.dn, configuration.credential, configuration.anchors)
    return MetadataService.of(client, nursery)


async def _receive(
    hospital: Hospital, configuration: HospitalConfiguration, moves: Moves, nursery: trio.Nursery
) -> None:
    """Listen for the PACSs, and work on what they tell of."""
    settings = configuration.dicom
    if settings is None:
        return
    is_kept = configuration.hospital.keep_not_included > 0
    trigger = Trigger(hospital, settings.settle, keep_not_included=is_kept)
    receiver = Receiver(moves, Senders(entry.sender for entry in configuration.pacs), trigger.note)
    listen, tls = Address.parse(settings.listen), configuration.dicom_tls(settings.tls)
    port = await nursery.start(receiver.serve, listen.host, listen.port, tls)
    nursery.start_soon(trigger.run)
    log.info("PACSs may store to us", ae_title=settings.ae_title, port=port, is_tls=tls is not None)


def make_project_directories(tx: Transaction, hospital: Hospital) -> None:
    """Make the directories above the images.

    Everybody may pass the root. The hospital's directory lets those pass who may enter one of its projects, so that
    nobody else learns even its name. A project's directory begins with what its file says; from then on ``setfacl``
    decides, and the file is compared with what it began with.
    """
    owner = str(hospital.dn)
    tx.catalogue.make_directories(Lfn(()), acl=Acl(owner, (*OWNERS, _EVERYBODY)))
    tx.catalogue.make_directories(Lfn((hospital.name,)), acl=Acl(owner, OWNERS))
    for project in hospital.projects.values():
        inode = tx.catalogue.make_directories(project.lfn, acl=project.acl)
        first = tx.acls.first(tx.acls.ids_above(inode)[-1])
        if first is None or first.encode() != project.acl.encode():
            message = (
                f"[access] of project {project.name} is not what its directory was made with, and a file cannot change "
                "the access to images that are registered: put back what it said, and use mdmfs setfacl"
            )
            raise ConfigurationError(message)
    settle_top(tx, hospital)


def _count(hospital: Hospital) -> int:
    return hospital.store.read(lambda tx: tx.catalogue.totals()).files
