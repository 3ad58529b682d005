"""Errors for the person at the keyboard, and the exit codes they end with.

A `FirstlightError` is one clear sentence: what was wrong, where (file, line or field), what would be right.
The command line prints it without a traceback. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

EXIT_ERROR = 1
"""The input or the machine was not right; the sentence on standard error says what to change."""
EXIT_USAGE = 2
"""The command line itself was wrong (unknown verb, missing argument)."""
EXIT_DIVERGED = 3
"""Training met a loss or gradient that is not a finite number."""
EXIT_HUNG = 4
"""A process of training stood still; its stack was shown. Started again, the run goes on from its last checkpoint."""
EXIT_WARNINGS = 10
"""`doctor` found something that costs quality or time, and nothing worse."""
EXIT_PROBLEMS = 11
"""`doctor` found something that makes a run fail or lose work."""
EXIT_STOPPED = 75
"""A signal or the time limit ended training after a checkpoint was saved; the same command resumes (EX_TEMPFAIL)."""
EXIT_INTERRUPTED = 130
"""Ctrl-C ended a stage that keeps no checkpoint; nothing half-written stays behind."""
EXIT_TERMINATED = 143
"""SIGTERM ended one of several processes in a stage that keeps no checkpoint (128 + 15, as a shell counts)."""


class FirstlightError(Exception):
    """Base of every error that is the user's to mend."""

    exit_code = EXIT_ERROR
    label = "error"
    """What the command line writes before the sentence."""
    agreed = False
    """Whether all processes of a run have agreed on it, so that each will raise it, after what it still has to do."""


class ConfigError(FirstlightError):
    """A recipe, an override or a combination of settings is not right."""


class DataError(FirstlightError):
    """A file of text, a tokenizer or a token dataset is not right."""


class CheckpointError(FirstlightError):
    """A run folder or a checkpoint is not right."""


class DivergedError(FirstlightError):
    """Loss or gradient norm is NaN or infinite."""

    exit_code = EXIT_DIVERGED
    agreed = True


class TrainingStopped(FirstlightError):
    """A signal asked training to end; the state is saved and the same command resumes."""

    exit_code = EXIT_STOPPED
    label = "stopped"
    agreed = True


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest known word, else the known words (or nothing when they are many)."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    if 0 < len(known) <= 16:
        return f" Known: {', '.join(known)}."
    return ""


_REMEDIES = {
    errno.ENOSPC: "make room, or choose a place on another disk",
    errno.EDQUOT: "make room, or choose a place on another disk",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`), or choose another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOTDIR: "choose another place",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
}


def os_error_sentence(problem: OSError) -> str:
    """What the operating system refused, as one sentence: the file, what is wrong, what would be right."""
    where = f"{problem.filename}: " if problem.filename else ""
    remedy = _REMEDIES.get(problem.errno or 0)
    return f"{where}{problem.strerror or problem}{f'; {remedy}' if remedy else ''}."
