"""Where else a run's numbers go: TensorBoard, Weights & Biases, MLflow, trackio.

A tracker mirrors `metrics.jsonl`. A thread of its own reads that file and hands on what the tracker does not have yet,
so that training waits for no network, and what a tracker missed (it was away, or named later) reaches it afterwards.
"""

from __future__ import annotations

from importlib import import_module, util

from firstlight.config import RunConfig
from firstlight.support.errors import ConfigError
from firstlight.training.run_folder import RunFolder
from firstlight.training.trackers.mirror import Mirror
from firstlight.training.trackers.start import Start
from firstlight.training.trackers.tracker import Tracker

_CLASSES = {"tensorboard": "TensorBoard", "wandb": "WeightsAndBiases", "mlflow": "MLflow", "trackio": "Trackio"}
"""Class of each tracker, in the module that is called as the tracker, and as the package that it needs."""


def check_trackers(config: RunConfig) -> None:
    """ConfigError for a tracker whose package is not installed; nothing is imported."""
    for name in config.logging.trackers:
        if util.find_spec(name) is None:
            raise ConfigError(
                f"logging.trackers names {name}, which is not installed: pip install 'firstlight[{name}]'."
            )


def start_trackers(run: RunFolder, config: RunConfig, step: int) -> list[Mirror]:
    """Mirrors of a run's numbers, at work; step: that the run goes on from. ConfigError as `check_trackers`."""
    check_trackers(config)
    start = Start.of(run, config, step)
    mirrors = [Mirror(name, _class(name), run, start) for name in config.logging.trackers]
    for mirror in mirrors:
        mirror.start()
    return mirrors


def _class(name: str) -> type[Tracker]:
    """The class of a tracker; the package is imported when one is made."""
    made: type[Tracker] = getattr(import_module(f"firstlight.training.trackers.{name}"), _CLASSES[name])
    return made
