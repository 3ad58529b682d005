"""Where Hugging Face keeps each tensor, as data: one table a class, read in both directions.

Export writes the tensors on the right one below the other under the name on the left; import splits them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firstlight.config import ModelConfig
from firstlight.interop.weights import Weights

EMBEDDING, HEAD, HEAD_BIAS = "model.embed_tokens.weight", "lm_head.weight", "head_bias"
PADDED = (EMBEDDING, HEAD, HEAD_BIAS)
"""The tensors with a row for every token of the vocabulary."""
HEAD_PARTS = (HEAD, HEAD_BIAS, "transform.")
"""How the names of what lies between the last hidden states and the logits begin."""

Modules = Mapping[str, tuple[str, ...]]
"""Hugging Face's module, or single parameter → Firstlight's, one below the other in it."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of one class of `transformers`."""

    prefix: str
    """Of everything but the head; a class without a head is saved without it."""
    before: Modules
    """Embeddings."""
    block: str
    """The block of number {}."""
    inside: Modules
    """Modules of a block, without its name; one that a block does not have is left out."""
    after: Modules
    """The last norm and the head."""
    output: str
    """The matrix to logits, which a tied model shares with its embedding."""
    transposed: bool = False
    """Matrices of blocks are turned around, as in GPT-2's Conv1D."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Parameters that hold the same as another (→ Firstlight's name), and are saved only by untied models."""
    unused: tuple[str, ...] = ()
    """Patterns of names that play no part in the language model."""

    def is_unused(self, name: str) -> bool:
        """Whether a saved tensor is one that a language model does without."""
        return any(re.search(pattern, name) for pattern in (*_NEVER_USED, *self.unused))


_NEVER_USED = (r"(^|\.)position_ids$", r"rotary_emb\.inv_freq$")
_DECODER_BLOCK: Modules = {
    name: (name,)
    for name in (
        "input_layernorm",
        *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj")),
        "post_attention_layernorm",
        *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
    )
}
DECODER = Names(
    prefix="model.",
    before={"model.embed_tokens": ("model.embed_tokens",)},
    block="model.layers.{}.",
    inside=_DECODER_BLOCK,
    after={"model.norm": ("model.norm",), "lm_head": ("lm_head",)},
    output="lm_head.weight",
)
"""LLaMA's names, which are Firstlight's own."""
OLMO2 = Names(
    prefix="model.",
    before=DECODER.before,
    block=DECODER.block,
    inside={
        **{name: ours for name, ours in _DECODER_BLOCK.items() if not name.endswith("layernorm")},
        "post_attention_layernorm": ("input_layernorm",),
        "post_feedforward_layernorm": ("post_attention_layernorm",),
    },
    after=DECODER.after,
    output=DECODER.output,
)
GPT2 = Names(
    prefix="transformer.",
    before={"transformer.wte": ("model.embed_tokens",), "transformer.wpe": ("model.embed_positions",)},
    block="transformer.h.{}.",
    inside={
        "ln_1": ("input_layernorm",),
        "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attn.c_proj": ("self_attn.o_proj",),
        "ln_2": ("post_attention_layernorm",),
        "mlp.c_fc": ("mlp.up_proj",),
        "mlp.c_proj": ("mlp.down_proj",),
    },
    after={"transformer.ln_f": ("model.norm",), "lm_head": ("lm_head",)},
    output="lm_head.weight",
    transposed=True,
    unused=(r"\.attn\.(masked_)?bias$",),
)
BERT = Names(
    prefix="bert.",
    before={
        "bert.embeddings.word_embeddings": ("model.embed_tokens",),
        "bert.embeddings.position_embeddings": ("model.embed_positions",),
        "bert.embeddings.token_type_embeddings": ("model.embed_types",),
        "bert.embeddings.LayerNorm": ("model.embed_norm",),
    },
    block="bert.encoder.layer.{}.",
    inside={
        "attention.self.query": ("self_attn.q_proj",),
        "attention.self.key": ("self_attn.k_proj",),
        "attention.self.value": ("self_attn.v_proj",),
        "attention.output.dense": ("self_attn.o_proj",),
        "attention.output.LayerNorm": ("input_layernorm",),
        "intermediate.dense": ("mlp.up_proj",),
        "output.dense": ("mlp.down_proj",),
        "output.LayerNorm": ("post_attention_layernorm",),
    },
    after={
        "cls.predictions.transform.dense": ("transform.dense",),
        "cls.predictions.transform.LayerNorm": ("transform.norm",),
        "cls.predictions.decoder": ("lm_head",),
        "cls.predictions.bias": (HEAD_BIAS,),
    },
    output="cls.predictions.decoder.weight",
    copies={"cls.predictions.decoder.bias": HEAD_BIAS},
    unused=(r"(^|\.)pooler\.dense\.(weight|bias)$", r"^cls\.seq_relationship\.(weight|bias)$"),
)
MODERNBERT = Names(
    prefix="model.",
    before={
        "model.embeddings.tok_embeddings": ("model.embed_tokens",),
        "model.embeddings.norm": ("model.embed_norm",),
    },
    block="model.layers.{}.",
    inside={
        "attn_norm": ("input_layernorm",),
        "attn.Wqkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attn.Wo": ("self_attn.o_proj",),
        "mlp_norm": ("post_attention_layernorm",),
        "mlp.Wi": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.Wo": ("mlp.down_proj",),
    },
    after={
        "model.final_norm": ("model.norm",),
        "head.dense": ("transform.dense",),
        "head.norm": ("transform.norm",),
        "decoder": ("lm_head",),
        "decoder.bias": (HEAD_BIAS,),
    },
    output="decoder.weight",
)


