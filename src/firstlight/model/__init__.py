"""The model: one Transformer whose families are data, and the objectives on top of it."""

from firstlight.model.cache import KeyValueCache
from firstlight.model.causal import CausalLanguageModel
from firstlight.model.loss import linear_cross_entropy

__all__ = ["CausalLanguageModel", "KeyValueCache", "linear_cross_entropy"]
