"""Weights to export: their names and whole shapes, and one whole tensor at a time.

A model in memory and a checkpoint on disk give the same; from a checkpoint no model is built, so that a model larger
than the machine's memory can be exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from firstlight.config import ModelConfig
from firstlight.model import CausalLanguageModel
from firstlight.training.checkpoint import CheckpointTensors

PADDED = ("model.embed_tokens.weight", "lm_head.weight")
"""The matrices with a row for every token of the vocabulary."""
GPT2_BLOCK = {
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}


@dataclass(frozen=True)
class Weights:
    """The parameters of a model by Firstlight's names; a tied matrix has one name."""

    config: ModelConfig
    shapes: Mapping[str, torch.Size]
    read: Callable[[str], Tensor]
    """The whole tensor of a name, on any device; read when asked for."""


@dataclass(frozen=True)
class Exported:
    """One tensor under Hugging Face's name, and how it is made."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    """Firstlight's names of the tensors that it consists of, one below the other."""
    transposed: bool = False
    """The sources are turned around, as GPT-2's Conv1D has its matrices."""

    def read(self, weights: Weights) -> Tensor:
        """The tensor, as a view where it can be; rows beyond its shape, which are padding, are left out."""
        tensors = [weights.read(source) for source in self.sources]
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return (tensor.T if self.transposed else tensor)[: self.shape[0]]


def weights_of_model(model: CausalLanguageModel) -> Weights:
    """The weights of a model in memory, without copies."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    return Weights(model.config, {name: value.shape for name, value in parameters.items()}, parameters.__getitem__)


def weights_of_checkpoint(tensors: CheckpointTensors, config: ModelConfig) -> Weights:
    """The weights in a checkpoint of a model with the resolved configuration `config`, whatever its layout was.

    CheckpointError when it is a checkpoint of another model.
    """
    with torch.device("meta"):  # names and shapes, no memory
        shapes = {name: value.shape for name, value in CausalLanguageModel.from_config(config).named_parameters()}
    tensors.check({f"model.{name}": shape for name, shape in shapes.items()})
    return Weights(config, shapes, lambda name: tensors.read(f"model.{name}"))


def huggingface_tensors(weights: Weights) -> list[Exported]:
    """Every tensor under Hugging Face's names; tied weights once; padding rows of the vocabulary left out."""
    listed = _gpt2(weights.config) if weights.config.architecture == "gpt2" else _llama(weights)
    return [Exported(name, _shape(weights, sources, turned), sources, turned) for name, sources, turned in listed]


def _llama(weights: Weights) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    for name in weights.shapes:
        yield name, (name,), False


def _gpt2(config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """(name, sources, transposed) in GPT-2's order."""
    yield "transformer.wte.weight", ("model.embed_tokens.weight",), False
    yield "transformer.wpe.weight", ("model.embed_positions.weight",), False
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
        fused = [f"{ours}self_attn.{name}_proj" for name in "qkv"]
        yield f"{theirs}attn.c_attn.weight", tuple(f"{name}.weight" for name in fused), True
        yield f"{theirs}attn.c_attn.bias", tuple(f"{name}.bias" for name in fused), False
        for name, other in GPT2_BLOCK.items():
            yield f"{theirs}{other}.weight", (f"{ours}{name}.weight",), not name.endswith("layernorm")
            yield f"{theirs}{other}.bias", (f"{ours}{name}.bias",), False
    yield "transformer.ln_f.weight", ("model.norm.weight",), False
    yield "transformer.ln_f.bias", ("model.norm.bias",), False
    if not config.tie_word_embeddings:
        yield "lm_head.weight", ("lm_head.weight",), False


def _shape(weights: Weights, sources: tuple[str, ...], transposed: bool) -> tuple[int, ...]:
    first, *others = (weights.shapes[source] for source in sources)
    rows = first[0] + sum(other[0] for other in others)
    if sources[0] in PADDED:
        rows -= weights.config.vocab_padding
    shape = (rows, *first[1:])
    return shape[::-1] if transposed else shape
