"""Staging on twins: asked as gfal2 asks, through restarts, outages and hostile wishes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.hospital.dav.target import path_of
from mdmfs.hospital.tape.face import TapeFace
from mdmfs.hospital.tape.stager import Stager
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.sealing.layout import sealed_size
from mdmfs.wire.messages.files import NodeKind
from mdmfs.wire.service import Document, Request, Service
from mdmfs.wire.stream import Address
from tests.twins.clinic import PROJECT_LFN, READER, STRANGER, Clinic, OpenClinic, let_list, slice_of, slices
from tests.twins.keystores import principal

LISTER = principal("/DC=org/DC=demo/CN=lister")
PUBLIC = Address("mdm.example.org", 8443)
FINAL = {"COMPLETED", "FAILED", "CANCELLED"}
SECONDS = 30.0

T = TypeVar("T")


class Tape:
    """A hospital that runs, asked over the Tape REST API."""

    def __init__(self, hospital: OpenClinic) -> None:
        self.hospital = hospital
        self.stager = Stager(hospital.hospital, hospital.recalls)
        self.service = Service("hospital", TapeFace(hospital.hospital, self.stager, PUBLIC).routes())
        self.files = {self.path(name): guid for name, guid in hospital.files().items()}
        self.paths = list(self.files)

    def path(self, name: str) -> str:
        """Give the path of a file below the project."""
        return path_of(Lfn((*PROJECT_LFN.parts, *name.split("/"))), NodeKind.FILE)

    async def ask(self, method: str, path: str, body: object = None, who: Principal = READER) -> Document:
        """Ask without a socket."""

        async def octets() -> bytes:
            await trio.lowlevel.checkpoint()
            return b"" if body is None else msgspec.json.encode(body)

        answer = await self.service.answer(Request(method, path, {}, who, Address("192.0.2.7", 1), octets))
        assert isinstance(answer, Document), answer
        return answer

    async def told(self, method: str, path: str, body: object = None, who: Principal = READER) -> Any:  # noqa: ANN401 JSON
        """Ask for something that succeeds."""
        answer = await self.ask(method, path, body, who)
        assert answer.status < 300, answer.body
        return msgspec.json.decode(answer.body) if answer.body else None

    async def stage(self, paths: list[str], lifetime: str = "P1D", who: Principal = READER) -> str:
        """Ask for files; gives the request's id."""
        body = {"files": [{"path": path, "diskLifetime": lifetime} for path in paths]}
        told = await self.told("POST", "/api/v1/stage", body, who)
        return str(told["requestId"])

    async def states(self, request_id: str) -> Counter[str]:
        """Count the states of a request's files."""
        told = await self.told("GET", f"/api/v1/stage/{request_id}")
        return Counter(file["state"] for file in told["files"])

    async def until_over(self, request_id: str) -> Counter[str]:
        """Wait for the end of a request."""
        return await wait_until(lambda: self.states(request_id), lambda states: set(states) <= FINAL)

    def is_staged(self, path: str) -> bool:
        """Whether a whole object is staged."""
        return self.stager.is_on_disk(self.files[path])


async def wait_until(ask: Callable[[], Awaitable[T]], is_it: Callable[[T], bool]) -> T:
    """Ask again and again until the answer is what is waited for, and give it."""
    with trio.fail_after(SECONDS):
        while not is_it(answer := await ask()):  # noqa: ASYNC110 there is no event
            await trio.sleep(0.01)
    return answer


