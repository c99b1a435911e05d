"""SIGHUP: what can change in a running mount does, what cannot is named, and a wrong file changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.demo.pki import delegate
from mdmfs.model.names import Guid
from mdmfs.worker.cache.room import Room
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.lease import LOOK_SECONDS
from mdmfs.worker.memory import Memory
from mdmfs.worker.places import AWAKE_SECONDS, Places
from mdmfs.worker.reloading import Reloading
from tests.twins import certificates as make
from tests.twins.wire import anchors_in

WHOLE = """trust = "ca"
[mount]
{mount}
[hospital]
address = "{address}"
dn = "{dn}"
[credential]
proxy = "{proxy}"
[cache]
directory = "cache"
size = "{size}"
[[keystores]]
name = "{keystore}"
address = "127.0.0.1:1"
dn = "/CN=k"
"""
USUAL = {
    "mount": "",
    "address": "127.0.0.1:1",
    "dn": "/CN=h",
    "proxy": "jane",
    "size": "10 MiB",
    "keystore": "k1",
}


class Scene:
    """A mount's settings without the mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("jane", "bob"):
            delegate(make.person(name), make.VALID).save_proxy(folder / name)
        anchors_in(folder).path.rename(folder / "ca")
        self.write()
        told = MountConfiguration.read(folder / "mount.toml")
        self.memory, self.levels = Memory(told.memory, pushed=told.pushed), list[str]()
        self.places, self.room = Places(told, self.memory), Room(told.cache_size, told.cache_floor)
        self.reloading = Reloading(
            told, folder / "mnt", self.places, self.room, self.memory, lambda it: self.levels.append(it.mount.log_level)
        )

    def write(self, **changed: str) -> None:
        """Write the configuration."""
        (self.folder / "mount.toml").write_text(WHOLE.format(**(USUAL | changed)))

    async def hang_up(self, **changed: str) -> list[str]:
        """Write it, and have it read again; gives what the log says."""
        self.write(**changed)
        with structlog.testing.capture_logs() as logs:
            await self.reloading.reload()
        return [str(log.get("keys") or log.get("reason") or log["event"]) for log in logs]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Make it."""
    return Scene(tmp_path)


async def test_budgets_log_level_peers_and_credential_change_in_a_running_mount(
    scene: Scene, nursery: trio.Nursery
) -> None:
    """Those of caches that are open, and of connections that were made."""
    cache = CiphertextCache(scene.folder / "cache", scene.room.limit, scene.room)
    await cache.load()
    ciphertext = await cache.receive(Guid(bytes(16)), 3000)
    told: list[str] = []
    with structlog.testing.capture_logs():
        (ports,) = scene.places.ports(scene.places.own_credential, nursery)
        before = ports.keys()
        told += await scene.hang_up(
            mount='memory = "20 MiB"\npush = "1 MiB"\nlog_level = "debug"', size="2000", proxy="bob", keystore="k2"
        )
        assert ports.keys() is not before
        assert ports.keys().names == ("k2",)  # type: ignore[attr-defined]
    assert told == ["the configuration was read again"]
    assert (scene.memory.limit, scene.memory.pushed, scene.levels) == (20 * 2**20, 2**20, ["debug"])
    assert (scene.room.limit, cache.limit) == (2000, 2000)
    assert scene.places.own_credential().key_file == scene.folder / "bob"
    cache.abandon(ciphertext)
    ciphertext.close()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dn": "nobody"}, "DN"),
        ({"address": "nowhere"}, "nowhere"),
        ({"proxy": "nobody"}, "cannot be opened"),
        ({"proxy": "mnt/jane"}, "would hide"),
        ({"mount": 'memory = "1 MiB"'}, "16 MiB or more"),
        ({"mount": 'push = "much"'}, "written like"),
        ({"mount": 'log_level = "loud"'}, "debug, info, warning, error"),
        ({"mount": 'memroy = "1 GiB"'}, "memroy"),
        ({"size": "\n"}, "mount.toml"),
    ],
)
async def test_a_wrong_file_changes_nothing_and_the_log_says_why(
    scene: Scene, changed: dict[str, str], reason: str
) -> None:
    """Not even what is right in it."""
    (said,) = await scene.hang_up(**({"size": "2000"} | changed))
    assert reason in said
    assert (scene.room.limit, scene.levels) == (10 * 2**20, [])
    assert await scene.hang_up(size="3000") == ["the configuration was read again"]
    assert scene.room.limit == 3000


async def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(scene: Scene) -> None:
    """Nobody writes to it any more: all that hangs up later would wait, too."""
    file = scene.folder / "mount.toml"
    file.unlink()
    os.mkfifo(file)
    with structlog.testing.capture_logs() as logs:
        await scene.reloading.reload()
    assert [str(log["reason"]) for log in logs] == [f"{file} is no plain file"]
    file.unlink()
    assert await scene.hang_up(size="3000") == ["the configuration was read again"]


async def test_what_only_a_new_mount_takes_over_is_named_each_time(scene: Scene) -> None:
    """And stays as it was, also for whoever is let in later."""
    for _ in range(2):
        assert await scene.hang_up(mount='deadline = 1.0\nmulti_user = false\nmetrics = "127.0.0.1:1"') == [
            "the configuration was read again",
            "mount.deadline, mount.metrics",
        ]
    assert await scene.hang_up() == ["the configuration was read again"]


async def test_all_leases_hear_that_the_machine_has_slept(
    scene: Scene, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task looks at the clock for all of them; they look again when the machine wakes up, and at no other time."""
    slept, heard = 0.0, list[str]()
    monkeypatch.setattr("mdmfs.worker.places.boottime", lambda: trio.current_time() + slept)
    leases = [scene.places.lease("") for _ in range(3)]
    for lease in leases:
        monkeypatch.setattr(lease, "look_again", lambda: heard.append("slept"))
    nursery.start_soon(scene.places.watch_clock)
    await trio.sleep(60)
    assert not heard
    slept = 3600.0
    await trio.sleep(2 * AWAKE_SECONDS)
    assert len(heard) == len(leases)
    await trio.sleep(60)
    assert len(heard) == len(leases)
    for _ in range(3):  # two of them are as long as one that counts
        slept += 0.6 * LOOK_SECONDS
        await trio.sleep(AWAKE_SECONDS)
    await trio.sleep(60)
    assert len(heard) == 2 * len(leases)
