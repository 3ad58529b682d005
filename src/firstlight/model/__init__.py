"""The model: one Transformer whose families are data, and the objectives on top of it."""

from firstlight.config import ModelConfig
from firstlight.model.cache import KeyValueCache
from firstlight.model.causal import CausalLanguageModel
from firstlight.model.language_model import LanguageModel
from firstlight.model.loss import linear_cross_entropy
from firstlight.model.masked import MaskedLanguageModel
from firstlight.model.transformer import Columns

__all__ = [
    "CausalLanguageModel",
    "Columns",
    "KeyValueCache",
    "LanguageModel",
    "MaskedLanguageModel",
    "build_model",
    "linear_cross_entropy",
]


def build_model(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """The model that `config` describes, of the class that its objective asks for."""
    return (CausalLanguageModel if config.causal else MaskedLanguageModel).from_config(config, seed)
