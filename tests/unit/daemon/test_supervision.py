"""What a service manager hears: a real datagram socket, trio's own clock, and daemons that come and go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mdmfs.daemon.supervision import STOPPING, Supervisor
from mdmfs.model.errors import ConfigurationError

ME = 4711


class Manager:
    """A service manager's socket."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        """Give what has come since the last call."""
        told = []
        while True:
            try:
                told.append(self._socket.recv(100).decode())
            except BlockingIOError:
                return told

    def close(self) -> None:
        """Go away."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Listen at a path, or in Linux's abstract name space."""
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@mdmfs-{tmp_path.name}")
    yield made
    made.close()


async def serve_for(seconds: float, *, task_status: trio.TaskStatus[str]) -> None:
    """Start, serve so long, end."""
    task_status.started("address")
    await trio.sleep(seconds)


async def test_it_says_ready_once_it_serves_and_lives_until_it_ends(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    """A sign of life comes twice in each of the manager's intervals, and none after the end."""
    assert autojump_clock.rate == 0
    supervisor = Supervisor({**manager.environment, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(ME)}, ME)
    ready = []
    await supervisor.supervise(serve_for, 22.0, ready=lambda: ready.append(trio.current_time()))
    assert len(ready) == 1
    assert supervisor.pulse.is_ready
    assert manager.heard() == ["READY=1", *5 * ["WATCHDOG=1"]]
    await trio.sleep(100)
    supervisor.tell(STOPPING)
    assert manager.heard() == ["STOPPING=1"]
    assert supervisor.pulse.is_alive
    assert not supervisor.pulse.is_ready


async def test_nothing_is_said_of_a_daemon_that_cannot_start(manager: Manager) -> None:
    """Its error comes out as it is."""

    async def fail(**_parts: Any) -> None:  # noqa: ANN401
        message = "no such file"
        raise ConfigurationError(message)

    with pytest.raises(ConfigurationError):
        await Supervisor(manager.environment, ME).supervise(fail)
    assert manager.heard() == []


@pytest.mark.parametrize(
    ("environment", "patience"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10"}, None),
        ({"NOTIFY_SOCKET": "/run/x"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_only_a_manager_that_watches_us_is_told_that_we_live(
    environment: dict[str, str], patience: float | None
) -> None:
    """The variables may be inherited from a parent's service, or be absent."""
    assert Supervisor(environment, ME).patience == patience


async def test_a_manager_that_has_gone_ends_no_daemon(manager: Manager, autojump_clock: trio.testing.MockClock) -> None:
    """The daemon serves on."""
    assert autojump_clock.rate == 0
    supervisor = Supervisor({**manager.environment, "WATCHDOG_USEC": "1000000"}, ME)
    manager.close()
    await supervisor.supervise(serve_for, 5.0)
