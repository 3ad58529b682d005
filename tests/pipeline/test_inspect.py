"""`inspect` says what a step read and which steps read a document, the same as the loader gives and in both ways."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from firstlight.pipeline.course import Course, course_of, merged
from firstlight.pipeline.inspecting import InspectedRun, marked_text
from firstlight.pipeline.stages import prepare
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.indexed import IndexedWriter
from firstlight.tokens.lineage import parts_of
from firstlight.tokens.objective import objective_of
from firstlight.training.run_folder import RunFolder


@pytest.fixture
def here(trained_folder, tmp_path, monkeypatch):
    """The trained folder of the tests, in a copy that a test may change."""
    shutil.copytree(trained_folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for file in (Path("runs/tiny/config.yaml"), Path("runs/tiny/provenance.json")):
        file.write_text(file.read_text().replace(str(trained_folder), str(tmp_path / "here")))
    return tmp_path / "here"


def begun(name: str, recipe: dict, *overrides: str) -> InspectedRun:
    """A run that has begun and trained nothing."""
    Path(f"{name}.yaml").write_text(yaml.safe_dump({**recipe, "name": name}))
    config = load_config(f"{name}.yaml", overrides)
    prepared = prepare(config)
    RunFolder(prepared.config.run_folder).create(prepared.config, prepared.tokenizer, prepared.provenance(config))
    return InspectedRun(prepared.config.run_folder)


def check_both_ways(run: InspectedRun) -> None:
    """Every sample: its parts are its tokens. Every document: the steps that name it are those found from it."""
    expected: dict[tuple[str, int], set[tuple[int, int, int]]] = {}
    for step in range(1, run.course.total_steps + 1):
        for row in run.step(step)["rows"]:
            tokens = run.stream.read(row["sample"], 1)[0]
            split = run.sources[row["source"]].splits["train"]
            column = 0
            for part in row["documents"]:
                start = split.document_bounds(part["document"])[0] + part["first"]
                assert part["column"] == column
                stored = split.read(start, part["tokens"])
                column += part["tokens"]
                assert np.array_equal(stored, tokens[column - part["tokens"] : column])
                key = (row["source"], part["document"])
                expected.setdefault(key, set()).add((step, row["sample"], part["first"]))
            assert column == run.width
    some = random.Random(0).sample(sorted(expected), min(25, len(expected)))
    for source, document in some:
        found = run.document(f"{source}:{document}")["readings"]
        assert {(r["step"], r["sample"], r["first"]) for r in found} == expected[source, document]
        assert len(found) == len(expected[source, document])
    unread = [
        (source, document)
        for source, tokens in run.sources.items()
        for document in range(tokens.splits["train"].num_documents)
        if (source, document) not in expected
    ]
    for source, document in unread[:10]:
        assert run.document(f"{source}:{document}")["readings"] == []


RECIPE = {
    "data": {
        "sources": {"manual": {"tokens": "tokens/manual"}, "code": {"tokens": "tokens/code"}},
        "mixture": {"manual": 0.8, "code": 0.2},
        "max_epochs": 9,
        "sequence_length": 512,
        "mixture_block_size": 16,
    },
    "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
    "schedule": {"warmup_steps": 0},
    "training": {"total_steps": 30, "global_batch_size": 16, "device": "cpu", "compile": False},
}


def test_samples_and_documents_agree_over_several_epochs_and_stages(here):
    stages = "data.mixture_stages=[{start_tokens: 100000, mixture: {manual: 1.0}}]"
    run = begun("stages", RECIPE, stages)
    assert run.stream.epochs_used(run.course.total_samples)["manual"] > 2
    check_both_ways(run)


def test_a_token_is_found_where_samples_meet_which_two_of_them_read(here):
    """The first token of a sequence is the last target of the one before."""
    stream = begun("borders", RECIPE, "data.sequence_length=64").stream
    first = {stream.first_token(sample): sample for sample in range(30 * 16) if stream.samples(sample, 1).source == 0}
    assert stream.sources[0] == "code"
    begin = next(begin for begin in sorted(first) if begin and begin - 64 in first)
    pair = sorted([first[begin - 64], first[begin]])
    assert stream.samples_with("code", begin, begin + 1, 30 * 16) == pair
    assert stream.samples_with("code", begin - 1, begin, 30 * 16) == [first[begin - 64]]
    assert stream.samples_with("code", begin + 1, begin + 2, 30 * 16) == [first[begin]]
    assert stream.samples_with("code", begin - 1, begin + 1, 30 * 16) == pair


def write_prefix(prefix: str, documents: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    with IndexedWriter(prefix, np.uint16) as writer:
        for _ in range(documents):
            for _ in range(generator.integers(0, 3)):
                writer.add_sequence(generator.integers(1, 200, generator.integers(1, 60)))
            writer.end_document()


def test_the_order_of_megatron_over_prefixes_agrees_both_ways_and_says_what_is_not_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_prefix("web", 120, 0)
    write_prefix("books", 60, 1)
    data = {
        "sources": {"web": {"tokens": "web"}, "books": {"tokens": "books"}},
        "mixture": {"web": 0.7, "books": 0.3},
        "order": "megatron",
        "sequence_length": 32,
    }
    run = begun(
        "prefixes",
        {
            **RECIPE,
            "data": data,
            "model": {**RECIPE["model"], "vocab_size": 256},
            "training": {**RECIPE["training"], "total_steps": 20},
        },
    )
    check_both_ways(run)
    with pytest.raises(ConfigError, match="does not record the files"):
        run.add_origins(run.step(1)["rows"])


def test_masked_runs_mark_what_is_hidden(here):
    run = begun("masked", RECIPE, "model.objective=masked", "tokenizer.path=tokenizer")
    row = run.step(2)["rows"][3]
    _, targets = objective_of(run.config, run.tokenizer)(run.stream.read(row["sample"], 1), row["sample"])
    assert row["hidden_tokens"] == int((targets != -100).sum()) > 0
    assert run.width == 512
    shown = "".join(document["text"] for document in row["documents"])
    assert 0 < shown.count("⟦") == shown.count("⟧") <= row["hidden_tokens"]
    check_both_ways(run)


def test_hidden_tokens_stand_between_marks(here):
    tokenizer = RunFolder("runs/tiny").tokenizer
    ids = tokenizer.encode("the end of it")
    assert marked_text(tokenizer, ids, np.arange(len(ids)) == 0).startswith("⟦")
    assert marked_text(tokenizer, ids).count("⟦") == 0


def test_a_step_of_a_trained_run_is_what_its_batches_were(here):
    """tiny: 4 steps of 8 samples; ranks share a step's samples in order."""
    run = InspectedRun("runs/tiny")
    facts = run.step(3)
    assert [row["sample"] for row in facts["rows"]] == list(range(16, 24))
    assert facts["trained"] and not facts["passed_over"]
    assert run.step(3, row=5)["rows"] == [facts["rows"][5]]
    assert run.step(3, most=2)["more_rows"] == 6
    assert run.step(3, rank=0)["rows"] == facts["rows"]


