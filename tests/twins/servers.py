"""Real PACSs for tests: Debian's orthanc (unpacked, not installed), dcmtk's dcmqrscp, and pynetdicom's SCP.

Each is a context manager: started on a free port of the loopback interface, stopped by its own process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt

from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION
from mdmfs.hospital.dicom.pacs import PacsAddress

CALLING: Final = "MDMFS"
START_SECONDS: Final = 20.0
ORTHANC_DIRECTORY: Final = Path(__file__).parents[2] / ".cache" / "orthanc"

_DCMQRSCP = """\
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
DCMQRSCP {storage} RW (100000, 1024mb) ANY
AETable END
"""


_SYNTAXES: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless)


def free_port() -> int:
    """Find a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def orthanc(directory: Path, settings: Mapping[str, object] | None = None) -> Iterator[PacsAddress]:
    """Run Orthanc with an empty store below ``directory`` and no plugin; ``settings`` go over its configuration."""
    program = ORTHANC_DIRECTORY / "root/usr/sbin/Orthanc"
    if not program.exists():
        pytest.fail("orthanc is not unpacked: ./run test unpacks it")
    port = free_port()
    configuration = {
        "StorageDirectory": str(directory / "orthanc"),
        "IndexDirectory": str(directory / "orthanc"),
        "HttpServerEnabled": False,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": True,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomScpTimeout": 30,
        "Plugins": [],
    } | dict(settings or {})
    file = directory / "orthanc.json"
    file.write_text(json.dumps(configuration))
    libraries = (ORTHANC_DIRECTORY / "library-path").read_text().strip()
    with running_server([str(program), str(file)], directory / "orthanc.log", port, {"LD_LIBRARY_PATH": libraries}):
        yield PacsAddress("ORTHANC", "127.0.0.1", port, CALLING)


@contextlib.contextmanager
def dcmqrscp(
    directory: Path, options: Sequence[str] = (), destinations: Mapping[str, int] | None = None
) -> Iterator[PacsAddress]:
    """Run dcmtk's dcmqrscp with an empty store below ``directory``; ``destinations`` are AE titles with their ports."""
    program = shutil.which("dcmqrscp")
    if program is None:
        pytest.fail("dcmqrscp is missing: apt-get install dcmtk")
    port, storage = free_port(), directory / "dcmqrscp"
    storage.mkdir()
    file = directory / "dcmqrscp.cfg"
    hosts = [f"{title.lower()} = ({title}, 127.0.0.1, {at})" for title, at in (destinations or {}).items()]
    file.write_text(_DCMQRSCP.format(port=port, storage=storage, hosts="\n".join(hosts)))
    with running_server([program, "-c", str(file), *options], directory / "dcmqrscp.log", port, {}):
        yield PacsAddress("DCMQRSCP", "127.0.0.1", port, CALLING)


