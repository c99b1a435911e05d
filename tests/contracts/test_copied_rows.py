"""What rows in PostgreSQL promise beyond the port: nothing is lost or made twice, whoever breaks off what, and when."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from mdmfs.daemon.diagnosis import examine
from mdmfs.hospital.store import store_layout
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.model.errors import ConfigurationError, PeerUnreachableError, StoreError
from mdmfs.rows.copied import LONGEST_SILENCE, Copied, Waiting
from mdmfs.rows.database import _COMMIT, LOG_KEYS, Database, LostError, Position
from mdmfs.rows.diagnosis import database_checks
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.environment import copied_of, locked, set_copied
from mdmfs.rows.migrate import PAGE, bring_back, bring_in
from mdmfs.rows.port import Rows
from mdmfs.rows.url import DatabaseUrl

LAYOUT = shelf_layout()
SECRET = "fish-and-chips"  # noqa: S105 of nobody
PUT = b"k"
AT_ONCE = Waiting(sleep=lambda _: None)


class FaultyDatabase(Database):
    """One whose session breaks before or after the next commit is made, as often as it is told."""

    before = after = 0
    has_room = True

    def hurry(self) -> int:
        """Wait for no answer of this session for long; give the process that answers."""
        self._session.patience = 0.3
        return int(self._session.info.backend_pid)

    def commit(self, before: Position, after: Position, changes: Any) -> None:  # noqa: ANN401 as the real one's
        """Commit, or break the session off, or both."""
        if self.before:
            self.before -= 1
            self.close()
        super().commit(before, after, changes)
        if not self.has_room:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        if self.after:
            self.after -= 1
            self.close()
            raise LostError


@contextlib.contextmanager
def at_server(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Speak with the server beside the store."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def break_sessions(url: str) -> None:
    """End every other session, as a promoted standby does."""
    with at_server(url) as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mdmfs'")


def append(key: bytes, octets: bytes) -> Callable[[Rows], int]:
    """Make an act that gives something else when it is made twice."""

    def act(rows: Rows) -> int:
        value = (rows.get(PUT + key) or b"") + octets
        rows.put(PUT + key, value)
        return len(value)

    return act


def value(engine: Embedded, key: bytes) -> bytes | None:
    """Read a row."""
    return engine.read(lambda rows: rows.get(PUT + key))


def contents(engine: Embedded) -> dict[bytes, bytes]:
    """Read all rows but what says up to where a copy goes."""
    return engine.read(
        lambda rows: {
            bytes([table]) + key: octets
            for table in LAYOUT.tables
            for key, octets in rows.scan(bytes([table]))
            if bytes([table]) + key != LAYOUT.copied
        }
    )


def taken_over(path: Path, url: str) -> Copied:
    """Open a store, and do not wait until the one before it is surely silent."""
    return Copied.open_url(path, LAYOUT, url, map_size=2**24, waiting=AT_ONCE)


def opened(path: Path, url: str, waiting: Waiting = AT_ONCE) -> tuple[Copied, FaultyDatabase]:
    """Open a store whose database can be told to fail."""
    database = FaultyDatabase(DatabaseUrl(url), LAYOUT.what)
    database.connect()
    return Copied.over(database, path, LAYOUT, map_size=2**24, waiting=waiting), database


@pytest.fixture
async def engine(tmp_path: Path, database_url: str) -> AsyncIterator[Copied]:
    """Give a shelf in a database."""
    engine = taken_over(tmp_path / "shelf", database_url)
    yield engine
    await engine.aclose()


async def test_a_session_that_breaks_between_two_writes_is_begun_again(engine: Copied, database_url: str) -> None:
    """Nobody notices, and what was written before is there once."""
    for number in range(1, 4):
        assert await engine.write(append(b"a", b"x")) == number
        break_sessions(database_url)
    assert value(engine, b"a") == b"xxx"


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1), (2, 0), (1, 1)])
async def test_a_commit_that_nobody_answered_is_made_once(
    tmp_path: Path, database_url: str, before: int, after: int
) -> None:
    """Whether it had been made or not: the log tells."""
    engine, database = opened(tmp_path / "shelf", database_url)
    assert await engine.write(append(b"a", b"1")) == 1
    database.before, database.after = before, after
    assert await engine.write(append(b"a", b"2")) == 2
    assert value(engine, b"a") == b"12"
    await engine.aclose()
    again = taken_over(tmp_path / "other", database_url)
    assert value(again, b"a") == b"12"
    await again.aclose()


async def test_a_commit_for_which_the_copy_has_no_room_is_kept_and_read_once_there_is(
    tmp_path: Path, database_url: str
) -> None:
    """It is durable, so it was made; nothing is read from the copy until it has it, too."""
    engine, database = opened(tmp_path / "shelf", database_url)
    database.has_room = False
    try:
        assert await engine.write(append(b"a", bytes(20_000))) == 20_000
        with pytest.raises(StoreError, match="make room"):
            value(engine, b"a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    database.has_room = True
    assert await engine.write(append(b"a", b"x")) == 20_001
    assert value(engine, b"a") == bytes(20_000) + b"x"
    await engine.aclose()


async def test_one_daemon_at_a_time_works_on_a_database(engine: Copied, tmp_path: Path, database_url: str) -> None:
    """Another one is told so, and takes over when the first is gone."""
    await engine.write(append(b"a", b"x"))
    with pytest.raises(ConfigurationError, match="another daemon works on"):
        Copied.open_url(tmp_path / "other", LAYOUT, database_url)
    await engine.aclose()
    other = taken_over(tmp_path / "other", database_url)
    assert await other.write(append(b"a", b"y")) == 2
    await other.aclose()


async def test_who_lost_the_database_to_another_writes_nothing_and_tells_nothing(
    tmp_path: Path, database_url: str
) -> None:
    """Its write is refused, what it read is not passed on, and with the database again it knows what the other did."""
    now = [0.0]
    first, database = opened(tmp_path / "first", database_url, AT_ONCE._replace(patience=0.5, clock=lambda: now[0]))
    await first.write(append(b"a", b"x"))
    database.close()
    second = taken_over(tmp_path / "second", database_url)
    assert await second.write(append(b"a", b"y")) == 2
    with pytest.raises(StoreError, match="another daemon works on") as caught:
        await first.write(append(b"a", b"z"))
    assert "postgresql://" not in str(caught.value)  # it may travel to a peer
    assert caught.value.place.startswith("postgresql://")
    now[0] = LONGEST_SILENCE + 1
    with pytest.raises(PeerUnreachableError):
        first.refuse_stale()
    assert value(second, b"a") == b"xy"
    await second.aclose()
    assert await first.write(append(b"a", b"z")) == 3
    first.refuse_stale()
    assert value(first, b"a") == b"xyz"
    await first.aclose()


async def test_nothing_is_told_by_who_has_not_heard_of_the_database_for_long(tmp_path: Path, database_url: str) -> None:
    """Somebody else may have taken a right away meanwhile; with the next answer all is well."""
    now = [0.0]
    engine, _ = opened(tmp_path / "shelf", database_url, Waiting(clock=lambda: now[0]))
    now[0] = LONGEST_SILENCE
    engine.refuse_stale()
    now[0] = LONGEST_SILENCE + 1
    with pytest.raises(PeerUnreachableError, match="not heard of its database"):
        engine.refuse_stale()
    await engine.write(append(b"a", b"x"))
    engine.refuse_stale()
    await engine.aclose()


async def test_a_server_that_stands_still_is_not_waited_for_without_end(
    tmp_path: Path, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The log says that it is waited for, the write fails, and what became of it is known once the server goes on."""
    engine, database = opened(tmp_path / "shelf", database_url, AT_ONCE._replace(patience=0.5))
    await engine.write(append(b"a", b"1"))
    process = database.hurry()
    os.kill(process, signal.SIGSTOP)
    try:
        with trio.fail_after(5), pytest.raises(StoreError, match="this write may be kept"):
            await engine.write(append(b"a", b"2"))
    finally:
        os.kill(process, signal.SIGCONT)
    assert "does not answer, and is waited for" in "".join(capfd.readouterr())
    with at_server(database_url) as server:
        server.execute("select pg_terminate_backend(%s, 5000)", (process,))  # or it has ended by itself
    await engine.write(append(b"a", b"3"))
    assert value(engine, b"a") in {b"13", b"123"}
    await engine.aclose()
    again = taken_over(tmp_path / "other", database_url)
    assert value(again, b"a") in {b"13", b"123"}
    await again.aclose()


