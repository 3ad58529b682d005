"""Where Megatron's GPTModel keeps each tensor, as data: one table, read in both directions.

A tensor of a block stands in one of all blocks, [blocks, …], and consists of one or several of Firstlight's, one below
the other: queries, keys and values of a group of heads, then those of the next group; gate above up. The norms before
attention and feed-forward are named as parameters of the matrix that reads them, as Transformer Engine fuses them;
megatron-core's own layers are saved under the same names. Source: megatron-core 0.16, `models/gpt/gpt_layer_specs.py`,
`transformer/attention.py` (get_query_key_value_tensors), `transformer/mlp.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from firstlight.config import ModelConfig

EMBEDDING = "embedding.word_embeddings.weight"
BLOCKS = "decoder.layers."
QKV = "self_attention.linear_qkv."
OUTSIDE = {
    "embedding.word_embeddings.": ("model.embed_tokens.",),
    "embedding.position_embeddings.": ("model.embed_positions.",),
    "decoder.final_layernorm.": ("model.norm.",),
    "output_layer.": ("lm_head.",),
}
"""Megatron's names outside of blocks → Firstlight's."""
INSIDE = {
    f"{QKV}layer_norm_": ("input_layernorm.",),
    QKV: ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    "self_attention.q_layernorm.": ("self_attn.q_norm.",),
    "self_attention.k_layernorm.": ("self_attn.k_norm.",),
    "self_attention.linear_proj.": ("self_attn.o_proj.",),
    "mlp.linear_fc1.layer_norm_": ("post_attention_layernorm.",),
    "mlp.linear_fc1.": ("mlp.gate_proj.", "mlp.up_proj."),
    "mlp.linear_fc2.": ("mlp.down_proj.",),
}
"""Megatron's names in a block → Firstlight's, in Megatron's order; one that a model has not is left out."""
SYNONYMS = {f"{QKV}layer_norm_": "input_layernorm.", "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm."}
"""How old versions of megatron-core name the norms that are not fused."""
STATES = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
"""Modules of a block for which every checkpoint has a state of 8-bit arithmetic, which may be empty."""
ENGINE_STATES = ("self_attention.core_attention", "self_attention.q_layernorm", "self_attention.k_layernorm")
"""Modules of a block that have one only as Transformer Engine's; so has the last norm."""


@dataclass(frozen=True)
class Place:
    """A tensor of Megatron's, or the part of one that belongs to a block, and what it consists of."""

    module: str
    """Its name, without `decoder.layers.` where it belongs to a block; ends with a dot or an underscore."""
    parameter: str
    """weight or bias."""
    layer: int | None
    """The block, from 0."""
    shape: tuple[int, ...]
    """Without the axis of blocks."""
    sources: tuple[str, ...]
    """Firstlight's names of the tensors that it consists of."""
    rows: tuple[int, ...]
    """First dimension of each of them."""
    groups: int
    """Each of them is cut into so many equal parts, and the first parts of all stand above the second parts of all."""

    @property
    def key(self) -> str:
        """Its name in the checkpoint, where the tensors of all blocks are one."""
        return f"{BLOCKS if self.layer is not None else ''}{self.module}{self.parameter}"

    @property
    def own_key(self) -> str:
        """Its name where every block has tensors of its own."""
        return f"{BLOCKS}{self.layer}.{self.module}{self.parameter}" if self.layer is not None else self.key

    def spellings(self) -> Iterator[tuple[str, bool]]:
        """(name, whether the tensors of all blocks are one there) by which a checkpoint may have it."""
        for module in (self.module, SYNONYMS.get(self.module)):
            if module is not None:
                place = Place(module, self.parameter, self.layer, self.shape, self.sources, self.rows, self.groups)
                yield place.key, self.layer is not None
                if self.layer is not None:
                    yield place.own_key, False

    def join(self, read: Callable[[str], Tensor]) -> Tensor:
        """The tensor, from Firstlight's."""
        tensors = [read(source) for source in self.sources]
        if len(tensors) == 1:
            return tensors[0]
        parts = [tensor.unflatten(0, (self.groups, -1)) for tensor in tensors]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Firstlight's tensors, from the whole."""
        if len(self.sources) == 1:
            return {self.sources[0]: tensor}
        parts = tensor.unflatten(0, (self.groups, -1)).split([rows // self.groups for rows in self.rows], dim=1)
        return {source: part.flatten(0, 1) for source, part in zip(self.sources, parts, strict=True)}


def places(config: ModelConfig, shapes: Mapping[str, torch.Size]) -> list[Place]:
    """Every tensor of the model with the resolved configuration `config`, blocks in order.

    shapes: by Firstlight's names, all of which occur.
    """
    found = list(_places(OUTSIDE, None, config, shapes))
    for layer in range(config.num_hidden_layers):
        found += _places(INSIDE, layer, config, shapes)
    missing = set(shapes) - {source for place in found for source in place.sources}
    assert not missing, missing
    return found


def _places(
    modules: Mapping[str, tuple[str, ...]], layer: int | None, config: ModelConfig, shapes: Mapping[str, torch.Size]
) -> Iterator[Place]:
    inside = "" if layer is None else f"model.layers.{layer}."
    for module, ours in modules.items():
        for parameter in ("weight", "bias"):
            sources = tuple(name for source in ours if (name := f"{inside}{source}{parameter}") in shapes)
            if not sources:
                continue
            rows = tuple(shapes[source][0] for source in sources)
            groups = (config.num_key_value_heads or 1) if module == QKV else 1
            yield Place(module, parameter, layer, (sum(rows), *shapes[sources[0]][1:]), sources, rows, groups)
