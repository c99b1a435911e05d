"""A hospital with a project in which users make names, asked in this process, and mounts of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec
import trio

from mdmfs.access.acl import Acl, Entry, EntryKind, Right, parse_rights
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.names.face import name_routes
from mdmfs.hospital.rights.face import rights_routes
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import PeerUnreachableError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.acls import READ_ACL_PATH, AclTexts, ReadAcl
from mdmfs.wire.messages.files import (
    CHANGES_PATH,
    GIVE_BACK_PATH,
    LIST_PATH,
    AskChanges,
    Changes,
    DirectoryPage,
    GiveBack,
    ListDirectory,
    Node,
    NodeKind,
    OpensReport,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.names import (
    CHANGE_NAME_PATH,
    READ_COMMENT_PATH,
    ChangedName,
    ChangeName,
    Comment,
    NameChange,
    ReadComment,
)
from mdmfs.wire.service import Reply, Request, Service
from mdmfs.wire.stream import Address
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.changing import Change
from mdmfs.worker.hospital.port import Hospital as Port
from mdmfs.worker.lease import Lease
from mdmfs.worker.port import Tree
from mdmfs.worker.serving import Ports, Serving, Site
from tests.twins.clinic import PROJECT_LFN, Clinic, OpenClinic, project_acl
from tests.twins.keystores import HOSPITAL, principal
from tests.twins.records import guid_of, new_file

WRITER = principal("/DC=org/DC=demo/CN=writer")
OWNER = principal("/DC=org/DC=demo/CN=owner")
SERIES = PROJECT_LFN / "sub-a" / "ses-1" / "003-MR"
IMAGES = 3
ROOT = Lfn(())


def acl_with_writers(*writers: Principal) -> Acl:
    """Give the project to its owner; let writers write, the reader read."""
    acl = project_acl()
    mine = tuple(Entry(EntryKind.USER, str(one.dn), parse_rights("rwx").value) for one in writers)
    entries = (*acl.entries, *mine)
    return Acl(str(OWNER.dn), entries, entries)


class Asked:
    """What a mount asks of ``NamedClinic``, as one principal, without a wire; ``mdmfs.worker.hospital.Hospital``."""

    def __init__(self, named: NamedClinic, principal: Principal, mount: bytes) -> None:
        self._named = named
        self._principal = principal
        self._mount = mount
        self.lost = 0
        """So many answers to changes are lost on their way."""
        self.listed = 0
        """Pages that were asked for."""

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """See ``Hospital``."""
        self.listed += 1
        return cast("DirectoryPage", await self._ask(LIST_PATH, ListDirectory(str(lfn), after)))

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """See ``Hospital``."""
        return cast(
            "Changes", await self._ask(CHANGES_PATH, AskChanges(since, wait, self._mount, "", report, groups=[*groups]))
        )

    async def give_back(self) -> None:
        """See ``Hospital``."""
        await self._ask(GIVE_BACK_PATH, GiveBack(self._mount))

    async def change_name(self, change: ChangeName) -> ChangedName:
        """See ``Hospital``; the answer may be lost after all was done."""
        changed = await self._ask(CHANGE_NAME_PATH, change)
        if self.lost:
            self.lost -= 1
            message = "the hospital was restarted"
            raise PeerUnreachableError(message)
        return cast("ChangedName", changed)

    async def comment(self, lfn: Lfn) -> str:
        """See ``Hospital``."""
        return cast("Comment", await self._ask(READ_COMMENT_PATH, ReadComment(str(lfn)))).text

    async def acl(self, lfn: Lfn) -> list[str]:
        """See ``Hospital``."""
        return cast("AclTexts", await self._ask(READ_ACL_PATH, ReadAcl(str(lfn)))).texts

    async def _ask(self, path: str, message: Message) -> Message:
        return await self._named.told(path, message, self._principal)


class NamedClinic:
    """A hospital whose project has one series, and where ``WRITER`` may make names."""

    def __init__(self, opened: OpenClinic) -> None:
        self.opened = opened
        self.hospital: Hospital = opened.hospital
        self._tokens = 0
        self._service = Service(
            "hospital", {**opened.face.routes, **name_routes(opened.hospital), **rights_routes(opened.hospital)}
        )

    async def told(self, path: str, message: Message, principal: Principal = WRITER) -> Message:
        """Ask as a client on the wire does, and give the message of the answer."""
        octets = msgspec.msgpack.encode(message)

        async def body() -> bytes:
            await trio.lowlevel.checkpoint()
            return octets

        request = Request("POST", path, {}, principal, Address("192.0.2.7", 1), body)
        answer = await self._service.answer(request)
        assert isinstance(answer, Reply)
        said = msgspec.msgpack.encode(answer.message)
        return cast("Message", msgspec.msgpack.decode(said, type=type(answer.message)))

    async def change(  # noqa: PLR0913 as a message has them
        self,
        kind: NameChange,
        lfn: Lfn,
        other: Lfn | None = None,
        *,
        text: str = "",
        who: Principal = WRITER,
        token: bytes = b"",
        since: int = -1,
        may_replace: bool = True,
    ) -> ChangedName:
        """Change a name."""
        self._tokens += 1
        asked = ChangeName(
            token or self._tokens.to_bytes(16, "big"),
            kind,
            str(lfn),
            "" if other is None else str(other),
            text,
            may_replace,
            since,
        )
        return cast("ChangedName", await self.told(CHANGE_NAME_PATH, asked, who))

    def node(self, lfn: Lfn) -> Node | None:
        """Look a name up, whoever may see it."""
        return self.hospital.store.read(lambda tx: tx.catalogue.look_up(lfn, with_aliases=True))

    def listed(self, lfn: Lfn) -> list[str]:
        """Give the names in a directory, whoever may see them."""
        node = self.node(lfn)
        assert node is not None
        return [one.name for one in self.hospital.store.read(lambda tx: tx.catalogue.list_page(node.inode)).nodes]

    @contextlib.asynccontextmanager
    async def mount(
        self, folder: Path, who: Principal = WRITER, number: int = 1, root: Lfn = ROOT
    ) -> AsyncIterator[Mounted]:
        """Mount it without FUSE, for a block."""
        port = Asked(self, who, bytes([number]) * 16)
        async with trio.open_nursery() as nursery:
            lease = Lease(patience=60.0)
            ports = Ports(cast("Port", port), lambda: self.hospital.keystores)
            site = Site(ports, CiphertextCache(folder / f"cache-{number}", 2**20), lease)
            serving = Serving([site], root, Forgetful(), nursery, deadline=5.0)
            serving.start()
            yield Mounted(self, port, serving.files)
            nursery.cancel_scope.cancel()


class Forgetful:
    """A kernel that caches nothing."""

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """See ``Pages``."""

    def invalidate(self, inode: int, begin: int = 0, end: int | None = None) -> None:
        """See ``Pages``."""

    def meanwhile(self, work: Callable[[], None], *, gives_way: bool = False) -> None:  # noqa: ARG002 nobody asks
        """See ``Pages``: nobody asks for anything."""
        work()

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Kernel``."""