@contextlib.asynccontextmanager
async def open_tape(clinic: Clinic, *, works: bool = True) -> AsyncIterator[Tape]:
    """Run a hospital; without ``works`` nothing is staged."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        tape = Tape(hospital)
        if works:
            hospital.nursery.start_soon(tape.stager.run)
        yield tape


async def test_files_are_staged_series_by_series_and_told_as_they_are(tmp_path: Path) -> None:
    """Two series in two retrievals, whatever order they were asked for in; each instance is fetched once."""
    held = [*slices(range(1, 11)), *slices(range(11, 21), series=2)]
    clinic = Clinic(tmp_path, held)
    async with open_tape(clinic) as tape:
        clinic.pacs.sent.clear()
        before = clinic.pacs.recalls
        mixed = [path for pair in zip(tape.paths[:10], tape.paths[10:], strict=True) for path in pair]
        request_id = await tape.stage(mixed)
        assert await tape.until_over(request_id) == {"COMPLETED": 20}
        told = await tape.told("GET", f"/api/v1/stage/{request_id}")
        assert all(file["onDisk"] for file in told["files"])
        assert [file["path"] for file in told["files"]] == mixed
        assert told["createdAt"] <= told["startedAt"] <= told["completedAt"]
        assert set(clinic.pacs.sent.values()) == {1}
        assert clinic.pacs.recalls - before == 2
        lines = [line for line in tape.hospital.audited() if line["event"] == "staging"]
        assert {(line["dn"], line["address"]) for line in lines} == {(str(READER.dn), "192.0.2.7")}
        assert {line["guid"] for line in lines} == set(map(str, tape.files.values()))
        assert not [line for line in tape.hospital.audited() if line["event"] == "release"]


async def test_discovery_tells_where_the_api_is(tmp_path: Path) -> None:
    """Under the address that others find the hospital at."""
    async with open_tape(Clinic(tmp_path, slices([1])), works=False) as tape:
        told = await tape.told("GET", "/.well-known/wlcg-tape-rest-api")
        assert told["sitename"] == "amc"
        assert told["endpoints"][0] == {"uri": "https://mdm.example.org:8443/api/v1", "version": "v1", "metadata": {}}


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was staged is not fetched again, what was under way at most once more; progress never goes backwards."""
    clinic = Clinic(tmp_path, slices(range(1, 41)))
    clinic.pacs.delay = 0.005
    seen: list[int] = []
    async with open_tape(clinic) as tape:
        clinic.pacs.sent.clear()
        request_id = await tape.stage(tape.paths)
        await wait_until(lambda: tape.states(request_id), lambda states: states["COMPLETED"] >= 10)
        seen.append((await tape.states(request_id))["COMPLETED"])
    for wanted in (30, 40):
        async with open_tape(clinic) as tape:
            seen.append((await tape.states(request_id))["COMPLETED"])
            await wait_until(
                lambda: tape.states(request_id), lambda states, wanted=wanted: states["COMPLETED"] >= wanted
            )
            seen.append((await tape.states(request_id))["COMPLETED"])
            assert all(tape.is_staged(path) for path in tape.paths) is (wanted == 40)
    assert seen == sorted(seen)
    assert seen[-1] == 40
    assert max(clinic.pacs.sent.values()) <= 2
    assert len(clinic.pacs.sent) == 40


async def test_a_pacs_that_is_away_delays_and_fails_nothing(tmp_path: Path) -> None:
    """The request says why it waits, in words that the grid may read, and goes on by itself."""
    clinic = Clinic(tmp_path, slices(range(1, 4)))
    async with open_tape(clinic) as tape:
        clinic.pacs.is_stopped = True
        request_id = await tape.stage(tape.paths)
        told = await wait_until(lambda: tape.told("GET", f"/api/v1/stage/{request_id}"), lambda it: "reason" in it)
        assert "PACS" in told["reason"]
        assert "192.0.2" not in told["reason"]
        assert "COMPLETED" not in await tape.states(request_id)
        clinic.pacs.is_stopped = False
        assert await tape.until_over(request_id) == {"COMPLETED": 3}
        assert "reason" not in await tape.told("GET", f"/api/v1/stage/{request_id}")


async def test_one_lost_instance_fails_alone(tmp_path: Path) -> None:
    """Its siblings are staged, and it says why it is not."""
    clinic = Clinic(tmp_path, slices(range(1, 5)))
    async with open_tape(clinic) as tape:
        clinic.pacs.held.pop(1)
        request_id = await tape.stage(tape.paths)
        assert await tape.until_over(request_id) == {"COMPLETED": 3, "FAILED": 1}
        told = await tape.told("GET", f"/api/v1/stage/{request_id}")
        (error,) = [file["error"] for file in told["files"] if file["state"] == "FAILED"]
        assert "1.2." not in error


# Who may


