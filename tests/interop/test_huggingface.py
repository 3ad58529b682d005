"""An exported folder gives the same logits, the same ids and the same text in `transformers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from firstlight.config import CheckpointConfig
from firstlight.evaluation.generation import generate, generate_ids
from firstlight.interop.huggingface import export_huggingface
from firstlight.interop.weights import weights_of_checkpoint
from firstlight.model import CausalLanguageModel, LanguageModel, MaskedLanguageModel
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import CheckpointTensors, CheckpointWriter, find_checkpoint

from .conftest import TEXT, load

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "grouped": ("LlamaForCausalLM", {"num_key_value_heads": 2}),
    "multi-query": ("LlamaForCausalLM", {"num_key_value_heads": 1}),
    "tied": ("LlamaForCausalLM", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    "wide-heads": ("LlamaForCausalLM", {"head_dim": 24}),
    "rope-base-and-epsilon": ("LlamaForCausalLM", {"rope_theta": 5e5, "rms_norm_eps": 1e-4}),
    "stretched": ("LlamaForCausalLM", {"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 24}}),
    "mistral": ("MistralForCausalLM", {"architecture": "mistral", "sliding_window": 9, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2ForCausalLM", {"architecture": "qwen2", "num_key_value_heads": 2, "sliding_window": 12}),
    "qwen3": ("Qwen3ForCausalLM", {"architecture": "qwen3", "num_key_value_heads": 2, "rope_theta": 1e6}),
    "qwen3-tied-odd-width": (
        "Qwen3ForCausalLM",
        {"architecture": "qwen3", "hidden_size": 36, "num_heads": 8, "head_dim": 16, "tie_word_embeddings": True},
    ),
    "olmo2": ("Olmo2ForCausalLM", {"architecture": "olmo2", "num_key_value_heads": 2}),
    "gpt2": ("GPT2LMHeadModel", {"architecture": "gpt2", "tie_word_embeddings": True}),
    "gpt2-untied-narrow": (
        "GPT2LMHeadModel",
        {"architecture": "gpt2", "intermediate_size": 40, "tie_word_embeddings": False},
    ),
    "bert": ("BertForMaskedLM", {"architecture": "bert"}),
    "bert-untied-one-segment": (
        "BertForMaskedLM",
        {"architecture": "bert", "tie_word_embeddings": False, "type_vocab_size": 1},
    ),
    "modernbert": ("ModernBertForMaskedLM", {"architecture": "modernbert", "sliding_window": 10, "num_layers": 4}),
    "eurobert": ("EuroBertForMaskedLM", {"architecture": "llama", "objective": "masked", "num_key_value_heads": 2}),
}
MASKED = ("bert", "modernbert", "eurobert")


def build(tokenizer: Tokenizer, objective: str | None = None, **fields: Any) -> LanguageModel:
    masked = objective == "masked" or fields.get("architecture") in MASKED
    shape = {"vocab_size": -(-tokenizer.vocab_size // 64) * 64, "hidden_size": 32, "num_layers": 3, "num_heads": 4}
    fields = {**shape, "max_position_embeddings": 64, "initializer_range": 0.1, **fields}
    return MaskedLanguageModel(**fields) if masked else CausalLanguageModel(**fields)


def train_a_little(model: LanguageModel) -> None:
    """Steps large enough that biases and norms leave their initial values."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    ids = torch.randint(200, (4, 32), generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        optimizer.zero_grad()
        model(ids, labels=ids)["loss"].backward()  # type: ignore[union-attr]
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()


@torch.no_grad()
def difference(model: LanguageModel, other: Any) -> float:
    vocab_size = model.config.vocab_size
    assert vocab_size is not None
    ids = torch.randint(vocab_size, (2, 64), generator=torch.Generator().manual_seed(2))
    logits = model(ids)["logits"]
    assert logits is not None
    return float((logits - other(ids).logits).abs().max())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_are_equal_before_and_after_training(
    tokenizer: Tokenizer, tmp_path: Path, variant: tuple[str, dict[str, Any]]
) -> None:
    class_name, fields = variant
    model = build(tokenizer, **fields)
    export_huggingface(model, tokenizer, tmp_path / "start")
    other = load(tmp_path / "start")
    assert type(other).__name__ == class_name
    unread = 320 if "cls.predictions.bias" in dict(other.named_parameters()) and model.lm_head else 0
    assert other.num_parameters() == model.num_parameters() + unread  # an untied BERT has a second bias for nothing
    assert difference(model, other) < 1e-5

    train_a_little(model)
    assert difference(model, other) > 1e-2
    export_huggingface(model, tokenizer, tmp_path / "trained")
    other = load(tmp_path / "trained")
    assert difference(model, other) < 1e-5

    if not isinstance(model, CausalLanguageModel):
        return
    ids = tokenizer.encode("the cat")
    ours = list(generate_ids(model, ids, max_new_tokens=20, temperature=0))
    theirs = other.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert ours == theirs[0, len(ids) :].tolist()


