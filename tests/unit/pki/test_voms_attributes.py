"""Attribute certificates that no oracle was asked about; the others are in tests/boundary/test_voms_oracle.py."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization

from mdmfs.demo.pki import Authority
from mdmfs.model.errors import ConfigurationError, MalformedNameError
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.certificate import Certificate
from mdmfs.pki.lsc import parse_lsc, read_lsc
from mdmfs.pki.proxy import prove
from mdmfs.pki.voms import VomsDirectory
from tests.twins import certificates as make
from tests.twins.attributes import HOST, VO, Ac, carrying, lsc_of
from tests.twins.grid import Grid, make_grid

VOMS = make.host("voms")
JANE = make.person("jane")


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Know one VOMS server."""
    return make_grid(tmp_path, VOMS)


def fqans(grid: Grid, *acs: bytes, hosts: frozenset[str] = frozenset({"hospital.example.org"})) -> list[str]:
    """Give the FQANs that a proxy with these ACs brings."""
    chain = prove(make.chain_of(carrying(acs).of(JANE)))
    grants = VomsDirectory(grid.vomsdir, hosts).grants_of(chain, Authorities.read(grid.anchors), time.time())
    return [str(fqan) for grant in grants for fqan in grant.fqans]


def test_fqans_are_brought_into_one_form(grid: Grid) -> None:
    """Without NULL roles and capabilities, each once, in their order: the first is the primary one."""
    given = [
        f"/{VO}/b/Role=NULL/Capability=NULL",
        f"/{VO}/a",
        f"/{VO}/b",
        f"/{VO}/a/Role=x/Capability=y",
        f"/{VO}/a/Role=x",
    ]
    assert fqans(grid, Ac(JANE.leaf, VOMS, given).der()) == [f"/{VO}/b", f"/{VO}/a", f"/{VO}/a/Role=x"]


def test_a_holder_may_be_named_by_his_dn_alone(grid: Grid) -> None:
    """RFC 5755 section 4.2.2; a former certificate of the same user is then the same holder."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, holder_name="entity").der()) == [f"/{VO}"]
    assert fqans(grid, Ac(make.person("mallory").leaf, VOMS, holder_name="entity").der()) == []


@pytest.mark.parametrize(
    "target", ["hospital.example.org", "HOSPITAL.example.org", "https://hospital.example.org:8443/x"]
)
def test_a_target_is_one_of_our_names(grid: Grid, target: str) -> None:
    """Bare, as VOMS writes it, or as a URI; and no other host's."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, targets=["a.b", target]).der()) == [f"/{VO}"]
    assert fqans(grid, Ac(JANE.leaf, VOMS, targets=[target.replace("ple.org", "ple.org.evil")]).der()) == []
    assert fqans(grid, Ac(JANE.leaf, VOMS, targets=[target]).der(), hosts=frozenset()) == []


def test_a_signature_with_sha_1_is_none(grid: Grid) -> None:
    """The libraries of the grid still take it; collisions have been made with it."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, digest=hashes.SHA1()).der()) == []  # noqa: S303 that is the attack


@pytest.mark.parametrize(
    "fqan", ["", "/", VO, f"/{VO}/", f"//{VO}", f"/{VO}/../x", f"/{VO}/a b", f"/{VO}/Role=", f"/{VO}/\xe4"]
)
def test_an_fqan_that_voms_would_not_write_takes_all_along(grid: Grid, fqan: str) -> None:
    """A server that writes one of them is not understood in the others either."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, [f"/{VO}", fqan]).der()) == []


@pytest.mark.parametrize(
    "authority",
    [
        f"..://{HOST}:1", f".://{HOST}:1", f"{VO}://..:1", f"{VO}://.:1", f"{VO}/x://{HOST}:1", f"{VO}://{HOST}/x:1",
        f"{VO}\x00://{HOST}:1", f"{VO}%2f..://{HOST}:1", f"{VO}://{HOST}:", f"{VO}://{HOST}", f"{VO}:{HOST}:1", "",
        f"{VO}://{HOST}\n:1", f"a..b://{HOST}:1",
    ],
)  # fmt: skip
def test_the_name_of_a_vo_chooses_no_file_but_its_own(grid: Grid, authority: str) -> None:
    """Nor does the host's: what is not a plain name opens nothing."""
    for vo in ("..", "a..b", f"{VO}%2f.."):
        (grid.vomsdir / vo).mkdir(exist_ok=True)
        (grid.vomsdir / vo / f"{HOST}.lsc").write_text(lsc_of(VOMS.leaf))
    (grid.vomsdir / VO / "..lsc").write_text(lsc_of(VOMS.leaf))
    assert fqans(grid, Ac(JANE.leaf, VOMS, authority=authority).der()) == []


