"""``mdmfs backup`` and ``mdmfs restore``: the stores of a zone, sealed; which zone, its configuration tells."""

from __future__ import annotations

import pathlib
import sys
import time

import click
import trio
from cryptography import x509

from mdmfs.cli.arguments import FILE
from mdmfs.cli.output import tell
from mdmfs.daemon.backup import back_up
from mdmfs.daemon.configuration import read_tables
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.daemon.slips import kind_of
from mdmfs.hospital.backup import parts_of as parts_of_hospital
from mdmfs.hospital.backup import restore_hospital
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.keystore.backup import back_up as back_up_shelf
from mdmfs.keystore.backup import restore as restore_shelf
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.metadata.backup import parts_of as parts_of_metadata
from mdmfs.metadata.backup import restore_metadata
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.model.errors import ConfigurationError
from mdmfs.pki.recovery import PrivateKey, read_certificate, read_private_key


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("output", type=click.Path(dir_okay=False, path_type=pathlib.Path))
@click.option("--recovery", type=FILE, help="The certificate it is sealed for; a keystore has its own.")
def backup(configuration: pathlib.Path, output: pathlib.Path, recovery: pathlib.Path | None) -> None:
    """Write the stores of CONFIGURATION's zone to a new file OUTPUT, sealed; the daemon may run meanwhile.

    Example: mdmfs backup hospital.toml /backup/hospital-monday --recovery recovery.pem
    """
    forbid_core_dumps()
    zone, until = zone_of(configuration), None
    if zone == "keystore":
        settings = KeystoreConfiguration.read(configuration)
        name, certificate = settings.name, _certificate(recovery or settings.recovery)
        told = back_up_shelf(settings.directory, output, (name, settings.backup_days), certificate)
        made, until = told.made, time.strftime("%Y-%m-%d", time.gmtime(told.expires))
    elif zone == "hospital":
        hospital = HospitalConfiguration.read(configuration)
        name = hospital.hospital.name
        made = back_up(output, (zone, name), parts_of_hospital(hospital), _certificate(recovery)).made
    else:
        metadata = MetadataConfiguration.read(configuration)
        name = str(metadata.hospital)
        made = back_up(output, (zone, name), parts_of_metadata(metadata), _certificate(recovery)).made
    tell(
        {"file": output, "zone": zone, "name": name, "made": _instant(made), "delete_by": until},
        f"{output}: the {zone} {name} as it was at {_instant(made)}" + (f"; delete it by {until}" if until else ""),
    )


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("file", type=FILE)
@click.option("--key", type=FILE, required=True, help="The private key of the recovery certificate, in PEM.")
@click.option("--expired", is_flag=True, help="Of a keystore: also a backup that should have been deleted.")
def restore(configuration: pathlib.Path, file: pathlib.Path, key: pathlib.Path, *, expired: bool) -> None:
    """Put the stores of a backup FILE where CONFIGURATION says, where there are none; no daemon may run there.

    Example: mdmfs restore hospital.toml /backup/hospital-monday --key recovery.key
    """
    forbid_core_dumps()
    zone, private = zone_of(configuration), _private_key(key)
    if zone == "keystore":
        directory = KeystoreConfiguration.read(configuration).directory
        made = restore_shelf(file, directory, private, now=time.time(), is_expired_ok=expired).made
        after = "Start the keystore, then let the hospital run: mdmfs keys verify --repair"
    elif zone == "hospital":
        made = trio.run(restore_hospital, HospitalConfiguration.read(configuration), file, private).made
        after = "Start hospitald, then harvest: what was registered since comes under new GUIDs"
    else:
        made = restore_metadata(MetadataConfiguration.read(configuration), file, private).made
        after = "Start metadatad: the hospital tells it what was decided since"
    tell(
        {"file": file, "zone": zone, "made": _instant(made), "next": after},
        f"{file}: the {zone} as it was at {_instant(made)} is back",
        after,
    )


def zone_of(configuration: pathlib.Path) -> str:
    """Tell by its tables whose configuration it is; raises ``ConfigurationError``."""
    zone = kind_of(read_tables(configuration))
    if zone not in {"hospital", "keystore", "metadata"}:
        message = f"{configuration} is of no hospital, keystore or metadata service"
        raise ConfigurationError(message, what_to_do="name theirs; a mount keeps nothing to back up")
    return zone


def _private_key(path: pathlib.Path) -> PrivateKey:
    """Read a recovery key; asks for the passphrase where it has one."""
    try:
        return read_private_key(path)
    except TypeError:
        return read_private_key(path, _passphrase(path).encode())


def _passphrase(path: pathlib.Path) -> str:
    try:
        passphrase: str = click.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        message = f"{path} has a passphrase, and nobody types it"
        raise ConfigurationError(message, what_to_do="start it in a terminal, or pipe the passphrase in") from None
    return passphrase


def _certificate(path: pathlib.Path | None) -> x509.Certificate:
    if path is None:
        message = "no recovery certificate is named, and a backup is never written in the clear"
        raise ConfigurationError(message, what_to_do="add --recovery FILE; docs/operations.md tells how it is made")
    return read_certificate(path)


def _instant(made: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(made))} UTC"
