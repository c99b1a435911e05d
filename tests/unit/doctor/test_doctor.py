"""The doctor: every fault is one finding with its own words, and no check spoils another."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from mdmfs.access.acl import Acl
from mdmfs.cli.main import cli
from mdmfs.daemon.diagnosis import Check, examine, free_bytes, judge_clock
from mdmfs.demo.pki import Authority, Validity, delegate, name_of
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness
from mdmfs.hospital.dicom.probe import visit
from mdmfs.hospital.doctor import judge_health, judge_reads
from mdmfs.hospital.health import health_of
from mdmfs.hospital.keys.currency import catch_up
from mdmfs.model.errors import ConfigurationError, PacsUnreachableError, StoreError
from mdmfs.model.finding import Finding, Severity, worst
from mdmfs.pki.health import RENEW_CERTIFICATE, RENEW_LIST, examine_authorities, examine_credential
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import Crls, TrustAnchors
from mdmfs.wire.messages.administration import AskHealth, CopyHealth, Health, PacsHealth
from mdmfs.wire.messages.files import TOTALS_PATH, AskTotals, Totals
from mdmfs.wire.service import Reply, Request, Service
from mdmfs.worker.doctor import look_at_fuse
from tests.twins import certificates as make
from tests.twins.clinic import KEYSTORES, OWNER, PROJECT_LFN, Clinic
from tests.twins.grid import crl_of
from tests.twins.servers import free_port
from tests.twins.wire import calling, serving


async def all_well(check: Check) -> Sequence[Finding]:
    """Find nothing."""
    return [check.ok("as it should be")]


async def unreachable(check: Check) -> Sequence[Finding]:
    """Fail as a peer does."""
    message = f"{check.subject} is down"
    raise PacsUnreachableError(message)


async def unwilling(check: Check) -> Sequence[Finding]:
    """Fail, and know better than others what to do."""
    message = f"{check.subject} is no certificate"
    raise ConfigurationError(message, what_to_do="run openssl rehash on it")


async def broken(check: Check) -> Sequence[Finding]:
    """Fail as a mistake of ours does."""
    message = f"{check.subject} SECRET"
    raise KeyError(message)


async def hanging(check: Check) -> Sequence[Finding]:
    """Never end."""
    await trio.sleep_forever()
    return [check.ok("never")]


async def test_a_check_that_fails_or_hangs_is_one_fault_and_spoils_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Findings come in the order of the checks, all of them."""
    looks = {"a": all_well, "b": unreachable, "c": broken, "d": hanging, "e": all_well}
    found = await examine([Check("x", name, look) for name, look in looks.items()])
    assert [finding.subject for finding in found] == list(looks)
    assert [finding.severity.value for finding in found] == ["ok", "fault", "fault", "fault", "ok"]
    assert found[1].text == "is down"
    assert "report it" in found[2].text
    assert "SECRET" not in found[2].text
    assert "within 20 s" in found[3].text
    assert worst(found) is Severity.FAULT
    assert worst([]) is worst(found[:1]) is Severity.OK
    assert autojump_clock.current_time() >= 20


async def test_an_error_that_knows_what_to_do_says_it_to_the_doctor() -> None:
    """What its kind advises is not repeated: that is mostly to ask the doctor."""
    (found,) = await examine([Check("x", "a", unwilling)])
    assert found.text == "is no certificate: run openssl rehash on it"  # behind the subject, which a line begins with


def severities(found: Sequence[Finding]) -> set[str]:
    """Give how bad findings are."""
    return {finding.severity.value for finding in found}


def test_a_certificate_is_told_of_three_weeks_before_its_end(tmp_path: Path) -> None:
    """Then it is a warning, and after its end a fault that says since when."""
    day, today = dt.timedelta(days=1), dt.datetime.now(dt.UTC)
    issued = make.authority().issue(name_of("hosts", "hospital"), Validity(today - day, today + 100 * day))
    credential = issued.save(tmp_path, "host")
    assert severities(examine_credential("[tls]", credential, time.time())) == {"ok"}
    certificate = issued.leaf
    end = certificate.not_valid_after_utc.timestamp()
    assert severities(examine_credential("[tls]", credential, end - RENEW_CERTIFICATE + 5)) == {"warning"}
    (expired,) = examine_credential("[tls]", credential, end + 1)[:1]
    assert expired.severity is Severity.FAULT
    assert "has expired on" in expired.text
    (early,) = examine_credential("[tls]", credential, certificate.not_valid_before_utc.timestamp() - 5)[:1]
    assert "counts only from" in early.text


