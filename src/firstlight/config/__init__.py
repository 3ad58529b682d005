"""The only schema of the project: what a recipe may say, with types, units, defaults and checks.

Configuration is frozen data; a combination that cannot work is refused with one sentence that names the field and what
would be right. Names are Hugging Face's where Hugging Face has one. `firstlight.recipe` reads it from YAML.
"""

from firstlight.config.batch import Batch, resolve_batch
from firstlight.config.checkpoint import CheckpointConfig
from firstlight.config.corpus import CorpusConfig
from firstlight.config.data import DataConfig, SourceConfig
from firstlight.config.masking import MaskingConfig
from firstlight.config.model import ModelConfig
from firstlight.config.parallel import Layout, ParallelConfig, resolve_layout
from firstlight.config.run import OptimizerConfig, RunConfig, ScheduleConfig
from firstlight.config.stability import StabilityConfig

__all__ = [
    "Batch",
    "CheckpointConfig",
    "CorpusConfig",
    "DataConfig",
    "Layout",
    "MaskingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RunConfig",
    "ScheduleConfig",
    "SourceConfig",
    "StabilityConfig",
    "resolve_batch",
    "resolve_layout",
]