def test_nor_is_one_at_the_start(tmp_path: Path, database_url: str) -> None:
    """Whatever holds it up."""
    taken_over(tmp_path / "shelf", database_url).close()
    database = Database(DatabaseUrl(database_url), LAYOUT.what, 0.2)
    with at_server(database_url) as server, server.transaction():
        server.execute("lock table state")
        with pytest.raises(LostError, match="does not answer"):
            database.connect()
    database.close()


async def test_who_takes_over_waits_until_the_other_surely_tells_nothing(tmp_path: Path, database_url: str) -> None:
    """Its session may be lost unseen, and then it answers for as long; who takes over from itself need not wait."""
    waits: list[str] = []

    def waiting(name: str) -> Waiting:
        return AT_ONCE._replace(sleep=lambda seconds: waits.append(f"{name} {seconds:.0f}"))

    first, database = opened(tmp_path / "first", database_url, waiting("first"))
    await first.write(append(b"a", b"1"))
    break_sessions(database_url)
    await first.write(append(b"a", b"2"))
    database.after = 1
    await first.write(append(b"a", b"3"))
    await first.aclose()
    first, database = opened(tmp_path / "first", database_url, waiting("first"))
    assert waits == []
    database.close()
    second, database = opened(tmp_path / "second", database_url, waiting("second"))
    assert waits == ["second 10"]
    database.close()
    await first.write(append(b"a", b"4"))
    assert waits == ["second 10", "first 10"]
    await first.aclose()
    await second.write(append(b"a", b"5"))
    assert waits[2:] == ["second 10"]
    await second.aclose()


