"""Metrics of a run: one JSON object a line in metrics.jsonl, which the trackers of the configuration mirror."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from firstlight.config import RunConfig
from firstlight.support.lines import LineFile
from firstlight.training.run_folder import RunFolder
from firstlight.training.trackers import start_trackers


class MetricsLog:
    """`write(step, values)` appends to metrics.jsonl.

    Where the run folder is left to another process, it does nothing.
    """

    def __init__(self, run: RunFolder, config: RunConfig, step: int = 0) -> None:
        """step: that the run goes on from. ConfigError for a tracker that is not installed."""
        self._file = LineFile(run.metrics) if run.writes else None
        self._trackers = start_trackers(run, config, step) if run.writes else []

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of one step; nested mappings become keys joined by '/'."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **dict(_flatten(values))}))
        for tracker in self._trackers:
            tracker.wake()

    def close(self, finished: bool = False) -> None:
        """Let the trackers take the last lines; finished: the run has reached its last step."""
        for tracker in self._trackers:
            tracker.close(finished)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value
