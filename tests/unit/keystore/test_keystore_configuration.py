"""A keystore's TOML file becomes values, or an error that names file and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.identity import Dn
from mdmfs.wire.stream import Address

GOOD = """\
[keystore]
name = "north"
listen = "127.0.0.1:0"
directory = "shelf"
hospitals = ["/DC=org/CN=hospital a", "CN=hospital b,DC=org"]

[tls]
certificate = "north.pem"
key = "/etc/north.key"
trust = "certificates"
"""


def read(tmp_path: Path, text: str) -> KeystoreConfiguration:
    """Write a file and read it."""
    file = tmp_path / "keystored.toml"
    file.write_text(text)
    return KeystoreConfiguration.read(file)


def test_paths_count_from_the_files_folder_and_dns_are_parsed(tmp_path: Path) -> None:
    """Both spellings of a DN are understood."""
    configuration = read(tmp_path, GOOD)
    assert configuration.name == "north"
    assert configuration.listen == Address("127.0.0.1", 0)
    assert configuration.directory == tmp_path / "shelf"
    assert configuration.hospitals == {Dn.parse("/DC=org/CN=hospital a"), Dn.parse("/DC=org/CN=hospital b")}
    assert configuration.credential.certificate_file == tmp_path / "north.pem"
    assert configuration.credential.key_file == Path("/etc/north.key")
    assert configuration.anchors.path == tmp_path / "certificates"


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ('name = "north"', "", "name"),
        ('name = "north"', 'name = "north"\nhospital = "x"', "hospital"),
        ('name = "north"', "name = 7", r"keystore\.name"),
        ('name = "north"', 'name = "north"\nmetrics = "[::]:9464"', r"keystore\.metrics: a loopback"),
        ('"127.0.0.1:0"', '"127.0.0.1"', r"keystore\.listen"),
        ('"127.0.0.1:0"', '"127.0.0.1:99999"', r"keystore\.listen"),
        ('"/DC=org/CN=hospital a"', '"hospital a"', r"keystore\.hospitals.*hospital a"),
        ('"/DC=org/CN=hospital a", "CN=hospital b,DC=org"', "", r"keystore\.hospitals"),
        ('trust = "certificates"', "", r"tls\.trust"),
        ("[tls]", "[tsl]", "tls|tsl"),
        ("[tls]", "[tls", "line"),
    ],
)
def test_a_mistake_is_told_with_file_and_field(tmp_path: Path, good: str, bad: str, told: str) -> None:
    """A misspelt field is an error too: silence would be a keystore that lets nobody, or the wrong one, in."""
    assert good in GOOD
    with pytest.raises(ConfigurationError, match=rf"keystored\.toml.*({told})"):
        read(tmp_path, GOOD.replace(good, bad))
