"""Noise for the parsers of the pki, from a seed: whatever comes in, out comes a verdict or a named refusal.

``FUZZERS`` gives each by name; a call with a count and a seed runs so many inputs and tells how many were accepted. The
unit tests run a few thousand, ``tests/bench`` may run a million.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.access.text import format_acl, parse_acl
from mdmfs.demo.pki import delegate
from mdmfs.model.errors import ConfigurationError, CredentialRefusedError, MalformedNameError
from mdmfs.model.identity import Dn, Fqan
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.lsc import parse_lsc
from mdmfs.pki.proxy import ProvenChain, principal_of, prove
from mdmfs.pki.signing_policy import SigningPolicy
from mdmfs.pki.voms import VomsDirectory
from tests.twins import certificates as make
from tests.twins.attributes import Ac, carrying, lsc_of
from tests.twins.grid import make_grid, policy_of

SPLICES: Final = (
    b"\x30\x80",
    b"\x00\x00",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x24\x80",
    b"\xa0\x00",
    b"\x1f\xff\xff\xff\x7f",
)


def mutate(octets: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat or splice a little; mostly one place, so that much of the parser is reached."""
    changed = bytearray(octets)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        place = draw.randrange(len(changed) + 1)
        match draw.randrange(8):
            case 0 | 1 | 2 if place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
            case 3 if place < len(changed):
                changed[place] = draw.randrange(256)
            case 4 | 5:
                del changed[place : place + draw.choice((1, 1, 2, 8, 64))]
            case 6:
                changed[place:place] = changed[place : place + draw.choice((1, 4, 32))]
            case _:
                changed[place:place] = draw.choice(SPLICES)
    return bytes(changed)


def fuzz_proxies(count: int, seed: int) -> int:
    """Change a byte or more of a chain; a principal comes out, or ``CredentialRefusedError``."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = make.chain_of(delegate(delegate(make.person("jane"), make.VALID), make.VALID))
    accepted = 0
    for _ in range(count):
        chain = list(good)
        place = draw.randrange(len(chain))
        chain[place] = mutate(chain[place], draw)
        try:
            principal_of(chain)
        except CredentialRefusedError as error:
            _read(error)
        else:
            accepted += 1
    return accepted


def fuzz_attributes(count: int, seed: int) -> int:
    """Change what stands where ACs belong: grants come out, and none that the VOMS server did not sign."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    voms, jane = make.host("voms"), make.person("jane")
    good = carrying([Ac(jane.leaf, voms, targets=["localhost"]).der()]).of(jane)
    extension = good.leaf.extensions[-1].value.public_bytes()
    accepted = 0
    with TemporaryDirectory() as name:
        grid = make_grid(Path(name), voms)
        vomsdir = VomsDirectory(grid.vomsdir, frozenset({"localhost"}))
        authorities = Authorities.read(grid.anchors)
        chain = prove(make.chain_of(good))
        [right] = vomsdir.grants_of(chain, authorities, time.time())
        logging.disable(logging.WARNING)
        try:
            for _ in range(count):
                grants = vomsdir.grants_of(_with(chain, mutate(extension, draw)), authorities, time.time())
                assert all(grant == right for grant in grants)
                accepted += bool(grants)
        finally:
            logging.disable(logging.NOTSET)
    return accepted


def _read(error: Exception) -> None:
    """Make sure that a refusal says something."""
    if not str(error):
        message = "a refusal without a reason"
        raise AssertionError(message) from error


def _with(chain: ProvenChain, octets: bytes) -> ProvenChain:
    """Put other octets where the ACs are, as if its user had signed them."""
    [oid] = [oid for oid in chain.certificates[0].extensions if oid.endswith(".100.100.5")]
    leaf = chain.certificates[0]
    extension = leaf.extensions[oid].copy()
    extension["extn_value"].set(octets)
    leaf.extensions[oid] = extension
    return chain


