"""PROPFIND's XML: what is asked comes from anybody, what is answered must be read by everybody."""

from __future__ import annotations

import random
from xml.etree import ElementTree as ET

import pytest

from mdmfs.hospital.dav.multistatus import HEAD, MAX_BODY_BYTES, MAX_PROPERTIES, TAIL, Question, Resource
from mdmfs.model.errors import MalformedMessageError

FILE = Resource("/grid/medical/a/0001.dcm.sealed", is_directory=False, length=1234, modified=1.7e9, guid="a-guid")
FOLDER = Resource("/grid/medical/a/", is_directory=True, length=0, modified=1.7e9, guid="")
RCLONE = b"""<?xml version="1.0"?>
<d:propfind xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns"><d:prop><d:displayname/><d:getlastmodified/>
<d:getcontentlength/><d:resourcetype/><d:getcontenttype/><oc:checksums/></d:prop></d:propfind>"""
BOMB = b"""<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<d:propfind xmlns:d="DAV:"><d:prop><d:x>&b;</d:x></d:prop></d:propfind>"""
EXTERNAL = b"""<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<d:propfind xmlns:d="DAV:"><d:prop>&e;</d:prop></d:propfind>"""


def told(body: bytes, resource: Resource) -> dict[str, dict[str, ET.Element]]:
    """Read an answer: by status, the properties by their names."""
    root = ET.fromstring(HEAD + Question.parse(body).answer(resource) + TAIL)  # noqa: S314 ours
    (response,) = root
    assert response.findtext("{DAV:}href") == resource.href
    found = {}
    for propstat in response.findall("{DAV:}propstat"):
        properties = propstat.find("{DAV:}prop")
        assert properties is not None
        found[propstat.findtext("{DAV:}status", "")] = {it.tag: it for it in properties}
    return found


def test_an_empty_body_asks_for_everything() -> None:
    """What storage elements tell, and nothing about what a directory has not."""
    found = told(b"", FILE)["HTTP/1.1 200 OK"]
    assert found["{DAV:}getcontentlength"].text == "1234"
    assert found["{DAV:}getlastmodified"].text == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert found["{LCGDM:}mode"].text == "0100444"
    assert list(found["{DAV:}resourcetype"]) == []
    folder = told(b"", FOLDER)
    assert folder.keys() == {"HTTP/1.1 200 OK"}
    assert [it.tag for it in folder["HTTP/1.1 200 OK"]["{DAV:}resourcetype"]] == ["{DAV:}collection"]
    assert "{DAV:}getcontentlength" not in folder["HTTP/1.1 200 OK"]


def test_what_is_asked_for_by_name_is_found_or_said_to_be_missing() -> None:
    """Properties of other name spaces come back in theirs."""
    found = told(RCLONE, FILE)
    assert found["HTTP/1.1 200 OK"].keys() == {
        f"{{DAV:}}{name}" for name in ("getlastmodified", "getcontentlength", "resourcetype", "getcontenttype")
    }
    assert found["HTTP/1.1 404 Not Found"].keys() == {"{DAV:}displayname", "{http://owncloud.org/ns}checksums"}


def test_propname_gives_names_without_values() -> None:
    """RFC 4918 section 9.1.2."""
    found = told(b'<d:propfind xmlns:d="DAV:"><d:propname/></d:propfind>', FILE)["HTTP/1.1 200 OK"]
    assert found
    assert all(it.text is None and not len(it) for it in found.values())


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        EXTERNAL,
        b"no xml",
        b"<propfind/>",
        b'<d:propfind xmlns:d="DAV:">',
        b"<?xml version='1.0' encoding='martian'?><d:propfind xmlns:d='DAV:'/>",
        b'<d:propfind xmlns:d="DAV:"><d:prop>' + b"<d:a/>" * (MAX_PROPERTIES + 1) + b"</d:prop></d:propfind>",
        b" " * MAX_BODY_BYTES + b"<a/>",
        b"<a>" * 5000,
    ],
)
def test_a_body_that_is_no_small_propfind_is_refused(body: bytes) -> None:
    """Also a bomb of entities, and a file that somebody would like to read."""
    with pytest.raises(MalformedMessageError):
        Question.parse(body)


def test_names_from_outside_cannot_break_out_of_the_answer() -> None:
    """Quotes and angle brackets in a name space stay inside it."""
    body = b"""<d:propfind xmlns:d="DAV:"><d:prop><x xmlns='"/&gt;&lt;evil a="'/></d:prop></d:propfind>"""
    missing = told(body, FILE)["HTTP/1.1 404 Not Found"]
    assert missing.keys() == {'{"/><evil a="}x'}


def test_whatever_comes_is_answered_or_refused() -> None:
    """Bytes of a real question, changed at random: no other exception comes out."""
    chance = random.Random(4918)  # noqa: S311 no secrets
    for _ in range(2000):
        body = bytearray(RCLONE)
        for _ in range(chance.randint(1, 8)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            answer = Question.parse(bytes(body)).answer(FILE)
        except MalformedMessageError:
            continue
        ET.fromstring(HEAD + answer + TAIL)  # noqa: S314 ours