def test_a_proxy_is_told_of_an_hour_before_its_end(tmp_path: Path) -> None:
    """It lasts half a day as it is made: three weeks before its end it was always; what signed it is another affair."""
    day, hour, today = dt.timedelta(days=1), dt.timedelta(hours=1), dt.datetime.now(dt.UTC)
    jane = make.authority().issue(name_of("people", "jane"), Validity(today - day, today + 100 * day))
    proxy = delegate(jane, Validity(today - hour, today + 12 * hour))
    credential = proxy.save_proxy(tmp_path / "proxy")
    assert severities(examine_credential("proxy", credential, time.time())) == {"ok"}
    end = proxy.leaf.not_valid_after_utc.timestamp()
    soon = examine_credential("proxy", credential, end - 3600 + 5)
    assert [finding.severity.value for finding in soon] == ["warning", "ok"]
    assert "make a new one" in soon[0].text
    assert "has expired on" in examine_credential("proxy", credential, end + 1)[0].text


async def test_a_place_that_is_none_is_found_before_a_daemon_looks_for_it(tmp_path: Path) -> None:
    """A directory that is to be made below a file never will be."""
    (tmp_path / "file").touch()
    assert free_bytes(tmp_path / "a" / "b") > 0
    with pytest.raises(StoreError, match=f"{tmp_path}/file/a cannot be made: {tmp_path}/file is no directory"):
        free_bytes(tmp_path / "file" / "a")
    with pytest.raises(StoreError, match="cannot be looked into: File name too long"):
        free_bytes(tmp_path / ("a" * 300))


def test_a_crl_that_ends_or_is_missing_is_found(tmp_path: Path) -> None:
    """A list that is not current lets nobody in; one that is missing matters where one is required."""
    now, day = time.time(), dt.timedelta(days=1)
    today = dt.datetime.fromtimestamp(now, dt.UTC)
    authority = Authority.make(make.authority().certificate.subject, Validity(today - day, today + 100 * day))
    name = "0a1b2c3d"
    (tmp_path / f"{name}.0").write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    anchors = TrustAnchors(tmp_path)
    assert severities(examine_authorities("[tls]", anchors, now)) == {"ok"}
    required = TrustAnchors(tmp_path, Crls.REQUIRE)
    assert any("run fetch-crl" in it.text for it in examine_authorities("[tls]", required, now))
    ends = dt.datetime.fromtimestamp(now, dt.UTC).replace(microsecond=0) + dt.timedelta(days=3)
    (tmp_path / f"{name}.r0").write_bytes(crl_of(authority, validity=Validity(make.VALID.begin, ends)))
    assert severities(examine_authorities("[tls]", required, now)) == {"ok"}
    assert severities(examine_authorities("[tls]", required, ends.timestamp() - RENEW_LIST + 5)) == {"ok", "warning"}
    assert severities(examine_authorities("[tls]", required, ends.timestamp() + 5)) == {"ok", "fault"}
    (tmp_path / f"{name}.r0").write_bytes(b"no list")
    assert severities(examine_authorities("[tls]", anchors, now)) == {"ok", "fault"}


def test_what_the_daemon_alone_knows_is_judged() -> None:
    """A PACS that is left alone and a keystore that lies are faults; ways of retrieval are told, and who hears late."""
    pacs = [PacsHealth("main", "get", is_left_alone=False), PacsHealth("old", "", is_left_alone=True)]
    health = Health(pacs, {"k2": 3}, outbox=0, notices=1, files=7, untold=["k1"])
    found = list(judge_health(health, Check("daemon", "here", all_well)))
    assert [finding.severity.value for finding in found] == ["ok", "ok", "fault", "fault", "warning"]
    assert "images come by C-GET" in found[1].text
    assert "3 wrong shares" in found[3].text
    assert (found[4].subject, "has yet to acknowledge" in found[4].text) == ("here, k1", True)


