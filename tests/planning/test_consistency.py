"""Every check says nothing of a sound recipe, and speaks, with the arithmetic, where its mistake is made."""

import re
from dataclasses import replace

import pytest

from firstlight.config import RunConfig
from firstlight.planning.consistency import CHECKS, Situation, check_consistency
from firstlight.planning.diagnosis import Finding
from firstlight.planning.expectations import expectations
from firstlight.planning.hardware import cpu_device, find_device
from firstlight.recipe import apply_overrides, load_config, parse_config, read_recipe

SOUND = ("training.total_tokens=22e9", "parallel.tensor=1")


def recipe(*overrides: str, base: str = "llama-1b") -> RunConfig:
    config = load_config(base, [*(SOUND if base == "llama-1b" else ()), *overrides])
    return config.model_copy(update={"model": config.model.resolved(None, config.data.sequence_length)})


def situation(config: RunConfig | None = None, **changes) -> Situation:
    config = config or recipe()
    ranks = config.declared_world_size
    batch, steps = config.batch(ranks), config.steps(ranks)
    tokens = steps * batch.global_batch_size * config.data.sequence_length
    given = {
        "config": config,
        "layout": config.layout(ranks),
        "batch": batch,
        "total_steps": steps,
        "schedule": (config.schedule.warmup_steps or 0, config.schedule.decay_steps or steps),
        "device": find_device("h100"),
        "devices_per_node": 8,
        "expected": expectations(config.model, config.data.sequence_length, tokens) if config.model.causal else None,
        "source_tokens": {"web": 10**11},
        "source_epochs": {"web": 0.2},
        "tokenizer_size": 32000,
        "memory_bytes": 40 * 10**9,
        "step_seconds": 2.0,
    }
    return Situation(**given | changes)


def kinds(given: Situation) -> dict[str, Finding]:
    return {finding.kind: finding for finding in check_consistency(given).findings}


def test_a_sound_recipe_has_nothing_to_be_said_of() -> None:
    result = check_consistency(situation())
    assert result.findings == ()
    assert result.looked_at == tuple(CHECKS) and not result.contradicts_itself


