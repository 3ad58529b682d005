"""Megatron-LM's command line: nothing is swallowed, what it means there it means here, and back again."""

import argparse
import json
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.interop.megatron.export import ARGUMENTS, SCRIPT, as_flags, write_export
from firstlight.interop.megatron.meanings import ALWAYS, BECOMES, GROUPS, REFUSED, meaning
from firstlight.interop.megatron.options import build_parser, options, parse
from firstlight.interop.megatron.translate import refuse, translate
from firstlight.recipe import load_config, parse_config, recipe_names
from firstlight.support.errors import ConfigError

SHAPE = "--num-layers 32 --hidden-size 4096 --num-attention-heads 32 --seq-length 2048 --max-position-embeddings 4096"
BATCH = "--micro-batch-size 4 --global-batch-size 1024 --train-iters 300000"
TUTORIAL = (
    f"{SHAPE} {BATCH} --lr 3e-4 --min-lr 3e-5 --lr-decay-style cosine --weight-decay 0.1 --adam-beta1 0.9 "
    "--adam-beta2 0.95 --clip-grad 1.0 --fp16 --tensor-model-parallel-size 2 --pipeline-model-parallel-size 4"
)
DATA = "--data-path /d/web_text_document --tokenizer-type NullTokenizer --vocab-size 31999"
LLAMA = (
    "--swiglu --ffn-hidden-size 11008 --normalization RMSNorm --position-embedding-type rope --rotary-base 10000 "
    "--untie-embeddings-and-output-weights --disable-bias-linear --hidden-dropout 0 --attention-dropout 0 "
    "--lr-warmup-iters 1"
)
SMALL = (
    "--num-layers 4 --hidden-size 64 --num-attention-heads 4 --seq-length 32 --max-position-embeddings 64 "
    f"--micro-batch-size 2 --train-iters 10 --lr 1e-3 {DATA}"
)


DEPENDS = (
    # these stop, or say the same, unless several of them come together: tested one by one elsewhere
    *("--position-embedding-type", "--use-rotary-position-embeddings", "--normalization", "--swiglu", "--window-size"),
    *("--disable-bias-linear", "--add-qkv-bias", "--qk-layernorm", "--optimizer", "--group-query-attention"),
    *("--lr-decay-style", "--lr-decay-samples", "--lr-wsd-decay-samples", "--lr-warmup-samples", "--train-samples"),
    *("--lr-warmup-fraction", "--recompute-method", "--recompute-num-layers", "--tensor-model-parallel-size"),
    *("--pipeline-model-parallel-size", "--context-parallel-size", "--num-virtual-stages-per-pipeline-rank"),
    *("--num-distributed-optimizer-instances", "--data-args-path", "--per-split-data-args-path", "--train-data-path"),
    *("--valid-data-path", "--reset-position-ids", "--reset-attention-mask", "--tokenizer-type", "--tokenizer-model"),
    *("--save", "--padded-vocab-size", "--exit-on-missing-checkpoint", "--wandb-exp-name", "--global-batch-size"),
)


def config_of(line, world=128):
    return translate(line.split(), world).config()


def test_the_tutorials_command_is_a_gpt_with_megatrons_defaults():
    translation = translate(f"{TUTORIAL} {DATA}".split(), 128)
    assert str(translation.sizes) == (
        "128 processes = tensor 2 × pipeline 4 × data 16; 1024 sequences a step = micro-batch 4 × data 16 × 16 "
        "microbatches"
    )
    config = translation.config()
    model = config.model
    assert (model.architecture, model.intermediate_size, model.tie_word_embeddings) == ("gpt2", 16384, True)
    assert (model.hidden_dropout, model.attention_dropout, model.norm_eps) == (
        0.1,
        0.1,
        1e-5,
    )
    assert (model.vocab_size, model.vocab_padding) == (32000, 0)
    assert (config.parallel.tensor, config.parallel.pipeline) == (2, 4)
    assert config.batch(128).gradient_accumulation_steps == 16
    scale = config.training.loss_scale
    assert (scale.initial, scale.growth_interval, scale.hysteresis, scale.minimum) == (2**32, 1000, 2, 1.0)
    assert (config.data.order, config.data.split) == ("megatron", "969, 30, 1")