def fuzz_signing_policies(count: int, seed: int) -> int:
    """Change a signing policy: it is read, or refused by name; what allows another name was written so."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = policy_of(make.authority(), "/O=mdmfs demonstration/*", "/O=a/CN=host/*", "/C=x/E=a@b").encode()
    accepted = 0
    for _ in range(count):
        text = mutate(good, draw).decode("utf-8", "replace")
        try:
            SigningPolicy.parse(text).allows(make.person("jane").dn, make.person("jane").dn)
        except ConfigurationError as error:
            _read(error)
        else:
            accepted += 1
    return accepted


def fuzz_lsc(count: int, seed: int) -> int:
    """Change an LSC file: chains come out, or ``MalformedNameError``."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = (lsc_of(make.host("voms").leaf) + "------ NEXT CHAIN ------\n" + lsc_of(make.host("web").leaf)).encode()
    accepted = 0
    for _ in range(count):
        try:
            parse_lsc(mutate(good, draw).decode("utf-8", "replace"))
        except MalformedNameError as error:
            _read(error)
        else:
            accepted += 1
    return accepted


def fuzz_names(count: int, seed: int) -> int:
    """Change a DN in either form, or an FQAN: a name comes out that reads itself again, or ``MalformedNameError``."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = [
        (Dn, rb"/DC=org/DC=terena/C=NL/O=A\/B\, C/CN=Jane Doe 42+UID=jd/E=jane@example.org"),
        (Dn, b"E=jane@example.org,CN=Jane \\2C Doe,O=A\\, B,1.2.3.4=#0C03414243,DC=org"),
        (Fqan, b"/neuro.example/imaging/mr-2/Role=analyst/Capability=NULL"),
    ]
    accepted = 0
    for number in range(count):
        kind, octets = good[number % len(good)]
        try:
            name = kind.parse(mutate(octets, draw).decode("utf-8", "surrogateescape"))
        except MalformedNameError as error:
            _read(error)
        else:
            assert kind.parse(str(name)) == name
            accepted += 1
    return accepted


def fuzz_acl_texts(count: int, seed: int) -> int:
    """Change an ACL's text: entries come out that are written and read again alike, or ``MalformedNameError``."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = (
        b"# file: x\nuser::rwxa-\nuser:/O=x/CN=a\\2C b:r-x--@2027-01-31T12:00:00Z\t#effective:r----\n"
        b"group:/v/g/Role=r:rx\nmask::rx,other::---\ndefault:user:/O=x/CN=c:d:rx\n"
    )
    accepted = 0
    for _ in range(count):
        try:
            read = parse_acl(mutate(good, draw).decode("utf-8", "surrogateescape"))
            acl = Acl("/O=x/CN=owner", read.entries, read.defaults)
        except MalformedNameError as error:
            _read(error)
        else:
            again = parse_acl(format_acl(acl))
            assert Acl(acl.owner, again.entries, again.defaults).encode() == acl.encode()
            accepted += 1
    return accepted


def fuzz_acl_octets(count: int, seed: int) -> int:
    """Change an ACL's bytes as keystores get them: an ACL comes out, or ``MalformedNameError``."""
    draw = random.Random(seed)  # noqa: S311 noise is no secret
    good = Acl(
        "/O=x/CN=owner",
        (Entry(EntryKind.OWNER, "", 15), Entry(EntryKind.USER, "/O=x/CN=a", 3, 1.5), Entry(EntryKind.MASK, "", 3)),
        (Entry(EntryKind.GROUP, "/v/g", 3),),
    ).encode()
    accepted = 0
    for _ in range(count):
        try:
            acl = Acl.decode(mutate(good, draw))
        except MalformedNameError as error:
            _read(error)
        else:
            assert Acl.decode(acl.encode()).encode() == acl.encode()
            accepted += 1
    return accepted


FUZZERS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "proxies": fuzz_proxies,
    "attribute certificates": fuzz_attributes,
    "signing policies": fuzz_signing_policies,
    "LSC files": fuzz_lsc,
    "DNs and FQANs": fuzz_names,
    "ACL texts": fuzz_acl_texts,
    "ACL bytes": fuzz_acl_octets,
}
