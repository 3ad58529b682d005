"""Megatron checkpoints without Megatron: there and back to the last bit, what is refused, what damage says."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from firstlight import pipeline
from firstlight.config import CheckpointConfig, ModelConfig
from firstlight.interop.megatron_checkpoint import export_megatron, is_megatron_checkpoint, read_megatron
from firstlight.interop.megatron_checkpoint.arguments import flags, read_arguments, write_arguments
from firstlight.interop.megatron_checkpoint.names import places
from firstlight.interop.megatron_checkpoint.torch_dist_file import TorchDistFile
from firstlight.interop.weights import parameter_shapes
from firstlight.model import LanguageModel, build_model
from firstlight.recipe import load_config, parse_config
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import CheckpointTensors, CheckpointWriter

GROUPED = {"num_key_value_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"architecture": "gpt2"},
    "gpt2-untied": {"architecture": "gpt2", "tie_word_embeddings": False, "hidden_dropout": 0.1},
    "llama": {"architecture": "llama", **GROUPED},
    "llama-tied": {"architecture": "llama", "tie_word_embeddings": True, "head_dim": 12, "rope_theta": 5e5},
    "llama-3": {"architecture": "llama", **GROUPED, "rope_scaling": {"type": "llama3", "factor": 32.0}},
    "llama-linear": {"architecture": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "mistral": {"architecture": "mistral", **GROUPED, "sliding_window": 16},
    "qwen2": {"architecture": "qwen2", **GROUPED},
    "qwen3": {"architecture": "qwen3", **GROUPED, "head_dim": 16, "tie_word_embeddings": True},
}
ITERATION = "iter_0000007"
ARGUMENTS = {
    "num_layers": 3,
    "hidden_size": 32,
    "ffn_hidden_size": 72,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "position_embedding_type": "rope",
    "normalization": "RMSNorm",
    "swiglu": True,
    "add_bias_linear": False,
}


def config(**fields: Any) -> ModelConfig:
    shape = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3}
    tree = {**shape, "num_attention_heads": 4, "max_position_embeddings": 64, **fields}
    return parse_config({"name": "x", "data": {"sequence_length": 8}, "model": tree}, "test").model.resolved()


def drawn(name: str) -> LanguageModel:
    """A model of which every parameter is drawn, so that none can be mixed up."""
    model = build_model(config(**MODELS[name]))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def equal(model: LanguageModel, tensors: dict[str, Tensor]) -> bool:
    ours = dict(model.named_parameters())
    return ours.keys() == tensors.keys() and all(torch.equal(value, tensors[name]) for name, value in ours.items())


@pytest.fixture
def saved(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """`saved(name, dtype=…)`: the folder that a model is exported to."""

    def make(name: str, **options: Any) -> Path:
        export_megatron(drawn(name), tokenizer, tmp_path / "saved", **options)
        return tmp_path / "saved"

    return make


def set_arguments(folder: Path, **changed: Any) -> None:
    """Change arguments in the common.pt of an export."""
    file = folder / "release" / "common.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(file)
    vars(content["args"]).update(changed)
    torch.save(content, file)


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_configuration_there_and_back(name: str, saved: Callable[..., Path], tokenizer: Tokenizer) -> None:
    model = drawn(name)
    read = read_megatron(saved(name, step=4), tokenizer.vocab_size)
    assert equal(model, read.tensors)
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in read.tensors.values())
    assert read.config == model.config.model_copy(update={"vocab_padding": 320 - tokenizer.vocab_size})
    assert (read.iteration, read.dtype) == (4, "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_there_and_back(dtype: str, saved: Callable[..., Path]) -> None:
    read = read_megatron(saved("llama", dtype=dtype), 280)
    assert read.dtype == dtype
    for name, parameter in drawn("llama").named_parameters():
        assert torch.equal(read.tensors[name], parameter.to(getattr(torch, dtype)).float())


def test_the_order_of_heads_and_gates_is_megatrons(saved: Callable[..., Path]) -> None:
    """Written out by hand: of each group its queries, its key, its value; the gate above what it multiplies."""
    model = dict(drawn("llama").named_parameters())
    release = saved("llama") / "release"
    stored = CheckpointTensors(release)
    qkv = stored.read("decoder.layers.self_attention.linear_qkv.weight")
    query, key, value = (model[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv")
    due = [query[:16], key[:8], value[:8], query[16:], key[8:], value[8:]]
    assert torch.equal(qkv[1], torch.cat(due))
    gates = stored.read("decoder.layers.mlp.linear_fc1.weight")
    assert torch.equal(gates[2, :72], model["model.layers.2.mlp.gate_proj.weight"])
    assert torch.equal(gates[2, 72:], model["model.layers.2.mlp.up_proj.weight"])
    assert stored.shapes["decoder.layers.self_attention.linear_qkv.layer_norm_weight"] == (3, 32)
    assert json.loads((release / "metadata.json").read_text())["sharded_backend"] == "torch_dist"


def write_as_megatron(folder: Path, model: LanguageModel, *, stacked: bool, old: bool, cuts: int) -> None:
    """A checkpoint of ranks that saved pieces, moments too; blocks stacked or apart, norms under their old names."""
    shapes = parameter_shapes(model.config)
    tensors = dict(model.named_parameters())
    (folder / ITERATION).mkdir(parents=True)
    layers = model.config.num_hidden_layers
    with TorchDistFile(folder / ITERATION, torch.float32) as file:
        for place in places(model.config, shapes):
            keys = list(place.spellings())
            key, whole = next(
                (key, whole)
                for key, whole in (reversed(keys) if old else keys)
                if whole is (stacked and place.layer is not None)
            )
            tensor = place.join(lambda name: tensors[name].detach())
            begin = 0
            for piece in tensor.tensor_split(cuts):
                offsets = (begin, *(0,) * (tensor.ndim - 1))
                if whole:
                    file.write(key, piece[None], (place.layer, *offsets), (layers, *tensor.shape))
                else:
                    file.write(key, piece, offsets, tensor.shape)
                begin += len(piece)
        file.write("optimizer.state.exp_avg.decoder.final_layernorm.weight", torch.ones(32), (0,), (32,))
    (folder / "latest_checkpointed_iteration.txt").write_text("7\n")
    (folder / ITERATION / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    content = {"args": argparse.Namespace(**write_arguments(model.config)), "iteration": 7}
    torch.save(content, folder / ITERATION / "common.pt")


@pytest.mark.parametrize(
    ("name", "stacked", "old", "cuts"),
    [("llama", False, False, 2), ("gpt2", True, True, 3), ("qwen3", False, True, 1), ("qwen2", True, False, 4)],
)
def test_pieces_of_several_ranks_and_both_ways_of_naming_blocks(
    name: str, stacked: bool, old: bool, cuts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = drawn(name)
    write_as_megatron(tmp_path / "saved", model, stacked=stacked, old=old, cuts=cuts)
    read = read_megatron(tmp_path / "saved", 300)
    assert equal(model, read.tensors) and read.iteration == 7
    assert "the optimizer's states are left out" in capsys.readouterr().err
    again = read_megatron(tmp_path / "saved" / ITERATION, 300)
    assert again.config == read.config


@settings(max_examples=25)
@given(
    heads=st.sampled_from([1, 2, 4]),
    groups=st.sampled_from([1, 2, 4]),
    name=st.sampled_from([name for name in MODELS if not name.startswith("gpt2")]),
)
def test_every_tensor_has_one_place(heads: int, groups: int, name: str) -> None:
    fields = {**MODELS[name], "num_attention_heads": heads * groups, "num_key_value_heads": groups, "hidden_size": 64}
    shaped = config(**fields)
    shapes = parameter_shapes(shaped)
    found = places(shaped, shapes)
    tensors = {source: torch.randn(shape) for source, shape in shapes.items()}
    parts = [place.split(place.join(tensors.__getitem__)) for place in found]
    assert sum(map(len, parts)) == len(shapes)
    for part in parts:
        assert all(torch.equal(value, tensors[source]) for source, value in part.items())
    assert sum(math.prod(place.shape) for place in found) == sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("name", MODELS)
def test_arguments_there_and_back(name: str) -> None:
    shaped = config(**MODELS[name])
    settings = {**read_arguments(write_arguments(shaped), "common.pt"), "vocab_size": 320}
    assert parse_config({"name": "x", "data": {"sequence_length": 8}, "model": settings}, "").model.resolved() == shaped


def test_flags_that_a_command_needs_beside_the_checkpoints_arguments() -> None:
    assert flags(write_arguments(config(architecture="gpt2", norm_eps=1e-5))) == []
    said = flags(write_arguments(config(**MODELS["qwen3"], sliding_window=9, initializer_range=0.01)))
    assert said == ["--qk-layernorm", "--norm-epsilon 1e-06", "--init-method-std 0.01", "--window-size 8,0"]
    said = flags(write_arguments(config(**MODELS["llama-3"])))
    assert said == ["--norm-epsilon 1e-06", "--use-rope-scaling", "--rope-scaling-factor 32.0"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"num_experts": 8}, "args.num_experts is 8; Firstlight computes with None"),
        ({"multi_latent_attention": True}, "args.multi_latent_attention is True"),
        ({"rotary_percent": 0.5}, "args.rotary_percent is 0.5; Firstlight computes with 1"),
        ({"rotary_interleaved": True}, "args.rotary_interleaved is True"),
        ({"apply_layernorm_1p": True}, "args.apply_layernorm_1p is True"),
        ({"squared_relu": True}, "args.squared_relu is True"),
        ({"softmax_type": "learnable"}, "args.softmax_type is 'learnable'; Firstlight computes with 'vanilla'"),
        ({"num_layers": None}, "args.num_layers is missing; give the shape with --recipe"),
        ({"hidden_size": "many"}, "model.hidden_size"),
        ({"window_size": (4, 4)}, "args.window_size is (4, 4); a window of (positions before, 0) is due"),
        ({"add_qkv_bias": True, "qk_layernorm": True}, "add_qkv_bias True, qk_layernorm True make a model that"),
        ({"normalization": "LayerNorm"}, "normalization 'LayerNorm', swiglu True"),
        ({"rotary_seq_len_interpolation_factor": 2, "use_rope_scaling": True}, "only without use_rope_scaling"),
    ],
)
def test_arguments_that_mean_another_model(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as problem:
        settings = read_arguments({**ARGUMENTS, **changed}, "common.pt")
        parse_config({"name": "x", "data": {"sequence_length": 8}, "model": settings}, "common.pt")
    assert sentence in str(problem.value) and str(problem.value).startswith("common.pt: ")


def test_the_exact_gelu_is_another_model() -> None:
    arguments = {**write_arguments(config(architecture="gpt2")), "bias_gelu_fusion": False}
    with pytest.raises(ConfigError, match=r"args.bias_gelu_fusion is False; without it Megatron computes gelu exactly"):
        read_arguments(arguments, "common.pt")
    assert read_arguments({**arguments, "openai_gelu": True}, "common.pt")["architecture"] == "gpt2"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"architecture": "olmo2"}, "model.architecture olmo2 with objective causal: Megatron's GPT model has nothing"),
        ({"architecture": "bert"}, "model.architecture bert with objective masked"),
        ({"architecture": "llama", "objective": "masked"}, "model.architecture llama with objective masked"),
        ({"architecture": "llama", "rope_theta": 10000.5}, "model.rope_theta is 10000.5"),
        ({"rope_scaling": {"type": "linear", "factor": 1.5}}, "model.rope_scaling.factor is 1.5"),
        ({"rope_scaling": {"type": "llama3", "low_freq_factor": 2.0}}, "low_freq_factor is 2; Megatron's"),
    ],
)
def test_models_that_megatron_has_not(
    fields: dict[str, Any], sentence: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^model\.") as problem:
        export_megatron(build_model(config(**fields)), tokenizer, tmp_path / "saved")
    assert sentence in str(problem.value)
    assert not list(tmp_path.iterdir())


def test_a_weight_beyond_float16_leaves_nothing_behind(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = drawn("llama")
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 4] = 1e6
    with pytest.raises(ConfigError, match=r"'decoder.layers.mlp.linear_fc1.weight' holds 1e"):
        export_megatron(model, tokenizer, tmp_path / "saved", dtype="float16")
    assert not list(tmp_path.iterdir())


MEMORY = """
import resource, sys
from pathlib import Path
from firstlight.config import ModelConfig
from firstlight.interop.megatron_checkpoint import export_megatron
from firstlight.interop.weights import weights_of_checkpoint
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import CheckpointTensors