async def test_who_may_not_read_stages_nothing(tmp_path: Path) -> None:
    """403 for one who may list, 404 for a stranger, one refusal in the audit log; mixed requests fail by the file."""
    clinic = Clinic(tmp_path, slices(range(1, 3)))
    async with open_tape(clinic) as tape:
        await let_list(tape.hospital, LISTER)
        body = {"files": [{"path": tape.paths[0]}]}
        assert (await tape.ask("POST", "/api/v1/stage", body, LISTER)).status == 403
        assert (await tape.ask("POST", "/api/v1/stage", body, STRANGER)).status == 404
        refusals = [line for line in tape.hospital.audited() if line["event"] == "refusal"]
        assert [(line["dn"], line["guid"]) for line in refusals] == [(str(LISTER.dn), str(tape.files[tape.paths[0]]))]
        request_id = await tape.stage([tape.paths[0], "/grid/medical/amc/nothing.dcm.sealed", "nonsense"])
        assert await tape.until_over(request_id) == {"COMPLETED": 1, "FAILED": 2}


async def test_a_request_is_his_who_made_it(tmp_path: Path) -> None:
    """Nobody else polls, cancels, deletes or releases it, also with a made-up id."""
    clinic = Clinic(tmp_path, slices(range(1, 3)))
    async with open_tape(clinic) as tape:
        request_id = await tape.stage(tape.paths)
        await tape.until_over(request_id)
        paths = {"paths": tape.paths}
        for method, path, body in (
            ("GET", f"/api/v1/stage/{request_id}", None),
            ("POST", f"/api/v1/stage/{request_id}/cancel", paths),
            ("POST", f"/api/v1/release/{request_id}", paths),
            ("DELETE", f"/api/v1/stage/{request_id}", None),
        ):
            assert (await tape.ask(method, path, body, STRANGER)).status == 403
        await tape.told("POST", "/api/v1/release/gfal2-placeholder-id", paths, STRANGER)
        assert all(tape.stager.pins.is_pinned(guid) for guid in tape.files.values())
        assert (await tape.told("GET", "/api/v1/stage", None, STRANGER)) == {"requests": []}


async def test_a_right_that_goes_while_a_file_waits_counts(tmp_path: Path) -> None:
    """Decided again when its turn comes."""
    clinic = Clinic(tmp_path, slices(range(1, 3)))
    async with open_tape(clinic, works=False) as tape:
        request_id = await tape.stage(tape.paths)
        await tape.hospital.hospital.store.write(lambda tx: tx.catalogue.withdraw([tape.files[tape.paths[0]]]))
        tape.hospital.nursery.start_soon(tape.stager.run)
        assert await tape.until_over(request_id) == {"COMPLETED": 1, "FAILED": 1}


# Pins, cancelling, tolerances


async def test_a_pinned_file_makes_no_room_and_a_released_one_does(tmp_path: Path) -> None:
    """Others come and go through the rest of staging; what is pinned beyond its half waits."""
    clinic = Clinic(tmp_path, [slice_of(number) for number in range(1, 9)])
    clinic.staging_bytes = 4 * sealed_size(12_000)
    async with open_tape(clinic) as tape:
        guids = [tape.files[path] for path in tape.paths]
        size = clinic.store.read(lambda tx: sealed_size(tx.catalogue.file(guids[0]).rendition.size))  # type: ignore[union-attr]
        room = clinic.staging_bytes // size
        pinned = clinic.staging_bytes // 2 // size
        assert 1 <= pinned < room < len(guids)
        request_id = await tape.stage(tape.paths[:pinned], "PT1H")
        await tape.until_over(request_id)
        for guid in guids[pinned:]:
            staged = await tape.hospital.release(guid)
            await staged.wait_for(staged.size)
        assert all(tape.is_staged(path) for path in tape.paths[:pinned])
        waiting = await tape.stage([tape.paths[pinned]])
        await wait_until(lambda: tape.told("GET", f"/api/v1/stage/{waiting}"), lambda it: "reason" in it)
        await tape.told("POST", f"/api/v1/release/{request_id}", {"paths": tape.paths[:1]})
        assert await tape.until_over(waiting) == {"COMPLETED": 1}


async def test_a_pin_ends_with_its_lifetime_and_outlives_a_restart(tmp_path: Path) -> None:
    """The store says it again."""
    clinic = Clinic(tmp_path, slices(range(1, 3)))
    async with open_tape(clinic) as tape:
        await tape.until_over(await tape.stage(tape.paths, "PT1H"))
    async with open_tape(clinic) as tape:
        await trio.testing.wait_all_tasks_blocked()
        assert all(tape.stager.pins.is_pinned(guid) for guid in tape.files.values())
        clinic.now += 3600
        assert not any(tape.stager.pins.is_pinned(guid) for guid in tape.files.values())


