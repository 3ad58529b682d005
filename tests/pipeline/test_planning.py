"""The verb `plan`: figures that are known, overrides that give what they promise, budgets, contradictions, mistakes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from firstlight.pipeline.plan_budget import Budget
from firstlight.pipeline.plan_facts import at_peak
from firstlight.pipeline.plan_machines import Machines
from firstlight.pipeline.planning import make_plan, plan
from firstlight.planning.flops import parameter_count, training_flops_per_token
from firstlight.planning.hardware import find_device
from firstlight.planning.plan import Plan
from firstlight.recipe import load_config, recipe_names
from firstlight.support.errors import ConfigError, FirstlightError

CONTRADICTION = [f"training.{name}" for name in ("micro_batch_size=4", "gradient_accumulation_steps=8")]
"""With the global batch of 1,024 and the 16 data-parallel ranks of llama-7b: 4 × 8 × 16 = 512."""


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor of 100 GFLOP/s, which need not be measured."""
    monkeypatch.setattr("firstlight.pipeline.plan_machines.peak_flops", lambda device, precision: (1e11, "made up"))


@pytest.fixture(scope="module")
def llama() -> Plan:
    return plan("llama-7b", gpus=128, gpu="a100-80g")


def test_llama_7b_is_what_its_paper_says(llama: Plan) -> None:
    assert llama.parameters.total == 6_738_415_616 == parameter_count(llama.config.model)
    assert llama.parameters.head == llama.parameters.embedding == 32000 * 4096
    assert llama.total_tokens == 300_000 * 1024 * 2048
    assert llama.total_flops == pytest.approx(llama.total_tokens * training_flops_per_token(llama.config.model, 2048))
    # The paper has 82,432 GPU-hours for 1 T tokens; ours is a range for 0.629 T.
    assert llama.cost is not None
    assert llama.cost.device_hours.low < 0.629 * 82_432 < 1.3 * llama.cost.device_hours.high


def test_the_best_layouts_fit_and_none_is_slower_than_the_recipe(llama: Plan) -> None:
    assert llama.search is not None and llama.own is not None and llama.own_place is not None
    assert len(llama.search.best) == len(llama.overrides) == len(llama.memory) == 5
    for ranked, memory in zip(llama.search.best, llama.memory, strict=True):
        assert ranked.memory_bytes == max(rank.total for rank in memory) <= 80e9
    if llama.own_place > 5:
        assert all(ranked.step.seconds <= llama.own.step.seconds for ranked in llama.search.best)


@pytest.mark.parametrize("extra", [[], CONTRADICTION, ["parallel.tensor=3"]], ids=["sound", "batch", "layout"])
def test_pasted_overrides_give_the_layout_that_they_stand_beside(extra: list[str]) -> None:
    made = plan("llama-7b", extra, gpus=16, gpu="h100")
    assert made.search is not None and made.search.best
    for ranked, overrides in zip(made.search.best, made.overrides, strict=True):
        config = load_config("llama-7b", [*extra, "launch.nodes=2", "launch.gpus_per_node=8", *overrides])
        batch, division = config.batch(16), ranked.division
        assert config.layout(16) == division.layout
        assert batch.micro_batch_size == division.micro_batch_size
        assert batch.gradient_accumulation_steps == division.accumulation
        assert batch.global_batch_size == made.global_batch_size == 1024
        assert config.training.recompute == division.recompute
        if division.layout.pipeline > 1:
            assert config.parallel.pipeline_schedule == division.schedule
            assert config.parallel.stages_per_rank == division.stages_per_rank


