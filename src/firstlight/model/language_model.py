"""What every language model has: a Transformer, a head over the vocabulary, and the loss of tokens in two forms.

`token_loss` is for training and never holds the whole logits; `token_scores` is for evaluation. The `forward` that the
ecosystem expects, `(input_ids, labels) → {loss, logits}`, is the objective's. Parameters carry the names of Hugging
Face's LLaMA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firstlight.config import ModelConfig
from firstlight.config.families import Objective
from firstlight.model.feed_forward import ACTIVATIONS
from firstlight.model.init import init_weights
from firstlight.model.loss import IGNORE_INDEX, linear_cross_entropy, linear_cross_entropy_scores
from firstlight.model.norm import make_norm
from firstlight.model.transformer import Columns, Transformer
from firstlight.recipe import parse_config
from firstlight.support.errors import ConfigError

DEFAULT_POSITIONS = 2048
TABLES = ("model.embed_tokens.", "model.embed_positions.", "model.embed_types.")
Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class HeadTransform(nn.Module):
    """norm(activation(dense(x))): what BERT's families do before the vocabulary's matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense = nn.Linear(width, width, bias=config.family.transform == "bias")
        self.activation = ACTIVATIONS[config.family.activation]
        self.norm = make_norm(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., hidden_size] → the same shape."""
        return self.norm(self.activation(self.dense(hidden)))


class LanguageModel(nn.Module):
    """A Transformer and a head; use `CausalLanguageModel` or `MaskedLanguageModel`.

    Weights are drawn at construction from `seed`; under `torch.device("meta")` they are not, and `to_empty` followed by
    `init_weights` fills them. From outside may be replaced: `loss_sum` and `loss_scores`, functions of (hidden states,
    head weight, targets, bias), and `whole`, which makes divided hidden states whole before some of them are chosen.
    """

    objective: Objective
    default_architecture: str

    def __init__(
        self, vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, *, seed: int = 0, **fields: Any
    ) -> None:
        """`fields` are the other fields of `ModelConfig`; max_position_embeddings is 2,048 unless given.

        Raises ConfigError that names the field when a value or a combination is not right.
        """
        super().__init__()
        shape = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_layers}
        given = {"architecture": self.default_architecture, **fields, **shape, "num_attention_heads": num_heads}
        config = _validated({**given, "objective": self.objective}, type(self).__name__)
        self.config = config.resolved(sequence_length=DEFAULT_POSITIONS)
        self.loss_sum: Loss = linear_cross_entropy
        self.loss_scores: Loss = linear_cross_entropy_scores
        self.whole: Callable[[Tensor], Tensor] = lambda hidden: hidden
        device = torch.empty(0).device
        with torch.device("meta"):
            self.model = Transformer(self.config)
            transformed = self.config.family.transform != "none"
            self.transform = HeadTransform(self.config) if transformed else None
            self.head_bias = nn.Parameter(torch.zeros(vocab_size)) if transformed else None
            # A tied model has no second matrix: one parameter, one name, nothing to tie again after `to_empty`.
            tied = self.config.tie_word_embeddings
            self.lm_head = None if tied else nn.Linear(hidden_size, vocab_size, bias=False)
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

    def dropout_keys(self, given: Tensor | None, rows: Tensor) -> Tensor | None:
        """What dropout of `rows` is drawn from: `given`, or drawn by PyTorch's generator; None where there is none.

        There is dropout in training mode only, and where the configuration has some. given, result: [batch] int64.
        """
        if not (self.training and self.config.has_dropout):
            return None
        return torch.randint(2**63 - 1, rows.shape[:1], device=rows.device) if given is None else given

    @property
    def head_weight(self) -> Tensor:
        """The matrix from hidden states to logits: [vocab_size, hidden_size]."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Last hidden states [..., hidden_size] → [..., vocab_size]."""
        return F.linear(self._transformed(hidden), self.head_weight, self.head_bias)

    def token_loss(
        self,
        input_ids: Tensor,
        targets: Tensor,
        document_ids: Tensor | None = None,
        columns: Columns | None = None,
        dropout_keys: Tensor | None = None,
    ) -> Tensor:
        """Sum (not mean) of the token losses in nats, as a scalar; for training.

        input_ids, targets: [batch, sequence] int64; targets[t] is what position t is to predict (the token after it,
        or the one that was hidden there), -100 is ignored. With document_ids [batch, sequence], attention stays within
        runs of equal numbers. columns: see `Transformer`. dropout_keys: [batch] int64, what dropout of each row is
        drawn from in training mode; unset: PyTorch's generator draws them.
        """
        keys = self.dropout_keys(dropout_keys, input_ids)
        return self.head_loss(self.model(input_ids, document_ids, columns=columns, dropout_keys=keys), targets)

    @torch.no_grad()
    def token_scores(
        self,
        input_ids: Tensor,
        targets: Tensor,
        document_ids: Tensor | None = None,
        columns: Columns | None = None,
    ) -> Tensor:
        """[2, batch, sequence] fp32: the loss of each token in nats, and 1 where the likeliest token is the target;
        both 0 where ignored. Arguments as for `token_loss`."""
        return self.head_scores(self.model(input_ids, document_ids, columns=columns), targets)

    def head_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """`token_loss` from the last hidden states on."""
        if not self.config.causal:  # most targets are ignored: no logits for them
            chosen = targets != IGNORE_INDEX
            hidden, targets = self.whole(hidden)[chosen], targets[chosen]
        return self.loss_sum(self._transformed(hidden), self.head_weight, targets, self.head_bias)

    @torch.no_grad()
    def head_scores(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """`token_scores` from the last hidden states on."""
        if self.config.causal:
            return self.loss_scores(self._transformed(hidden), self.head_weight, targets, self.head_bias)
        chosen = targets != IGNORE_INDEX
        hidden = self._transformed(self.whole(hidden)[chosen])
        scores = torch.zeros(2, *targets.shape, device=targets.device)
        scores[:, chosen] = self.loss_scores(hidden, self.head_weight, targets[chosen], self.head_bias).float()
        return scores

    def _transformed(self, hidden: Tensor) -> Tensor:
        return hidden if self.transform is None else self.transform(hidden)

    def num_parameters(self, exclude_embeddings: bool = False) -> int:
        """Number of parameters; `exclude_embeddings` leaves out the tables of tokens, positions and types (an untied
        head counts)."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not (exclude_embeddings and name.startswith(TABLES))
        )

    def _mean_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the targets that count: logits [batch, sequence, vocab], targets [batch, sequence]."""
        total = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )
        return total / (targets != IGNORE_INDEX).sum().clamp(min=1)


def _validated(fields: dict[str, Any], name: str) -> ModelConfig:
    """The fields as a `ModelConfig`, through a recipe's own checks and error sentences."""
    return parse_config({"name": "model", "data": {"sequence_length": 1}, "model": fields}, name).model
