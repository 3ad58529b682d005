"""What is told of saves that fail while training goes on: all the first time, little while it lasts, and the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from firstlight.support.console import note, warn
from firstlight.training.checkpoint.folder import checkpoint_steps

Failed = Callable[[int, str], None]
"""Is told the step and the reason."""


class Trouble:
    """Failures of saving in a row, on the one rank that speaks."""

    def __init__(self, folder: Path, pause: int, failed: Failed | None) -> None:
        """pause: steps until the next try."""
        self.folder, self.pause, self.failed = folder, pause, failed
        self.lasts = False
        self._untold: list[tuple[int, str]] = []

    def tell(self, step: int, reason: str) -> None:
        """reason: a whole sentence."""
        if self.lasts:
            warn(f"step {step} could not be saved either: {reason}")
        else:
            warn(
                f"step {step} could not be saved. {reason} Training goes on; {self._safe()}, and what came after it "
                f"would be lost with this process. Saving is tried again every {self.pause} steps."
            )
        self.lasts = True
        self._untold.append((step, reason))
        self._record()

    def over(self, step: int) -> None:
        """A save that went well."""
        if self.lasts:
            note(f"step {step} is saved again.")
        self.lasts = False
        self._record()

    def _record(self) -> None:
        """Tell `failed`, which may write to the disk that is full: then later."""
        with contextlib.suppress(OSError):
            while self.failed and self._untold:
                self.failed(*self._untold[0])
                del self._untold[0]

    def _safe(self) -> str:
        try:
            steps = checkpoint_steps(self.folder)
        except OSError:
            return "the checkpoints before cannot be seen"
        return f"the checkpoint of step {steps[-1]} is safe" if steps else "there is no checkpoint yet"