def test_a_batch_that_does_not_come_out_is_a_problem_with_its_arithmetic_and_the_plan_goes_on() -> None:
    made = plan("llama-7b", CONTRADICTION, gpu="a100", search=False)
    finding = made.consistency.findings[0]
    assert finding.severity == "problem" and made.consistency.contradicts_itself
    assert "1024 ≠ 4 × 8 × 16 = 512" in finding.evidence
    assert "gradient_accumulation_steps 16" in finding.remedy
    assert made.own is not None and made.own.division.accumulation == 16


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("llama-7b", ["parallel.tensor=3"], "does not divide the 128"),
        ("llama-7b", ["data.sequence_length=8192"], "above model.max_position_embeddings 4096"),
        ("llama-7b", ["schedule.warmup_steps=400000"], "longer than training"),
        ("llama-7b", ["schedule.name=wsd", "schedule.decay_steps=299000"], "exceed training"),
        ("llama-1b", ["launch.gpus_per_node=12"], "512 ≠ 8 × 5 × 12"),
        ("llama-7b", ["parallel.context=2", "training.recompute=full"], "compiled blocks"),
        (
            "llama-7b",
            ["parallel.pipeline_schedule=zbv", "training.compile=false", "training.recompute=full"],
            "would keep in memory all the same",
        ),
    ],
)
def test_what_training_refuses_is_a_problem_in_its_own_words(recipe: str, overrides: list[str], said: str) -> None:
    problems = [
        f for f in plan(recipe, overrides, gpu="a100", search=False).consistency.findings if f.severity == "problem"
    ]
    assert any(said in finding.evidence for finding in problems)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_planned_and_agrees_with_itself(name: str) -> None:
    made = plan(name, gpu="h100", search=False)
    assert not made.consistency.contradicts_itself
    assert made.parameters.total == parameter_count(made.config.model)
    assert made.cost is not None and made.own_fits
    assert (made.expected is None) == (not made.config.model.causal)
    json.dumps(made.to_json(), allow_nan=False)


def test_budgets_are_met() -> None:
    flops = plan("llama-1b", gpu="h100", budget=Budget(flops=1e21), search=False)
    assert 1e21 - flops.flops_per_token["firstlight"] * flops.step_tokens < flops.total_flops <= 1e21
    hours = plan("llama-1b", gpu="h100", budget=Budget(hours=24), search=False)
    usd = plan("llama-1b", gpu="h100", budget=Budget(usd=1000), search=False)
    assert hours.cost is not None and usd.cost is not None and usd.cost.usd is not None
    assert hours.cost.hours.typical == pytest.approx(24, rel=1e-3)
    assert usd.cost.usd.typical == pytest.approx(1000, rel=1e-3)
    tokens = plan("llama-1b", gpu="h100", budget=Budget(tokens="3B"), search=False)
    assert 0 <= tokens.total_tokens - 3_000_000_000 < tokens.step_tokens
    for made in (flops, hours, usd, tokens):
        assert any("budget" in sentence for sentence in made.assumptions)
        assert made.config.training.total_steps == made.total_steps


def test_a_layout_that_does_not_fit_is_said_and_the_cost_is_that_of_one_that_does() -> None:
    made = plan(
        "llama-7b", ["parallel.pipeline=1", "parallel.tensor=1", "training.micro_batch_size=8"], gpus=16, gpu="a100"
    )
    assert not made.own_fits and made.own_place is None
    assert any(finding.kind == "does not fit" for finding in made.consistency.findings)
    assert made.search is not None and made.costed == made.search.best[0]


def test_hardware_without_the_precision_has_no_time_and_a_problem() -> None:
    made = plan("llama-1b", gpu="v100")
    assert made.own is None and made.cost is None and made.search is None
    assert "no bf16" in {finding.kind for finding in made.consistency.findings}
    json.dumps(made.to_json())


def test_what_was_assumed_is_said() -> None:
    assert any("--gpu" in sentence for sentence in plan("llama-7b", search=False).assumptions)
    assert any("this machine" in sentence for sentence in plan("quickstart", search=False).assumptions)
    assert plan("llama-7b", gpu="h100", search=False).assumptions == ()