@pytest.mark.parametrize(
    ("files", "is_room", "severity", "text"),
    [(299, True, "warning", "mdmfs stage"), (300, True, "ok", "mdmfs stage"), (7, False, "ok", "are full")],
)
def test_files_without_a_header_are_counted(files: int, *, is_room: bool, severity: str, text: str) -> None:
    """Where many are and there is room for them, something has gone wrong."""
    health = Health([], {}, outbox=0, notices=0, files=files, headerless=3, is_header_room=is_room)
    last = list(judge_health(health, Check("daemon", "here", all_well)))[-1]
    assert (last.subject, last.severity.value) == ("here, headers", severity)
    assert "of 3 files at least" in last.text
    assert text in last.text


async def test_who_has_not_acknowledged_what_was_decided_is_named(tmp_path: Path) -> None:
    """By the daemon, which alone knows: a keystore that refuses an order goes on answering others for minutes."""
    async with Clinic(tmp_path).open() as clinic:
        hospital, nobody = clinic.hospital, Acl(str(OWNER.dn), ())
        for name in KEYSTORES:
            await catch_up(name, hospital)
        assert not health_of(hospital).untold
        await hospital.store.write(lambda tx: tx.acls.set(PROJECT_LFN, nobody))
        assert health_of(hospital).untold == list(KEYSTORES)
        await catch_up(KEYSTORES[1], hospital)
        assert health_of(hospital).untold == [KEYSTORES[0], KEYSTORES[2]]


@pytest.mark.parametrize(
    ("copy", "severity", "text"),
    [
        (None, "ok", "works on the store itself"),
        (CopyHealth(behind=0, silence=3.0, lease=40.0), "ok", "may answer for 40 s more"),
        (CopyHealth(behind=7, silence=3.0, lease=40.0), "warning", "7 changes are not in its copy"),
        (CopyHealth(behind=0, silence=90.0, lease=0.0), "fault", "has no lease and refuses readers"),
    ],
)
def test_who_answers_readers_is_told_by_role_and_how_far_it_is_behind(
    copy: CopyHealth | None, severity: str, text: str
) -> None:
    """Without a lease it is of no use, and behind it may be for a moment."""
    health = Health([], {}, outbox=0, notices=0, files=7, copy=copy)
    first, *_, last = judge_reads(health, Check("reads", "here", all_well))
    assert first.severity.value == "ok"
    assert last.severity.value == severity
    assert text in last.text


async def test_a_visit_to_a_pacs_that_is_not_there_says_so() -> None:
    """The error of the association is the finding."""
    with pytest.raises(PacsUnreachableError, match="is the PACS running"):
        await visit(PacsAddress("NOBODY", "127.0.0.1", free_port()), Politeness(connect_timeout=2.0))


def test_a_file_that_is_no_configuration_is_an_error(tmp_path: Path) -> None:
    """And so is one that cannot be read."""
    path = tmp_path / "some.toml"
    path.write_text("[other]\nx = 1\n", encoding="utf-8")
    outcome = CliRunner().invoke(cli, ["doctor", str(path)])
    assert "no configuration of a zone" in str(outcome.exception)


def test_the_report_in_json_names_the_worst(tmp_path: Path) -> None:
    """A hospital of which nothing is there: every check is a fault, and the exit code says so."""
    path = tmp_path / "hospital.toml"
    path.write_text(
        """
[hospital]
name = "amc"
listen = "127.0.0.1:1"
directory = "state"
projects = "projects"
[tls]
certificate = "none.pem"
key = "none.key"
trust = "nowhere"
[[pacs]]
name = "main"
address = "NOBODY@127.0.0.1:1"
[[keystores]]
name = "k1"
address = "127.0.0.1:1"
dn = "/DC=org/CN=k1"
[metadata]
address = "127.0.0.1:1"
dn = "/DC=org/CN=metadata"
[[storage]]
name = "tier1"
kind = "webdav"
url = "https://127.0.0.1:1/sealed"
[keys]
threshold = 1
""",
        encoding="utf-8",
    )
    (tmp_path / "projects").mkdir()
    outcome = CliRunner().invoke(cli, ["doctor", "--json", str(path)])
    assert outcome.exit_code == 1
    report = json.loads(outcome.stdout)
    assert report["severity"] == "fault"
    by_check = {finding["check"]: finding["severity"] for finding in report["findings"]}
    asked = {"pacs", "keystore", "storage", "metadata", "daemon"}
    assert by_check.keys() == {"projects", "certificate", "authorities", "room", *asked}
    assert by_check["projects"] == "warning"
    faults = {name for name, severity in by_check.items() if severity == "fault"}
    assert faults >= {"pacs", "keystore", "storage", "metadata", "certificate", "daemon"}


