"""Records of runs that never ran: a healthy one, and whatever a test makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from firstlight.config import RunConfig
from firstlight.planning.diagnosis import RunRecord, SourceRecord

INTERVAL, TOTAL, WARMUP = 10, 4000, 100


@pytest.fixture(scope="session")
def healthy_lines() -> Callable[..., list[dict[str, Any]]]:
    """`healthy_lines(seed, upto=step)`: a run that goes well: power law, noise, cosine, usual norms."""
    return _healthy_lines


def _healthy_lines(seed: int = 0, upto: int = TOTAL) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    for step in range(INTERVAL, upto + 1, INTERVAL):
        lr = 3e-4 * step / WARMUP if step <= WARMUP else 3e-5 + 1.35e-4 * (1 + math.cos(math.pi * step / TOTAL))
        loss = 2.0 + 25.0 * (step + 20) ** -0.45
        lines.append(
            {
                "step": step,
                "loss": loss + draw.normal(0, 0.04),
                "learning_rate": lr,
                "grad_norm": (3e-4 / max(lr, 3e-5)) ** 0.3 * math.exp(draw.normal(0, 0.25)) * (1 + 200 / step),
                "tokens_per_second": 1e5 * (1 + draw.normal(0, 0.02)),
                "mfu": 0.4,
                "param_norm": math.sqrt(1e4 + 3 * step),
                "samples_consumed": step * 8,
                "tokens_consumed": step * 8 * 256,
                "data_wait_fraction": abs(draw.normal(0, 0.002)),
                "peak_memory_bytes": 10**9,
                "skipped_steps": 0,
            }
        )
        if step % 400 == 0:
            scores = {"loss": loss + 0.1 + draw.normal(0, 0.003), "accuracy": 0.3, "baseline_accuracy": 0.05}
            lines.append({"step": step, **{f"validation/web/{key}": value for key, value in scores.items()}})
    return lines


@pytest.fixture(scope="session")
def base_config() -> RunConfig:
    """A small resolved configuration of 4,000 steps."""
    config = RunConfig.model_validate(
        {
            "name": "made-up",
            "data": {
                "sources": {"web": {"tokens": "tokens/web"}, "books": {"tokens": "tokens/books"}},
                "mixture": {"web": 0.8, "books": 0.2},
                "sequence_length": 256,
            },
            "model": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4},
            "schedule": {"warmup_steps": WARMUP},
            "training": {"total_steps": TOTAL, "micro_batch_size": 8, "global_batch_size": 8},
            "checkpoint": {"interval_steps": 400},
        }
    )
    return config.model_copy(update={"model": config.model.resolved(4096, 256)})


@pytest.fixture(scope="session")
def make_record(base_config: RunConfig) -> Callable[..., RunRecord]:
    """`make_record(lines, section={"key": value}, field=…)`: a healthy, finished record, but for what is given."""

    def make(lines: list[dict[str, Any]] | None = None, **changes: Any) -> RunRecord:
        config = base_config
        for name in [name for name in changes if hasattr(config, name)]:
            section = getattr(config, name)
            changed = section.model_copy(update=changes.pop(name))
            config = config.model_copy(update={name: changed})
        metrics = _healthy_lines() if lines is None else lines
        last = metrics[-1]["step"] if metrics else 0
        fields: dict[str, Any] = {
            "config": config,
            "metrics": metrics,
            "events": [{"event": "finished", "step": last}],
            "total_steps": TOTAL,
            "step_tokens": 8 * 256,
            "warmup_end": WARMUP,
            "decay_end": TOTAL,
            "sources": {
                "web": SourceRecord(10**9, 0.8, 25_600, 0, 0.01, 0.01, 0.8),
                "books": SourceRecord(10**8, 0.2, 6_400, 0, 0.02, 0.02, 0.2),
            },
            "checkpoints": [*range(400, last + 1, 400)][-2:],
        }
        return RunRecord(**{**fields, **changes})

    return make
