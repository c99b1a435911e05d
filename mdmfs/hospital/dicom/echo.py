"""C-ECHO (PS3.7 section 9.1.5): whether the other side answers at all."""

from __future__ import annotations

from mdmfs.hospital.dicom.commands import Command, CommandField
from mdmfs.hospital.dicom.connection import Connection
from mdmfs.hospital.dicom.negotiation import VERIFICATION
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.model.errors import RecallFailedError


async def echo(connection: Connection, address: PacsAddress) -> None:
    """Ask once over an association; raises ``RecallFailedError`` for anything but success."""
    message_id = await connection.request(CommandField.ECHO_RQ, VERIFICATION)
    match await connection.next_event():
        case Command(field=CommandField.ECHO_RSP, message_id=answered, status=0, has_data_set=False) if (
            answered == message_id
        ):
            connection.finished()
        case _:
            message = f"{address}: it did not answer a C-ECHO with success"
            raise RecallFailedError(message)
