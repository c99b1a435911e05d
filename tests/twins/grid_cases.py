"""Proxies and attribute certificates good and bad, each with the grid it is shown to: for us and for the oracles."""

from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mdmfs.demo.pki import LOOPBACK, Issued, delegate, name_of
from mdmfs.pki.proxy import LIMITED
from mdmfs.pki.voms import AUTHORITY_KEY, NO_REVOCATION
from tests.twins import certificates as make
from tests.twins.attributes import HOST, VO, Ac, carrying, carrying_octets, lsc_of
from tests.twins.grid import Grid, crl_of, future, make_grid, past, policy_of

ME = socket.gethostname()
"""Where libvomsapi thinks that it runs; our server's certificate says so too."""
ROOT = make.rsa_authority("CA of the grid")
OTHER = make.rsa_authority("other CA", key="other CA")
IMITATION = make.rsa_authority("CA of the grid", key="other CA")
MIDDLE = make.rsa_authority("sub-CA", key="sub-CA", by=ROOT)
HOSPITAL = ROOT.issue(name_of("hosts", "hospital"), make.VALID, [*LOOPBACK, x509.DNSName(ME)])
VOMS = make.rsa_host("voms", ROOT, key="VOMS")
WEB = make.rsa_host("web", ROOT, key="another host")
JANE = make.person("jane", ROOT)
MALLORY = make.person("mallory", ROOT)


@dataclasses.dataclass(frozen=True)
class Case:
    """What somebody shows, and how the grid differs from the usual one."""

    name: str
    shown: Issued
    change: Callable[[Grid], None] = lambda _: None


def cases(folder: Path) -> Iterator[Case]:
    """Give them all; programs of the grid make some of them, with files in a folder."""
    yield from _made_by_programs(folder)
    yield from _proxies()
    yield from _chains()
    yield from _attributes()
    yield from _bad_attributes()
    yield from _bad_issuers()


def usual_grid(folder: Path) -> Grid:
    """Make the grid that cases change."""
    return make_grid(folder, VOMS, ROOT)


def deep(issued: Issued, depth: int, policy: str = make.INHERIT_ALL) -> Issued:
    """Delegate so many times."""
    for _ in range(depth):
        issued = delegate(issued, make.VALID, policy=policy)
    return issued


def by(issued: Issued, *, cn: str = "") -> Issued:
    """Make a plain proxy."""
    return delegate(issued, make.VALID, cn=cn)


def _made_by_programs(folder: Path) -> Iterator[Case]:
    user = make.rsa_person("jane", ROOT)
    files = ["-cert", folder / "jane.pem", "-key", folder / "jane.key"]
    user.save(folder, "jane")
    VOMS.save(folder, "voms")
    fake = ["voms-proxy-fake", *files, "-certdir", usual_grid(folder / "grid").certificates, "-rfc", "-newformat"]
    fake += ["-hostcert", folder / "voms.pem", "-hostkey", folder / "voms.key", "-voms", VO, "-uri", f"{HOST}:15000"]
    plain = ["grid-proxy-init", *files, "-rfc", "-bits", "2048", "-q"]

    def made(name: str, command: Sequence[str | Path], *options: str) -> Case:
        file = folder / f"{name.replace(' ', '-')}.proxy"
        environment = {"PATH": "/usr/bin:/bin", "X509_CERT_DIR": str(folder / "grid" / "certificates")}
        _run_in_spite_of_crashes([*command, "-out", file, *options], environment)
        octets = file.read_bytes()
        key = serialization.load_pem_private_key(octets, None)
        return Case(name, Issued(tuple(x509.load_pem_x509_certificates(octets)), key))  # type: ignore[arg-type] # as made

    yield made("grid-proxy-init", plain)
    yield made("grid-proxy-init limited", plain, "-limited")
    yield made("grid-proxy-init independent", plain, "-independent")
    yield made("voms-proxy-fake", fake, "-fqan", f"/{VO}/neuro/Role=reader/Capability=NULL")
    yield made("voms-proxy-fake limited", fake, "-limited", "-fqan", f"/{VO}/Role=NULL/Capability=NULL")
    yield made("voms-proxy-fake for other hosts", fake, "-fqan", f"/{VO}", "-target", "a.example.org")
    yield made("voms-proxy-fake past", fake, "-fqan", f"/{VO}", "-pastac", "100:00", "-vomslife", "1")


