"""The processes of a run fail together: the reason is told once, and all have ended a few seconds later.

Left alone, a rank that fails leaves the others in a collective until its time-out (many minutes), and then each prints
a traceback of its own that is not the reason. Here the ranks share one mark in the run's key-value store (the one that
torchrun keeps, or rank 0 does). Whoever fails first sets it, with the reason and the exit code; the rest, when they
see it or fail in their turn, end with that code and say nothing. Rank 0 prints the reason, because its terminal is the
one that is looked at; the rank that set the mark does so where rank 0 cannot.

A rank that is killed sets no mark. So while a rank works (`watching`), a thread of it watches the next one
(neighbour.py); and when there is a mark and the main thread hangs in a collective, it ends the process.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from firstlight.support import attempts, console, ranks
from firstlight.support.errors import EXIT_ERROR, EXIT_TERMINATED, FirstlightError
from firstlight.support.neighbour import (
    LEFT,
    SIGN_EVERY_SECONDS,
    SILENT_SECONDS,
    Neighbour,
    key,
    life_key,
    sign_of_life,
)

if TYPE_CHECKING:
    from rich.console import Console
    from torch.distributed import TCPStore

LOOK_EVERY_SECONDS = 0.5
"""How often a rank looks for the mark and at the process of the next rank."""
GRACE_SECONDS = 3.0
"""What the main thread has to end by itself once there is a mark."""
ALIKE_SECONDS = 1.5
"""How long a failing rank waits to see whether all the others fail with the same sentence."""
ALIKE_AT_START_SECONDS = 5.0
"""The same before they are `watching`, when one may still be loading what another has loaded."""
REASON_SECONDS = 5.0
"""How long a rank that lost its connections waits for the one that knows why."""
SPEAKER_SECONDS = 3.0
"""How long the rank that set the mark waits for rank 0 to print it."""
AGREED_SECONDS = 60.0
"""How long ranks that end by agreement wait for each other, so that none is cut off in its last work."""


@dataclass(frozen=True)
class Ending:
    """How a process of a run ends, in words for the user."""

    message: str
    """One sentence, or a traceback when `label` is empty."""
    code: int = EXIT_ERROR
    label: str = FirstlightError.label
    final: bool = False
    """Whether another start would end the same way."""
    agreed: bool = False
    """All ranks end so, each after its last work."""
    of_all: bool = False
    """Told without a rank, also when only one ends so."""
    follows: bool = False
    """Probably the consequence of another rank's failure, for which it first looks."""


@contextmanager
def watching() -> Iterator[None]:
    """While the block runs, this process and the others end together when one fails or dies.

    Put it around everything that takes part in collectives, the making of the process group included. It does nothing
    in a run of one process. An exception passes through, to be told by `end_together`.
    """
    if not ranks.together():
        yield
        return
    _peers.start()
    yield
    _peers.leave()


def end_together(ending: Ending) -> NoReturn:
    """End this process, one of several, and with it the others; the first reason is the one that is told, once."""
    _peers.end(ending)


def leave_process(code: int = 0) -> NoReturn:
    """End this process, one of several that have done their work, without taking the interpreter apart.

    What is registered with `atexit` runs (trackers send their last values there). Not so the destructors: process
    groups that a mesh or a sharded module still holds when C++'s statics go now and then abort the process ("terminate
    called without an active exception"), and a launcher takes that for a failure.
    """
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def told_by_all(name: str, value: str, seconds: float) -> dict[int, str]:
    """What each rank has to say under `name`, this one `value`; without those that have not within `seconds`.

    Empty when the store of the run does not answer.
    """
    return _peers.ask(name, value, seconds)


def end_all(ending: Ending) -> None:
    """Have the threads that `watching` has started end all processes so, whatever their main threads do."""
    _peers.end_all(ending)


