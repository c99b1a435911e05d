"""A site whose keystores fail, lie, are restored and replaced while files are read; for the bench and its test."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.keys import run_task
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import PACS_TITLE, PROJECT, READER, Site, keystore_peer, make_site, mountpoint_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.keystore.row_shelf import RowShelf, open_lmdb_shelf
from mdmfs.keystore.shelf import Draft, KeyRecord
from mdmfs.model.errors import MdmfsError, WrongKeyError
from mdmfs.model.names import Guid
from mdmfs.pki.trust import TrustAnchors
from mdmfs.sealing.header import FileKey
from mdmfs.sharing.shamir import Share
from mdmfs.wire.client import Client
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.key_tasks import KeyProgress, KeyTask, StartKeyTask
from mdmfs.wire.messages.keystores import Outcome
from mdmfs.wire.peers import open_client
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from tests.bench.many import fill
from tests.twins.clinic import slice_of
from tests.twins.servers import free_port, store
from tests.twins.wire_cutter import WireCutter

THIRD = 3
"""The keystore that has trouble."""
NEW = 5
"""Instances of a series that is registered while it has."""
DEADLINE = 20.0
PATIENCE = 60.0
PAUSE = 0.005
T = TypeVar("T")
SIZE = 16
"""Rows and columns of an image."""


@dataclasses.dataclass(frozen=True)
class Reads:
    """What came of the reading of a while."""

    files: int
    keys: int
    failures: list[str]
    slowest: float
    """Seconds, of one file."""


class Load:
    """Two readers that never rest: one of files on the mount, one of keys at the keystores, as a worker asks them.

    A file must have the digest that the hospital says; a key must be the one that the same file had at first.
    """

    def __init__(self, mount_file: Path) -> None:
        self._mount_file = mount_file
        self._files: dict[Path, str] = {}
        self.guids: dict[Path, Guid] = {}
        self.keys: dict[Guid, bytes] = {}
        """Those that are asked for, as ``learn`` found them."""
        self._runs = threading.Event()
        self._idle = threading.Semaphore(0)
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_over = False
        self._done: collections.Counter[str] = collections.Counter()
        self._failures: list[str] = []
        self._slowest = 0.0
        self.pause = PAUSE
        """Seconds between two reads of each."""
        readers = (self._read_on, lambda: trio.run(self._ask_on))
        self._threads = [threading.Thread(target=reader) for reader in readers]
        for thread in self._threads:
            thread.start()
        self._started.wait()

    def run(self, act: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Do something in the event loop of the reader of keys: TLS handshakes of one process share a limiter."""
        return trio.from_thread.run(act, *arguments, trio_token=self._token)

    def admit(self, files: Sequence[Path]) -> None:
        """Read files, too, from now on."""
        for path in files:
            digest = os.getxattr(path, "user.mdmfs.sha256").decode()
            self.guids[path] = Guid.parse(os.getxattr(path, "user.guid").decode())
            self._files = {**self._files, path: digest}

    def learn(self) -> None:
        """Collect the keys of all files while nothing is wrong; from now on they are asked for."""

        async def ask() -> None:
            async with as_reader(self._mount_file) as keystores:
                for guid in map(self.guids.__getitem__, self._files):
                    await self._ask(keystores(), guid)

        self.keys.clear()
        self.run(ask)

    def leave(self, files: Sequence[Path]) -> None:
        """Read some no more."""
        self._files = {path: digest for path, digest in self._files.items() if path not in files}

    @contextlib.contextmanager
    def reading(self) -> Iterator[Callable[[], Reads]]:
        """Read while the block runs; the function tells afterwards what came of it."""
        self._done.clear()
        self._failures, self._slowest = [], 0.0
        self._runs.set()
        try:
            yield lambda: Reads(self._done["file"], self._done["key"], self._failures, self._slowest)
        finally:
            self._runs.clear()
            for _ in self._threads:
                assert self._idle.acquire(timeout=2 * DEADLINE), "a reader has died"

    @contextlib.contextmanager
    def densely(self) -> Iterator[None]:
        """Read as often as ever, whatever the pause is otherwise."""
        usual, self.pause = self.pause, PAUSE
        try:
            yield
        finally:
            self.pause = usual

    def close(self) -> None:
        """Read no more."""
        self._is_over = True
        self._runs.set()
        for thread in self._threads:
            thread.join()

    def read(self, path: Path) -> bool:
        """Read a file whole, past the kernel's page cache; tell whether it is what it must be."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            octets = os.read(descriptor, os.fstat(descriptor).st_size)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        return hashlib.sha256(octets).hexdigest() == self._files[path]

    def _read_on(self) -> None:
        dice = random.Random(1)  # noqa: S311 no secret
        while not self._is_over:
            self._runs.wait()
            while self._runs.is_set() and not self._is_over:
                self._read_one(dice.choice(list(self._files)))
                time.sleep(self.pause)
            self._idle.release()

    def _read_one(self, path: Path) -> None:
        begun = time.monotonic()
        try:
            if not self.read(path):
                self._failures.append(f"{path.name}: other bytes")
        except OSError as error:
            self._failures.append(f"{path.name}: {error.strerror}")
        except KeyError:
            return  # it is read no more
        self._done["file"] += 1
        self._slowest = max(self._slowest, time.monotonic() - begun)

    async def _ask_on(self) -> None:
        dice = random.Random(2)  # noqa: S311 no secret
        self._token = trio.lowlevel.current_trio_token()
        self._started.set()
        async with as_reader(self._mount_file) as keystores:
            while not self._is_over:
                was_busy = False
                while self._runs.is_set() and not self._is_over:
                    was_busy = True
                    await self._ask_one(keystores(), dice.choice(list(self.keys)))
                    await trio.sleep(self.pause)
                if was_busy:
                    self._idle.release()
                await trio.sleep(PAUSE)

    async def _ask_one(self, keystores: Keystores, guid: Guid) -> None:
        if guid not in [self.guids[path] for path in self._files]:
            return  # it is read no more
        try:
            await self._ask(keystores, guid)
        except MdmfsError as error:
            self._failures.append(f"{guid}: {error}")
        self._done["key"] += 1

    async def _ask(self, keystores: Keystores, guid: Guid) -> None:
        def verify(key: FileKey) -> None:
            if self.keys.setdefault(guid, bytes(key.octets)) != key.octets:
                message = "another key than at first"
                raise WrongKeyError(message)

        async with keystores.collecting([guid], deadline=trio.current_time() + DEADLINE) as gathering:
            (await gathering.key(guid, verify, threshold=2)).close()


@contextlib.asynccontextmanager
async def as_reader(mount_file: Path) -> AsyncIterator[Callable[[], Keystores]]:
    """Reach the keystores as a mount does, which goes by its configuration of the moment."""
    configuration = MountConfiguration.read(mount_file)
    anchors = TrustAnchors(configuration.path(configuration.trust))
    async with trio.open_nursery() as nursery:
        peers = Peers(
            configuration.hospital,
            configuration.keystores,
            own_credential(configuration),
            anchors,
            nursery,
            file=mount_file,
        )
        yield peers.keystores
        await peers.aclose()
        nursery.cancel_scope.cancel()


@dataclasses.dataclass
class Ground:
    """What runs."""

    site: Site
    processes: Processes
    from_hospital: WireCutter
    """Between hospitald and the third keystore."""
    from_mount: WireCutter
    """Between mount and the third keystore."""
    load: Load
    series: int = 0
    lasting: float = 3.0
    """Seconds for which each trouble is read in, at least."""
    metrics: tuple[str, ...] = ()
    """Where hospitald and the mount tell theirs, if they do."""

    def files(self, series: int) -> list[Path]:
        """List the files of a series on the mount, in the order of registration."""
        found: dict[Path, list[Path]] = collections.defaultdict(list)
        for path in sorted(mountpoint_of(self.site.state, READER).rglob("*.dcm")):
            found[path.parent].append(path)
        numbered = {int(parent.name.partition("-")[0]): files for parent, files in found.items()}
        return numbered.get(series, [])

    def register(self) -> None:
        """Store one more series in the PACS, register it, and read it, each file for the first time."""
        self.series += 1
        address = PacsAddress(PACS_TITLE, "127.0.0.1", self.site.ports.pacs)
        store(address, [slice_of(number, series=self.series, size=SIZE) for number in range(1, NEW + 1)])
        progress = self.load.run(harvest_project, self.configuration, PROJECT)
        assert progress.registered == NEW, progress
        wait_for(lambda: len(self.files(self.series)) == NEW)
        files = self.files(self.series)
        self.load.admit(files)
        assert all(self.load.read(path) for path in files)

    @property
    def configuration(self) -> HospitalConfiguration:
        """The hospital's."""
        return HospitalConfiguration.read(self.site.hospital_file)

    def client(self) -> Client:
        """Speak to the hospital with its own certificate."""
        credential = self.configuration.credential
        return open_client(
            str(self.configuration.public), str(credential.subject()), credential, self.configuration.anchors
        )

    def keys(self, task: KeyTask, guids: Sequence[Guid] = ()) -> KeyProgress:
        """Run a task of ``mdmfs keys`` to its end."""
        return self.load.run(run_task, self.configuration, StartKeyTask(task, [guid.octets for guid in guids]))

    def is_clean(self) -> bool:
        """Verify every share."""
        found = self.keys(KeyTask.VERIFY)
        return not (found.faults or found.lost or found.silent or found.failure)

    def repaired(self, lost: Sequence[Guid] = ()) -> str:
        """Repair until nothing is found any more; tell what was found at first. What is lost gets new keys."""
        first = self.keys(KeyTask.REPAIR)
        assert first.lost == len(lost), first
        if lost:
            self.keys(KeyTask.ROTATE, lost)
        wait_for(lambda: self.is_clean() or bool(self.keys(KeyTask.REPAIR) and False))
        return ", ".join(f"{count} {fault}" for fault, count in first.faults.items()) or "nothing"

    def told(self, number: int, guid: Guid) -> Outcome:
        """Ask one keystore alone for a share, as the reader."""

        async def ask() -> Outcome:
            async with as_reader(self.site.mount_file(READER)) as keystores:
                deadline = trio.current_time() + DEADLINE
                [(outcome, _)] = await keystores().collect_from(f"keystore-{number}", [guid], deadline=deadline)
                return outcome

        return self.load.run(ask)

    # keystores

    def shelf(self, number: int) -> Path:
        """Where a keystore keeps its shares."""
        return self.site.keystore_file(number).parent / "shelf"

    def back_up(self, number: int) -> None:
        """Let a keystore's own people make a backup."""
        self._shelf_command("backup", number, str(self._backup(number)))

    def restore(self, number: int) -> None:
        """Let them put it back, in the place of what is there; the keystore does not run."""
        shutil.rmtree(self.shelf(number))
        private = self.site.state / "pki" / "keystore-1.key"
        self._shelf_command("restore", number, str(self._backup(number)), "--key", str(private))

    def _backup(self, number: int) -> Path:
        return self.site.state / f"keystore-{number}.backup"

    def _shelf_command(self, name: str, number: int, *options: str) -> None:
        typed = [sys.executable, "-m", "mdmfs.cli", "shelf", name, str(self.site.keystore_file(number)), *options]
        subprocess.run(typed, check=True, capture_output=True)

    def spoil(self, number: int) -> None:
        """Change every share on the shelf of a keystore that does not run."""

        def flip(draft: Draft) -> None:
            for guid in self.load.guids.values():
                held = draft.key(guid)
                if held is not None:
                    share = Share.parse(held.share)
                    other = dataclasses.replace(share, y=bytes(octet ^ 1 for octet in share.y))
                    draft.put_key(guid, KeyRecord(owner=held.owner, share=other.encode(), aliases=held.aliases))

        self._on_shelf(number, lambda shelf: shelf.write(flip))

    def shares(self, number: int) -> dict[Guid, Share]:
        """Read what lies on a shelf; a running keystore does not mind a reader."""
        guids = list(self.load.guids.values())
        held = self._on_shelf(number, lambda shelf: shelf.read(lambda page: [page.key(guid) for guid in guids]))
        return {guid: Share.parse(one.share) for guid, one in zip(guids, held, strict=True) if one is not None}

    def _on_shelf(self, number: int, act: Callable[[RowShelf], Awaitable[T]]) -> T:
        async def run() -> T:
            async with open_lmdb_shelf(self.shelf(number)) as shelf:
                return await act(shelf)

        return trio.run(run)

    def use(self, numbers: Sequence[int], threshold: int = 2) -> None:
        """Tell the mount, then the hospital, who the keystores are; the hospital is started anew."""
        _write_peers(self.site.mount_file(READER), self._peers(numbers, self.from_mount))
        time.sleep(1.5)  # a mount looks every second
        settings = f"\n[keys]\nthreshold = {threshold}\n"
        _write_peers(self.site.hospital_file, settings + self._peers(numbers, self.from_hospital))
        assert self.processes.stop("hospital") == 0
        self.processes.start_hospital()

    def resplit(self) -> KeyProgress:
        """Split every key anew, and wait until all keystores have theirs."""
        with self.load.densely():
            found = self.keys(KeyTask.RESPLIT)
            assert (found.failure, found.silent, found.lost) == ("", {}, 0), found
            wait_for(self.is_clean)
        return found

    def _peers(self, numbers: Sequence[int], relay: WireCutter) -> str:
        return "".join(keystore_peer(self.site, one, relay.port if one == THIRD else 0) for one in numbers)


