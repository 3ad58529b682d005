"""The causal language model: a decoder, a head over the vocabulary, and the next-token loss in three forms.

`token_loss` is for training and never holds the whole logits; `token_losses` is for evaluation; `forward` is the
`(input_ids, labels) → {loss, logits}` that the ecosystem expects. Parameters carry the names of Hugging Face's LLaMA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig
from firstlight.model.cache import KeyValueCache
from firstlight.model.init import init_weights
from firstlight.model.loss import IGNORE_INDEX, linear_cross_entropy, linear_cross_entropy_per_token
from firstlight.model.transformer import Transformer
from firstlight.recipe import parse_config
from firstlight.support.errors import ConfigError

DEFAULT_POSITIONS = 2048
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class CausalLanguageModel(nn.Module):
    """A decoder that predicts the next token.

    Built in two lines: `model = CausalLanguageModel(vocab_size=50000, hidden_size=768, num_layers=12, num_heads=12)`,
    then `model(input_ids, labels=input_ids)["loss"]`. Weights are drawn at construction from `seed`; under
    `torch.device("meta")` they are not, and `to_empty` followed by `init_weights` fills them. `loss_sum` and
    `loss_per_token`, functions of (hidden states, head weight, targets), may be replaced from outside.
    """

    def __init__(
        self, vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, *, seed: int = 0, **fields: Any
    ) -> None:
        """`fields` are the other fields of `ModelConfig`; max_position_embeddings is 2,048 unless given.

        Raises ConfigError that names the field when a value or a combination is not right.
        """
        super().__init__()
        shape = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_layers}
        config = _validated({**fields, **shape, "num_attention_heads": num_heads})
        self.config = config.resolved(sequence_length=DEFAULT_POSITIONS)
        self.loss_sum: Loss = linear_cross_entropy
        self.loss_per_token: Loss = linear_cross_entropy_per_token
        device = torch.empty(0).device
        with torch.device("meta"):
            self.model = Transformer(self.config)
            # A tied model has no second matrix: one parameter, one name, nothing to tie again after `to_empty`.
            self.lm_head = None if config.tie_word_embeddings else nn.Linear(hidden_size, vocab_size, bias=False)
        if device.type != "meta":
            self.to_empty(device=device)
            self.init_weights(seed)

    @classmethod
    def from_config(cls, config: ModelConfig, seed: int = 0) -> Self:
        """The model that `config` describes; honours the surrounding `torch.device`, "meta" included."""
        fields = config.model_dump()
        shape = {name: fields.pop(name) for name in ("vocab_size", "hidden_size")}
        if shape["vocab_size"] is None:
            raise ConfigError("model.vocab_size is missing; a model cannot be built without it.")
        num_layers, num_heads = fields.pop("num_hidden_layers"), fields.pop("num_attention_heads")
        return cls(**shape, num_layers=num_layers, num_heads=num_heads, seed=seed, **fields)

    def init_weights(self, seed: int = 0) -> None:
        """Fill every parameter anew; the same at any device and sharding (see `firstlight.model.init`)."""
        init_weights(self, self.config, seed)

    @property
    def head_weight(self) -> Tensor:
        """The matrix from hidden states to logits: [vocab_size, hidden_size]."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        """Logits of every position, and the mean loss when `labels` are given.

        input_ids, labels, attention_mask: [batch, sequence] int64; labels are usually the input ids again, are shifted
        here, and count where they are not -100. Positions whose attention_mask is 0 are padding: nothing attends to
        them and their labels do not count. Returns {"loss": scalar fp32 or None, "logits": [batch, sequence, vocab]}.
        """
        hidden = self.model(input_ids, padding_mask=attention_mask)
        logits = F.linear(hidden, self.head_weight)
        if labels is None:
            return {"loss": None, "logits": logits}
        if attention_mask is not None:
            labels = labels.masked_fill(attention_mask == 0, IGNORE_INDEX)
        targets = labels[:, 1:].flatten()
        total = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), targets, ignore_index=IGNORE_INDEX, reduction="sum"
        )
        return {"loss": total / (targets != IGNORE_INDEX).sum().clamp(min=1), "logits": logits}

    def token_loss(
        self,
        input_ids: Tensor,
        targets: Tensor,
        document_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Sum (not mean) of the token losses in nats, as a scalar; for training.

        input_ids, targets: [batch, sequence] int64; targets[t] is the token after input_ids[t], -100 is ignored. With
        document_ids [batch, sequence], attention stays within runs of equal numbers. positions: see `Transformer`.
        """
        hidden = self.model(input_ids, document_ids, positions=positions)
        return self.loss_sum(hidden, self.head_weight, targets)

    @torch.no_grad()
    def token_losses(
        self,
        input_ids: Tensor,
        targets: Tensor,
        document_ids: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """The loss of each token in nats, [batch, sequence] fp32, 0 where ignored; arguments as for `token_loss`."""
        hidden = self.model(input_ids, document_ids, positions=positions)
        return self.loss_per_token(hidden, self.head_weight, targets)

    @torch.no_grad()
    def decode_step(self, input_ids: Tensor, cache: KeyValueCache) -> Tensor:
        """Read `input_ids` [batch, new] after what `cache` holds; logits of the token that follows, [batch, vocab]."""
        hidden = self.model(input_ids, cache=cache)
        return F.linear(hidden[:, -1], self.head_weight)

    def new_cache(self, max_length: int) -> KeyValueCache:
        """An empty cache with room for `max_length` positions."""
        return KeyValueCache(self.config.num_hidden_layers, max_length)

    def num_parameters(self, exclude_embeddings: bool = False) -> int:
        """Number of parameters; `exclude_embeddings` leaves out token and position tables (an untied head counts)."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not (exclude_embeddings and name.startswith("model.embed_"))
        )


def _validated(fields: dict[str, Any]) -> ModelConfig:
    """The fields as a `ModelConfig`, through a recipe's own checks and error sentences."""
    recipe = {"name": "model", "data": {"sequence_length": 1}, "model": fields}
    return parse_config(recipe, "CausalLanguageModel").model
