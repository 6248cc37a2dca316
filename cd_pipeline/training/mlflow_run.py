"""A training as a run of an MLflow server: needs the extra `mlflow`."""

import os
import time
from collections.abc import Mapping
from logging import Logger
from math import isfinite
from types import TracebackType
from typing import Any, Self

MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Unless the environment says otherwise: a server that is away does not hold training up for minutes, and
nobody but the server is told anything."""
LONGEST_TEXT = 500
"""Characters of a parameter that every MLflow server takes."""


class MlflowRun:
    """One run, an epoch a step. The server is that of `MLFLOW_TRACKING_URI`.

    A server that does not answer is told once, and training goes on without it.

    Args:
        experiment: its name; is made if needed.
        parameters: settings, nested or plain; written as `part.name`.
        tags: text to text, such as the versions of what goes in.
        logger: is told where the run is, or that there is none.
    """

    def __init__(
        self, experiment: str, parameters: Mapping[str, Any], tags: Mapping[str, str], logger: Logger
    ) -> None:
        self._logger = logger
        self._client: Any = None
        for name, value in MANNERS.items():
            os.environ.setdefault(name, value)
        try:
            self._begin(experiment, flattened(parameters), dict(tags))
        except Exception as error:  # whatever a server or its client can raise
            self._give_up(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end("FINISHED" if kind is None else "FAILED")

    def add(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch; `epoch` among them is the step."""
        if self._client is None:
            return
        from mlflow.entities import Metric

        step, now = int(record["epoch"]), time.time_ns() // 1_000_000
        metrics = [
            Metric(name, float(value), now, step)
            for name, value in record.items()
            if name != "epoch" and isinstance(value, int | float) and isfinite(value)
        ]
        try:
            self._client.log_batch(self._run_id, metrics=metrics)
        except Exception as error:  # as above
            self._give_up(error)

    def _begin(self, experiment: str, parameters: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        client = MlflowClient()
        found = client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else client.create_experiment(experiment)
        run = client.create_run(experiment_id)
        self._run_id = run.info.run_id
        client.log_batch(
            self._run_id,
            params=[Param(name, text) for name, text in parameters.items()],
            tags=[RunTag(name, text) for name, text in tags.items()],
        )
        self._client = client
        self._logger.info(
            f"MLflow: run {run.info.run_name} of experiment {experiment}, {client.tracking_uri}"
        )

    def _end(self, status: str) -> None:
        if self._client is None:
            return
        try:
            self._client.set_terminated(self._run_id, status)
        except Exception as error:  # as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        self._logger.warning(
            f"MLflow does not answer at {os.environ.get('MLFLOW_TRACKING_URI', 'its default place')} ({reason}); "
            "training goes on without it"
        )


def flattened(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested settings as `part.name` to text, what is longer than 500 characters cut."""
    result: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= flattened(value, f"{above}{name}.")
        else:
            result[f"{above}{name}"] = str(value)[:LONGEST_TEXT]
    return result
