"""``mdmfs init``: what it writes is what the daemons read, whatever is answered, and nothing is ever overwritten."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.cli.initiation import _toml
from mdmfs.cli.main import cli
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.model.errors import ConfigurationError, NameTakenError, UnusableFileError
from mdmfs.worker.configuration import MountConfiguration

DN = "/DC=org/DC=example/OU=hosts/CN=mdm.hospital.example"
HOSPITAL = ["--name", "amc", "--listen", "127.0.0.1:1", "--directory", "store", "--projects", "projects"]
TLS = ["--certificate", "host.pem", "--key", "host.key", "--trust", "trust"]
KEYSTORES = ["--keystore", "k1", "127.0.0.1:2", "/CN=k1", "--keystore", "k2", "127.0.0.1:3", "/CN=k2"]


def init(*arguments: str | Path, answers: str | None = None, home: Path | None = None) -> Result:
    """Run the command."""
    told = ["init", *map(str, arguments)]
    return CliRunner(env={"HOME": str(home)} if home else {}).invoke(cli, told, input=answers, catch_exceptions=True)


def test_a_hospital_from_options_alone(tmp_path: Path) -> None:
    """Nothing is asked, the folder of projects is made, the group may read the file and others may not."""
    path = tmp_path / "etc" / "hospital.toml"
    pacs = ["--pacs", "main", "ORTHANC@127.0.0.1:4", "--pacs", "old", "OLD@127.0.0.1:5"]
    done = init("hospital", path, "--no-check", *HOSPITAL, *TLS, *pacs, *KEYSTORES)
    assert (done.exit_code, done.output) == (0, f"wrote {path}\n")
    read = HospitalConfiguration.read(path)
    assert [entry.name for entry in read.pacs] == ["main", "old"]
    assert [peer.dn for peer in read.keystores] == ["/CN=k1", "/CN=k2"]
    assert (read.hospital.name, read.keys.threshold) == ("amc", 2)
    assert (path.parent / "projects").is_dir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_hospital_from_answers(tmp_path: Path) -> None:
    """What is not given is asked for, with a default where there is a usual one."""
    path = tmp_path / "hospital.toml"
    told = ["amc", "", "store", "", *TLS[1::2], "main", "ORTHANC@127.0.0.1:4", ""]
    told += ["k1", "127.0.0.1:2", "/CN=k1", "k2", "127.0.0.1:3", "/CN=k2", "", ""]
    answers = "\n".join(told)
    done = init("hospital", path, "--no-check", answers=answers)
    assert done.exit_code == 0, done.output
    read = HospitalConfiguration.read(path)
    assert (read.hospital.listen, read.hospital.projects) == ("0.0.0.0:8443", "projects")
    assert [entry.address for entry in read.pacs] == ["ORTHANC@127.0.0.1:4"]


def test_a_keystore_and_a_worker(tmp_path: Path) -> None:
    """Each daemon reads its own."""
    keystore, worker = tmp_path / "keystore.toml", tmp_path / "worker.toml"
    options = ["--name", "k1", "--listen", "127.0.0.1:2", "--directory", "shelf", "--hospital", DN]
    assert init("keystore", keystore, "--no-check", *options, *TLS).exit_code == 0
    assert [str(dn) for dn in KeystoreConfiguration.read(keystore).hospitals] == [DN]
    options = ["--address", "127.0.0.1:1", "--dn", DN, "--trust", "trust", "--cache-size", "1 GiB"]
    assert init("worker", worker, "--no-check", *options, *KEYSTORES).exit_code == 0
    read = MountConfiguration.read(worker)
    assert (read.cache_size, read.hospital.dn, len(read.keystores)) == (2**30, DN, 2)


def test_what_is_written_is_looked_at(tmp_path: Path) -> None:
    """As the doctor does, with its exit code: here nothing that is named is there."""
    options = ["--name", "k1", "--listen", "127.0.0.1:1", "--directory", "shelf", "--hospital", DN]
    done = init("keystore", tmp_path / "keystore.toml", *options, *TLS)
    assert done.exit_code == 1
    assert "certificate" in done.output
    assert "fault" in done.output


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """Somebody has written it; nobody is asked for what would not be written."""
    path = tmp_path / "keystore.toml"
    path.write_text("mine")
    assert isinstance(init("keystore", path).exception, NameTakenError)
    done = init("keystore", path, "--name", "k1", "--listen", "x", "--directory", "d", "--hospital", DN, *TLS)
    assert isinstance(done.exception, NameTakenError)
    assert "there already" in str(done.exception)
    assert path.read_text() == "mine"


def test_where_nobody_answers_the_option_that_is_missing_is_named(tmp_path: Path) -> None:
    """In a script, whose standard input has ended."""
    done = init("keystore", tmp_path / "keystore.toml", "--listen", "127.0.0.1:1", *TLS, answers="")
    assert done.exit_code == 2
    assert "Missing option '--name'" in done.output
    assert not (tmp_path / "keystore.toml").exists()


def test_what_no_daemon_could_read_is_not_left_behind(tmp_path: Path) -> None:
    """The error is the daemon's own, and the next try finds no file in its way."""
    path = tmp_path / "keystore.toml"
    options = ["--name", "k1", "--listen", "nowhere", "--directory", "shelf", "--hospital", DN]
    done = init("keystore", path, *options, *TLS)
    assert isinstance(done.exception, ConfigurationError)
    assert "listen" in str(done.exception)
    assert not path.exists()


PACS = ["--pacs", "main", "ORTHANC@127.0.0.1:4"]


def test_the_folder_of_projects_is_made_where_the_configuration_says(
    tmp_path: Path,
) -> None:
    """The tilde is the home; and where nothing can be made, that is told, and the next try finds no file in its way."""
    path = tmp_path / "hospital.toml"
    (tmp_path / "file").touch()
    rest = ["--no-check", "--name", "amc", "--listen", "127.0.0.1:1", "--directory", "store", *TLS, *PACS, *KEYSTORES]
    done = init("hospital", path, "--projects", tmp_path / "file" / "projects", *rest)
    assert isinstance(done.exception, UnusableFileError)
    assert not path.exists()
    assert init("hospital", path, "--projects", "~/projects", *rest, home=tmp_path / "home").exit_code == 0
    assert (tmp_path / "home" / "projects").is_dir()


def test_of_a_wrong_answer_no_folder_is_left(tmp_path: Path) -> None:
    """Nor a file."""
    wrong = ["--name", "a/b", *HOSPITAL[2:], *TLS, *PACS, *KEYSTORES]
    assert isinstance(init("hospital", tmp_path / "hospital.toml", "--no-check", *wrong).exception, ConfigurationError)
    assert not list(tmp_path.iterdir())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_answer_is_one_value(text: str) -> None:
    """Quotes, backslashes, line ends and what else somebody pastes open no other key."""
    assert tomllib.loads(f"key = {_toml(text)}") == {"key": text}


@pytest.mark.parametrize("kind", ["hospital", "keystore", "worker"])
def test_help_fits_a_screen_and_has_an_example(kind: str) -> None:
    """For somebody who sees it for the first time."""
    done = init(kind, "--help")
    assert "Example: mdmfs init" in done.output
    assert len(done.output.splitlines()) <= 40
