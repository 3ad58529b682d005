"""The causal language model: each token predicts the next (Radford et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from firstlight.model.cache import KeyValueCache
from firstlight.model.language_model import LanguageModel
from firstlight.model.loss import IGNORE_INDEX


class CausalLanguageModel(LanguageModel):
    """A Transformer that predicts the next token.

    Built in two lines: `model = CausalLanguageModel(vocab_size=50000, hidden_size=768, num_layers=12, num_heads=12)`,
    then `model(input_ids, labels=input_ids)["loss"]`. A LLaMA unless `architecture` says otherwise.
    """

    objective = "causal"
    default_architecture = "llama"

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        """Logits of every position, and the mean loss when `labels` are given.

        input_ids, labels, attention_mask: [batch, sequence] int64; labels are usually the input ids again, are shifted
        here, and count where they are not -100. Positions whose attention_mask is 0 are padding: nothing attends to
        them and their labels do not count. Returns {"loss": scalar fp32 or None, "logits": [batch, sequence, vocab]}.
        """
        keys = self.dropout_keys(None, input_ids)
        logits = self.logits(self.model(input_ids, padding_mask=attention_mask, dropout_keys=keys))
        if labels is None:
            return {"loss": None, "logits": logits}
        if attention_mask is not None:
            labels = labels.masked_fill(attention_mask == 0, IGNORE_INDEX)
        return {"loss": self._mean_loss(logits[:, :-1], labels[:, 1:]), "logits": logits}

    @torch.no_grad()
    def decode_step(self, input_ids: Tensor, cache: KeyValueCache) -> Tensor:
        """Read `input_ids` [batch, new] after what `cache` holds; logits of the token that follows, [batch, vocab]."""
        return self.logits(self.model(input_ids, cache=cache)[:, -1])

    def new_cache(self, max_length: int) -> KeyValueCache:
        """An empty cache with room for `max_length` positions."""
        return KeyValueCache(self.config.num_hidden_layers, max_length)