def test_steps_after_going_back_read_on_behind_what_was_passed_over():
    course = Course(8, 10, 10, merged([(16, 32), (16, 40), (64, 72)]))
    assert course.passed_over == ((16, 40), (64, 72))
    firsts = [course.first_sample(step) for step in range(1, 11)]
    assert firsts == [0, 8, 40, 48, 56, 72, 80, 88, 96, 104]
    assert [course.step_of(first + 7) for first in firsts] == list(range(1, 11))
    assert {course.step_of(sample) for sample in (16, 39, 64, 71)} == {None}
    assert course.total_samples == 112


def test_what_was_passed_over_is_read_from_checkpoint_and_events(here):
    run = RunFolder("runs/tiny")
    state = run.checkpoints / "step_000004/state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "skipped_samples": [[8, 16]]}))
    run.event("rolled_back", step=4, to_step=3, skipped_samples=[0, 8])  # before resuming: the checkpoint knows, or not
    run.event("resumed", step=4)
    run.event("rolled_back", step=6, to_step=4, skipped_samples=[24, 40])
    assert course_of(run).passed_over == ((8, 16), (24, 40))
    run.event("skipped", step=2)
    facts = InspectedRun("runs/tiny").step(2)
    assert (facts["first_sample"], facts["did_not_count"]) == (16, "skipped")