folder = Path(sys.argv[1])
for name in ("small", "large"):
    config = ModelConfig.model_validate_json((folder / f"{name}.json").read_text())
    weights = weights_of_checkpoint(CheckpointTensors(folder / name / "step_000001"), config)
    export_megatron(weights, Tokenizer.load(folder / "tokenizer"), folder / f"{name}-export")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_export_takes_the_memory_of_the_largest_tensor(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6}
    for name, fields in (("small", {}), ("large", large)):
        model = build_model(config(**fields))
        (tmp_path / f"{name}.json").write_text(model.config.model_dump_json())
        tensors = {f"model.{key}": value for key, value in model.named_parameters()}
        with CheckpointWriter(tmp_path / name, CheckpointConfig(asynchronous=False)) as writer:
            writer.save(1, tensors, {})
    ended = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    before, after = map(int, ended.stdout.split())
    whole, largest = 4 * sum(value.numel() for value in model.parameters()), 4 * 2 * 4096 * 1024
    assert whole > 350_000_000
    assert after - before < 4 * largest < whole / 2


def test_an_export_is_only_put_in_place_of_another(saved: Callable[..., Path], tokenizer: Tokenizer) -> None:
    folder = saved("llama")
    export_megatron(drawn("gpt2"), tokenizer, folder)
    assert read_megatron(folder, 280).config.architecture == "gpt2"
    (folder / "firstlight.json").unlink()
    with pytest.raises(DataError, match="not empty, and not an earlier export"):
        export_megatron(drawn("gpt2"), tokenizer, folder)


