"""An imported model is trained further: from its own loss on, on its own tokens, as a run like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from firstlight import pipeline
from firstlight.config import RunConfig
from firstlight.pipeline.run_training import read_run_or_recipe, sample_stream
from firstlight.support.errors import ConfigError
from firstlight.tokens.objective import objective_of
from firstlight.training.checkpoint import checkpoint_steps
from firstlight.training.load import load_trained
from firstlight.training.run_folder import RunFolder

from .conftest import VARIANTS, build, load

SETTINGS = [
    *("training.total_steps=2", "training.global_batch_size=4", "training.precision=fp32", "training.device=cpu"),
    *("training.compile=false", "data.sequence_length=48", "schedule.warmup_steps=0", "logging.interval_steps=1"),
    *("data.mixture_block_size=16", "optimizer.lr=1e-2"),
]


@pytest.fixture
def imported(save: Callable[..., Path], tmp_path: Path) -> Callable[[str], tuple[Any, RunFolder]]:
    """`imported(variant)`: the model of `transformers`, and the run that it was imported into."""

    def make(name: str) -> tuple[Any, RunFolder]:
        theirs = build(VARIANTS[name])
        return theirs, pipeline.import_model(save(theirs), tmp_path / "runs" / "further")

    return make


@pytest.fixture
def tokens(tiny_corpus: dict[str, Path], tmp_path: Path) -> Callable[[RunFolder], str]:
    """`tokens(run)`: the setting that names the tiny corpus, tokenized as the run's model reads it."""

    def make(run: RunFolder) -> str:
        folder = tmp_path / "tokens"
        if not folder.exists():
            pipeline.tokenize([str(tiny_corpus["manual"])], run.tokenizer_folder, folder, workers=1)
        return f"data.sources.manual.tokens={folder}"

    return make


def losses(run: RunFolder) -> list[float]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@torch.no_grad()
def first_loss(theirs: Any, config: RunConfig) -> float:
    """Mean loss of `theirs` on the samples of the first step."""
    prepared = pipeline.prepare(config)
    rows = sample_stream(prepared).read(0, 4)
    inputs, targets = (torch.from_numpy(part.copy()) for part in objective_of(config, prepared.tokenizer)(rows, 0))
    return float(F.cross_entropy(theirs(inputs).logits.flatten(0, 1), targets.flatten(), ignore_index=-100))


@pytest.mark.parametrize("name", ["llama-3", "mistral", "qwen2", "olmo2", "gpt2", "bert", "modernbert", "eurobert"])
def test_the_first_loss_is_that_of_the_model_as_it_was(
    name: str, imported: Callable[[str], tuple[Any, RunFolder]], tokens: Callable[[RunFolder], str]
) -> None:
    theirs, run = imported(name)
    without = ["model.hidden_dropout=0", "model.attention_dropout=0"]  # the configurations of GPT-2 and BERT have 0.1
    pipeline.train(run.path, [*SETTINGS, tokens(run), *without])
    assert losses(run)[0] == pytest.approx(first_loss(theirs, run.config), abs=1e-5)
    assert checkpoint_steps(run.checkpoints) == [0, 2]


