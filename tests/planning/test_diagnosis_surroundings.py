"""Rules about what surrounds training: schedule, speed, data, validation, checkpoints, the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from firstlight.planning.diagnosis import Diagnosis, Finding, SourceRecord, diagnose


def only(diagnosis: Diagnosis, kind: str) -> Finding:
    (finding,) = [finding for finding in diagnosis.findings if finding.kind == kind]
    return finding


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [finding.kind for finding in diagnosis.findings]


def changed(lines: Iterable[dict[str, Any]], first: int, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lines of training from step `first` on with other values."""
    return [{**line, **values} if "loss" in line and line["step"] >= first else line for line in lines]


def source(epochs: float = 0.01, wanted: float = 0.5, drawn: int = 10_000, skipped: int = 0) -> SourceRecord:
    return SourceRecord(10**6, wanted, drawn, skipped, epochs, epochs, wanted)


@pytest.mark.parametrize(
    ("min_lr", "decay_end", "severity"),
    [(0.0, 2000, "problem"), (1e-6, 2000, "warning"), (3e-5, 2000, "note"), (0.0, 3900, None), (0.0, 4000, None)],
)
def test_a_schedule_that_ends_before_training(make_record, min_lr, decay_end, severity):
    diagnosis = diagnose(make_record(optimizer={"min_lr": min_lr}, decay_end=decay_end))
    assert kinds(diagnosis) == (["dead learning rate"] if severity else [])
    assert diagnosis.worst == severity
    if severity:
        assert "schedule.decay_steps=4000" in diagnosis.findings[0].remedy


def test_a_schedule_that_ends_after_training_and_a_warm_up_that_is_most_of_it(make_record):
    assert kinds(diagnose(make_record(decay_end=8000))) == ["unfinished schedule"]
    assert "long warm-up" in kinds(diagnose(make_record(warmup_end=3000)))


def test_a_rate_of_nothing_is_told_wherever_it_comes_from(make_record, healthy_lines):
    lines = changed(healthy_lines(upto=1000), 900, {"learning_rate": 0.0})
    found = only(diagnose(make_record(lines, running=True, events=[])), "dead learning rate")
    assert found.severity == "problem"


@pytest.mark.parametrize(("share", "found"), [(0.05, False), (0.4, True)])
def test_steps_that_wait_for_data(make_record, healthy_lines, share, found):
    lines = changed(healthy_lines(), 0, {"data_wait_fraction": share})
    assert kinds(diagnose(make_record(lines))) == (["data-bound"] if found else [])


def test_waiting_at_the_start_alone_is_nothing(make_record, healthy_lines):
    lines = healthy_lines()
    lines[0]["data_wait_fraction"] = lines[1]["data_wait_fraction"] = 0.9
    assert kinds(diagnose(make_record(lines))) == []


@pytest.mark.parametrize(("rate", "severity"), [(9e4, None), (6e4, "note"), (4e4, "warning")])
def test_steps_that_get_slower(make_record, healthy_lines, rate, severity):
    lines = changed(healthy_lines(), 3000, {"tokens_per_second": rate})
    diagnosis = diagnose(make_record(lines))
    assert [(f.kind, f.severity) for f in diagnosis.findings] == ([("slower steps", severity)] if severity else [])


def test_another_speed_after_resuming_is_nothing(make_record, healthy_lines):
    lines = changed(healthy_lines(), 2000, {"tokens_per_second": 3e4})
    events = [{"event": "stopped"}, {"event": "resumed", "step": 1990}, {"event": "finished"}]
    assert kinds(diagnose(make_record(lines, events=events))) == []


def test_many_processes_far_from_their_peak_are_told_what_they_send(make_record, healthy_lines):
    lines = changed(healthy_lines(), 0, {"mfu": 0.05})
    assert kinds(diagnose(make_record(lines))) == []
    spread = {"launch": {"nodes": 1, "gpus_per_node": 4}, "training": {"micro_batch_size": 2, "total_steps": 4000}}
    found = only(diagnose(make_record(lines, **spread)), "low utilisation")
    assert found.severity == "note"
    assert "4 processes reach 5% of their peak" in found.evidence
    assert kinds(diagnose(make_record(**spread))) == []


@pytest.mark.parametrize(("epochs", "severity"), [(3.9, None), (6.0, "note"), (20.0, "warning")])
def test_text_that_is_gone_over_again(make_record, epochs, severity):
    diagnosis = diagnose(make_record(sources={"web": source(), "books": source(epochs)}))
    assert [(f.kind, f.severity) for f in diagnosis.findings] == ([("repeated text", severity)] if severity else [])
    if severity:
        assert "'books'" in diagnosis.findings[0].evidence and "data.mixture.books" in diagnosis.findings[0].remedy


