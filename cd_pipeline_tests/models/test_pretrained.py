import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import huggingface_hub
import pytest
from huggingface_hub import constants

from cd_pipeline.models import pretrained
from cd_pipeline.models.pretrained import WeightsUnavailableError, find_weights

ENCODER = "mobilenetv3_small_100"


@pytest.fixture(autouse=True)
def nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A listening socket on this machine; connections wait until a test answers them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_cached_file_is_found_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def cache(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / "model.safetensors")

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cache)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert find_weights(ENCODER) == tmp_path / "model.safetensors"
    assert asked == [("timm/mobilenetv3_small_100.lamb_in1k", "model.safetensors")]


def test_a_hub_that_refuses_the_connection_is_named(
    monkeypatch: pytest.MonkeyPatch, port: socket.socket
) -> None:
    endpoint = address(port)
    port.close()
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(WeightsUnavailableError, match=endpoint):
        find_weights(ENCODER)


def test_a_hub_that_never_answers_is_given_up_within_the_time_limit(
    monkeypatch: pytest.MonkeyPatch, port: socket.socket
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address(port))
    monkeypatch.setattr(pretrained, "REACH_TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="timed out"):
        find_weights(ENCODER)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "answer", [b"", b"?\r\n\r\n", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]
)
def test_a_proxy_that_answers_with_something_else_counts_as_unreachable(
    monkeypatch: pytest.MonkeyPatch, port: socket.socket, answer: bytes
) -> None:
    def serve() -> None:
        connection, _ = port.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    monkeypatch.setattr(constants, "ENDPOINT", address(port))
    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(WeightsUnavailableError):
        find_weights(ENCODER)
    server.join()


def test_a_download_that_fails_counts_as_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        def close(self) -> None: ...

    def fail(*args: object, **kwargs: object) -> NoReturn:
        raise ConnectionResetError("connection reset")

    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: Answer())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsUnavailableError, match="connection reset"):
        find_weights(ENCODER)


def test_the_time_limit_leaves_room_within_ten_seconds() -> None:
    assert 0 < pretrained.REACH_TIMEOUT < 10