@dataclass(frozen=True)
class Renamed:
    """One tensor under Hugging Face's name, and what it consists of."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    """Firstlight's names of the tensors that it consists of, one below the other."""
    rows: tuple[int, ...]
    """First dimension of each of them."""
    transposed: bool = False
    """The whole is turned around, as GPT-2's Conv1D has its matrices."""
    written: bool = True
    """Export writes it; otherwise it is a second name that a folder may have for what has one already."""

    def join(self, weights: Weights) -> Tensor:
        """The tensor, as a view where it can be; rows beyond its shape, which are padding, are left out."""
        tensors = [weights.read(source) for source in self.sources]
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return (tensor.T if self.transposed else tensor)[: self.shape[0]]

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """The tensors that it consists of, as views; of a vocabulary without padding."""
        tensor = tensor.T if self.transposed else tensor
        return dict(zip(self.sources, tensor.split(self.rows), strict=True))


def renamed(names: Names, config: ModelConfig, shapes: Mapping[str, torch.Size]) -> list[Renamed]:
    """Every tensor of a model with these parameters under Hugging Face's names, padding rows left out.

    config: resolved. shapes: by Firstlight's names, all of which occur.
    """
    tied = bool(config.tie_word_embeddings)
    entries = [_entry(config, shapes, name, sources) for name, sources in _parameters(names.before, shapes)]
    for layer in range(config.num_hidden_layers):
        block = _parameters(names.inside, shapes, names.block.format(layer), f"model.layers.{layer}.")
        for name, sources in block:
            entries.append(_entry(config, shapes, name, sources, names.transposed and len(shapes[sources[0]]) == 2))
    entries += [_entry(config, shapes, name, sources) for name, sources in _parameters(names.after, shapes)]
    if tied:
        entries.append(_entry(config, shapes, names.output, (EMBEDDING,), written=False))
    for name, source in names.copies.items():
        entries.append(_entry(config, shapes, name, (source,), written=not tied))
    missing = set(shapes) - {source for entry in entries for source in entry.sources}
    assert not missing, missing
    return entries


def _parameters(
    modules: Modules, shapes: Mapping[str, torch.Size], theirs: str = "", ours: str = ""
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(Hugging Face's name, Firstlight's names) of the parameters that these modules have."""
    for name, sources in modules.items():
        for suffix in ("", ".weight", ".bias"):
            whole = tuple(f"{ours}{source}{suffix}" for source in sources)
            if whole[0] in shapes:
                yield f"{theirs}{name}{suffix}", whole


def _entry(
    config: ModelConfig,
    shapes: Mapping[str, torch.Size],
    name: str,
    sources: tuple[str, ...],
    transposed: bool = False,
    written: bool = True,
) -> Renamed:
    rows = tuple(shapes[source][0] for source in sources)
    padding = config.vocab_padding if sources[0] in PADDED else 0
    shape = (sum(rows) - padding, *shapes[sources[0]][1:])
    return Renamed(name, shape[::-1] if transposed else shape, sources, rows, transposed, written)
