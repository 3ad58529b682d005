"""Every rule of training itself: a made-up curve on which it must speak, and healthy ones on which none does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.planning.diagnosis import Diagnosis, Finding, RunRecord, SourceRecord, diagnose

Lines = list[dict[str, Any]]
Change = Callable[[int, dict[str, Any]], Mapping[str, Any]]


def only(diagnosis: Diagnosis, kind: str) -> Finding:
    """The one finding of a kind; nothing else is as severe."""
    (finding,) = [finding for finding in diagnosis.findings if finding.kind == kind]
    return finding


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [finding.kind for finding in diagnosis.findings]


def changed(lines: Lines, change: Change) -> Lines:
    """Lines of training with what `change(step, line)` gives in the place of what they had."""
    return [{**line, **change(line["step"], line)} if "loss" in line else line for line in lines]


def between(first: int, last: int, **values: Any) -> Change:
    return lambda step, _: values if first <= step <= last else {}


def noise(step: int, size: float) -> float:
    return float(np.random.default_rng(step).normal(0, size))


@given(st.integers(0, 2**32 - 1), st.sampled_from([10, 70, 150, 400, 900, 2000, 4000]))
def test_nothing_is_found_in_healthy_runs_of_any_length(make_record, healthy_lines, seed, upto):
    lines = healthy_lines(seed, upto=upto)
    diagnosis = diagnose(make_record(lines, running=True, events=[]))
    assert [f for f in diagnosis.findings if f.severity != "note"] == []
    if upto == 4000:
        assert len(diagnosis.looked_at) >= 18


def test_a_run_that_has_not_begun_says_what_is_missing(make_record):
    diagnosis = diagnose(make_record([], events=[], running=True, sources={}))
    assert diagnosis.findings == ()
    assert diagnosis.not_looked_at["loss spikes"] == "no loss"
    assert diagnosis.worst is None


@pytest.mark.parametrize(("height", "kind"), [(1.5, "loss spikes"), (0.05, None)])
def test_a_spike_that_goes_away_is_a_note_and_noise_is_none(make_record, healthy_lines, height, kind):
    lines = changed(healthy_lines(), lambda step, line: {"loss": line["loss"] + height} if step == 2000 else {})
    diagnosis = diagnose(make_record(lines))
    assert kinds(diagnosis) == ([kind] if kind else [])
    if kind:
        found = only(diagnosis, kind)
        assert (found.severity, found.where) == ("note", (2000, 2000))
        assert "over by step 2010" in found.evidence


def test_spikes_that_come_again_and_again_are_a_warning(make_record, healthy_lines):
    steps = (1000, 1500, 2000, 2500, 2510, 3000)
    lines = changed(healthy_lines(), lambda step, line: {"loss": line["loss"] + 1} if step in steps else {})
    found = only(diagnose(make_record(lines)), "loss spikes")
    assert found.severity == "warning"
    assert found.evidence.startswith("5 in 400 lines")  # two lines one after the other are one spike


def test_a_spike_without_return_is_a_problem_and_names_the_step(make_record, healthy_lines):
    lines = changed(healthy_lines(), lambda step, line: {"loss": line["loss"] + 3} if step >= 3000 else {})
    diagnosis = diagnose(make_record(lines))
    found = only(diagnosis, "loss spike without return")
    assert found.severity == diagnosis.worst == "problem"
    assert found.where == (3000, 4000)
    assert "before step 3000" in found.remedy


def test_a_new_stage_of_the_mixture_is_no_spike_and_no_rise(make_record, healthy_lines):
    lines = changed(healthy_lines(), lambda step, line: {"loss": line["loss"] + 1} if step >= 2000 else {})
    assert "loss spike without return" in kinds(diagnose(make_record(lines)))
    assert kinds(diagnose(make_record(lines, stage_steps=[2000]))) == []


def test_lines_of_skipped_steps_are_no_spikes(make_record, healthy_lines):
    lines = changed(healthy_lines(), between(2000, 2000, loss=9.0, grad_norm=1e6))
    events = [{"event": "skipped", "step": 2000, "reason": "loss", "loss": 9.0, "grad_norm": 1e6, "limit": 4.0}]
    assert kinds(diagnose(make_record(lines, events=[*events, {"event": "finished"}]))) == ["skipped steps"]


def skip(step: int, **fields: Any) -> dict[str, Any]:
    documents = [{"sample": 8 * step, "source": "web", "epoch": 0, "document": 7, "text": "aaaa\n" * 40}]
    samples = [8 * step, 8 * step + 8]
    numbers = {"reason": "loss", "loss": 9.25, "grad_norm": 12.0, "limit": 4.5, "samples": samples}
    return {"event": "skipped", "step": step, **numbers, "documents": documents, **fields}


def test_skipped_steps_are_named_with_samples_and_text(make_record):
    events = [skip(2001), skip(2002, reason="grad_norm", grad_norm=90.0, limit=10.0), {"event": "finished"}]
    found = only(diagnose(make_record(events=events)), "skipped steps")
    assert found.severity == "note"
    assert found.where == (2001, 2002)
    assert "1 for loss, 1 for grad norm" in found.evidence
    assert found.examples[0] == "step 2002, samples 16016 to 16023: loss 9.25, gradient norm 90, limit 10"
    assert found.examples[1].startswith("web, document 7: “aaaa aaaa")
    assert len(found.examples[1]) < 100
    assert "('web')" in found.remedy


def test_many_skipped_steps_are_a_warning_and_those_met_twice_count_once(make_record):
    events = [skip(step) for step in range(2000, 2008)] * 2
    found = only(diagnose(make_record(events=[*events, {"event": "finished"}])), "skipped steps")
    assert found.severity == "warning"
    assert found.evidence.startswith("8 of 4,000 steps (0.20%)")


def test_going_back_is_told_with_what_was_left_out(make_record):
    back = {"event": "rolled_back", "step": 2016, "to_step": 1600, "skipped_samples": [12800, 16128], "rollbacks": 1}
    events = [skip(step) for step in range(2001, 2017)] + [back, {"event": "finished", "step": 4000}]
    found = only(diagnose(make_record(events=events)), "rolled back")
    assert (found.severity, found.where) == ("warning", (1600, 2016))
    assert "samples 12800 to 16127" in found.evidence
    assert "'web'" in found.remedy


def test_numbers_that_are_none_are_told_once(make_record, healthy_lines):
    lines = changed(healthy_lines(), between(2000, 2020, loss=None, grad_norm=float("nan")))
    found = only(diagnose(make_record(lines)), "not finite")
    assert found.where == (2000, 2020)
    overflows = [{"event": "overflow", "step": step, "loss_scale": 1024.0} for step in (2000, 2010, 2020)]
    assert kinds(diagnose(make_record(lines, events=[*overflows, {"event": "finished"}]))) == []


def test_a_run_that_gave_up_is_a_problem_until_it_goes_on(make_record, healthy_lines):
    lines = healthy_lines(upto=2000)
    gave_up = {"event": "diverged", "step": 2001, "loss": "nan", "grad_norm": "nan", "samples": [16000, 16008]}
    diagnosis = diagnose(make_record(lines, events=[gave_up]))
    found = only(diagnosis, "diverged")
    assert found.severity == "problem"
    assert "the checkpoint of step 2000 is from before" in found.evidence
    assert "optimizer.lr (now 0.0003; try 0.0001)" in found.remedy
    events = [gave_up, {"event": "resumed", "step": 2000}]
    assert kinds(diagnose(make_record(lines, events=events, running=True))) == []


def test_a_growing_gradient_norm_is_a_note_while_the_loss_falls_and_a_warning_when_it_does_not(
    make_record, healthy_lines
):
    grown = changed(healthy_lines(), lambda step, line: {"grad_norm": line["grad_norm"] * math.exp(step / 1000)})
    found = only(diagnose(make_record(grown)), "growing gradient norm")
    assert found.severity == "note"
    flat = changed(grown, lambda step, _: {"loss": 3 + noise(step, 0.03)} if step > 1000 else {})
    assert only(diagnose(make_record(flat)), "growing gradient norm").severity == "warning"


def test_growth_that_the_falling_rate_explains_is_none(make_record, healthy_lines):
    rates = {line["step"]: line["learning_rate"] for line in healthy_lines() if "loss" in line}
    lines = changed(healthy_lines(), lambda step, line: {"grad_norm": 1.5 * (3e-4 / rates[step]) ** 0.5})
    assert kinds(diagnose(make_record(lines))) == []


@pytest.mark.parametrize(("exponent", "found"), [(0.5, False), (1.2, True)])
def test_a_parameter_norm_grows_like_the_root_of_the_steps(make_record, healthy_lines, exponent, found):
    lines = changed(healthy_lines(), lambda step, _: {"param_norm": step**exponent})
    assert kinds(diagnose(make_record(lines))) == (["growing parameter norm"] if found else [])


@pytest.mark.parametrize(("now", "severity"), [(2.0**20, None), (2.0**11, "warning"), (1.0, "problem")])
def test_a_loss_scale_that_falls_to_nothing(make_record, healthy_lines, now, severity):
    lines = changed(healthy_lines(), lambda step, _: {"loss_scale": 2.0**20 if step < 3700 else now})
    diagnosis = diagnose(make_record(lines, training={"precision": "fp16"}))
    assert [f.severity for f in diagnosis.findings if f.kind == "loss scale collapse"] == [severity] * bool(severity)


def test_overflows_now_and_then_are_due_and_many_at_the_end_are_not(make_record, healthy_lines):
    lines = changed(healthy_lines(), lambda *_: {"loss_scale": 2.0**20})

    def of(steps: Iterable[int]) -> list[str]:
        events = [{"event": "overflow", "step": step} for step in steps] + [{"event": "finished", "step": 4000}]
        return kinds(diagnose(make_record(lines, training={"precision": "fp16"}, events=events)))

    assert of(range(1, 4000, 1000)) == of(range(1, 20)) == []
    assert of(range(3700, 4000, 30)) == ["many overflows"]


def test_a_loss_as_high_as_guessing_is_no_learning(make_record, healthy_lines):
    lines = changed(healthy_lines(upto=600), lambda step, _: {"loss": math.log(4096) + noise(step, 0.02)})
    found = only(diagnose(make_record(lines)), "does not learn")
    assert found.severity == "problem"
    assert "ln 4,096" in found.evidence
    assert "does not learn" not in kinds(diagnose(make_record(lines, imported=True)))


@pytest.mark.parametrize(("accuracy", "found"), [(0.05, True), (0.1, False)])
def test_an_accuracy_like_that_of_the_commonest_token_is_told(make_record, healthy_lines, accuracy, found):
    key = "validation/web/accuracy"
    lines = [{**line, key: accuracy} if key in line else line for line in healthy_lines(upto=900)]
    diagnosis = diagnose(make_record(lines, running=True, events=[]))
    assert kinds(diagnosis) == (["knows frequencies alone"] if found else [])
    if found:
        assert diagnosis.worst == "warning"
        masked = {"objective": "masked"}
        assert diagnose(make_record(lines, running=True, events=[], model=masked)).worst == "note"


@pytest.mark.parametrize(("rise", "severity"), [(0.02, None), (0.2, "warning"), (0.8, "problem")])
def test_a_loss_that_creeps_up(make_record, healthy_lines, rise, severity):
    def creep(step: int, line: dict[str, Any]) -> dict[str, Any]:
        return {"loss": line["loss"] + rise * max(0, step - 2000) / 1000} if step <= 3000 else {"loss": None}

    lines = [line for line in changed(healthy_lines(), creep) if line.get("loss", 0) is not None]
    found = [f for f in diagnose(make_record(lines)).findings if f.kind == "rising loss"]
    assert [f.severity for f in found] == [severity] * bool(severity)


def test_a_plateau_is_told_with_what_is_known_of_its_cause(make_record, healthy_lines):
    lines = changed(healthy_lines(), lambda step, _: {"loss": 2.9 + noise(step, 0.02)} if step > 1500 else {})
    diagnosis = diagnose(make_record(lines))
    assert "optimizer.lr" in only(diagnosis, "plateau").remedy
    often = {"web": SourceRecord(10**5, 1.0, 30_000, 0, 9.0, 9.0, 1.0)}
    assert "Add text" in only(diagnose(make_record(lines, sources=often)), "plateau").remedy
    loud = changed(lines, lambda step, line: {"loss": line["loss"] + noise(step + 1, 0.4)})
    assert "too noisy" in diagnose(make_record(loud)).not_looked_at["plateau"]


@pytest.mark.parametrize(("exponent", "found"), [(0.08, False), (0.005, True)])
def test_a_loss_that_falls_far_more_slowly_than_the_law(make_record, exponent, found):
    tokens = 2**20
    lines = [
        {"step": step, "loss": 3.0 * (step / 20_000) ** -exponent + noise(step, 0.01), "learning_rate": 3e-4}
        for step in range(10, 20_001, 10)
    ]
    model = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "num_attention_heads": 12}
    model |= {"num_key_value_heads": 12, "head_dim": 64, "vocab_size": 32_000}
    record = make_record(lines, model=model, step_tokens=tokens, total_steps=20_000, decay_end=20_000)
    diagnosis = diagnose(record)
    assert "scaling law" in diagnosis.looked_at
    assert ("slow convergence" in kinds(diagnosis)) == found
    assert all(f.severity == "note" for f in diagnosis.findings if f.kind == "slow convergence")


def test_order_is_by_severity(make_record, healthy_lines):
    lines = changed(healthy_lines(), lambda step, line: {"loss": line["loss"] + 3} if step >= 3000 else {})
    events = [skip(2001), {"event": "stopped", "step": 4000, "signal": "SIGTERM"}]
    severities = [
        f.severity for f in diagnose(make_record(lines, events=events, damaged=["damaged_step_400"])).findings
    ]
    assert severities == sorted(severities, key=["problem", "warning", "note"].index)
    assert set(severities) == {"problem", "warning", "note"}


FIELDS = ("event", "step", "to_step", "samples", "skipped_samples", "documents", "reason", "loss", "limit", "signal")
EVENTS = ("skipped", "rolled_back", "diverged", "overflow", "save_failed", "stopped", "resumed", "unheard of")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(),
    st.lists(st.one_of(st.integers(), st.dictionaries(st.text(), st.text()))),
)


@given(
    st.lists(
        st.builds(
            lambda kind, fields: {**fields, "event": kind},
            st.sampled_from(EVENTS),
            st.dictionaries(st.sampled_from(FIELDS), VALUES),
        ),
        max_size=6,
    )
)
def test_no_event_of_any_shape_breaks_a_rule(make_record, healthy_lines, events: list[dict[str, Any]]) -> None:
    record: RunRecord = make_record(healthy_lines(upto=400), events=events)
    for finding in diagnose(record).findings:
        assert finding.evidence and finding.remedy
