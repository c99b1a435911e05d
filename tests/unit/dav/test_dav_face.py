"""The hospital as WebDAV: sealed objects under the names, rights and audit of the mount, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import zlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import trio

from mdmfs.hospital.dav.face import DavFace
from mdmfs.hospital.dav.failures import status_of
from mdmfs.hospital.dav.target import SEALED_SUFFIX, path_of
from mdmfs.model.errors import ERRORS_BY_CODE
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.sealing.layout import plain_size
from mdmfs.wire.messages.files import NodeKind
from mdmfs.wire.service import Answer, Document, Request, Service, StreamReply
from mdmfs.wire.stream import Address
from tests.twins.clinic import PROJECT_LFN, READER, STRANGER, Clinic, OpenClinic, let_list, slices
from tests.twins.keystores import principal

LISTER = principal("/DC=org/DC=demo/CN=lister")
"""May traverse every directory and read nothing."""
DENIED = 403
GONE = 404


class Web:
    """A hospital that runs, asked as a program of the grid asks it."""

    def __init__(self, hospital: OpenClinic) -> None:
        self.hospital = hospital
        self.service = Service("hospital", DavFace(hospital.hospital, hospital.recalls).routes())
        self.files = hospital.files()
        self.paths = [path_of(self.lfn(name), NodeKind.FILE) for name in self.files]
        self.guids = list(self.files.values())
        self.folder = self.paths[0].rpartition("/")[0]

    def lfn(self, name: str) -> Lfn:
        """Give the whole name of a file below the project."""
        return Lfn((*PROJECT_LFN.parts, *name.split("/")))

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        who: Principal = READER,
        octets: bytes = b"",
    ) -> Answer:
        """Ask without a socket."""

        async def body() -> bytes:
            await trio.lowlevel.checkpoint()
            return octets

        return await self.service.answer(Request(method, path, headers or {}, who, Address("192.0.2.7", 1), body))

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[StreamReply, bytes]:
        """Get something that is there, to its end."""
        answer = await self.ask("GET", path, headers)
        assert isinstance(answer, StreamReply), answer
        octets = b"".join([bytes(piece) async for piece in answer.chunks])
        await answer.chunks.aclose()  # type: ignore[attr-defined]
        assert len(octets) == answer.length
        return answer, octets

    async def status(self, method: str, path: str, who: Principal = READER, **headers: str) -> int:
        """Give the status of an answer."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.ask(method, path, told, who)
        return answer.status

    async def listed(self, path: str, depth: int = 1, who: Principal = READER) -> list[str]:
        """Give the hrefs of a PROPFIND."""
        answer = await self.ask("PROPFIND", path, {"depth": str(depth)}, who)
        assert isinstance(answer, StreamReply), answer
        octets = b"".join([bytes(piece) async for piece in answer.chunks])
        return [it.text or "" for it in ET.fromstring(octets).iter("{DAV:}href")]  # noqa: S314 ours


@contextlib.asynccontextmanager
async def open_web(folder: Path, count: int = 3) -> AsyncGenerator[Web]:
    """Run a hospital with one registered series."""
    async with Clinic(folder, slices(range(1, count + 1))).open() as hospital:
        await hospital.harvest()
        yield Web(hospital)


# Names


async def test_the_reader_walks_from_the_root_to_sealed_objects(tmp_path: Path) -> None:
    """Directories end with a slash, files in .sealed, and each name leads on; depth 0 names only itself."""
    async with open_web(tmp_path, 3) as web:
        path = "/grid/medical/"
        while not path.endswith(SEALED_SUFFIX):
            hrefs = await web.listed(path)
            assert hrefs[0] == path
            assert await web.listed(path, 0) == [path]
            path = hrefs[1]
        assert hrefs[1:] == web.paths
        assert await web.listed(web.paths[0]) == [web.paths[0]]


async def test_a_directory_of_many_pages_is_listed_whole(tmp_path: Path) -> None:
    """Each entry once, however small the pages are."""
    async with open_web(tmp_path, 7) as web:
        face = DavFace(web.hospital.hospital, web.hospital.recalls, page=2)
        web.service = Service("hospital", face.routes())
        assert (await web.listed(web.folder))[1:] == web.paths


async def test_a_listing_without_end_is_refused(tmp_path: Path) -> None:
    """Depth infinity, also unsaid (RFC 4918 section 9.1)."""
    async with open_web(tmp_path, 1) as web:
        assert await web.status("PROPFIND", web.folder, depth="infinity") == DENIED
        assert await web.status("PROPFIND", web.folder) == DENIED