@contextlib.contextmanager
def ground(folder: Path, series: int, instances: int, *, is_metered: bool = False) -> Iterator[Ground]:
    """Run a site with so many series of so many instances, all registered and mounted; two keystores are spare."""
    with contextlib.ExitStack() as stack:
        site = make_site(folder / "site", pacs="", inclusion=None, deadline=DEADLINE, spare=2)
        for number in range(1, 1 + series):
            fill(site.pacs_directory, instances, series=number, size=SIZE)
        listed = site.hospital_file.parent / "projects" / f"{PROJECT}.list"
        listed.write_text(f"study {slice_of(1).StudyInstanceUID}\n", encoding="utf-8")
        relays = [stack.enter_context(contextlib.closing(WireCutter(site.ports.keystores[THIRD - 1]))) for _ in "12"]
        for number in range(1, 1 + len(site.ports.keystores)):
            file = site.keystore_file(number)
            recovery = site.state / "pki" / "keystore-1.pem"
            file.write_text(file.read_text().replace("[keystore]", f'[keystore]\nrecovery = "{recovery}"'))
        hospital = site.hospital_file.read_text()
        site.hospital_file.write_text(re.sub(r"\[metadata\]\n(.+\n)*", "", hospital))
        metrics = _meter(site) if is_metered else ()
        processes = stack.enter_context(running(site))
        load = Load(site.mount_file(READER))
        stack.callback(load.close)
        found = Ground(site, processes, relays[0], relays[1], load, series, metrics=metrics)
        _write_peers(site.mount_file(READER), found._peers((1, 2, 3), relays[1]))  # noqa: SLF001 its own maker
        _write_peers(site.hospital_file, found._peers((1, 2, 3), relays[0]))  # noqa: SLF001
        processes.start_pacs()
        processes.start_keystores()
        processes.start_hospital()
        progress = load.run(harvest_project, found.configuration, PROJECT)
        assert progress.registered == series * instances, progress
        processes.start_mount(READER, mountpoint_of(site.state, READER))
        for number in range(1, 1 + series):
            load.admit(found.files(number))
        load.learn()
        yield found


def _meter(site: Site) -> tuple[str, ...]:
    """Let hospitald and the mount tell their metrics."""
    tables = {"[hospital]": site.hospital_file, "[mount]": site.mount_file(READER)}
    metrics = tuple(f"127.0.0.1:{free_port()}" for _ in tables)
    for (table, file), address in zip(tables.items(), metrics, strict=True):
        file.write_text(file.read_text().replace(table, f'{table}\nmetrics = "{address}"', 1))
    return metrics


def _write_peers(file: Path, peers: str) -> None:
    """Put other keystores into a configuration, all at once."""
    settings, *_ = re.split(r"\n\[keys\]|\n\[\[keystores\]\]", file.read_text())
    draft = file.with_suffix(".new")
    draft.write_text(settings + peers)
    draft.rename(file)


def wait_for(holds: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait until something holds; gives how long that took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, "it does not come to hold"
        time.sleep(0.1)
    return time.monotonic() - begun
