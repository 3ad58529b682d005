"""What model folders look like in the wild: heads missing, old names, tensors twice, damage, pickles."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from firstlight import pipeline
from firstlight.interop.import_huggingface import read_huggingface
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer

from .conftest import VARIANTS, build, edit_config, imported_model, sample

Save = Callable[..., Path]


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a folder's only file."""
    tensors = dict(load_file(folder / "model.safetensors"))
    edit(tensors)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, folder / "model.safetensors")


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("name", "bare", "drawn"),
    [
        ("llama", "LlamaModel", ["lm_head.weight"]),
        ("olmo2", "Olmo2Model", ["lm_head.weight"]),
        ("gpt2", "GPT2Model", []),
        ("bert", "BertModel", ["head_bias", "transform.dense.bias", "transform.dense.weight"]),
        ("modernbert", "ModernBertModel", ["head_bias", "transform.dense.weight", "transform.norm.weight"]),
        ("eurobert", "EuroBertModel", ["lm_head.weight"]),
    ],
)
@torch.no_grad()
def test_a_model_without_head_keeps_its_hidden_states(
    name: str, bare: str, drawn: list[str], save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = build(VARIANTS[name], bare)
    folder = save(theirs)
    ours = imported_model(folder)
    said = capsys.readouterr().err
    assert (ours.model(sample(320)) - theirs(sample(320)).last_hidden_state).abs().max() < 1e-5
    assert ("are drawn anew" in said) == bool(drawn)
    assert all(parameter in said for parameter in drawn)
    logits = ours(sample(320))["logits"]
    assert logits is not None and logits.isfinite().all()


def test_what_a_language_model_does_without_is_left_out_by_name(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = build(VARIANTS["bert"], "BertForPreTraining")
    folder = save(theirs)
    change(folder, lambda tensors: tensors.update({"bert.embeddings.position_ids": torch.arange(64)[None]}))
    ours = imported_model(folder)
    said = capsys.readouterr().err.replace("\n", " ")
    for name in ("cls.seq_relationship.weight", "bert.pooler.dense.bias", "bert.embeddings.position_ids"):
        assert name in said
    with torch.no_grad():
        logits = ours(sample(320))["logits"]
        assert logits is not None
        assert (logits - theirs(sample(320)).prediction_logits).abs().max() < 1e-5


def test_names_of_old_files_are_read(save: Save) -> None:
    bert, gpt2, llama = (save(build(VARIANTS[name]), name) for name in ("bert", "gpt2", "llama"))
    expected = {folder: read_huggingface(folder).tensors for folder in (bert, gpt2, llama)}

    def gamma(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[name.replace("weight", "gamma").replace("bias", "beta")] = tensors.pop(name)

    def bare(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}

    change(bert, gamma)
    change(gpt2, bare)
    change(llama, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    for folder, tensors in expected.items():
        assert equal(read_huggingface(folder).tensors, tensors), folder.name


@pytest.mark.parametrize(
    ("name", "embedding", "output"),
    [
        ("llama-tied-linear", "model.embed_tokens.weight", "lm_head.weight"),
        ("gpt2", "transformer.wte.weight", "lm_head.weight"),
        ("bert", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("bert", "cls.predictions.bias", "cls.predictions.decoder.bias"),
        ("modernbert", "model.embeddings.tok_embeddings.weight", "decoder.weight"),
    ],
)
def test_a_tied_tensor_may_be_there_twice_or_under_either_name(
    name: str, embedding: str, output: str, save: Save
) -> None:
    folder = save(build(VARIANTS[name]))
    expected = read_huggingface(folder).tensors
    change(folder, lambda tensors: tensors.update({output: tensors[embedding].clone()}))
    assert equal(read_huggingface(folder).tensors, expected)
    change(folder, lambda tensors: tensors.pop(embedding))
    assert equal(read_huggingface(folder).tensors, expected)
    change(folder, lambda tensors: tensors.update({embedding: tensors[output] + 1e-3}))
    with pytest.raises(DataError, match=f"'{output}' and '{embedding}' differ"):
        read_huggingface(folder)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("llama", lambda t: t.pop("model.layers.2.mlp.up_proj.weight"), "holds no 'model.layers.2.mlp.up_proj.weight'"),
        ("bert", lambda t: t.pop("cls.predictions.bias"), "holds no 'cls.predictions.bias'"),
        ("bert", lambda t: t.pop("bert.embeddings.word_embeddings.weight"), "word_embeddings"),
        (
            "llama",
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
            "q_proj.bias'.*no place",
        ),
        ("llama", lambda t: t.update({"model.layers.4.mlp.up_proj.weight": torch.ones(2)}), "layers.4.mlp.*no place"),
        ("bert", lambda t: t.update({"classifier.weight": torch.ones(2, 32)}), "'classifier.weight', for which"),
        ("llama", lambda t: t.update({"lm_head.weight": torch.ones(319, 32)}), r"shape \[319, 32\].*\[320, 32\]"),
        (
            "gpt2",
            lambda t: t.update({"transformer.h.0.attn.c_attn.weight": torch.ones(96, 32)}),
            r"shape \[96, 32\].*\[32, 96\]",
        ),
        (
            "llama",
            lambda t: t.update({"model.norm.weight": torch.ones(32).double()}),
            "'model.norm.weight' is of type F64",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    name: str, edit: Callable[[dict[str, Tensor]], object], words: str, save: Save, tmp_path: Path
) -> None:
    folder = save(build(VARIANTS[name]))
    change(folder, edit)
    with pytest.raises(DataError, match=words):
        pipeline.import_model(folder, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.write_text, (self.trace, "boom")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_and_never_opened(file: str, save: Save, tmp_path: Path) -> None:
    folder = save(build(VARIANTS["llama"]))
    (folder / "model.safetensors").unlink()
    trace = tmp_path / "trace"
    (folder / file).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(DataError, match=rf"{file}, a format that can run code.*save_pretrained"):
        pipeline.import_model(folder, tmp_path / "run")
    assert not trace.exists()
    pickle.loads((folder / file).read_bytes())
    assert trace.exists()


def test_safetensors_beside_a_pickle_are_taken(save: Save, tmp_path: Path) -> None:
    folder = save(build(VARIANTS["llama"]))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    pipeline.import_model(folder, tmp_path / "run")
    assert not (tmp_path / "trace").exists()


def test_damaged_files_are_named(save: Save, tmp_path: Path) -> None:
    whole = save(build(VARIANTS["llama"]), max_shard_size="60KB")
    shard = sorted(whole.glob("*.safetensors"))[1].name
    index = json.loads((whole / "model.safetensors.index.json").read_text())
    outside = {**index, "weight_map": dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")}

    def cut(folder: Path) -> None:
        (folder / shard).write_bytes((folder / shard).read_bytes()[:-100])

    for damage, words in (
        (lambda folder: (folder / shard).unlink(), f"{shard}: missing"),
        (cut, f"{shard}: not a readable safetensors file"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "not an index of weights"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps(outside)),
            "names '../elsewhere.safetensors'",
        ),
        (lambda folder: (folder / "config.json").unlink(), "no such model configuration"),
        (lambda folder: (folder / "config.json").write_text("[]"), "not a model configuration"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not a readable"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "folder without a tokenizer.json"),
    ):
        folder = tmp_path / "damaged"
        shutil.copytree(whole, folder)
        damage(folder)
        with pytest.raises(DataError, match=words):
            pipeline.import_model(folder, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        shutil.rmtree(folder)


def test_the_tokenizer_must_fit_into_the_vocabulary_and_may_come_from_elsewhere(
    save: Save, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = save(build(VARIANTS["gpt2"], vocab_size=tokenizer.vocab_size))
    other = train_tokenizer(["something else " * 9, "0123456789"], 275)
    other.save(tmp_path / "other")
    run = pipeline.import_model(folder, tmp_path / "run", tokenizer=str(tmp_path / "other" / "tokenizer.json"))
    assert run.tokenizer.fingerprint == other.fingerprint
    back = pipeline.export(run.path, tmp_path / "back")
    assert (back / "tokenizer.json").read_bytes() == (tmp_path / "other" / "tokenizer.json").read_bytes()

    tight = save(build(VARIANTS["gpt2"], vocab_size=tokenizer.vocab_size - 1), "tight")
    with pytest.raises(ConfigError, match=rf"tokenizer has {tokenizer.vocab_size} tokens.*--tokenizer"):
        pipeline.import_model(tight, tmp_path / "second")


def test_a_run_folder_that_holds_something_is_left_alone(save: Save, tmp_path: Path) -> None:
    folder = save(build(VARIANTS["llama"]))
    run = pipeline.import_model(folder, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="not empty"):
        pipeline.import_model(folder, run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    with pytest.raises(CheckpointError, match="a file, where the run folder is due"):
        pipeline.import_model(folder, run.config_file)
    with pytest.raises(DataError, match="no such folder"):
        pipeline.import_model("./nowhere", tmp_path / "other")
    with pytest.raises(ConfigError, match="name"):
        pipeline.import_model(folder, tmp_path / "a name")


def test_types_that_differ_become_the_widest(save: Save, tmp_path: Path) -> None:
    folder = save(build(VARIANTS["llama"]).to(torch.bfloat16))
    change(folder, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].float() + 1e-6}))
    assert read_huggingface(folder).dtype == "float32"
    edit_config(folder, lambda content: content.update(dtype="bfloat16"))
    run = pipeline.import_model(folder, tmp_path / "run")
    back = load_file(pipeline.export(run.path, tmp_path / "back") / "model.safetensors")
    assert {value.dtype for value in back.values()} == {torch.float32}
    assert equal(back, {name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
