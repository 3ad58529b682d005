"""What a model is to predict: from the rows of a sample stream to inputs and their targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from firstlight.config import RunConfig
from firstlight.tokens.masking import Masking
from firstlight.tokens.tokenizer import Tokenizer

Rows = NDArray[np.int64]
Objective = Callable[[Rows, int], tuple[Rows, Rows]]
"""(rows [n, length + 1] of `Stream.read`, number of the first sample) → (inputs, targets), both [n, length].

targets[t] is what position t is to predict; -100: nothing. A row's result depends on the row and its sample's number
alone, so that it is the same at any batch size and on any rank."""


def next_token(rows: Rows, first_sample: int) -> tuple[Rows, Rows]:
    """The causal objective: the token after each input."""
    return rows[:, :-1], rows[:, 1:]


def hidden_tokens(masking: Masking) -> Objective:
    """The masked objective: the tokens that `masking` hides. The last token of a row is the next row's first."""
    return lambda rows, first_sample: masking(rows[:, :-1], first_sample)


def objective_of(config: RunConfig, tokenizer: Tokenizer) -> Objective:
    """The objective of a configuration. Raises ConfigError for a masked one that the tokenizer does not allow."""
    return next_token if config.model.causal else hidden_tokens(Masking(config.masking, tokenizer, config.seed))
