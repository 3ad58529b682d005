"""Training as a whole: it learns, it is deterministic, micro-batches do not matter, it stops and resumes."""

from __future__ import annotations

import json
import math

import pytest
import torch

from firstlight.pipeline import train
from firstlight.support.errors import CheckpointError, ConfigError, DivergedError, FirstlightError
from firstlight.support.files import folder_lock
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.tokenize import tokenize_files
from firstlight.training.checkpoint import checkpoint_steps
from firstlight.training.load import load_trained


def metrics(run, key="loss"):
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def parameters(run, step=None):
    model = load_trained(run.path, step).model
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_has_everything_and_learns(tiny_recipe):
    run = train(tiny_recipe)
    losses = metrics(run)
    assert sorted(losses) == list(range(1, 31))
    assert losses[1] == pytest.approx(math.log(512), rel=0.02)
    assert losses[30] < losses[1] - 0.5
    assert metrics(run, "samples_consumed")[30] == 240
    assert metrics(run, "tokens_consumed")[30] == 240 * 64
    for key in ("learning_rate", "grad_norm", "tokens_per_second", "mfu", "peak_memory_bytes"):
        assert all(math.isfinite(value) and value > 0 for value in metrics(run, key).values())
    assert sorted(metrics(run, "validation/manual/bits_per_byte")) == [10, 20, 30]
    assert checkpoint_steps(run.checkpoints) == [25, 30]
    assert run.tokenizer.vocab_size <= run.config.model.vocab_size
    began = run.provenance
    assert began["datasets"].keys() == {"manual", "code"}
    assert began["versions"]["torch"] == torch.__version__
    assert [json.loads(line)["event"] for line in run.events.read_text().splitlines()] == ["finished"]


def test_a_model_can_learn_a_fixed_tiny_set_by_heart(tiny_recipe, tiny_tokens, tmp_path):
    file = tmp_path / "tiny.txt"
    file.write_text("".join(f"{n} times {n} is {n * n}; " for n in range(30)))
    tokenizer = TokenDataset.open(tiny_tokens["manual"]).tokenizer
    tokenize_files([str(file)], tokenizer, tmp_path / "tokens", source="tiny", validation_fraction=0, workers=1)
    run = train(
        tiny_recipe,
        [
            f"data.sources={{tiny: {{tokens: {tmp_path / 'tokens'}}}}}",
            "data.mixture={}",
            "data.max_epochs=1e6",
            "model.hidden_size=96",
            "optimizer.lr=5e-3",
            "optimizer.min_lr=5e-4",
            "optimizer.weight_decay=0",
            "training.total_steps=250",
            "checkpoint.interval_steps=250",
        ],
    )
    assert metrics(run)[250] < 0.05


def test_two_runs_are_the_same_and_a_finished_one_is_left_alone(tiny_recipe):
    one = train(tiny_recipe, ["name=one"])
    other = train(tiny_recipe, ["name=other"])
    assert metrics(one) == metrics(other)
    assert equal(parameters(one), parameters(other))
    before = one.metrics.read_bytes()
    train(tiny_recipe, ["name=one"])
    assert one.metrics.read_bytes() == before


def test_stopped_and_extended_equals_uninterrupted(tiny_recipe):
    whole = train(tiny_recipe, ["name=whole", "schedule.name=constant"])
    part = train(tiny_recipe, ["name=part", "schedule.name=constant", "training.total_steps=12"])
    train(part.path, ["training.total_steps=30"])
    assert metrics(part) == metrics(whole)
    assert equal(parameters(part), parameters(whole))


def test_the_split_into_micro_batches_changes_nothing_but_rounding(tiny_recipe):
    runs = [
        train(tiny_recipe, [f"name=micro{micro}", f"training.micro_batch_size={micro}", "training.total_steps=5"])
        for micro in (8, 4, 1)
    ]
    for key in ("loss", "grad_norm"):
        whole = metrics(runs[0], key)
        for run in runs[1:]:  # later steps amplify the rounding of earlier ones
            assert all(value == pytest.approx(whole[step], rel=1e-4) for step, value in metrics(run, key).items())


