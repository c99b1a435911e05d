"""Real storage elements on loopback, from Debian: Swift with its S3 face, XRootD over HTTPS, and nginx before them."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pwd
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.store import S3Store

from mdmfs.demo.pki import ThrowAwayPki
from tests.twins.servers import free_port, running_server

BUCKET = "sealed"
KEY, SECRET = "bench:reader", "throw-away"
PRESIGNED = dt.timedelta(minutes=1)

_SWIFT = """\
[swift-hash]
swift_hash_path_prefix = bench
swift_hash_path_suffix = bench
[storage-policy:0]
name = one
default = yes
"""
_SERVER = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
log_address = {folder}/no-syslog
[pipeline:main]
pipeline = {pipeline}
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """\
account_autocreate = true
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_bench_reader = throw-away .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
"""
_XROOTD = """\
xrd.port {port}
xrd.protocol http:{port} libXrdHttp.so
xrd.tls {certificate} {key}
xrd.tlsca certfile {ca}
http.cert {certificate}
http.key {key}
http.cafile {ca}
http.desthttps yes
http.selfhttps2http no
http.listingdeny yes
oss.localroot {folder}/served
all.export /sealed
all.adminpath {folder}/admin
all.pidpath {folder}/admin
sec.protocol /usr/lib/x86_64-linux-gnu none
"""


_NGINX = """\
daemon off;
user {user};
pid {folder}/pid;
events {{ }}
http {{
log_format cached '$upstream_cache_status $status $request';
access_log {folder}/access.log cached;
{recipe}
}}
"""
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"
SWIFT = ("swift-ring-builder", *(f"swift-{kind}-server" for kind in ("account", "container", "object", "proxy")))
XROOTD = "xrootd"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
_PACKAGES = {
    "swift-ring-builder": "swift",
    "swift-account-server": "swift-account",
    "swift-container-server": "swift-container",
    "swift-object-server": "swift-object",
    "swift-proxy-server": "swift-proxy",
    "xrootd": "xrootd-server xrootd-plugins",
    "nginx": "nginx",
}


class Engine(NamedTuple):
    """A storage element that runs."""

    url: str
    """Of the bucket or collection."""
    process: subprocess.Popen[bytes]
    """That clients speak with."""
    folder: Path
    """Below which it keeps what it was given."""


def told_missing(*programs: str) -> str:
    """Say in one line which of these programs are not installed and what brings them; nothing where all are."""
    lacking = [program for program in programs if _find(program) is None]
    if not lacking:
        return ""
    packages = " ".join(_PACKAGES[program] for program in lacking)
    return f"{', '.join(lacking)}: not installed; apt-get install --no-install-recommends {packages}"


@contextlib.contextmanager
def swift(folder: Path) -> Iterator[Engine]:
    """Run one server of each kind, one copy of each object; with an empty bucket."""
    assert not (missing := told_missing(*SWIFT)), missing
    folder.mkdir()
    (folder / "devices/disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(_SWIFT)
    with contextlib.ExitStack() as stack:
        for kind in ("account", "container", "object"):
            port = free_port()
            _run("swift-ring-builder", f"{folder}/{kind}.builder", "create", "4", "1", "0")
            _run("swift-ring-builder", f"{folder}/{kind}.builder", "add", f"r1z1-127.0.0.1:{port}/disk", "1")
            _run("swift-ring-builder", f"{folder}/{kind}.builder", "rebalance")
            stack.enter_context(_swift_server(folder, kind, port, f"{kind}-server"))
        port = free_port()
        pipeline = "gatekeeper cache listing_formats s3api tempauth copy slo proxy-server"
        process = stack.enter_context(_swift_server(folder, "proxy", port, pipeline, _PROXY))
        endpoint = f"http://127.0.0.1:{port}"
        _make_bucket(endpoint)
        yield Engine(f"{endpoint}/{BUCKET}", process, folder / "devices/disk/objects")


@contextlib.contextmanager
def xrootd(folder: Path, pki: ThrowAwayPki) -> Iterator[Engine]:
    """Run xrootd with a keystore's certificate, which names this host; with an empty collection."""
    program = _installed(XROOTD)
    port, host = free_port(), pki.keystores[0]
    (folder / "served/sealed").mkdir(parents=True)
    (folder / "admin").mkdir()
    certificate, key, ca = folder / "host.pem", folder / "host.key", folder / "ca.pem"
    for source, copy in ((host.certificate_file, certificate), (host.key_file, key), (pki.anchors.path, ca)):
        shutil.copyfile(source, copy)
    key.chmod(0o600)
    file = folder / "xrootd.cfg"
    file.write_text(_XROOTD.format(port=port, folder=folder, certificate=certificate, key=key, ca=ca))
    command = [program, "-c", str(file), "-l", str(folder / "xrootd.log")]
    if os.geteuid() == 0:
        command += ["-R", "daemon"]
        _give_away(folder, "daemon")
    with running_server(command, folder / "xrootd.out", port, {}) as process:
        yield Engine(f"https://127.0.0.1:{port}/sealed", process, folder / "served/sealed")


