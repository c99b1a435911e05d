"""The units of systemd, read and rated by systemd itself, off line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
KINDS = sorted(path.name for path in UNITS.iterdir() if path.suffix in {".service", ".mount", ".automount"})
DAEMONS = ["mdmfs-hospitald.service", "mdmfs-keystored@.service", "mdmfs-metadatad.service"]
OK = 20
"""``systemd-analyze security``: 2.0, the upper end of "OK", in tenths."""


def as_installed(folder: Path, name: str) -> Path:
    """Give a unit as it is when installed, with a program that is there."""
    unit = folder / name.replace("@", "@site")
    if name.endswith(".automount"):
        as_installed(folder, name.replace(".automount", ".mount"))
    text = (UNITS / name).read_text().replace("/opt/mdmfs/bin/mdmfs", "/bin/true")
    unit.write_text(re.sub(r"^User=.*\nGroup=.*$", "User=daemon", text, flags=re.MULTILINE))
    return unit


@pytest.mark.parametrize("name", KINDS)
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    """No unknown key, no value out of range, no program that is not there."""
    scope = ["--user"] if "mount@" in name else []
    command = ["systemd-analyze", "verify", *scope, "--man=no", "--recursive-errors=one", as_installed(tmp_path, name)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("version", [247, 252, 254, 257])
def test_backoff_is_placed_where_systemd_knows_it(version: int, tmp_path: Path) -> None:
    """And nowhere else: an older one would warn of keys that it does not know, at each look."""
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "systemd {version} ({version}.39-1)"; echo "+PAM +AUDIT"\n')
    program.chmod(0o755)
    text = (UNITS.parent / "run").read_text()
    functions = re.findall(r"^(?:place_units|knows_backoff)\(\) \{.*?^\}", text, re.MULTILINE | re.DOTALL)
    assert len(functions) == 2
    place = 'place() { case "$2" in *.service.d/*) echo "$2" ;; esac; }'
    replaced = f"LOCAL=/usr/local; {place}; chmod() {{ :; }}; systemd-sysusers() {{ :; }}"
    script = "\n".join([replaced, *functions, "place_units"])
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    told = subprocess.run(
        ["bash", "-euc", script], check=True, capture_output=True, text=True, cwd=UNITS.parent, env=environment
    )
    placed = {line.rpartition("/system/")[2].rpartition("/user/")[2] for line in told.stdout.splitlines()}
    services = {f"{path.name}.d/backoff.conf" for path in UNITS.glob("*.service")}
    assert placed == (services if version >= 254 else set())


def test_mount_8_mounts_and_where_it_only_pretends_nothing_is_mounted(tmp_path: Path) -> None:
    """``mount -f``, as with ``-a``, asks its helper to leave that out."""
    helper = tmp_path / "mount.fuse.mdmfs"
    helper.write_text((UNITS / helper.name).read_text().replace("/opt/mdmfs/bin/mdmfs", "/bin/echo"))
    asked = "mount --daemon --log /var/log/mdmfs-mount.log /a /b\n"
    for flags, expected in (([], asked), (["-s", "-v", "-o", "rw,nofail"], asked), (["-f", "-v"], "")):
        done = subprocess.run(["sh", helper, "/a", "/b", *flags], check=True, capture_output=True, text=True)
        assert done.stdout == expected


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_may_do_little(name: str, tmp_path: Path) -> None:
    """The exposure that systemd computes is 2.0 at most."""
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={OK}", as_installed(tmp_path, name)]
    told = subprocess.run([*command, "--no-pager"], check=False, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout[-400:]


def test_the_mount_may_gain_the_rights_to_mount() -> None:
    """What facts of FUSE forbid does not creep in: see the comment in the unit."""
    text = (UNITS / "mdmfs-mount@.service").read_text()
    keys = {line.partition("=")[0] for line in text.splitlines() if not line.startswith("#")}
    namespaces = {"PrivateTmp", "PrivateDevices", "ProtectSystem", "ProtectHome", "ReadWritePaths", "PrivateMounts"}
    assert not keys & {"NoNewPrivileges", "MemoryMax", "SystemCallFilter", "RestrictSUIDSGID", *namespaces}