async def test_a_wait_that_was_cut_is_waited_again(tmp_path: Path, database_url: str) -> None:
    """Whether all rows had to be copied, or those of the log."""
    taken_over(tmp_path / "second", database_url).close()
    taken_over(tmp_path / "first", database_url).close()

    def killed(_: float) -> None:
        raise KeyboardInterrupt

    for name in ("second", "third"):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                Copied.open_url(
                    tmp_path / name, LAYOUT, database_url, map_size=2**24, waiting=AT_ONCE._replace(sleep=killed)
                )


async def test_a_commit_looks_at_the_end_of_the_log_only(tmp_path: Path, database_url: str) -> None:
    """However long it is; and what it keeps is bounded."""
    engine = taken_over(tmp_path / "shelf", database_url)
    await engine.write(append(b"a", b"x"))
    with at_server(database_url) as server:
        server.execute("insert into commits select -number, 'x', '{}', -number from generate_series(0, 9999) as number")
        server.execute("analyze commits")
        values = {"number": 1, "before": b"", "token": b"", "gone": [], "log": LOG_KEYS, "oldest": 10}
        values |= {name: [b"k"] for name in ("keys", "values", "changed")}
        plan = "\n".join(row[0] for row in server.execute(f"explain {_COMMIT}", values))  # type: ignore[arg-type]
        assert "Index Scan using commits_pkey on commits" in plan
        assert "Seq Scan on commits" not in plan
        server.execute("update commits set total = total - %s where number < -9980", (LOG_KEYS,))
        for left in (9993, 9985, 9986):  # each adds one, and forgets ten at most
            await engine.write(append(b"a", b"x"))
            assert server.execute("select count(*) from commits").fetchone() == (left,)
    await engine.aclose()