@contextlib.contextmanager
def running_server(
    command: Sequence[str], log: Path, port: int, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for a block, once it listens on a port of the loopback interface."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        try:
            _wait_for(port, process, log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            pytest.fail(f"{process.args!r} ended with {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
    pytest.fail(f"{process.args!r} does not listen on its port after {START_SECONDS} s")


def store(address: PacsAddress, datasets: Iterable[Dataset]) -> None:
    """Put instances into a PACS with C-STORE, each in the transfer syntax that it is in."""
    instances = list(datasets)
    entity = AE(ae_title="MODALITY")
    for class_uid, syntax in sorted({(it.SOPClassUID, it.file_meta.TransferSyntaxUID) for it in instances}):
        entity.add_requested_context(class_uid, syntax)
    association = entity.associate(address.host, address.port, ae_title=address.ae_title)
    assert association.is_established
    try:
        for instance in instances:
            assert association.send_c_store(instance).Status == 0
    finally:
        association.release()


def notify(port: int, instance: Dataset) -> None:
    """Store an instance to us as pynetdicom's SCP would, and see it answered with success."""
    entity = AE(ae_title="PYNETDICOM")
    entity.add_requested_context(instance.SOPClassUID, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=CALLING)
    assert association.is_established
    assert association.send_c_store(instance).Status == 0
    association.abort()


@contextlib.contextmanager
def pynetdicom_scp(  # noqa: PLR0913 what a PACS may be like
    instances: list[Dataset],
    syntaxes: Sequence[str] = _SYNTAXES,
    *,
    retrieval: str = STUDY_ROOT_GET,
    destinations: Mapping[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
    sent: Counter[str] | None = None,
) -> Iterator[PacsAddress]:
    """Run pynetdicom's SCP in threads, over a list that may change; it answers C-ECHO, C-FIND and C-GET or C-MOVE.

    ``destinations`` may change too: AE title to port on the loopback interface. ``sent`` counts what a C-GET was given,
    by SOP Instance UID.
    """
    entity = AE(ae_title="PYNETDICOM")
    entity.maximum_pdu_size = 0
    entity.require_called_aet = True
    for service in (VERIFICATION, STUDY_ROOT_FIND, retrieval):
        entity.add_supported_context(service)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), list(syntaxes), scu_role=True, scp_role=True)
    connections: list[socket.socket] = []
    remember = (evt.EVT_CONN_OPEN, lambda event: connections.append(event.assoc.dul.socket.socket))
    handlers: Any = [
        remember,
        (evt.EVT_C_FIND, _on_find, [instances]),
        (evt.EVT_C_GET, _on_get, [instances, Counter() if sent is None else sent]),
        (evt.EVT_C_MOVE, _on_move, [instances, {} if destinations is None else destinations, remember]),
    ]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    try:
        yield PacsAddress("PYNETDICOM", "127.0.0.1", server.server_address[1], CALLING)
    finally:
        server.shutdown()
        for connection in connections:
            connection.close()  # pynetdicom forgets this where we have aborted


_LEVEL_KEYS: Final = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


def matches(instance: Dataset, identifier: Dataset) -> bool:
    """Tell whether an instance matches the unique keys of a query or retrieval."""
    for keyword in ("PatientID", *_LEVEL_KEYS.values()):
        asked = identifier.get(keyword)
        values = [asked] if isinstance(asked, str) else list(asked or ())
        if any(values) and instance.get(keyword) not in values:
            return False
    return True


def answers(instances: Sequence[Dataset], identifier: Dataset) -> Iterator[Dataset]:
    """Answer a query as a PACS does: one match for each entity of the level."""
    key = _LEVEL_KEYS[identifier.QueryRetrieveLevel]
    entities: dict[str, list[Dataset]] = {}
    for instance in instances:
        if matches(instance, identifier):
            entities.setdefault(instance[key].value, []).append(instance)
    for members in entities.values():
        answer = Dataset()
        answer.QueryRetrieveLevel = identifier.QueryRetrieveLevel
        for element in identifier:
            if element.keyword in members[0]:
                answer[element.keyword] = members[0][element.keyword]
        if "NumberOfSeriesRelatedInstances" in identifier:
            answer.NumberOfSeriesRelatedInstances = len(members)
        yield answer


def _on_find(event: evt.Event, instances: Sequence[Dataset]) -> Iterator[tuple[int, Dataset | None]]:
    for answer in answers(instances, event.identifier):
        yield 0xFF00, answer


def _on_get(event: evt.Event, instances: Sequence[Dataset], sent: Counter[str]) -> Iterator[object]:
    wanted = [it for it in instances if matches(it, event.identifier)]
    yield len(wanted)
    for instance in wanted:
        sent[instance.SOPInstanceUID] += 1
        yield 0xFF00, instance


def _on_move(
    event: evt.Event, instances: Sequence[Dataset], destinations: Mapping[str, int], remember: object
) -> Iterator[object]:
    wanted = [it for it in instances if matches(it, event.identifier)]
    pairs = dict.fromkeys((str(it.SOPClassUID), str(it.file_meta.TransferSyntaxUID)) for it in wanted)
    contexts = [build_context(*pair) for pair in pairs] or [build_context(VERIFICATION)]
    port = destinations.get(event.move_destination)
    yield (None, None) if port is None else ("127.0.0.1", port, {"contexts": contexts, "evt_handlers": [remember]})
    yield len(wanted)
    for instance in wanted:
        # pynetdicom's own thread may take a response that comes at once; it rests when it was left alone for a moment.
        time.sleep(0.003)
        yield 0xFF00, instance
