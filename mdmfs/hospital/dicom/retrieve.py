"""Retrieval in the Study Root model (PS3.4 section C.4): one request, and what it brings; here by C-GET.

The C-STORE request of each instance is checked before its first byte is handed out; the response leaves at once behind
its last byte, so that the PACS sends the next instance while this one is being worked on.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence
from typing import Final, NoReturn

from pydicom.uid import UID

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.association import Fragment
from mdmfs.hospital.dicom.commands import Command, CommandField, encode_store_response, is_pending
from mdmfs.hospital.dicom.connection import Connection
from mdmfs.hospital.dicom.identifier import encode_identifier
from mdmfs.hospital.dicom.link import Link
from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_GET, Context
from mdmfs.hospital.dicom.pacs import InstanceKey, PacsAddress
from mdmfs.model.errors import MdmfsError, RecallFailedError

_SUCCESS: Final = 0x0000


class ArrivingInstance:
    """An ``IncomingInstance`` on an association; made by ``Retrieval.next_instance``."""

    def __init__(self, retrieval: Retrieval, request: Command, context: Context, link: Link) -> None:
        self.class_uid: Final = context.abstract_syntax
        self.instance_uid: Final = request.instance_uid
        self.transfer_syntax: Final = context.transfer_syntax
        self.request: Final = request
        """The C-STORE request to be answered."""
        self.link: Final = link
        """Whence it comes."""
        self._retrieval: Final = retrieval
        self._was_last_given = False
        self._failure: MdmfsError | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the last byte of the data set has been handed out."""
        return self._was_last_given

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """Step through the data set once."""
        return self

    def give_up(self) -> None:
        """Let nobody read on: the rest is dropped."""
        self._failure = RecallFailedError("an instance was read on after it had been given up")

    async def __anext__(self) -> memoryview:
        """Give the next buffer, valid until the next step."""
        if self._was_last_given:
            raise StopAsyncIteration
        if self._failure is not None:
            raise self._failure
        # Until the step has succeeded it counts as failed: one that was cancelled has left the stream nowhere.
        self.give_up()
        try:
            fragment = await self._retrieval.next_fragment(self)
        except MdmfsError as error:
            self._failure = error
            raise
        self._failure, self._was_last_given = None, fragment.is_last
        if not fragment.view:
            raise StopAsyncIteration  # only the last fragment may be empty
        return fragment.view


