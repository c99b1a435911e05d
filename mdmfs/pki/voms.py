"""VOMS attribute certificates: which groups and roles of a VO a proxy carries, and whether that is true.

An attribute certificate (AC) that cannot be verified gives no FQAN, and a line in the log says why. The DN stays: the
chain proves that by itself, and an AC can only ever add rights, so its holder without it is a caller with fewer rights,
as if no VOMS server had been asked. Each AC counts by itself: a site that knows one of two VOs serves that one.

What an AC says of its VO and server is the sender's word until the signature is verified: it chooses a file below
``vomsdir`` only after its characters were checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from asn1crypto import cms, core, parser, x509

from mdmfs.model.errors import MdmfsError
from mdmfs.model.identity import Dn, Fqan
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.certificate import UNREADABLE, Certificate
from mdmfs.pki.dn import dn_of
from mdmfs.pki.lsc import read_lsc
from mdmfs.pki.proxy import ProvenChain
from mdmfs.pki.trust import Stamp, stamps_within

log = logging.getLogger(__name__)

AC_SEQUENCE: Final = "1.3.6.1.4.1.8005.100.100.5"
FQANS: Final = "1.3.6.1.4.1.8005.100.100.4"
AC_CERTIFICATES: Final = "1.3.6.1.4.1.8005.100.100.10"
TARGETS: Final = "2.5.29.55"
NO_REVOCATION: Final = "2.5.29.56"
AUTHORITY_KEY: Final = "2.5.29.35"
SUBJECT_KEY: Final = "2.5.29.14"
LEEWAY: Final = 300.0
"""Seconds by which the clock of a VOMS server may be ahead of ours."""
MAX_ACS: Final = 16
MAX_FQANS: Final = 256
MAX_SERIAL_BYTES: Final = 20
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9])?")
_AUTHORITY: Final = re.compile(r"(?P<vo>[^:/]+)://(?P<host>[^:/]+):[0-9]{1,5}")


class AttributeCertificates(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    """The ACs of a proxy."""

    _child_spec = cms.AttributeCertificateV2


class AcSequence(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    """The value of the extension: a sequence around the sequence."""

    _child_spec = AttributeCertificates


class IssuerCertificates(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    """The AC issuer's certificate and the CAs above it, as far as the server sends them."""

    _child_spec = x509.Certificate