def test_token_datasets_that_are_there_are_counted(trained_folder: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((trained_folder / "recipe.yaml").read_text())
    for source in recipe["data"]["sources"].values():
        source["tokens"] = str(trained_folder / source["tokens"])
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    made = plan(file, gpu="h100", budget=Budget(tokens="100M"))
    assert set(made.source_tokens) == set(made.source_epochs) == set(recipe["data"]["sources"])
    assert max(made.source_epochs.values()) > 100
    found = {finding.kind: finding.severity for finding in made.consistency.findings}
    assert found["not enough text"] == "problem" and found["repeated text"] == "warning"
    assert made.expected is not None and made.expected.effective_tokens < made.total_tokens / 5


def test_a_run_of_its_own_corrects_the_pace(trained_folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(next(file.parent for file in trained_folder.rglob("metrics.jsonl")), tmp_path / "run")
    speeds = [{"step": step, "tokens_per_second": 1000.0 + step} for step in range(1, 8)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in speeds))
    plain, corrected = plan(run, search=False), plan(run, calibrate=run, search=False)
    assert corrected.own is not None and plain.own is not None
    assert corrected.own.step.tokens_per_second == pytest.approx(1005, abs=1)
    assert plain.own.step.tokens_per_second != pytest.approx(1005, rel=0.1)
    assert any(str(run) in sentence for sentence in corrected.assumptions)


def test_a_plan_of_its_own_layout_alone_is_quick() -> None:
    config = load_config("llama-7b")
    machines = Machines(find_device("a100"), 128, 8)
    make_plan(config, machines, search=False)
    started = time.perf_counter()
    made = make_plan(config, machines, search=False)
    assert time.perf_counter() - started < 0.5
    assert made.search is None and made.own is not None and made.cost is not None
    assert made.to_json()["own_layout"]["step_seconds"]["typical"] > 0


def test_parts_of_memory_add_up_to_the_whole(llama: Plan) -> None:
    for memory in (*llama.own_memory, *(rank for ranks in llama.memory for rank in ranks)):
        assert sum(at_peak(memory).values()) == memory.total


JSON_KEYS = {
    *("format_version", "name", "assumptions", "parameters", "flops_per_token", "total_flops", "total_tokens"),
    *("total_steps", "step_tokens", "global_batch_size_sequences", "sequence_length_tokens", "sources", "laws"),
    *("hardware", "own_layout", "own_memory_bytes", "layouts", "layouts_that_lose", "layouts_tried"),
    *("layouts_that_fit", "cost", "findings", "looked_at", "not_looked_at"),
}


def test_json_keeps_its_keys(llama: Plan) -> None:
    values = llama.to_json()
    assert set(values) == JSON_KEYS
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: plan("quickstart", ["training.nope=1"]), "unknown key"),
        (lambda: plan("quickstart", ["parallel.nope=1"]), "unknown key"),
        (lambda: plan("no-such-recipe"), "no such recipe"),
        (lambda: plan("quickstart", gpu="no-such-gpu"), "is not known"),
        (lambda: plan("quickstart", budget=Budget(usd=5)), "no price of cpu"),
        (lambda: plan("quickstart", budget=Budget(tokens="many")), "is no number of tokens"),
        (lambda: plan("quickstart", budget=Budget(flops=1.0)), "less than one step"),
        (lambda: plan("llama-1b", gpu="v100", budget=Budget(hours=1)), "no time is known"),
        (lambda: plan("quickstart", ["training.total_steps=null"]), "the run has no length"),
        (lambda: plan("quickstart", calibrate="/"), "not a run folder"),
        (lambda: Budget(usd=5, hours=5), "one budget"),
        (lambda: Budget(hours=-1), "above 0"),
    ],
)
def test_mistakes_get_one_sentence(make: Callable[[], object], said: str) -> None:
    with pytest.raises(FirstlightError) as problem:
        make()
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_contradiction_that_cannot_be_left_out_is_an_error() -> None:
    with pytest.raises(ConfigError, match="min_lr"):
        plan("llama-7b", ["optimizer.lr=1e-5"])
