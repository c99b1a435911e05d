"""Backups of a shelf: sealed for the recovery certificate, whole or nothing, and taken while the keystore works."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
import trio
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from mdmfs.cli.main import cli
from mdmfs.keystore.backup import MAGIC, Header, back_up, restore
from mdmfs.keystore.row_shelf import open_lmdb_shelf
from mdmfs.keystore.shelf import KeyRecord, Tombstone
from mdmfs.model.errors import (
    ConfigurationError,
    IntegrityError,
    NameTakenError,
    OutOfSpaceError,
    StoreError,
    UnusableFileError,
    WrongKeyError,
)
from mdmfs.model.names import Guid
from mdmfs.pki.recovery import PrivateKey
from tests.twins.certificates import rsa_key

OWNER = "/DC=org/CN=hospital"
NOW = 1_800_000_000.0
DAYS = 30
SECRET = b"a share that nobody but the keystore has"
GUIDS = [Guid(number.to_bytes(16)) for number in range(500)]
CONFIGURATION = """
[keystore]
name = "keystore-1"
listen = "127.0.0.1:1"
directory = "shelf"
hospitals = ["/DC=org/CN=hospital"]
recovery = "recovery.pem"

[tls]
certificate = "none"
key = "none"
trust = "none"
"""
P256 = ec.generate_private_key(ec.SECP256R1())


def certify(key: PrivateKey | ed25519.Ed25519PrivateKey) -> x509.Certificate:
    """Make a certificate of a recovery key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recovery")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    return builder.sign(P256, hashes.SHA256())


async def fill(shelf: Path, guids: list[Guid] = GUIDS) -> None:
    """Lay shares onto a shelf, and one tombstone."""
    async with open_lmdb_shelf(shelf) as opened:
        record = KeyRecord(owner=OWNER, share=SECRET, aliases=())
        await opened.write(lambda draft: [draft.put_key(guid, record) for guid in guids])
        await opened.write(lambda draft: draft.bury(guids[0], Tombstone(owner=OWNER, destroyed_at=1.0)))


async def held(shelf: Path) -> list[bool]:
    """Tell which of the keys are there."""
    async with open_lmdb_shelf(shelf) as opened:
        return await opened.read(lambda page: [page.key(guid) is not None for guid in GUIDS])


async def command(*arguments: str, passphrase: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ``mdmfs``."""
    typed = [sys.executable, "-m", "mdmfs.cli", *arguments]
    return await trio.run_process(typed, stdin=passphrase, capture_stdout=True, capture_stderr=True, check=False)


def make(shelf: Path, output: Path, key: PrivateKey = P256) -> Header:
    """Make a backup."""
    return back_up(shelf, output, ("keystore-1", DAYS), certify(key), now=NOW)


@pytest.mark.parametrize(
    "key", [P256, ec.generate_private_key(ec.SECP384R1()), rsa_key("recovery")], ids=["P-256", "P-384", "RSA"]
)
async def test_a_shelf_comes_back_as_it_was(key: PrivateKey, tmp_path: Path) -> None:
    """Shares and tombstones, by keys of the usual kinds; the file shows none of them, and is its owner's alone."""
    await fill(tmp_path / "shelf")
    told = make(tmp_path / "shelf", tmp_path / "backup", key)
    assert (told.keystore, told.made, told.expires) == ("keystore-1", NOW, NOW + DAYS * 86_400)
    octets = (tmp_path / "backup").read_bytes()
    assert SECRET not in octets
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    assert restore(tmp_path / "backup", tmp_path / "new", key, now=NOW + 1) == told
    assert await held(tmp_path / "new") == [False] + [True] * (len(GUIDS) - 1)
    async with open_lmdb_shelf(tmp_path / "new") as opened:
        assert await opened.read(lambda page: page.tombstones(GUIDS[0])) == [Tombstone(owner=OWNER, destroyed_at=1.0)]


def test_a_recovery_key_whose_passphrase_nobody_types_is_told(tmp_path: Path) -> None:
    """As from cron: what is missing is the passphrase, and nothing was begun."""
    (tmp_path / "keystore.toml").write_text(CONFIGURATION)
    (tmp_path / "backup").touch()
    pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    (tmp_path / "recovery.key").write_bytes(P256.private_bytes(*pkcs8))
    configuration, backup, key = (str(tmp_path / name) for name in ("keystore.toml", "backup", "recovery.key"))
    ran = CliRunner().invoke(cli, ["restore", configuration, backup, "--key", key], input="")
    assert isinstance(ran.exception, ConfigurationError)
    assert "recovery.key has a passphrase, and nobody types it" in str(ran.exception)


async def test_a_backup_is_taken_while_the_keystore_writes(tmp_path: Path) -> None:
    """By the command, from another process; it holds the shelf of one instant, and delays no writer."""
    (tmp_path / "keystore.toml").write_text(CONFIGURATION)
    (tmp_path / "recovery.pem").write_bytes(certify(P256).public_bytes(serialization.Encoding.PEM))
    passphrase = serialization.BestAvailableEncryption(b"open sesame")
    pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, passphrase)
    (tmp_path / "recovery.key").write_bytes(P256.private_bytes(*pkcs8))
    async with open_lmdb_shelf(tmp_path / "shelf") as opened, trio.open_nursery() as nursery:
        record = KeyRecord(owner=OWNER, share=SECRET, aliases=())
        pairs = 0

        async def write() -> None:
            nonlocal pairs
            for number in range(0, len(GUIDS), 2):
                pair = GUIDS[number : number + 2]
                await opened.write(lambda draft, pair=pair: [draft.put_key(guid, record) for guid in pair])  # type: ignore[misc]
                pairs += 1

        nursery.start_soon(write)
        while pairs < 20:  # noqa: ASYNC110 there is no event
            await trio.sleep(0.001)
        ran = await command("backup", str(tmp_path / "keystore.toml"), str(tmp_path / "backup"))
        assert (ran.returncode, b"keystore-1" in ran.stdout, b"delete it by" in ran.stdout) == (0, True, True), (
            ran.stderr
        )
    assert pairs == len(GUIDS) // 2
    (tmp_path / "shelf").rename(tmp_path / "lost")
    restoring = ("restore", str(tmp_path / "keystore.toml"), str(tmp_path / "backup"))
    ran = await command(*restoring, "--key", str(tmp_path / "recovery.key"), passphrase=b"open sesame\n")
    assert ran.returncode == 0, ran.stderr
    found = await held(tmp_path / "shelf")
    assert sum(found) >= 40
    assert found == [True] * sum(found) + [False] * (len(GUIDS) - sum(found))
    assert sum(found) % 2 == 0


