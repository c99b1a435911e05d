"""A bucket of an S3-compatible store, by obstore: an extra, which only hospitals with such a store install."""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
import stat
import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mdmfs.hospital.storage.port import BrokenOffError, Content, StorageError
from mdmfs.model.errors import ConfigurationError

SINGLE_PUT: Final = 32 * 2**20
"""Larger objects go up in parts: no more of one is in memory."""
if TYPE_CHECKING:
    from obstore.store import ClientConfig

CACHE_CONTROL: Final = "public, max-age=86400, immutable"
"""A name stands for one sealing for ever, and the bytes are sealed: any cache may keep them."""
TIMEOUT: Final = dt.timedelta(seconds=60)


class S3Element:
    """``StorageElement`` in one bucket."""

    def __init__(
        self, name: str, url: str, *, region: str, credentials: pathlib.Path, ca: pathlib.Path | None, padding: int
    ) -> None:
        """Name a bucket by ``https://HOST/BUCKET``; raises ``ConfigurationError``."""
        self.name = name
        self.padding = padding
        self._endpoint, _, self._bucket = url.rstrip("/").rpartition("/")
        try:
            import obstore  # noqa: PLC0415 an extra: hospitals without S3 do not have it
            from obstore.store import S3Store  # noqa: PLC0415
        except ImportError as error:
            message = f"storage {name}: for S3 the extra is missing"
            raise ConfigurationError(message, what_to_do="pip install 'mdmfs[s3]', or ./run install s3") from error
        key, secret = _read_credentials(credentials)
        options: ClientConfig = {"allow_http": url.startswith("http://")}
        if ca is not None:
            options["root_certificate"] = ca.read_bytes()
        self._obstore = obstore
        self._store = S3Store(
            self._bucket,
            endpoint=self._endpoint,
            region=region,
            access_key_id=key,
            secret_access_key=secret,
            virtual_hosted_style_request=False,
            client_options=options,
            retry_config={"max_retries": 2, "retry_timeout": TIMEOUT},
        )

    def put(self, name: str, content: Content, length: int) -> None:
        """Put in one request, or in parts where it is long."""
        attributes = {"Cache-Control": CACHE_CONTROL, "Content-Type": "application/octet-stream"}
        with self._telling("put"):
            if length <= SINGLE_PUT:
                self._obstore.put(self._store, name, b"".join(content()), attributes=attributes, use_multipart=False)
            else:
                parts = (bytes(piece) for piece in content())
                self._obstore.put(self._store, name, parts, attributes=attributes, max_concurrency=2)

    def size(self, name: str) -> int | None:
        """HEAD the object."""
        with self._telling("head"):
            try:
                return int(self._obstore.head(self._store, name)["size"])
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        """DELETE the object."""
        with self._telling("delete"), contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, name)

    def turl(self, name: str, seconds: float) -> str:
        """Presign a GET (AWS Signature Version 4, query parameters)."""
        with self._telling("sign"):
            return self._obstore.sign(self._store, "GET", name, dt.timedelta(seconds=seconds))

    def surl(self, name: str) -> str:
        """Name it as S3's own tools do."""
        return f"s3://{self._bucket}/{name}"

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Turn what the library raises into one sentence; its text may quote URLs that let somebody in."""
        try:
            yield
        except (OSError, self._obstore.exceptions.BaseError) as error:
            message = f"storage {self.name} does not {what}: {type(error).__name__}"
            is_broken = isinstance(error, self._obstore.exceptions.GenericError)  # as nobody has refused it
            raise (BrokenOffError if is_broken else StorageError)(message) from error


def _read_credentials(file: pathlib.Path) -> tuple[str, str]:
    """Read ``access_key_id`` and ``secret_access_key`` from a TOML file that is its owner's alone."""
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            message = f"others than their owner may read the keys in {file}: chmod 600 {file}"
            raise ConfigurationError(message)
        read = tomllib.loads(file.read_text(encoding="utf-8"))
        return str(read["access_key_id"]), str(read["secret_access_key"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        message = f"{file} holds no access_key_id and secret_access_key, as TOML"
        raise ConfigurationError(message) from error
