"""Staging to storage elements: replicas are made ahead of their readers, where their project lets them be kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from mdmfs.hospital.dav.target import Target
from mdmfs.hospital.projects import Placement
from mdmfs.hospital.rights.why import explain
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import OutOfSpaceError
from mdmfs.model.identity import Principal
from mdmfs.wire.messages.acls import AskWhy
from mdmfs.wire.messages.files import DESCRIBE_PATH, Describe, FileDescription
from tests.twins.clinic import READER, STRANGER, Clinic, slices, until
from tests.twins.storage import TwinElement
from tests.unit.registration.test_register import CuttingStore
from tests.unit.tape.test_tape_face import Tape, open_tape, wait_until

T = TypeVar("T")


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    """Give a hospital with a series, whose project lets replicas be kept at two places, and puts none by itself."""
    clinic = Clinic(tmp_path, slices(range(1, 5)))
    clinic.elements = [TwinElement(), TwinElement("tier2"), TwinElement("elsewhere")]
    clinic.placement = Placement(("tier1", "tier2"), on_release=False)
    return clinic


def asking_for(paths: list[str], element: object, site: str = "amc") -> dict[str, Any]:
    """Make the body of a request."""
    return {"files": [{"path": path, "targetedMetadata": {site: {"replica": element}}} for path in paths]}


async def stage_to(tape: Tape, element: str, paths: list[str] | None = None, who: Principal = READER) -> str:
    """Ask for replicas; gives the request's id."""
    told = await tape.told("POST", "/api/v1/stage", asking_for(paths or tape.paths, element), who)
    return str(told["requestId"])


async def described(tape: Tape, path: str) -> FileDescription:
    """Ask what is told of a file."""
    told = await tape.hospital.told(DESCRIBE_PATH, Describe(tape.files[path].octets))
    assert isinstance(told, FileDescription)
    return told


async def test_a_request_is_over_when_the_replicas_are_there_and_shown(clinic: Clinic) -> None:
    """At the element that was asked for and at no other; the hospital's own copy may go, and they are at hand still."""
    async with open_tape(clinic) as tape:
        assert (await described(tape, tape.paths[0])).locality == "NEARLINE"
        request_id = await stage_to(tape, "tier2")
        assert await tape.until_over(request_id) == {"COMPLETED": 4}
        assert [len(it.kept) for it in clinic.elements] == [0, 4, 0]
        assert not any(map(tape.stager.pins.is_pinned, tape.files.values()))
        for guid in tape.files.values():
            tape.hospital.hospital.staging.discard(guid)
        told = await tape.told("GET", f"/api/v1/stage/{request_id}")
        assert all(file["onDisk"] for file in told["files"])
        shown = await described(tape, tape.paths[0])
        assert shown.replicas[1].startswith("s3://tier2/")
        assert shown.locality == "ONLINE_AND_NEARLINE"


async def test_what_is_there_is_not_recalled_again_and_stays_longer(clinic: Clinic) -> None:
    """The time of a replica begins anew, and the PACS hears nothing."""
    async with open_tape(clinic) as tape:
        await tape.until_over(await stage_to(tape, "tier1"))
        before, guid = clinic.pacs.recalls, tape.files[tape.paths[0]]
        for each in tape.files.values():
            tape.hospital.hospital.staging.discard(each)
        (first,) = tape.hospital.hospital.store.read(lambda tx: tx.replicas.of(guid))
        clinic.now += 1000
        assert await tape.until_over(await stage_to(tape, "tier1")) == {"COMPLETED": 4}
        (second,) = tape.hospital.hospital.store.read(lambda tx: tx.replicas.of(guid))
        assert second.until == first.until + 1000
        assert clinic.pacs.recalls == before


@pytest.mark.parametrize("element", ["elsewhere", "nowhere"])
async def test_a_reader_puts_nothing_where_the_project_keeps_nothing(clinic: Clinic, element: str) -> None:
    """However well it is configured; the answer names the places that there are."""
    async with open_tape(clinic) as tape:
        answer = await tape.ask("POST", "/api/v1/stage", asking_for(tape.paths, element))
        assert answer.status == 403
        assert b"tier1, tier2" in answer.body
        assert not any(it.kept for it in clinic.elements)


async def test_a_project_without_replicas_says_so(clinic: Clinic) -> None:
    """Nobody but the hospital decides that its ciphertext lies elsewhere."""
    clinic.placement = None
    async with open_tape(clinic) as tape:
        answer = await tape.ask("POST", "/api/v1/stage", asking_for(tape.paths, "tier1"))
        assert (answer.status, b"keeps no replicas" in answer.body) == (403, True)


async def test_a_stranger_learns_of_no_storage_element(clinic: Clinic) -> None:
    """He hears what he hears of everything: there is no such file."""
    async with open_tape(clinic) as tape:
        answer = await tape.ask("POST", "/api/v1/stage", asking_for(tape.paths, "tier1"), STRANGER)
        assert (answer.status, b"tier" in answer.body) == (404, False)


