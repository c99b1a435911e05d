"""A slip in a configuration is told by its key, with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdmfs.daemon.configuration import read_tables
from mdmfs.daemon.slips import kind_of
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.model.errors import ConfigurationError
from mdmfs.worker.configuration import MountConfiguration

MOUNT = """
trust = "ca.pem"
[hospital]
address = "mdm.example:8443"
dn = "/CN=hospital"
[cache]
size = "1 GiB"
[[keystores]]
name = "one"
address = "one.example:8443"
dn = "/CN=one"
"""
HOSPITAL = """
[hospital]
name = "amc"
listen = "127.0.0.1:8443"
directory = "data"
projects = "projects"
[tls]
certificate = "c.pem"
key = "k.pem"
trust = "ca.pem"
[[pacs]]
name = "main"
address = "AET@127.0.0.1:104"
"""
KEYSTORE = """
[keystore]
name = "one"
listen = "127.0.0.1:8443"
directory = "shelf"
hospitals = ["/CN=hospital"]
[tls]
certificate = "c.pem"
key = "k.pem"
trust = "ca.pem"
"""


def read(
    tmp_path: Path, text: str, kind: type[MountConfiguration | HospitalConfiguration | KeystoreConfiguration]
) -> str:
    """Read a file that is wrong, and give what is said of it."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        kind.read(file)
    return str(raised.value).removeprefix(f"{file} is not a valid configuration: ").removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("was", "made", "said"),
    [
        ("[hospital]", "[hopsital]", "there is no key hopsital; did you mean hospital?"),
        ('address = "mdm', 'adress = "mdm', "there is no key hospital.adress; did you mean address?"),
        ('address = "one', 'adress = "one', "there is no key keystores[0].adress; did you mean address?"),
        ("trust = ", "deadline = 3\ntrust = ", "there is no key deadline; did you mean mount.deadline?"),
        ("trust = ", "colour = 3\ntrust = ", "there is no key colour"),
        ('name = "one"\n', "", "keystores[0].name is missing"),
        ('"1 GiB"', "3", "cache.size: Expected a text, got a whole number"),
        ("[hospital]", "[[hospital]]", "hospital: Expected a table, got a list"),
    ],
)
def test_a_slip_is_told_by_its_key(tmp_path: Path, was: str, made: str, said: str) -> None:
    """And where the key is like another one, or belongs into another table, that one is named."""
    assert was in MOUNT
    assert read(tmp_path, MOUNT.replace(was, made, 1), MountConfiguration) == said


def test_the_configuration_of_another_zone_is_named_as_one(tmp_path: Path) -> None:
    """Whoever mixes up two files hears which one he gave."""
    assert read(tmp_path, MOUNT, HospitalConfiguration).endswith("; the file looks like that of a mount")
    assert read(tmp_path, HOSPITAL, MountConfiguration).endswith("; the file looks like that of a hospital")
    assert read(tmp_path, KEYSTORE, HospitalConfiguration).endswith("; the file looks like that of a keystore")
    assert read(tmp_path, HOSPITAL, KeystoreConfiguration).endswith("; the file looks like that of a hospital")


def test_whose_a_file_is_its_tables_tell(tmp_path: Path) -> None:
    """A hospital names its metadata service, and a service names its hospital."""
    file = tmp_path / "x.toml"
    told = []
    for text in (
        MOUNT,
        HOSPITAL + '[metadata]\naddress = "x"\n',
        KEYSTORE,
        '[metadata]\nhospital = "/CN=x"\n',
        "x = 1",
    ):
        file.write_text(text)
        told.append(kind_of(read_tables(file)))
    assert told == ["mount", "hospital", "keystore", "metadata", ""]


@pytest.mark.parametrize(
    ("was", "made", "said"),
    [
        ('key = "k.pem"', 'crls = "required"\nkey = "k.pem"', "tls.crls: Invalid enum value 'required'; it is one"),
        ('address = "AET', 'retrieval = "c-get"\naddress = "AET', "pacs[0].retrieval: Invalid enum value 'c-get'; it"),
    ],
)
def test_where_values_are_counted_they_are_named(tmp_path: Path, was: str, made: str, said: str) -> None:
    """Whoever has a word wrong hears which there are."""
    assert was in HOSPITAL
    assert read(tmp_path, HOSPITAL.replace(was, made, 1), HospitalConfiguration).startswith(said)


@pytest.mark.parametrize(("octets", "said"), [(b"x = ", "is not a valid configuration"), (b"\xff", "is not a valid")])
def test_what_is_no_toml_is_said_to_be_none(tmp_path: Path, octets: bytes, said: str) -> None:
    """With the line, where there is one."""
    file = tmp_path / "x.toml"
    file.write_bytes(octets)
    with pytest.raises(ConfigurationError, match=said):
        read_tables(file)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_tables(tmp_path / "nothing.toml")