async def test_what_went_while_it_was_pinned_is_staged_again(tmp_path: Path) -> None:
    """As when the machine was restarted, after which staging is empty; what was released stays away."""
    clinic = Clinic(tmp_path, slices(range(1, 3)))
    async with open_tape(clinic) as tape:
        request_id = await tape.stage(tape.paths)
        await tape.until_over(request_id)
        await tape.told("POST", f"/api/v1/release/{request_id}", {"paths": tape.paths[:1]})
        for guid in tape.files.values():
            tape.hospital.hospital.staging.discard(guid)
    async with open_tape(clinic) as tape:

        async def staged() -> list[bool]:
            await trio.lowlevel.checkpoint()
            return [tape.is_staged(path) for path in tape.paths]

        assert await wait_until(staged, any) == [False, True]
        assert await tape.states(request_id) == {"COMPLETED": 2}


async def test_a_request_can_be_cancelled_in_part_or_deleted(tmp_path: Path) -> None:
    """What is staged already stays; a path of another request is a mistake, and what was deleted is unknown."""
    clinic = Clinic(tmp_path, slices(range(1, 5)))
    async with open_tape(clinic, works=False) as tape:
        request_id = await tape.stage(tape.paths)
        path = f"/api/v1/stage/{request_id}"
        assert (await tape.ask("POST", path + "/cancel", {"paths": ["/grid/medical/other"]})).status == 400
        await tape.told("POST", path + "/cancel", {"paths": tape.paths[:2]})
        tape.hospital.nursery.start_soon(tape.stager.run)
        assert await tape.until_over(request_id) == {"COMPLETED": 2, "CANCELLED": 2}
        assert not tape.is_staged(tape.paths[0])
        await tape.told("POST", path + "/cancel", {"paths": tape.paths})
        assert await tape.states(request_id) == {"COMPLETED": 2, "CANCELLED": 2}
        await tape.told("DELETE", path)
        assert (await tape.ask("GET", path)).status == 404
        assert not any(tape.stager.pins.is_pinned(guid) for guid in tape.files.values())


async def test_locality_is_told_by_the_path(tmp_path: Path) -> None:
    """On tape is in the PACS; by the sealed object's path or the SURL's; an unknown one has an error of its own."""
    clinic = Clinic(tmp_path, slices(range(1, 3)))
    async with open_tape(clinic) as tape:
        await tape.until_over(await tape.stage(tape.paths[:1]))
        surl = f"/mdm/{tape.files[tape.paths[1]]}"
        plain = tape.paths[0].removesuffix(".sealed")
        told = await tape.told("POST", "/api/v1/archiveinfo", {"paths": [*tape.paths, surl, plain]})
        assert [one.get("locality") for one in told] == ["DISK_AND_TAPE", "TAPE", "TAPE", None]
        assert "error" in told[3]
        told = await tape.told("POST", "/api/v1/archiveinfo/", {"paths": [*tape.paths, surl]}, STRANGER)
        assert all("error" in one for one in told)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/stage/", {"files": [{"path": "/grid/medical/x"}]}, 404),
        ("POST", "/api/v1/stage", {"files": []}, 400),
        ("POST", "/api/v1/stage", {"files": [{"path": "/x", "diskLifetime": "soon"}]}, 400),
        ("GET", "/api/v1/stage/0000", None, 404),
        ("GET", "/api/v1/stage/" + "00" * 16, None, 404),
        ("DELETE", "/api/v1/stage/", None, 404),
        ("POST", "/api/v1/stage/" + "00" * 16 + "/launch", {"paths": ["/x"]}, 404),
        ("POST", "/api/v1/stage/" + "00" * 16 + "/cancel", {"paths": ["/x"]}, 404),
        ("POST", "/api/v1/release/" + "00" * 16, {"paths": ["/x"]}, 404),
        ("POST", "/api/v1/release/gfal2-placeholder-id", {"paths": ["/x"]}, 200),
        ("POST", "/api/v1/release/", {"paths": ["/x"]}, 200),
        ("POST", "/api/v1/archiveinfo", ["/x"], 400),
    ],
)
async def test_mistakes_are_told_by_their_status(
    tmp_path: Path, method: str, path: str, body: object, status: int
) -> None:
    """As the specification has it; ids that gfal2 makes up are no mistake."""
    async with open_tape(Clinic(tmp_path), works=False) as tape:
        assert (await tape.ask(method, path, body)).status == status
