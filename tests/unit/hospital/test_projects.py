"""Projects and lists from files: what is wrong is told with file and field or line, and never what a line says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mdmfs.access.acl import EntryKind
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.doctor import checks_of, judge_project
from mdmfs.hospital.projects import (
    Partial,
    PatientList,
    Project,
    escaped_patient,
    read_patient_list,
    read_project,
    read_projects,
    unescaped_patient,
)
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn

DIGEST = read_policy("research").digest.hex()
PROJECT = f"""\
name = "neuro"
purpose = "study"
legal_reference = "METC 2018/42"
policy = "research"
pacs = ["main"]
inclusion = "neuro.list"
until = 2030-12-31

[approval]
approver = "A. Approver"
date = 2026-01-05
policy_digest = "{DIGEST}"

[access]
owner = "/DC=org/CN=owner"
readers = ["/DC=org/CN=reader"]
groups = ["/vo/neuro"]
"""


def project_file(folder: Path, *changes: tuple[str, str], text: str = PROJECT) -> Path:
    """Write a project with some of its text changed, and its list."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "neuro.list").write_text("patient 123^^^AMC\n")
    path = folder / "neuro.toml"
    path.write_text(text)
    return path


def read(path: Path) -> Project:
    """Read a project of the hospital ``amc``."""
    return read_project(path, "amc", read_policy)


def test_a_project_is_what_its_file_says(tmp_path: Path) -> None:
    """Defaults are the careful ones."""
    project = read(project_file(tmp_path))
    assert (project.name, project.lfn, project.pacs) == ("neuro", Lfn(("amc", "neuro")), ("main",))
    assert (project.partial, project.until) == (Partial.HIDE, dt.date(2030, 12, 31))
    assert project.inclusion.holds(PatientKey("AMC", "123"), "1.2")
    kinds = {(entry.kind, entry.qualifier) for entry in project.acl.entries if entry.qualifier}
    assert kinds == {(EntryKind.USER, "/DC=org/CN=reader"), (EntryKind.GROUP, "/vo/neuro")}
    assert project.acl.entries == project.acl.defaults


