"""Paths on a mount: which LFN stands behind one, and how the hospital behind it is reached as the caller."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from typing import Final

import click

from mdmfs.cli.arguments import FILE, parsed
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import ROOT_PREFIX, Lfn
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.peers import open_client
from mdmfs.worker.callers.credential import own_credential
from mdmfs.worker.configuration import CONFIGURATION_ATTRIBUTE, MountConfiguration
from mdmfs.worker.fuse.mountinfo import KIND, MountEntry, entry_of

AT: Final = click.option("--at", default=".", help="A path on the mount whose configuration counts. Default: here.")
CONFIGURATION_OF_MOUNT: Final = click.option(
    "--configuration",
    type=FILE,
    help="A mount's: nothing need be mounted then, and a PATH is an LFN.",
)
MAX_LINKS: Final = 40
"""As many as the kernel follows."""
_NAME_ONE: Final = "name a path on one, or an LFN with --configuration"
OF_HOSPITAL: Final = click.option("--hospital", default="", help="Its name, where the mount joins several.")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A name of a catalogue, and the configuration of the mount that shows it."""

    lfn: Lfn
    whole: MountConfiguration
    """Of the mount, with all hospitals that it joins."""
    mountpoint: pathlib.Path | None
    shown: Lfn
    """What the mount point shows: that of a bind mount less than the configuration says."""

    @property
    def configuration(self) -> MountConfiguration:
        """That of the hospital that has the name; raises ``ConfigurationError`` above all of them."""
        return self.whole.of(self.lfn)


def find_place(path: str, configuration: pathlib.Path | None, *, otherwise: str = _NAME_ONE) -> Place:
    """Find what a path on a mount names, or, with a configuration, an LFN; raises ``ConfigurationError``.

    ``otherwise`` says what to do where it names nothing. Nothing below the mount point is touched, so that a path works
    that may not be seen.
    """
    if configuration is not None:
        whole = MountConfiguration.read(configuration)
        return Place(parsed(Lfn.parse, path), whole, None, whole.root)
    absolute, mount = _led_to(path)
    with contextlib.suppress(OSError):  # whoever serves it has gone
        if mount is not None:
            file = os.getxattr(mount.mountpoint, CONFIGURATION_ATTRIBUTE)
            found = MountConfiguration.read(pathlib.Path(os.fsdecode(file)))
            top, below = Lfn((*found.root.parts, *mount.root.parts[1:])), absolute.relative_to(mount.mountpoint)
            return Place(Lfn((*top.parts, *below.parts)), found, mount.mountpoint, top)
    message = f"{'the current directory' if path == '.' else path} is not on a mount of mdmfs"
    raise ConfigurationError(message, what_to_do=otherwise)


def _led_to(path: str) -> tuple[pathlib.Path, MountEntry | None]:
    """Follow the links above a mount, and none on it: there they are names, too; gives the mount, if there is one."""
    absolute = pathlib.Path(os.path.abspath(path))  # noqa: PTH100 a link on the mount would have to be read
    for _ in range(MAX_LINKS):
        for above in (*reversed(absolute.parents), absolute):
            mount = entry_of(above)
            if mount is not None and mount.kind == KIND:
                return absolute, mount
            if os.path.islink(above):  # noqa: PTH114 a directory that may not be passed has none
                led = above.parent / os.readlink(above) / absolute.relative_to(above)  # noqa: PTH115 as above
                absolute = pathlib.Path(os.path.abspath(led))  # noqa: PTH100 as above
                break
        else:
            break
    return absolute, None


def find_mount(at: str, configuration: pathlib.Path | None) -> Place:
    """Find the mount whose configuration counts where no path is named: the one at ``at``, or that of a file."""
    otherwise = "name a path on one with --at, or the configuration of a mount with --configuration"
    return find_place(ROOT_PREFIX if configuration else at, configuration, otherwise=otherwise)


def read_alone(file: pathlib.Path, hospital: str) -> MountConfiguration:
    """Read a mount's configuration for one hospital of it; raises ``ConfigurationError`` where it is not told which."""
    each = MountConfiguration.read(file).each
    if "" in each and not hospital:
        return each[""]
    if hospital not in each:
        message = f"{file} joins {', '.join(each)}" if "" not in each else f"{file} joins no hospitals"
        raise ConfigurationError(message, what_to_do="leave --hospital out" if "" in each else "name one: --hospital")
    return each[hospital]


def open_hospital(configuration: MountConfiguration) -> Client:
    """Make a client of a mount's hospital with the credential of whoever runs this process."""
    anchors = TrustAnchors(configuration.path(configuration.trust))
    peer = configuration.hospital
    return open_client(peer.address, peer.dn, own_credential(configuration), anchors)