RECIPE = """
name: shape
data: {sequence_length: 64}
model: {hidden_size: 32, intermediate_size: 72, num_hidden_layers: LAYERS, num_attention_heads: 4,
        num_key_value_heads: 2, vocab_size: 999}
"""


def test_a_recipe_says_the_shape_where_the_checkpoint_does_not(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("llama")
    torch.save({"iteration": 1}, folder / "release" / "common.pt")
    with pytest.raises(ConfigError, match=r"holds no arguments of a training command.*--recipe FILE"):
        read_megatron(folder, 280)
    for layers in (3, 2):
        (tmp_path / f"{layers}.yaml").write_text(RECIPE.replace("LAYERS", str(layers)))
    read = read_megatron(folder, 280, load_config(tmp_path / "3.yaml"))
    assert equal(drawn("llama"), read.tensors)
    assert (read.config.vocab_size, read.config.vocab_padding, read.config.max_position_embeddings) == (320, 40, 64)
    with pytest.raises(DataError, match="holds 3 blocks, and the model of the recipe has 2"):
        read_megatron(folder, 280, load_config(tmp_path / "2.yaml"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"num_layers": 9}, "holds 3 blocks, and the model of its arguments has 9"),
        (
            {"ffn_hidden_size": 80},
            r"'decoder.layers.mlp.linear_fc1.weight' has shape \[3, 144, 32\].* is \[3, 160, 32\]",
        ),
        ({"num_query_groups": 4}, r"linear_qkv.weight' has shape \[3, 64, 32\]"),
        ({"add_qkv_bias": True}, "holds no 'decoder.layers.self_attention.linear_qkv.bias', which the model of its"),
        ({"untie_embeddings_and_output_weights": False}, "holds 'output_layer.weight', for which the model of its"),
        ({"position_embedding_type": "learned_absolute"}, "make a model that Firstlight has not"),
    ],
)
def test_arguments_and_tensors_that_differ(changed: dict[str, Any], sentence: str, saved: Callable[..., Path]) -> None:
    folder = saved("llama")
    set_arguments(folder, **changed)
    with pytest.raises((DataError, ConfigError), match=sentence):
        read_megatron(folder, 280)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("decoder.layers.mlp.experts.linear_fc1.weight", "a mixture of experts"),
        ("decoder.layers.self_attention.linear_kv_down_proj.weight", "multi-latent attention"),
        ("mtp.layers.0.eh_proj.weight", "multi-token prediction"),
        ("decoder.layers.0.mixer.in_proj.weight", "Mamba layers"),
        ("module.decoder.final_layernorm.weight", "names of NeMo's"),
        ("vision_model.conv1.weight", "has no place"),
    ],
)
def test_tensors_of_other_models(name: str, sentence: str, tmp_path: Path) -> None:
    write_as_megatron(tmp_path, drawn("llama"), stacked=True, old=False, cuts=1)
    folder = tmp_path / ITERATION
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.state_dict_metadata[name] = metadata.state_dict_metadata["decoder.final_layernorm.weight"]
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError, match=f"holds '{name}'.*{sentence}"):
        read_megatron(tmp_path, 280)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "tracker": (lambda at: (at / "latest_checkpointed_iteration.txt").write_text("../../x"), "says '../../x', where"),
    "iteration": (
        lambda at: (at / "latest_checkpointed_iteration.txt").write_text("12"),
        "names 12, and .*iter_0000012",
    ),
    "description": (lambda at: (at / "release" / "metadata.json").unlink(), "holds no metadata.json .only .metadata."),
    "description text": (lambda at: (at / "release" / "metadata.json").write_text("{"), "not a readable description"),
    "zarr": (
        lambda at: (at / "release" / "metadata.json").write_text('{"sharded_backend": "zarr"}'),
        "sharded_backend is 'zarr'; torch_dist can be read",
    ),
    "metadata": (lambda at: (at / "release" / ".metadata").unlink(), ".metadata: missing; copy the checkpoint again"),
    "metadata cut": (lambda at: cut(at / "release" / ".metadata"), ".metadata: not readable"),
    "tensors": (lambda at: (at / "release" / "__0_0.distcp").unlink(), "__0_0.distcp: missing, and .metadata names"),
    "tensors cut": (
        lambda at: cut(at / "release" / "__0_0.distcp"),
        "__0_0.distcp: [0-9,]+ bytes, where .metadata has",
    ),
    "common": (lambda at: (at / "release" / "common.pt").unlink(), "common.pt: no such file, and a checkpoint has one"),
    "common cut": (lambda at: cut(at / "release" / "common.pt"), "common.pt: not readable"),
    "common empty": (lambda at: torch.save([], at / "release" / "common.pt"), "holds no table of settings"),
    "legacy": (
        lambda at: [shutil.rmtree(at / "release"), (at / "release" / "mp_rank_00").mkdir(parents=True)],
        "in Megatron's legacy format .mp_rank_….*--ckpt-convert-format torch_dist --ckpt-convert-save NEW",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_one_sentence(what: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("qwen2")
    damage, sentence = DAMAGE[what]
    damage(folder)
    with pytest.raises((DataError, CheckpointError), match=sentence) as problem:
        pipeline.import_model(folder, tmp_path / "run")
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "run").exists()


def test_elements_that_are_damaged(saved: Callable[..., Path]) -> None:
    folder = saved("qwen2")
    file = folder / "release" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    for begin in range(0, len(content) - 60, 500):
        content[begin : begin + 50] = bytes(50)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="the checkpoint could not be read"):
        read_megatron(folder, 280)


