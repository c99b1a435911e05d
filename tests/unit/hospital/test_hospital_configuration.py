"""The hospital's own file: what could never work is refused before anything is opened, by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.senders import Sender
from mdmfs.hospital.standby import open_or_stand_by
from mdmfs.model.errors import ConfigurationError, UnusableFileError
from mdmfs.pki.tls import Credential
from mdmfs.wire.peers import open_client, open_keystores
from mdmfs.wire.stream import Address
from tests.twins import certificates as make
from tests.twins.wire import anchors_in

KEYSTORE = '[[keystores]]\nname = "k{0}"\naddress = "127.0.0.1:{0}"\ndn = "/CN=k{0}"\n'
TEXT = """\
[hospital]
name = "amc"
listen = "127.0.0.1:8443"
directory = "data"
projects = "projects"

[tls]
certificate = "a.pem"
key = "a.key"
trust = "ca.pem"

[[pacs]]
name = "main"
address = "PACS@pacs.example.org:4242"

""" + "".join(KEYSTORE.format(number) for number in (1, 2, 3))


def read(folder: Path, *changes: tuple[str, str]) -> HospitalConfiguration:
    """Read the file with some of its text changed."""
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "hospital.toml"
    path.write_text(text)
    return HospitalConfiguration.read(path)


def test_defaults_and_paths(tmp_path: Path) -> None:
    """Two of three make a key, all but one acknowledge; relative paths count from the file."""
    found = read(tmp_path)
    assert (found.keys.threshold, found.required_keystores) == (2, 2)
    assert found.credential == Credential(tmp_path / "a.pem", tmp_path / "a.key")
    assert found.path("/abs/olute") == Path("/abs/olute")
    assert found.listen == found.public == Address("127.0.0.1", 8443)
    other = read(tmp_path, ('projects = "', 'public_address = "amc.example.org:443"\nprojects = "'))
    assert other.public == Address("amc.example.org", 443)


@pytest.mark.parametrize(("threshold", "required", "expected"), [(1, 0, 2), (3, 0, 3), (2, 3, 3), (1, 1, 1)])
def test_the_number_of_acknowledgements_has_a_sound_default(
    tmp_path: Path, threshold: int, required: int, expected: int
) -> None:
    """Never below the threshold."""
    keys = f"[keys]\nthreshold = {threshold}\nrequired = {required}\n\n[[pacs]]"
    assert read(tmp_path, ("[[pacs]]", keys)).required_keystores == expected


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "amc"', 'name = "a/b"', "hospital.name: a name in an LFN"),
        ('name = "amc"', 'name = ""', "name in an LFN"),
        ("127.0.0.1:8443", "127.0.0.1", "hospital.listen: an address is written HOST:PORT"),
        ("127.0.0.1:8443", "127.0.0.1:99999", "hospital.listen: an address is written HOST:PORT"),
        ('projects = "', 'public_address = "nowhere"\nprojects = "', "hospital.public_address: an address"),
        ('projects = "', 'reads = "nowhere"\nprojects = "', "hospital.reads: an address"),
        ('projects = "', 'metrics = "0.0.0.0:9464"\nprojects = "', "hospital.metrics: a loopback address"),
        ('projects = "', 'recall_deadline = 0\nprojects = "', "recall_deadline"),
        ('projects = "', 'recall_deadline = nan\nprojects = "', "recall_deadline"),
        ('projects = "', 'recall_deadline = inf\nprojects = "', "recall_deadline"),
        ('projects = "', 'staging_bytes = -1\nprojects = "', "staging_bytes"),
        ('projects = "', 'only_reads = true\nprojects = "', "only_reads needs hospital.store"),
        ('projects = "', 'identify_from = ["10.0.0.1/8"]\nprojects = "', "identify_from: '10.0.0.1/8' is no network"),
        ('projects = "', 'requests_per_second = -1\nprojects = "', "requests_per_second"),
        ('projects = "', 'projekte = "x"\nprojects = "', "projekte"),
        ("PACS@pacs.example.org:4242", "pacs.example.org:4242", "pacs[0]: a PACS is written AET@HOST:PORT"),
        ('name = "main"', 'name = ""', "name of its own"),
        ('name = "main"', 'name = "main"\nassociations = 0', "at least one association"),
        ('name = "main"', 'name = "main"\ncalling = "much too long an AE title"', "AE title"),
        ('name = "k2"', 'name = "k1"', "name of its own"),
        ('name = "k2"', 'name = "metadata"', "no keystore may be called metadata"),
        ('name = "k2"', 'name = "renewals"', "no keystore may be called renewals"),
        ('name = "k2"', 'name = "k\\u0000"', "name of its own"),
        ('name = "k2"', f'name = "{"k" * 129}"', "name of its own"),
        ("[[pacs]]", '[dicom]\nlisten = "nowhere"\n\n[[pacs]]', "dicom.listen: an address"),
        ("[[pacs]]", '[metadata]\naddress = "x:1"\ndn = "mdm"\n\n[[pacs]]', "metadata.dn: 'mdm': each part of a DN"),
        ("127.0.0.1:2", "127.0.0.1", "keystores[1].address: an address"),
        ('dn = "/CN=k2"', 'dn = "k2"', "keystores[1].dn: 'k2': each part of a DN"),
        ("[[pacs]]", "[keys]\nthreshold = 4\n\n[[pacs]]", "threshold 4"),
        ("[[pacs]]", "[keys]\nthreshold = 0\n\n[[pacs]]", "threshold 0"),
        ("[[pacs]]", "[keys]\nthreshold = 2\nrequired = 1\n\n[[pacs]]", "required 1"),
        ("[[pacs]]", "[keys]\nrequired = 4\n\n[[pacs]]", "required 4"),
        ("[tls]", "[tsl]", "tsl"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path: Path, old: str, new: str, told: str) -> None:
    """Each field."""
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, (old, new))
    assert told in str(raised.value)
    assert str(tmp_path / "hospital.toml") in str(raised.value)


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Of the store and all else of the hospital: a path below a file, or where this user may make nothing."""
    (tmp_path / "file").touch()
    configuration = read(tmp_path, ('directory = "data"', 'directory = "file/data"'))
    with pytest.raises(UnusableFileError, match=f"{tmp_path}/file/data cannot be used: Not a directory"):
        await open_or_stand_by(configuration, trio.TASK_STATUS_IGNORED)


