"""bf16, compiled blocks and recomputation change speed and memory, not the losses, however the model is divided."""

from __future__ import annotations

import pytest

LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "fsdp2": (2, []),
    "tp2": (2, ["parallel.tensor=2"]),
    "cp2": (2, ["parallel.context=2"]),
    "pp2": (2, ["parallel.pipeline=2"]),
}
STEPS = 8
LENGTH = [
    f"training.total_steps={STEPS}",
    "training.micro_batch_size=2",
    "schedule.warmup_steps=2",
    "evaluation.interval_steps=100",
]


def beside_one_process(train_at, jobs, seconds=60):
    """One process in fp32, eager and without recomputation, and runs {name: (layout, settings)}."""
    divided = {
        name: (LAYOUTS[layout][0], [*LENGTH, *LAYOUTS[layout][1], *more]) for name, (layout, more) in jobs.items()
    }
    runs = train_at({"one": (1, LENGTH), **divided}, seconds=seconds)
    return runs.pop("one"), runs


@pytest.mark.slow
def test_recomputation_changes_nothing(train_at, metrics):
    modes = {"fsdp2": ["full"], "tp2": ["full", "selective"], "cp2": ["selective"], "pp2": ["full"]}
    jobs = {
        f"{layout}-{mode}": (layout, [f"training.recompute={mode}"]) for layout in LAYOUTS for mode in modes[layout]
    }
    one, runs = beside_one_process(train_at, jobs)
    for name, run in runs.items():
        assert metrics(run) == pytest.approx(metrics(one), rel=1e-5), name
        assert metrics(run, "grad_norm") == pytest.approx(metrics(one, "grad_norm"), rel=1e-4), name


@pytest.mark.slow
def test_bf16_follows_fp32(train_at, metrics):
    one, runs = beside_one_process(train_at, {layout: (layout, ["training.precision=bf16"]) for layout in LAYOUTS})
    assert metrics(one)[STEPS] < metrics(one)[1] - 0.1, "nothing was learnt, so nothing was compared"
    for name, run in runs.items():
        losses = metrics(run)
        assert losses == pytest.approx(metrics(one), rel=5e-3), name
        assert losses != pytest.approx(metrics(one), rel=1e-6), f"{name} was fp32"
        assert metrics(run, "grad_norm") == pytest.approx(metrics(one, "grad_norm"), rel=0.15), name


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_blocks_compute_the_same(layout, train_at, metrics):
    one, runs = beside_one_process(train_at, {layout: (layout, ["training.compile=true"])}, seconds=250)
    assert metrics(runs[layout]) == pytest.approx(metrics(one), rel=1e-5)
    assert metrics(runs[layout], "grad_norm") == pytest.approx(metrics(one, "grad_norm"), rel=1e-4)