def test_what_looks_like_a_checkpoint_of_megatrons(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("gpt2")
    assert is_megatron_checkpoint(folder) and is_megatron_checkpoint(folder / "release")
    assert not is_megatron_checkpoint(tmp_path / "nothing") and not is_megatron_checkpoint(tmp_path)
    (folder / "latest_checkpointed_iteration.txt").unlink()
    (folder / "release").rename(folder / ITERATION)
    assert is_megatron_checkpoint(folder)
    with pytest.raises(DataError, match="give the folder of one iteration, as iter_0000100"):
        read_megatron(folder, 280)
    assert read_megatron(folder / ITERATION, 280).config.architecture == "gpt2"


def test_a_tokenizer_is_due_and_must_fit(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved("gpt2")
    with pytest.raises(ConfigError, match="the tokenizer has 400 tokens and the model's vocabulary 320"):
        read_megatron(folder, 400)
    (folder / "tokenizer").rename(tmp_path / "words")
    with pytest.raises(ConfigError, match=r"Megatron keeps no tokenizer in a checkpoint; give the one .* --tokenizer"):
        pipeline.import_model(folder, tmp_path / "run")
    assert pipeline.import_model(folder, tmp_path / "run", tokenizer=str(tmp_path / "words")).imported


def test_a_run_of_a_checkpoint_is_evaluated_and_exported(
    trained_folder: Path, firstlight: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_folder)
    said = firstlight("export", "runs/tiny", tmp_path / "out", "--format", "megatron-checkpoint")
    assert said.code == 0, said.stderr
    assert f"--load {tmp_path / 'out'} --finetune --ckpt-format torch_dist --use-checkpoint-args" in said.stderr
    said = firstlight("import", tmp_path / "out", tmp_path / "again")
    assert said.code == 0, said.stderr
    assert "Megatron-LM checkpoint of iteration 4" in said.stderr
    for run, folder in (("runs/tiny", "first"), (tmp_path / "again", "second")):
        pipeline.export(run, tmp_path / folder)
    one, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("first", "second"))
    assert one == other
    assert (
        firstlight("import", tmp_path / "first", tmp_path / "x", "--recipe", "recipe.yaml")
        .sentence()
        .endswith("has the shape in its config.json.")
    )
