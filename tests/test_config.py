"""Recipes are read strictly, overrides have types, and the batch arithmetic is checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config import RunConfig, resolve_batch
from firstlight.config.text_steps import ChineseSentences
from firstlight.recipe import config_diff, dump_config, load_config, parse_config, recipe_names
from firstlight.support.errors import ConfigError


def error(recipe, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, overrides)
    return str(caught.value)


def test_llama_7b_has_exactly_the_published_values():
    config = load_config("llama-7b")
    model, optimizer, training = config.model, config.optimizer, config.training
    assert (model.vocab_size, model.hidden_size, model.intermediate_size) == (32000, 4096, 11008)
    assert (model.num_hidden_layers, model.num_attention_heads, model.num_key_value_heads) == (32, 32, 32)
    assert (model.max_position_embeddings, model.rope_theta, model.norm_eps) == (4096, 10000, 1e-6)
    assert model.tie_word_embeddings is False
    assert (optimizer.name, optimizer.lr, optimizer.min_lr) == ("adamw", 3e-4, 3e-5)
    assert (optimizer.weight_decay, optimizer.betas) == (0.1, (0.9, 0.95))
    assert (config.schedule.name, config.schedule.warmup_steps, training.total_steps) == ("cosine", 2000, 300000)
    assert (training.micro_batch_size, training.global_batch_size, training.max_grad_norm) == (4, 1024, 1.0)
    assert (config.data.sequence_length, training.precision) == (2048, "fp16")
    assert (config.parallel.tensor, config.parallel.pipeline) == (2, 4)
    assert (config.launch.nodes, config.launch.gpus_per_node) == (16, 8)
    assert config.data.mixture == {"web": 0.6, "books": 0.15, "code": 0.1, "wikipedia": 0.1, "academic": 0.05}
    batch = config.batch(128)
    assert (batch.data_parallel, batch.gradient_accumulation_steps) == (16, 16)


def test_the_accumulation_of_eight_contradicts_the_layout_of_llama_7b():
    message = error("llama-7b", "training.gradient_accumulation_steps=8")
    assert "1024 ≠ 4 × 8 × 16 = 512" in message
    assert "gradient_accumulation_steps 16 fits" in message


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_survives_its_own_yaml(name, tmp_path):
    config = load_config(name)
    assert config.name == name
    assert config.description
    file = tmp_path / "saved.yaml"
    file.write_text(dump_config(config))
    assert load_config(file) == config
    assert config.steps(config.declared_world_size) > 0


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("trainin.total_steps=3", "Did you mean 'training'?"),
        ("model.hidden_sise=8", "Did you mean 'hidden_size'?"),
        ("data.sources.books.txt=a", "Did you mean 'text'?"),
        ("lr=1", "Did you mean 'optimizer.lr'?"),
        ("model.hidden_size=wide", "model.hidden_size: a whole number is due, not 'wide'"),
        ("model.hidden_size=1.5", "model.hidden_size: a whole number is due, not 1.5"),
        ("training.compile=perhaps", "training.compile: true or false is due"),
        ("training.total_steps=true", "a whole number is due, not true or false"),
        ("optimizer.lr=.nan", "optimizer.lr"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("optimizer.min_lr=1", "min_lr 1 is above lr"),
        ("training=3", "training: a section (key: value) is due"),
        ("training.precision=fp9", "'fp32', 'bf16', 'fp16' or 'fp8'"),
        ("model.num_attention_heads=5", "hidden_size 256 is not divisible by num_attention_heads 5"),
        ("model.num_key_value_heads=3", "valid: 1, 2, 4"),
        ("data.mixture.books=0", "data.mixture.books is 0"),
        ("data.mixture.bokks=1", "Did you mean 'books'?"),
        ("model.max_position_embeddings=8", "data.sequence_length 256 is above"),
        ("total_steps", "an override is written key=value"),
        ("name=a/b", "name"),
        ("seed.x=1", "seed: a whole number is due, not {'x': 1}"),
        ("corpus.steps=[lengt]", "corpus.steps.0: no step is called 'lengt'; the nearest is 'length'"),
        (
            "corpus.steps=[{step: c4}, {step: 3}]",
            "corpus.steps.1: no step is called '3'; known: length, repair_unicode",
        ),
        ("corpus.steps=[{length: {}}]", "a step is written as its name, or as a mapping with `step: NAME`"),
        ("corpus.steps=[{step: c4, words: jieba}]", "the step `c4` has no setting 'words'; "),
        ("corpus.steps=[{step: length, min_characters: x}]", "steps.0.length.min_characters: a whole number is due"),
        ("corpus.steps=length", "corpus.steps: a list is due, not 'length'"),
        ("name.x=1", "name is a value, not a section"),
    ],
)
def test_a_wrong_override_is_named_with_what_would_be_right(override, part):
    message = error("quickstart", override)
    assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("name: a\ndata:\n\tdirectory: b\n", "line 3, column 1: a tab, where YAML allows only spaces"),
        ("name: a\nname: b\n", "'name' is given twice"),
        ("- a\n", "a recipe is a mapping"),
        ("name: [a\n", "line 2"),
        ("description: x\n", "'name' is missing"),
        ("name: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, text, part):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    message = error(file)
    assert part in message
    assert str(file) in message


def test_missing_folder_and_binary_files(tmp_path):
    assert "no such recipe or file" in error(tmp_path / "none.yaml")
    assert "Did you mean 'quickstart'?" in error("quikstart")
    assert "a folder, where a recipe file" in error(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x01")
    assert "not a text file" in error(tmp_path / "x.yaml")


def test_overrides_take_the_types_of_the_fields():
    config = load_config(
        "quickstart",
        ["training.total_steps=1e3", "optimizer.lr=1e-3", "training.compile=false", "data.sources.books.text=a.txt"],
    )
    assert config.training.total_steps == 1000
    assert config.optimizer.lr == 1e-3
    assert config.training.compile is False
    assert config.data.sources["books"].text == ["a.txt"]


def test_a_length_in_tokens_replaces_one_in_steps_unless_both_are_given():
    config = load_config("quickstart", ["training.total_tokens=1e6", "data.sources.books.tokens=folder"])
    assert (config.training.total_steps, config.training.total_tokens) == (None, 1_000_000)
    assert config.data.sources["books"].text == []
    both = error("quickstart", "training.total_tokens=1e6", "training.total_steps=5")
    assert "total_steps or total_tokens, not both" in both


def test_an_override_reaches_into_a_list() -> None:
    steps = "corpus.steps=[gopher_quality, {step: length}]"
    changes = ["corpus.steps.0.min_words=5", "corpus.steps.1.min_characters=7"]
    config = load_config("quickstart", [steps, *changes])
    assert [step.model_dump(exclude_unset=True) for step in config.corpus.steps] == [
        {"step": "gopher_quality", "min_words": 5},
        {"step": "length", "min_characters": 7},
    ]
    assert load_config("quickstart", [steps, "corpus.steps.1=c4"]).corpus.steps[1].step == "c4"
    for place in ("2", "-1", "length"):
        with pytest.raises(ConfigError, match=f"'{place}' is no entry of this list of 2; its entries are 0 to 1"):
            load_config("quickstart", [steps, f"corpus.steps.{place}.min_words=5"])


def test_a_step_without_settings_is_its_bare_name():
    config = load_config("quickstart", ["corpus.steps=[chinese_sentences, {step: chinese_sentences}]"])
    assert config.corpus.steps[0] == config.corpus.steps[1] == ChineseSentences()


def test_the_diff_names_what_changed_and_nothing_else():
    before, after = load_config("quickstart"), load_config("quickstart", ["optimizer.lr=0.01", "seed=7"])
    assert config_diff(before, after) == [("seed", 1234, 7), ("optimizer.lr", 0.003, 0.01)]
    assert config_diff(before, before) == []


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 16))
def test_any_two_batch_sizes_give_the_third(micro, accumulation, ranks):
    product = micro * accumulation * ranks
    for given_sizes in (
        (micro, accumulation, None),
        (micro, None, product),
        (None, accumulation, product),
        (micro, accumulation, product),
    ):
        batch = resolve_batch(*given_sizes, ranks)
        assert batch.micro_batch_size * batch.gradient_accumulation_steps * ranks == batch.global_batch_size == product


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 4096), st.integers(1, 64))
def test_a_batch_that_does_not_come_out_is_never_floored(micro, accumulation, global_, ranks):
    if micro * accumulation * ranks == global_:
        return
    with pytest.raises(ConfigError, match="≠"):
        resolve_batch(micro, accumulation, global_, ranks)


def test_tokens_become_whole_steps_rounded_up():
    config = parse_config(
        {
            "name": "a",
            "data": {"sequence_length": 10},
            "training": {"total_tokens": 101, "micro_batch_size": 2, "global_batch_size": 2},
        },
        "x",
    )
    assert config.steps() == 6


def test_a_run_without_length_is_an_error():
    with pytest.raises(ConfigError, match="total_steps or total_tokens"):
        RunConfig(name="a").steps()


def test_half_a_pair_of_surrogates_is_named() -> None:
    tree = {"name": "x", "data": {"sources": {"a": {"text": "b"}}, "mixture": {"a\ud800": 1}}}
    with pytest.raises(ConfigError, match=r"^r\.yaml: data\.mixture\.a\\ud800 holds \\ud800, half of a pair"):
        parse_config(tree, "r.yaml")
