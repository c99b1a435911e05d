"""PDUs, commands, identifiers and negotiation: against pynetdicom and pydicom, and against bytes made to break them."""

from __future__ import annotations

import io
import itertools
import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_RQ

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.association import Association, Fragment, State
from mdmfs.hospital.dicom.commands import (
    Command,
    CommandField,
    encode_request,
    encode_store_response,
    parse_command,
)
from mdmfs.hospital.dicom.identifier import encode_identifier, parse_identifier
from mdmfs.hospital.dicom.negotiation import (
    MAX_STORAGE_CONTEXTS,
    Accepted,
    encode_associate_request,
    propose,
)
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.dicom.pdu import MAX_PDU_BYTES, PduBuffer, PduType, encode_message
from mdmfs.model.errors import RecallFailedError
from tests.twins.scripted_pacs import Elements, associate_accept, elements_of, message, pdu, pdv

ADDRESS = PacsAddress("PACS", "127.0.0.1", 104)
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"
STORE: Elements = {0x0002: CT, 0x0100: 1, 0x0110: 9, 0x0700: 0, 0x0800: 1, 0x1000: "1.2.3"}


def established(*, max_length: int = 16_384) -> Association:
    """Give an association that was accepted as proposed."""
    association = Association(ADDRESS, propose({CT: (EXPLICIT,)}))
    contexts = {number: (it.abstract_syntax, it.transfer_syntax) for number, it in propose({CT: (EXPLICIT,)}).items()}
    feed(association, associate_accept(association.request[6:], contexts, max_length))
    assert isinstance(association.next_event(), Accepted)
    return association


def feed(association: Association, received: bytes) -> None:
    """Let bytes arrive; no more than there is room for."""
    association.space()[: len(received)] = received
    association.received(len(received))


def arrivals(association: Association, stream: bytes, cuts: list[int]) -> tuple[list[Command], bytes, int]:
    """Let a stream arrive in pieces: the commands, the bytes of the data sets, and how often one ended."""
    commands, content, ends = [], b"", 0
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        feed(association, stream[start:end])
        while (event := association.next_event()) is not None:
            if isinstance(event, Fragment):
                content += bytes(event.view)
                ends += event.is_last
            else:
                assert isinstance(event, Command)
                commands.append(event)
    return commands, content, ends