@dataclasses.dataclass
class Mounted:
    """A mount, as a program sees it: by paths."""

    named: NamedClinic
    port: Asked
    files: Tree

    async def find(self, lfn: Lfn) -> Node:
        """Walk to a name as the kernel does."""
        node = await self.files.attributes(1)
        for part in lfn.parts:
            node = await self.files.lookup(node.inode, part.encode())
        return node

    async def change(
        self, kind: NameChange, lfn: Lfn, other: Lfn | str = "", *, may_replace: bool = True
    ) -> Node | None:
        """Change a name as the kernel asks for it."""
        above = await self.find(lfn.parent)
        name = lfn.name.encode()
        if isinstance(other, Lfn):
            into = await self.find(other.parent)
            change = Change(
                kind, above.inode, name, new_directory=into.inode, new_name=other.name.encode(), may_replace=may_replace
            )
        else:
            change = Change(kind, above.inode, name, target=other.encode(), mount_points=("/mnt",))
        node = await self.files.change_name(change)
        if node is not None and kind is not NameChange.RENAME:
            self.files.retain(above.inode, node)
        return node

    async def tree(self, lfn: Lfn) -> dict[str, str]:
        """List all below a directory: what each name is, of an alias where it leads."""
        found: dict[str, str] = {}
        waiting = [(lfn, await self.find(lfn))]
        while waiting:
            path, node = waiting.pop()
            handle = await self.files.open_directory(node.inode)
            for name, entry, _ in await self.files.read_directory(handle, 0):
                below = path / name.decode()
                self.files.retain(node.inode, entry)
                told = entry.kind.value
                if entry.kind is NodeKind.LINK:
                    target = self.files.target(entry.inode)
                    assert target is not None
                    assert len(target) == entry.size
                    told = target.decode()
                found["/".join(below.parts[len(lfn.parts) :])] = told
                if entry.kind is NodeKind.DIRECTORY:
                    waiting.append((below, entry))
            self.files.close_directory(handle)
        return found


@contextlib.asynccontextmanager
async def named_clinic(folder: Path, store: Store | None = None) -> AsyncIterator[NamedClinic]:
    """Open a hospital with three images, and let the writer make names beside them."""
    clinic = Clinic(folder)
    if store is not None:
        clinic.store = store
    async with clinic.open(deposits=False) as opened:

        def register(tx: Transaction) -> None:
            if tx.catalogue.look_up(PROJECT_LFN) is not None:
                return
            tx.acls.set(PROJECT_LFN, acl_with_writers(WRITER))
            tx.catalogue.make_directories(SERIES)
            for number in range(1, IMAGES + 1):
                tx.catalogue.add_file(SERIES / f"{number:04}.dcm", new_file(number))
            tx.catalogue.show([guid_of(number) for number in range(1, IMAGES + 1)])
            top = Acl(str(HOSPITAL), (Entry(EntryKind.OTHER, "", Right.TRAVERSE.value),))
            tx.acls.set(PROJECT_LFN.parent, top)

        await opened.hospital.store.write(register)
        yield NamedClinic(opened)