def test_tokenizer_and_stop_token_travel_along(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = build(tokenizer, vocab_size=tokenizer.vocab_size)
    assert isinstance(model, CausalLanguageModel)
    export_huggingface(model, tokenizer, tmp_path / "model")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer.encode(TEXT)
    assert loaded(TEXT)["input_ids"] == ids
    assert loaded.decode(ids) == TEXT
    other = load(tmp_path / "model")
    assert other.generation_config.eos_token_id == other.config.eos_token_id == tokenizer.eod_id == loaded.eos_token_id
    assert other.generation_config.pad_token_id == tokenizer.pad_id == loaded.pad_token_id

    text = "".join(generate(model, tokenizer, "the cat", max_new_tokens=15, temperature=0))
    inputs = loaded("the cat", return_tensors="pt")
    theirs = other.generate(**inputs, max_new_tokens=15, do_sample=False)
    assert loaded.decode(theirs[0], skip_special_tokens=True) == "the cat" + text


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert", "modernbert"])
def test_sharded_export_loads_the_same_model(tokenizer: Tokenizer, tmp_path: Path, architecture: str) -> None:
    from safetensors import safe_open

    model = build(tokenizer, architecture=architecture, tie_word_embeddings=True)
    summary = export_huggingface(model, tokenizer, tmp_path / "model", max_shard_bytes=30_000)
    files = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert files == summary["files"] and len(files) > 3
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    held = {}
    for file in files:
        with safe_open(tmp_path / "model" / file, "pt") as shard:
            sizes = {name: shard.get_tensor(name).nbytes for name in shard.keys()}  # noqa: SIM118
        assert len(sizes) == 1 or sum(sizes.values()) <= 30_000
        held |= dict.fromkeys(sizes, file)
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == summary["bytes"] == 4 * model.num_parameters()
    assert difference(model, load(tmp_path / "model")) < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_halves_the_file_and_rounds_every_weight(
    dtype: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = build(tokenizer)
    summary = export_huggingface(model, tokenizer, tmp_path / "model", dtype=dtype)
    assert summary["bytes"] == 2 * model.num_parameters()
    other = load(tmp_path / "model")
    assert {str(parameter.dtype) for parameter in other.parameters()} == {f"torch.{dtype}"}
    weights = dict(model.named_parameters())
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, weights[name].to(parameter.dtype)), name


def test_a_weight_beyond_float16_is_refused_and_one_that_was_infinite_stays(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = build(tokenizer)
    assert model.model.norm is not None
    weight = model.model.norm.weight
    with torch.no_grad():
        weight[3] = 65519.0
        export_huggingface(model, tokenizer, tmp_path / "model", dtype="float16")
        weight[3] = 65520.0
        with pytest.raises(ConfigError, match=r"'model.norm.weight' holds 65520, which float16 cannot"):
            export_huggingface(model, tokenizer, tmp_path / "other", dtype="float16")
        export_huggingface(model, tokenizer, tmp_path / "other", dtype="bfloat16")
        weight[3] = float("inf")
        export_huggingface(model, tokenizer, tmp_path / "model", dtype="float16")


@pytest.mark.parametrize(
    "fields", [{}, {"tie_word_embeddings": True}, {"architecture": "gpt2"}, {"architecture": "bert"}]
)
def test_rows_that_rounding_up_added_are_left_out_and_the_others_stay(
    tokenizer: Tokenizer, tmp_path: Path, fields: dict[str, Any]
) -> None:
    size = tokenizer.vocab_size
    padding = 320 - size
    model = build(tokenizer, vocab_size=320, vocab_padding=padding, **fields)
    train_a_little(model)
    summary = export_huggingface(model, tokenizer, tmp_path / "model")
    assert (summary["padding_rows"], summary["unused_rows"]) == (padding, 0)
    assert json.loads((tmp_path / "model" / "firstlight.json").read_text())["padding_rows"] == padding
    other = load(tmp_path / "model")
    assert other.config.vocab_size == size == other.get_input_embeddings().weight.shape[0]
    ids = torch.randint(size, (2, 64), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = model(ids)["logits"]
        assert logits is not None
        assert float((logits[..., :size] - other(ids).logits).abs().max()) < 1e-5


def test_the_card_tells_what_is_known_and_keeps_the_rest_private(tokenizer: Tokenizer, tmp_path: Path) -> None:
    provenance = {
        "name": "small-one",
        "host": {"name": "my-laptop"},
        "command": ["firstlight", "train", "secret.yaml"],
        "versions": {"torch": "2.13.0"},
        "datasets": {
            "books": {
                "path": "/home/me/data/tokens/books",
                "tokens": {"train": 1_500_000, "validation": 1000},
                "documents": {"train": 321},
                "text": ["starter:books", "/home/me/data/novels-*.jsonl"],
            }
        },
        "mixture": {"books": 2.0},
        "training": {"step": 300, "tokens": 2_457_600, "precision": "bf16"},
        "evaluation": {"books": {"loss": 3.25, "perplexity": 25.79, "bits_per_byte": 1.234, "tokens": 999}},
    }
    model = build(tokenizer)
    summary = export_huggingface(model, tokenizer, tmp_path / "model", provenance=provenance)
    unused = 320 - tokenizer.vocab_size
    assert summary["unused_rows"] == unused > 0
    card = (tmp_path / "model" / "README.md").read_text()
    known = ("small-one", "books", "1.5M", "321", "100.0%", "starter:books", "novels-*.jsonl", "2,457,600", "bf16")
    for fact in (*known, "3.25", "25.79", "1.234", f"{model.num_parameters():,}", f"no token has {unused}"):
        assert fact in card, fact
    assert "Not stated" in card and "license:" not in card.split("---")[1]
    everything = "".join(path.read_text() for path in (tmp_path / "model").iterdir() if path.suffix in (".md", ".json"))
    for private in ("my-laptop", "secret.yaml", "/home/me"):
        assert private not in everything, private

    provenance["datasets"]["books"]["license"] = "cc0-1.0"
    export_huggingface(model, tokenizer, tmp_path / "model", provenance=provenance)
    assert "| cc0-1.0 |" in (tmp_path / "model" / "README.md").read_text()

    export_huggingface(model, tokenizer, tmp_path / "model", provenance={"license": "apache-2.0"})
    card = (tmp_path / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card.split("---")[1] and "Not stated" not in card and "books" not in card


def test_the_code_on_the_card_runs(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_huggingface(build(tokenizer), tokenizer, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "model")
    exec(card.split("```python\n")[1].split("```")[0], {})


@pytest.mark.parametrize(
    "fields", [{}, {"tie_word_embeddings": True}, {"architecture": "gpt2"}, {"architecture": "modernbert"}]
)
def test_a_checkpoint_gives_the_same_folder_as_its_model(
    tokenizer: Tokenizer, tmp_path: Path, fields: dict[str, Any]
) -> None:
    model = build(tokenizer, vocab_padding=40, **fields)
    with CheckpointWriter(tmp_path / "checkpoints", CheckpointConfig()) as writer:
        writer.save(1, {f"model.{name}": value for name, value in model.named_parameters()}, {})
    tensors = CheckpointTensors(find_checkpoint(tmp_path / "checkpoints"))
    from_model = export_huggingface(model, tokenizer, tmp_path / "model")
    from_disk = export_huggingface(weights_of_checkpoint(tensors, model.config), tokenizer, tmp_path / "disk")
    assert {**from_model, "folder": ""} == {**from_disk, "folder": ""}
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "disk" / file.name).read_bytes(), file.name
    with pytest.raises(CheckpointError, match=r"'model\.model\..*has shape .* it is a checkpoint of another"):
        weights_of_checkpoint(tensors, build(tokenizer, hidden_size=64, vocab_padding=40, **fields).config)
    with pytest.raises(CheckpointError, match=r"holds no 'model\.model\.layers\.3"):
        weights_of_checkpoint(tensors, build(tokenizer, num_layers=4, **fields).config)


def test_only_an_empty_folder_or_an_earlier_export_is_replaced(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = build(tokenizer)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(DataError, match="not empty, and not an earlier export"):
        export_huggingface(model, tokenizer, folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="a file, where the export needs a folder"):
        export_huggingface(model, tokenizer, folder / "thesis.txt")
    (folder / "thesis.txt").unlink()
    export_huggingface(model, tokenizer, folder, max_shard_bytes=30_000)
    export_huggingface(model, tokenizer, folder)
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert not (folder / "model.safetensors.index.json").exists()


def test_a_failed_export_leaves_what_was_there(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_huggingface(build(tokenizer), tokenizer, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("firstlight.interop.huggingface.write_safetensors", full)
    with pytest.raises(DataError, match=r"the weights cannot be written \(No space left"):
        export_huggingface(build(tokenizer, seed=9), tokenizer, tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("fields", "options", "words"),
    [
        ({"hidden_size": 36, "num_heads": 8, "head_dim": 16}, {}, "num_attention_heads 8 does not divide"),
        ({"initializer_range": 1.5}, {}, "initializer_range is 1.5"),
        ({"vocab_size": 64}, {}, "do not belong together"),
        ({}, {"dtype": "float8"}, "dtype 'float8' is not known"),
        ({"architecture": "gpt2", "objective": "masked"}, {}, "model.objective is masked"),
        ({}, {"max_shard_bytes": 0}, "max_shard_bytes is 0"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(
    tokenizer: Tokenizer, tmp_path: Path, fields: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        export_huggingface(build(tokenizer, **fields), tokenizer, tmp_path / "model", **options)
    assert not any(tmp_path.iterdir())