def test_it_becomes_a_run_like_any_other(
    imported: Callable[[str], tuple[Any, RunFolder]],
    tokens: Callable[[RunFolder], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs, run = imported("gpt2")
    fresh = {name: value.clone() for name, value in load_trained(run.path).model.named_parameters()}
    with pytest.raises(ConfigError, match=r"data\.sources is empty"):
        pipeline.train(run.path, SETTINGS)
    with pytest.raises(ConfigError, match=r"model\.norm_eps|model\.rms_norm_eps"):
        pipeline.train(run.path, [*SETTINGS, tokens(run), "model.rms_norm_eps=1e-3"])
    before = run.provenance["imported"]
    pipeline.train(run.path, [*SETTINGS, tokens(run), "checkpoint.interval_steps=1"])
    assert run.provenance["imported"] == before
    assert run.provenance["datasets"]["manual"]["tokens"]["train"] > 1000
    with pytest.raises(ConfigError, match="a resumed run keeps it"):
        pipeline.train(run.path, ["data.sequence_length=32"])
    with pytest.raises(ConfigError, match="keeps its global batch"):
        pipeline.train(run.path, ["training.global_batch_size=8", "training.total_steps=4"])
    pipeline.train(run.path, ["training.total_steps=4"])
    assert checkpoint_steps(run.checkpoints)[-1] == 4 and len(losses(run)) == 4

    pipeline.export(run.path, tmp_path / "back")
    card = (tmp_path / "back" / "README.md").read_text()
    assert "pretrained further, beginning with the weights of saved (gpt2), on 768 tokens" in card
    assert "random weights" not in card and "manual" in card
    ours, again = load_trained(run.path).model, load(tmp_path / "back")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        logits = ours(ids)["logits"]
        assert logits is not None
        assert (logits - again(ids).logits).abs().max() < 1e-5
        assert (logits - theirs(ids).logits).abs().max() > 1e-2
    assert any(not torch.equal(value, fresh[name]) for name, value in ours.named_parameters())


def test_settings_stay_open_until_a_step_is_saved(
    imported: Callable[[str], tuple[Any, RunFolder]], tokens: Callable[[RunFolder], str], tmp_path: Path
) -> None:
    """A start that ended before its first checkpoint decides nothing: not the data, the batch or the length."""
    _, run = imported("llama")
    pipeline.train(run.path, [*SETTINGS, tokens(run)])
    first = losses(run)
    shutil.rmtree(run.checkpoints / "step_000002")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "tokens", elsewhere)
    changed = [
        "data.sequence_length=32",
        "training.global_batch_size=2",
        f"data.sources={{other: {{tokens: {elsewhere}}}}}",
    ]
    pipeline.train(run.path, changed)
    assert list(run.provenance["datasets"]) == ["other"] and run.config.data.sequence_length == 32
    assert len(losses(run)) == 2 and losses(run)[0] != first[0]


def test_a_damaged_first_checkpoint_leads_back_to_the_imported_weights(
    imported: Callable[[str], tuple[Any, RunFolder]], tokens: Callable[[RunFolder], str]
) -> None:
    _, run = imported("llama")
    pipeline.train(run.path, [*SETTINGS, tokens(run)])
    straight = losses(run)
    file = next((run.checkpoints / "step_000002").glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1])
    pipeline.train(run.path)
    assert losses(run) == straight
    assert checkpoint_steps(run.checkpoints) == [0, 2]


def test_from_the_command_line_with_text(
    save: Callable[..., Path],
    firstlight: Callable[..., Any],
    tiny_corpus: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """import, eval, train on text that is tokenized with the model's own tokenizer, export."""
    monkeypatch.chdir(tmp_path)
    folder = save(build(VARIANTS["qwen3"]))
    done = firstlight("import", folder, "runs/q")
    assert done.code == 0 and "Qwen3ForCausalLM" in done.stderr and "40 of them without a token" in done.stderr
    scores = firstlight("eval", "runs/q", "--data", f"code={tiny_corpus['code']}", "--max-tokens", 200)
    assert scores.code == 0 and "code" in scores.stdout
    assert firstlight("eval", "runs/q").sentence().endswith("evaluate files with --data NAME=FILES.")
    text = [f"data.sources.web.text=[{tiny_corpus['manual']}]", f"data.directory={tmp_path / 'data'}"]
    trained = firstlight("train", "runs/q", *SETTINGS, *text)
    assert trained.code == 0, trained.stderr
    run = RunFolder.open("runs/q")
    assert not list((tmp_path / "data").glob("tokenizer-*"))
    assert run.provenance["datasets"]["web"]["text"] == [str(tiny_corpus["manual"])]
    assert firstlight("export", "runs/q", "back", "--dtype", "float16").code == 0
    assert {str(value.dtype) for value in load(tmp_path / "back").parameters()} == {"torch.float16"}
    assert "not empty" in firstlight("import", folder, "runs/q").sentence()


def test_a_recipe_with_the_same_name_and_model_goes_on_from_the_weights(
    imported: Callable[[str], tuple[Any, RunFolder]], tokens: Callable[[RunFolder], str], tmp_path: Path
) -> None:
    import yaml

    theirs, run = imported("llama")
    config = read_run_or_recipe(run.path, [*SETTINGS, tokens(run)]).model_dump(mode="json")
    recipe = {
        key: config[key] for key in ("name", "runs_directory", "model", "training", "data", "schedule", "logging")
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    pipeline.train(tmp_path / "recipe.yaml")
    assert losses(run)[0] == pytest.approx(first_loss(theirs, run.config), abs=1e-5)
    assert run.last_step() == 2