async def test_a_copy_that_was_away_catches_up_with_rows_that_came_and_went(tmp_path: Path, database_url: str) -> None:
    """As a hospitald on another machine, which takes turns with the first."""
    first = taken_over(tmp_path / "first", database_url)
    for number in range(20):
        await first.write(append(b"%d" % number, b"x"))
    await first.aclose()
    second = taken_over(tmp_path / "second", database_url)
    for number in range(0, 20, 2):
        await second.write(lambda rows, number=number: rows.delete(PUT + b"%d" % number))
    await second.write(append(b"new", b"y"))
    expected = contents(second)
    await second.aclose()
    first = taken_over(tmp_path / "first", database_url)
    assert contents(first) == expected
    await first.aclose()


async def test_a_copy_of_commits_that_the_database_has_lost_is_made_anew(tmp_path: Path, database_url: str) -> None:
    """A standby that lagged was promoted: what it does not know does not stay in the copy."""
    engine = taken_over(tmp_path / "shelf", database_url)
    await engine.write(append(b"a", b"x"))
    with at_server(database_url) as server:
        kept = [server.execute(f"table {name}").fetchall() for name in ("kept", "commits", "state")]  # type: ignore[call-overload]
    await engine.write(append(b"lost", b"x"))
    await engine.aclose()
    with at_server(database_url) as server, server.cursor() as cursor:
        server.execute("truncate kept, commits, state")
        for name, rows in zip(("kept", "commits", "state"), kept, strict=True):
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"insert into {name} values ({marks})", rows)  # type: ignore[arg-type] # noqa: S608 ours
    engine = taken_over(tmp_path / "shelf", database_url)
    assert (value(engine, b"a"), value(engine, b"lost")) == (b"x", None)
    await engine.write(append(b"a", b"y"))
    await engine.aclose()


async def test_a_commit_past_the_lock_is_followed_and_not_overwritten(engine: Copied, database_url: str) -> None:
    """A commit names the one that it follows: where another one came in between, the act is run again after it."""
    await engine.write(append(b"a", b"x"))
    with at_server(database_url) as server:
        server.execute("update kept set value = 'y' where key = %s", (PUT + b"a",))
        server.execute("update state set number = number + 1, token = 'somebody'")
        server.execute("insert into commits select number, token, array[%s::bytea], total from state", (PUT + b"a",))
    assert await engine.write(append(b"a", b"z")) == 2
    assert value(engine, b"a") == b"yz"