async def test_plaintext_has_no_url(tmp_path: Path) -> None:
    """Neither under its own name nor as a directory; what is malformed is refused."""
    async with open_web(tmp_path, 1) as web:
        (path,) = web.paths
        for absent in (path.removesuffix(SEALED_SUFFIX), path + SEALED_SUFFIX, web.folder + SEALED_SUFFIX):
            for method in ("GET", "HEAD"):
                assert await web.status(method, absent) == GONE
            assert await web.status("PROPFIND", absent, depth="0") == GONE
        for malformed in ("/grid/medical/%zz", "/grid/medical/%ff", "/grid/medical/../etc", "/grid/medical/a%00b"):
            assert await web.status("GET", malformed) == 400


async def test_a_directory_is_not_for_get(tmp_path: Path) -> None:
    """It says what it is for; HEAD says that it is there."""
    async with open_web(tmp_path, 1) as web:
        answer = await web.ask("GET", web.folder)
        assert isinstance(answer, Document)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, PROPFIND")
        assert await web.status("HEAD", web.folder) == 200


# Rights


async def test_who_may_not_read_is_denied_everywhere_and_finds_nothing_that_a_listing_does_not_show(
    tmp_path: Path,
) -> None:
    """403 where the name may be known, 404 for a stranger, who finds an empty root; each refusal is audited."""
    async with open_web(tmp_path, 1) as web:
        await let_list(web.hospital, LISTER)
        (path,) = web.paths
        assert await web.listed(web.folder, 1, LISTER) == [web.folder + "/", path]
        for headers in ({}, {"range": "bytes=0-1"}, {"if-match": '"x"'}, {"if-none-match": "*"}):
            assert (await web.ask("GET", path, headers, LISTER)).status == DENIED
        for headers in ({}, {"want-digest": "adler32"}):
            assert (await web.ask("HEAD", path, headers, LISTER)).status == DENIED
        refusals = [line for line in web.hospital.audited() if line["event"] == "refusal"]
        assert [line["dn"] for line in refusals] == [str(LISTER.dn)] * 6
        assert await web.listed("/grid/medical/", 1, STRANGER) == ["/grid/medical/"]
        for method in ("GET", "HEAD", "OPTIONS"):
            for known in (path, web.folder, str(PROJECT_LFN)):
                assert await web.status(method, known, STRANGER) == GONE
        assert await web.status("PROPFIND", web.folder, STRANGER, depth="1") == GONE
        assert web.hospital.clinic.pacs.sent.total() == 1  # the registration's own


async def test_nothing_can_be_written(tmp_path: Path) -> None:
    """403 and why: of 405 gfal2 says that the file exists. What is under the name makes no difference."""
    async with open_web(tmp_path, 1) as web:
        for method in ("PUT", "DELETE", "MKCOL", "MOVE", "COPY", "PROPPATCH", "LOCK", "PATCH"):
            for path in (web.paths[0], web.folder, web.folder + "/new", "/grid/medical/nowhere/new"):
                answer = await web.ask(method, path)
                assert isinstance(answer, Document)
                told = msgspec.json.decode(answer.body)
                assert (answer.status, told["detail"]) == (DENIED, f"{method}: nothing can be written this way")


async def test_the_macaroon_that_gfal2_asks_for_first_is_told_what_there_is_instead(tmp_path: Path) -> None:
    """405: with another status it would give up."""
    async with open_web(tmp_path, 1) as web:
        answer = await web.ask("POST", web.paths[0])
        assert isinstance(answer, Document)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, PROPFIND")


# Bytes


async def test_a_get_gives_the_sealed_object_and_is_audited(tmp_path: Path) -> None:
    """Brought online as by an open, with the length of the listing and the salt as entity tag."""
    async with open_web(tmp_path, 1) as web:
        answer, octets = await web.get(web.paths[0])
        assert answer.etag == octets[:24].hex()
        head = await web.ask("HEAD", web.paths[0])
        assert isinstance(head, Document)
        assert (head.length, head.headers["etag"]) == (len(octets), f'"{answer.etag}"')
        file = web.hospital.hospital.store.read(lambda tx: tx.catalogue.file(web.guids[0]))
        assert file is not None
        assert plain_size(len(octets)) == file.rendition.size
        releases = [line for line in web.hospital.audited() if line["event"] == "release"]
        assert [(line["dn"], line["guid"]) for line in releases] == [(str(READER.dn), str(web.guids[0]))]