MISTAKES = {
    "unfinished schedule": (("schedule.decay_steps=40000",), {}, "warning", "40,000"),
    "dead learning rate": (("schedule.decay_steps=10000", "optimizer.min_lr=0"), {}, "problem", "10,000"),
    "long warm-up": (("schedule.warmup_steps=4000",), {}, "note", "19%"),
    "short warm-up": (("schedule.warmup_steps=5",), {}, "note", "40 steps"),
    "no warm-up": (("schedule.warmup_steps=0",), {}, "warning", "40 steps"),
    "no decay": (("schedule.name=constant",), {}, "note", "0.0004"),
    "little decay": (("optimizer.lr=4e-5",), {}, "warning", "100%"),
    "repeated text": ((), {"source_epochs": {"web": 20.0}}, "warning", "20 times"),
    "seldom saved": ((), {"step_seconds": 30.0}, "warning", "1,000 × 30 s"),
    "saved very often": (("checkpoint.interval_steps=10",), {}, "note", "20s"),
    "validated only at the end": (("evaluation.interval_steps=50000",), {}, "note", "50,000"),
    "costly validation": (("evaluation.interval_steps=5",), {}, "warning", "32% more"),
    "stopped by the clock": (("training.max_hours=3",), {}, "note", "4 times"),
    "untrained positions": (("model.max_position_embeddings=4096",), {}, "note", "4,096"),
    "vocabulary size": (("model.vocab_size=32001",), {}, "note", "32064"),
    "vocabulary too small": ((), {"tokenizer_size": 32001}, "problem", "32,001"),
    "awkward width": (("model.intermediate_size=5600",), {}, "note", "5,600"),
    "unusual head size": (("model.head_dim=70",), {}, "warning", "70"),
    "learning rate far from the laws": (("optimizer.lr=2e-1",), {}, "warning", "Step Law"),
    "batch far from the laws": (("training.global_batch_size=64",), {}, "note", "131k tokens"),
    "batch beyond the critical one": (("training.global_batch_size=16384",), {}, "warning", "33.6M"),
    "under-trained": (("training.total_tokens=1e9", "schedule.warmup_steps=50"), {}, "warning", "0.909"),
    "over-trained": (("training.total_tokens=20e12",), {"step_seconds": 0.5}, "note", "1.82e+04"),
    "no weight decay": (("optimizer.weight_decay=0",), {}, "note", "0.01 to 0.1"),
    "strong weight decay": (("optimizer.weight_decay=2",), {}, "warning", "866 steps"),
    "no clipping": (("training.max_grad_norm=0",), {}, "note", "max_grad_norm"),
    "fp16 at risk": (("training.precision=fp16",), {}, "warning", "65,504"),
    "no bf16": ((), {"device": find_device("v100")}, "problem", "v100"),
    "no fp8": (("training.precision=fp8",), {"device": find_device("a100")}, "problem", "a100"),
    "slow bf16": ((), {"device": replace(cpu_device(1e9, 1e12), fp32_flops=2e10)}, "warning", "20"),
    "does not fit": ((), {"memory_bytes": 90 * 10**9}, "problem", "10 GB too much"),
    "tight memory": ((), {"memory_bytes": 78 * 10**9}, "note", "98%"),
    "tensor parallel over the network": (
        ("parallel.tensor=4", "launch.nodes=4", "launch.gpus_per_node=2"),
        {"devices_per_node": 2},
        "warning",
        "4 is more than the 2",
    ),
    "context parallel over the network": (("parallel.context=4",), {"devices_per_node": 2}, "note", "= 4"),
    "group across machines": (("parallel.tensor=2",), {"devices_per_node": 3}, "warning", "3 devices"),
    "long bubble": (("parallel.pipeline=4",), {"bubble_share": 0.3}, "warning", "30%"),
    "not compiled": (("training.compile=false",), {}, "note", "compile"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_found_with_its_arithmetic(kind: str) -> None:
    overrides, changes, severity, arithmetic = MISTAKES[kind]
    finding = kinds(situation(recipe(*overrides), **changes))[kind]
    assert finding.severity == severity
    assert arithmetic in finding.evidence
    assert finding.remedy.endswith((".", "?")) and len(finding.remedy) > 10


def test_a_small_fp16_model_is_only_noted() -> None:
    small = recipe("training.precision=fp16", "training.total_steps=100", base="gpt2-124m")
    assert kinds(situation(small))["fp16"].severity == "note"


def test_most_of_a_tiny_model_is_vocabulary() -> None:
    sizes = ("hidden_size=64", "num_attention_heads=2", "num_hidden_layers=2", "vocab_size=4096")
    tiny = recipe(*(f"model.{size}" for size in sizes), base="quickstart")
    assert "mostly vocabulary" in kinds(situation(tiny, tokenizer_size=None))


def test_learned_positions_that_are_never_trained_are_worse() -> None:
    short = recipe("data.sequence_length=512", base="gpt2-124m")
    assert kinds(situation(short))["untrained positions"].severity == "warning"


def test_laws_say_nothing_of_masked_and_of_tiny_models() -> None:
    for config in (recipe(base="bert-base"), recipe("model.vocab_size=4096", base="quickstart")):
        result = check_consistency(situation(config, tokenizer_size=None))
        assert {"learning rate", "batch", "tokens a parameter"} <= set(result.not_looked_at)


def test_what_is_not_known_is_said() -> None:
    result = check_consistency(
        situation(schedule=None, source_epochs={}, memory_bytes=None, step_seconds=None, source_tokens={})
    )
    assert {"schedule", "warm-up", "repeated text", "memory", "checkpoints"} <= set(result.not_looked_at)


def test_settings_in_remedies_are_ones_that_a_recipe_takes() -> None:
    """What a remedy writes as key=value can be pasted: the schema knows the key and takes the value."""
    tried = 0
    for kind, (overrides, changes, *_) in MISTAKES.items():
        remedy = kinds(situation(recipe(*overrides), **changes))[kind].remedy
        for setting in re.findall(r"[a-z_]+\.[a-z_]+=[\w.+-]*\w", remedy):
            tree, origin = read_recipe("llama-1b")
            try:
                apply_overrides(tree, [setting])
                parse_config(tree, origin)
            except Exception as problem:
                assert "unknown key" not in str(problem) and "due" not in str(problem), (kind, setting, problem)
            tried += 1
    assert tried > 15
