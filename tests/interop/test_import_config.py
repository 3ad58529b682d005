"""Other projects' configurations as recipes: what is carried is right, what is not is listed, a field each."""

import json

import pytest
import yaml

from firstlight.interop.import_config import import_config
from firstlight.recipe import load_config, parse_config
from firstlight.support.errors import ConfigError

NANOTRON = """
checkpoints: {checkpoint_interval: 10, checkpoints_path: /somewhere, resume_checkpoint_path: null}
data_stages:
- data:
    dataset: {hf_dataset_or_datasets: stas/openwebtext-10k, text_column_name: text}
    seed: 42
  name: Stable Training Stage
  start_training_step: 1
general: {project: debug, run: tiny_llama_%date_%jobid, seed: 42}
logging: {iteration_step_info_interval: 2, log_level: info}
model:
  dtype: bfloat16
  init_method: {std: 0.025}
  make_vocab_size_divisible_by: 1
  model_config:
    hidden_act: silu
    hidden_size: 16
    intermediate_size: 64
    is_llama_config: true
    max_position_embeddings: 256
    num_attention_heads: 4
    num_hidden_layers: 2
    num_key_value_heads: 2
    rms_norm_eps: 1.0e-05
    tie_word_embeddings: true
    vocab_size: 256
optimizer:
  clip_grad: 1.0
  learning_rate_scheduler: {learning_rate: 0.0003, lr_decay_steps: 13, lr_decay_style: cosine, lr_warmup_steps: 2,
    lr_warmup_style: linear, min_decay_lr: 1.0e-05}
  optimizer_factory: {adam_beta1: 0.9, adam_beta2: 0.95, adam_eps: 1.0e-08, name: adamW, torch_adam_is_fused: true}
  weight_decay: 0.01
  zero_stage: 0
parallelism: {dp: 2, expert_parallel_size: 1, pp: 2, pp_engine: 1f1b, tp: 2, tp_mode: REDUCE_SCATTER}
tokenizer: {tokenizer_name_or_path: gpt2}
tokens: {batch_accumulation_per_replica: 4, micro_batch_size: 2, sequence_length: 256, train_steps: 15,
  val_check_interval: -1}
"""

TORCHTITAN = """
[job]
dump_folder = "./outputs"
description = "Llama 3 8B training"
[model]
name = "llama3"
flavor = "8B"
hf_assets_path = "./assets/hf/Llama-3.1-8B"
[training]
local_batch_size = 3
seq_len = 8192
steps = 1000
dataset = "c4"
[parallelism]
data_parallel_shard_degree = 8
tensor_parallel_degree = 2
[activation_checkpoint]
mode = "full"
[optimizer]
name = "AdamW"
lr = 3e-4
[lr_scheduler]
warmup_steps = 200
decay_ratio = 0.1
decay_type = "sqrt"
min_lr_factor = 0.1
[comm]
trace_buf_size = 5
"""

SCRIPT = """#!/bin/bash
# --num-layers 99 in a comment
GPUS_PER_NODE=8
NUM_NODES=16
DISTRIBUTED_ARGS=(
    --nproc_per_node $GPUS_PER_NODE   # of each machine
    --nnodes ${NUM_NODES}
)
MODEL_ARGS=(
    --num-layers 32
    --hidden-size 4096
    --num-attention-heads 32 --seq-length 2048 --max-position-embeddings 4096
)
TRAINING_ARGS="--micro-batch-size 4 --global-batch-size 1024 --train-iters 1000 --lr ${LR:-3e-4} --bf16 \\
  --rampup-batch-size 16 16 5859375 --use-flash-attn --made-up 5"
torchrun ${DISTRIBUTED_ARGS[@]} pretrain_gpt.py \\
    ${MODEL_ARGS[@]} $TRAINING_ARGS --tensor-model-parallel-size 2 --pipeline-model-parallel-size 4
"""

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "use_cache": True,
}


@pytest.fixture
def read(tmp_path):
    """The imported configuration of a text, and the recipe that its YAML reads back to."""

    def imported(text):
        file = tmp_path / "foreign"
        file.write_text(text)
        found = import_config(file)
        written = tmp_path / "recipe.yaml"
        written.write_text(found.recipe())
        config = load_config(written)
        assert config == parse_config(found.tree, "the test")
        return found, config

    return imported


def left(found):
    return {item.field: item for item in found.left}


