"""hospitald is killed right after it answered a notice with success: nothing is lost; its next start registers it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mdmfs.demo.site import PROJECT, Site, make_site
from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_MOVE
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.lmdb_store import LmdbStore
from tests.twins.clinic import slices
from tests.twins.servers import CALLING, notify, pynetdicom_scp

REPOSITORY = Path(__file__).parents[2]
SECONDS = 20.0


@contextlib.contextmanager
def hospitald(site: Site, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon; it is killed at the end, whatever happens."""
    command = [sys.executable, "-m", "mdmfs.cli", "hospitald", str(site.hospital_file)]
    with (
        (site.logs / "hospitald.log").open("ab") as log,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log) as process,
    ):
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            assert process.poll() is None, (site.logs / "hospitald.log").read_text()
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def site_of(folder: Path, address: PacsAddress, settle: float) -> Site:
    """Configure the demonstration's hospital for a PACS; its keystores do not run."""
    inclusion = folder / "inclusion.list"
    inclusion.write_text("patient TEST-1^^^AMC\n")
    site = make_site(folder / "site", pacs=str(address), inclusion=inclusion, deadline=10)
    text = site.hospital_file.read_text()
    assert "settle = 0\n" in text
    site.hospital_file.write_text(text.replace("settle = 0\n", f"settle = {settle}\n"))
    return site


def test_a_notice_outlives_kill_9_and_its_series_is_moved_and_registered(tmp_path: Path) -> None:
    """From a PACS that has no C-GET: our SCP takes the notice, and then what the C-MOVE brings."""
    held, destinations = slices(range(1, 6)), dict[str, int]()
    with pynetdicom_scp(held, retrieval=STUDY_ROOT_MOVE, destinations=destinations) as address:
        site = site_of(tmp_path, address, settle=2.0)
        port = destinations[CALLING] = site.ports.dicom
        with hospitald(site, port):
            notify(port, held[0])
        store = LmdbStore.open(site.hospital_directory / "store")
        (series,) = store.read(lambda tx: tx.notices.all())
        assert series.series_uid == held[0].SeriesInstanceUID
        assert store.read(lambda tx: tx.series.all()) == []
        with hospitald(site, port):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end and store.read(lambda tx: tx.notices.all()):
                time.sleep(0.05)
        (registered,) = store.read(lambda tx: tx.series.all())
        assert (registered.project, registered.state, registered.expected) == (PROJECT, SeriesState.DEPOSITING, 5)
        assert store.read(lambda tx: tx.uidmap.count_of_series(registered.key)) == 5
