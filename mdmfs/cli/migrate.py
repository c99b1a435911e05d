"""``mdmfs migrate``: moves the store of a hospital, or a shelf, from LMDB into a database, and back."""

from __future__ import annotations

import pathlib
from typing import Final

import click

from mdmfs.cli.arguments import FILE
from mdmfs.cli.backup import zone_of
from mdmfs.cli.output import note, tell
from mdmfs.daemon.process import forbid_core_dumps
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.opening import store_path
from mdmfs.hospital.store import store_layout
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.model.errors import ConfigurationError
from mdmfs.rows.migrate import PAGE, bring_back, bring_in
from mdmfs.rows.port import Layout

_TOLD: Final = 50 * PAGE
"""Rows between two words about progress."""


@click.command()
@click.argument("configuration", type=FILE)
@click.option("--back", is_flag=True, help="From the database into LMDB.")
def migrate(configuration: pathlib.Path, *, back: bool) -> None:
    """Move the store of CONFIGURATION, a hospital's or a keystore's, into the database that its `store` names.

    While the daemon runs, most of it is copied; stop it and call this again, and the rest is. Every row is compared.

    Example: mdmfs migrate hospital.toml
    """
    forbid_core_dumps()
    path, layout, url = _of(configuration)
    if not url:
        message = f"{configuration} names no database"
        raise ConfigurationError(message, what_to_do='add store = "postgresql://..." to its first table')
    moved = (bring_back if back else bring_in)(path, layout, url, _tell_progress)
    if moved.is_over:
        where = f"LMDB in {path}: leave store out of the configuration" if back else "the database: start the daemon"
        after = f"{moved.rows} rows compared, all are equal; the {layout.what} is in {where}"
    else:
        after = f"{moved.rows} rows copied; stop the daemon, and call this again: it brings the rest, and compares all"
    tell({"rows": moved.rows, "written": moved.written, "is_over": moved.is_over, "next": after}, after)


def _of(configuration: pathlib.Path) -> tuple[pathlib.Path, Layout, str]:
    zone = zone_of(configuration)
    if zone == "hospital":
        hospital = HospitalConfiguration.read(configuration)
        return store_path(hospital), store_layout(), hospital.hospital.store
    if zone == "keystore":
        keystore = KeystoreConfiguration.read(configuration)
        return keystore.directory, shelf_layout(), keystore.store
    message = f"{configuration} is of a metadata service, which is not moved"
    raise ConfigurationError(message, what_to_do="name another database in it: its hospital tells it everything again")


def _tell_progress(rows: int) -> None:
    if rows and rows % _TOLD == 0:
        note(f"{rows} rows compared", rows=rows)
