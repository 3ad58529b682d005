"""Weights & Biases, at wandb.ai or a server of one's own (WANDB_BASE_URL), or offline (WANDB_MODE=offline).

What the package would collect by itself stays here: terminal output, source code, git differences, the command line.
"""

from __future__ import annotations

import uuid

from firstlight.training.trackers.start import Start
from firstlight.training.trackers.tracker import Numbers, Tracker


class WeightsAndBiases(Tracker):
    """A run that keeps its id, so that later processes go on with it; the key comes from `wandb login` or
    WANDB_API_KEY."""

    def __init__(self, start: Start) -> None:
        import wandb

        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise RuntimeError("there is no key; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")
        self.identity = start.identity or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=start.project,
            name=start.name,
            id=self.identity,
            resume="allow",
            dir=str(start.folder),
            notes=start.description or None,
            config=start.settings,
            tags=[f"{key}: {value}" for key, value in start.tags.items()],
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, save_code=False, silent=True, x_disable_meta=True
            ),
        )
        self.place = f"wandb sync {self._run.settings.sync_dir}" if self._run.offline else str(self._run.url)

    def write(self, step: int, numbers: Numbers) -> None:
        """A step; the package sends it by itself and keeps it while the network is away."""
        self._run.log(dict(numbers), step=step)

    def close(self, finished: bool) -> None:
        """Send what is left; a run that has not reached its end is shown as stopped."""
        self._run.finish(exit_code=0 if finished else 75)