def test_databases_of_other_kinds_and_formats_are_refused(tmp_path: Path, database_url: str) -> None:
    """A hospital does not take a shelf for its store, nor an older program newer tables."""
    taken_over(tmp_path / "shelf", database_url).close()
    with pytest.raises(ConfigurationError, match="holds a shelf, not a hospital's store"):
        Copied.open_url(tmp_path / "store", store_layout(), database_url)
    with at_server(database_url) as server:
        server.execute("update state set format = 2")
    with pytest.raises(StoreError, match="of format 2, this program knows 1"):
        Copied.open_url(tmp_path / "shelf", LAYOUT, database_url)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://mdmfs:{SECRET}@127.0.0.1/x",
        f"postgresql://mdmfs@127.0.0.1/x?password={SECRET}",
        f"postgresql://mdmfs@db.example/{SECRET}",
        f"postgresql://127.0.0.1,db.example/x?user={SECRET}",
        f"postgresql://127.0.0.1,db.example/x?hostaddr=127.0.0.1,&user={SECRET}",
        f"postgresql:///x?service={SECRET}",
        f"postgresql://mdmfs@127.0.0.1/x?{SECRET}=1",
        f"postgresql://[::1/{SECRET}",
        f"mysql://{SECRET}",
        f"host=127.0.0.1 password={SECRET}",
    ],
)
def test_an_url_that_cannot_be_used_is_refused_and_its_secret_not_told(tmp_path: Path, url: str) -> None:
    """Neither a password in it nor a way in the clear is taken; no message and no cause of it quotes it."""
    with pytest.raises(ConfigurationError, match="store") as caught:
        Copied.open_url(tmp_path / "shelf", LAYOUT, url)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_password_comes_from_a_file_and_is_never_shown(tmp_path: Path, database_url: str) -> None:
    """Nor is where the database cannot be reached more than named."""
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:*:{SECRET}\n")
    passfile.chmod(0o600)
    Copied.open_url(tmp_path / "shelf", LAYOUT, f"{database_url}&passfile={passfile}", map_size=2**24).close()
    with pytest.raises(ConfigurationError, match="does not answer") as caught:
        Copied.open_url(tmp_path / "b", LAYOUT, f"postgresql://mdmfs@127.0.0.1:1/x?passfile={passfile}")
    assert SECRET not in repr(caught.getrepr(showlocals=False))


@pytest.mark.parametrize(
    ("rest", "seconds"),
    [
        ("127.0.0.1/x", "5"),
        ("127.0.0.1,localhost/x", "2"),
        ("/x?hostaddr=127.0.0.1,127.0.0.2", "2"),
        ("127.0.0.1,localhost/x?connect_timeout=9", "9"),
    ],
)
def test_a_host_that_was_lost_does_not_keep_the_next_one_waiting_for_long(rest: str, seconds: str) -> None:
    """Each new connection begins with it; who knows his servers to be slow says so."""
    assert DatabaseUrl(f"postgresql://{rest}").parts["connect_timeout"] == seconds


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR"])
def test_a_daemon_s_environment_does_not_say_where_the_database_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What is kept would cross the network in the clear: without a host it is the socket of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)  # noqa: FBT003 a socket's own argument
        services = tmp_path / "services"
        services.write_text("[away]\nhost=127.0.0.1\n")
        for variable, told in ((name, "127.0.0.1"), ("PGSERVICEFILE", str(services)), ("PGSERVICE", "away")):
            monkeypatch.setenv(variable, told)
        url = f"postgresql://mdmfs@:{elsewhere.getsockname()[1]}/x?connect_timeout=1"
        with pytest.raises(LostError):
            Database(DatabaseUrl(url), LAYOUT.what).connect()
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


# What the doctor sees


async def findings(url: str) -> list[tuple[str, str]]:
    """Examine a database as the doctor does."""
    return [(one.severity.value, one.text) for one in await examine(database_checks(url, LAYOUT))]


async def test_the_doctor_tells_what_is_in_a_database_and_what_it_would_lose(tmp_path: Path, database_url: str) -> None:
    """Also while a daemon works on it; the tests' own server does not sync."""
    assert [text for _, text in await findings(database_url)][1].startswith("holds no shelf yet")
    engine = taken_over(tmp_path / "shelf", database_url)
    told = await findings(database_url)
    assert [severity for severity, _ in told] == ["ok", "ok", "fault"]
    assert "holds the shelf, 1 commits" in told[1][1]
    assert "fsync" in told[2][1]
    await engine.aclose()
    bring_back(tmp_path / "shelf", LAYOUT, database_url, nothing)
    assert (await findings(database_url))[1] == (
        "fault",
        "its shelf was brought back into LMDB: leave store out",
    )
    ((severity, text),) = await findings("postgresql://mdmfs@127.0.0.1:1/x")
    assert (severity, "does not answer" in text) == ("fault", True)


# Moves