def _run_in_spite_of_crashes(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    """Run a program that ends by SIGSEGV now and then: with ``-target``, voms-proxy-fake does in one run of four."""
    for _ in range(20):
        done = subprocess.run(command, check=False, capture_output=True, env=environment)
        if done.returncode != -signal.SIGSEGV:
            break
    done.check_returncode()


def _proxies() -> Iterator[Case]:
    yield Case("end entity", JANE)
    yield Case("proxy", by(JANE))
    yield Case("proxy of a proxy", deep(JANE, 2))
    yield Case("nine proxies deep", deep(JANE, 9))
    yield Case("limited proxy", deep(JANE, 1, LIMITED))
    yield Case("limited below limited", deep(JANE, 2, LIMITED))
    yield Case("limited below full", deep(by(JANE), 1, LIMITED))
    yield Case("independent proxy", deep(JANE, 1, make.INDEPENDENT))
    yield Case("full below independent", by(deep(JANE, 1, make.INDEPENDENT)))
    yield Case("unknown policy", deep(JANE, 1, make.UNKNOWN_POLICY))
    yield Case("path length kept", by(delegate(JANE, make.VALID, path_length=1)))
    yield Case("path length 0 exceeded", by(delegate(JANE, make.VALID, path_length=0)))
    yield Case("path length 1 exceeded", deep(delegate(JANE, make.VALID, path_length=1), 2))
    yield Case("expired proxy", delegate(JANE, make.PAST))
    yield Case("proxy not valid yet", delegate(JANE, future(1)))
    yield Case("expired proxy in the middle", by(delegate(JANE, make.PAST)))
    yield Case("expired user, fresh proxy", by(make.person("jane", ROOT, validity=make.PAST)))
    yield Case("GT2 proxy", make.OddProxy(info=None).of(JANE))
    yield Case("draft proxy", make.OddProxy(info_oid=make.DRAFT_PROXY_CERT_INFO).of(JANE))
    yield Case("proxy named like another user", make.OddProxy(subject=name_of("people", "mallory")).of(JANE))
    yield Case(
        "proxy that says it is a CA", make.OddProxy(more=[x509.BasicConstraints(ca=True, path_length=None)]).of(JANE)
    )
    yield Case("proxy signed with another key", _forged(JANE, MALLORY))


def _chains() -> Iterator[Case]:
    below = make.person("jane", MIDDLE)
    shown = by(Issued((*below.certificates, MIDDLE.certificate), below.key))

    def middle(*allowed: str, root_allows: Sequence[str] = ()) -> Callable[[Grid], None]:
        def change(grid: Grid) -> None:
            grid.trust(MIDDLE, *allowed)
            grid.write_policy(ROOT, policy_of(ROOT, *root_allows))

        return change

    yield Case("unknown CA", by(make.person("jane", OTHER)))
    yield Case("another CA of the same name", by(make.person("jane", IMITATION)))
    yield Case("current CRL", by(JANE), lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [MALLORY.leaf])))
    yield Case("revoked user", JANE, lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [JANE.leaf])))
    yield Case("revoked user behind a proxy", by(JANE), lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [JANE.leaf])))
    yield Case(
        "revoked user, nine proxies", deep(JANE, 9), lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [JANE.leaf]))
    )
    yield Case("expired CRL", by(JANE), lambda grid: grid.write_crl(ROOT, crl_of(ROOT, validity=past(1))))
    yield Case("CRL of a CA of the same name", by(JANE), lambda grid: grid.write_crl(ROOT, crl_of(IMITATION)))
    yield Case("signing policy violated", by(JANE), lambda grid: grid.write_policy(ROOT, policy_of(ROOT, "/O=other/*")))
    yield Case("signing policy missing", by(JANE), lambda grid: _remove(grid, "*.signing_policy"))
    yield Case("signing policy of another CA", by(JANE), lambda grid: grid.write_policy(ROOT, policy_of(OTHER)))
    yield Case(
        "signing policy, exact name", by(JANE), lambda grid: grid.write_policy(ROOT, policy_of(ROOT, str(JANE.dn)))
    )
    yield Case("sub-CA", shown, middle())
    yield Case("sub-CA without a policy", shown)
    yield Case("sub-CA that the root does not allow", shown, middle(root_allows=[str(JANE.dn)]))
    yield Case("user that the sub-CA does not allow", shown, middle("/O=other/*"))
    yield Case(
        "revoked sub-CA", shown, _both(middle(), lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [MIDDLE.certificate])))
    )
    yield Case(
        "revoked by the sub-CA",
        shown,
        _both(middle(), lambda grid: grid.write_crl(MIDDLE, crl_of(MIDDLE, [below.leaf]))),
    )