async def test_ranges_belong_to_one_sealing(tmp_path: Path) -> None:
    """A part is what it says; once the object was sealed anew If-Match fails, and If-Range gives the whole."""
    async with open_web(tmp_path, 1) as web:
        path = web.paths[0]
        whole, octets = await web.get(path)
        tag = f'"{whole.etag}"'
        part, piece = await web.get(path, {"range": "bytes=100-199", "if-match": tag})
        assert (part.status, piece) == (206, octets[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(octets)}"
        assert await web.status("GET", path, range=f"bytes={len(octets)}-") == 416
        assert (await web.ask("GET", path, {"if-none-match": tag})).status == 304
        web.hospital.hospital.staging.discard(web.guids[0])
        before = web.hospital.clinic.pacs.sent.total()
        assert (await web.ask("GET", path, {"range": "bytes=5-", "if-match": tag})).status == 412
        assert web.hospital.clinic.pacs.sent.total() == before
        other, _ = await web.get(path, {"range": "bytes=5-", "if-range": tag})
        assert (other.status, other.length) == (200, len(octets))
        assert other.etag != whole.etag


async def test_a_digest_is_of_the_sealed_object(tmp_path: Path) -> None:
    """Adler-32 in hexadecimal digits, the others in base64; what nobody knows is left out."""
    async with open_web(tmp_path, 1) as web:
        path = web.paths[0]
        _, octets = await web.get(path)
        expected = {
            "adler32": f"adler32={zlib.adler32(octets):08x}",
            "MD5": "md5=" + base64.b64encode(hashlib.md5(octets).digest()).decode(),  # noqa: S324
            "sha-256;q=0.5, crc32c": "sha-256=" + base64.b64encode(hashlib.sha256(octets).digest()).decode(),
            "sha-256;q=0.1,adler32;q=0.9": f"adler32={zlib.adler32(octets):08x}",
        }
        for wanted, digest in expected.items():
            head = await web.ask("HEAD", path, {"want-digest": wanted})
            assert isinstance(head, Document)
            assert head.headers["digest"] == digest
            answer, _ = await web.get(path, {"want-digest": wanted})
            assert answer.headers["digest"] == digest
        for wanted in ("", "crc32c", "md5;q=0", "nonsense;;;"):
            head = await web.ask("HEAD", path, {"want-digest": wanted})
            assert "digest" not in (head.headers if isinstance(head, Document) else {"digest": ""})


async def test_head_fetches_nothing_unless_a_digest_is_wanted(tmp_path: Path) -> None:
    """Listing programs ask HEAD of everything; only a digest needs the object."""
    async with open_web(tmp_path, 1) as web:
        before = web.hospital.clinic.pacs.sent.total()
        head = await web.ask("HEAD", web.paths[0])
        assert isinstance(head, Document)
        assert "etag" not in head.headers
        assert web.hospital.clinic.pacs.sent.total() == before
        head = await web.ask("HEAD", web.paths[0], {"want-digest": "adler32"})
        assert isinstance(head, Document)
        assert head.headers["digest"].startswith("adler32=")
        assert web.hospital.clinic.pacs.sent.total() == before + 1


async def test_what_cannot_be_brought_online_is_to_be_asked_for_again(tmp_path: Path) -> None:
    """503 with Retry-After and no word of where the PACS is; 409 would be tried again for ever."""
    async with open_web(tmp_path, 1) as web:
        web.hospital.clinic.pacs.is_stopped = True
        for method in ("GET", "HEAD"):
            answer = await web.ask(method, web.paths[0], {"want-digest": "md5"})
            assert isinstance(answer, Document)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "192.0.2" not in msgspec.json.decode(answer.body)["detail"]


async def test_every_error_has_a_status_that_programs_do_not_misread(tmp_path: Path) -> None:
    """What is lost or changed is gone; nothing is 409."""
    async with open_web(tmp_path, 1) as web:
        pacs = web.hospital.clinic.pacs
        pacs.held.clear()
        assert await web.status("GET", web.paths[0]) == 410


def test_no_error_is_a_conflict() -> None:
    """gfal-copy tries again for ever after 409."""
    statuses = {status_of(kind("x")) for kind in ERRORS_BY_CODE.values()}
    assert statuses <= {400, 401, 403, 404, 410, 500, 502, 503}