@pytest.mark.parametrize(
    "overrides",
    [["training.recompute=full"], ["training.micro_batch_size=8", "training.recompute=full"]],
    ids=["recompute", "recompute in one micro-batch"],
)
def test_recomputation_changes_nothing(tiny_recipe, overrides):
    plain = train(tiny_recipe, ["name=plain", "training.total_steps=5", *overrides[:-1]])
    recomputed = train(tiny_recipe, ["name=recomputed", "training.total_steps=5", *overrides])
    assert metrics(plain) == metrics(recomputed)


def test_attention_within_documents_changes_the_loss_and_trains(tiny_recipe):
    whole = metrics(train(tiny_recipe, ["name=whole", "training.total_steps=8"]))
    within = metrics(
        train(tiny_recipe, ["name=within", "training.total_steps=8", "data.attention_within_documents=true"])
    )
    assert within != whole
    assert within[8] < within[1]


def test_bf16_follows_fp32(tiny_recipe):
    exact = metrics(train(tiny_recipe, ["name=fp32"]))
    rough = metrics(train(tiny_recipe, ["name=bf16", "training.precision=bf16"]))
    assert all(rough[step] == pytest.approx(exact[step], rel=0.03) for step in exact)


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(tiny_recipe):
    with pytest.raises(DivergedError, match="Nothing was changed by this step") as caught:
        train(tiny_recipe, ["optimizer.lr=1e30", "optimizer.min_lr=0", "training.max_grad_norm=0", "schedule={}"])
    assert caught.value.exit_code == 3
    run_folder = tiny_recipe.parent / "runs" / "tiny"
    events = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "diverged"
    assert len(events[-1]["samples"]) == 2


def test_a_run_in_use_is_refused(tiny_recipe):
    run = train(tiny_recipe, ["training.total_steps=2", "schedule.warmup_steps=0"])
    with folder_lock(run.path, "the run"), pytest.raises(FirstlightError, match="in use by process"):
        train(run.path, ["training.total_steps=4"])


@pytest.mark.parametrize(
    "override",
    [
        "model.hidden_size=64",
        "seed=5",
        "data.sequence_length=32",
        "training.global_batch_size=16",
        "data.mixture.code=0.5",
    ],
)
def test_what_a_resumed_run_must_keep_is_refused(tiny_recipe, override):
    train(tiny_recipe, ["training.total_steps=2", "schedule.warmup_steps=0"])
    with pytest.raises(ConfigError, match="the run began with"):
        train(tiny_recipe, ["training.total_steps=4", "schedule.warmup_steps=0", override])


def test_a_moved_run_resumes_and_other_data_is_refused(tiny_recipe, tmp_path, tiny_tokens):
    run = train(tiny_recipe, ["training.total_steps=5", "schedule.name=constant"])
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    run.path.rename(moved)
    train(moved, ["training.total_steps=10"])
    assert checkpoint_steps(moved / "checkpoints") == [5, 10]
    with pytest.raises(ConfigError, match="is not the one the run began with"):
        train(moved, ["training.total_steps=12", f"data.sources.code.tokens={tiny_tokens['manual']}"])


def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_the_same(tiny_recipe):
    whole = train(tiny_recipe, ["name=whole"])
    run = train(tiny_recipe, ["name=damaged"])
    (run.checkpoints / "step_000030" / "state.json").write_text("{")
    train(run.path)
    assert (run.checkpoints / "damaged_step_000030").is_dir()
    assert metrics(run) == metrics(whole)
    assert equal(parameters(run), parameters(whole))


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("parallel.tensor=2", "parallel"),
        ("schedule.warmup_steps=31", "warm-up of 31 steps is longer than training"),
        ("training.precision=fp16", "fp16_on_cpu=true"),
        ("training.device=cuda", "not available on this machine"),
        ("data.sources.web.text=[nothing/*.jsonl]", "nothing"),
        ("data.sources.code={}", "names no text and no tokens"),
        ("data.max_epochs=0.01", "epochs"),
        ("model.vocab_size=100", "smaller than the tokenizer"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(tiny_recipe, override, part):
    overrides = [override] + (["data.mixture.web=0.1"] if "web" in override else [])
    with pytest.raises(FirstlightError, match=part):
        train(tiny_recipe, overrides)
    assert not (tiny_recipe.parent / "runs" / "tiny" / "config.yaml").exists()


def test_no_checkpoint_to_load_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        load_trained(tmp_path / "none")
    with pytest.raises(CheckpointError, match="not a run folder"):
        load_trained(tmp_path)
