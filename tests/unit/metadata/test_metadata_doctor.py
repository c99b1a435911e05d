"""What the doctor sees of a metadata service: above all, whether what it keeps lies on an encrypted volume."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdmfs.cli.doctor import checks_for
from mdmfs.cli.main import cli
from mdmfs.daemon.diagnosis import examine
from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.volume import is_encrypted
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.finding import Severity

TLS = ["--certificate", "host.pem", "--key", "host.key", "--trust", "trust"]
DN = "/DC=org/DC=example/CN=hospital"


def machine(root: Path, *uuids: str, kind: str = "ext4") -> Path:
    """Make a machine whose one volume lies on these devices, each on the next one."""
    number = root.stat().st_dev
    block = root / "sys" / "dev" / "block"
    device = block / f"{os.major(number)}:{os.minor(number)}"
    for uuid in uuids:
        (device / "dm").mkdir(parents=True)
        (device / "dm" / "uuid").write_text(uuid)
        device = device / "slaves" / "below"
    (device / "slaves").mkdir(parents=True)
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "mountinfo").write_text(f"22 1 0:21 / / rw - {kind} source rw\n")
    return root


@pytest.mark.parametrize(
    ("uuids", "encrypted"),
    [
        (("CRYPT-LUKS2-0123-data",), True),
        (("LVM-abc", "CRYPT-LUKS1-0123-pv"), True),
        (("LVM-abc",), False),
        ((), False),
    ],
)
def test_a_volume_is_encrypted_where_all_below_it_is(
    tmp_path: Path, uuids: tuple[str, ...], *, encrypted: bool
) -> None:
    """dm-crypt itself, or what is made of it."""
    assert is_encrypted(tmp_path / "not" / "yet", root=machine(tmp_path, *uuids)) is encrypted


def test_a_file_system_that_encrypts_is_enough_and_an_unknown_one_is_not_known(tmp_path: Path) -> None:
    """None is no yes."""
    (tmp_path / "a").mkdir()
    assert is_encrypted(tmp_path, root=machine(tmp_path / "a", kind="fuse.gocryptfs")) is True
    (tmp_path / "b" / "proc" / "self").mkdir(parents=True)
    (tmp_path / "b" / "proc" / "self" / "mountinfo").write_text("22 1 0:21 / / rw - overlay overlay rw\n")
    assert is_encrypted(tmp_path, root=tmp_path / "b") is None


def write(folder: Path, database: str) -> Path:
    """Let ``mdmfs init`` write a configuration."""
    path = folder / "metadata.toml"
    options = ["--listen", "127.0.0.1:1", "--database", database, "--hospital", DN]
    done = CliRunner().invoke(cli, ["init", "metadata", str(path), "--no-check", *options, *TLS])
    assert done.exit_code == 0, done.output
    return path


def test_metrics_that_others_would_reach_are_refused_with_the_file(tmp_path: Path) -> None:
    """Nobody is asked there who he is."""
    path = write(tmp_path, "metadata.sqlite")
    path.write_text(path.read_text().replace("[metadata]", '[metadata]\nmetrics = "192.0.2.1:9464"'))
    with pytest.raises(ConfigurationError, match=r"metadata\.toml: metadata\.metrics: a loopback address"):
        MetadataConfiguration.read(path)


async def test_what_init_writes_is_read_by_the_daemon_and_by_the_doctor(tmp_path: Path) -> None:
    """Nothing of it is there yet: the doctor says so of each thing, and of the volume in any case."""
    path = write(tmp_path, "private/metadata.sqlite")
    read = MetadataConfiguration.read(path)
    assert (str(read.hospital), read.database) == (DN, str(tmp_path / "private" / "metadata.sqlite"))
    found = {finding.check: finding for finding in await examine(checks_for(path), deadline=5)}
    assert found.keys() == {"certificate", "authorities", "database", "room", "volume", "daemon"}
    assert found["database"].severity is Severity.WARNING
    assert found["daemon"].severity is Severity.FAULT


async def test_a_database_that_others_may_look_at_is_a_fault(tmp_path: Path) -> None:
    """Also before there is one: the daemon would not start. And its password is told to nobody."""
    (tmp_path / "private").mkdir(mode=0o755)
    before = await examine(checks_for(write(tmp_path, "private/metadata.sqlite")), deadline=5)
    assert Severity.FAULT in {one.severity for one in before if one.check == "database"}
    (tmp_path / "metadata.toml").unlink()
    (tmp_path / "private" / "metadata.sqlite").touch(mode=0o600)
    found = {
        one.check: one for one in await examine(checks_for(write(tmp_path, "private/metadata.sqlite")), deadline=5)
    }
    assert (found["database"].severity, "chmod" in found["database"].text) == (Severity.FAULT, True)
    for url in ("postgresql://us:secret@127.0.0.1:1/x", "postgresql://us@127.0.0.1:1/x?password=secret"):
        (tmp_path / "metadata.toml").unlink()
        server = await examine(checks_for(write(tmp_path, url)), deadline=5)
        assert not any("secret" in part for one in server for part in (one.subject, one.text))
        assert {one.check for one in server if one.severity is Severity.FAULT} >= {"database"}
