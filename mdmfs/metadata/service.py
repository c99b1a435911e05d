"""The metadata service as a daemon: its routes, and its life from opening the database to cancellation."""

from __future__ import annotations

import trio

from mdmfs.metadata.configuration import MetadataConfiguration
from mdmfs.metadata.metadata import Metadata
from mdmfs.metadata.store.database import open_database
from mdmfs.pki.tls import ServerContexts
from mdmfs.wire.messages.keystores import (
    CONFIRM_PATH,
    EPOCH_PATH,
    SET_ACLS_PATH,
    UNREGISTER_PATH,
    AskEpoch,
    ConfirmEpoch,
    SetAcls,
    Unregister,
)
from mdmfs.wire.messages.metadata import (
    COUNT_PATH,
    DROP_SNAPSHOT_PATH,
    EXPLAIN_PATH,
    FIND_PATH,
    FROZEN_PATH,
    FROZEN_SERIES_PATH,
    RECORDS_PATH,
    SCHEMA_PATH,
    SNAPSHOT_PATH,
    SNAPSHOTS_PATH,
    TELL_PATH,
    AskFrozen,
    AskFrozenSeries,
    AskRecords,
    AskSchema,
    AskSnapshots,
    CountFound,
    CreateSnapshot,
    DropSnapshot,
    Explain,
    Find,
    Tell,
)
from mdmfs.wire.server import serve
from mdmfs.wire.service import Service, responding
from mdmfs.wire.stream import Address


async def run_metadata(
    configuration: MetadataConfiguration, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; ``started`` gives the address that was bound.

    Raises ``ConfigurationError`` or ``StoreError`` when it cannot start. The process is the caller's: a daemon calls
    ``mdmfs.daemon.process.forbid_core_dumps`` first.
    """
    contexts = await trio.to_thread.run_sync(
        ServerContexts, configuration.credential, configuration.anchors, configuration.vomsdir
    )
    database = await trio.to_thread.run_sync(open_database, configuration.database)
    try:
        service = metadata_service(Metadata(database, configuration.hospital))
        await serve(service, contexts, configuration.listen, task_status=task_status)
    finally:
        database.close()


def metadata_service(metadata: Metadata) -> Service:
    """Give the paths of a metadata service."""
    return Service(
        "metadata service",
        {
            ("POST", SET_ACLS_PATH): responding(SetAcls, metadata.set_acls),
            ("POST", UNREGISTER_PATH): responding(Unregister, metadata.unregister),
            ("POST", EPOCH_PATH): responding(AskEpoch, metadata.epoch),
            ("POST", CONFIRM_PATH): responding(ConfirmEpoch, metadata.confirm),
            ("POST", TELL_PATH): responding(Tell, metadata.tell),
            ("POST", FIND_PATH): responding(Find, metadata.find),
            ("POST", COUNT_PATH): responding(CountFound, metadata.count),
            ("POST", EXPLAIN_PATH): responding(Explain, metadata.explain),
            ("POST", SCHEMA_PATH): responding(AskSchema, metadata.schema),
            ("POST", RECORDS_PATH): responding(AskRecords, metadata.records),
            ("POST", SNAPSHOT_PATH): responding(CreateSnapshot, metadata.create_snapshot),
            ("POST", SNAPSHOTS_PATH): responding(AskSnapshots, metadata.snapshots),
            ("POST", DROP_SNAPSHOT_PATH): responding(DropSnapshot, metadata.drop_snapshot),
            ("POST", FROZEN_PATH): responding(AskFrozen, metadata.frozen),
            ("POST", FROZEN_SERIES_PATH): responding(AskFrozenSeries, metadata.frozen_series),
        },
    )
