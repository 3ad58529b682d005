"""The verb `report`: gather what run folders tell and write it as one HTML file (`firstlight.report`).

Only small files are read, each once, and the run itself is not touched. What is missing is left out of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.pipeline.diagnosing import read_lines, read_record
from firstlight.pipeline.report_data import corpora_of, datasets_of, spelling_of, tokenizer_training_of
from firstlight.pipeline.report_marks import marks_of
from firstlight.pipeline.report_outcome import Measured, outcomes
from firstlight.planning.diagnosis import RunRecord, diagnose
from firstlight.planning.diagnosis.record import Line, finite, number, whole
from firstlight.planning.flops import parameter_count, training_flops_per_token
from firstlight.recipe import leaves
from firstlight.report.charts import CHARTS, VALIDATION
from firstlight.report.facts import Drawn, Note, RunFacts, Sample, State
from firstlight.report.html import Language
from firstlight.report.page import page
from firstlight.report.thinning import Thinned, thin
from firstlight.support.console import note
from firstlight.support.errors import ConfigError, FirstlightError
from firstlight.support.files import atomic_file, to_json
from firstlight.support.lines import LineFile
from firstlight.training.run_folder import RunFolder

REPORT = "report.html"
SAMPLES = "samples.jsonl"
POINTS, FEWEST_POINTS = 2000, 300
"""Buckets of a curve, shared by the runs on a page: more than a screen has columns, few enough to open at once."""
_HELD_OUT = (*VALIDATION, "baseline_accuracy")


def report(runs: Sequence[str | Path], output: str | Path | None = None, *, language: Language = "en") -> Path:
    """Write the page of one run, or of several on top of each other; returns the file.

    output: the file; unset: `report.html` in the run folder, of several runs in the current one. language: that it
    opens in; it holds both. ConfigError where a run is named twice; CheckpointError where one is no run folder.
    """
    if not runs:
        raise ConfigError("name at least one run folder, as in runs/quickstart.")
    file = Path(output) if output else (Path(runs[0]) / REPORT if len(runs) == 1 else Path(REPORT))
    if file.is_dir():
        raise ConfigError(f"{file}: a folder; give --output the name of a file, as in {file / REPORT}.")
    text = page(gather(runs), language)
    with atomic_file(file, "w") as handle:
        handle.write(text)
    return file


def report_after_training(run: RunFolder) -> None:
    """Write the page of a run that has ended, on the process that writes; a failure is told and does no harm."""
    if not run.writes:
        return
    try:
        note(f"report: {report([run.path])}")
    except Exception as problem:
        note(f"no report: {problem} (firstlight report {run.path} makes it)")


def keep_sample(run: RunFolder, step: int, prompt: str, text: str) -> None:
    """Note what the model wrote at a step, for the page."""
    LineFile(run.path / SAMPLES).write(to_json({"step": step, "prompt": prompt, "text": text}))


def gather(runs: Sequence[str | Path]) -> list[RunFacts]:
    """The facts of runs, under names that tell them apart."""
    folders = [RunFolder.open(run) for run in runs]
    places = [folder.path.resolve() for folder in folders]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: named twice; name each run once.")
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder in folders]
    buckets = max(FEWEST_POINTS, POINTS // len(runs))
    return [facts_of(folder, name, buckets) for folder, name in zip(folders, names, strict=True)]


def facts_of(run: RunFolder, name: str, buckets: int = POINTS) -> RunFacts:
    """What the folder of a run tells. buckets: of each curve. Errors as those of the doctor."""
    record = read_record(run)
    diagnosis = diagnose(record)
    config, model = record.config, record.config.model
    assert model.vocab_size is not None
    length = config.data.sequence_length
    flops = training_flops_per_token(model, length, config.predicted_share)
    provenance = _provenance(run)
    datasets = datasets_of(config)
    curves = {chart.key: curve for chart in CHARTS if (curve := curve_of(record.metrics, chart.key, buckets))}
    clock, shares = time_of(record)
    marks, left_out = marks_of(record)
    facts = RunFacts(
        name=name,
        path=str(run.path),
        state=state_of(record),
        causal=model.causal,
        step=record.last_step,
        total_steps=record.total_steps,
        step_tokens=record.step_tokens,
        flops_per_token=flops,
        parameters=parameter_count(model),
        vocab_size=model.vocab_size,
        processes=config.declared_world_size,
        architecture=model.architecture,
        precision=config.training.precision,
        settings=dict(leaves(config.model_dump(mode="json"))),
        curves=curves,
        clock=None if clock is None else thin(*clock, buckets),
        validation=_validation(record.metrics, buckets),
        marks=marks,
        marks_left_out=left_out,
        shares=shares,
        mixture=_mixture(record),
        corpora=corpora_of(datasets),
        spelled=spelling_of(datasets),
        tokenizer_training=tokenizer_training_of(datasets),
        samples=_samples(run),
        notes=[Note(f.severity, f.kind, f.where, f.evidence, f.remedy, f.examples) for f in diagnosis.findings],
        looked_at=diagnosis.looked_at,
        not_looked_at=diagnosis.not_looked_at,
        provenance=provenance,
    )
    return _with_plan(facts, record)


def state_of(record: RunRecord) -> State:
    """Where a run is."""
    if record.running:
        return "running"
    last = record.events[-1].get("event") if record.events else None
    if last == "diverged":
        return "diverged"
    if last == "finished" or record.last_step >= record.total_steps:
        return "finished"
    return "stopped" if last == "stopped" else "ended"


def curve_of(metrics: Sequence[Line], key: str, buckets: int) -> Thinned | None:
    """The finite numbers called `key`, by step, thinned; None without any."""
    steps, values = finite(metrics, key)
    if not len(steps):
        return None
    last_of_step = np.append(np.diff(steps) > 0, True)
    return thin(steps[last_of_step], values[last_of_step], buckets)


def time_of(record: RunRecord) -> tuple[tuple[np.ndarray, np.ndarray] | None, dict[str, float]]:
    """((steps, seconds since the beginning), seconds by purpose), of what was not undone.

    Lines of versions that wrote no seconds have them from their speed, and no time of evaluations and saves.
    """
    shares = dict.fromkeys(("compute", "data", "evaluation", "checkpoints"), 0.0)
    steps: list[int] = []
    clock: list[float] = []
    before, seconds = 0, 0.0
    for line in record.metrics:
        rate = number(line.get("tokens_per_second"))
        evaluating, saving = (number(line.get(f"{what}_seconds")) or 0.0 for what in ("validation", "save"))
        shares["evaluation"] += evaluating
        shares["checkpoints"] += saving
        seconds += evaluating + saving
        if not rate or rate < 0:
            continue
        step = line["step"]
        spent = number(line.get("seconds"))
        if spent is None:
            spent = (step - before) * record.step_tokens / rate
        waiting = spent * min(1.0, max(0.0, number(line.get("data_wait_fraction")) or 0.0))
        shares["data"] += waiting
        shares["compute"] += spent - waiting
        seconds += spent
        if not steps or step > steps[-1]:
            steps.append(step)
            clock.append(seconds)
        before = step
    if not steps:
        return None, {}
    if not any("save_seconds" in line for line in record.metrics):
        del shares["evaluation"], shares["checkpoints"]
    return (np.array(steps, dtype=np.int64), np.array(clock)), shares


def _validation(metrics: Sequence[Line], buckets: int) -> dict[str, dict[str, Thinned]]:
    """Metric → domain → curve; a domain's name may have slashes."""
    lines = [line for line in metrics if "loss" not in line and any(key.startswith("validation/") for key in line)]
    keys = dict.fromkeys(key for line in lines for key in line if key.startswith("validation/"))
    found: dict[str, dict[str, Thinned]] = {}
    for key in keys:
        domain, _, metric = key.removeprefix("validation/").rpartition("/")
        if domain and metric in _HELD_OUT and (curve := curve_of(lines, key, buckets)):
            found.setdefault(metric, {})[domain] = curve
    return found


