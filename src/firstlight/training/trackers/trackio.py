"""trackio: on this machine (TRACKIO_DIR), in a Space (TRACKIO_SPACE_ID) or on a server (TRACKIO_SERVER_URL)."""

from __future__ import annotations

import contextlib
import io

from firstlight.training.trackers.start import Start
from firstlight.training.trackers.tracker import Numbers, Tracker


class Trackio(Tracker):
    """A run is found again by project and name; of several of that name the newest."""

    def __init__(self, start: Start) -> None:
        import trackio

        self.identity = start.identity or start.name
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project=start.project,
                name=self.identity,
                resume="allow" if start.identity else "never",
                config=start.settings,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

        self.place = f"trackio show --project {start.project}"

    def write(self, step: int, numbers: Numbers) -> None:
        """A step; a thread of the package sends it."""
        self._run.log(dict(numbers), step=step)

    def close(self, finished: bool) -> None:
        """Send what is left."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()