def test_origins_are_the_lines_of_the_files(here):
    run = InspectedRun("runs/tiny")
    rows = run.step(1)["rows"]
    run.add_origins(rows)
    for row in rows:
        lines = Path(f"{row['source']}.jsonl").read_text().splitlines()
        split = run.sources[row["source"]].splits["train"]
        for document in row["documents"]:
            line = json.loads(lines[document["origin"]["entry"] - 1])
            start, end = split.document_bounds(document["document"])
            assert run.tokenizer.encode(line["text"]) == split.read(start, end - start - 1).tolist()
            assert document["origin"]["metadata"] == line["metadata"]


def test_a_file_that_was_changed_since_is_said(here):
    lines = Path("code.jsonl").read_text().splitlines()
    Path("code.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    run = InspectedRun("runs/tiny")
    rows = [row for step in (1, 2, 3) for row in run.step(step)["rows"] if row["source"] == "code"]
    with pytest.raises(DataError, match="changed since"):
        run.add_origins(rows)


def test_other_data_than_the_run_began_with_are_refused(here):
    shutil.rmtree("tokens/code")
    shutil.copytree("tokens/manual", "tokens/code")
    with pytest.raises(DataError, match="not the data of 'code'"):
        InspectedRun("runs/tiny")


def test_the_terminal_gets_a_screen_without_control_characters(here, firstlight):
    Path("bad.jsonl").write_text(json.dumps({"text": "\x1b[31mred\x07 \u202eback " * 40}) + "\n")
    assert firstlight("tokenize", "bad.jsonl", "--tokenizer", "tokenizer", "--output", "bad").code == 0
    for arguments in (("bad",), ("bad", "--document", "0"), ("bad", "--document", "0", "--json")):
        result = firstlight("inspect", *arguments)
        assert result.code == 0, result.stderr
        assert "red" in result.stdout
        assert not set("\x1b\x07\u202e") & set(result.stdout)
    result = firstlight("inspect", "runs/tiny", "--step", "2")
    assert len(result.stdout.splitlines()) <= 24
    assert "samples 8 to 15" in result.stdout and "and 4 more samples" in result.stdout
    facts = json.loads(firstlight("inspect", "runs/tiny", "--step", "2", "--samples", "8", "--json").stdout)
    assert len(facts["rows"]) == 8
    document = facts["rows"][0]["documents"][0]["document"]
    name = f"{facts['rows'][0]['source']}:{document}"
    assert "step 2: sample 8" in firstlight("inspect", "runs/tiny", "--document", name).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("runs/tiny", "--step", "5"), "steps 1 to 4"),
        (("runs/tiny", "--step", "1", "--sample", "8"), "samples 0 to 7"),
        (("runs/tiny", "--step", "1", "--rank", "1"), "ranks 0 to 0"),
        (("runs/tiny", "--rank", "1"), "give it with --step"),
        (("runs/tiny", "--document", "manual"), "SOURCE:NUMBER"),
        (("runs/tiny", "--document", "manuel:1"), "Did you mean 'manual'"),
        (("runs/tiny", "--document", "manual:99999"), "has documents 0 to"),
        (("tokens/code", "--step", "1"), "for run folders"),
        (("tokens/code", "--document", "x"), "a number"),
        (("tokens/code", "--tokenizer", "tokenizer"), "for prefixes"),
        (("nowhere",), "no such folder"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(here, firstlight, arguments, sentence):
    assert sentence in firstlight("inspect", *arguments).sentence()


def test_a_licence_reaches_the_provenance(here):
    run = begun("licensed", RECIPE, "data.sources.code.license=PSF-2.0")
    assert run.run.provenance["datasets"]["code"]["license"] == "PSF-2.0"
    assert "license" not in run.run.provenance["datasets"]["manual"]
    assert run.config.data.sources["code"].license == "PSF-2.0"


def test_parts_of_a_sample_end_with_it(here):
    split = InspectedRun("runs/tiny").sources["manual"].splits["train"]
    parts = list(parts_of(split, [(0, 50), (200, 50)], 60))
    assert sum(part.tokens for part in parts) == 60
    assert parts[-1].column + parts[-1].tokens == 60
