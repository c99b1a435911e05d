"""What a copy promises that follows another daemon's work: it is right at once, and it waits before it takes over."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import trio

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.standby import open_or_stand_by, presence
from mdmfs.hospital.store import store_layout
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.model.errors import ConfigurationError, StoreError
from mdmfs.rows.copied import Copied, Waiting
from mdmfs.rows.database import Database
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.following import GRACE, LOOK_SECONDS, Following, open_in_turn
from mdmfs.rows.migrate import bring_back
from mdmfs.rows.port import Rows
from mdmfs.rows.url import DatabaseUrl
from mdmfs.wire.stream import Address

LAYOUT = shelf_layout()
PUT = b"k"
AT_ONCE = Waiting(sleep=lambda _: None)
ROOM = 2**24
MOMENT = 0.02


def put(key: bytes, value: bytes | None) -> Callable[[Rows], None]:
    """Make an act."""

    def act(rows: Rows) -> None:
        if value is None:
            rows.delete(PUT + key)
        else:
            rows.put(PUT + key, value)

    return act


def contents(one: Following) -> dict[bytes, bytes]:
    """Read what a copy holds."""
    return one.read(lambda rows: dict(rows.scan(PUT)))


def worked(path: Path, url: str) -> Copied:
    """Open a store as the daemon that works."""
    return Copied.open_url(path, LAYOUT, url, map_size=ROOM, waiting=AT_ONCE)


@contextlib.contextmanager
def following(path: Path, url: str, waiting: Waiting = AT_ONCE) -> Iterator[Following]:
    """Follow until the end of the block."""
    one = Following(path, LAYOUT, url, waiting, map_size=ROOM)
    try:
        yield one
    finally:
        one.close()


def end_sessions(url: str) -> None:
    """End all sessions of daemons, as a server does that is started again."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mdmfs'")


async def test_who_follows_has_what_was_committed(tmp_path: Path, database_url: str) -> None:
    """What was there, what came and went meanwhile, and what it missed while its session was broken."""
    first = worked(tmp_path / "first", database_url)
    await first.write(put(b"before", b"1"))
    with following(tmp_path / "second", database_url) as second:
        assert not second.step(MOMENT)
        assert contents(second) == {b"before": b"1"}
        await first.write(put(b"more", b"2"))
        await first.write(put(b"before", None))
        assert not second.step(MOMENT)
        assert contents(second) == {b"more": b"2"}
        end_sessions(database_url)
        await first.write(put(b"missed", b"3"))
        assert not second.step(MOMENT)  # finds that it is cut off
        assert not second.step(MOMENT)
        assert contents(second) == {b"more": b"2", b"missed": b"3"}
        assert second.take_over() is None
        await first.write(put(b"more", b"4"))
        while contents(second)[b"more"] != b"4":
            assert not second.step(MOMENT)
    await first.aclose()


async def test_an_error_that_is_kept_keeps_no_place_of_a_reader(tmp_path: Path, database_url: str) -> None:
    """LMDB has 126 of them for a copy, too."""
    first, held = worked(tmp_path / "first", database_url), list[KeyError]()
    await first.write(put(b"before", b"1"))
    with following(tmp_path / "second", database_url) as second:
        assert not second.step(MOMENT)
        for _ in range(200):
            try:
                second.read(lambda rows: {}[rows.version])
            except KeyError as error:
                held.append(error)
    assert len(held) == 200
    await first.aclose()


async def test_who_follows_ends_where_a_newer_program_works(tmp_path: Path, database_url: str) -> None:
    """It would misread what that one writes; its copy stays as it was."""
    first = worked(tmp_path / "first", database_url)
    await first.write(put(b"a", b"1"))
    with following(tmp_path / "second", database_url) as second:
        second.step(MOMENT)
        await first.write(lambda rows: (put(b"a", b"2")(rows), rows.put(LAYOUT.mark, b"99")))
        with pytest.raises(StoreError, match="format 99"):
            second.step(MOMENT)
        assert contents(second) == {b"a": b"1"}
    await first.aclose()


async def test_a_commit_rings(tmp_path: Path, database_url: str) -> None:
    """So nobody who follows has to ask again and again."""
    first = worked(tmp_path / "first", database_url)
    with following(tmp_path / "second", database_url) as second:
        second.step(MOMENT)
        rung = threading.Event()

        def hear() -> None:
            second._database.hear(60 * LOOK_SECONDS)  # noqa: SLF001 the bell alone
            rung.set()

        thread = threading.Thread(target=hear)
        thread.start()
        await first.write(put(b"a", b"1"))
        assert rung.wait(30)
        thread.join()
    await first.aclose()


