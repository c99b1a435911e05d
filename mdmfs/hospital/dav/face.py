"""The hospital as WebDAV and HTTP (RFC 4918 class 1, read only): the same decisions and audit as for a mount.

A GET brings a file online as an open does, and waits as long; what is not online by then is 503, to come again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from typing import Final

import trio

from mdmfs.hospital.dav.conditions import Unsatisfiable, fails_match, is_known, part_of
from mdmfs.hospital.dav.digests import Algorithm, Digests, wanted
from mdmfs.hospital.dav.failures import problem, telling_failures
from mdmfs.hospital.dav.multistatus import HEAD, TAIL, Question, Resource
from mdmfs.hospital.dav.target import Target, href_of
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.hospital.outward import speaking_for_the_inside
from mdmfs.hospital.release.octets import StagedOctets
from mdmfs.hospital.release.recall import Recalls
from mdmfs.hospital.release.release import admit, release
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import NoSuchFileError, ReadOnlyError
from mdmfs.model.names import ROOT_PREFIX, Guid, Lfn
from mdmfs.sealing.layout import sealed_size
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.wire.service import Answer, Document, Request, Respond, StreamReply

ALLOWED: Final = "GET, HEAD, OPTIONS, PROPFIND"
WRITING: Final = ("PUT", "PATCH", "DELETE", "MKCOL", "MOVE", "COPY", "PROPPATCH", "LOCK", "UNLOCK")
"""403, not 405: of that gfal2 says that the file exists."""
PAGE: Final = 500
"""Entries of a listing that are read and written at once: nobody else waits longer for it."""
_XML: Final = 'application/xml; charset="utf-8"'
_OK, _PARTIAL, _MULTI_STATUS, _NOT_MODIFIED = 200, 206, 207, 304
_FORBIDDEN, _NOT_ALLOWED, _CHANGED, _UNSATISFIABLE = 403, 405, 412, 416


class DavFace:
    """Every question is answered for the principal that asks it."""

    def __init__(self, hospital: Hospital, recalls: Recalls, *, page: int = PAGE) -> None:
        self._hospital = hospital
        self._recalls = recalls
        self._digests = Digests()
        self._page_size = page

    def routes(self) -> dict[tuple[str, str], Respond]:
        """Give the routes; every method that is none of these is answered with 405."""
        respond = {
            "GET": telling_failures(self._get),
            "HEAD": telling_failures(self._head),
            "OPTIONS": telling_failures(self._options),
            "PROPFIND": telling_failures(self._propfind),
            "POST": telling_failures(_refuse_macaroon),
            **dict.fromkeys(WRITING, telling_failures(_refuse_to_write)),
        }
        return {(method, path): it for method, it in respond.items() for path in (ROOT_PREFIX, ROOT_PREFIX + "/")}

    async def _options(self, request: Request) -> Document:
        self._find(request)
        return Document(headers={"allow": ALLOWED, "dav": "1"})

    async def _get(self, request: Request) -> Answer:
        lfn, node = self._find(request)
        if node.kind is NodeKind.DIRECTORY:
            return problem(_NOT_ALLOWED, f"{lfn} is a directory: ask with PROPFIND", "is-a-directory", allow=ALLOWED)
        guid = Guid(node.guid)
        if fails_match(request.headers, self._tag(guid)):  # before a recall: what is not staged will be sealed anew
            await self._admit(request, guid)
            return _sealed_anew(lfn)
        staged = await self._bring(request, guid)
        tag = staged.salt.hex()
        if fails_match(request.headers, tag):
            return _sealed_anew(lfn)
        if is_known(request.headers, tag):
            return Document(status=_NOT_MODIFIED, headers={"etag": f'"{tag}"'})
        part = part_of(request.headers, tag, staged.size)
        if isinstance(part, Unsatisfiable):
            told = {"content-range": f"bytes */{staged.size}"}
            return problem(_UNSATISFIABLE, f"{lfn} has {staged.size} sealed bytes", "malformed-message", **told)
        headers = {**_headers_of(node), **await self._digest_at_hand(request, staged)}
        begin, end = part or (0, staged.size)
        if part is not None:
            headers["content-range"] = f"bytes {begin}-{end - 1}/{staged.size}"
        octets = StagedOctets(staged.open(), begin, end)
        return StreamReply(end - begin, tag, octets, headers, _OK if part is None else _PARTIAL)

    async def _head(self, request: Request) -> Document:
        """Tell of an object what is known without fetching it; the digest of one that must be fetched is."""
        _, node = self._find(request)
        if node.kind is NodeKind.DIRECTORY:
            return Document()
        guid, algorithm = Guid(node.guid), wanted(request.headers)
        headers = dict(_headers_of(node))
        if algorithm is None:
            await self._admit(request, guid)
            staged = self._staged(guid)
        else:
            staged = await self._bring(request, guid)
            headers["digest"] = await self._digests.of(staged, algorithm)
        if staged is not None:
            headers["etag"] = f'"{staged.salt.hex()}"'
        return Document(headers=headers, length=sealed_size(node.size))

    async def _propfind(self, request: Request) -> Answer:
        depth = request.headers.get("depth", "infinity").strip().lower()
        if depth not in {"0", "1"}:
            body = b'<?xml version="1.0"?>\n<d:error xmlns:d="DAV:"><d:propfind-finite-depth/></d:error>\n'
            return Document(body, _FORBIDDEN, {"content-type": _XML})
        lfn, node = self._find(request)
        question = Question.parse(bytes(await request.body()))
        listed = self._listed(request, lfn, node, question, is_deep=depth == "1")
        return StreamReply(None, "", listed, status=_MULTI_STATUS, content_type=_XML)

    async def _listed(
        self, request: Request, lfn: Lfn, node: Node, question: Question, *, is_deep: bool
    ) -> AsyncIterator[bytes]:
        """Write a directory page by page: however many entries it has, little of it is in memory."""
        yield HEAD + question.answer(_resource(lfn, node))
        after, is_last = "", not is_deep or node.kind is NodeKind.FILE
        while not is_last:
            entries, is_last = self._page(request, lfn, after)
            yield b"".join([question.answer(_resource(lfn / entry.name, entry)) for entry in entries])
            after = entries[-1].name if entries else after
        yield TAIL

    def _page(self, request: Request, lfn: Lfn, after: str) -> tuple[list[Node], bool]:
        def read(tx: Transaction) -> tuple[list[Node], bool]:
            sight = self._sight(tx, request)
            return sight.entries(sight.node(lfn).inode, after, self._page_size)

        return self._hospital.store.read(read)

    def _find(self, request: Request) -> tuple[Lfn, Node]:
        """Find what a request names; raises ``NoSuchFileError``, ``MalformedNameError``."""
        target = Target.parse(request.path)
        node = self._hospital.store.read(lambda tx: self._sight(tx, request).node(target.lfn))
        if not target.fits(node):
            message = f"there is no {request.path}, or it is not for this identity"
            raise NoSuchFileError(message)
        return target.lfn, node

    async def _bring(self, request: Request, guid: Guid) -> StagedObject:
        with speaking_for_the_inside(guid):
            address = request.peer.host
            return (await release(request.principal, guid, self._hospital, self._recalls, address=address)).staged

    async def _admit(self, request: Request, guid: Guid) -> None:
        await admit(request.principal, guid, self._hospital, address=request.peer.host)

    async def _digest_at_hand(self, request: Request, staged: StagedObject) -> Mapping[str, str]:
        """Give the digest that is wanted, if the object is whole: no transfer waits for one."""
        algorithm: Algorithm | None = wanted(request.headers) if staged.is_complete else None
        return {} if algorithm is None else {"digest": await self._digests.of(staged, algorithm)}

    def _staged(self, guid: Guid) -> StagedObject | None:
        file = self._hospital.store.read(lambda tx: tx.catalogue.file(guid))
        return None if file is None else self._hospital.staging.find(guid, file.generation)

    def _tag(self, guid: Guid) -> str:
        staged = self._staged(guid)
        return "" if staged is None else staged.salt.hex()

    def _sight(self, tx: Transaction, request: Request) -> Sight:
        return Sight(tx, request.principal, self._hospital.clock())


def _resource(lfn: Lfn, node: Node) -> Resource:
    is_directory = node.kind is NodeKind.DIRECTORY
    length = 0 if is_directory else sealed_size(node.size)
    guid = "" if is_directory else str(Guid(node.guid))
    return Resource(href_of(lfn, node.kind), is_directory, length, node.modified, guid)


def _headers_of(node: Node) -> Mapping[str, str]:
    return {"accept-ranges": "bytes", "last-modified": formatdate(node.modified, usegmt=True)}


async def _refuse_macaroon(_: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    message = "no macaroon is made here: the certificate of each request decides"
    return problem(_NOT_ALLOWED, message, "malformed-message", allow=ALLOWED)


async def _refuse_to_write(request: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    message = f"{request.method}: nothing can be written this way"
    raise ReadOnlyError(message)


def _sealed_anew(lfn: Lfn) -> Document:
    return problem(_CHANGED, f"{lfn} was sealed anew: begin again", "integrity")
