"""``mdmfs inspect`` and ``mdmfs unseal``: everything or nothing, and nothing that was not asked for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from mdmfs.cli.main import cli
from mdmfs.cli.unseal import Sealing, describe_sealing, unseal_file
from mdmfs.model.errors import (
    AccessDeniedError,
    ConfigurationError,
    IntegrityError,
    MdmfsError,
    NameTakenError,
    UnusableFileError,
)
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE, SEGMENT_SIZE
from mdmfs.worker.keys.ring import KeyRing
from tests.twins.hospital import TwinHospital
from tests.twins.keystores import HOSPITAL
from tests.twins.octets import octets

NAME = "/grid/medical/amc/neuro/sub-a/0001.dcm"
SIZES = [0, 1, CHUNK_SIZE, SEGMENT_SIZE, SEGMENT_SIZE + CHUNK_SIZE + 5]


def names_in(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


async def unsealed(
    hospital: TwinHospital, sealed: bytes, folder: Path, guid: Guid, *, reader: str = str(HOSPITAL)
) -> Path:
    """Unseal what lies in a file, and give where."""
    source, target = folder / f"{guid}.sealed", folder / "out.dcm"
    source.write_bytes(sealed)
    async with trio.open_nursery() as nursery:
        keystores = await hospital.open_keystores(nursery, reader=reader)
        sealing = await describe_sealing(hospital, guid)
        with source.open("rb") as stream:
            await unseal_file(stream, target, sealing, KeyRing(lambda: keystores, deadline=5))
        nursery.cancel_scope.cancel()
    return target


async def failure_of(hospital: TwinHospital, sealed: bytes, folder: Path, guid: Guid, **more: str) -> MdmfsError:
    """Expect a failure that leaves nothing behind."""
    with pytest.raises(BaseExceptionGroup) as caught:
        await unsealed(hospital, sealed, folder, guid, **more)
    (error,) = caught.value.exceptions
    assert isinstance(error, MdmfsError)
    assert names_in(folder) == [f"{guid}.sealed"]
    return error


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_sealed_comes_out_for_the_owner_only_to_read(tmp_path: Path, size: int) -> None:
    """Byte for byte, mode 0600, and no draft is left."""
    hospital = TwinHospital()
    file = hospital.add_file(NAME, octets(size, "x"))
    target = await unsealed(hospital, hospital.sealed(file.guid), tmp_path, file.guid)
    assert target.read_bytes() == file.plaintext
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(names_in(tmp_path)) == 2


async def test_nothing_comes_out_of_a_damaged_object(tmp_path: Path) -> None:
    """A flip in the second segment, when the first is written already; a cut; the commitment; another file's object."""
    hospital = TwinHospital()
    file, other = hospital.add_sibling_files("/grid/medical/amc", 2, SEGMENT_SIZE + 10)
    sealed = hospital.sealed(file.guid)
    late = len(sealed) - 5
    for damaged in (
        sealed[:late] + bytes([sealed[late] ^ 1]) + sealed[late + 1 :],
        sealed[:-1],
        sealed[: HEADER_SIZE + 3 * SEALED_CHUNK_SIZE],
        sealed[:30] + bytes([sealed[30] ^ 1]) + sealed[31:],
        hospital.sealed(other.guid),
        b"",
    ):
        assert isinstance(await failure_of(hospital, damaged, tmp_path, file.guid), IntegrityError)


async def test_who_may_not_read_gets_no_plaintext(tmp_path: Path) -> None:
    """The keystores decide, not who has the ciphertext."""
    hospital = TwinHospital()
    file = hospital.add_file(NAME, b"secret")
    sealed = hospital.sealed(file.guid)
    assert isinstance(
        await failure_of(hospital, sealed, tmp_path, file.guid, reader="/DC=org/CN=stranger"), AccessDeniedError
    )


async def test_a_file_that_is_there_stays_and_a_folder_that_is_not_is_told(tmp_path: Path) -> None:
    """Neither is an accident that costs somebody a file."""
    hospital = TwinHospital()
    file = hospital.add_file(NAME, b"image")
    source = tmp_path / "sealed"
    source.write_bytes(hospital.sealed(file.guid))
    (tmp_path / "mine").write_bytes(b"mine")
    async with trio.open_nursery() as nursery:
        keystores = await hospital.open_keystores(nursery)
        ring, sealing = KeyRing(lambda: keystores, deadline=5), await describe_sealing(hospital, file.guid)
        for output, expected in ((tmp_path / "mine", NameTakenError), (tmp_path / "no" / "x", UnusableFileError)):
            with source.open("rb") as stream, pytest.raises(expected):
                await unseal_file(stream, output, sealing, ring)
        nursery.cancel_scope.cancel()
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert len(names_in(tmp_path)) == 2


async def test_with_generation_and_size_the_hospital_is_not_asked() -> None:
    """It may be gone; with one of them it says the other."""
    hospital = TwinHospital()
    file = hospital.add_file(NAME, b"image")
    given = await describe_sealing(hospital, file.guid, 3, 5)
    assert isinstance(given, Sealing)
    assert (given.context.generation, given.context.size, hospital.descriptions) == (3, 5, 0)
    asked = await describe_sealing(hospital, file.guid, generation=7)
    assert (asked.context.generation, asked.context.size, asked.threshold) == (7, 5, 2)


def test_inspect_tells_what_needs_no_key(tmp_path: Path) -> None:
    """Salt, commitment, size, chunks; and whether the length is possible, with exit code 1 if not."""
    hospital = TwinHospital()
    sealed = hospital.sealed(hospital.add_file(NAME, octets(2 * CHUNK_SIZE + 7, "x")).guid)
    path = tmp_path / "object"
    path.write_bytes(sealed)
    told = CliRunner().invoke(cli, ["inspect", str(path)])
    assert told.exit_code == 0
    for text in (sealed[:24].hex(), sealed[24:56].hex(), "32775 bytes", "3, the last one of 7 bytes", str(len(sealed))):
        assert text in told.output
    for length in (len(sealed) - 10, HEADER_SIZE + SEALED_CHUNK_SIZE, HEADER_SIZE, 10, 0):
        path.write_bytes(sealed[:length])
        told = CliRunner().invoke(cli, ["inspect", str(path)])
        assert told.exit_code == 1
        assert "cut off" in told.output


def test_inspect_takes_no_image_for_a_sealed_object(tmp_path: Path) -> None:
    """What a mount shows is plaintext: a salt of zeros would be told of it, and a size that it has not."""
    path = tmp_path / "0001.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(SEALED_CHUNK_SIZE))
    told = CliRunner().invoke(cli, ["inspect", str(path)])
    assert isinstance(told.exception, UnusableFileError)
    assert "not sealed" in str(told.exception)


def test_a_file_that_no_name_identifies_is_refused(tmp_path: Path) -> None:
    """Nobody guesses which file it is."""
    path = tmp_path / "object"
    path.write_bytes(b"")
    result = CliRunner().invoke(cli, ["unseal", str(path), "--mount-config", str(path), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, ConfigurationError)
    assert "--guid" in result.exception.what_to_do
