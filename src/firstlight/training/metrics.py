"""Metrics of a run: one JSON object a line in metrics.jsonl, and the same to TensorBoard or W&B when asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from firstlight.config import RunConfig
from firstlight.support.errors import ConfigError
from firstlight.support.lines import LineFile
from firstlight.training.run_folder import RunFolder


class MetricsLog:
    """`write(step, values)` appends to metrics.jsonl and to the trackers that the configuration names.

    Where the run folder is left to another process, it does nothing.
    """

    def __init__(self, run: RunFolder, config: RunConfig) -> None:
        self._file = LineFile(run.metrics) if run.writes else None
        self._trackers: list[_TensorBoard | _WeightsAndBiases] = []
        if not run.writes:
            return
        if config.logging.tensorboard:
            self._trackers.append(_TensorBoard(run))
        if config.logging.wandb_project:
            self._trackers.append(_WeightsAndBiases(run, config, config.logging.wandb_project))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of one step; nested mappings become keys joined by '/'."""
        if self._file is None:
            return
        flat = dict(_flatten(values))
        self._file.write(json.dumps({"step": step, **flat}))
        for tracker in self._trackers:
            tracker.write(step, flat)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


class _TensorBoard:
    def __init__(self, run: RunFolder) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "logging.tensorboard needs the package tensorboard: pip install 'firstlight[tensorboard]'."
            ) from None
        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=run.last_step())

    def write(self, step: int, flat: Mapping[str, Any]) -> None:
        for key, value in flat.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, run: RunFolder, config: RunConfig, project: str) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError(
                "logging.wandb_project needs the package wandb: pip install 'firstlight[wandb]'."
            ) from None
        self._run = wandb.init(
            project=project,
            name=config.name,
            id=config.name,
            resume="allow",
            dir=str(run.path),
            config=config.model_dump(mode="json"),
        )

    def write(self, step: int, flat: Mapping[str, Any]) -> None:
        self._run.log(dict(flat), step=step)

    def close(self) -> None:
        self._run.finish()