@contextlib.contextmanager
def nginx(folder: Path, url: str, pki: ThrowAwayPki) -> Iterator[Engine]:
    """Run the site's cache of docs/operations.md before the storage element of a URL; its log tells HIT and MISS."""
    program = _installed("nginx")
    (folder / "kept").mkdir(parents=True)
    port, parts = free_port(), urllib.parse.urlsplit(url)
    recipe = OPERATIONS.read_text().partition("```nginx\n")[2].partition("```")[0]
    for told, here in {
        "listen 8080": f"listen 127.0.0.1:{port}",
        "https://se.example.org:1094": f"{parts.scheme}://{parts.netloc}",
        "se.example.org:1094": parts.netloc,
        "se.example.org": parts.hostname or "",
        "/sealed/": f"{parts.path}/",
        "/var/cache/mdmfs": str(folder / "kept"),
        "allow 10.0.0.0/8": "allow 127.0.0.1",
        "proxy_ssl_verify on;": "proxy_ssl_verify on; proxy_ssl_name localhost;",  # nginx knows no addresses in SANs
        "/etc/mdmfs/cache.pem": str(pki.keystores[0].certificate_file),
        "/etc/mdmfs/cache.key": str(pki.keystores[0].key_file),
        "/etc/mdmfs/ca.pem": str(pki.anchors.path),
    }.items():
        assert told in recipe, f"the recipe no longer says {told!r}"
        recipe = recipe.replace(told, here)
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, recipe=recipe, user=pwd.getpwuid(os.geteuid()).pw_name))
    command = [program, "-c", str(file), "-e", str(folder / "error.log")]
    with running_server(command, folder / "nginx.out", port, {}) as process:
        yield Engine(f"http://127.0.0.1:{port}", process, folder / "kept")


@contextlib.contextmanager
def _swift_server(
    folder: Path, kind: str, port: int, pipeline: str, more: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    program, user = _installed(f"swift-{kind}-server"), pwd.getpwuid(os.geteuid()).pw_name
    file = folder / f"{kind}-server.conf"
    file.write_text(_SERVER.format(port=port, user=user, folder=folder, kind=kind, pipeline=pipeline) + more)
    with running_server([program, str(file)], folder / f"{kind}.log", port, {}) as process:
        yield process


def _make_bucket(endpoint: str) -> None:
    """PUT Bucket; Swift's S3 face answers 503 until its servers have found one another."""
    store = S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=SECRET,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    url = obstore.sign(store, "PUT", "", PRESIGNED)
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT")) as answer:  # noqa: S310 our own URL
        assert answer.status == 200


def _run(program: str, *arguments: str) -> None:
    subprocess.run([_installed(program), *arguments], check=True, stdout=subprocess.DEVNULL)


def _find(program: str) -> str | None:
    return shutil.which(program, path=_PATH)


def _installed(program: str) -> str:
    found = _find(program)
    assert found is not None, told_missing(program)
    return found


def _give_away(folder: Path, user: str) -> None:
    """Let a server that refuses to be root have what is below a folder, and reach it."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user)
