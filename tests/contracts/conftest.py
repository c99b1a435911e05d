"""Stores for the contract tests: each implementation in turn, PostgreSQL among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from mdmfs.hospital.store import Store
from tests.twins.postgresql import emptied, running_postgresql
from tests.twins.stores import STORES, copied_store

OpenStore = Callable[..., Store]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """One PostgreSQL for all tests of a process."""
    with running_postgresql() as url:
        yield url


@pytest.fixture
def database_url(postgresql_server: str) -> str:
    """Give the URL of a database in which nothing is, and on which nobody works."""
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        emptied(connection)
    return postgresql_server


@pytest.fixture(params=[*STORES, "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Each of the hospital's stores in turn, to be opened once."""
    if request.param == "postgresql":
        url = request.getfixturevalue("database_url")
        return lambda **options: copied_store(tmp_path, url, **options)
    return lambda **options: STORES[request.param](tmp_path, **options)
