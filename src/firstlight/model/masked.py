"""The masked language model: hidden tokens are predicted from both sides (Devlin et al. 2018, arXiv:1810.04805)."""

from __future__ import annotations

from torch import Tensor

from firstlight.model.language_model import LanguageModel


class MaskedLanguageModel(LanguageModel):
    """A Transformer that sees both sides of every position and predicts the tokens that were hidden.

    Built in two lines: `model = MaskedLanguageModel(vocab_size=30000, hidden_size=768, num_layers=12, num_heads=12)`,
    then `model(input_ids, labels=labels)["loss"]`, with inputs and labels from `firstlight.tokens.masking`. A BERT
    unless `architecture` says otherwise; every family can be one.
    """

    objective = "masked"
    default_architecture = "bert"

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor | None]:
        """Logits of every position, and the mean loss over hidden ones when `labels` are given.

        input_ids, labels, attention_mask, token_type_ids: [batch, sequence] int64; labels hold the hidden tokens, and
        -100 elsewhere. Positions whose attention_mask is 0 are padding, to which nothing attends. Returns {"loss":
        scalar fp32 or None, "logits": [batch, sequence, vocab]}.
        """
        keys = self.dropout_keys(None, input_ids)
        logits = self.logits(
            self.model(input_ids, padding_mask=attention_mask, token_types=token_type_ids, dropout_keys=keys)
        )
        return {"loss": None if labels is None else self._mean_loss(logits, labels), "logits": logits}
