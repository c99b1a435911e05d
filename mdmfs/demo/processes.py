"""The processes of a site: started from configuration files, stopped by their own process id, none left behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, cast

from mdmfs.demo.site import KEYSTORES, PACS_TITLE, Site
from mdmfs.model.errors import ConfigurationError
from mdmfs.worker.fuse.mount import clean_up_stale

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Processes:
    """Everything that runs for a site: ``pacs``, ``hospital``, ``metadata``, ``keystore-1`` ..., ``mount-USER``."""

    def __init__(self, site: Site) -> None:
        """Know a site of which nothing runs yet."""
        self.site: Final = site
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._mountpoints: dict[str, pathlib.Path] = {}

    def start_pacs(self, patience: float = START_SECONDS) -> None:
        """Start our own PACS; one that holds many images takes longer than ``START_SECONDS``."""
        options = ["--directory", self.site.pacs_directory, "--port", self.site.ports.pacs, "--ae", PACS_TITLE]
        self._start("pacs", ["-m", "mdmfs.demo.pacs", *map(str, options)], _listens(self.site.ports.pacs), patience)

    def start_hospital(self) -> None:
        """Start hospitald."""
        command = ["-m", "mdmfs.cli", "hospitald", str(self.site.hospital_file)]
        self._start("hospital", command, _listens(self.site.ports.hospital))

    def start_keystore(self, number: int) -> None:
        """Start a keystored, from 1."""
        command = ["-m", "mdmfs.cli", "keystored", str(self.site.keystore_file(number))]
        self._start(f"keystore-{number}", command, _listens(self.site.ports.keystores[number - 1]))

    def start_metadata(self) -> None:
        """Start metadatad."""
        command = ["-m", "mdmfs.cli", "metadatad", str(self.site.metadata_file)]
        self._start("metadata", command, _listens(self.site.ports.metadata))

    def start_keystores(self) -> None:
        """Start them all."""
        for number in range(1, KEYSTORES + 1):
            self.start_keystore(number)

    def start_mount(self, user: str, mountpoint: pathlib.Path) -> None:
        """Mount for a user; a mount that was killed before is cleaned up by the new one."""
        with contextlib.suppress(OSError):
            mountpoint.mkdir(parents=True, exist_ok=True)
        command = ["-m", "mdmfs.cli", "mount", str(self.site.mount_file(user)), str(mountpoint)]
        self._mountpoints[f"mount-{user}"] = mountpoint
        self._start(f"mount-{user}", command, lambda: os.path.ismount(mountpoint) and _answers(mountpoint))

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """End a process by its id, wait, and give its exit code; one that does not end is killed."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return process.returncode

    def stop_all(self) -> None:
        """End everything, mounts first; what a mount that died has left is unmounted."""
        for name in sorted(self._running, key=_last_to_first):
            self.stop(name)
        for mountpoint in self._mountpoints.values():
            clean_up_stale(mountpoint)

    def pid(self, name: str) -> int:
        """Give a process id."""
        return self._running[name].pid

    def ended(self) -> Iterator[tuple[str, str]]:
        """Wait for those that end by themselves, and give of each its name and what was typed to start it.

        The last one is a mount, without which there is nothing to look at; all others may be ended to see what happens.
        """
        while True:
            for name, process in list(self._running.items()):
                if process.poll() is not None:
                    del self._running[name]
                    yield name, shlex.join(str(word) for word in cast("list[str]", process.args))
                    if name in self._mountpoints:
                        return
            time.sleep(10 * _POLL_SECONDS)

    def _start(
        self, name: str, arguments: list[str], is_ready: Callable[[], bool], patience: float = START_SECONDS
    ) -> None:
        log = self.site.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 our own programs
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running[name] = process
        deadline = time.monotonic() + patience
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                errors = [line for line in lines if line.startswith("mdmfs: ")] or lines or ["it gave no reason"]
                message = f"{name} does not start: {errors[-1]}"
                raise ConfigurationError(message, what_to_do=f"mend what it says; {log} tells more")
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def running(site: Site) -> Iterator[Processes]:
    """Know the processes of a site; at the end of the block none of them runs, however impatient somebody is."""
    processes = Processes(site)
    try:
        yield processes
    finally:
        with _deaf_to_signals():
            processes.stop_all()


@contextlib.contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Let a second Ctrl-C wait: the processes have sessions of their own and would stay."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listens(port: int) -> Callable[[], bool]:
    def is_ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    return is_ready


def _answers(mountpoint: pathlib.Path) -> bool:
    try:
        os.listdir(mountpoint)  # noqa: PTH208 only whether it answers
    except OSError:
        return False
    return True


def _last_to_first(name: str) -> int:
    order = ("mount", "hospital", "metadata", "keystore", "pacs")
    return order.index(name.partition("-")[0])