class IssuerSequence(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    """The value of the extension: a sequence around the sequence."""

    _child_spec = IssuerCertificates


class FqanValues(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    """VOMS writes FQANs as octet strings only."""

    _child_spec = core.OctetString


class IetfAttrSyntax(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    """RFC 5755 section 4.4."""

    _fields = [  # noqa: RUF012 asn1crypto's way to declare
        ("policy_authority", x509.GeneralNames, {"implicit": 0}),
        ("values", FqanValues),
    ]


class _NotVerifiedError(Exception):
    """An AC does not count; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """What one verified AC gives its holder, and for how long."""

    fqans: tuple[Fqan, ...]
    begins: float
    """Seconds since the epoch, with the leeway for clocks taken off."""
    ends: float
    """When the AC or the first certificate above it ends."""
    holds_until: float
    """Until when the revocation lists that were asked are current."""


@dataclasses.dataclass(frozen=True, slots=True)
class VomsDirectory:
    """``/etc/grid-security/vomsdir``: a folder for each VO, in it ``HOST.lsc`` for each of its servers."""

    path: Path
    hosts: frozenset[str] = frozenset()
    """Names of this server, in lower case: an AC with targets counts only where one of them is named."""

    def stamp(self) -> Stamp:
        """Say in which state the files are; raises ``OSError``."""
        folders = [folder for folder in self.path.iterdir() if folder.is_dir()]
        return tuple(
            (f"{folder.name}/{name}", inode, size, modified)
            for folder in sorted(folders)
            for name, inode, size, modified in stamps_within(folder.glob("*.lsc"))
        )

    def grants_of(self, chain: ProvenChain, authorities: Authorities, now: float) -> tuple[Grant, ...]:
        """Verify the ACs of a chain and give what they grant; never raises for what stands in the chain.

        The ACs of the outermost proxy that has any count, as in VOMS itself: attributes are renewed by making a proxy
        with new ones around the old.
        """
        who = chain.end_entity.subject
        found = next((one for one in chain.certificates[: chain.place + 1] if AC_SEQUENCE in one.extensions), None)
        if found is None:
            return ()
        try:
            acs = [ac for group in _load(AcSequence, found.extensions[AC_SEQUENCE]["extn_value"]) for ac in group]
        except UNREADABLE:
            log.warning("the VOMS attributes of %s do not count: their extension cannot be read", who)
            return ()
        if len(acs) > MAX_ACS:
            log.warning("the VOMS attributes of %s do not count: more than %d attribute certificates", who, MAX_ACS)
            return ()
        return tuple(grant for ac in acs for grant in self._grant_of(ac, chain.end_entity, authorities, now))

    def _grant_of(
        self, ac: cms.AttributeCertificateV2, holder: Certificate, authorities: Authorities, now: float
    ) -> Iterator[Grant]:
        try:
            yield self._verify(ac, holder, authorities, now)
        except (_NotVerifiedError, MdmfsError) as error:
            log.warning("an attribute certificate of %s does not count: %s", holder.subject, error)
        except UNREADABLE as error:
            log.warning("an attribute certificate of %s cannot be read: %s", holder.subject, type(error).__name__)

    def _verify(
        self, ac: cms.AttributeCertificateV2, holder: Certificate, authorities: Authorities, now: float
    ) -> Grant:
        told = ac["ac_info"]
        if told["version"].native != "v2" or len(told["serial_number"].contents) > MAX_SERIAL_BYTES:
            _refuse("its version or serial number is not that of an AC (RFC 5755 section 4.2)")
        _refuse_other_holder(told["holder"], holder)
        begins, ends = _validity(told["att_cert_validity_period"])
        if now >= ends:
            _refuse("it has expired")
        extensions = self._extensions(told["extensions"])
        vo, host, fqans = _attributes(told["attributes"])
        issuers = _issuers(extensions)
        if not any(chain.matches(issuers) for chain in read_lsc(self.path / vo / f"{host}.lsc")):
            _refuse(
                f"vomsdir/{vo}/{host}.lsc does not name its issuer {issuers[0].subject} and the CAs that came with it"
            )
        path = authorities.path_of(issuers, now)
        _refuse_bad_signature(ac, path[0], extensions)
        return Grant(fqans, begins - LEEWAY, min(ends, *(one.ends for one in path)), authorities.vet(path, now))

    def _extensions(self, listed: x509.Extensions) -> dict[str, core.OctetString]:
        extensions = {one["extn_id"].dotted: one["extn_value"] for one in listed}
        if len(extensions) != len(listed):
            _refuse("it has an extension twice")
        if any(one["critical"].native and one["extn_id"].dotted != TARGETS for one in listed):
            _refuse("it has a critical extension that is not known here")
        if not extensions.keys() >= {NO_REVOCATION, AUTHORITY_KEY}:
            _refuse("it lacks the extensions noRevAvail or authorityKeyIdentifier")
        if TARGETS in extensions and not any(self._is_me(name) for name in _targets(extensions[TARGETS].contents)):
            _refuse("it is meant for other hosts")
        return extensions

    def _is_me(self, name: str) -> bool:
        return name.lower() in self.hosts or (urllib.parse.urlsplit(name).hostname or "") in self.hosts


def claims_of(certificates: Sequence[Certificate]) -> frozenset[str]:
    """Tell what a chain, leaf first, says of its FQANs, without verifying any of it.

    Good for telling two proxies of one person apart, and for nothing else: whoever grants something verifies. Where it
    cannot be read, a digest stands for it.
    """
    found = next((one for one in certificates if AC_SEQUENCE in one.extensions), None)
    if found is None:
        return frozenset()
    value = found.extensions[AC_SEQUENCE]["extn_value"]
    try:
        infos = [ac["ac_info"] for group in _load(AcSequence, value) for ac in group]
        return frozenset(str(fqan) for info in infos for fqan in _attributes(info["attributes"])[2])
    except (_NotVerifiedError, MdmfsError, *UNREADABLE):
        return frozenset({hashlib.sha256(bytes(value)).hexdigest()})


def _load(kind: type[core.SequenceOf], value: core.OctetString) -> core.SequenceOf:
    return kind.load(value.contents, strict=True)


def _refuse_other_holder(told: cms.Holder, holder: Certificate) -> None:
    """Make sure that the AC was made for this end entity (RFC 5755 section 4.2.2); VOMS also writes its own name."""
    by_serial, by_name = told["base_certificate_id"], told["entity_name"]
    if told["object_digest_info"].native is not None or (by_serial.native is None and by_name.native is None):
        _refuse("it does not name its holder in a way that is known here")
    if by_serial.native is not None and (
        by_serial["serial"].native != holder.serial
        or _only_name(by_serial["issuer"]) not in {holder.issuer, holder.subject}
        or by_serial["issuer_uid"].native is not None
    ):
        _refuse("it was made for another certificate")
    if by_name.native is not None and _only_name(by_name) != holder.subject:
        _refuse("it was made for another holder")


def _only_name(names: x509.GeneralNames) -> Dn:
    if len(names) != 1 or names[0].name != "directory_name":
        _refuse("it names its holder or issuer by something other than one DN")
    return dn_of(names[0].chosen)


def _validity(told: cms.AttCertValidityPeriod) -> tuple[float, float]:
    begins, ends = told["not_before_time"].native, told["not_after_time"].native
    if begins.tzinfo is None or ends.tzinfo is None:
        _refuse("its times are not in UTC")
    return begins.timestamp(), ends.timestamp()


def _attributes(listed: core.SequenceOf) -> tuple[str, str, tuple[Fqan, ...]]:
    """Read VO, server and FQANs; every FQAN lies within the VO, or none counts."""
    [values] = [one["values"] for one in listed if one["type"].dotted == FQANS]
    [value] = values
    told = IetfAttrSyntax.load(value.dump(), strict=True)
    [authority] = told["policy_authority"]
    match = _AUTHORITY.fullmatch(_as_sent(authority)) if authority.name == "uniform_resource_identifier" else None
    if match is None or not all(map(_NAME.fullmatch, match.groups())):
        _refuse("it does not name its VO and server as VO://HOST:PORT")
    if len(told["values"]) > MAX_FQANS:
        _refuse(f"it has more than {MAX_FQANS} FQANs")
    fqans = tuple(dict.fromkeys(Fqan.parse(one.native.decode("ascii")) for one in told["values"]))
    if not fqans or any(fqan.groups[0] != match["vo"] for fqan in fqans):
        _refuse("it has no FQAN, or one of another VO")
    return match["vo"], match["host"], fqans


def _issuers(extensions: dict[str, core.OctetString]) -> list[Certificate]:
    if AC_CERTIFICATES not in extensions:
        _refuse("it came without its issuer's certificate")
    [group] = _load(IssuerSequence, extensions[AC_CERTIFICATES])
    issuers = [Certificate(one.dump()) for one in group]
    if not 1 <= len(issuers) <= MAX_ACS:
        _refuse("it came without its issuer's certificate, or with too many")
    if issuers[0].is_ca or issuers[0].is_proxy or not issuers[0].may("digital_signature"):
        _refuse("its issuer may not sign it: a CA, a proxy, or a key for something else")
    return issuers


def _refuse_bad_signature(
    ac: cms.AttributeCertificateV2, issuer: Certificate, extensions: dict[str, core.OctetString]
) -> None:
    told, form = ac["ac_info"], ac["ac_info"]["issuer"]
    if form.name != "v2_form" or any(form.chosen[one].native for one in ("base_certificate_id", "object_digest_info")):
        _refuse("it does not name its issuer by a DN")
    if _only_name(form.chosen["issuer_name"]) != issuer.subject:
        _refuse("it names another issuer than the certificate that came with it")
    if not _is_key_of(issuer, x509.AuthorityKeyIdentifier.load(extensions[AUTHORITY_KEY].contents, strict=True)):
        _refuse("it names another key than its issuer's")
    if told["signature"].dump() != ac["signature_algorithm"].dump():
        _refuse("it names two signature algorithms")
    if not issuer.signed(ac["signature_algorithm"], ac["signature"].native, told.dump()):
        _refuse("its signature is not its issuer's, or of a kind that is not accepted (SHA-256 and better)")


def _is_key_of(issuer: Certificate, told: x509.AuthorityKeyIdentifier) -> bool:
    if told["key_identifier"].native is not None:
        own = issuer.extensions.get(SUBJECT_KEY)
        known = {hashlib.sha1(bytes(issuer.certificate.public_key["public_key"]), usedforsecurity=False).digest()}
        known |= set() if own is None else {own["extn_value"].parsed.native}
        return told["key_identifier"].native in known
    is_serial: bool = told["authority_cert_serial_number"].native == issuer.serial
    return is_serial and _only_name(told["authority_cert_issuer"]) == issuer.issuer


def _targets(octets: bytes, depth: int = 3) -> Iterator[str]:
    """Give the hosts that an AC is meant for: RFC 5755 section 4.3.2, and VOMS's sequence around each of them.

    Sequences are opened, targetName [0] with a URI or DNS name is a host, everything else is nobody.
    """
    while octets:
        where, method, tag, header, contents, trailer = parser.parse(octets)
        octets = octets[len(header) + len(contents) + len(trailer) :]
        if (where, method, tag) == (0, 1, 16) and depth:
            yield from _targets(contents, depth - 1)
        elif (where, method, tag) == (2, 1, 0):
            name = x509.GeneralName.load(contents, strict=True)
            if name.name in {"uniform_resource_identifier", "dns_name"}:
                yield _as_sent(name)


def _as_sent(name: x509.GeneralName) -> str:
    """Give the characters of a URI or DNS name themselves: asn1crypto would undo escapes and punycode in them."""
    octets: bytes = name.chosen.contents
    return octets.decode("ascii")


def _refuse(reason: str) -> NoReturn:
    raise _NotVerifiedError(reason)