def test_too_many_acs_or_fqans_are_not_worked_through(grid: Grid) -> None:
    """Sixteen ACs, 256 FQANs each."""
    one = Ac(JANE.leaf, VOMS).der()
    assert len(fqans(grid, *[one] * 16)) == 16
    assert fqans(grid, *[one] * 17) == []
    assert len(fqans(grid, Ac(JANE.leaf, VOMS, [f"/{VO}/g{place}" for place in range(256)]).der())) == 256
    assert fqans(grid, Ac(JANE.leaf, VOMS, [f"/{VO}/g{place}" for place in range(257)]).der()) == []


def test_a_log_line_says_whose_attributes_do_not_count_and_why(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    """One for each AC; an AC's own words are not in it."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, validity=make.PAST).der(), b"0\x00") == []
    assert "CN=jane does not count: it has expired" in caplog.text
    assert len(caplog.records) == 2
    caplog.clear()
    assert fqans(grid, Ac(JANE.leaf, VOMS, authority="evil\r\nname://x:1").der()) == []
    assert "evil" not in caplog.text


def test_an_lsc_file_is_read_with_quotes_comments_and_several_chains(grid: Grid) -> None:
    """As VOs publish them."""
    web = make.host("web")
    first, second = lsc_of(VOMS.leaf).splitlines()
    text = f'# ours\n"{first}"\n  {second}  \n\n-----NEXT CHAIN-----\n{lsc_of(web.leaf)}'
    chains = parse_lsc(text)
    assert [chain.pairs[0][0] for chain in chains] == [VOMS.dn, web.dn]
    grid.write_lsc(text)
    assert fqans(grid, Ac(JANE.leaf, web).der()) == [f"/{VO}"]


def test_an_lsc_file_means_the_servers_that_it_names_and_no_others(grid: Grid) -> None:
    """Every certificate that came stands there, in order, from the server's own on; and one has come."""
    web, ca = make.host("web"), make.authority()
    (chain,) = parse_lsc(lsc_of(VOMS.leaf, ca.certificate))
    voms, above, other = (
        Certificate(it.public_bytes(serialization.Encoding.DER)) for it in (VOMS.leaf, ca.certificate, web.leaf)
    )
    assert chain.matches([voms])
    assert chain.matches([voms, above])
    for certificates in ([], [other], [above], [above, voms], [voms, other], [voms, above, above]):
        assert not chain.matches(certificates)
    grid.write_lsc(lsc_of(web.leaf))
    assert fqans(grid, Ac(JANE.leaf, VOMS).der()) == []


def test_the_names_of_a_server_and_its_ca_are_not_enough(grid: Grid) -> None:
    """Whoever takes both has other keys."""
    false = Authority.make(make.authority().certificate.subject, make.VALID)
    assert fqans(grid, Ac(JANE.leaf, make.host("voms", false)).der()) == []
    assert fqans(grid, Ac(JANE.leaf, make.host("voms", make.authority())).der()) == [f"/{VO}"]


@pytest.mark.parametrize(
    "text", ["/O=a\n", "/O=a\n/O=b\n/O=c\n", "O=a\n/O=b\n", "/O=\n/O=b\n", "/O=a\n/O=b\n--NEXT CHAIN--\n/O=c\n"]
)
def test_an_lsc_file_that_is_not_understood_names_nobody(tmp_path: Path, text: str) -> None:
    """Not even in the chains that are whole."""
    with pytest.raises(MalformedNameError):
        parse_lsc(text)
    file = tmp_path / "x.lsc"
    for octets in (text.encode(), b"/O=a\n/O=\xff\n"):
        file.write_bytes(octets)
        with pytest.raises(ConfigurationError, match=r"x\.lsc"):
            read_lsc(file)
