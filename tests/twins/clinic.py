"""A whole hospital zone on twins: a PACS, a store and keystores in memory, folders on disk; it can be restarted."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec
import trio
from pydicom import Dataset

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.bell import Bell
from mdmfs.hospital.daemon import make_project_directories
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.feed import Feed
from mdmfs.hospital.hospital import Hospital, KnownPacs
from mdmfs.hospital.kept.audit import Audit, Event, records_of
from mdmfs.hospital.kept.escrow import Seal, verifier
from mdmfs.hospital.kept.headers import Headers
from mdmfs.hospital.kept.shares import Shares
from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.kept.strides import Strides
from mdmfs.hospital.keys.lies import recording_lies
from mdmfs.hospital.ledger.records import SeriesRecord
from mdmfs.hospital.outbox.deposit import deposit
from mdmfs.hospital.projects import NOBODY, Partial, PatientList, Placement, Project
from mdmfs.hospital.registration.harvest import Harvest, Harvests
from mdmfs.hospital.release.recall import Recalls
from mdmfs.hospital.release.release import quarantine, release
from mdmfs.hospital.replicas.publish import keep_replicas
from mdmfs.hospital.service import HospitalFace
from mdmfs.hospital.signing import SigningKey
from mdmfs.hospital.storage.replicas import Replicas
from mdmfs.hospital.store import Store
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.unseal import unseal
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.administration import HarvestProgress
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Answer, Reply, Request
from mdmfs.wire.stream import Address
from tests.twins.images import ct_slice
from tests.twins.keystores import HOSPITAL, TwinKeystore, principal
from tests.twins.pacs import TwinPacs
from tests.twins.storage import TwinElement
from tests.twins.store import MemoryStore

NOW = 1_700_000_000.0
READER = principal("/DC=org/DC=demo/CN=reader")
STRANGER = principal("/DC=org/DC=demo/CN=stranger")
OWNER = principal(HOSPITAL)
PROJECT = "neuro"
PROJECT_LFN = Lfn(("amc", PROJECT))
KEYSTORES = ("k1", "k2", "k3")
PATIENT = PatientKey(issuer="AMC", patient_id="TEST-1")
SECONDS = 5.0
"""Longer than anything takes here: what is not there by then never comes."""


def slice_of(
    number: int, *, patient_id: str = "TEST-1", study: int = 1, series: int = 1, size: int = 64, syntax: str = ""
) -> Dataset:
    """Make a CT slice that the shipped policies let through."""
    instance = ct_slice(number, patient_id=patient_id, study=study, series=series, size=size, syntax=syntax)
    instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    instance.BodyPartExamined = "CHEST"
    return instance


def slices(numbers: Iterable[int], *, series: int = 1) -> list[Dataset]:
    """Make the slices of a series."""
    return [slice_of(number, series=series) for number in numbers]


def including(*patients: PatientKey, studies: Iterable[str] = ()) -> PatientList:
    """Make a list."""
    return PatientList(frozenset(patients), frozenset(studies))


def project_acl() -> Acl:
    """Let the reader in, and give everything to the hospital."""
    entries = (
        Entry(EntryKind.OWNER, "", (Right.READ | Right.TRAVERSE | Right.WRITE | Right.ADMINISTER).value),
        Entry(EntryKind.USER, str(READER.dn), (Right.READ | Right.TRAVERSE).value),
    )
    return Acl(str(HOSPITAL), entries, entries)


class Clinic:
    """What outlives a restart, and what the next start is told."""

    def __init__(self, folder: Path, held: Iterable[Dataset] = ()) -> None:
        self.folder = folder
        self.pacs = TwinPacs(list(held))
        self.store: Store = MemoryStore()
        self.keystores = {name: TwinKeystore(HOSPITAL) for name in KEYSTORES}
        self.now = NOW
        self.inclusion = including(PATIENT)
        self.opted_out = NOBODY
        self.policy = read_policy("research")
        self.until = dt.datetime.fromtimestamp(NOW, dt.UTC).date()
        self.partial = Partial.HIDE
        self.issuer = "AMC"
        self.required = 2
        self.staging_bytes = 2**30
        self.headers_bytes = 2**24
        self.deadline = SECONDS
        self.has_metadata = False
        self.elements: list[TwinElement] = []
        self.placement: Placement | None = None

    @contextlib.asynccontextmanager
    async def open(self, *, deposits: bool = True) -> AsyncIterator[OpenClinic]:
        """Run the hospital for a block; without ``deposits`` nothing leaves the outbox."""
        async with contextlib.AsyncExitStack() as stack:
            audit = Audit(self.folder / "audit.jsonl", SigningKey(self.folder / "signing.key"))
            stack.callback(audit.close)
            headers = Headers(self.folder / "headers", self.headers_bytes)
            stack.callback(headers.close)  # when no task is left that writes there
            nursery = await stack.enter_async_context(trio.open_nursery())
            hospital = self._hospital(audit, headers, nursery)
            await hospital.store.write(functools.partial(make_project_directories, hospital=hospital))
            recalls = Recalls(
                {"main": (self.pacs, 2)},
                hospital.shares,
                hospital.staging,
                hospital.headers,
                functools.partial(quarantine, hospital),
                self.deadline,
            )
            nursery.start_soon(audit.run)
            nursery.start_soon(recalls.run)
            if deposits:
                nursery.start_soon(deposit, hospital)
            nursery.start_soon(keep_replicas, hospital)
            yield OpenClinic(self, hospital, recalls, nursery, delivers=deposits)
            nursery.cancel_scope.cancel()

    def _hospital(self, audit: Audit, headers: Headers, nursery: trio.Nursery) -> Hospital:
        project = Project(
            PROJECT,
            PROJECT_LFN,
            self.policy,
            project_acl(),
            ("main",),
            self.inclusion,
            self.until,
            self.partial,
            replicas=self.placement,
        )
        keystores = Keystores(
            {name: twin.as_seen_by(OWNER) for name, twin in self.keystores.items()},
            nursery,
            recording_lies(audit, lambda: self.now),
        )
        return Hospital(
            name="amc",
            dn=HOSPITAL,
            store=self.store,
            pacs={"main": KnownPacs(self.pacs, self.issuer)},
            projects={PROJECT: project},
            opted_out=self.opted_out,
            keystores=keystores,
            seal=Seal(self.folder / "outbox.key"),
            threshold=2,
            required=self.required,
            staging=Staging(self.folder / "staging", self.staging_bytes),
            headers=headers,
            shares=Shares(keystores, Strides(self.store)),
            audit=audit,
            outbox=Bell(),
            feed=Feed(self.store),
            clock=lambda: self.now,
            has_metadata=self.has_metadata,
            replicas=Replicas({it.name: it for it in self.elements}, bytes(32)),
        )


class OpenClinic:
    """A hospital that runs."""

    def __init__(
        self, clinic: Clinic, hospital: Hospital, recalls: Recalls, nursery: trio.Nursery, *, delivers: bool
    ) -> None:
        self.clinic = clinic
        self.delivers = delivers
        self.hospital = hospital
        self.recalls = recalls
        self.nursery = nursery
        self.harvests = Harvests(hospital, nursery)
        self.face = HospitalFace(hospital, recalls, self.harvests, Address("hospital.example.org", 8443)).service()

    def over(self, store: Store) -> OpenClinic:
        """Give the same hospital over another store."""
        hospital = dataclasses.replace(self.hospital, store=store)
        return OpenClinic(self.clinic, hospital, self.recalls, self.nursery, delivers=self.delivers)

    async def harvest(self) -> HarvestProgress:
        """Harvest the project to its end, and wait until the keystores that can have got their shares."""
        harvest = Harvest(self.hospital.projects[PROJECT], ("main",))
        await harvest.run(self.hospital)
        await self.deliver()
        return await harvest.progress(self.hospital.store)

    async def deliver(self) -> None:
        """Wait until the outbox holds nothing for a keystore that answers."""
        if not self.delivers:
            return
        able = {name for name, twin in self.clinic.keystores.items() if twin.failure is None and not twin.is_silent}
        read = self.hospital.store.read
        with trio.move_on_after(0.5):
            await until(lambda: not able & set(read(lambda tx: tx.outbox.destinations())))

    def names(self) -> list[str]:
        """List every visible file below the project."""
        return sorted(self.files())

    def files(self) -> dict[str, Guid]:
        """Give the GUID of every visible file by its LFN below the project."""
        found: dict[str, Guid] = {}

        def walk(lfn: Lfn) -> None:
            node = self.hospital.store.read(lambda tx: tx.catalogue.look_up(lfn))
            if node is None:
                return
            for entry in self.hospital.store.read(lambda tx: tx.catalogue.list_page(node.inode)).nodes:
                below = lfn / entry.name
                if entry.guid:
                    found["/".join(below.parts[len(PROJECT_LFN.parts) :])] = Guid(entry.guid)
                else:
                    walk(below)

        walk(PROJECT_LFN)
        return dict(sorted(found.items()))

    def series(self) -> list[SeriesRecord]:
        """Give what is kept of every series."""
        return self.hospital.store.read(lambda tx: tx.series.all())

    async def release(self, guid: Guid, principal: Principal = READER) -> StagedObject:
        """Let a file out."""
        return (await release(principal, guid, self.hospital, self.recalls, address="192.0.2.7")).staged

    async def read(self, guid: Guid, principal: Principal = READER) -> bytes:
        """Read a file as a worker does: the sealed object from the hospital, the shares from the keystores."""
        staged = await self.release(guid, principal)
        sealed = await sealed_octets(staged)
        file = self.hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        clients = {name: twin.as_seen_by(principal) for name, twin in self.clinic.keystores.items()}
        keystores = Keystores(clients, self.nursery)
        verify = verifier(guid, file.generation, file.key_check)
        async with keystores.collecting([guid], deadline=trio.current_time() + SECONDS) as gathering:
            with await gathering.key(guid, verify, threshold=file.threshold) as key:
                context = ObjectContext(Role.BODY, guid, file.generation, file.rendition.size)
                octets = unseal(sealed, key, context)
        assert hashlib.sha256(octets).digest() == file.rendition.sha256
        return octets

    async def ask(self, path: str, message: Message | bytes = b"", principal: Principal = READER) -> Answer:
        """Ask over the service, without a socket."""
        octets = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)

        async def body() -> bytes:
            await trio.lowlevel.checkpoint()
            return octets

        method = "GET" if path.startswith("/v1/sealed") else "POST"
        return await self.face.answer(Request(method, path, {}, principal, Address("192.0.2.7", 1), body))

    async def told(self, path: str, message: Message, principal: Principal = READER) -> Message:
        """Give the message of an answer that is one."""
        answer = await self.ask(path, message, principal)
        assert isinstance(answer, Reply)
        return answer.message

    def audited(self) -> list[dict[str, object]]:
        """Read what the audit log has after its beginning, without numbers and links."""
        records = records_of(self.clinic.folder / "audit.jsonl")
        kept = (msgspec.structs.replace(record, n=0) for record in records if record.event is not Event.BEGIN)
        return [msgspec.to_builtins(record) for record in kept]


async def let_list(hospital: OpenClinic, who: Principal) -> None:
    """Let somebody traverse every directory above the files."""
    (series,) = hospital.series()
    directories = [PROJECT_LFN.parent, PROJECT_LFN, series.lfn.parent.parent, series.lfn.parent, series.lfn]
    for directory in directories:
        await add_entry(hospital, directory, who, Right.TRAVERSE)


async def add_entry(
    hospital: OpenClinic, directory: Lfn, who: Principal, rights: Right, *, not_after: float | None = None
) -> None:
    """Add a line to the ACL of a directory."""

    def act(tx: object) -> None:
        acls = tx.acls  # type: ignore[attr-defined]
        acl = acls.find(acls.ids_of(directory)[0]).acl
        entry = Entry(EntryKind.USER, str(who.dn), rights.value, not_after)
        others = tuple(one for one in acl.entries if one.qualifier != entry.qualifier)
        acls.set(directory, Acl(acl.owner, (*others, entry), acl.defaults))

    await hospital.hospital.store.write(act)
    hospital.hospital.feed.bell.ring()


async def sealed_octets(staged: StagedObject) -> bytes:
    """Read a staged object to its end."""
    reader = staged.open()
    try:
        return b"".join([piece async for piece in reader.octets(0, staged.size)])
    finally:
        reader.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of, ``SECONDS`` at most."""
    with trio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110 there is no event
            await trio.sleep(0.001)
