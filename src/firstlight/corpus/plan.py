"""What a build will do: units of input, and phases of steps, each under a fingerprint of all that shapes it.

Steps that look at one document at a time run one after another on each unit. A step that compares all documents ends
the phase: the units' signals are compared on the engine, and the next phase begins with its verdicts. So a corpus is
read and written once for every comparison (several in a row share one), and not for every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firstlight.config import CorpusConfig
from firstlight.config.step import StepConfig
from firstlight.corpus.steps import COMPARISONS, step_files
from firstlight.documents import in_units, sources_fingerprint
from firstlight.support.errors import ConfigError, did_you_mean
from firstlight.support.files import fingerprint

VERSION = 1
"""Raised when a step writes something else from the same documents and settings."""

UNIT_BYTES = 16_000_000
"""Small files of a source are taken together until they are this large on disk."""


@dataclass(frozen=True)
class Unit:
    """Files of one source that are worked on together, in order."""

    number: int
    source: str
    inputs: tuple[str, ...]
    size: int
    """Bytes on disk."""
    fingerprint: str


@dataclass(frozen=True)
class Phase:
    """Steps between two readings of the documents, by their numbers in the recipe."""

    number: int
    verdicts: tuple[int, ...]
    """Comparisons of the phase before, applied first."""
    steps: tuple[int, ...]
    comparisons: tuple[int, ...]
    """Comparisons whose signals are taken after the steps; none in the last phase."""
    name: str
    """Folder of the phase: its number and the fingerprint of what shapes it."""


def plan_units(inputs: Mapping[str, Sequence[str]]) -> list[Unit]:
    """Inputs of every source in order, cut into units; an input of unknown size is a unit by itself."""
    units: list[Unit] = []
    for source, paths in inputs.items():
        for group, size in in_units(paths, UNIT_BYTES):
            identity = sources_fingerprint(group, [VERSION, source, len(units)])
            units.append(Unit(len(units), source, group, size, identity))
    return units


def plan_phases(settings: CorpusConfig, units: Sequence[Unit]) -> list[Phase]:
    """The phases that the steps of a recipe make, in order; the last one writes the corpus.

    Raises ConfigError for a step that names a source which is not there.
    """
    sources = {unit.source for unit in units}
    for number, step in enumerate(settings.steps):
        for field in ("sources", "except_sources"):
            for source in getattr(step, field):
                if source not in sources:
                    raise ConfigError(
                        f"corpus.steps.{number} ({step.step}): {field} names '{source}', which is no source."
                        + did_you_mean(source, sources)
                    )
    phases: list[Phase] = []
    verdicts: list[int] = []
    steps: list[int] = []
    comparisons: list[int] = []
    for number, step in enumerate(settings.steps):
        if isinstance(step, COMPARISONS):
            comparisons.append(number)
            continue
        if comparisons:
            phases.append(_phase(settings, units, phases, verdicts, steps, comparisons))
            verdicts, steps, comparisons = comparisons, [], []
        steps.append(number)
    if comparisons:
        phases.append(_phase(settings, units, phases, verdicts, steps, comparisons))
        verdicts, steps = comparisons, []
    phases.append(_phase(settings, units, phases, verdicts, steps, []))
    return phases


def _phase(
    settings: CorpusConfig,
    units: Sequence[Unit],
    before: Sequence[Phase],
    verdicts: Sequence[int],
    steps: Sequence[int],
    comparisons: Sequence[int],
) -> Phase:
    number = len(before)
    shaping: list[Any] = [VERSION, settings.text_field, settings.invalid_utf8, settings.samples_per_step]
    shaping += [step_identity(settings.steps[n]) for n in (*steps, *comparisons)]
    if not comparisons:
        shaping.append(settings.shard_bytes)
    if before:
        shaping += [before[-1].name, [unit.fingerprint for unit in units]]
    return Phase(
        number, tuple(verdicts), tuple(steps), tuple(comparisons), f"phase-{number}-{fingerprint(shaping)[:12]}"
    )


def step_identity(step: StepConfig) -> list[Any]:
    """What a step's work depends on: its settings, and the identity of the files it reads."""
    files = step_files(step)
    return [step.model_dump(mode="json"), sources_fingerprint(files) if files else None]


def corpus_fingerprint(sources: Mapping[str, Sequence[str]], settings: CorpusConfig) -> str:
    """Identity of what a build would write, from the inputs' names, sizes and times; nothing is read."""
    inputs = {name: sources_fingerprint(patterns) for name, patterns in sources.items()}
    shaping = settings.model_dump(mode="json", exclude={"steps", "keep_intermediate"})
    return fingerprint([VERSION, inputs, shaping, [step_identity(step) for step in settings.steps]])
