"""The command line: what is wrong is told on standard error with what to do, and exit code 1, without a traceback."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdmfs.cli.main import cli
from mdmfs.cli.mount import tell_of_credential, tell_of_hidden, tell_of_hospitals
from mdmfs.demo.pki import delegate
from mdmfs.model.errors import UnusableFileError
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.fuse.mountinfo import entry_of
from tests.twins import certificates as make
from tests.twins.waiting import until
from tests.twins.wire import anchors_in

CLONE = Path(__file__).parents[2]
KEYSTORE = """
[keystore]
name = "one"
listen = "127.0.0.1:1"
directory = "shelf"
hospitals = ["/CN=hospital"]
recovery = "recovery.pem"
[tls]
certificate = "c.pem"
key = "k.pem"
trust = "ca.pem"
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "mdmfs.cli", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", ["hospitald", "keystored"])
def test_a_daemon_with_a_wrong_configuration_says_so_and_what_to_do(tmp_path: Path, command: str) -> None:
    """The file and the field."""
    path = tmp_path / "x.toml"
    path.write_text("[hospital]\nnam = 1\n")
    done = run(command, str(path))
    assert (done.returncode, done.stdout) == (1, "")
    (line, advice) = done.stderr.splitlines()
    assert line.startswith(f"mdmfs: {path} is not a valid configuration")
    assert advice.startswith("  what to do: mend ")


def test_the_digest_of_a_policy_is_what_an_approver_signs(tmp_path: Path) -> None:
    """The same for a shipped policy and its copy in a file, whatever its comments."""
    shipped = run("policy", "digest", "strict")
    (tmp_path / "copy.toml").write_text('# copied\nheads = "refuse"\nname = "strict"\n')
    assert run("policy", "digest", str(tmp_path / "copy.toml")).stdout == shipped.stdout
    assert len(bytes.fromhex(shipped.stdout.strip())) == 32
    assert run("policy", "digest", "nothing").returncode == 1


