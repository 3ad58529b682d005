"""Reading through the key-value cache gives what reading everything at once gives."""

from __future__ import annotations

import pytest
import torch

from firstlight.model import CausalLanguageModel
from firstlight.support.errors import ConfigError


@pytest.mark.parametrize("parts", [[1] * 12, [5, 1, 1, 5], [12], [1, 11]])
@torch.no_grad()
def test_cached_steps_equal_recomputation(model: CausalLanguageModel, parts: list[int]) -> None:
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))
    whole = model(ids)["logits"]
    cache = model.new_cache(12)
    end = 0
    for part in ids.split(parts, dim=1):
        end += part.shape[1]
        step = model.decode_step(part, cache)
        torch.testing.assert_close(step, whole[:, end - 1], rtol=1e-4, atol=1e-4)
        assert cache.length == end


def test_the_cache_counts_towards_the_positions(model: CausalLanguageModel) -> None:
    cache = model.new_cache(60)
    model.decode_step(torch.zeros(1, 48, dtype=torch.long), cache)
    with pytest.raises(ConfigError, match="49 tokens"):
        model.decode_step(torch.zeros(1, 1, dtype=torch.long), cache)