async def filled(path: Path, count: int) -> dict[bytes, bytes]:
    """Make a shelf in LMDB with rows in two tables, and give its rows."""

    def put(to: Rows) -> None:
        for number in range(count):
            to.put(b"%c%06d" % (b"ka"[number % 2], number), bytes([number % 256]) * (number % 50))

    engine = Embedded.open(path, LAYOUT, map_size=2**25)
    await engine.write(put)
    expected = contents(engine)
    await engine.aclose()
    return expected


def nothing(_: int) -> None:
    """Hear of no progress."""


async def test_a_store_moves_into_a_database_and_back_row_by_row(tmp_path: Path, database_url: str) -> None:
    """What the daemon writes in between goes with it; each side refuses to be taken for the truth when it is not."""
    path, count = tmp_path / "shelf", 5_000
    expected = await filled(path, count)
    with pytest.raises(ConfigurationError, match="mdmfs migrate"):
        Copied.open_url(path, LAYOUT, database_url)
    moved = bring_in(path, LAYOUT, database_url, nothing)
    assert (moved.rows, moved.written, moved.is_over) == (len(expected), len(expected), True)
    with pytest.raises(ConfigurationError, match="is the copy of a database"):
        Embedded.open(path, LAYOUT)
    engine = taken_over(path, database_url)
    assert contents(engine) == expected
    await engine.write(append(b"new", b"y"))
    with pytest.raises(ConfigurationError, match="another daemon works on"):
        bring_back(path, LAYOUT, database_url, nothing)
    await engine.aclose()
    assert bring_back(path, LAYOUT, database_url, nothing).rows == len(expected) + 1
    with pytest.raises(ConfigurationError, match="brought back"):
        Copied.open_url(path, LAYOUT, database_url)
    back = Embedded.open(path, LAYOUT, map_size=2**25)
    assert contents(back) == expected | {PUT + b"new": b"y"}
    await back.write(append(b"new", b"z"))
    await back.aclose()
    assert bring_in(path, LAYOUT, database_url, nothing)[1:] == (1, True)
    engine = taken_over(path, database_url)
    assert await engine.write(append(b"new", b"a")) == 3
    await engine.aclose()


async def test_a_move_that_was_cut_goes_on_and_mends_what_is_not_right(tmp_path: Path, database_url: str) -> None:
    """Rows that are missing, otherwise or too many in the database are found, wherever they are."""
    path = tmp_path / "shelf"
    expected = await filled(path, 5_000)
    assert bring_in(path, LAYOUT, database_url, nothing).written == len(expected)
    bring_back(path, LAYOUT, database_url, nothing)
    with at_server(database_url) as server:
        server.execute("delete from state")
        server.execute("delete from kept where key in (select key from kept order by key offset 1999 limit 3)")
        server.execute("update kept set value = 'x' where key = %s", (b"k000000",))
        for key in (b"", b"a", b"k999999", b"\xff" * 20):
            server.execute("insert into kept values (%s, 'y')", (key,))
    with pytest.raises(ConfigurationError, match="not all of it"):
        Copied.open_url(tmp_path / "other", LAYOUT, database_url)
    assert bring_in(path, LAYOUT, database_url, nothing) == (len(expected), 8, True)
    engine = taken_over(tmp_path / "third", database_url)
    assert contents(engine) == expected
    await engine.aclose()


async def test_a_move_that_was_cut_at_its_end_leaves_no_two_stores(tmp_path: Path, database_url: str) -> None:
    """Nobody works on the database yet, nor on LMDB any more; who tries is told how to go on."""
    path = tmp_path / "shelf"
    expected = await filled(path, 10)
    bring_in(path, LAYOUT, database_url, nothing)
    bring_back(path, LAYOUT, database_url, nothing)
    with at_server(database_url) as server:
        server.execute("delete from state")
        server.execute("alter table state add constraint cut check (number < 0)")
    with pytest.raises(StoreError):
        bring_in(path, LAYOUT, database_url, nothing)
    with pytest.raises(ConfigurationError, match="copy of a database"):
        Embedded.open(path, LAYOUT, map_size=2**25)
    for directory in (path, tmp_path / "other"):
        with pytest.raises(ConfigurationError, match="mdmfs migrate"):
            Copied.open_url(directory, LAYOUT, database_url)
    with at_server(database_url) as server:
        server.execute("alter table state drop constraint cut")
    assert bring_in(path, LAYOUT, database_url, nothing) == (len(expected), 0, True)
    engine = taken_over(path, database_url)
    assert contents(engine) == expected
    await engine.aclose()


