"""The verb `doctor`: read what a run has written, running or not, and say what is wrong with it and what helps.

Only the small files are read, and nothing is written. Lines that a kill has cut short are left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.pipeline.mixture_report import mixture_of, mixture_report
from firstlight.planning.diagnosis import Diagnosis, RunRecord, SourceRecord, diagnose
from firstlight.planning.diagnosis.record import Line, span, whole
from firstlight.support.errors import FirstlightError
from firstlight.support.files import in_use
from firstlight.tokens.stream import Shares
from firstlight.training.checkpoint import checkpoint_steps
from firstlight.training.run_folder import RunFolder
from firstlight.training.schedule import decay_range, warmup_steps

_BLOCK_BYTES = 1 << 20


def doctor(run: str | Path) -> tuple[RunRecord, Diagnosis]:
    """What a run has written, and what the rules of `planning.diagnosis` say about it.

    CheckpointError where `run` is no run folder, ConfigError where its config.yaml is not one.
    """
    record = read_record(RunFolder.open(run))
    return record, diagnose(record)


def read_record(run: RunFolder) -> RunRecord:
    """The record of a run, from its folder."""
    running = in_use(run.path)  # before the files, so that a run that ends meanwhile is not taken for a killed one
    config = run.config
    assert config.model.vocab_size is not None
    model = config.model.resolved(config.model.vocab_size, config.data.sequence_length)
    config = config.model_copy(update={"model": model})  # written by a version that knew fewer settings
    processes = config.declared_world_size
    total_steps = config.steps(processes)
    step_tokens = config.batch(processes).global_batch_size * config.data.sequence_length
    metrics, bad_metrics = read_lines(run.metrics)
    events, bad_events = read_lines(run.events)
    metrics = _last_pass([line for line in metrics if whole(line.get("step")) is not None])
    events = [event for event in events if isinstance(event.get("event"), str)]
    sources, stage_steps = _sources(run, config, metrics, events, total_steps * step_tokens, step_tokens)
    return RunRecord(
        config=config,
        metrics=metrics,
        events=events,
        total_steps=total_steps,
        step_tokens=step_tokens,
        warmup_end=warmup_steps(config.schedule, total_steps, step_tokens),
        decay_end=decay_range(config.schedule, total_steps, step_tokens)[1],
        sources=sources,
        stage_steps=stage_steps,
        checkpoints=checkpoint_steps(run.checkpoints),
        damaged=sorted(path.name for path in run.checkpoints.glob("damaged_*")),
        running=running,
        imported=run.origin.is_dir(),
        unreadable={
            file.name: count for file, count in ((run.metrics, bad_metrics), (run.events, bad_events)) if count
        },
    )


def read_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file of lines, and how many other lines it has; a last line without an end is neither.

    A file that is not there has none.
    """
    lines: list[dict[str, Any]] = []
    bad = 0
    if not file.is_file():
        return lines, bad
    with file.open("rb") as handle:
        while block := handle.readlines(_BLOCK_BYTES):
            for raw, line in zip(block, _parsed(block), strict=True):
                if isinstance(line, dict):
                    lines.append(line)
                else:
                    bad += line is not None or (raw.endswith(b"\n") and not raw.isspace())
    return lines, bad


def _parsed(block: list[bytes]) -> list[Any]:
    """The value of each line, None where it is no JSON; all at once where all are, which takes half the time."""
    try:
        values = json.loads(b"[" + b",".join(block) + b"]")
        if len(values) == len(block):
            return values
    except (ValueError, RecursionError):
        pass
    return [_value(raw) for raw in block]


def _value(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _last_pass(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of rising steps: what training wrote before it went back to an earlier step is dropped."""
    kept: list[dict[str, Any]] = []
    for line in metrics:
        step = line["step"]
        if kept and (kept[-1]["step"] > step or (kept[-1]["step"] == step and "loss" in kept[-1] and "loss" in line)):
            while kept and kept[-1]["step"] >= step:
                kept.pop()
        kept.append(line)
    return kept


def _sources(
    run: RunFolder,
    config: RunConfig,
    metrics: Sequence[Line],
    events: Sequence[Line],
    total_tokens: int,
    step_tokens: int,
) -> tuple[dict[str, SourceRecord], list[int]]:
    """What was drawn from each source, and the first steps of later stages; nothing where provenance does not tell.

    The counts are those of the stream itself, which needs only the sizes of the datasets.
    """
    length = config.data.sequence_length
    read = (whole(line.get("samples_consumed")) for line in metrics)  # not those of the step: a run may have gone back
    consumed = length * max((samples for samples in read if samples is not None), default=0)
    try:
        counted = {name: dataset["tokens"] for name, dataset in run.provenance["datasets"].items()}
        sizes = {name: int(tokens["train"]) for name, tokens in counted.items() if tokens.keys() != {"validation"}}
        if not consumed:
            return {}, []
        now = mixture_report(config.data, sizes, consumed, config.seed)
        end = mixture_report(config.data, sizes, max(total_tokens, consumed), config.seed)
        mixture = mixture_of(config.data, sizes, max(total_tokens, consumed) // length, config.seed)
    except (FirstlightError, KeyError, TypeError, ValueError):
        return {}, []
    skipped = _skipped(mixture, events, consumed // length)
    wanted = _wanted(mixture, consumed // length)
    present = [stage for stage in mixture.stages if stage.first_sample * length < consumed][-1]
    sources = {
        name: SourceRecord(
            tokens=source["tokens"],
            wanted=wanted.get(name, 0.0),
            drawn=source["tokens_drawn"] // length,
            skipped=skipped.get(name, 0),
            epochs=source["epochs"],
            epochs_at_end=end["sources"][name]["epochs"],
            last_wanted=float(present.shares.get(name, 0)),
        )
        for name, source in now["sources"].items()
    }
    return sources, [-(-stage.first_sample * length // step_tokens) + 1 for stage in mixture.stages[1:]]


def _wanted(mixture: Shares, samples: int) -> dict[str, float]:
    """Share of the first `samples` by the weights alone, over the stages that they cover."""
    starts = [stage.first_sample for stage in mixture.stages]
    wanted = dict.fromkeys(mixture.counts(0), 0.0)
    for stage, end in zip(mixture.stages, [*starts[1:], samples], strict=True):
        part = max(0, min(end, samples) - stage.first_sample) / samples
        for name, share in stage.shares.items():
            wanted[name] += part * float(share)
    return wanted


def _skipped(mixture: Shares, events: Sequence[Line], samples: int) -> Mapping[str, int]:
    """Samples by source among those of steps that did not move the weights; each once, whatever it was skipped for."""
    ranges = [span(event.get("samples")) for event in events if event.get("event") in ("skipped", "overflow")]
    ranges += [span(event.get("skipped_samples")) for event in events if event.get("event") == "rolled_back"]
    counts = mixture.counts(0)
    done = 0
    for first, end in sorted(pair for pair in ranges if pair is not None):
        first, end = max(first, done), min(end, samples)
        if first < end:
            before, after = mixture.counts(first), mixture.counts(end)
            counts = {name: count + after[name] - before[name] for name, count in counts.items()}
            done = end
    return counts