def test_what_is_not_given_has_megatrons_default():
    config = config_of(SMALL, 1)
    assert (config.optimizer.weight_decay, config.optimizer.betas, config.optimizer.min_lr) == (0.01, (0.9, 0.999), 0.0)
    assert (config.schedule.name, config.training.precision, config.seed) == ("linear", "fp32", 1234)
    assert config.training.global_batch_size == 2
    assert not config.stability.guard


def test_the_tutorials_command_without_data_tells_its_arithmetic_and_what_llama_needs():
    with pytest.raises(ConfigError) as problem:
        translate(TUTORIAL.split(), 128)
    text = str(problem.value)
    assert "--data-path PREFIX" in text
    assert "128 processes = tensor 2 × pipeline 4 × data 16" in text
    assert "LLaMA-7B" in text
    for flag in ("--swiglu", "--ffn-hidden-size 11008", "--hidden-dropout 0", "--save DIR"):
        assert flag in text


def test_with_the_flags_of_the_hint_it_is_llama_7b():
    model = config_of(f"{TUTORIAL} {DATA} {LLAMA}").model.resolved()
    native = load_config("llama-7b").model.resolved()
    assert model.model_copy(update={"norm_eps": 1e-6}) == native  # Megatron-LM's --norm-epsilon is 1e-5


@pytest.mark.parametrize(
    ("flags", "family"),
    [
        (LLAMA, "llama"),
        (f"{LLAMA} --group-query-attention --num-query-groups 8", "llama"),
        (f"{LLAMA} --add-qkv-bias", "qwen2"),
        (f"{LLAMA} --qk-layernorm --kv-channels 64", "qwen3"),
        (f"{LLAMA} --window-size 511,0", "mistral"),
        (LLAMA.replace("--position-embedding-type rope", "--use-rotary-position-embeddings"), "llama"),
    ],
)
def test_families(flags, family):
    assert config_of(f"{TUTORIAL} {DATA} {flags}").model.architecture == family


def test_swiglus_width_is_megatrons_not_ours():
    assert (
        config_of(f"{TUTORIAL} {DATA} {LLAMA.replace('--ffn-hidden-size 11008', '')}").model.intermediate_size == 10880
    )


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("--swiglu", ("nearest is gpt2", "without --swiglu")),
        (f"{LLAMA} --add-qkv-bias --qk-layernorm", ("no family", "--qk-layernorm")),
        ("--rampup-batch-size 16 8 300", ("--rampup-batch-size", "does not grow")),
        ("--num-experts 8 --moe-router-topk 1", ("--num-experts", "--moe-router-topk")),
        ("--hidden-siz 4", ("--hidden-siz", "no abbreviations", "--hidden-size")),
        ("--eval_iters 4", ("--eval_iters", "--eval-iters")),
        ("--no-such-thing", ("--no-such-thing", "000c4ac24f61")),
        ("@flags.txt", ("@flags.txt",)),
        ("--yaml-cfg x.yaml", ("--yaml-cfg", "import-config")),
        ("--mock-data", ("--mock-data", "firstlight tokenize")),
        ("--lr-decay-style step", ("--lr-decay-style", "cosine")),
        ("--train-iters ten", ("--train-iters", "ten")),
        ("--global-batch-size 1000", ("--global-batch-size 1000", "64", "960 or 1024")),
        ("--pipeline-model-parallel-size 3", ("= 6 does not divide the 128",)),
        ("--num-query-groups 8", ("--num-query-groups", "--group-query-attention")),
        ("--bf16", ("--fp16 and --bf16",)),
        ("--optimizer sgd", ("--optimizer sgd", "adam")),
        ("--optimizer=muon", ("--optimizer muon",)),
        ("--dataloader-type cyclic", ("--dataloader-type cyclic",)),
        ("--save a", ("--save-interval",)),
        ("--save a --save-interval 5 --load b", ("--load b", "--save a")),
        ("--train-samples 5", ("one of --train-iters and --train-samples",)),
        ("--lr-warmup-samples 5", ("--lr-warmup-samples", "--train-iters")),
        ("--lr-warmup-iters 300000", ("warm-up", "shorter")),
        ("--seq-length 5000", ("--seq-length 5000", "--max-position-embeddings 4096")),
        ("--recompute-granularity full --recompute-method block --recompute-num-layers 2", ("block",)),
        ("--data-path 0.3 /a /b /c", ("--data-path", "weight")),
        ("--tokenizer-type GPT2BPETokenizer", ("GPT2BPETokenizer", "HuggingFaceTokenizer")),
    ],
)
def test_what_has_no_counterpart_stops_with_its_name(extra, words):
    with pytest.raises(ConfigError) as problem:
        config_of(f"{TUTORIAL} {DATA} {extra}")
    for word in words:
        assert word in str(problem.value)


