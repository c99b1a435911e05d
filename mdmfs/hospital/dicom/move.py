"""C-MOVE to ourselves (PS3.4 section C.4.2): asks here, and takes what the PACS then stores to the hospital's SCP.

The C-STORE requests of a move come on associations that the PACS opens. ``Moves`` says which move a request belongs to;
the consumer of that move then reads the association itself, at its own pace, so that nothing is buffered in between.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Sequence
from typing import Final

import trio

from mdmfs.hospital.dicom.commands import Command, CommandField
from mdmfs.hospital.dicom.connection import Connection
from mdmfs.hospital.dicom.link import Link
from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_MOVE, Context, Offer
from mdmfs.hospital.dicom.pacs import InstanceKey, PacsAddress, Politeness
from mdmfs.hospital.dicom.retrieve import ArrivingInstance, Retrieval
from mdmfs.model.errors import RecallFailedError

_MAX_MESSAGE_ID: Final = 65_535
_REMEMBERED: Final = 1024
"""Message IDs of moves that have ended: what still comes for one of them is not taken for another."""
_DESTINATION_UNKNOWN: Final = 0xA801


class Delivery:
    """One C-STORE request, from when the SCP received it until it is answered or given up."""

    def __init__(self, link: Link, request: Command, context: Context) -> None:
        self.link: Final = link
        self.request: Final = request
        self.context: Final = context
        self.is_over: Final = trio.Event()
        self.was_answered = False

    def end(self) -> None:
        """Give the association back to the SCP."""
        self.is_over.set()


class Moves:
    """The moves under way in one hospital, to be found by the SCP that receives what they bring."""

    def __init__(self, ae_title: str) -> None:
        """Begin without any; ``ae_title`` is that of our SCP, which every PACS must know as a destination."""
        self.ae_title: Final = ae_title
        self._under_way: Final[dict[int, Move]] = {}
        self._ended: Final[collections.deque[int]] = collections.deque(maxlen=_REMEMBERED)
        self._message_id = 0

    def open(self, move: Move) -> int:
        """Take a move in; gives it a message ID that no other move has."""
        if len(self._under_way) >= _MAX_MESSAGE_ID // 2:
            message = "too many C-MOVE requests are under way"
            raise RecallFailedError(message)
        while True:
            self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
            if self._message_id not in self._under_way and self._message_id not in self._ended:
                break
        self._under_way[self._message_id] = move
        return self._message_id

    def close(self, message_id: int) -> None:
        """Let a move go."""
        if self._under_way.pop(message_id, None) is not None:
            self._ended.append(message_id)

    def find(self, pacs: str, request: Command, ae_titles: Collection[str]) -> Move | None:
        """Find the move of a PACS that a C-STORE request belongs to; ``ae_titles`` may name its originator.

        By Move Originator Message ID and AE Title (PS3.7 section 9.3.1.1). Some PACSs give none, or numbers of their
        own; then the instance must be one that is expected.
        """
        move = self._under_way.get(request.move_message_id or 0)
        if move is not None and move.pacs == pacs and request.move_ae_title in ae_titles:
            return move
        if request.move_message_id in self._ended:
            return None
        of_this = (it for it in self._under_way.values() if it.pacs == pacs)
        return next((it for it in of_this if it.expects(request.instance_uid)), None)

    def is_of_the_past(self, request: Command, ae_titles: Collection[str]) -> bool:
        """Tell whether a C-STORE request belongs to a move that has ended; ``ae_titles`` as for ``find``."""
        return request.move_message_id in self._ended and request.move_ae_title in ae_titles

    def offers(self, pacs: str, class_uid: str) -> list[tuple[str, ...]]:
        """Give what the moves of a PACS take a SOP class in: of each that wants it the transfer syntaxes."""
        moves = (it for it in self._under_way.values() if it.pacs == pacs)
        return [it.offer[class_uid] for it in moves if class_uid in it.offer]


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """Where a PACS may move to, and the name by which the SCP there knows the PACS."""

    moves: Moves
    pacs: str


class Move(Retrieval):
    """One C-MOVE request to our own SCP."""

    def __init__(
        self,
        connection: Connection,
        address: PacsAddress,
        wanted: Sequence[InstanceKey],
        offer: Offer,
        destination: Destination,
        politeness: Politeness,
    ) -> None:
        super().__init__(connection, address, wanted)
        self.offer: Final = offer
        self.pacs: Final = destination.pacs
        self._moves: Final = destination.moves
        self._patience: Final = politeness.progress_timeout
        self._arrived: Final[collections.deque[Delivery]] = collections.deque()
        self._delivery: Delivery | None = None
        self._listening: trio.CancelScope | None = None
        self._is_over = self._is_closed = False

    async def ask(self, level: str) -> None:
        """Send the request."""
        self._message_id = self._moves.open(self)
        await self._connection.request_move(
            STUDY_ROOT_MOVE, self._identifier(level), self._message_id, self._moves.ae_title
        )

    async def next_instance(self) -> ArrivingInstance | None:
        """Wait for the next instance, on whatever association it comes."""
        await self._drop_rest()
        while not self._arrived:
            if self._is_over:
                self._refuse_unknown_destination()
                return None
            await self._listen()
        self._delivery = delivery = self._arrived.popleft()
        self._connection.progressed()
        delivery.link.wait_at_most(self._patience)
        self._current = self._checked(delivery.request, delivery.context, delivery.link)
        return self._current

    async def deliver(self, delivery: Delivery) -> None:
        """Hand a C-STORE request over; returns when it is answered. Raises ``RecallFailedError`` if nobody wants it."""
        if not self._is_closed:
            self._arrived.append(delivery)
            if self._listening is not None:
                self._listening.cancel()
            await delivery.is_over.wait()
        if not delivery.was_answered:
            self._refuse("the retrieval that an instance came for was given up")

    def close(self) -> None:
        """Take nothing more: associations on which something is unanswered are the SCP's to abort."""
        self._is_closed = True
        self._moves.close(self._message_id)
        for delivery in (self._delivery, *self._arrived):
            if delivery is not None:
                delivery.end()

    def _answered(self) -> None:
        self._connection.progressed()
        if self._delivery is not None:
            self._delivery.was_answered = True
            self._delivery.end()
            self._delivery = None

    async def _listen(self) -> None:
        """Wait for a response to the request, or until something is delivered."""
        event = None
        with trio.CancelScope() as self._listening:
            event = await self._connection.next_event()
        self._listening = None
        if event is None:
            return
        if not isinstance(event, Command):
            self._refuse("it sent a data set without a command")
        self._is_over = await self._is_final(event, CommandField.MOVE_RSP)

    def _refuse_unknown_destination(self) -> None:
        if self.status == _DESTINATION_UNKNOWN:
            ours = self._moves.ae_title
            self._refuse(
                f"it does not know the AE title {ours}: enter it there, with this host and the port of [dicom]"
            )
