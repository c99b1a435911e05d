"""sqlmap against what a metadata service is asked: ``./run test tests/programs``.

A query is put together from what comes over HTTP, as a careless web page would do it; sqlmap may write at each place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trio

from mdmfs.model.errors import MdmfsError
from tests.contracts.test_metadata_store import contents
from tests.twins.metadata_filled import FilledMetadata
from tests.twins.postgresql import new_database, running_postgresql

SQLMAP = os.environ.get("MDMFS_SQLMAP", "sqlmap").split()
pytestmark = pytest.mark.skipif(
    shutil.which(SQLMAP[0]) is None, reason="apt-get install sqlmap, or name it in MDMFS_SQLMAP"
)
PLACES = {
    "query": 'Modality == "MR"',
    "text": "MR",
    "number": "60",
    "name": "Modality",
    "key": "Age",
    "most": "5",
}
"""Where it may write, and what stands there at first."""
SECONDS = 900.0
Answer = Callable[[dict[str, str]], str]


@contextlib.contextmanager
def facing(answer: Answer) -> Iterator[str]:
    """Answer questions over HTTP, on loopback; gives an URL with every place in it."""

    class Face(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer."""
            asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, keep_blank_values=True))
            try:
                status, body = 200, answer({**PLACES, **asked})
            except (MdmfsError, sqlite3.Error) as error:
                status, body = 400, str(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name there
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Face)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def written(asked: dict[str, str], place: str) -> str:
    """Write the query that one place is a part of."""
    if place == "query":
        return asked["query"]
    condition = f'{asked["name"]} == "{asked["text"]}" and Age >= {asked["number"]}'
    return f"{condition} order by {asked['key']} limit {asked['most']}"


def attacked(url: str, place: str, dbms: str, folder: Path) -> str:
    """Let sqlmap try every technique at one place; gives what it says."""
    value = urllib.parse.quote(PLACES[place])
    options = ["--batch", "--flush-session", "--disable-coloring", "--output-dir", str(folder), "--dbms", dbms]
    options += ["--level", "2", "--risk", "3", "--technique", "BEUSTQ", "--time-sec", "1", "-p", place]
    done = subprocess.run(
        [*SQLMAP, "-u", f"{url}?{place}={value}", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.stdout + done.stderr


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FilledMetadata]:
    """Give a service with series of the reader's, on each kind of database."""
    with contextlib.ExitStack() as stack:
        where = ""
        if request.param == "postgresql":
            where = stack.enter_context(new_database(stack.enter_context(running_postgresql())))
        made = FilledMetadata(tmp_path, where)
        stack.callback(made.close)
        trio.run(_fill, made)
        yield made


async def _fill(service: FilledMetadata) -> None:
    await service.begin()
    for number in range(3):
        path = f"/grid/medical/amc/neuro/sub-aaaabbbbccccdddd/ses-20170101/00{number}-MR"
        await service.add(path, {"Modality": "MR", "Age": 60 + 5 * number})


def test_sqlmap_finds_no_way_in(service: FilledMetadata, tmp_path: Path) -> None:
    """At no place of a query; and no table is another afterwards."""
    database = service.service.database
    before = database.read_now(contents)
    for place in PLACES:

        def answer(asked: dict[str, str], place: str = place) -> str:
            return "\n".join(trio.run(service.reader.find, written(asked, place)))

        with facing(answer) as url:
            said = attacked(url, place, database.dialect, tmp_path / "out")
        assert "do not appear to be injectable" in said, (place, said[-2000:])
        assert "injection point" not in said, place
    assert database.read_now(contents) == before


def test_sqlmap_finds_a_way_where_there_is_one(tmp_path: Path) -> None:
    """A statement put together from text, which is what ours never is."""
    with sqlite3.connect(":memory:", check_same_thread=False) as connection:
        connection.execute("create table series (path text, modality text)")
        connection.executemany("insert into series values (?, 'MR')", [(f"/{n}",) for n in range(3)])

        def answer(asked: dict[str, str]) -> str:
            found = connection.execute(f"select path from series where modality = '{asked['text']}'")  # noqa: S608 that is the fault
            return "\n".join(path for (path,) in found)

        with facing(answer) as url:
            said = attacked(url, "text", "sqlite", tmp_path / "out")
    assert "injection point" in said, said[-2000:]