def _attributes() -> Iterator[Case]:
    def one(name: str, *fqans: str, **others: object) -> Case:
        return Case(name, carrying([_ac(*fqans, **others)]).of(JANE))

    yield one("member of a VO")
    yield one("member of a group", f"/{VO}/neuro/Role=NULL/Capability=NULL", f"/{VO}/Role=NULL/Capability=NULL")
    yield one("role in a group", f"/{VO}/neuro/Role=reader/Capability=NULL")
    yield one("short FQANs", f"/{VO}", f"/{VO}/neuro", f"/{VO}/neuro/Role=reader")
    yield one("holder by subject", holder_name="subject")
    yield one("signed with SHA-384", digest=hashes.SHA384())
    yield one("meant for this host", targets=["a.example.org", ME])
    yield one("an uncritical extension more", more={"1.2.3.4": (False, core.Null().dump())})
    yield Case("two ACs", carrying([_ac(), _ac(f"/{VO}/neuro")]).of(JANE))
    yield Case("attributes two proxies up", deep(carrying([_ac()]).of(JANE), 2))
    yield Case("newer attributes around older", carrying([_ac(f"/{VO}/new")]).of(carrying([_ac()]).of(JANE)))
    yield Case("attributes on a limited proxy", deep(carrying([_ac()]).of(JANE), 1, LIMITED))
    revoked = carrying([_ac()]).of(JANE)
    yield Case(
        "attributes of a revoked user",
        revoked,
        lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [JANE.leaf])),
    )


def _bad_attributes() -> Iterator[Case]:
    def one(name: str, *fqans: str, **others: object) -> Case:
        return Case(name, carrying([_ac(*fqans, **others)]).of(JANE))

    yield one("expired AC", validity=past(1))
    yield one("AC not valid yet", validity=future(1))
    yield one("stolen AC", holder=MALLORY.leaf)
    yield one("stolen AC, by subject", holder=MALLORY.leaf, holder_name="subject")
    yield one(
        "stolen AC, our serial, another's name", holder=make.person("jane", OTHER).leaf, serial=JANE.leaf.serial_number
    )
    yield one("serial of a former certificate", serial=4711)
    yield one("FQAN of another VO", f"/{VO}", "/other.example/Role=admin")
    yield one("FQAN of a VO that begins alike", f"/{VO}.evil/Role=admin")
    yield one("FQANs as UTF8Strings", value_kind=core.UTF8String)
    yield one("meant for another host", targets=["a.example.org"])
    yield one("meant for nobody", targets=[])
    yield one("unknown critical extension", more={"1.2.3.4": (True, core.Null().dump())})
    yield one("no noRevAvail", without=frozenset({NO_REVOCATION}))
    yield one("no authorityKeyIdentifier", without=frozenset({AUTHORITY_KEY}))
    yield one("VO above vomsdir", authority=f"../{VO}://{HOST}:15000")
    yield one("host above the VO", authority=f"{VO}://../{VO}/{HOST}:15000")
    yield one("no port", authority=f"{VO}://{HOST}")
    good = _ac()
    tampered = good.replace(b"Role=NULL", b"Role=root")
    yield Case("tampered FQAN", carrying([tampered]).of(JANE))
    yield Case("tampered signature", carrying([good[:-1] + bytes([good[-1] ^ 1])]).of(JANE))
    yield Case("no AC in the list", carrying([]).of(JANE))
    yield Case(
        "an AC known here and one that is not",
        carrying([good, _ac("/elsewhere", authority="elsewhere://voms.elsewhere:1")]).of(JANE),
    )
    yield Case("nothing but noise", carrying_octets(b"\x30\x03\x02\x01").of(JANE))