class Retrieval(abc.ABC):
    """One request from its sending to its final response; of ``wanted`` it brings each instance at most once."""

    def __init__(self, connection: Connection, address: PacsAddress, wanted: Sequence[InstanceKey]) -> None:
        self._connection: Final = connection
        self._address: Final = address
        self._wanted: Final = wanted
        self._expected: Final = {key.instance_uid: key for key in wanted}  # what has not come yet
        self._message_id = 0
        self._current: ArrivingInstance | None = None
        self.status = _SUCCESS
        """Of the final response."""

    @abc.abstractmethod
    async def ask(self, level: str) -> None:
        """Send the request, at SERIES level or at IMAGE level with the list of what is wanted."""

    @abc.abstractmethod
    async def next_instance(self) -> ArrivingInstance | None:
        """Wait for the next instance; None after the final response. Drops what was not read of the one before."""

    def close(self) -> None:  # noqa: B027 - a retrieval on one association has nothing else to give back
        """Take nothing more; the connection is the caller's."""

    async def next_fragment(self, instance: ArrivingInstance) -> Fragment:
        """Wait for more of the current instance, and answer its C-STORE request behind its last fragment."""
        if instance is not self._current:
            self._refuse("an instance was read after the next one had begun")
        fragment = await instance.link.next_event()
        if not isinstance(fragment, Fragment):
            self._refuse("it sent a command where the rest of an instance belongs")
        instance.link.gained(len(fragment.view))
        if fragment.is_last:
            response = encode_store_response(instance.request, _SUCCESS)
            await instance.link.reply(instance.request.context_id, response)
            instance.link.progressed()
            del self._expected[instance.instance_uid]
            self._answered()
        return fragment

    def missing(self) -> list[InstanceKey]:
        """List what has not come, in the order wanted."""
        return list(self._expected.values())

    def expects(self, instance_uid: str) -> bool:
        """Tell whether an instance is wanted and has not come yet."""
        return instance_uid in self._expected

    def _answered(self) -> None:  # noqa: B027 - as above
        """Hear that the current instance is whole and its C-STORE request answered."""

    async def _drop_rest(self) -> None:
        """Receive what was not read of the current instance."""
        if self._current is not None and not self._current.is_complete:
            self._current.give_up()
            while self.expects(self._current.instance_uid):
                await self.next_fragment(self._current)

    def _identifier(self, level: str) -> bytes:
        asked = {
            tags.QUERY_RETRIEVE_LEVEL: level,
            tags.STUDY_INSTANCE_UID: self._wanted[0].study_uid,
            tags.SERIES_INSTANCE_UID: self._wanted[0].series_uid,
        }
        if level == "IMAGE":
            asked[tags.SOP_INSTANCE_UID] = "\\".join(self._expected)
        return encode_identifier(asked)

    def _checked(self, request: Command, context: Context, link: Link) -> ArrivingInstance:
        key = self._expected.get(request.instance_uid)
        if key is None:
            was_wanted = any(it.instance_uid == request.instance_uid for it in self._wanted)
            self._refuse("it sent an instance twice" if was_wanted else "it sent an instance not asked for")
        if not request.has_data_set or request.class_uid != context.abstract_syntax:
            self._refuse("it sent an instance in a presentation context of another SOP class, or empty")
        if key.class_uid not in {"", request.class_uid}:
            self._refuse("it sent an instance as another SOP class than the recorded one")
        if key.transfer_syntax not in {None, context.transfer_syntax}:
            self._refuse("it sent an instance in another transfer syntax than the recorded one")
        return ArrivingInstance(self, request, context, link)

    async def _is_final(self, response: Command, field: CommandField) -> bool:
        if (response.field, response.message_id) != (field, self._message_id):
            self._refuse("it answered a retrieval with something else")
        if response.has_data_set:  # the list of what failed; we know what has come
            await self._drop_data_set()
        if is_pending(response.status):
            return False
        self._connection.finished()
        self.status = response.status
        return True

    async def _drop_data_set(self) -> None:
        while True:
            fragment = await self._connection.next_event()
            if not isinstance(fragment, Fragment):
                self._refuse("it sent a command where the rest of an identifier belongs")
            if fragment.is_last:
                return

    def _refuse(self, what: str) -> NoReturn:
        message = f"{self._address}: {what}"
        raise RecallFailedError(message)


class Exchange(Retrieval):
    """One C-GET: its instances come on the association of the request (PS3.4 section C.4.3)."""

    async def ask(self, level: str) -> None:
        """Send the request."""
        self._refuse_hopeless()
        self._message_id = await self._connection.request(CommandField.GET_RQ, STUDY_ROOT_GET, self._identifier(level))

    async def next_instance(self) -> ArrivingInstance | None:
        """Wait for the next instance."""
        await self._drop_rest()
        while True:
            event = await self._connection.next_event()
            if not isinstance(event, Command):
                self._refuse("it sent a data set without a command")
            if event.field is CommandField.STORE_RQ:
                context = self._connection.accepted.contexts[event.context_id]
                self._current = self._checked(event, context, self._connection)
                return self._current
            if await self._is_final(event, CommandField.GET_RSP):
                return None

    def _refuse_hopeless(self) -> None:
        """Do not ask for what no accepted context can carry: the PACS would refuse it, or convert it."""
        accepted = {context.abstract_syntax for context in self._connection.accepted.contexts.values()}
        classes = {key.class_uid for key in self._wanted if key.class_uid}
        if classes and not classes & accepted:
            names = ", ".join(sorted(_class_name(class_uid) for class_uid in classes))
            self._refuse(f"it accepts no presentation context for {names} in a transfer syntax that is asked for")


def _class_name(class_uid: str) -> str:
    """Name a SOP class without its UID."""
    name = UID(class_uid).name
    return "a private SOP class" if name == class_uid else name