async def test_a_peer_without_a_proper_name_or_address_is_told(tmp_path: Path) -> None:
    """By its address, as an error of the configuration."""
    credential = make.host("hospital").save(tmp_path, "hospital")
    anchors = anchors_in(tmp_path)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1 is none"):
        open_client("127.0.0.1:1", "nobody", credential, anchors)
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        open_client("127.0.0.1", "/CN=k1", credential, anchors)
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConfigurationError, match="no keystore"):
            open_keystores([], credential, anchors, nursery)
        configuration = read(tmp_path)
        assert open_keystores(configuration.keystores, credential, anchors, nursery).names == ("k1", "k2", "k3")


DICOM = '[dicom]\nlisten = "127.0.0.1:11112"\n'
PACS_LINE = 'address = "PACS@pacs.example.org:4242"\n'


def test_without_dicom_nobody_may_store_to_us(tmp_path: Path) -> None:
    """An SCP is opened by who asks for it; a notice settles for a day unless another time is said."""
    assert read(tmp_path).dicom is None
    found = read(tmp_path, ("[[pacs]]", DICOM + "[[pacs]]")).dicom
    assert found is not None
    assert (found.ae_title, found.settle, found.tls) == ("MDMFS", 86_400, None)


def test_a_pacs_is_known_by_its_title_and_the_hosts_that_it_sends_from(tmp_path: Path) -> None:
    """That of its address, unless others are named; TLS files lie beside the configuration."""
    assert read(tmp_path).pacs[0].sender == Sender("main", "PACS", ("pacs.example.org",), "MDMFS")
    more = 'senders = ["10.0.0.5"]\ntls = {certificate = "p.pem", key = "p.key", trust = "p-ca.pem"}\n'
    found = read(tmp_path, (PACS_LINE, PACS_LINE + more))
    assert found.pacs[0].sender.hosts == ("10.0.0.5",)
    tls = found.dicom_tls(found.pacs[0].tls)
    assert tls is not None
    assert tls.credential == Credential(tmp_path / "p.pem", tmp_path / "p.key")


@pytest.mark.parametrize(
    "line",
    ['clinical_hours = "8-18"', 'retrieval = "move"', 'retrieval = "push"', "associations = 0"],
)
def test_what_a_pacs_could_never_be_asked_is_refused(tmp_path: Path, line: str) -> None:
    """C-MOVE too, where there is nowhere to move to."""
    with pytest.raises(ConfigurationError):
        read(tmp_path, (PACS_LINE, PACS_LINE + line + "\n"))


@pytest.mark.parametrize("line", ['ae_title = "MORE-THAN-16-LETTERS"', "settle = -1", 'listen = "everywhere"'])
def test_an_scp_that_could_never_be_is_refused(tmp_path: Path, line: str) -> None:
    """Before anything is opened."""
    dicom = DICOM if not line.startswith("listen") else "[dicom]\n"
    with pytest.raises(ConfigurationError):
        read(tmp_path, ("[[pacs]]", dicom + line + "\n[[pacs]]"))
