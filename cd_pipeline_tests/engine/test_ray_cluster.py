import logging
import signal
import socket

import pytest

from cd_pipeline.engine.ray_cluster import connected, nodes
from cd_pipeline.engine.settings import EngineSettings

LOGGER = logging.getLogger(__name__)
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_answers_is_named_with_the_remedy(form: str) -> None:
    address = form.format(unused_port())
    with (
        pytest.raises(
            ConnectionError, match=f"compute.address: no Ray cluster to work with at '{address}'"
        ) as caught,
        connected(EngineSettings(engine="ray", address=address), LOGGER),
    ):
        pass
    assert "ray start --head" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    with pytest.raises(ConnectionError, match="'somewhere'"), connected(EngineSettings(engine="ray"), LOGGER):
        pass


def test_a_cluster_started_here_ends_with_the_block_and_leaves_signals_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    settings = EngineSettings(engine="ray", workers=5)
    with connected(settings, LOGGER):
        assert signal.getsignal(signal.SIGTERM) is handler
        (machine,) = nodes()
        assert machine.cpus >= 5  # as many as workers were asked for, whatever the machine has
        session = ray.get_runtime_context().get_session_name()
        with connected(settings, LOGGER):
            assert ray.get_runtime_context().get_session_name() == session
        assert ray.is_initialized()
    assert not ray.is_initialized()
    (told,) = [message for message in caplog.messages if message.startswith("Ray cluster")]
    assert told.startswith(f"Ray cluster of this machine alone: 1 nodes, {machine.cpus} CPUs")
