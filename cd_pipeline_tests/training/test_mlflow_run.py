"""A training is told to a real MLflow server, and goes on where there is none."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from cd_pipeline.training.mlflow_run import MlflowRun, flattened
from cd_pipeline_tests.servers import free_port, served

LOGGER = logging.getLogger("test of MLflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on loopback, with its store in a file."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}", "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    address = f"http://127.0.0.1:{port}"
    with served([*command, *store], folder, environment, f"{address}/health", folder / "log"):
        yield address


@pytest.mark.slow
def test_a_training_is_a_run_with_its_settings_versions_and_epochs(
    server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    caplog.set_level("INFO")
    settings = {"training": {"epochs": 2, "loss": "change"}, "seed": 42}
    with MlflowRun("rooms", settings, {"data_version": "abc"}, LOGGER) as run:
        for epoch, f1 in ((1, 0.25), (2, 0.5)):
            run.add({"epoch": epoch, "val_f1": f1, "val_loss": float("nan"), "threshold": None})
    assert f"of experiment rooms, {server}" in caplog.text

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("rooms")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params == {"training.epochs": "2", "training.loss": "change", "seed": "42"}
    assert found.data.tags["data_version"] == "abc"
    history = client.get_metric_history(found.info.run_id, "val_f1")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
    assert set(found.data.metrics) == {"val_f1"}


@pytest.mark.slow
def test_a_training_that_fails_is_a_failed_run(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with pytest.raises(FloatingPointError), MlflowRun("broken", {}, {}, LOGGER):
        raise FloatingPointError("loss is not finite")
    client = MlflowClient(server)
    (found,) = client.search_runs([client.get_experiment_by_name("broken").experiment_id])
    assert found.info.status == "FAILED"


def test_without_a_server_training_goes_on_after_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with MlflowRun("rooms", {}, {}, LOGGER) as run:
        run.add({"epoch": 1, "val_f1": 0.25})
    warnings = [record.message for record in caplog.records if record.name == LOGGER.name]
    assert len(warnings) == 1
    assert "MLflow does not answer at http://127.0.0.1:" in warnings[0]


def test_settings_are_flattened_and_long_ones_cut() -> None:
    assert flattened({"a": {"b": {"c": 1}, "d": None}, "e": "x" * 600}) == {
        "a.b.c": "1",
        "a.d": "None",
        "e": "x" * 500,
    }
