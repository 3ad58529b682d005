"""A process of training that finishes no step any more is found, told with its Python stack, and ended with the others.

Without this a run stands still until the time-out of a collective, which tells where every process waits but not for
whom; a process alone stands still for good. Training calls `beat` once a step, and a thread of each process counts the
seconds between two of them. When they are too many, all processes put their stacks together in the key-value store of
the run, and the ones that the others wait for are told: those that do not answer (the interpreter itself is blocked),
or have finished fewer steps, or are not in a collective, or are where few others are.

Only the seconds in which the thread ran count, so neither Ctrl-Z nor a suspended machine is taken for a hang. The first
step may compile, so counting begins when it is done, and work that is no step is done while `resting`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from firstlight.support import console, peers, ranks
from firstlight.support.errors import EXIT_HUNG, FirstlightError

LOOK_EVERY_SECONDS = 0.5
"""How often the thread looks for a new step."""
SLOWER = 5
"""How many times its longest step so far a process may take for one, beyond which it is found to stand still."""
ANSWER_SECONDS = 5.0
"""How long the stacks of the other processes are waited for: they began to wait at about the same time."""
RECORD_SECONDS = 2.0
"""What a disk that hangs, too, may delay the end."""

Record = Callable[[str], object]


@dataclass(frozen=True)
class Standstill:
    """Where a process stands."""

    steps: int
    """Steps that it has finished since it was started."""
    place: str
    """The innermost function, as `gradients.py:30 in reduce_step`."""
    waits: bool
    """Whether it is in a collective of torch, that is waits for others."""
    stack: str
    """Python's stack of the main thread, the innermost call last."""


def beat() -> None:
    """This process has finished a step."""
    _watch.steps += 1


@contextmanager
def resting() -> Iterator[None]:
    """While the block runs no step is due: a validation, a save that is waited for."""
    _watch.rests += 1
    try:
        yield
    finally:
        _watch.rests -= 1


@contextmanager
def watching_steps(seconds: float, record: Record = lambda message: None) -> Iterator[None]:
    """While the block runs, end all processes with EXIT_HUNG when this one finishes no step for `seconds`.

    seconds: at least; a process may also take SLOWER times its longest step so far. 0: for ever. record: called with
    the message before the end. Of several processes every one calls it, inside `peers.watching`.
    """
    if not seconds:
        yield
        return
    _watch.start(seconds, record)
    try:
        yield
    finally:
        _watch.stop()


class _Watch:
    """The thread that counts, and what it counts."""

    def __init__(self) -> None:
        self.steps = self.rests = 0

    def start(self, seconds: float, record: Record) -> None:
        self.steps = self.rests = 0
        self._seconds, self._record = seconds, record
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        seen, passed, longest, looked = 0, 0.0, 0.0, time.monotonic()
        while not self._stopped.wait(LOOK_EVERY_SECONDS):
            now = time.monotonic()
            if not self.rests:
                passed += min(now - looked, 2 * LOOK_EVERY_SECONDS)
            looked = now
            if self.steps != seen:
                seen, longest, passed = self.steps, max(longest, passed), 0.0
            elif seen and passed >= max(self._seconds, SLOWER * longest):
                self._end(seen, passed)
                passed = 0.0

    def _end(self, steps: int, seconds: float) -> None:
        """End all processes, unless this one has gone on meanwhile."""
        message = told(_standstills(standstill(steps)), seconds)
        ending = peers.Ending(message, EXIT_HUNG)
        if self._stopped.is_set() or self.steps != steps:
            return
        if not ranks.together():
            console.stop_drawing()
            console.fail(ending.message, FirstlightError.label)
        recorder = threading.Thread(target=self._record, args=(message,), daemon=True)
        recorder.start()
        recorder.join(RECORD_SECONDS)
        if ranks.together():
            peers.end_all(ending)
        else:
            os._exit(EXIT_HUNG)


_watch = _Watch()


def standstill(steps: int) -> Standstill:
    """Where the main thread of this process is now."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = traceback.extract_stack(frame)
    last = calls[-1]
    return Standstill(
        steps,
        f"{Path(last.filename).name}:{last.lineno} in {last.name}",
        any("torch/distributed/" in call.filename for call in calls[-6:]),
        "".join(traceback.format_list(calls)).rstrip(),
    )


def _standstills(own: Standstill) -> dict[int, Standstill]:
    """Where each rank stands, without those that do not answer; this one writes its own into its log."""
    if not ranks.together():
        return {0: own}
    if not ranks.chief():
        console.note(f"no step any more; this process stands here:\n{own.stack}")
    answers = peers.told_by_all("standstill", json.dumps(asdict(own)), ANSWER_SECONDS)
    return {rank: Standstill(**json.loads(answer)) for rank, answer in answers.items()} or {ranks.rank(): own}


def told(found: Mapping[int, Standstill], seconds: float) -> str:
    """The sentence, and the stacks of the ranks that the others wait for, one of each kind."""
    late = late_ranks(found, ranks.world_size())
    since = f"for {seconds:.0f} seconds"
    if not ranks.together():
        return f"no step was finished {since}; the process stands here:\n{found[0].stack}"
    who = f"rank {late[0]} has" if len(late) == 1 else f"ranks {', '.join(map(str, late))} have"
    rest = ranks.world_size() - len(late)
    message = f"{who} finished no step {since}" + (f", and {rest} other{'s' * (rest > 1)} wait" if rest else "")
    parts = [message + "."]
    shown: set[str] = set()
    for rank in late:
        if rank not in found:
            parts.append(f"rank {rank} does not answer: its machine is gone, or its interpreter is blocked.")
        elif found[rank].place not in shown:
            shown.add(found[rank].place)
            parts.append(f"rank {rank} stands here:\n{found[rank].stack}")
    return "\n".join(parts)


def late_ranks(found: Mapping[int, Standstill], world_size: int) -> list[int]:
    """The ranks that the others wait for, as far as that can be seen; all of them where it cannot."""
    if silent := [rank for rank in range(world_size) if rank not in found]:
        return silent
    places = Counter(where.place for where in found.values())
    for late in (
        lambda where: where.steps < max(other.steps for other in found.values()),
        lambda where: not where.waits,
        lambda where: 2 * places[where.place] < world_size,
    ):
        chosen = [rank for rank, where in found.items() if late(where)]
        if 0 < len(chosen) < world_size:
            return sorted(chosen)
    return list(range(world_size))