def _bad_issuers() -> Iterator[Case]:
    rogue = make.rsa_host("voms", OTHER, key="another host")
    imitator = make.rsa_host("voms", IMITATION, key="another host")
    old = make.rsa_host("voms", ROOT, key="VOMS", validity=make.PAST)

    def one(name: str, change: Callable[[Grid], None] = lambda _: None, **others: object) -> Case:
        return Case(name, carrying([_ac(**others)]).of(JANE), change)

    yield one("rogue: another CA, as it is", by=rogue)
    yield one("rogue: another CA, in the LSC", lambda grid: grid.write_lsc(lsc_of(rogue.leaf)), by=rogue)
    yield one("rogue: a CA of the same name", by=imitator)
    yield one("rogue: another host of our CA", by=WEB)
    yield one("rogue: another host under the name", by=WEB, named=VOMS.leaf)
    yield one("rogue: another host with the certificate", by=WEB, shown=VOMS.certificates, named=VOMS.leaf)
    yield one("rogue: the user himself", by=JANE)
    yield one("LSC with another name", lambda grid: grid.write_lsc(lsc_of(WEB.leaf)))
    yield one("LSC with another CA", lambda grid: grid.write_lsc(lsc_of(rogue.leaf)))
    yield one(
        "LSC with two chains",
        lambda grid: grid.write_lsc(f"{lsc_of(rogue.leaf)}------ NEXT CHAIN ------\n{lsc_of(VOMS.leaf)}"),
    )
    yield one("no LSC", lambda grid: _remove(grid, "*.lsc"))
    yield one("empty LSC", lambda grid: grid.write_lsc(""))
    yield one("expired VOMS server", by=old)
    yield one("revoked VOMS server", lambda grid: grid.write_crl(ROOT, crl_of(ROOT, [VOMS.leaf])))
    yield one(
        "root of its own along",
        lambda grid: grid.write_lsc(lsc_of(rogue.leaf, OTHER.certificate)),
        by=rogue,
        shown=(rogue.leaf, OTHER.certificate),
    )


def _ac(*fqans: str, holder: x509.Certificate = JANE.leaf, by: Issued = VOMS, **others: object) -> bytes:
    told = {"fqans": fqans} if fqans else {}
    return Ac(holder, by, **told, **others).der()  # type: ignore[arg-type] # the caller's are right


def _forged(owner: Issued, thief: Issued) -> Issued:
    """Sign a proxy of one user's name with another's key."""
    made = delegate(Issued(owner.certificates, thief.key), make.VALID)
    return Issued((made.leaf, *owner.certificates), made.key)


def _remove(grid: Grid, pattern: str) -> None:
    for file in grid.folder.rglob(pattern):
        file.unlink()


def _both(*changes: Callable[[Grid], None]) -> Callable[[Grid], None]:
    def change(grid: Grid) -> None:
        for one in changes:
            one(grid)

    return change