def test_nanotron(read):
    found, config = read(NANOTRON)
    assert found.kind == "Nanotron"
    assert (config.model.hidden_size, config.model.num_key_value_heads, config.model.initializer_range) == (
        16,
        2,
        0.025,
    )
    assert (config.training.total_steps, config.training.global_batch_size) == (15, 2 * 4 * 2)
    assert (config.parallel.tensor, config.parallel.pipeline) == (2, 2)
    # 2 steps of warm-up, 13 of decay from there
    assert (config.schedule.warmup_steps, config.schedule.decay_steps) == (2, 15)
    assert config.schedule.position == "before_step"
    assert config.name == "tiny_llama_-date_-jobid"
    assert {"data_stages", "checkpoints.checkpoints_path", "general.project"} <= left(found).keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("hidden_act: silu", "hidden_act: gelu"), "hidden_act gelu"),
        (("expert_parallel_size: 1", "expert_parallel_size: 4"), "expert_parallel_size"),
        (("is_llama_config: true", "is_starcoder_config: true"), "is_llama_config"),
        (("hidden_size: 16", "hidden_size: 17"), "hidden_size 17"),
    ],
)
def test_nanotrons_models_that_are_not_here_are_refused(read, change, words):
    with pytest.raises(ConfigError, match=words):
        read(NANOTRON.replace(*change))


def test_a_field_that_nobody_knows_is_listed(read):
    found, _ = read(NANOTRON.replace("zero_stage: 0", "zero_stage: 0\n  brand_new: 7"))
    assert left(found)["optimizer.brand_new"].value == 7


def test_torchtitan(read):
    found, config = read(TORCHTITAN)
    assert found.kind == "torchtitan"
    assert (config.model.num_hidden_layers, config.model.intermediate_size, config.model.rope_theta) == (32, 14336, 5e5)
    assert (config.optimizer.min_lr, config.optimizer.betas) == (pytest.approx(3e-5), (0.9, 0.95))
    schedule = config.schedule
    assert (schedule.name, schedule.wsd_decay, schedule.decay_steps) == ("wsd", "minus_sqrt", 100)
    assert (config.training.recompute, config.training.compile) == ("full", False)
    assert (config.parallel.shard, config.parallel.tensor) == (8, 2)
    assert {"training.dataset", "comm.trace_buf_size", "model.flavor"} <= left(found).keys()


def test_a_flavor_that_is_not_known_is_listed(read):
    found, _ = read(TORCHTITAN.replace('flavor = "8B"', 'flavor = "9B"'))
    assert "not known" in left(found)["model.flavor"].why


def test_hugging_face(read):
    found, config = read(json.dumps(LLAMA))
    assert (config.model.architecture, config.model.num_key_value_heads) == ("llama", 2)
    assert config.data.sequence_length == 512
    assert "use_cache" in left(found)
    with pytest.raises(ConfigError, match="hidden_act"):
        read(json.dumps({**LLAMA, "hidden_act": "relu"}))


def test_a_script_for_megatron(read):
    found, config = read(SCRIPT)
    assert found.kind == "Megatron-LM"
    assert (config.model.architecture, config.model.num_hidden_layers) == ("gpt2", 32)
    assert config.optimizer.lr == 3e-4
    assert config.batch(128).gradient_accumulation_steps == 16
    assert left(found)["--rampup-batch-size"].value == "16 16 5859375"
    assert {"--made-up", "--data-path", "--use-flash-attn"} <= left(found).keys()
    with pytest.raises(ConfigError, match="MODEL_ARGS"):
        read(SCRIPT.replace("MODEL_ARGS=(", "OTHER=(").replace("$TRAINING_ARGS", "$TRAINING_ARGS --num-layers 3"))


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", "a: 1", "[section]\nx = 1", "\x00\x01", "{" * 5000])
def test_anything_else_is_refused_in_one_sentence(read, text):
    with pytest.raises(ConfigError, match="no configuration that is known"):
        read(text)


def test_the_verb_writes_the_recipe_or_prints_it(tmp_path, firstlight):
    file = tmp_path / "nano.yaml"
    file.write_text(NANOTRON)
    printed = firstlight("import-config", file)
    assert yaml.safe_load(printed.stdout)["model"]["hidden_size"] == 16
    assert "# Not carried:" in printed.stdout
    written = firstlight("import-config", file, "--output", tmp_path / "recipe.yaml")
    assert "data_stages" in written.stderr
    assert (tmp_path / "recipe.yaml").read_text() == printed.stdout
    again = firstlight("import-config", file, "--output", tmp_path / "recipe.yaml")
    assert again.code == 1
    assert "exists already" in again.stderr