def test_an_option_is_known_by_all_its_spellings():
    assert parse(["--num-layers=3"]).given == {"num_layers": 3}
    assert parse(["--persistent-save-interval", "3"])["save_interval"] == 3
    assert parse(["--no-rl-partial-rollouts"])["rl_partial_rollouts"] is False


def test_every_option_has_one_meaning():
    names = set(options())
    for table in (BECOMES, ALWAYS, REFUSED):
        assert set(table) <= names
    assert not (BECOMES.keys() & ALWAYS.keys() or BECOMES.keys() & REFUSED.keys() or ALWAYS.keys() & REFUSED.keys())
    assert {option.group for option in options().values()} == GROUPS.keys()
    assert len(names) > 550


def value_of(option):
    """One that is not Megatron-LM's default."""
    if option.choices:
        return next(choice for choice in option.choices if choice != option.default)
    return {"int": "3", "float": "0.5", "str": "x", "bool": "1"}.get(option.kind, "")


def test_every_refused_option_stops_the_start():
    refused = [option for option in options().values() if meaning(option).kind == "refused"]
    assert len(refused) > 300
    for option in refused:
        with pytest.raises(ConfigError) as problem:
            refuse(parse(f"{option.name} {77 if option.default == '3' else value_of(option)}".split()))
        assert f"{option.name}: {meaning(option).text}" in str(problem.value)


NEEDS = {
    "--num-query-groups": f"{LLAMA} --group-query-attention",
    "--rope-scaling-factor": f"{LLAMA} --use-rope-scaling",
    "--rotary-base": LLAMA,
    "--rotary-seq-len-interpolation-factor": LLAMA,
    "--use-rope-scaling": LLAMA,
    "--kv-channels": LLAMA,
    "--lr-warmup-init": "--lr-warmup-iters 2",
    "--num-layers-per-virtual-pipeline-stage": "--pipeline-model-parallel-size 2",
    "--lr-wsd-decay-style": "--lr-decay-style WSD --lr-wsd-decay-iters 4",
    "--lr-wsd-decay-iters": "--lr-decay-style WSD --lr-wsd-decay-iters 4",
    "--initial-loss-scale": "--fp16",
    "--min-loss-scale": "--fp16",
    "--loss-scale-window": "--fp16",
    "--hysteresis": "--fp16",
    "--save-retain-interval": "--save x --save-interval 5",
    "--async-save": "--save x --save-interval 5",
    "--save-interval": "--save x --save-interval 5",
}
VALUES = {"--rope-scaling-factor": "4", "--lr-warmup-init": "1e-4", "--num-layers": "8", "--num-attention-heads": "8"}
VALUES |= {"--num-layers-per-virtual-pipeline-stage": "1", "--kv-channels": "32", "--hidden-size": "128"}
VALUES |= {"--train-iters": "20", "--min-lr": "1e-4", "--seq-length": "16", "--max-position-embeddings": "128"}
VALUES |= {"--initial-loss-scale": "8", "--num-query-groups": "2"}


@pytest.mark.parametrize("name", [name for name in BECOMES if name not in DEPENDS])
def test_every_option_that_becomes_something_changes_the_recipe(name):
    world = 2 if "pipeline" in NEEDS.get(name, "") else 1
    line = f"{SMALL} {NEEDS.get(name, '')}"
    before = translate(line.split(), world)
    after = translate(f"{line} {name} {VALUES.get(name, value_of(options()[name]))}".split(), world)
    assert after.tree != before.tree or after.resumes != before.resumes