@pytest.mark.parametrize("wish", [7, ["tier1"], None])
async def test_a_wish_that_is_none_is_refused_and_that_of_another_site_passed_over(
    clinic: Clinic, wish: object
) -> None:
    """What others are told is theirs."""
    async with open_tape(clinic) as tape:
        assert (await tape.ask("POST", "/api/v1/stage", asking_for(tape.paths, wish))).status == 400
        told = await tape.told("POST", "/api/v1/stage", asking_for(tape.paths, wish, site="cern"))
        assert await tape.until_over(told["requestId"]) == {"COMPLETED": 4}
        assert not any(it.kept for it in clinic.elements)


async def test_a_dead_storage_element_delays_a_request_and_fails_no_file(clinic: Clinic) -> None:
    """The request says what it waits for, and goes on by itself, also after a restart."""
    clinic.elements[0].is_dead = True
    async with open_tape(clinic) as tape:
        request_id = await stage_to(tape, "tier1")
        told = await wait_until(
            lambda: tape.told("GET", f"/api/v1/stage/{request_id}"), lambda told: "tier1" in told.get("reason", "")
        )
        assert {file["state"] for file in told["files"]} == {"STARTED"}
    clinic.elements[0].is_dead = False
    async with open_tape(clinic) as tape:
        assert await tape.until_over(request_id) == {"COMPLETED": 4}
        assert len(clinic.elements[0].kept) == 4


class FullStore(CuttingStore):
    """A store whose disk has no room for how long a replica stays."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self.is_full = False
        self.refused = 0

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, but for that."""

        def look(tx: Transaction) -> T:
            before = {it.name: it.until for it in tx.replicas.page(100)}
            result = act(tx)
            if self.is_full and any(before.get(it.name, it.until) != it.until for it in tx.replicas.page(100)):
                self.refused += 1
                message = "the disk is full"
                raise OutOfSpaceError(message)
            return result

        return await super().write(look)


async def test_a_full_disk_does_not_end_what_stages(clinic: Clinic) -> None:
    """A replica that is there already is there, also where its new end cannot be written down; the daemon goes on."""
    store = clinic.store = FullStore(clinic.store)
    async with open_tape(clinic) as tape:
        await tape.until_over(await stage_to(tape, "tier2"))
        clinic.now += 1000
        store.is_full = True
        assert await tape.until_over(await stage_to(tape, "tier2")) == {"COMPLETED": 4}
        assert store.refused >= 4


@pytest.mark.parametrize("placement", [Placement(("tier1",), on_release=False), None])
@pytest.mark.parametrize("is_there", [False, True])
async def test_a_request_from_before_puts_nothing_where_the_project_no_longer_keeps_replicas(
    clinic: Clinic,
    placement: Placement | None,
    is_there: bool,  # noqa: FBT001 a case
) -> None:
    """It fails with what a new one would hear, at once; and what lies there goes."""
    async with open_tape(clinic) as tape:
        if is_there:
            await tape.until_over(await stage_to(tape, "tier2"))
    assert len(clinic.elements[1].kept) == (4 if is_there else 0)
    async with open_tape(clinic, works=False) as tape:
        request_id = await stage_to(tape, "tier2")
    clinic.placement = placement
    async with open_tape(clinic) as tape:
        assert await tape.until_over(request_id) == {"FAILED": 4}
        told = await tape.told("GET", f"/api/v1/stage/{request_id}")
        assert all("keeps no replicas at 'tier2'" in file["error"] for file in told["files"])
        await until(lambda: not clinic.elements[1].kept)


async def test_a_replica_is_online_for_a_mount_and_not_for_who_fetches_from_the_hospital(clinic: Clinic) -> None:
    """A description and ``why`` say the same; the Tape REST API says what the hospital itself would have to recall."""
    async with open_tape(clinic) as tape:
        await tape.until_over(await stage_to(tape, "tier1"))
        for guid in tape.files.values():
            tape.hospital.hospital.staging.discard(guid)
        asked = AskWhy(str(Target.of_text(tape.paths[0]).lfn))
        why = tape.hospital.hospital.store.read(lambda tx: explain(tx, READER, asked, tape.hospital.hospital))
        assert why.locality == (await described(tape, tape.paths[0])).locality == "ONLINE_AND_NEARLINE"
        (archived,) = await tape.told("POST", "/api/v1/archiveinfo", {"paths": tape.paths[:1]})
        assert archived["locality"] == "TAPE"


async def test_what_is_let_out_is_put_nowhere_where_only_the_wish_counts(clinic: Clinic) -> None:
    """``on_release = false``."""
    async with open_tape(clinic) as tape:
        request_id = await tape.stage(tape.paths)
        assert await tape.until_over(request_id) == {"COMPLETED": 4}
        await trio.testing.wait_all_tasks_blocked()
        assert not any(it.kept for it in clinic.elements)
