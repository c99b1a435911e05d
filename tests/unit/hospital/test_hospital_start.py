"""What hospitald does when it starts: directories above the images, and refusals that stop it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.daemon import make_project_directories
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.keys.currency import catch_up
from mdmfs.hospital.opening import refuse_lost_keys
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import LIST_PATH, DirectoryPage, ListDirectory
from tests.twins.clinic import HOSPITAL, PROJECT, READER, STRANGER, Clinic, OpenClinic, slices
from tests.twins.keystores import principal

SECOND = principal("/DC=org/DC=demo/CN=second")


async def top_names(hospital: OpenClinic, who: Principal) -> list[str]:
    """List what stands in the root for somebody."""
    page = await hospital.told(LIST_PATH, ListDirectory(str(Lfn(()))), who)
    assert isinstance(page, DirectoryPage)
    return [node.name for node in page.entries]


def acl_for(who: Principal) -> Acl:
    """Let one reader in."""
    entries = (
        Entry(EntryKind.OWNER, "", Right.READ.value),
        Entry(EntryKind.USER, str(who.dn), (Right.READ | Right.TRAVERSE).value),
    )
    return Acl(str(HOSPITAL), entries, entries)


async def test_only_who_may_enter_a_project_learns_the_hospitals_name(tmp_path: Path) -> None:
    """And a project that comes later lets its readers pass too, at the keystores as well."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        assert await top_names(hospital, READER) == ["amc"]
        assert await top_names(hospital, STRANGER) == await top_names(hospital, SECOND) == []
        first = hospital.hospital.projects[PROJECT]
        later = dataclasses.replace(first, name="cardio", lfn=Lfn(("amc", "cardio")), acl=acl_for(SECOND))
        both = dataclasses.replace(hospital.hospital, projects={PROJECT: first, "cardio": later})
        await clinic.store.write(lambda tx: make_project_directories(tx, both))
        for keystore in hospital.hospital.keystores.names:
            await catch_up(keystore, hospital.hospital)
        assert await top_names(hospital, SECOND) == ["amc"]
        found = clinic.store.read(lambda tx: tx.acls.find(tx.acls.ids_above(1 + 1)[-1]))
        assert found is not None
        assert found.version > 1
        for twin in clinic.keystores.values():
            known = await twin.shelf.read(lambda page: page.acl(str(HOSPITAL), found.id))
            assert known is not None
            assert known.version == found.version
        await clinic.store.write(lambda tx: make_project_directories(tx, both))
        assert clinic.store.read(lambda tx: tx.outbox.size()).items == 0


async def test_a_file_does_not_change_the_access_to_what_is_registered(tmp_path: Path) -> None:
    """Another [access] than the directory was made with stops the start, and changes nothing."""
    clinic = Clinic(tmp_path)
    async with clinic.open() as hospital:
        changed = dataclasses.replace(hospital.hospital.projects[PROJECT], acl=acl_for(STRANGER))
        other = dataclasses.replace(hospital.hospital, projects={PROJECT: changed})
        with pytest.raises(ConfigurationError, match="put back what it said"):
            await clinic.store.write(lambda tx: make_project_directories(tx, other))
        await clinic.store.write(lambda tx: make_project_directories(tx, hospital.hospital))


async def test_keys_are_made_for_a_new_store_and_never_for_one_that_has_files(tmp_path: Path) -> None:
    """Made anew they would open no share under way, and keystores would take no order: it says where they may be."""
    clinic, keys = Clinic(tmp_path, slices((1,))), tmp_path / "keys"
    keys.mkdir()
    async with clinic.open() as hospital:
        refuse_lost_keys(clinic.store, keys)
        await hospital.harvest()
        (keys / "signing.key").touch()
        with pytest.raises(ConfigurationError, match=r"outbox\.key cannot be found.*files") as refused:
            refuse_lost_keys(clinic.store, keys)
        assert "backup" in refused.value.what_to_do
        (keys / "outbox.key").touch()
        refuse_lost_keys(clinic.store, keys)


def test_the_shipped_policies_are_there() -> None:
    """By their names; others by a path."""
    assert {read_policy(name).name for name in ("strict", "research")} == {"strict", "research"}
    assert isinstance(read_policy("strict"), Policy)
    for name in ("", "nothing", "../policies/strict", "/nowhere/x.toml"):
        with pytest.raises(ConfigurationError):
            read_policy(name)