async def test_who_begins_a_move_again_is_told_whether_it_is_over(tmp_path: Path, database_url: str) -> None:
    """It may have been cut when all was done but for the word about it, or just before."""
    path = tmp_path / "shelf"
    await filled(path, 10)
    with pytest.raises(ConfigurationError, match=r"holds no .*: there is nothing to move"):
        bring_in(tmp_path / "other", LAYOUT, database_url, nothing)
    bring_in(path, LAYOUT, database_url, nothing)
    with pytest.raises(ConfigurationError, match=r"has been begun: .* start the daemon"):
        bring_in(path, LAYOUT, database_url, nothing)
    with at_server(database_url) as server:
        server.execute("update state set is_left = true")
    with pytest.raises(ConfigurationError, match="migrate --back goes on"):
        bring_in(path, LAYOUT, database_url, nothing)
    bring_back(path, LAYOUT, database_url, nothing)
    with pytest.raises(ConfigurationError, match="is in LMDB since"):
        bring_back(path, LAYOUT, database_url, nothing)


async def test_a_store_that_is_in_use_is_copied_but_not_moved(tmp_path: Path, database_url: str) -> None:
    """What is written meanwhile follows, once the daemon has been stopped."""
    path = tmp_path / "shelf"
    expected = await filled(path, 100)
    with locked(path, is_alone=False):
        assert bring_in(path, LAYOUT, database_url, nothing) == (len(expected), len(expected), False)
    assert copied_of(path, LAYOUT) == b""
    running = Embedded.open(path, LAYOUT, map_size=2**25)
    with locked(path, is_alone=True) as is_alone:
        assert not is_alone
    await running.write(append(b"late", b"x"))
    await running.aclose()
    assert bring_in(path, LAYOUT, database_url, nothing) == (len(expected) + 1, 1, True)


async def test_a_copy_that_is_not_what_the_database_holds_is_not_brought_back(
    tmp_path: Path, database_url: str
) -> None:
    """It is found by its rows, and nothing is changed."""
    engine = taken_over(tmp_path / "shelf", database_url)
    await engine.write(append(b"a", b"x"))
    await engine.aclose()
    with at_server(database_url) as server:
        server.execute("update kept set value = 'z' where key = %s", (PUT + b"a",))
    with pytest.raises(StoreError, match="1 rows of "):
        bring_back(tmp_path / "shelf", LAYOUT, database_url, nothing)
    assert copied_of(tmp_path / "shelf", LAYOUT)


def test_nothing_is_moved_over_what_a_daemon_has_worked_on(tmp_path: Path, database_url: str) -> None:
    """Nor from where there is nothing."""
    taken_over(tmp_path / "other", database_url).close()
    Embedded.open(tmp_path / "shelf", LAYOUT, map_size=2**24).close()
    with pytest.raises(ConfigurationError, match="give an empty database"):
        bring_in(tmp_path / "shelf", LAYOUT, database_url, nothing)
    for path in (tmp_path / "other", tmp_path / "none"):
        with pytest.raises(ConfigurationError, match="nothing to move"):
            bring_in(path, LAYOUT, database_url, nothing)


