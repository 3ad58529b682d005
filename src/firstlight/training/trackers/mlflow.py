"""MLflow, at the server or store that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import re
import time

from firstlight.training.trackers.start import Start
from firstlight.training.trackers.tracker import Numbers, Tracker

MOST_AT_ONCE = 100
"""Parameters, and tags, of one request."""
LONGEST_VALUE = 500
"""Characters of a parameter that every version takes."""
_NOT_IN_A_KEY = re.compile(r"[^\w./ -]")


class MLflow(Tracker):
    """A run of the experiment `start.project`. MLflow keeps every point, so no step is sent twice."""

    def __init__(self, start: Start) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self.identity = start.identity or self._create(start)
        self.place = f"{self._client.tracking_uri}, experiment {start.project}, run {self.identity}"
        if start.identity:
            self._client.update_run(self.identity, status="RUNNING")
            return
        settings = [Param(_key(key), value[:LONGEST_VALUE]) for key, value in start.flat_settings().items()]
        for first in range(0, len(settings), MOST_AT_ONCE):
            self._client.log_batch(self.identity, params=settings[first : first + MOST_AT_ONCE])

    def _create(self, start: Start) -> str:
        experiment = self._client.get_experiment_by_name(start.project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(start.project)
        tags = {**start.tags, **({"mlflow.note.content": start.description} if start.description else {})}
        return str(self._client.create_run(number, run_name=start.name, tags=tags).info.run_id)

    def write(self, step: int, numbers: Numbers) -> None:
        """A step, in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self.identity, metrics=[Metric(_key(k), v, now, step) for k, v in numbers.items()])

    def close(self, finished: bool) -> None:
        """Say that the run has ended, or stopped."""
        self._client.set_terminated(self.identity, "FINISHED" if finished else "KILLED")


def _key(key: str) -> str:
    """A name that MLflow takes: letters, digits, '_', '-', '.', ' ' and '/'."""
    return _NOT_IN_A_KEY.sub("_", key)