def test_checks_are_listed_in_the_documentation() -> None:
    """What a line begins with can be looked up; see tests/architecture for the rest."""
    text = (Path(__file__).parents[3] / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in (
        "projects",
        "certificate",
        "authorities",
        "room",
        "pacs",
        "keystore",
        "storage",
        "metadata",
        "clock",
        "daemon",
        "fuse",
        "hospital",
    ):
        assert f"| `{name}` |" in text


def test_what_a_newer_daemon_tells_of_itself_is_passed_over() -> None:
    """At any depth: the rest is told. No other message is read so."""
    known = Health(
        [PacsHealth("main", "get", is_left_alone=False)],
        {},
        outbox=0,
        notices=1,
        files=7,
        copy=CopyHealth(behind=0, silence=3.0, lease=40.0),
    )
    told = msgspec.to_builtins(known)
    for part in (told, told["pacs"][0], told["copy"]):
        part["new"] = 1
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Health) == known
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"new": 1}), type=AskHealth)


def test_a_credential_that_is_none_raises_its_reason(tmp_path: Path) -> None:
    """The doctor turns it into a fault."""
    (tmp_path / "x.pem").write_text("nothing", encoding="ascii")
    with pytest.raises(ConfigurationError, match="certificate"):
        examine_credential("[tls]", Credential(tmp_path / "x.pem", tmp_path / "x.pem"), 0.0)
    with pytest.raises(ConfigurationError, match="No such file") as raised:
        examine_credential("proxy", Credential.of_proxy(tmp_path / "none"), 0.0)
    assert raised.value.what_to_do.startswith("make a proxy")


async def test_limits_of_the_kernel_that_cannot_be_raised_are_told() -> None:
    """Where fusectl is out of reach a lease may not end a mapping; what to type is said."""
    [finding] = await look_at_fuse(Check("fuse", "/dev/fuse", look_at_fuse), lambda: False)
    assert finding.severity is Severity.WARNING
    assert "mount -t fusectl fusectl /sys/fs/fuse/connections" in finding.text
    [finding] = await look_at_fuse(Check("fuse", "/dev/fuse", look_at_fuse), lambda: True)
    assert finding.severity is Severity.OK


async def test_a_peers_clock_is_compared_by_the_date_of_its_answer() -> None:
    """RFC 9110 section 6.6.1; what is within the resolution of that header is no difference."""

    async def answer(request: Request) -> Reply:
        await request.read(AskTotals)
        return Reply(Totals(0, 0))

    service = Service("clock", {("POST", TOTALS_PATH): answer})
    async with serving(service) as address, calling(address, make.person("jane")) as client:
        assert client.skew is None
        assert judge_clock("k1", client.skew).severity is Severity.WARNING
        await client.call(TOTALS_PATH, AskTotals("/"), Totals, deadline=trio.current_time() + 10)
        assert client.skew is not None
        assert abs(client.skew) < 5
        assert judge_clock("k1", client.skew).severity is Severity.OK


@pytest.mark.parametrize(("skew", "severity"), [(-7.0, "warning"), (7.0, "warning"), (70.0, "fault"), (4.0, "ok")])
def test_clocks_that_differ_are_told(skew: float, severity: str) -> None:
    """By how much, and which is ahead."""
    found = judge_clock("k1", skew)
    assert found.severity.value == severity
    assert ("ahead of" in found.text) is (skew > 5)
