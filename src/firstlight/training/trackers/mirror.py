"""A thread that keeps one tracker as far as `metrics.jsonl` is, whatever the network does.

`trackers.json` in the run folder says which run of the tracker it is and up to which step the tracker has numbers, so
that a resumed run goes on with the same curve: steps that are written again replace the old ones where the tracker can
(TensorBoard), and are left out elsewhere. A tracker that fails is told of once and tried again; training never waits.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from firstlight.support.console import note, warn
from firstlight.support.errors import FirstlightError
from firstlight.support.files import read_json, write_json
from firstlight.training.run_folder import RunFolder
from firstlight.training.trackers.lines import NewLines
from firstlight.training.trackers.start import Start
from firstlight.training.trackers.tracker import Tracker

RECORD = "trackers.json"
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 10.0, 600.0
CLOSING_SECONDS = 60.0
"""How long the end of a run waits for a tracker that works."""
TOLD_AFTER_SECONDS = 2.0
_record_lock = threading.Lock()


class Mirror:
    """`start`, then `wake` whenever there are new lines, then `close`."""

    def __init__(self, name: str, opener: type[Tracker], run: RunFolder, start: Start) -> None:
        self.name, self._opener, self._record = name, opener, run.path / RECORD
        known = _read_record(self._record).get(name, {})
        self._start = replace(start, identity=str(known.get("identity", "")))
        self._reached = int(known.get("step", -1))
        """Last step that the tracker has numbers of."""
        self._had = min(self._reached, start.step) if opener.replaces else self._reached
        """Up to this step nothing is sent again."""
        self._seen = -1
        """Step of the last line that was looked at."""
        self._lines, self._events = NewLines(run.metrics), NewLines(run.events)
        self._happened: Counter[str] = Counter()
        if not opener.replaces:
            self._events.offset = int(known.get("events_read", 0))
            self._happened.update({str(kind): int(count) for kind, count in known.get("events", {}).items()})
        self._tracker: Tracker | None = None
        self._failing = self._complete = self._finished = False
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"firstlight-{name}", daemon=True)

    def start(self) -> None:
        """Begin, with what `metrics.jsonl` has and the tracker has not."""
        self._thread.start()

    def wake(self) -> None:
        """There are new lines."""
        self._wake.set()

    def close(self, finished: bool) -> None:
        """Let the tracker take what is left, for `CLOSING_SECONDS` at most; finished: the run has reached its end."""
        self._finished = finished
        self._closing.set()
        self._wake.set()
        self._thread.join(TOLD_AFTER_SECONDS)
        if self._thread.is_alive() and not self._failing:
            note(f"waiting for {self.name} to take the last numbers, {CLOSING_SECONDS:.0f} s at most …")
            self._thread.join(CLOSING_SECONDS - TOLD_AFTER_SECONDS)
        if not self._complete:
            has = f"the numbers up to step {self._reached}" if self._reached >= 0 else "no numbers of this run"
            warn(f"{self.name} has {has}; metrics.jsonl has all, and what is missing is sent when the run is resumed.")

    def _work(self) -> None:
        """The thread."""
        delay = FIRST_RETRY_SECONDS
        while not self._complete:
            try:
                self._catch_up()
            except (Exception, SystemExit) as problem:
                self._tell(problem)
                if self._closing.is_set():
                    return
                self._closing.wait(delay)
                delay = min(2 * delay, LONGEST_RETRY_SECONDS)
                continue
            if self._failing:
                self._failing, delay = False, FIRST_RETRY_SECONDS
                note(f"{self.name} works again; it has all numbers.")
            if not self._complete:
                self._wake.wait()
                self._wake.clear()

    def _catch_up(self) -> None:
        """Send all that is written and was not sent; and the end, when it is one."""
        closing = self._closing.is_set()  # asked first: all that was written before the end is read below
        if self._tracker is None:
            self._tracker = self._opener(self._start)
            self._keep()
            note(f"{self.name}: {self._tracker.place}")
        for line in self._lines:
            self._send(self._tracker, line)
        if closing:
            self._tracker.close(self._finished)
            self._complete = True

    def _send(self, tracker: Tracker, line: dict[str, Any]) -> None:
        step = line.pop("step", None)
        if not isinstance(step, int):
            return
        if tracker.replaces and step < self._seen:  # the run went back to an earlier step
            self._had = min(self._had, step - 1)
            self._events.offset, self._happened = 0, Counter()
        self._seen = step
        if step <= self._had or (step < self._reached and not tracker.replaces):
            return
        read, happened = self._events.offset, Counter(self._happened)
        try:
            tracker.write(step, _numbers(line) | self._marks(step))
        except BaseException:
            self._events.offset, self._happened = read, happened
            raise
        self._reached = step
        self._keep()

    def _marks(self, step: int) -> dict[str, float]:
        """`events/KIND`: how often something has happened by now, of what has since the last line."""
        new: dict[str, float] = {}
        for event in self._events:
            kind, when = event.get("event"), event.get("step")
            if isinstance(when, int) and when > step:
                break
            if isinstance(kind, str):
                self._happened[kind] += 1
                if self._opener.replaces and isinstance(when, int) and when <= self._had:
                    continue  # still shown where it happened
                new[f"events/{kind}"] = float(self._happened[kind])
        return new

    def _keep(self) -> None:
        """Note in the run folder how far the tracker is; without room there, a line may be sent twice."""
        assert self._tracker is not None
        mine = {
            "identity": self._tracker.identity,
            "step": self._reached,
            "events": dict(self._happened),
            "events_read": self._events.offset,
        }
        with _record_lock, contextlib.suppress(OSError):
            write_json(self._record, {**_read_record(self._record), self.name: mine})

    def _tell(self, problem: BaseException) -> None:
        if not self._failing:
            reason = " ".join(str(problem).split())[:200] or type(problem).__name__
            warn(f"{self.name} takes no numbers ({reason}). Training and metrics.jsonl go on, and it is tried again.")
        self._failing = True


def _read_record(path: Path) -> dict[str, Any]:
    """What `trackers.json` says; nothing where it is not there or damaged."""
    try:
        record = read_json(path, "record of trackers")
    except (FirstlightError, OSError):
        return {}
    return {str(name): known for name, known in record.items() if isinstance(known, dict)}


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """The values that can be drawn."""
    return {
        key: value
        for key, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
