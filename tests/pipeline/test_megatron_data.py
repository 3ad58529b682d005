"""Prefixes of Megatron-LM as a user has them: trained on as they are, in its order, by one process and by two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from firstlight import pipeline
from firstlight.config import DataConfig, SourceConfig
from firstlight.pipeline.mixture_report import mixture_report
from firstlight.pipeline.run_training import sample_stream
from firstlight.pipeline.stages import prepare
from firstlight.pipeline.verifying import verify
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.indexed import IndexedWriter
from firstlight.tokens.prefix import PrefixDataset, is_prefix
from firstlight.tokens.sources import open_source
from firstlight.training.run_folder import RunFolder

RECIPE = {
    "name": "one",
    "data": {
        "sources": {"web": {"tokens": "web_text_document"}, "books": {"tokens": "books_text_document"}},
        "mixture": {"web": 0.7, "books": 0.3},
        "order": "megatron",
        "sequence_length": 32,
    },
    "model": {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "schedule": {"warmup_steps": 0},
    "training": {"total_steps": 6, "global_batch_size": 8, "precision": "fp32", "device": "cpu", "compile": False},
    "checkpoint": {"interval_steps": 3},
    "evaluation": {"interval_steps": 3},
    "logging": {"interval_steps": 1},
}


def write(prefix: Path, documents: int, dtype: type, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    with IndexedWriter(prefix, dtype) as writer:
        for _ in range(documents):
            for _ in range(generator.integers(0, 3)):
                writer.add_sequence(generator.integers(1, 200, generator.integers(1, 60)))
            writer.end_document()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with two prefixes, one of them with a cache of Megatron-LM's beside it, and a recipe."""
    monkeypatch.chdir(tmp_path)
    write(Path("web_text_document"), 200, np.uint16)
    write(Path("books_text_document"), 90, np.int32, 1)
    Path("web_text_document/cache").mkdir(parents=True)
    Path("r.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return tmp_path


def losses(name: str) -> list[float]:
    lines = map(json.loads, Path("runs", name, "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_two_processes_read_the_samples_of_one(here, firstlight):
    assert firstlight("train", "r.yaml").code == 0
    assert len(losses("one")) == 6
    jobs = [{"world_size": 2, "recipe": "r.yaml", "overrides": ["name=two", "launch.gpus_per_node=2"], "seconds": 100}]
    Path("jobs.json").write_text(json.dumps(jobs))
    ranks = Path(__file__).parents[1] / "distributed" / "train_ranks.py"
    done = subprocess.run([sys.executable, str(ranks), "jobs.json"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)


def test_a_resumed_run_reads_on_where_it_was(here, firstlight):
    assert firstlight("train", "r.yaml").code == 0
    whole = losses("one")
    for file in Path("runs/one/checkpoints/step_000006").iterdir():
        file.unlink()
    Path("runs/one/checkpoints/step_000006").rmdir()
    result = firstlight("train", "runs/one")
    assert result.code == 0
    assert "resumed at step 3" in result.stderr
    assert losses("one") == whole
    assert not result.stdout.count("generate"), "a run without a tokenizer is not told to generate"


def test_what_a_resumed_run_may_not_change_and_what_verbs_need_a_tokenizer_for(here, firstlight):
    firstlight("train", "r.yaml")
    sentence = firstlight("train", "runs/one", "training.total_steps=60").sentence()
    assert "decides the order of its samples" in sentence
    assert "keep training.total_steps=6" in sentence
    assert "generation needs a tokenizer" in firstlight("generate", "runs/one", "--prompt", "a").sentence()
    assert "export needs a tokenizer" in firstlight("export", "runs/one", "out").sentence()
    assert not Path("out").exists()
    scores = pipeline.evaluate("runs/one")
    assert scores["web"]["loss"] > 0
    assert scores["web"]["bits_per_byte"] is None
    result = firstlight("verify", "runs/one")
    assert result.code == 0
    assert "web_text_document: token ids of a prefix, 2 files" in result.stdout
    assert "every entry of the index and every id sound" in result.stdout


def test_a_longer_run_in_the_same_order_goes_on(here, firstlight):
    one = ["name=single", "data.mixture={}", "data.sources={web: {tokens: web_text_document}}"]
    assert firstlight("train", "r.yaml", *one).code == 0
    assert firstlight("train", "runs/single", "training.total_steps=8").code == 0
    assert RunFolder(Path("runs/single")).last_step() == 8


def test_the_steps_read_the_samples_that_the_order_names(here):
    config = load_config("r.yaml")
    stream = sample_stream(prepare(config), in_memory=True)
    assert stream.counts(48) == {"web": 34, "books": 14}
    assert stream.read(0, 48).max() < 256
    report = mixture_report(config.data, {"web": 9000, "books": 4000}, 48 * 32)
    assert {name: source["tokens_drawn"] for name, source in report["sources"].items()} == {"books": 448, "web": 1088}


def test_parts_are_ranges_of_sequences(here):
    prefix = PrefixDataset("web_text_document")
    size = prefix.reader.num_sequences
    splits = prefix.splits("8 1,1")
    assert splits["train"].num_sequences == round(0.8 * size)
    assert splits["validation"].num_sequences == round(0.9 * size) - round(0.8 * size)
    tokens = np.concatenate([splits[name].read(0, splits[name].num_tokens) for name in ("train", "validation")])
    assert np.array_equal(tokens, prefix.whole().read(0, len(tokens)))
    assert tokens.sum() and list(prefix.splits("1")) == ["train"]
    documents = [document for part in splits.values() for document in part.documents()]
    assert np.array_equal(np.concatenate(documents), tokens)


def test_held_out_tokens_take_the_place_of_a_part(here, trained_folder):
    write(Path("held_out"), 20, np.uint16, 5)
    source = SourceConfig(tokens="web_text_document", validation_tokens="held_out")
    opened = open_source(source)
    assert opened.splits["train"].num_tokens == PrefixDataset("web_text_document").whole().num_tokens
    assert opened.splits["validation"].num_tokens == PrefixDataset("held_out").whole().num_tokens
    assert opened.fingerprint != open_source(SourceConfig(tokens="web_text_document")).fingerprint
    folder = open_source(SourceConfig(validation_tokens=str(trained_folder / "tokens/code")))
    assert list(folder.splits) == ["validation"]
    whole = open_source(SourceConfig(tokens=str(trained_folder / "tokens/code"))).splits
    assert folder.splits["validation"].num_tokens == sum(split.num_tokens for split in whole.values())

    data = {**RECIPE["data"], "sources": {**RECIPE["data"]["sources"], "val": {"validation_tokens": "held_out"}}}
    Path("r.yaml").write_text(yaml.safe_dump({**RECIPE, "data": data}, sort_keys=False))
    run = pipeline.train("r.yaml")
    assert set(pipeline.evaluate(run.path)) == {"web", "books", "val"}


def test_our_own_folders_can_be_read_in_that_order(trained_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(trained_folder)
    settings = ["data.order=megatron", "data.mixture_block_size=1024"]
    prepared = prepare(load_config("recipe.yaml", settings))
    stream = sample_stream(prepared, in_memory=True)
    assert stream.read(0, 32).shape == (32, 65)
    assert not list(trained_folder.glob("data/megatron*"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ("data.mixture_block_size=64", "order megatron has no blocks"),
        ("data.split=0,1", "leaves nothing to train on"),
        ("data.split=a", "up to three numbers are due"),
        ("data.max_epochs=0.1", "above data.max_epochs 0.1"),
        ("model.vocab_size=150", r"source 'web': token id \d+ at .*web_text_document\.bin, token \d+ is outside"),
        ("data.attention_within_documents=true", "looks for the end-of-document token"),
        ("model.objective=masked", "has no mask token"),
        ("data.sources.web.tokens=web_text_document.bin", "give both by their common name, web_text_document"),
        ("data.sources.web.tokens=nowhere", "nowhere: no such folder; a finished token dataset"),
        ("seed=4294967296", "data.order megatron takes one from 0 to 4294967295"),
    ],
)
def test_mistakes_are_told_before_the_first_step(here, firstlight, changes, error):
    import re

    sentence = firstlight("train", "r.yaml", changes).sentence()
    assert re.search(error, sentence), sentence
    assert not Path("runs/one/metrics.jsonl").exists()


def test_a_vocabulary_is_needed_without_a_tokenizer(here):
    model = {key: value for key, value in RECIPE["model"].items() if key != "vocab_size"}
    Path("r.yaml").write_text(yaml.safe_dump({**RECIPE, "model": model}, sort_keys=False))
    with pytest.raises(ConfigError, match=r"give the one that made them with tokenizer\.path"):
        prepare(load_config("r.yaml"))


def test_a_split_that_divides_nothing_and_stages_are_refused(trained_folder, monkeypatch):
    monkeypatch.chdir(trained_folder)
    with pytest.raises(ConfigError, match="no source is one; leave it out"):
        prepare(load_config("recipe.yaml", ["data.split=9,1"]))
    with pytest.raises(ValueError, match="order megatron knows one mixture"):
        DataConfig(order="megatron", mixture_stages=[{"start_tokens": 5, "mixture": {"a": 1}}])
    with pytest.raises(ValueError, match="has validation_tokens only"):
        DataConfig(sources={"a": {"validation_tokens": "p"}}, mixture={"a": 1})


def test_what_holds_no_token_ids_is_refused(here):
    with IndexedWriter("floats", np.float32) as writer:
        writer.add_document([1.0, 2.0])
    assert is_prefix("floats") and is_prefix("web_text_document") and not is_prefix("nowhere")
    with pytest.raises(DataError, match="its elements are float32; token ids are whole numbers"):
        PrefixDataset("floats")
    with IndexedWriter("pictures", np.int32) as writer:
        writer.add_document([1, 2])
    with Path("pictures.idx").open("ab") as handle:
        handle.write(b"\1")
    with pytest.raises(DataError, match="the data is multimodal"):
        PrefixDataset("pictures")


def test_verify_names_a_damaged_index(here):
    assert verify(["web_text_document"])[0].faults == []
    with Path("web_text_document.idx").open("r+b") as handle:
        handle.seek(34 + 4 * 20)
        handle.write(b"\x07\x01")
    faults = verify(["web_text_document"])[0].faults
    assert "sequence 21 has a wrong length or offset" in faults[0], "the one after the wrong length"
    with pytest.raises(DataError, match="firstlight verify PREFIX names the place"):
        sample_stream(prepare(load_config("r.yaml")), in_memory=True).read(0, 1)