async def test_who_takes_over_goes_on_where_the_other_one_was(tmp_path: Path, database_url: str) -> None:
    """Only once nobody has worked there for a while: a session that broke is begun again in less."""
    now = [0.0]
    first = worked(tmp_path / "first", database_url)
    await first.write(put(b"a", b"1"))
    with following(tmp_path / "second", database_url, AT_ONCE._replace(clock=lambda: now[0])) as second:
        assert not second.step(MOMENT)
        await first.aclose()
        assert not second.step(MOMENT)
        now[0] = GRACE - 0.1
        assert not second.step(MOMENT)
        first = worked(tmp_path / "first", database_url)
        assert not second.step(MOMENT)
        now[0] = 2 * GRACE
        await first.aclose()
        assert not second.step(MOMENT)
        now[0] = 3 * GRACE
        assert second.step(MOMENT)
        engine = second.take_over()
        assert engine is not None
        await engine.write(put(b"b", b"2"))
        assert engine.read(lambda rows: dict(rows.scan(PUT))) == {b"a": b"1", b"b": b"2"}
        await engine.aclose()


async def test_who_was_killed_while_he_took_over_waits_again(tmp_path: Path, database_url: str) -> None:
    """The copy knows whose work it holds, though it is all there: the other one may answer for a while yet."""
    first = worked(tmp_path / "first", database_url)
    await first.write(put(b"a", b"1"))
    waits: list[float] = []

    def killed(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    with following(tmp_path / "second", database_url, AT_ONCE._replace(sleep=killed)) as second:
        second.step(MOMENT)
        await first.write(put(b"a", b"2"))
        second.step(MOMENT)
        await first.aclose()
        with pytest.raises(KeyboardInterrupt):
            second.take_over()
    waiting = AT_ONCE._replace(sleep=killed)
    for count in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            Copied.open_url(tmp_path / "second", LAYOUT, database_url, map_size=ROOM, waiting=waiting)
        assert waits == [10.0] * count
    worked(tmp_path / "second", database_url).close()
    Copied.open_url(tmp_path / "second", LAYOUT, database_url, map_size=ROOM, waiting=waiting).close()  # by itself


async def test_two_daemons_do_not_share_a_directory(tmp_path: Path, database_url: str) -> None:
    """Neither with who works, nor with who follows."""
    first = worked(tmp_path / "first", database_url)
    with pytest.raises(ConfigurationError, match="need a directory each"):
        Following(tmp_path / "first", LAYOUT, database_url)
    with (
        following(tmp_path / "second", database_url),
        pytest.raises(ConfigurationError, match="need a directory each"),
    ):
        Following(tmp_path / "second", LAYOUT, database_url)
    await first.aclose()


async def test_who_follows_what_is_brought_back_is_told(tmp_path: Path, database_url: str) -> None:
    """It must not become a second truth; nor does a store that is no copy become one."""
    worked(tmp_path / "first", database_url).close()
    Embedded.open(tmp_path / "other", LAYOUT, map_size=ROOM).close()
    with (
        following(tmp_path / "other", database_url) as other,
        pytest.raises(ConfigurationError, match="no copy of the database"),
    ):
        other.step(MOMENT)
    with following(tmp_path / "second", database_url) as second:
        second.step(MOMENT)
        bring_back(tmp_path / "first", LAYOUT, database_url, lambda _: None)
        with pytest.raises(ConfigurationError, match="brought back"):
            [second.step(MOMENT) for _ in range(10)]


async def test_a_database_in_which_nothing_was_begun_is_waited_for(tmp_path: Path, database_url: str) -> None:
    """The other one is about to, or moves its store there."""
    with following(tmp_path / "second", database_url) as second:
        assert not second.step(MOMENT)
        assert second.announced() == ""
        first = worked(tmp_path / "first", database_url)
        await first.announce("here")
        assert not second.step(MOMENT)
        assert second.announced() == "here"
        assert contents(second) == {}
        await first.aclose()


def hospital_over(url: str, folder: Path) -> HospitalConfiguration:
    """Configure a hospital over a database; its keys are there."""
    (folder / "hospital.toml").write_text(f"""
pacs = []
[hospital]
name = "amc"
listen = "127.0.0.1:0"
directory = "data"
projects = "projects"
store = "{url}"
[tls]
certificate = "a"
key = "b"
trust = "c"
[[keystores]]
name = "one"
address = "127.0.0.1:1"
dn = "/CN=one"
[keys]
threshold = 1
""")
    (folder / "data").mkdir(mode=0o700)
    for name in ("outbox.key", "signing.key"):
        (folder / "data" / name).write_bytes(name.encode())
    return HospitalConfiguration.read(folder / "hospital.toml")


async def test_a_hospital_with_other_keys_does_not_stand_by(tmp_path: Path, database_url: str) -> None:
    """It could not open the shares that are under way when it takes over: it is told which keys to copy."""
    configuration = hospital_over(database_url, tmp_path)
    first = Copied.open_url(tmp_path / "first", store_layout(), database_url, map_size=ROOM)
    await first.announce(presence(configuration).replace(":0", ":8443"))
    (tmp_path / "data" / "signing.key").write_bytes(b"another")
    with pytest.raises(ConfigurationError, match="with other keys") as caught:
        await open_or_stand_by(configuration, trio.TASK_STATUS_IGNORED)
    assert caught.value.what_to_do == f"copy its signing.key to {tmp_path / 'data'}, mode 0600"
    await first.aclose()


async def test_who_could_pass_nothing_on_has_yet_to_start(tmp_path: Path, database_url: str) -> None:
    """The daemon that worked was gone before it said where it listens: the start is told of when this one works."""
    soon = AT_ONCE._replace(clock=lambda: 1000 * time.monotonic())
    configuration = hospital_over(database_url, tmp_path)
    first = Copied.open_url(tmp_path / "first", store_layout(), database_url, map_size=ROOM)

    async def leave() -> None:
        while not (tmp_path / "data" / "store" / "data.mdb").exists():  # noqa: ASYNC110 nobody tells
            await trio.sleep(MOMENT)
        await first.aclose()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            store, still_to_tell = await open_or_stand_by(configuration, status := Unheard(), soon)
    assert still_to_tell is status
    await store.aclose()


async def test_who_is_told_to_end_while_taking_over_lets_go_of_the_database(tmp_path: Path, database_url: str) -> None:
    """The next one works at once."""
    configuration, listening = hospital_over(database_url, tmp_path), Listening()
    first = Copied.open_url(tmp_path / "first", store_layout(), database_url, map_size=ROOM)
    await first.announce(presence(configuration).replace(":0", ":8443"))
    observer = Database(DatabaseUrl(database_url), "store", AT_ONCE.patience)
    observer.watch()

    def look() -> float:
        if not first_works and observer.is_taken():
            trio.from_thread.run_sync(scope.cancel)
        return 1000 * time.monotonic()

    first_works = True

    async def leave() -> None:
        nonlocal first_works
        await listening.heard.wait()
        await first.aclose()
        first_works = False

    with trio.fail_after(30), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await open_or_stand_by(configuration, listening, AT_ONCE._replace(clock=look))
    assert scope.cancelled_caught
    observer.close()
    second = Copied.open_url(tmp_path / "data" / "store", store_layout(), database_url, map_size=ROOM)
    await second.aclose()


class Listening(trio.TaskStatus[Address]):
    """Of who is told that another one listens."""

    def __init__(self) -> None:
        self.heard = trio.Event()

    def started(self, value: object = None) -> None:
        """Know it."""
        del value
        self.heard.set()


class Unheard(trio.TaskStatus[Address]):
    """Of who is not told."""

    def started(self, value: object = None) -> None:
        """Must not be called."""
        raise AssertionError(value)


async def test_a_second_keystored_opens_its_shelf_when_the_first_has_gone(tmp_path: Path, database_url: str) -> None:
    """Until then it follows: what it takes over is all there."""
    soon = AT_ONCE._replace(clock=lambda: 1000 * time.monotonic())
    first = worked(tmp_path / "first", database_url)
    await first.write(put(b"a", b"1"))
    opened: list[Copied] = []

    async def stand_by() -> None:
        opened.append(await open_in_turn(tmp_path / "second", LAYOUT, database_url, soon))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stand_by)
            while not (tmp_path / "second" / "data.mdb").exists():  # noqa: ASYNC110 nobody tells
                await trio.sleep(MOMENT)
            assert opened == []
            await first.write(put(b"b", b"2"))
            await first.aclose()
    (second,) = opened
    assert second.read(lambda rows: dict(rows.scan(PUT))) == {b"a": b"1", b"b": b"2"}
    await second.aclose()