async def test_a_copy_of_something_else_is_not_brought_back(tmp_path: Path, database_url: str) -> None:
    """Once the store was brought back elsewhere, one that another daemon left behind stays what it is."""
    stale = taken_over(tmp_path / "stale", database_url)
    await stale.write(append(b"a", b"x"))
    await stale.aclose()
    last = taken_over(tmp_path / "last", database_url)
    await last.write(append(b"a", b"y"))
    await last.aclose()
    shutil.copytree(tmp_path / "last", tmp_path / "cut")
    bring_back(tmp_path / "last", LAYOUT, database_url, nothing)
    with pytest.raises(StoreError, match="brought back elsewhere"):
        bring_back(tmp_path / "stale", LAYOUT, database_url, nothing)
    assert copied_of(tmp_path / "stale", LAYOUT)
    assert bring_back(tmp_path / "cut", LAYOUT, database_url, nothing).rows == 2  # compared, as if it had been cut
    with pytest.raises(ConfigurationError, match="could be brought back"):
        bring_back(tmp_path / "last", LAYOUT, database_url, nothing)


async def test_a_copy_whose_database_is_lost_is_brought_into_another_one(tmp_path: Path, database_url: str) -> None:
    """As who starts the daemon then is told."""
    engine = taken_over(tmp_path / "shelf", database_url)
    await engine.write(append(b"a", b"x"))
    await engine.aclose()
    with at_server(database_url) as server:
        server.execute("drop table kept, commits, state")
    with pytest.raises(ConfigurationError, match="mdmfs migrate"):
        taken_over(tmp_path / "shelf", database_url)
    assert bring_in(tmp_path / "shelf", LAYOUT, database_url, nothing).is_over
    engine = taken_over(tmp_path / "shelf", database_url)
    assert await engine.write(append(b"a", b"y")) == 2
    await engine.aclose()


async def test_what_is_too_much_in_a_database_is_not_read_at_once(tmp_path: Path, database_url: str) -> None:
    """Wherever it is among the rows that are right."""
    expected = await filled(tmp_path / "shelf", 10)
    taken_over(tmp_path / "other", database_url).close()
    with at_server(database_url) as server:
        server.execute("delete from state")
        server.execute("delete from kept")
        server.execute(
            "insert into kept select convert_to('k000003' || to_char(number, 'FM00000'), 'UTF8'), 'x'"
            " from generate_series(1, %s) as number",
            (4 * PAGE + 1,),
        )
    pages: list[int] = []
    assert bring_in(tmp_path / "shelf", LAYOUT, database_url, pages.append).written == len(expected) + 4 * PAGE + 1
    assert pages[:6] == [1, 6, 8, 8, 11, 11]  # the third, of which two rows are right, is longer than it may be, twice
    engine = taken_over(tmp_path / "shelf", database_url)
    assert contents(engine) == expected
    await engine.aclose()


async def test_a_move_that_ends_while_a_daemon_starts_is_seen(tmp_path: Path) -> None:
    """Whether the store is a copy is asked once nobody can make it one any more."""
    await filled(tmp_path / "shelf", 1)
    set_copied(tmp_path / "shelf", LAYOUT, b"somewhere")
    with (
        locked(tmp_path / "shelf", is_alone=True),
        pytest.raises(ConfigurationError, match="is being moved into a database"),
    ):
        Embedded.open(tmp_path / "shelf", LAYOUT)


async def test_acts_that_share_a_failure_are_told_of_it_apart(tmp_path: Path, database_url: str) -> None:
    """A raised error belongs to one task, whatever its kind."""
    engine, _ = opened(tmp_path / "shelf", database_url)
    errors: list[ConfigurationError] = []

    async def write() -> None:
        with pytest.raises(ConfigurationError) as caught:
            await engine.write(append(b"a", b"x"))
        errors.append(caught.value)

    with at_server(database_url) as server:
        server.execute("update state set what = 'other'")
    break_sessions(database_url)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(write)
    assert errors[0] is not errors[1]
    await engine.aclose()
