"""``mdmfs mount`` and ``mdmfs umount``."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import time
from typing import Final

import click
import trio

from mdmfs.cli.arguments import FILE
from mdmfs.cli.logs import log_to_standard_error
from mdmfs.cli.output import ADVICE, ERROR, is_json, note, tell, usual_level
from mdmfs.daemon.diagnosis import examine
from mdmfs.daemon.supervision import Supervisor, this_supervisor
from mdmfs.model.errors import ConfigurationError, CredentialExpiredError, MdmfsError, using
from mdmfs.model.finding import Severity
from mdmfs.pki.health import examine_credential
from mdmfs.wire.metrics import serving_metrics
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.doctor import HOSPITAL, checks_of
from mdmfs.worker.fuse.leaving import leave_in_time
from mdmfs.worker.fuse.mount import is_stale
from mdmfs.worker.fuse.mountinfo import entry_of, place_of
from mdmfs.worker.service import run_mount
from mdmfs.worker.service import umount as umount_and_wait

ANSWER_SECONDS: Final = 3.0
"""For a hospital, before somebody is told that it does not answer."""
MAX_TOLD: Final = 2**20
"""What is read of a log at most: it may be a device without an end."""
_MOUNTPOINT = click.Path(path_type=pathlib.Path, readable=False)
"""Nothing is asked of it here: after a kill it is a directory that nobody can even look at."""


@click.command()
@click.argument("configuration", type=FILE)
@click.argument("mountpoint", type=_MOUNTPOINT)
@click.option("--daemon", is_flag=True, help="Go to the background; return when the mount is usable.")
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=pathlib.Path), help="With --daemon: where its log goes."
)
@click.option("--ready", type=int, hidden=True, help="A file descriptor to write to when the mount is usable.")
def mount(
    configuration: pathlib.Path, mountpoint: pathlib.Path, log: pathlib.Path | None, ready: int | None, *, daemon: bool
) -> None:
    """Show a hospital's images below MOUNTPOINT until it is unmounted.

    Example: mdmfs mount --daemon ~/mdmfs.toml /grid/medical
    """
    if daemon:
        log = log or _default_log()
        tell_of_hidden(mountpoint)
        _start_in_background(configuration, mountpoint, log)
        settings = MountConfiguration.read(configuration)
        if not settings.mount.multi_user and tell_of_credential(settings):
            tell_of_hospitals(settings)
        tell({"mountpoint": mountpoint, "state": "mounted", "log": log})
        return
    settings = MountConfiguration.read(configuration)
    settings.refuse_hiding(mountpoint)
    settings.refuse_missing_authorities()
    # a live one is refused now; what a killed one left stays until there is something in its place
    is_stale(mountpoint)
    tell_of_hidden(mountpoint)
    _log_as(settings)
    supervisor = this_supervisor()
    with serving_metrics(settings.mount.metrics, supervisor.pulse):
        trio.run(_mount, supervisor, settings, mountpoint, ready)


@click.command()
@click.argument("mountpoint", type=_MOUNTPOINT)
def umount(mountpoint: pathlib.Path) -> None:
    """Unmount MOUNTPOINT, and wait until its daemon has gone."""
    umount_and_wait(mountpoint)
    tell({"mountpoint": mountpoint, "state": "unmounted"})


async def _mount(
    supervisor: Supervisor, configuration: MountConfiguration, mountpoint: pathlib.Path, ready: int | None
) -> None:
    def tell_ready() -> None:
        with contextlib.suppress(OSError):  # the log that it goes to may be full
            tell({"mountpoint": mountpoint, "state": "mounted"})
        if ready is not None:
            with contextlib.suppress(PermissionError):  # we lead a group already
                os.setsid()
            _tell_who_waits(ready)

    await supervisor.supervise(run_mount, configuration, mountpoint, _log_as, leave_in_time, ready=tell_ready)


def _tell_who_waits(ready: int) -> None:
    """Say that the mount is usable; where nobody waits for it, nobody knows of it: then it ends as by SIGTERM."""
    try:
        os.write(ready, b"1")
    except BrokenPipeError:
        note("mdmfs: the mount is taken away: nobody waits for it any more")
        os.kill(os.getpid(), signal.SIGTERM)
    os.close(ready)


def tell_of_hidden(mountpoint: pathlib.Path) -> None:
    """Say that there is something in a directory that is mounted on: that is allowed, as with mount(8)."""
    if entry_of(place_of(mountpoint)) is not None:
        return  # what a killed mount left is not to be looked at
    with contextlib.suppress(OSError), os.scandir(mountpoint) as found:
        if any(found):
            note(f"mdmfs: {mountpoint} is not empty: what is in it is hidden for as long as it is mounted")


def tell_of_hospitals(settings: MountConfiguration) -> None:
    """Say which hospitals do not answer: it is mounted, and shows what they have when they do."""
    asked = [check for check in checks_of(settings) if check.name == HOSPITAL]
    for one in trio.run(functools.partial(examine, asked, deadline=ANSWER_SECONDS)):
        if one.severity is Severity.FAULT:
            advice = f"nothing, if it comes back by itself; mdmfs doctor {settings.file} looks closer"
            text = f"mdmfs: mounted, but nothing of this hospital is there yet: {one.subject}: {one.text}"
            note(f"{text}\n{ADVICE}{advice}", hospital=one.subject, what_to_do=advice)


def tell_of_credential(settings: MountConfiguration) -> bool:
    """Say where the mount has nobody to ask as: it is mounted, and a new proxy is found by itself. False then."""
    credential = own_credential(settings)
    try:
        found = examine_credential("", credential, time.time())
        credential.show_in(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        reason = next((one.text for one in found if one.severity is Severity.FAULT), "")
    except MdmfsError as error:
        reason = str(error)
    if reason:
        advice = CredentialExpiredError.what_to_do
        note(f"mdmfs: mounted, but nobody can read there yet: {reason}\n{ADVICE}{advice}", what_to_do=advice)
    return not reason


def _log_as(settings: MountConfiguration) -> None:
    """Log what the command line says, or else the configuration."""
    root = click.get_current_context().find_root()
    level = root.params.get("log_level") or settings.mount.log_level or usual_level(root)
    log_to_standard_error(level, is_json=is_json())


def _start_in_background(configuration: pathlib.Path, mountpoint: pathlib.Path, log: pathlib.Path) -> None:
    """Run the same command, and wait until it says that the mount is usable; then it has a session of its own.

    Not before: an automounter (autofs, or systemd) lets its own process group alone pass below its directory, and
    whoever has left it waits there for the mount that he is to make himself.
    """
    level = click.get_current_context().find_root().params.get("log_level")
    with using(log.parent):
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with using(log):
        output = open(log, "ab", opener=_for_us_alone)  # noqa: SIM115 closed below
    read_end, write_end = os.pipe()
    command = [
        sys.executable,
        "-m",
        "mdmfs.cli",
        *(["--log-level", level] if level else []),
        "mount",
        str(configuration),
        str(mountpoint),
        "--ready",
        str(write_end),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(output)
        begin = output.tell()
        subprocess.Popen(  # noqa: S603 our own program
            command,
            pass_fds=[write_end],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/" if configuration.is_absolute() and mountpoint.is_absolute() else None,
        )
        os.close(write_end)
        stack.callback(os.close, read_end)
        if os.read(read_end, 1) != b"1":
            with log.open("rb") as told:
                told.seek(begin)
                lines = told.read(MAX_TOLD).decode(errors="replace").splitlines()
            errors = [place for place, line in enumerate(lines) if line.startswith(ERROR)]
            last = lines[errors[-1] :] if errors else ["it gave no reason"]
            advice = next((line.removeprefix(ADVICE) for line in last if line.startswith(ADVICE)), "mend what it says")
            message = f"{mountpoint} could not be mounted: {last[0].removeprefix(ERROR)}"
            raise ConfigurationError(message, what_to_do=f"{advice}; {log} tells more")


def _for_us_alone(path: str, flags: int) -> int:
    """Make a log that nobody else reads: it names users and files."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _default_log() -> pathlib.Path:
    state = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local/state"
    return pathlib.Path(state) / "mdmfs" / "mount.log"
