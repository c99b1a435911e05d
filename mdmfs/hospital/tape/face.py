"""The WLCG Tape REST API, version 1, as gfal2 and FTS speak it: discovery, stage, release, archiveinfo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.dav.failures import problem, telling_failures
from mdmfs.hospital.dav.target import Target, guid_of
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.stages import REQUEST_ID_SIZE, StageRequest
from mdmfs.hospital.release.loss import locality_of
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.tape.bodies import AskPaths, AskStage, discovery, locality, overview, parsed, progress, submitted
from mdmfs.hospital.tape.stager import Stager
from mdmfs.model.errors import AccessDeniedError, MdmfsError, NoSuchFileError
from mdmfs.model.identity import Principal
from mdmfs.model.locality import Locality
from mdmfs.model.names import Guid
from mdmfs.wire.service import Answer, Document, Request, Respond
from mdmfs.wire.stream import Address

WELL_KNOWN: Final = "/.well-known/wlcg-tape-rest-api"
BASE: Final = "/api/v1"
STAGE: Final = BASE + "/stage"
RELEASE: Final = BASE + "/release/"
ARCHIVE: Final = BASE + "/archiveinfo"
_QUOTED: Final = 80
_ID: Final = re.compile(rf"[0-9a-f]{{{2 * REQUEST_ID_SIZE}}}")
_CREATED, _BAD = 201, 400
_SHOWN: Final = {FileState.VISIBLE, FileState.SUPERSEDED}


class TapeFace:
    """Every question is answered for the principal that asks it; a request is his who made it."""

    def __init__(self, hospital: Hospital, stager: Stager, public: Address) -> None:
        """Speak for a hospital that others find at ``public``."""
        self._hospital = hospital
        self._stager = stager
        self._public = public

    def routes(self) -> dict[tuple[str, str], Respond]:
        """Give the routes; a slash at the end is forgiven."""
        routes: dict[tuple[str, str], Respond] = {
            ("GET", WELL_KNOWN): self._discover,
            ("POST", STAGE): self._stage,
            ("POST", STAGE + "/"): self._stage_or_cancel,
            ("GET", STAGE): self._list,
            ("GET", STAGE + "/"): self._poll,
            ("DELETE", STAGE + "/"): self._delete,
            ("POST", RELEASE): self._release,
            ("POST", ARCHIVE): self._archive,
            ("POST", ARCHIVE + "/"): self._archive,
        }
        return {route: telling_failures(respond) for route, respond in routes.items()}

    async def _discover(self, _: Request) -> Document:
        return _json(discovery(self._hospital.name, f"https://{self._public}{BASE}"))

    async def _stage(self, request: Request) -> Answer:
        asked = parsed(bytes(await request.body()), AskStage)
        request_id = await self._stager.submit(
            request.principal,
            request.peer.host,
            asked.files,
            lambda tx, path: self._find(tx, request.principal, path),
        )
        told = {"location": f"{STAGE}/{request_id.hex()}"}
        return _json(submitted(request_id.hex(), self._hospital.name, asked.files), _CREATED, told)

    async def _stage_or_cancel(self, request: Request) -> Answer:
        match _rest(request.path, STAGE):
            case []:
                return await self._stage(request)
            case [_, "cancel"]:
                return await self._cancel(request)
            case _:
                message = f"there is no {request.path}"
                raise NoSuchFileError(message)

    async def _cancel(self, request: Request) -> Answer:
        found = self._own(request, _rest(request.path, STAGE)[0])
        paths = parsed(bytes(await request.body()), AskPaths).paths
        known = {file.path for file in self._stager.files(found.id)}
        unknown = [path for path in paths if path not in known]
        if unknown:
            return problem(_BAD, f"{len(unknown)} of the paths are not of this request", "malformed-message")
        await self._stager.cancel(found.id, paths)
        return Document()

    async def _list(self, request: Request) -> Document:
        dn = str(request.principal.dn)
        return _json(overview(it for it in self._hospital.store.read(lambda tx: tx.stages.all()) if it.dn == dn))

    async def _poll(self, request: Request) -> Document:
        rest = _rest(request.path, STAGE)
        if not rest:
            return await self._list(request)
        found = self._own(request, *rest[:1])
        files = self._stager.files(found.id)
        on_disk = {file.number for file in files if file.guid and self._stager.is_at_hand(file)}
        return _json(progress(found, files, on_disk, self._stager.reason(found.id)))

    async def _delete(self, request: Request) -> Document:
        found = self._own(request, *_rest(request.path, STAGE)[:1])
        await self._stager.forget(found.id)
        return Document()

    async def _release(self, request: Request) -> Document:
        """Release files of one request; with an id that is none, as gfal2 makes them up, of all the caller's own."""
        name = "".join(_rest(request.path, RELEASE)[:1])
        paths = parsed(bytes(await request.body()), AskPaths).paths
        if _ID.fullmatch(name):
            requests = [self._own(request, name)]
        else:
            dn = str(request.principal.dn)
            requests = [it for it in self._hospital.store.read(lambda tx: tx.stages.all()) if it.dn == dn]
        for found in requests:
            await self._stager.release(found.id, paths)
        return Document()

    async def _archive(self, request: Request) -> Document:
        paths = parsed(bytes(await request.body()), AskPaths).paths

        def read(tx: Transaction) -> list[Mapping[str, str]]:
            return [locality(path, self._locality(tx, request.principal, path)) for path in paths]

        return _json(self._hospital.store.read(read))

    def _locality(self, tx: Transaction, principal: Principal, path: str) -> Locality | str:
        """Say where a file is, or why that is not told; one that nobody can fetch now is not just in the PACS."""
        try:
            guid = self._find(tx, principal, path)
        except MdmfsError as error:
            return str(error)
        file, instance = tx.catalogue.file(guid), tx.uidmap.resolve(guid)
        if file is None or instance is None:
            return Locality.LOST
        found, known = locality_of(tx, self._hospital, file), self._hospital.pacs.get(instance.pacs)
        is_away = known is None or known.pacs.is_left_alone
        return Locality.UNAVAILABLE if is_away and found is Locality.NEARLINE else found

    def _find(self, tx: Transaction, principal: Principal, path: str) -> Guid:
        """Find the file of a path that the caller may know; raises ``NoSuchFileError`` and ``MalformedNameError``."""
        sight = Sight(tx, principal, self._hospital.clock())
        guid = guid_of(path)
        if guid is not None:
            file = tx.catalogue.file(guid)
            if file is not None and file.state in _SHOWN and sight.may_know(file):
                return guid
        else:
            target = Target.of_text(path)
            node = sight.node(target.lfn)
            if target.is_sealed and target.fits(node):
                return Guid(node.guid)
        message = f"there is no {path}, or it is not for this identity"
        raise NoSuchFileError(message)

    def _own(self, request: Request, name: str = "") -> StageRequest:
        """Give the caller's own request of an id; raises ``NoSuchFileError``, ``AccessDeniedError``."""
        if not _ID.fullmatch(name):
            message = f"there is no request {name[:_QUOTED]}"
            raise NoSuchFileError(message, what_to_do="mdmfs stage status lists your requests")
        found = self._stager.request(bytes.fromhex(name))
        if found.dn != str(request.principal.dn):
            message = f"the request {name} is somebody else's"
            raise AccessDeniedError(message, what_to_do="mdmfs stage status lists your requests")
        return found


def _rest(path: str, above: str) -> list[str]:
    return [part for part in path.removeprefix(above).split("/") if part]


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Document:  # noqa: ANN401 any JSON
    return Document(msgspec.json.encode(body), status, {"content-type": "application/json", **(headers or {})})
