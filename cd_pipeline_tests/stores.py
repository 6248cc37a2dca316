"""A real server of the S3 protocol on loopback, looked at by another client than the one under test."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
REQUEST = re.compile(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+) (\S+) HTTP')


class _Requests(logging.Handler):
    """What the server says that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if found := REQUEST.search(record.getMessage()):
            self.told.append((found[1], unquote(found[2])))

    def of(self, method: str) -> list[str]:
        """The names of the objects in the bucket that a method was used on; of an upload in parts its end."""
        parted = "uploadId=" if method == "POST" else ""
        addresses = [
            urlsplit(address, allow_fragments=False) for used, address in self.told if used == method
        ]
        return [
            found.path.removeprefix(f"/{BUCKET}/")
            for found in addresses
            if found.path.startswith(f"/{BUCKET}/")
            and found.query.startswith(parted)
            and bool(found.query) == bool(parted)
        ]


class Store:
    """The server with one bucket."""

    def __init__(self, port: int = 0) -> None:
        self._requests = _Requests()
        log = logging.getLogger("werkzeug")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(self._requests)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def get(self, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read())

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=name)

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def writes(self, prefix: str = "") -> Counter[str]:
        """How often each object was written, since the server was cleared, leases and empty folders left out."""
        found = Counter(self._requests.of("PUT") + self._requests.of("POST"))
        return Counter(
            {
                name: count
                for name, count in found.items()
                if name.startswith(prefix) and not name.endswith((".lease.json", "/"))
            }
        )

    def reads(self, prefix: str = "") -> Counter[str]:
        """How often each object was read, since the server was cleared."""
        return Counter(name for name in self._requests.of("GET") if name.startswith(prefix))

    def put_folder(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def make_bucket(self) -> None:
        self.client.create_bucket(Bucket=BUCKET)
        self._requests.told.clear()

    def clear(self) -> None:
        self._tell("reset")
        self.make_bucket()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Know no user for the time of a block."""
        self._tell("reset-auth", b"0")
        try:
            yield
        finally:
            self._tell("reset-auth", b"inf")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Listen to nobody for the time of a block; what is stored stays."""
        self._server.stop()
        try:
            yield
        finally:
            self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
            self._server.start()

    def _tell(self, what: str, content: bytes = b"") -> None:
        plain = {"Content-Type": "text/plain"}
        address = f"{self.endpoint}/moto-api/{what}"
        urlopen(Request(address, data=content, headers=plain, method="POST")).close()

    def stop(self) -> None:
        logging.getLogger("werkzeug").removeHandler(self._requests)
        self._server.stop()


@contextmanager
def served() -> Iterator[Store]:
    """Run a server for the time of a block."""
    store = Store()
    store.clear()  # servers of one process share what they store
    try:
        yield store
    finally:
        store.stop()


def use(store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at a server, with a cache of its own."""
    for name in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CD_PIPELINE_CACHE", str(cache))