def test_a_mixture_that_is_not_what_was_asked_for(make_record):
    lost = {"web": source(drawn=10_000, skipped=2_000), "books": source(drawn=10_000)}
    diagnosis = diagnose(make_record(sources=lost))
    assert "'web' 44.4% (wanted 50.0%)" in only(diagnosis, "mixture drift").evidence
    even = {"web": source(skipped=200), "books": source(skipped=200)}
    assert kinds(diagnose(make_record(sources=even))) == []


def test_a_source_that_is_in_the_skipped_steps_more_often_than_in_the_mixture(make_record):
    sources = {"web": source(wanted=0.9, drawn=18_000), "books": source(wanted=0.1, drawn=2_000, skipped=80)}
    found = only(diagnose(make_record(sources=sources)), "troublesome source")
    assert "100% of the 80 samples of skipped steps are from 'books', which is 10% of the mixture" in found.evidence
    few = {**sources, "books": source(wanted=0.1, drawn=2_000, skipped=8)}
    assert kinds(diagnose(make_record(sources=few))) == []


def validated(lines: list[dict[str, Any]], losses: Mapping[int, float]) -> list[dict[str, Any]]:
    key = "validation/web/loss"
    return [{**line, key: losses.get(line["step"], line[key])} if key in line else line for line in lines]


def test_validation_that_rises_while_training_falls(make_record, healthy_lines):
    rising = {step: 2.9 + (step - 1600) / 8000 for step in range(2000, 4001, 400)}
    lines = validated(healthy_lines(), {1600: 2.9, **rising})
    diagnosis = diagnose(make_record(lines))
    found = only(diagnosis, "overfitting")
    assert (found.severity, found.where) == ("problem", (1600, 4000))
    assert "weight_decay" in found.remedy
    assert "export RUN DIR --step 3600" in found.remedy
    often = {"web": source(epochs=3.0)}
    assert "add text to 'web'" in only(diagnose(make_record(lines, sources=often)), "overfitting").remedy


def test_one_worse_validation_is_chance_and_a_source_that_left_the_mixture_is_forgotten(make_record, healthy_lines):
    assert kinds(diagnose(make_record(validated(healthy_lines(), {4000: 3.0})))) == []
    rising = {step: 2.9 + (step - 2000) / 4000 for step in range(2400, 4001, 400)}
    gone = {"web": SourceRecord(10**6, 0.5, 10_000, 0, 0.01, 0.01, 0.0), "books": source()}
    lines = validated(healthy_lines(), rising)
    assert kinds(diagnose(make_record(lines, sources=gone, stage_steps=[2000]))) == []


def test_validation_that_falls_behind_is_a_note(make_record, healthy_lines):
    lines = validated(healthy_lines(), {step: 3.2 - step / 1e6 for step in range(800, 4001, 400)})
    found = only(diagnose(make_record(lines)), "validation falls behind")
    assert found.severity == "note"


def test_saves_that_fail(make_record, healthy_lines):
    failed = {"event": "save_failed", "step": 800, "reason": "no space left on device"}
    lines = healthy_lines(upto=900)
    lasting = diagnose(make_record(lines, events=[failed], running=True, checkpoints=[400]))
    found = only(lasting, "failed saves")
    assert found.severity == "problem"
    assert "no space left on device" in found.evidence and "500 steps would be lost" in found.remedy
    over = diagnose(make_record(lines, events=[failed], running=True, checkpoints=[400, 840]))
    assert only(over, "failed saves").severity == "note"


def test_no_checkpoint_for_long(make_record, healthy_lines):
    lines = healthy_lines(upto=1300)
    found = only(diagnose(make_record(lines, running=True, events=[], checkpoints=[400])), "no recent checkpoint")
    assert found.where == (400, 1300)
    assert kinds(diagnose(make_record(lines, running=True, events=[], checkpoints=[800]))) == []


def test_damaged_checkpoints_and_unreadable_lines(make_record):
    diagnosis = diagnose(make_record(damaged=["damaged_step_000400"], unreadable={"metrics.jsonl": 2}))
    assert kinds(diagnosis) == ["damaged checkpoints", "unreadable lines"]


@pytest.mark.parametrize(
    ("events", "running", "kind", "severity"),
    [
        ([{"event": "stopped", "step": 1000, "signal": "SIGTERM"}], False, "stopped", "note"),
        ([], False, "ended without a word", "warning"),
        ([{"event": "resumed", "step": 400}], False, "ended without a word", "warning"),
        ([], True, None, None),
    ],
)
def test_how_it_ended(make_record, healthy_lines, events, running, kind, severity):
    diagnosis = diagnose(make_record(healthy_lines(upto=1000), events=events, running=running))
    assert [(f.kind, f.severity) for f in diagnosis.findings] == ([(kind, severity)] if kind else [])