def test_the_last_day_counts_whole(tmp_path: Path) -> None:
    """In UTC."""
    project = read(project_file(tmp_path))
    end = dt.datetime(2031, 1, 1, tzinfo=dt.UTC).timestamp()
    assert not project.is_over(end - 0.001)
    assert project.is_over(end)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "neuro"\n', "", "name"),
        ('"neuro"\n', '""\n', "name"),
        ('"neuro"\n', '"a/b"\n', "name"),
        ('"neuro"\n', '".."\n', "name"),
        ('"study"', '" "', "purpose"),
        ('"METC 2018/42"', '""', "legal_reference"),
        ('"A. Approver"', '""', "approver"),
        ("2030-12-31", '"never"', "until"),
        ("2030-12-31", "2030-02-31", "line 7"),
        ("2026-01-05", "5", "date"),
        ('["main"]', '"main"', "pacs"),
        ('policy = "research"', 'policy = "unheard-of"', "unheard-of"),
        ('policy = "research"', 'policy = "./missing.toml"', "missing.toml"),
        ('inclusion = "neuro.list"', 'inclusion = "other.list"', "other.list"),
        ('"/DC=org/CN=owner"', '"owner"', "access.owner: 'owner': each part of a DN"),
        ('"/DC=org/CN=reader"', '"reader"', "access.readers: 'reader': each part of a DN"),
        ('["/DC=org/CN=reader"]', '["/DC=org/CN=reader", "/DC=org/CN=reader"]', "once"),
        ('"/vo/neuro"', '"vo"', "access.groups: 'vo': an FQAN"),
        ("[access]", 'partail = "show"\n[access]', "partail"),
        ("until =", 'partial = "sometimes"\nuntil =', "partial"),
        ("[approval]", "[approvals]", "approval"),
        ("until = 2030", "until 2030", "line 7"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_and_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    """Each field."""
    path = project_file(tmp_path, (old, new))
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    assert told in str(raised.value)
    assert str(tmp_path) in str(raised.value)


HOSPITAL = """
pacs = [{name = "main", address = "AET@127.0.0.1:104"}]
keystores = [{name = "one", address = "127.0.0.1:1", dn = "/CN=one"}]
keys = {threshold = 1}
tls = {certificate = "c.pem", key = "k.pem", trust = "ca.pem"}
hospital = {name = "amc", listen = "127.0.0.1:8443", directory = "data", projects = "projects"}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('["main"]', '["main", "old"]', "names PACSs that are not configured: old"),
        ("until =", 'replicas = {at = ["tier1"]}\nuntil =', "wants replicas at what no [[storage]] names: tier1"),
        ("until =", "until =", "until 2030-12-31"),
    ],
)
def test_the_doctor_finds_what_a_project_names_and_nobody_configured(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    """By that hospitald would not start."""
    (tmp_path / "hospital.toml").write_text(HOSPITAL)
    configuration = HospitalConfiguration.read(tmp_path / "hospital.toml")
    check = checks_of(configuration)[0]
    project = read(project_file(tmp_path, (old, new)))
    assert judge_project(check, project, configuration, 0.0).text == told


def test_a_file_that_is_no_text_is_told_so(tmp_path: Path) -> None:
    """And one that is not there."""
    path = project_file(tmp_path)
    path.write_bytes(b'name = "\xff\xfe"')
    with pytest.raises(ConfigurationError, match=str(path)):
        read(path)
    path.unlink()
    with pytest.raises(ConfigurationError, match=str(path)):
        read(path)


@pytest.mark.parametrize("digest", ["", DIGEST[:-1], DIGEST[:-1] + "é", "0" * 64])
def test_what_was_approved_is_what_is_done(tmp_path: Path, digest: str) -> None:
    """Any other digest stops the daemon, and the message names who approved and what to do."""
    with pytest.raises(ConfigurationError, match=r"A\. Approver approved .* have the change approved"):
        read(project_file(tmp_path, (DIGEST, digest)))


def test_a_digest_may_be_written_in_capitals(tmp_path: Path) -> None:
    """It is the same number."""
    assert read(project_file(tmp_path, (DIGEST, DIGEST.upper()))).name == "neuro"


def test_a_policy_of_ones_own_stands_beside_the_project(tmp_path: Path) -> None:
    """Its path counts from the project's file; changing it afterwards makes the approval void."""
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\nheads = "refuse"\n')
    path = project_file(
        tmp_path, ('policy = "research"', 'policy = "./own.toml"'), (DIGEST, read_policy(str(own)).digest.hex())
    )
    assert read(path).policy.name == "own"
    own.write_text('name = "own"\nheads = "agreement"\n')
    with pytest.raises(ConfigurationError, match="have the change approved"):
        read(path)


@pytest.mark.parametrize("octets", [b'name = "own"\n', b"name = ", b"\xff\xfe", b'name = "own"\nheads = "keep"\n'])
def test_a_policy_that_is_none_is_told_with_the_project(tmp_path: Path, octets: bytes) -> None:
    """And with its own file."""
    (tmp_path / "own.toml").write_bytes(octets)
    path = project_file(tmp_path, ('policy = "research"', 'policy = "./own.toml"'))
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "own.toml" in str(raised.value)


def test_two_projects_have_two_names(tmp_path: Path) -> None:
    """A folder with the same name twice is refused; other files in it are nobody's business."""
    project_file(tmp_path)
    (tmp_path / "notes.txt").write_text("no project")
    assert list(read_projects(tmp_path, "amc", read_policy)) == ["neuro"]
    (tmp_path / "second.toml").write_text(PROJECT)
    with pytest.raises(ConfigurationError, match=r"second\.toml"):
        read_projects(tmp_path, "amc", read_policy)


def test_a_project_takes_no_name_that_a_mount_keeps_for_itself(tmp_path: Path) -> None:
    """``.find`` and ``.snapshots`` are directories of every mount, also of one that shows a hospital alone."""
    with pytest.raises(ConfigurationError, match="begins with a dot"):
        read(project_file(tmp_path, ('name = "neuro"', 'name = ".find"')))


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    """A slip in its name would be a hospital without projects, and nobody would know why nothing opens."""
    with pytest.raises(ConfigurationError, match="is not there"):
        read_projects(tmp_path / "projetcs", "amc", read_policy)


# Lists


def patient_list(folder: Path, text: str) -> PatientList:
    """Read a list."""
    path = folder / "a.list"
    path.write_text(text, encoding="utf-8")
    return read_patient_list(path)


def test_a_list_holds_patients_and_studies(tmp_path: Path) -> None:
    """Comments, empty lines, spaces around values and Windows line ends change nothing."""
    found = patient_list(
        tmp_path,
        "# who\r\n\r\n  patient 00 12^^^AMC  \r\npatient  7^^^\npatient Ü-1^^^AMC\nstudy 1.2.3\n#patient 9^^^AMC",
    )
    assert found.patients == {PatientKey("AMC", "00 12"), PatientKey("", "7"), PatientKey("AMC", "Ü-1")}
    assert found.studies == {"1.2.3"}


@pytest.mark.parametrize(
    ("written", "patient"),
    [
        (r"47\S\11^^^AMC", PatientKey("AMC", "47^11")),
        (r"47\S\\S\\S\AMC", PatientKey("", "47^^^AMC")),
        (r"\X2A\47\X3F\^^^A\S\MC", PatientKey("A^MC", "*47?")),
        (r"47 \X23\1 #a", None),
        (r"47 \X23\1", PatientKey("", "47 #1")),
        ("47#1&2~3|4^^^AMC", PatientKey("AMC", "47#1&2~3|4")),
    ],
)
def test_a_patient_whose_number_has_such_characters_is_named_by_escapes(
    tmp_path: Path, written: str, patient: PatientKey | None
) -> None:
    """As HL7 v2 writes them; a number that has them holds nothing that could be taken for an escape (PS3.5, VR LO)."""
    if patient is None:
        with pytest.raises(ConfigurationError) as raised:
            patient_list(tmp_path, f"patient {written}")
        assert "47" not in str(raised.value)
        assert r"\S\ for ^" in raised.value.what_to_do
        return
    assert patient_list(tmp_path, f"patient {written}").patients == {patient}
    assert escaped_patient(patient) == written
    assert unescaped_patient(f" {written}\n") == patient


def test_no_pacs_is_asked_for_a_number_with_wildcards(tmp_path: Path) -> None:
    """It would name other patients; an opt-out asks nobody, and for the images there are lines of studies."""
    path = project_file(tmp_path)
    (tmp_path / "neuro.list").write_text("patient 4\\X2A\\7^^^AMC\n")
    with pytest.raises(ConfigurationError, match="wildcards to every PACS") as raised:
        read(path)
    assert "study UID" in raised.value.what_to_do


@pytest.mark.parametrize(
    "line",
    [
        "Meyer^Anna",
        "patient",
        "patient ^^^AMC",
        "patient\t4711^^^AMC",
        "patients 4711^^^AMC",
        "4711^^^AMC",
        "study",
        "study 4711-AB",
        "study 1.2.3^^^AMC",
        "patient 47*^^^AMC",
        "patient 47?1^^^AMC",
        "patient 47\\11^^^AMC",
        f"patient {'4711' * 17}^^^AMC",
        "patient 47\x0011^^^AMC",
        "patient 4711^^AMC",
        "patient 4711^AMC",
        "patient 4711^^^^AMC",
        "patient 4711^^^AMC^PI",
        "patient 4711 # Meyer",
        "patient 4711^^^AMC # Meyer",
        "patient 4711\u200b^^^AMC",
        "patient 4711^^^AMC\u200b",
        "patient 47\u00a011^^^AMC",
        r"patient 47\X5C\11^^^AMC",
        r"patient 47\T\11^^^AMC",
        r"patient 47\X00\11^^^AMC",
        r"patient 4711^^^A\T\MC",
        r"patient 4711^^^A\X2a\MC",
        r"patient 4711^^^AMC\S",
    ],
)
def test_a_line_that_is_none_is_told_by_its_number_alone(tmp_path: Path, line: str) -> None:
    """Wildcards would ask the PACS for everybody; no part of the line is repeated, nor shown in the chain of causes."""
    with pytest.raises(ConfigurationError) as raised:
        patient_list(tmp_path, f"# first\npatient 1^^^AMC\n{line}\n")
    assert "line 3" in str(raised.value)
    assert "a.list" in str(raised.value)
    assert raised.value.__cause__ is None
    for word in ("4711", "Meyer", "47*"):
        assert word not in str(raised.value)


def test_a_list_that_cannot_be_read_is_told_so(tmp_path: Path) -> None:
    """Missing, or in another encoding: without a word of it."""
    with pytest.raises(ConfigurationError, match=r"a\.list"):
        read_patient_list(tmp_path / "a.list")
    (tmp_path / "a.list").write_bytes("patient Müller^^^AMC".encode("latin-1"))
    with pytest.raises(ConfigurationError) as raised:
        read_patient_list(tmp_path / "a.list")
    assert "ller" not in str(raised.value)


def test_a_mark_of_byte_order_is_no_line(tmp_path: Path) -> None:
    """Editors of some systems begin every file with one."""
    (tmp_path / "a.list").write_bytes(b"\xef\xbb\xbfpatient 4711^^^AMC\r\n")
    assert read_patient_list(tmp_path / "a.list").holds(PatientKey("AMC", "4711"), "1.2")


def test_a_list_shows_nobody(tmp_path: Path) -> None:
    """Neither does what it is made of."""
    found = patient_list(tmp_path, "patient 4711^^^AMC\nstudy 1.2.4711\n")
    assert "4711" not in repr(found) + repr(next(iter(found.patients)))


def test_a_doubt_about_the_issuer_includes_nobody_and_opts_out_everybody(tmp_path: Path) -> None:
    """The same lines as an inclusion list and as an opt-out list."""
    found = patient_list(tmp_path, "patient 1^^^AMC\npatient 2\nstudy 1.2\n")
    cases = {
        PatientKey("AMC", "1"): (True, True),
        PatientKey("", "1"): (False, True),
        PatientKey("LUMC", "1"): (False, False),
        PatientKey("", "2"): (True, True),
        PatientKey("AMC", "2"): (False, True),
        PatientKey("AMC", "3"): (False, False),
        PatientKey("", "3"): (False, False),
    }
    for patient, expected in cases.items():
        assert (found.holds(patient, "9"), found.may_mean(patient, "9")) == expected
        assert found.holds(patient, "1.2")
        assert found.may_mean(patient, "1.2")