@given(
    content=st.binary(min_size=1, max_size=3000),
    rooms=st.lists(st.integers(1, 700), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
)
def test_a_stream_means_the_same_however_it_is_cut(content: bytes, rooms: list[int], cuts: list[int]) -> None:
    """By TCP, by the size of PDUs, by the size of PDVs."""
    stream = b"".join(message(7, STORE, content, room) for room in rooms)
    commands, received, ends = arrivals(established(), stream, [cut % len(stream) for cut in cuts])
    assert received == content * len(rooms)
    assert ends == len(commands) == len(rooms)


def test_fragments_of_one_pdu_are_told_apart() -> None:
    """Command and data set may share a PDU; what has come in one go is one buffer."""
    command = message(7, STORE)[12:]
    stream = pdu(4, pdv(7, 3, command) + pdv(7, 0, b"ab") + pdv(7, 0, b"c")) + pdu(4, pdv(7, 2, b"d"))
    association = established()
    feed(association, stream)
    assert isinstance(association.next_event(), Command)
    fragment = association.next_event()
    assert isinstance(fragment, Fragment)
    assert (bytes(fragment.view), fragment.is_last) == (b"abcd", True)
    assert association.next_event() is None


@pytest.mark.parametrize("intruder", [pdv(7, 2, b"x"), pdv(7, 3, b"x"), pdv(5, 2, b"x"), pdv(5, 3, b"x")])
def test_a_fragment_of_another_message_never_ends_up_in_a_data_set(intruder: bytes) -> None:
    """Not even when both arrive in one go; only the first of these belongs there."""
    association = established()
    feed(association, message(7, STORE) + pdu(4, pdv(7, 0, b"ab")) + pdu(4, intruder))
    assert isinstance(association.next_event(), Command)
    fragment = association.next_event()
    assert isinstance(fragment, Fragment)
    if intruder == pdv(7, 2, b"x"):
        assert (bytes(fragment.view), fragment.is_last) == (b"abx", True)
        return
    assert (bytes(fragment.view), fragment.is_last) == (b"ab", False)
    with pytest.raises(RecallFailedError, match="mixed the fragments"):
        association.next_event()


def test_the_buffer_is_used_again_without_end() -> None:
    """Sixteen times its size passes through it, in PDUs of the largest size and of odd ones."""
    association, total = established(), 0
    feed(association, message(7, STORE))
    association.next_event()
    for number in range(160):
        fragment = bytes([number]) * (MAX_PDU_BYTES - 6 - number)
        stream = pdu(4, pdv(7, 0, fragment))
        for part in (stream[:70_001], stream[70_001:]):
            feed(association, part)
        event = association.next_event()
        assert isinstance(event, Fragment)
        assert bytes(event.view) == fragment
        total += len(fragment)
    assert total > 16 * 2**20


@pytest.mark.parametrize("kind", [1, 3, 6])
def test_a_pdu_that_does_not_belong_here_is_refused(kind: int) -> None:
    """Each state knows its PDUs (PS3.8 Table 9-10); the answer is an abort."""
    association = established()
    feed(association, pdu(kind, bytes(4)))
    with pytest.raises(RecallFailedError, match="does not belong here"):
        association.next_event()
    assert association.abort() == pdu(7, bytes(4))
    assert association.abort() == b""


def test_a_release_ends_in_order() -> None:
    """What was under way is dropped, the reply is awaited, a collision answered."""
    association = established()
    assert association.release() == pdu(5, bytes(4))
    feed(association, message(7, STORE, b"late") + pdu(6, bytes(4)))
    assert association.next_event() is not None
    assert association.state is State.CLOSED
    assert association.abort() == b""


def test_a_view_is_no_bigger_than_the_buffer() -> None:
    """A data set of many megabytes comes in pieces of at most 1 MiB."""
    buffer = PduBuffer()
    assert len(buffer.space()) == 2**20
    assert buffer.peek() is None


def test_messages_keep_to_the_length_that_the_peer_takes() -> None:
    """Each PDU of ours is no longer than announced; no limit means ours."""
    for limit, longest in ((128, 128), (16_384, 16_384), (0, MAX_PDU_BYTES), (2**32 - 1, MAX_PDU_BYTES)):
        encoded, total = encode_message(5, b"c" * 300, b"d" * 300_000, limit), 0
        while encoded:
            kind, length = struct.unpack(">BxI", encoded[:6])
            assert kind == PduType.P_DATA_TF
            assert length <= longest
            total += length - 6
            encoded = encoded[6 + length :]
        assert total == 300_300


# Commands


def test_a_store_request_of_pynetdicom_is_understood() -> None:
    """With all its optional elements."""
    primitive = C_STORE()
    primitive.MessageID, primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = 77, CT, "1.2.33"
    primitive.Priority, primitive.DataSet = 0, io.BytesIO(b"1")
    primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "SOMEBODY", 12
    dimse = C_STORE_RQ()
    dimse.primitive_to_message(primitive)
    command = parse_command(5, encode(dimse.command_set, is_implicit_vr=True, is_little_endian=True) or b"")
    assert (command.field, command.message_id, command.has_data_set) == (CommandField.STORE_RQ, 77, True)
    assert (command.class_uid, command.instance_uid) == (CT, "1.2.33")


@pytest.mark.parametrize("has_data_set", [False, True])
def test_our_commands_are_understood_by_pydicom(has_data_set: bool) -> None:  # noqa: FBT001 - a test's parameter
    """Group length, order and padding as the standard has them."""
    request = encode_request(CommandField.GET_RQ, 5, "1.2.3", has_data_set=has_data_set)
    received = Command(3, CommandField.STORE_RQ, 9, has_data_set=True, status=0, class_uid=CT, instance_uid="1.2.3")
    response = encode_store_response(received, 0)
    for encoded in (request, response):
        read = decode(io.BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
        assert read.CommandGroupLength == len(encoded) - 12
        assert [element.tag for element in read] == sorted(element.tag for element in read)
        assert all(len(value) % 2 == 0 for value in elements_of(encoded).values())
    read = decode(io.BytesIO(response), is_implicit_vr=True, is_little_endian=True)
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8001, 9, 0)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (CT, "1.2.3")


BAD_COMMANDS = [
    b"",
    b"\0",
    struct.pack("<HHI", 0, 0x0100, 100) + b"\x01\0",
    struct.pack("<HHI", 8, 0x0100, 2) + b"\x01\0",
    message(7, {**STORE, 0x0100: 0x0150})[12:],
    message(7, {**STORE, 0x1000: "1.2*"})[12:],
    message(7, {**STORE, 0x1000: "1" * 66})[12:],
    message(7, {**STORE, 0x0002: "1\\2"})[12:],
    message(7, {it: STORE[it] for it in STORE if it != 0x0110})[12:],
    message(7, {it: STORE[it] for it in STORE if it != 0x0800})[12:],
    message(7, STORE)[12:] * 2,
]


@pytest.mark.parametrize("encoded", BAD_COMMANDS)
def test_a_command_that_is_none_of_ours_is_refused(encoded: bytes) -> None:
    """Cut, of another group, another command, a bad UID, without its parts, or twice."""
    with pytest.raises(RecallFailedError):
        parse_command(7, encoded)


# Identifiers


def test_our_identifiers_are_understood_by_pydicom() -> None:
    """Lists, empty keys and text beyond ASCII."""
    encoded = encode_identifier(
        {
            tags.QUERY_RETRIEVE_LEVEL: "IMAGE",
            tags.SOP_INSTANCE_UID: "1.2\\1.33",
            tags.PATIENT_ID: "Jürg",
            tags.MODALITY: "",
        }
    )
    read = decode(io.BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert (read.QueryRetrieveLevel, read.SOPInstanceUID, read.PatientID) == ("IMAGE", ["1.2", "1.33"], "Jürg")
    assert read.Modality == ""


@pytest.mark.parametrize(("charset", "name"), [("ISO_IR 100", "Jürg"), ("ISO_IR 192", "日本"), ("ISO_IR 144", "Иван")])
def test_answers_of_pydicom_are_understood(charset: str, name: str) -> None:
    """In their character set, with sequences of both kinds of length stepped over."""
    for undefined in (False, True):
        answer = Dataset()
        answer.SpecificCharacterSet = charset
        answer.PatientID, answer.SOPInstanceUID = name, "1.2.3"
        inner, outer = Dataset(), Dataset()
        inner.CodeValue = outer.CodeValue = "X"
        outer.ConceptCodeSequence = Sequence([inner])
        answer.ProcedureCodeSequence = Sequence([outer, outer])
        answer["ProcedureCodeSequence"].is_undefined_length = undefined
        outer.is_undefined_length_sequence_item = undefined
        encoded = encode(answer, is_implicit_vr=True, is_little_endian=True)
        assert encoded is not None
        read = parse_identifier(encoded)
        assert (read[tags.PATIENT_ID], read[tags.SOP_INSTANCE_UID]) == (name, "1.2.3")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_identifier_are_read_or_refused(encoded: bytes) -> None:
    """Nothing else happens, whatever the bytes."""
    try:
        parse_identifier(encoded)
    except RecallFailedError as error:
        assert "malformed" in str(error)  # noqa: PT017 - both ends are right


def test_sequences_cannot_be_nested_without_end() -> None:
    """A thousand levels are a refusal, not a crash."""
    level = struct.pack("<HHI", 0x0008, 0x1140, 2**32 - 1) + struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
    with pytest.raises(RecallFailedError):
        parse_identifier(level * 1000)


def test_an_unknown_character_set_is_no_crash() -> None:
    """It is read as Latin-1, and nothing is printed about it."""
    with warnings.catch_warnings(record=True) as caught:
        read = parse_identifier(encode_identifier({tags.SPECIFIC_CHARACTER_SET: "ISO_IR 999", tags.PATIENT_ID: "A1"}))
    assert read[tags.PATIENT_ID] == "A1"
    assert not caught
    assert callable(dcmread)


# Negotiation


def test_our_request_is_understood_by_pynetdicom() -> None:
    """One transfer syntax in each context, and the SCP role for each storage class."""
    request = A_ASSOCIATE_RQ()
    request.decode(encode_associate_request(ADDRESS, propose({CT: (EXPLICIT, JPEG)})))
    primitive = request.to_primitive()
    assert (primitive.called_ae_title, primitive.calling_ae_title) == ("PACS", "MDMFS")
    contexts = primitive.presentation_context_definition_list
    assert [it.context_id for it in contexts] == [1, 3, 5, 7, 9, 11]
    assert [len(it.transfer_syntax) for it in contexts] == [1] * 6
    assert [it.transfer_syntax[0] for it in contexts[4:]] == [EXPLICIT, JPEG]
    assert request.user_information is not None
    roles = request.user_information.role_selection
    assert {uid: (it.scu_role, it.scp_role) for uid, it in roles.items()} == {CT: (False, True)}
    assert request.user_information.maximum_length == MAX_PDU_BYTES


def test_more_contexts_than_numbers_are_refused() -> None:
    """128 odd numbers; whoever offers more has to split."""
    offer = {f"1.2.{number}": (EXPLICIT,) for number in range(MAX_STORAGE_CONTEXTS)}
    assert max(propose(offer)) == 255
    with pytest.raises(ValueError, match="at most 128"):
        propose(offer | {"1.3": (EXPLICIT,)})
