"""``mdmfs inspect`` and ``mdmfs unseal``: one sealed object by itself, without a mount."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final

import click
import trio

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.cli.mounted import OF_HOSPITAL, read_alone
from mdmfs.cli.output import tell
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.journal.durable import sync_directory
from mdmfs.model.errors import ConfigurationError, IntegrityError, MalformedNameError, UnusableFileError, using
from mdmfs.model.names import Guid
from mdmfs.pki.trust import TrustAnchors
from mdmfs.sealing.header import Header, ObjectContext, Role
from mdmfs.sealing.layout import (
    HEADER_SIZE,
    SEGMENT_SIZE,
    chunk_count,
    last_chunk_range,
    plain_size,
    sealed_size,
    segment_ranges,
)
from mdmfs.sealing.unseal import Unsealer
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.callers.peers import Peers
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital.port import Hospital
from mdmfs.worker.hospital.remote import RemoteHospital
from mdmfs.worker.keys.ring import KeyRing, Lock

_GUID_LENGTH: Final = 36
"""Of its text: caches name a sealed object by its GUID, a full stop and more."""
_DICOM: Final = b"DICM"
_LOOKED_AT: Final = 132
"""Behind the preamble of a file of PS3.10 stands ``DICM``."""


@click.command()
@click.argument("file", type=FILE)
def inspect(file: pathlib.Path) -> None:
    """Print what can be told of a sealed object without its key; 1 if no sealed object has its length."""
    with file.open("rb") as stream:
        length, octets = os.fstat(stream.fileno()).st_size, stream.read(_LOOKED_AT)
    if octets.endswith(_DICOM):
        message = f"{file} is a DICOM file, and not sealed"
        raise UnusableFileError(message, what_to_do="name an object of a cache, or a copy: *.dcm.sealed")
    octets = octets[:HEADER_SIZE]
    told: dict[str, object] = {"length": length}
    lines = [f"length:     {length} bytes"]
    if len(octets) == HEADER_SIZE:
        header = Header.parse(octets)
        told |= {"salt": header.salt.hex(), "commitment": header.commitment.hex()}
        lines += [f"salt:       {header.salt.hex()} (as an ETag)", f"commitment: {header.commitment.hex()}"]
    try:
        size = plain_size(length)
    except ValueError as error:
        tell(told | {"damaged": str(error)}, *lines, f"damaged:    {error}")
        sys.exit(1)
    chunks, last = chunk_count(size), last_chunk_range(size).plain_length
    tell(
        told | {"plaintext": size, "chunks": chunks, "last_chunk": last},
        *lines,
        f"plaintext:  {size} bytes, if the object is whole",
        f"chunks:     {chunks}, the last one of {last} bytes of plaintext",
    )


@click.command()
@click.argument("file", type=FILE)
@click.option("--mount-config", type=FILE, required=True, help="Whose proxy, which hospital and keystores.")
@OF_HOSPITAL
@click.option("-o", "--output", type=click.Path(path_type=pathlib.Path), required=True, help="A new file.")
@click.option("--guid", default="", help="Default: the one that FILE's name begins with.")
@click.option("--generation", type=int, help="Of the key. Default: what the hospital says.")
@click.option("--size", type=int, help="Of the plaintext. Default: what the hospital says.")
def unseal(  # noqa: PLR0913, PLR0917 the options of a command
    file: pathlib.Path,
    mount_config: pathlib.Path,
    hospital: str,
    output: pathlib.Path,
    guid: str,
    generation: int | None,
    size: int | None,
) -> None:
    """Collect the key of a sealed object as the caller's proxy allows, and write its plaintext to OUTPUT.

    OUTPUT appears whole or not at all. With --generation and --size the hospital is not asked.
    """
    named = _guid_of(file, guid)
    forbid_core_dumps()
    trio.run(_unseal, read_alone(mount_config, hospital), file, output, named, (generation, size))
    tell({"file": output, "guid": named, "bytes": output.stat().st_size})


@dataclasses.dataclass(frozen=True, slots=True)
class Sealing:
    """What must be known of a sealed object beside its bytes."""

    context: ObjectContext
    threshold: int


async def describe_sealing(
    hospital: Hospital, guid: Guid, generation: int | None = None, size: int | None = None
) -> Sealing:
    """Say what an object is the sealing of; the hospital is asked for what is not given, and raises as it does."""
    if generation is not None and size is not None:
        return Sealing(ObjectContext(Role.BODY, guid, generation, size), 1)
    found = await hospital.describe(guid)
    context = ObjectContext(
        Role.BODY,
        guid,
        found.generation if generation is None else generation,
        found.size if size is None else size,
    )
    return Sealing(context, found.threshold)


async def unseal_file(file: BinaryIO, output: pathlib.Path, sealing: Sealing, ring: KeyRing) -> None:
    """Write the plaintext of a sealed object to a new file, which appears whole, durable and mode 0600, or not at all.

    Raises ``NameTakenError`` where something has that name, ``IntegrityError`` where the object is not what was
    sealed, what collecting a key raises, ``UnusableFileError`` and ``OutOfSpaceError``.
    """
    size = sealing.context.size
    length = os.fstat(file.fileno()).st_size
    if length != sealed_size(size):
        message = f"{sealing.context.guid} has {size} bytes, sealed {sealed_size(size)}; the object has {length}"
        raise IntegrityError(message)
    with _appearing(output) as out:
        unsealer = await ring.unlock(Lock(sealing.context, file.read(HEADER_SIZE), sealing.threshold))
        await trio.to_thread.run_sync(_write_plaintext, file, out, unsealer)


def _write_plaintext(file: BinaryIO, out: BinaryIO, unsealer: Unsealer) -> None:
    kept = bytearray(min(SEGMENT_SIZE, unsealer.context.size))
    for segment in segment_ranges(unsealer.context.size):
        plaintext = unsealer.unseal_range(file.read(segment.length), segment, kept)
        out.write(plaintext)


@contextlib.contextmanager
def _appearing(output: pathlib.Path) -> Iterator[BinaryIO]:
    """Write beside the final name, and give the name at the end only; never to what is there already."""
    folder = output.parent
    with using(output):
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{output.name[:100]}.", suffix=".part") as out:
            yield out  # type: ignore[misc] # it is a binary file
            out.flush()
            os.fsync(out.fileno())
            output.hardlink_to(out.name)
        sync_directory(folder)


async def _unseal(
    configuration: MountConfiguration,
    file: pathlib.Path,
    output: pathlib.Path,
    guid: Guid,
    given: tuple[int | None, int | None],
) -> None:
    deadline = configuration.mount.deadline
    anchors = TrustAnchors(configuration.path(configuration.trust))
    async with open_plain_nursery() as nursery:
        peers = Peers(configuration.hospital, configuration.keystores, own_credential(configuration), anchors, nursery)
        hospital = RemoteHospital(peers.hospital, deadline=deadline)
        sealing = await describe_sealing(hospital, guid, *given)
        with file.open("rb") as stream:
            await unseal_file(stream, output, sealing, KeyRing(peers.keystores, deadline=deadline))
        nursery.cancel_scope.cancel()


def _guid_of(file: pathlib.Path, given: str) -> Guid:
    if given:
        return parsed(Guid.parse, given)
    try:
        return Guid.parse(file.name[:_GUID_LENGTH])
    except MalformedNameError as error:
        message = f"the name of {file} does not begin with a GUID, and a key has to be asked for"
        raise ConfigurationError(
            message, what_to_do="add --guid; getfattr -n user.guid FILE tells it on a mount"
        ) from error