class _Peers:
    """The other processes, as seen through the store."""

    def __init__(self) -> None:
        self._store: TCPStore | None = None
        self._connecting, self._telling = threading.Lock(), threading.Lock()
        self._left, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._told = self._set_it = False
        self._neighbour = Neighbour()
        self._parent = 0

    def start(self) -> None:
        self._parent = os.getppid()
        self._left.clear()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Say goodbye: from now on nobody takes this process for dead."""
        if self._thread is None:
            return
        self._left.set()
        self._thread.join(timeout=GRACE_SECONDS)
        self._thread = None
        if self._store is not None:
            with suppress(RuntimeError):  # the store ended first
                self._store.set(life_key(ranks.rank()), LEFT)

    def end(self, ending: Ending) -> NoReturn:
        self._ending.set()
        if not ranks.chief():
            _say(ending, console.err)
        try:
            if ending.agreed:
                reason = self._meet(ending)
            else:
                reason = self._first_reason(ending)
                self._tell(reason)
        except RuntimeError:  # without the store nobody can know who is first
            reason = ending
            if not ending.agreed:
                _say(_with_rank(ending), console.speak_up())
        if reason.agreed:
            self.leave()
            leave_process(attempts.leave_with(reason.code, reason.final))
        self._exit(reason)

    def ask(self, name: str, value: str, seconds: float) -> dict[int, str]:
        answers: dict[int, str] = {}
        deadline = time.monotonic() + seconds
        with suppress(RuntimeError):
            store = self._connect()
            store.set(key(f"{name}/{ranks.rank()}"), value)
            while len(answers) < ranks.world_size() and time.monotonic() < deadline:
                for rank in set(range(ranks.world_size())) - answers.keys():
                    if store.check([place := key(f"{name}/{rank}")]):
                        answers[rank] = store.get(place).decode()
                time.sleep(0.05)
        return answers

    def end_all(self, ending: Ending) -> None:
        try:
            self._set_mark(ending)
        except RuntimeError:
            _say(ending, console.speak_up())
            self._exit(ending)

    def _meet(self, ending: Ending) -> Ending:
        """Tell an ending that all have agreed on and wait for them; the mark, where one fails before."""
        if ranks.chief():
            _say(ending, console.err)
        store, arrived = self._connect(), key("agreed")
        deadline = time.monotonic() + AGREED_SECONDS
        store.add(arrived, 1)
        while time.monotonic() < deadline and store.add(arrived, 0) < ranks.world_size():
            if mark := self._mark():
                self._tell(mark)
                return mark
            time.sleep(0.05)
        return ending

    def _first_reason(self, ending: Ending) -> Ending:
        """The mark: this rank's ending, unless another was first."""
        store, alike = self._connect(), key(_digest(ending))
        patience = ALIKE_AT_START_SECONDS if self._thread is None else ALIKE_SECONDS
        if ending.follows:
            patience = REASON_SECONDS
        if not ending.label:
            patience = 0.0
        deadline = time.monotonic() + patience
        same = store.add(alike, 1)
        while time.monotonic() < deadline and (same < ranks.world_size() or ending.follows):
            if mark := self._mark():
                return mark
            time.sleep(0.05)
            same = store.add(alike, 0)
        return self._set_mark(ending if ending.of_all or same >= ranks.world_size() else _with_rank(ending))

    def _tell(self, mark: Ending) -> None:
        """Have the reason told once: by rank 0, or else by the rank that set the mark."""
        with self._telling:
            if self._told or not (ranks.chief() or self._set_it):
                return
            self._told = True
            store, told = self._connect(), key("told")
            deadline = time.monotonic() + (0.0 if ranks.chief() else SPEAKER_SECONDS)
            while time.monotonic() < deadline and not store.check([told]):
                time.sleep(0.05)
            if store.add(told, 1) == 1:
                _say(mark, console.speak_up())

    def _set_mark(self, ending: Ending) -> Ending:
        value = json.dumps(asdict(ending))
        stands = self._connect().compare_set(key("mark"), "", value).decode()
        self._set_it = self._set_it or stands == value
        return Ending(**json.loads(stands))

    def _mark(self) -> Ending | None:
        store = self._connect()
        return Ending(**json.loads(store.get(key("mark")))) if store.check([key("mark")]) else None

    def _exit(self, mark: Ending) -> NoReturn:
        """End at once: interpreters that wait for threads and process groups can hang when their peers are gone."""
        with self._telling:
            if mark.code != EXIT_TERMINATED:
                attempts.explained()
            console.stop_drawing()
            _flush()
            os._exit(attempts.leave_with(mark.code, mark.final))

    def _connect(self) -> TCPStore:
        """The store that the ranks share. RuntimeError when there is none that answers."""
        with self._connecting:
            if self._store is None:
                address = ranks.store_address()
                if address is None:
                    raise RuntimeError("no store is named in the environment")
                from torch.distributed import TCPStore

                timeout = timedelta(seconds=REASON_SECONDS)
                self._store = TCPStore(*address, is_master=False, timeout=timeout, wait_for_workers=False)
            return self._store

    def _watch(self) -> None:
        """The thread: signs of life, the mark, the neighbour, the parent."""
        answered, signed = time.monotonic(), 0.0
        while not self._left.is_set():
            try:
                if time.monotonic() - signed >= SIGN_EVERY_SECONDS:
                    signed = time.monotonic()
                    self._connect().set(life_key(ranks.rank()), sign_of_life())
                if dead := self._neighbour.dead(self._connect()):
                    self._set_mark(Ending(dead))
                if mark := self._mark():
                    self._follow(mark)
                answered = time.monotonic()
            except RuntimeError:
                if time.monotonic() - answered >= SILENT_SECONDS and not self._ending.is_set():
                    self._give_up("the store of the run at rank 0's machine no longer answers; that machine is gone.")
            if os.getppid() != self._parent and not self._ending.is_set():
                self._give_up("the program that started this process is gone.")
            self._left.wait(LOOK_EVERY_SECONDS)

    def _follow(self, mark: Ending) -> None:
        """End this process because another has failed, unless its main thread does so itself."""
        self._tell(mark)
        if not self._ending.wait(GRACE_SECONDS) and not self._left.is_set():
            self._exit(mark)

    def _give_up(self, why: str) -> None:
        ending = _with_rank(Ending(why))
        _say(ending, console.speak_up())
        self._exit(ending)


_peers = _Peers()


def _say(ending: Ending, place: Console) -> None:
    console.stop_drawing()
    if ending.label:
        console.fail(ending.message, ending.label, place)
    elif ending.message:
        console.note(ending.message, place)


def _with_rank(ending: Ending) -> Ending:
    message = f"rank {ranks.rank()}: {ending.message}" if ending.label else f"rank {ranks.rank()}:\n{ending.message}"
    return Ending(**{**asdict(ending), "message": message})


def _digest(ending: Ending) -> str:
    return f"alike/{hashlib.sha256(ending.message.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
