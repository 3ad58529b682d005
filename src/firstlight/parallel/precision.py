"""The types of arithmetic that a configuration can ask for by name."""

from __future__ import annotations

import torch

COMPUTE_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""What matrix products run in by training.precision; of fp8, those that float8 does not take over."""