async def test_a_changed_or_cut_backup_restores_nothing(tmp_path: Path) -> None:
    """Head, wrapped key, body and end: each is noticed, and no file is left."""
    await fill(tmp_path / "shelf")
    make(tmp_path / "shelf", tmp_path / "backup")
    octets = (tmp_path / "backup").read_bytes()
    head = octets[: octets.index(b"\n", len(MAGIC)) + 1]
    later = octets.replace(b'"expires":18', b'"expires":19')
    assert later != octets
    places = [len(MAGIC) // 2, head.index(b'"octets"') + 20, len(head) + 10, len(octets) // 2, len(octets) - 1]
    damaged = [octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :] for at in places]
    cut = [octets[:length] for length in (0, 5, len(head) - 1, len(head), len(head) + 16_440, len(octets) - 1)]
    no_text = head[:-20] + b"\xff" + head[-19:] + octets[len(head) :]
    for number, wrong in enumerate([later, no_text, *damaged, *cut, octets + b"x"]):
        (tmp_path / "wrong").write_bytes(wrong)
        with pytest.raises((IntegrityError, WrongKeyError), match=str(tmp_path / "wrong")):
            restore(tmp_path / "wrong", tmp_path / f"new-{number}", P256, now=NOW)
        assert not list((tmp_path / f"new-{number}").rglob("*"))


async def test_what_could_do_harm_is_refused(tmp_path: Path) -> None:
    """Over a shelf, with another key, after its day, over another file, for a key that wraps nothing."""
    await fill(tmp_path / "shelf")
    make(tmp_path / "shelf", tmp_path / "backup")
    with pytest.raises(NameTakenError, match="holds a shelf"):
        restore(tmp_path / "backup", tmp_path / "shelf", P256, now=NOW)
    with pytest.raises(WrongKeyError, match="not that of the recovery certificate"):
        restore(tmp_path / "backup", tmp_path / "new", ec.generate_private_key(ec.SECP256R1()), now=NOW)
    expired = NOW + DAYS * 86_400
    with pytest.raises(ConfigurationError, match="expired"):
        restore(tmp_path / "backup", tmp_path / "new", P256, now=expired)
    with pytest.raises(NameTakenError, match="already"):
        make(tmp_path / "shelf", tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="no shelf"):
        make(tmp_path / "nothing", tmp_path / "other")
    with pytest.raises(ConfigurationError, match="of RSA"):
        back_up(tmp_path / "shelf", tmp_path / "o", ("k", 1), certify(ed25519.Ed25519PrivateKey.generate()), now=NOW)
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 that it is short is the point
    with pytest.raises(ConfigurationError, match="2048"):
        back_up(tmp_path / "shelf", tmp_path / "o", ("k", 1), certify(short), now=NOW)
    assert not (tmp_path / "o").exists()
    restore(tmp_path / "backup", tmp_path / "new", P256, now=expired, is_expired_ok=True)
    assert sum(await held(tmp_path / "new")) == len(GUIDS) - 1


async def test_a_shelf_that_this_program_cannot_read_is_not_put_in_place(tmp_path: Path) -> None:
    """Of a newer format: its people would learn of it when the keystore starts, and the old one is gone by then."""
    await fill(tmp_path / "shelf")
    with (
        lmdb.open(str(tmp_path / "shelf"), max_dbs=4) as environment,
        environment.begin(write=True, db=environment.open_db(b"about")) as transaction,
    ):
        transaction.put(b"format", b"2")
    make(tmp_path / "shelf", tmp_path / "backup")
    with pytest.raises(StoreError, match="format 2"):
        restore(tmp_path / "backup", tmp_path / "new", P256, now=NOW)
    assert not list((tmp_path / "new").iterdir())


def test_a_backup_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With what the system says of it."""
    with pytest.raises(UnusableFileError, match="nowhere cannot be used: No such file"):
        restore(tmp_path / "nowhere", tmp_path / "new", P256, now=NOW)


async def test_a_full_disk_leaves_no_half_backup(tmp_path: Path) -> None:
    """The keystore's people learn of it, and find no file that looks like one."""
    await fill(tmp_path / "shelf")
    (tmp_path / "backup.part").symlink_to("/dev/full")
    with pytest.raises(OutOfSpaceError):
        make(tmp_path / "shelf", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
