"""One rank of a real Megatron: megatron-core's GPTModel on a CPU saves checkpoints, loads them and computes logits.

Run as `python megatron_rank.py RANK WORLD_SIZE STORE FOLDER JOB…`; a job is KIND:TENSOR,PIPELINE:TENSOR,PIPELINE:FORM.
At the first layout a model with drawn weights is saved as Megatron-LM does (iter_0000007, a tracker, arguments; FORM
says whether the blocks are `stacked` or each has its `own` tensors); Firstlight imports it, computes, and exports it;
at the second layout a new model is filled from that. Rank 0 prints a line of JSON for each job. Megatron asks for CUDA
in a few places where any device would do; these are pointed to the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from firstlight.interop.megatron_checkpoint import export_megatron, read_megatron
from firstlight.model import build_model
from firstlight.support.peers import leave_process
from firstlight.tokens.tokenizer_training import train_tokenizer

warnings.filterwarnings("ignore")
VOCABULARY, LENGTH = 300, 24
"""Tokens, positions that are compared."""
LLAMA = {"normalization": "RMSNorm", "gated_linear_unit": True, "add_bias_linear": False, "num_query_groups": 2}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {**LLAMA, "kv_channels": 12},
    "llama-tied": {**LLAMA, "num_query_groups": 4},
    "mistral": {**LLAMA, "window_size": (6, 0)},
    "qwen2": {**LLAMA, "add_qkv_bias": True},
    "qwen3": {**LLAMA, "qk_layernorm": True, "kv_channels": 16},
}
TIED = {"gpt2", "llama-tied"}
ROPE = {"rotary_base": 50_000}


def rows(tensor: int) -> int:
    """Of the vocabulary, which Megatron pads to a multiple of 128 x tensor."""
    return -(-VOCABULARY // (128 * tensor)) * 128 * tensor


def main(rank: int, world_size: int, store: str, folder: Path, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment, return-value]
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[assignment, method-assign]
    ones = torch.ones
    torch.ones = lambda *shape, device=None, **more: ones(*shape, **more)  # type: ignore[assignment]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    for number, job in enumerate(jobs):
        at = folder / str(number)
        result = there_and_back(at, *job.split(":"))
        if rank == 0:
            print(json.dumps({"job": job, **result}), flush=True)
    dist.barrier()


def there_and_back(at: Path, kind: str, first: str, second: str, form: str) -> dict[str, Any]:
    """What was read, and the largest difference of logits, here and there."""
    with layout(first):
        model = make_model(kind, first)
        draw(model)
        save(model, at / "saved", kind, first, form == "stacked")
        compute(model, at / "expected.pt")
    dist.barrier()
    result = through_firstlight(at) if dist.get_rank() == 0 else {}
    dist.barrier()
    with layout(second):
        model = make_model(kind, second)
        load(model, at / "exported")
        compute(model, at / "again.pt")
    dist.barrier()
    expected, again = torch.load(at / "expected.pt"), torch.load(at / "again.pt")
    return {**result, "there": float((expected - again).abs().max()), "size": float(expected.abs().max())}


def through_firstlight(at: Path) -> dict[str, Any]:
    read = read_megatron(at / "saved", VOCABULARY)
    model = build_model(read.config)
    model.load_state_dict(read.tensors)
    with torch.no_grad():
        logits = model.eval()(ids())["logits"]
    assert logits is not None
    export_megatron(model, train_tokenizer(["hello world"] * 3, 280), at / "exported")
    config = read.config
    return {
        "here": float((logits[..., :VOCABULARY] - torch.load(at / "expected.pt")).abs().max()),
        "architecture": config.architecture,
        "tied": config.tie_word_embeddings,
        "padding": config.vocab_padding,
        "iteration": read.iteration,
        "dtype": read.dtype,
    }


@contextlib.contextmanager
def layout(sizes: str) -> Iterator[None]:
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import random as tensor_random

    parallel_state.initialize_model_parallel(*map(int, sizes.split(",")))
    tensor_random.initialize_rng_tracker()
    tensor_random._CUDA_RNG_STATE_TRACKER.fork = lambda *_: contextlib.nullcontext()
    yield
    parallel_state.destroy_model_parallel()


def make_model(kind: str, sizes: str) -> Any:
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.utils import openai_gelu

    tensor, pipeline = map(int, sizes.split(","))
    fields = KINDS[kind]
    config = TransformerConfig(
        num_layers=4,
        hidden_size=32,
        ffn_hidden_size=72,
        num_attention_heads=4,
        activation_func=F.silu if kind != "gpt2" else openai_gelu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        layernorm_epsilon=1e-5,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        pipeline_dtype=torch.float32,
        use_cpu_initialization=True,
        params_dtype=torch.float32,
        persist_layer_norm=False,
        **fields,
    )
    spec = get_gpt_layer_local_spec(
        normalization=fields.get("normalization"), qk_layernorm=fields.get("qk_layernorm", False)
    )
    positions: dict[str, Any] = {"position_embedding_type": "learned_absolute"}
    if kind != "gpt2":
        positions = {"position_embedding_type": "rope", **ROPE}
    return GPTModel(
        config,
        spec,
        vocab_size=rows(tensor),
        max_sequence_length=64,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=kind in TIED,
        parallel_output=False,
        **positions,
    ).eval()


def draw(model: Any) -> None:
    """Draw every parameter, norms and biases too, so that none can be mixed up; alike on ranks that hold the same."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            split = getattr(parameter, "tensor_model_parallel", False)
            rank = dist.get_rank() if split else 0
            tied = "word_embeddings" in name or (
                name == "output_layer.weight" and model.share_embeddings_and_output_weights
            )
            seed = 7 if tied else sum(map(ord, name)) + 1000 * rank
            generator = torch.Generator().manual_seed(seed)
            center = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
            parameter.copy_(center + 0.1 * torch.randn(parameter.shape, generator=generator))