def test_a_clone_runs_the_command_where_the_caller_is(tmp_path: Path) -> None:
    """A path counts from the caller's folder, wherever the clone lies."""
    (tmp_path / "own.toml").write_text('heads = "refuse"\nname = "strict"\n')
    done = subprocess.run(
        [CLONE / "run", "mdmfs", "policy", "digest", "./own.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == run("policy", "digest", "strict").stdout, done.stderr


def test_a_demonstration_touches_no_folder_that_it_did_not_make(tmp_path: Path) -> None:
    """A folder with somebody's files in it stays as it is."""
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run("demo", "--state", str(tmp_path))
    assert done.returncode == 1
    assert "choose another --state" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_log_of_a_mount_in_the_background_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It names users and files, whatever may be read of what else they make."""
    (tmp_path / "mount.toml").write_text("")
    log = tmp_path / "log"
    told = ["mount", "--daemon", "--log", str(log), str(tmp_path / "mount.toml"), str(tmp_path)]
    failed = subprocess.run(
        [sys.executable, "-m", "mdmfs.cli", *told], capture_output=True, text=True, umask=0, timeout=60, check=False
    )
    assert failed.returncode == 1
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["mount", "--daemon", "--log", "file/log", "file", "grid"], "file is there already"),
        (["mount", "--daemon", "--log", "file/x/log", "file", "grid"], "file/x cannot be used: Not a directory"),
        (["demo", "--state", "file/demo"], "file/demo cannot be used: Not a directory"),
        (["backup", "keystore.toml", "file/backup"], "file/backup cannot be used: Not a directory"),
    ],
)
def test_where_nothing_can_be_written_the_path_is_named(tmp_path: Path, typed: list[str], told: str) -> None:
    """It is a slip of who typed it, and no mistake to be reported."""
    (tmp_path / "file").touch()
    (tmp_path / "grid").mkdir()
    (tmp_path / "keystore.toml").write_text(KEYSTORE)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "data.mdb").touch()
    make.host("recovery").save(tmp_path, "recovery")
    command = [sys.executable, "-m", "mdmfs.cli", *typed]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"mdmfs: {told}")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_where_a_user_may_not_look_the_path_is_named(tmp_path: Path) -> None:
    """Not as a mistake of ours."""
    os.setresuid(65534, 65534, 0)
    try:
        done = CliRunner().invoke(cli, ["init", "keystore", str(tmp_path / "keystore.toml")])
    finally:
        os.setresuid(0, 0, 0)
    assert isinstance(done.exception, UnusableFileError)
    assert "cannot be used: Permission denied" in str(done.exception)


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    """Where results go, and where a configuration was to be: nothing of that is left in the way of the next try."""
    command = [sys.executable, "-m", "mdmfs.cli"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*command, "policy", "digest", "strict"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, b"mdmfs: there is no room left for what it writes")
    file = tmp_path / "keystore.toml"
    options = ["--name", "k", "--listen", "127.0.0.1:1", "--directory", "shelf", "--hospital", "/CN=h", "--no-check"]
    tls = ["--certificate", "c.pem", "--key", "k.pem", "--trust", "ca.pem"]
    grown = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command, "init", "keystore", str(file), *options, *tls]
    done = subprocess.run(grown, capture_output=True, check=False)
    assert (done.returncode, f"mdmfs: {file} cannot be used".encode() in done.stderr) == (1, True)
    assert not file.exists()


MOUNT = """trust = "{trust}"
[hospital]
address = "{address}"
dn = "/CN=hospital"
[credential]
proxy = "proxy.pem"
[[keystores]]
name = "one"
address = "127.0.0.1:2"
dn = "/CN=one"
"""


@pytest.mark.parametrize(
    ("address", "trust", "reason"),
    [
        ("127.0.0.1:99999", "ca.pem", "hospital.address: an address is written HOST:PORT, not '127.0.0.1:99999'"),
        ("127.0.0.1:1", "nothing.pem", "no CA certificates can be read from"),
    ],
)
def test_a_mount_that_could_ask_nobody_is_not_made(tmp_path: Path, address: str, trust: str, reason: str) -> None:
    """Whoever mounts is told then, and not by EACCES of everything."""
    anchors_in(tmp_path).path.rename(tmp_path / "ca.pem")
    (tmp_path / "mount.toml").write_text(MOUNT.format(address=address, trust=trust))
    point = tmp_path / "grid"
    point.mkdir()
    done = run("mount", "--daemon", "--log", str(tmp_path / "log"), str(tmp_path / "mount.toml"), str(point))
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_mount_in_the_background_for_which_nobody_waits_any_more_is_taken_away(tmp_path: Path) -> None:
    """Who began it was killed before it was usable: nobody knows of it, and nothing stays in its place."""
    anchors_in(tmp_path).path.rename(tmp_path / "ca.pem")
    (tmp_path / "mount.toml").write_text(MOUNT.format(address="127.0.0.1:1", trust="ca.pem"))
    point, log = tmp_path / "grid", tmp_path / "log"
    point.mkdir()
    told = ["mount", "--daemon", "--log", str(log), str(tmp_path / "mount.toml"), str(point)]
    began = subprocess.Popen([sys.executable, "-m", "mdmfs.cli", *told], start_new_session=True)
    children = Path(f"/proc/{began.pid}/task/{began.pid}/children")
    until(lambda: log.exists() and children.read_text() != "")  # before the log, trio looks for a library by a program
    daemon = Path("/proc", children.read_text().split()[0])
    began.send_signal(signal.SIGKILL)
    began.wait()
    until(lambda: not daemon.exists())
    assert entry_of(point) is None, log.read_text()
    assert "nobody waits for it any more" in log.read_text()


def test_who_mounts_without_a_proxy_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mount stays: a proxy that is made later is found."""
    (tmp_path / "mount.toml").write_text(MOUNT.format(address="127.0.0.1:1", trust="ca.pem"))
    configuration = MountConfiguration.read(tmp_path / "mount.toml")
    assert not tell_of_credential(configuration)
    line, advice = capsys.readouterr().err.splitlines()
    assert line == (
        f"mdmfs: mounted, but nobody can read there yet: {tmp_path / 'proxy.pem'} cannot be read: "
        "No such file or directory"
    )
    assert advice.startswith("  what to do: make a new proxy")
    delegate(make.person("jane"), make.VALID).save_proxy(tmp_path / "proxy.pem")
    assert tell_of_credential(configuration)
    assert capsys.readouterr().err == ""


def test_who_mounts_a_hospital_that_does_not_answer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mount stays: it shows what the hospital has when that is back."""
    anchors_in(tmp_path).path.rename(tmp_path / "ca.pem")
    delegate(make.person("jane"), make.VALID).save_proxy(tmp_path / "proxy.pem")
    (tmp_path / "mount.toml").write_text(MOUNT.format(address="127.0.0.1:1", trust="ca.pem"))
    tell_of_hospitals(MountConfiguration.read(tmp_path / "mount.toml"))
    line, advice = capsys.readouterr().err.splitlines()
    assert line.startswith("mdmfs: mounted, but nothing of this hospital is there yet: 127.0.0.1:1: ")
    assert str(tmp_path / "mount.toml") in advice


def test_who_mounts_over_files_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are hidden; that is allowed, as with mount(8)."""
    tell_of_hidden(tmp_path)
    tell_of_hidden(tmp_path / "nothing")
    assert capsys.readouterr().err == ""
    (tmp_path / "result.csv").touch()
    tell_of_hidden(tmp_path)
    assert "is not empty" in capsys.readouterr().err
