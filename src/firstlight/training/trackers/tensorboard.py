"""TensorBoard: event files in the run folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

from firstlight.support.files import to_json
from firstlight.training.trackers.start import Start
from firstlight.training.trackers.tracker import Numbers, Tracker


class TensorBoard(Tracker):
    """Event files. TensorBoard drops what an earlier file has from a step on when a later one begins there."""

    replaces = True

    def __init__(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._last = str(start.folder / "tensorboard"), start.step
        self._writer = SummaryWriter(self._folder, purge_step=start.step + 1)
        self.place = f"tensorboard --logdir {start.folder.parent}"
        if start.step == 0:
            self._writer.add_text("configuration", f"```json\n{to_json(start.settings, indent=2)}\n```", 0)

    def write(self, step: int, numbers: Numbers) -> None:
        """Scalars; a step before the last one drops all from it on."""
        if step < self._last:
            from torch.utils.tensorboard import SummaryWriter

            self._writer.close()
            self._writer = SummaryWriter(self._folder, purge_step=step)
        self._last = step
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def close(self, finished: bool) -> None:
        """Write what is buffered."""
        self._writer.close()