def ids() -> Tensor:
    return torch.randint(VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def compute(model: Any, output: Path) -> None:
    """Write logits [batch, sequence, tokens] on the last stage; hidden states pass from stage to stage by hand."""
    from megatron.core import parallel_state

    places = torch.arange(LENGTH).expand(2, LENGTH)
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)[None, None]
    hidden = torch.empty(LENGTH, 2, model.config.hidden_size)
    if not parallel_state.is_pipeline_first_stage():
        dist.recv(hidden, parallel_state.get_pipeline_model_parallel_prev_rank())
        model.set_input_tensor(hidden)
    out = model(ids(), places, mask)
    if not parallel_state.is_pipeline_last_stage():
        dist.send(out, parallel_state.get_pipeline_model_parallel_next_rank())
    elif dist.get_rank() == dist.get_world_size() - 1:
        torch.save(out[..., :VOCABULARY].clone(), output)


def save(model: Any, folder: Path, kind: str, sizes: str, stacked: bool) -> None:
    from megatron.core import dist_checkpointing

    iteration = folder / "iter_0000007"
    if dist.get_rank() == 0:
        iteration.mkdir(parents=True)
        (folder / "latest_checkpointed_iteration.txt").write_text("7")
    dist.barrier()
    metadata = {"non_homogeneous_layers": not stacked}
    content = {
        "args": arguments(model.config, kind, *map(int, sizes.split(","))),
        "iteration": 7,
        "checkpoint_version": 3.0,
        "model": model.sharded_state_dict(metadata=metadata),
    }
    dist_checkpointing.save(content, str(iteration), content_metadata=metadata)


def arguments(config: Any, kind: str, tensor: int, pipeline: int) -> argparse.Namespace:
    """As Megatron-LM's command has them, with a few that say nothing of the model."""
    from megatron.core.enums import ModelType
    from megatron.core.transformer.enums import AttnBackend

    fields = KINDS[kind]
    return argparse.Namespace(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.ffn_hidden_size,
        num_attention_heads=config.num_attention_heads,
        group_query_attention=config.num_query_groups != config.num_attention_heads,
        num_query_groups=config.num_query_groups,
        kv_channels=config.kv_channels,
        max_position_embeddings=64,
        position_embedding_type="learned_absolute" if kind == "gpt2" else "rope",
        rotary_base=ROPE["rotary_base"],
        rotary_percent=1.0,
        rotary_interleaved=False,
        normalization=config.normalization,
        norm_epsilon=config.layernorm_epsilon,
        swiglu=config.gated_linear_unit,
        add_bias_linear=config.add_bias_linear,
        add_qkv_bias=config.add_qkv_bias,
        qk_layernorm=config.qk_layernorm,
        window_size=fields.get("window_size"),
        untie_embeddings_and_output_weights=kind not in TIED,
        bias_gelu_fusion=True,
        openai_gelu=False,
        num_experts=None,
        multi_latent_attention=False,
        softmax_type="vanilla",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=0.02,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        params_dtype=torch.float32,
        attention_backend=AttnBackend.auto,
        model_type=ModelType.encoder_or_decoder,
        load=Path("checkpoints"),
        padded_vocab_size=rows(tensor),
    )


def load(model: Any, folder: Path) -> None:
    """Fill the model, in place; what the checkpoint lacks is an error, what it has beside is only states of TE."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.validation import StrictHandling

    place = str(folder / (folder / "latest_checkpointed_iteration.txt").read_text().strip())
    sharded = {"model": model.sharded_state_dict()}
    content, more, lacking = dist_checkpointing.load(sharded, place, strict=StrictHandling.RETURN_ALL)
    assert not lacking, lacking
    assert all(name.endswith("._extra_state") for name in more), more
    assert content["checkpoint_version"] == 3.0 and content["args"].num_layers == 4
    model.load_state_dict(content["model"], strict=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5:])
    leave_process()
