"""``mdmfs shelf``: a keystore's own people make a backup of its shelf, and put one back."""

from __future__ import annotations

import pathlib
import time

import click
import trio

from mdmfs.cli.backup import private_key
from mdmfs.keystore.backup import Header, back_up
from mdmfs.keystore.backup import restore as restore_shelf
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.lmdb_shelf import open_lmdb_shelf
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.identity import Dn
from mdmfs.pki.recovery import read_certificate
from mdmfs.wire.process import forbid_core_dumps

_FILE = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)


@click.group()
def shelf() -> None:
    """See to the shelf of a keystore. CONFIGURATION is the keystore's."""


@shelf.command()
@click.argument("configuration", type=_FILE)
@click.argument("output", type=click.Path(dir_okay=False, path_type=pathlib.Path))
def backup(configuration: pathlib.Path, output: pathlib.Path) -> None:
    """Write the shelf to a new file OUTPUT, sealed for the recovery certificate; the keystore may run meanwhile."""
    forbid_core_dumps()
    settings = KeystoreConfiguration.read(configuration)
    if settings.recovery is None:
        message = f"{configuration}: keystore.recovery names no certificate, and a backup is never written in the clear"
        raise ConfigurationError(message)
    told = back_up(
        settings.directory, output, (settings.name, settings.backup_days), read_certificate(settings.recovery)
    )
    click.echo(f"{output}: the shelf of {_of(told)}; delete it by {_day(told.expires)}")


@shelf.command()
@click.argument("configuration", type=_FILE)
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="The private key of the recovery certificate, in PEM.")
@click.option("--expired", is_flag=True, help="Also a backup that should have been deleted.")
def restore(configuration: pathlib.Path, file: pathlib.Path, key: pathlib.Path, *, expired: bool) -> None:
    """Put the shelf of a backup where CONFIGURATION says, while no keystore runs there.

    The keystore gives no share of it before the hospital has told it everything that was decided since.
    """
    forbid_core_dumps()
    settings = KeystoreConfiguration.read(configuration)
    private = private_key(key)
    told = restore_shelf(file, settings.directory, private, now=time.time(), is_expired_ok=expired)
    click.echo(f"{settings.directory}: the shelf of {_of(told)}")
    click.echo("Start the keystore, then let the hospital run: mdmfs keys verify --repair")


@shelf.command("forget-signer")
@click.argument("configuration", type=_FILE)
@click.argument("dn")
def forget_signer(configuration: pathlib.Path, dn: str) -> None:
    """Let the hospital DN have a new signing key, when it lost the one that its orders were signed with.

    The next order brings the new one: speak with the hospital's people first. The keystore may run.
    """
    settings, owner = KeystoreConfiguration.read(configuration), str(Dn.parse(dn))
    known = trio.run(_forget_signer, settings.directory, owner)
    if not known:
        message = f"no signing key of {owner} is known here"
        raise ConfigurationError(message)
    click.echo(f"{owner}: the signing key {known.hex()} is forgotten; the next order brings another")


async def _forget_signer(directory: pathlib.Path, owner: str) -> bytes:
    async with open_lmdb_shelf(directory) as opened:
        known = await opened.read(lambda page: page.signer(owner))
        await opened.write(lambda draft: draft.put_signer(owner, b""))
    return known


def _of(header: Header) -> str:
    return f"{header.keystore} of {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(header.made))} UTC"


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))