def test_blends(tmp_path):
    assert config_of(f"{SMALL} --data-path /a/x /b/x", 1).data.mixture == {}
    data = config_of(f"{SMALL} --data-path 0.3 /a/x 0.7 /b/x", 1).data
    assert {name: source.tokens for name, source in data.sources.items()} == {"x": "/a/x", "x-2": "/b/x"}
    assert data.mixture == {"x": 0.3, "x-2": 0.7}
    listed = tmp_path / "data.txt"
    listed.write_text("0.3 /a/x\n0.7 /b/x\n")
    line = SMALL.replace("--data-path /d/web_text_document", f"--data-args-path {listed}")
    assert config_of(line, 1).data == data
    parts = tmp_path / "parts.json"
    parts.write_text(json.dumps({"train": ["1", "/a/x"], "valid": ["/v/y"], "test": None}))
    line = SMALL.replace("--data-path /d/web_text_document", f"--per-split-data-args-path {parts}")
    data = config_of(line, 1).data
    assert (data.sources["y"].validation_tokens, data.sources["y"].tokens, data.split) == ("/v/y", None, "100, 0, 0")
    assert config_of(f"{SMALL} --reset-position-ids --reset-attention-mask", 1).data.attention_within_documents
    with pytest.raises(ConfigError, match="--test-data-path"):
        config_of(SMALL.replace("--data-path /d/web_text_document", "--train-data-path /a --test-data-path /b"), 1)


def test_vocabulary_is_padded_to_128_times_tensor():
    model = config_of(f"{SMALL} --vocab-size 1000 --tensor-model-parallel-size 2", 2).model
    assert (model.vocab_size, model.vocab_padding) == (1024, 1024 - 1001)


def test_settings_of_firstlight_win():
    config = config_of(f"{SMALL} --firstlight training.compile=false stability.guard=true", 1)
    assert (config.training.compile, config.stability.guard) == (False, True)


MEGATRON_FORMS = [
    f"{TUTORIAL} {DATA}",
    f"{TUTORIAL} {DATA} {LLAMA} --save runs/a --save-interval 500 --load runs/a --async-save",
    f"{TUTORIAL} {DATA} {LLAMA} --num-virtual-stages-per-pipeline-rank 2 --recompute-activations --eval-iters 0",
    f"{TUTORIAL} {DATA} {LLAMA} --use-rope-scaling --rope-scaling-factor 32 --group-query-attention "
    "--num-query-groups 8 --save runs/a --save-interval 500 --save-retain-interval 5000",
    f"{SMALL} --data-path 0.3 a/x 0.7 b/y --split 90,5,5 --lr-decay-style WSD --lr-wsd-decay-iters 3 --bf16",
    f"{SMALL} --lr-decay-style inverse-square-root --lr-warmup-iters 2 --lr-warmup-init 1e-4 --clip-grad 0",
    f"{SMALL.replace('--train-iters 10', '--train-samples 301')} --lr-warmup-samples 33 --lr-decay-samples 201",
    SMALL.replace("--data-path /d/web_text_document", "--train-data-path 1 a/x 2 a/y --valid-data-path b/z"),
]


@pytest.mark.parametrize("line", MEGATRON_FORMS)
def test_flags_come_back_from_their_configuration(line):
    world = 128 if "--pipeline" in line else 1
    config = config_of(line, world)
    config = parse_config(
        {**config.model_dump(mode="json"), "launch": {"nodes": 1, "gpus_per_node": world}}, "the test"
    )
    exported = as_flags(config)
    back = translate(exported.words, world).config()
    assert {key for key, *_ in exported.differences} <= {"launch.nodes", "launch.gpus_per_node"}
    assert back == config.model_copy(update={"launch": back.launch})


