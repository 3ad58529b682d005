"""A model of `transformers`, imported, computes the same; exported again, it is the same to the last byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from firstlight import pipeline
from firstlight.interop.huggingface import export_huggingface
from firstlight.model import LanguageModel
from firstlight.tokens.tokenizer import Tokenizer

from .conftest import LENGTH, MASKED, TEXT, VARIANTS, build, edit_config, imported_model, load, sample

Save = Callable[..., Path]


def raw_tensors(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Name → type, shape and bytes of every tensor in a folder."""
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with file.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            header, body = json.loads(handle.read(size)), handle.read()
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = (entry["dtype"], entry["shape"], body[begin:end])
    return tensors


@torch.no_grad()
def difference(ours: LanguageModel, theirs: Any) -> float:
    """Largest difference of logits: whole sequences, and where a mask says what is padding the rest of them."""
    ids = sample(320)
    whole = (ours(ids)["logits"] - theirs(ids).logits).abs().max()
    mask = torch.ones_like(ids)
    mask[1, LENGTH - 5 :] = 0
    mask[2, 10:] = 0
    padded = ours(ids, attention_mask=mask)["logits"] - theirs(ids, attention_mask=mask).logits
    return float(max(whole, (padded * mask[..., None]).abs().max()))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_bytes_are_the_same_there_and_back(
    name: str, save: Save, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    theirs = build(VARIANTS[name])
    folder = save(theirs)
    ours = imported_model(folder)
    assert difference(ours, theirs) < 1e-5
    export_huggingface(ours, tokenizer, tmp_path / "back")
    assert raw_tensors(tmp_path / "back") == raw_tensors(folder)
    again = load(tmp_path / "back")
    assert type(again) is type(theirs)
    with torch.no_grad():
        assert torch.equal(again(sample(320)).logits, theirs(sample(320)).logits)


def test_second_segment_reads_its_own_row_of_token_types(save: Save) -> None:
    theirs = build(VARIANTS["bert"])
    ours = imported_model(save(theirs))
    ids = sample(320)
    types = (torch.arange(LENGTH) > 20).long().expand_as(ids)
    with torch.no_grad():
        expected = theirs(ids, token_type_ids=types).logits
        assert (ours(ids, token_type_ids=types)["logits"] - expected).abs().max() < 1e-5
        assert (ours(ids)["logits"] - expected).abs().max() > 1e-2


def test_qwen3_ignores_the_window_that_is_not_switched_on(save: Save) -> None:
    theirs = build(VARIANTS["qwen3"])
    folder = save(theirs)
    edit_config(folder, lambda content: content.update(sliding_window=4, max_window_layers=0, layer_types=None))
    assert difference(imported_model(folder), theirs) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama-3", "gpt2", "bert", "modernbert"])
def test_a_run_gives_back_the_type_and_every_byte(name: str, dtype: str, save: Save, tmp_path: Path) -> None:
    theirs = build(VARIANTS[name]).to(getattr(torch, dtype))
    folder = save(theirs, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    run = pipeline.import_model(folder, tmp_path / "run")
    assert run.provenance["imported"]["dtype"] == dtype
    back = pipeline.export(run.path, tmp_path / "back")
    assert raw_tensors(back) == raw_tensors(folder)
    again = load(back)
    assert {str(parameter.dtype) for parameter in again.parameters()} == {f"torch.{dtype}"}
    exact = imported_model(folder)
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.float32}
    assert difference(exact, load(folder, dtype=torch.float32)) < 1e-5


def test_a_run_gives_back_configuration_and_tokenizer(save: Save, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A tokenizer that puts a token before every text does so again after the way through Firstlight."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = save(build(VARIANTS["llama"]), edits=lambda content: content.update(auto_map={"AutoModel": "code.Model"}))
    words = AutoTokenizer.from_pretrained(folder)
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.eod_token} $A", special_tokens=[(tokenizer.eod_token, tokenizer.eod_id)]
    )
    words.save_pretrained(folder)
    run = pipeline.import_model(folder, tmp_path / "run")
    assert run.tokenizer.encode(TEXT)[0] != tokenizer.eod_id
    back = pipeline.export(run.path, tmp_path / "back")
    assert AutoTokenizer.from_pretrained(back)(TEXT)["input_ids"] == words(TEXT)["input_ids"]
    assert words(TEXT)["input_ids"][0] == tokenizer.eod_id
    names = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    assert [(back / name).read_bytes() for name in names] == [(folder / name).read_bytes() for name in names]
    given, returned = (json.loads((place / "config.json").read_text()) for place in (folder, back))
    assert given.pop("auto_map") and returned == given

    pipeline.export(run.path, tmp_path / "half", dtype="bfloat16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_run_says_where_its_weights_come_from(save: Save, tmp_path: Path) -> None:
    import hashlib

    folder = save(build(VARIANTS["bert"]), name="secret-place")
    run = pipeline.import_model(folder, tmp_path / "run")
    facts = run.provenance["imported"]
    assert (facts["source"], facts["hub"], facts["model_type"]) == (str(folder), False, "bert")
    assert facts["files"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("config.json", "model.safetensors")
    }
    assert (run.config.name, run.config.data.sources, run.last_step()) == ("run", {}, 0)
    back = pipeline.export(run.path, tmp_path / "back")
    card = (back / "README.md").read_text()
    assert "the weights of secret-place (bert)" in card and "without training" in card and "random weights" not in card
    assert "## Training" not in card
    assert "pipeline_tag: fill-mask" in card and "AutoModelForMaskedLM" in card and "AutoModelForCausalLM" not in card
    everything = "".join(path.read_text() for path in back.iterdir() if path.suffix in (".md", ".json"))
    assert str(tmp_path) not in everything


@pytest.mark.parametrize("name", sorted(MASKED - {"modernbert-odd-window-every-2"}))
def test_the_code_on_the_card_of_a_masked_model_runs(
    name: str, save: Save, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_huggingface(imported_model(save(build(VARIANTS[name]))), tokenizer, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    assert settings["mask_token_id"] == tokenizer.mask_id
    monkeypatch.chdir(tmp_path / "model")
    printed: list[Any] = []
    exec(card.split("```python\n")[1].split("```")[0], {"print": printed.append})
    assert len(printed[0]) == 5


def test_added_tokens_and_rows_that_no_token_has_survive(save: Save, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = save(build(VARIANTS["llama"]))
    words = AutoTokenizer.from_pretrained(folder)
    words.add_tokens(["<tool>", "<call>"])
    words.save_pretrained(folder)
    run = pipeline.import_model(folder, tmp_path / "run")
    assert run.tokenizer.vocab_size == len(words) == tokenizer.vocab_size + 2
    assert (run.config.model.vocab_size, run.config.model.vocab_padding) == (320, 0)
    back = pipeline.export(run.path, tmp_path / "back")
    assert raw_tensors(back) == raw_tensors(folder)
    assert AutoTokenizer.from_pretrained(back).convert_tokens_to_ids("<call>") == len(words) - 1


def test_hub_names_are_downloaded_without_pickles(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fnmatch

    import huggingface_hub

    folder = save(build(VARIANTS["qwen2"]), max_shard_size="30KB")
    for other in ("pytorch_model.bin", "consolidated.safetensors"):
        (folder / other).write_bytes(b"never looked at")

    def snapshot(name: str, allow_patterns: list[str], **_: Any) -> str:
        assert name == "someone/small-model"
        copy = tmp_path / "cache"
        copy.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                (copy / file.name).write_bytes(file.read_bytes())
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    run = pipeline.import_model("someone/small-model", tmp_path / "run")
    facts = run.provenance["imported"]
    assert (facts["source"], facts["hub"]) == ("someone/small-model", True)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".bin" or "consolidated" in path.name]
    back = pipeline.export(run.path, tmp_path / "back")
    assert raw_tensors(back) == raw_tensors(folder)
    assert "someone/small-model" in (back / "README.md").read_text()
    with safe_open(back / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
