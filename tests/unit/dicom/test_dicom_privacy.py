"""No log line, no repr and no error of the DICOM layer shows an identifier."""

from __future__ import annotations

import logging

import pytest
from pynetdicom import _config

import mdmfs.hospital.dicom.remote  # noqa: F401 - what the hospital imports; importing it is what is tested
from mdmfs.hospital.dicom.pacs import InstanceFound, InstanceKey, PacsAddress, SeriesFound
from mdmfs.hospital.dicom.recall import Batch, image_batches
from mdmfs.hospital.dicom.remote import open_pacs
from mdmfs.model.errors import ConfigurationError, MalformedNameError, RecallFailedError
from tests.twins.scripted_pacs import FIND, PENDING, ScriptedPeer, encode_identifier, serving

HIDDEN = "1.2.826.0.77"


def test_pynetdicom_does_not_log_identifiers() -> None:
    """It does unless it is told not to."""
    assert _config.LOG_REQUEST_IDENTIFIERS is False
    assert _config.LOG_RESPONSE_IDENTIFIERS is False


def test_no_repr_shows_an_identifier() -> None:
    """Values find their way into logs and tracebacks by their repr."""
    key = InstanceKey(HIDDEN, HIDDEN, HIDDEN, "class", "syntax")
    (batch,) = image_batches([key], 32)
    values: list[object] = [
        key,
        batch,
        SeriesFound(HIDDEN, HIDDEN, HIDDEN, HIDDEN, "CT", HIDDEN, HIDDEN, 3),
        InstanceFound(HIDDEN, "class", None),
    ]
    assert isinstance(batch, Batch)
    assert not any(HIDDEN in repr(value) for value in values)


@pytest.mark.parametrize("answer", [b"\xff" * 7, b"garbage " + HIDDEN.encode(), encode_identifier({0x0020_000D: "*"})])
async def test_an_error_about_an_answer_does_not_quote_it(
    answer: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in its text nor in the log, and a UID that would be a wildcard is none."""

    async def answering(peer: ScriptedPeer) -> None:
        await peer.accept()
        await peer.read_request()
        await peer.respond(0x8020, FIND, PENDING, answer)
        await peer.respond(0x8020, FIND, 0)
        await peer.read_request()

    with caplog.at_level(logging.DEBUG):
        async with serving(answering) as site, open_pacs(site.address) as pacs:
            with pytest.raises(RecallFailedError) as caught:
                await pacs.find_instances(study_uid=HIDDEN, series_uid=HIDDEN)
    assert HIDDEN not in str(caught.value)
    assert HIDDEN not in caplog.text + "".join(capsys.readouterr())


@pytest.mark.parametrize("patient_id", ["HIDDEN*", "HIDDEN\\x", ""])
async def test_a_refused_question_is_not_quoted(patient_id: str) -> None:
    """The message says the rule, not the value."""
    async with open_pacs(PacsAddress("PACS", "localhost", 1)) as pacs:
        with pytest.raises(MalformedNameError) as caught:
            await pacs.find_series(patient_id=patient_id)
    assert "HIDDEN" not in str(caught.value)


def test_an_address_is_parsed_and_written_alike() -> None:
    """IPv6 and titles with a space included."""
    for text in ("ORTHANC@pacs.example.org:4242", "MY PACS@127.0.0.1:104", "P@[::1]:11112"):
        assert str(PacsAddress.parse(text)) == text
    assert PacsAddress.parse("A@b:1", calling_ae_title="ME").calling_ae_title == "ME"


@pytest.mark.parametrize(
    "text",
    ["", "A@b", "A@b:0", "A@b:65536", "A@:1", "@b:1", "A\\B@c:1", "a" * 17 + "@b:1", " A@b:1", "A@b c:1", "A@b:1\n"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """At start, not at the first recall."""
    with pytest.raises(ConfigurationError):
        PacsAddress.parse(text)