@settings(max_examples=30, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "layers": st.sampled_from([4, 8]),
            "tensor": st.sampled_from([1, 2]),
            "pipeline": st.sampled_from([1, 2, 4]),
            "micro": st.integers(1, 4),
            "microbatches": st.integers(1, 6),
            "lr": st.floats(1e-6, 1.0),
            "style": st.sampled_from(["constant", "linear", "cosine"]),
            "warmup": st.integers(0, 9),
            "dropout": st.floats(0, 0.9),
            "beta": st.floats(0.5, 0.9999),
            "seed": st.integers(0, 2**31),
        }
    )
)
def test_any_configuration_from_flags_comes_back(draw):
    world = draw["tensor"] * draw["pipeline"]
    line = (
        f"--num-layers {draw['layers']} --hidden-size 64 --num-attention-heads 4 --seq-length 32 "
        f"--max-position-embeddings 64 --micro-batch-size {draw['micro']} --train-iters 10 --lr {draw['lr']!r} {DATA} "
        f"--global-batch-size {draw['micro'] * draw['microbatches']} --lr-decay-style {draw['style']} "
        f"--lr-warmup-iters {draw['warmup']} --hidden-dropout {draw['dropout']!r} --adam-beta2 {draw['beta']!r} "
        f"--tensor-model-parallel-size {draw['tensor']} --pipeline-model-parallel-size {draw['pipeline']} "
        f"--seed {draw['seed']}"
    )
    config = config_of(line, world)
    assert translate(as_flags(config).words, world).config() == config


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_differ_only_where_the_export_says_so(name):
    recipe = load_config(name)
    if recipe.model.architecture in ("bert", "modernbert"):
        with pytest.raises(ConfigError, match=r"model\.architecture"):
            as_flags(recipe)
        return
    exported = as_flags(recipe)
    back = translate(exported.words, recipe.declared_world_size, here=False).config()
    differing = {key for key, *_ in exported.differences}
    for section in ("model", "optimizer", "training", "parallel"):
        before, after = getattr(recipe, section).model_dump(), getattr(back, section).model_dump()
        for key, value in after.items():
            if value is not None and before[key] not in (None, value):
                assert any(f"{section}.{key}" in one for one in differing), f"{section}.{key}"
    assert back.model.hidden_size == recipe.model.hidden_size


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ({"training": {"precision": "fp8", "total_steps": 5}}, "training.precision"),
        ({"model": {"rope_theta": 10000.5}}, "model.rope_theta"),
        ({"model": {"architecture": "olmo2"}}, "model.architecture"),
        ({"model": {"rope_scaling": {"type": "llama3", "low_freq_factor": 2.0}}}, "rope_scaling.low_freq_factor"),
        ({"data": {"mixture_stages": [{"start_tokens": 5, "mixture": {"web": 1}}]}}, "data.mixture_stages"),
    ],
)
def test_export_refuses_what_megatron_cannot_express(override, field):
    tree = {
        "name": "a",
        "data": {"sources": {"web": {}}},
        "model": {},
        "training": {"total_steps": 5},
        "checkpoint": {"interval_steps": 5},
    }
    for section, values in override.items():
        tree[section] = {**tree[section], **values}
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        as_flags(parse_config(tree, "the test"))


def test_the_written_command_is_what_megatrons_parser_takes(tmp_path):
    """A parser made of the table alone, with names, types, choices and numbers of values, and a shell that runs it."""
    exported = as_flags(load_config("llama-7b"))
    write_export(exported, tmp_path / "out", "llama-7b")
    lines = (tmp_path / "out" / ARGUMENTS).read_text().splitlines()
    words = [word for line in lines for word in shlex.split(line)]
    parsed = build_parser().parse_args(words)
    assert isinstance(parsed, argparse.Namespace)
    assert (parsed.num_layers, parsed.lr_warmup_iters, parsed.data_path[:2]) == (
        32,
        2000,
        ["0.6", "tokens/web_text_document"],
    )
    stand_in = tmp_path / "torchrun"
    stand_in.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    stand_in.chmod(0o755)
    said = subprocess.run(
        [tmp_path / "out" / SCRIPT],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "MEGATRON": "/megatron"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    place = said.index("/megatron/pretrain_gpt.py")
    assert said[place + 1 :] == words
    assert said[said.index("--nproc-per-node") + 1] == "8"


def test_the_page_has_the_tables_of_the_data():
    script = Path(__file__).parents[2] / "scripts" / "megatron_table.py"
    module = runpy.run_path(str(script))
    text = module["PAGE"].read_text(encoding="utf-8")
    assert text == module["page_with_tables"](text), "run scripts/megatron_table.py"
    assert text.count("| `--") > 150