def _mixture(record: RunRecord) -> dict[str, Drawn]:
    drawn = sum(source.drawn for source in record.sources.values())
    return {
        name: Drawn(
            tokens=source.tokens,
            wanted=source.wanted,
            seen=source.drawn / drawn if drawn else 0.0,
            epochs=source.epochs,
            epochs_at_end=source.epochs_at_end,
            skipped=source.skipped,
        )
        for name, source in record.sources.items()
    }


def _samples(run: RunFolder) -> list[Sample]:
    lines, _ = read_lines(run.path / SAMPLES)
    samples = [
        Sample(step, str(line.get("prompt", "")), str(line.get("text", "")))
        for line in lines
        if (step := whole(line.get("step"))) is not None
    ]
    return list({(sample.step, sample.prompt): sample for sample in samples}.values())


def _provenance(run: RunFolder) -> Mapping[str, Any]:
    try:
        return run.provenance
    except (FirstlightError, OSError):
        return {}


def _with_plan(facts: RunFacts, record: RunRecord) -> RunFacts:
    speed, mfu = facts.last("tokens_per_second"), facts.last("mfu")
    peak = speed * facts.flops_per_token / (mfu * facts.processes) if speed and mfu else None
    memory = facts.curves.get("peak_memory_bytes")
    measured = Measured(
        seconds=facts.seconds if facts.state == "finished" and facts.seconds else None,
        tokens_per_second=speed,
        mfu=mfu,
        memory_bytes=None if memory is None else float(memory.values.max()),
        loss=facts.last("loss"),
        peak_flops=peak,
    )
    planned, assumptions, why_not = outcomes(record.config, facts.provenance, measured)
    return replace(facts, outcomes=planned, plan_assumptions=assumptions, why_no_plan=why_not)
