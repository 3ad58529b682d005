"""Builds a corpus: documents of every source go through the steps of a recipe, phase by phase, and become shards.

Units of input are worked on by programs on this machine or on a Ray cluster; comparisons of all documents are queries
on Daft. Every unit and every decision is a file or folder under the fingerprint of what shaped it, so that a killed
build goes on, a changed step redoes only what comes after it, and the result does not depend on who did what when.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.config import CorpusConfig
from firstlight.config.step import StepConfig
from firstlight.corpus.funnel import StepCounts
from firstlight.corpus.plan import Phase, Unit, plan_phases, plan_units
from firstlight.corpus.report import write_report
from firstlight.corpus.statistics import KeptStatistics, ReadingStatistics, source_summary
from firstlight.corpus.step import Block
from firstlight.corpus.steps import make_comparison, make_step
from firstlight.corpus.unit import DOCUMENTS, RECORD, hopeless, signals_file
from firstlight.documents import expand_inputs
from firstlight.engine import remove_unfinished, run_jobs, run_query
from firstlight.support.console import human_count, note, progress, warn
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, folder_lock, read_json, write_json

DECISION = "decision.json"
COMPILING_SECONDS = 2.0
"""After so long the first look at the steps says what it does."""


def build_corpus(
    sources: Mapping[str, Sequence[str]],
    output: Path,
    settings: CorpusConfig | None = None,
    *,
    workers: int | None = None,
    ray: str | None = None,
    work: Path | None = None,
) -> dict[str, Any]:
    """Read the inputs of each source, apply `settings.steps`, write `output`.

    `sources` maps the name of each source to files, globs, folders, URLs, `hf:` or `starter:` names (see
    `expand_inputs`). `output` then holds `SOURCE/documents-00000.jsonl.zst` …, in the order of sources, sorted inputs
    and lines; `corpus.json`, whose content is returned; `dropped/`, samples of what each step dropped; and
    `funnel.svg`. workers: programs at a time; unset: one a core. ray: address of a Ray cluster that does the work.
    work: folder for phases, kept for the next build unless `settings.keep_intermediate` is off; unset:
    `.NAME.work` beside `output`.

    After an interruption the same call goes on from the finished units. Raises DataError when an input is missing,
    when more than `max_bad_fraction` of a source's lines are bad, when nothing of a source is left, or when `output`
    cannot be written; ConfigError for a bad name of a source or a step's setting. `output` is then as it was before.
    """
    settings = settings or CorpusConfig()
    output = Path(output)
    work = work or output.with_name(f".{output.name}.work")
    try:
        units = plan_units(_inputs(sources, output))
        phases = plan_phases(settings, units)
        _try_steps(settings, phases)
        with folder_lock(work, "this corpus"):
            build = _Build(units, phases, settings, work, workers, ray)
            try:
                report = build.run(output)
            except BaseException:
                build.say_what_is_kept()
                raise
            build.clean()
        if not settings.keep_intermediate:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as problem:
        raise DataError(f"{output}: the corpus cannot be written ({problem.strerror or problem}).") from None
    return report


def _inputs(sources: Mapping[str, Sequence[str]], output: Path) -> dict[str, list[str]]:
    if not sources:
        raise ConfigError("no sources: name at least one, as in books=my/*.jsonl.zst.")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: a file, where the folder of the corpus is due.")
    inputs: dict[str, list[str]] = {}
    for source, patterns in sources.items():
        if not re.fullmatch(r"[\w-][\w.-]*", source) or source == "dropped":
            raise ConfigError(
                f"'{source}': the name of a source has letters, digits, '_', '-' and '.', as in web-2024"
                f"{' (dropped is taken)' if source == 'dropped' else ''}."
            )
        inputs[source] = expand_inputs(patterns)
        for path in inputs[source]:
            if output.resolve() in Path(path).resolve().parents:
                raise DataError(f"{path}: lies in the output folder {output}; choose another output.")
    return inputs


def _try_steps(settings: CorpusConfig, phases: Sequence[Phase]) -> None:
    """Make every step once, here, and show it a document: what is missing or wrong is said before any work.

    Compiled code is then in the user's cache, where workers find it.
    """
    slow = threading.Timer(COMPILING_SECONDS, note, ["compiling the steps for this machine, once …"])
    slow.daemon = True
    slow.start()
    try:
        block = Block(["A sentence to begin with."], [{}])
        for phase in phases:
            for number in phase.steps:
                make_step(settings.steps[number]).apply(block)
            for number in phase.comparisons:
                make_comparison(settings.steps[number]).signals(block, np.zeros(1, dtype=np.int64))
    finally:
        slow.cancel()


class _Build:
    """One build: units and phases, and the folder where they are worked on."""

    def __init__(
        self,
        units: Sequence[Unit],
        phases: Sequence[Phase],
        settings: CorpusConfig,
        work: Path,
        workers: int | None,
        ray: str | None,
    ) -> None:
        self.units, self.phases, self.settings, self.work = units, phases, settings, work
        self.workers, self.ray = workers, ray
        self.seconds: dict[str, dict[str, float]] = {}

    def run(self, output: Path) -> dict[str, Any]:
        """All phases, then the output; what was done before is kept."""
        for phase in self.phases:
            self._run_units(phase)
            if not phase.number:
                self._check_reading()
            for number in phase.comparisons:
                self._decide(phase, number)
        self._check_left()
        report = self._report()
        with atomic_folder(output) as folder:
            for unit in self.units:
                (folder / unit.source).mkdir(exist_ok=True)
                for name, file in zip(self._names(unit), self._files(unit), strict=True):
                    _link(file, folder / unit.source / name)
            write_report(report, self._counts(), folder)
            write_json(folder / "timings.json", self.seconds)
        return report

    def _folder(self, phase: Phase, unit: Unit) -> Path:
        return self.work / phase.name / f"unit-{unit.number:05d}-{unit.fingerprint[:12]}"

    def _decision(self, number: int) -> Path:
        phase = next(phase for phase in self.phases if number in phase.comparisons)
        return self.work / phase.name / f"decision-{number}"

    def _record(self, phase: Phase, unit: Unit) -> dict[str, Any]:
        return read_json(self._folder(phase, unit) / RECORD, "record of a unit")

    def _run_units(self, phase: Phase) -> None:
        """Leave every unit of a phase complete; what is there already is kept, leftovers are removed."""
        place = self.work / phase.name
        place.mkdir(parents=True, exist_ok=True)
        remove_unfinished(place)
        left = [unit for unit in self.units if not (self._folder(phase, unit) / RECORD).is_file()]
        names = ", ".join(self.settings.steps[n].step for n in phase.verdicts + phase.steps + phase.comparisons)
        title = f"corpus {phase.number + 1}/{len(self.phases)}"
        if not left:
            note(f"{title}: kept from before ({names or 'documents as they are'})")
            return
        if len(left) < len(self.units):
            note(f"{title}: going on; {len(self.units) - len(left)} of {len(self.units)} units were finished before.")
        before = self.phases[phase.number - 1] if phase.number else None
        jobs = [
            {
                "number": unit.number,
                "source": unit.source,
                "inputs": unit.inputs,
                "documents": str(self._folder(before, unit) / DOCUMENTS) if before else None,
                "folder": str(self._folder(phase, unit)),
            }
            for unit in sorted(left, key=lambda unit: -unit.size)
        ]
        setup = {
            "settings": self.settings.model_dump(mode="json"),
            "verdicts": {str(number): str(self._decision(number)) for number in phase.verdicts},
            "steps": phase.steps,
            "comparisons": phase.comparisons,
        }
        if before:
            total = sum(self._record(before, unit)["kept_bytes"] for unit in left)
        else:
            total = 0 if any(not unit.size for unit in left) else sum(unit.size for unit in left)
        started = time.monotonic()
        note(f"{title}: {names or 'documents as they are'}")
        with (
            progress(title, total or None, "bytes") as bar,
            run_jobs("firstlight.corpus.unit", setup, jobs, self.workers, self.ray) as answers,
        ):
            documents = 0
            for answer in answers:
                if answer["kind"] == "progress":
                    documents += answer["documents"]
                    bar.advance(answer["bytes"])
                    bar.show(f"{human_count(documents)} documents kept")
        remove_unfinished(place)
        cpu = sum(self._record(phase, unit)["cpu_seconds"] for unit in left)
        self.seconds[title] = {"wall": round(time.monotonic() - started, 2), "cpu": round(cpu, 2)}

    def _decide(self, phase: Phase, number: int) -> None:
        """The decision of a comparison, unless it is there."""
        folder = self._decision(number)
        step = self.settings.steps[number]
        if (folder / DECISION).is_file():
            return
        earlier = [n for n in phase.comparisons if n < number]
        excluded = [str(file) for n in earlier for file in sorted(self._decision(n).glob("dropped-*.parquet"))]
        files = [self._folder(phase, unit) / signals_file(number) for unit in self.units]
        started, cpu = time.monotonic(), time.process_time()
        with progress(f"compare {step.step}", None, "files") as bar:
            there = [str(file) for file in files if file.is_file()]
            figures = run_query(lambda: _decide(step, there, folder, excluded), self.ray)
            bar.advance(len(there))
            bar.show(", ".join(f"{name} {human_count(value)}" for name, value in list(figures.items())[:4]))
        self.seconds[f"compare {step.step}"] = {
            "wall": round(time.monotonic() - started, 2),
            "cpu": round(time.process_time() - cpu, 2),
        }

    def _reading(self) -> Iterator[tuple[str, ReadingStatistics]]:
        for source, units in self._by_source():
            reading = ReadingStatistics()
            for unit in units:
                reading.merge(self._record(self.phases[0], unit)["reading"])
            yield source, reading

    def _by_source(self) -> Iterator[tuple[str, list[Unit]]]:
        for source in dict.fromkeys(unit.source for unit in self.units):
            yield source, [unit for unit in self.units if unit.source == source]

    def _check_reading(self) -> None:
        for source, reading in self._reading():
            if not reading.counts["bad_lines"]:
                continue
            if reading.bad_share() > self.settings.max_bad_fraction:
                raise DataError(hopeless(source, reading, self.settings.max_bad_fraction))
            bad, lines = reading.counts["bad_lines"], reading.counts["bad_lines"] + reading.counts["documents_in"]
            first = reading.first_bad[0]
            warn(
                f"source '{source}': {bad:,} of {lines:,} lines ({reading.bad_share():.2%}) cannot be read and were "
                f"left out; the first is {first['path']}, line {first['line']}: {first['reason']}; corpus.json lists "
                "more."
            )

    def _counts(self) -> dict[int, dict[str, StepCounts]]:
        """By step and source."""
        counts: dict[int, dict[str, StepCounts]] = {n: {} for n in range(len(self.settings.steps))}
        for phase in self.phases:
            for unit in self.units:
                for number, record in self._record(phase, unit)["steps"].items():
                    total = counts[int(number)].setdefault(unit.source, StepCounts())
                    total.add(record, self.settings.samples_per_step)
        return counts

    def _check_left(self) -> None:
        counts = self._counts()
        for source, reading in self._reading():
            units = [unit for unit in self.units if unit.source == source]
            if any(self._record(self.phases[-1], unit)["files"] for unit in units):
                continue
            reasons = [
                f"{count:,} {self.settings.steps[number].step}: {reason}"
                for number, by_source in counts.items()
                for reason, count in by_source.get(source, StepCounts()).dropped.items()
            ]
            why = f" ({', '.join(reasons)})" if reasons else ""
            raise DataError(
                f"source '{source}': no document is left of {reading.counts['documents_in']:,} read{why}; "
                "check its inputs or loosen the corpus steps."
            )

    def _files(self, unit: Unit) -> list[Path]:
        last = self.phases[-1]
        return [self._folder(last, unit) / name for name in self._record(last, unit)["files"]]

    def _names(self, unit: Unit) -> list[str]:
        """Final names of a unit's files: numbered through over the units of its source."""
        before = [other for other in self.units if other.source == unit.source and other.number < unit.number]
        first = sum(len(self._files(other)) for other in before)
        return [f"documents-{first + n:05d}.jsonl.zst" for n in range(len(self._files(unit)))]

    def _report(self) -> dict[str, Any]:
        counts = self._counts()
        report: dict[str, Any] = {
            "format": "firstlight corpus",
            "version": 2,
            "settings": self.settings.model_dump(mode="json"),
            "steps": [],
            "sources": {},
        }
        for number, step in enumerate(self.settings.steps):
            total = StepCounts()
            for by_source in counts[number].values():
                total.add(by_source.as_dict(), 0)
            entry = {"step": step.step, "meaning": _meaning(step), **total.as_dict()}
            del entry["samples"]
            decision = self._decision(number) if any(number in p.comparisons for p in self.phases) else None
            if decision is not None:
                entry["figures"] = read_json(decision / DECISION, "decision")
            report["steps"].append(entry)
        for source, reading in self._reading():
            units = [unit for unit in self.units if unit.source == source]
            kept = KeptStatistics()
            first, last = self.phases[0], self.phases[-1]
            for unit in units:
                kept.merge(self._record(last, unit)["kept"])
            dropped = {
                f"{number}. {step.step}": sum(counts[number][source].dropped.values())
                for number, step in enumerate(self.settings.steps)
                if source in counts[number] and counts[number][source].dropped
            }
            report["sources"][source] = {
                "inputs": [path for unit in units for path in unit.inputs],
                "files": [name for unit in units for name in self._names(unit)],
                "bytes_in": sum(self._record(first, unit)["bytes_in"] for unit in units),
                **source_summary(reading, kept, dropped),
            }
        return report

    def say_what_is_kept(self) -> None:
        """After an interruption: that finished work stays; with none, remove the folder's content."""
        with contextlib.suppress(OSError):
            done = sum(1 for phase in self.phases for unit in self.units if self._done(phase, unit))
            if done:
                note(f"finished parts are kept in {self.work}; the same command goes on from there.")
                return
            for entry in self.work.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)

    def _done(self, phase: Phase, unit: Unit) -> bool:
        return (self._folder(phase, unit) / RECORD).is_file()

    def clean(self) -> None:
        """Keep the intermediate phases of this build only; the last phase is the output itself."""
        wanted = {phase.name for phase in self.phases[:-1]}
        for entry in self.work.iterdir():
            if entry.is_dir() and entry.name not in wanted:
                shutil.rmtree(entry, ignore_errors=True)


def _decide(step: StepConfig, files: Sequence[str], folder: Path, excluded: Sequence[str]) -> dict[str, Any]:
    """Let a comparison decide and leave `folder` whole; returns its figures."""
    with atomic_folder(folder) as fresh:
        figures = make_comparison(step).decide(files, fresh, excluded)
        write_json(fresh / DECISION, figures)
    return figures


def _meaning(step: Any) -> str:
    """The first sentence of a step's description."""
    return str(type(step).__doc__).strip().split("\n")[0]


def _link(file: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk has no hard links."""
    try:
        target.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, target)
