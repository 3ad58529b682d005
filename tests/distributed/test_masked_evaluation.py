"""Held-out text is hidden alike, and scored alike, whatever the layout of the processes that score it."""

from __future__ import annotations

import pytest

LAYOUTS = {
    "fsdp2": (2, []),
    "tp2": (2, ["parallel.tensor=2", "training.micro_batch_size=16"]),
    "cp2": (2, ["parallel.context=2"]),
    "pp2": (2, ["parallel.pipeline=2"]),
}
SHORT = [
    "training.total_steps=4",
    "schedule.warmup_steps=1",
    "evaluation.interval_steps=2",
    "evaluation.max_tokens=null",
]


@pytest.mark.parametrize(
    "settings",
    [
        ["model.architecture=modernbert", "model.sliding_window=16", "data.attention_within_documents=true"],
        pytest.param([], marks=pytest.mark.slow),
    ],
    ids=["modernbert-documents", "llama"],
)
def test_masked_scores_are_those_of_one_process(settings, train_at, metrics):
    common = ["model.objective=masked", *SHORT, *settings]
    jobs = {"one": (1, common)} | {name: (size, [*common, *more]) for name, (size, more) in LAYOUTS.items()}
    runs = train_at(jobs)
    whole = {key: metrics(runs["one"], f"validation/manual/{key}") for key in ("loss", "accuracy", "tokens")}
    baseline = metrics(runs["one"], "validation/manual/baseline_accuracy")
    assert list(baseline) == [2, 4]
    assert len(set(baseline.values())) == 1
    assert whole["loss"][4] < whole["loss"][2]
    for name in LAYOUTS:
        assert metrics(runs[name], "validation/manual/tokens") == whole["tokens"], name
        assert metrics(runs[name], "validation/manual/baseline_accuracy") == baseline, name
        assert metrics(runs[name], "validation/manual/loss") == pytest.approx(whole["loss"], rel=1e-5), name
        accuracy = metrics(runs[name], "validation/manual/accuracy")
        one_token = 1 / whole["tokens"][4]  # two tokens may be equally likely to the last bit
        assert accuracy == pytest.approx(whole["accuracy"], abs=1.5 * one_token), name
