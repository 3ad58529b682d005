"""What is known of a run before it begins, as plain data: `firstlight.pipeline.planning` makes it, others show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from firstlight.config import RunConfig
from firstlight.planning.consistency import Consistency
from firstlight.planning.cost import RunCost
from firstlight.planning.devices import Device
from firstlight.planning.division import Ranked
from firstlight.planning.expectations import Expectations
from firstlight.planning.memory import RankMemory
from firstlight.planning.ranges import Range
from firstlight.planning.search import SearchResult


@dataclass(frozen=True, slots=True)
class Parameters:
    """Trainable parameters by where they are; a tied matrix counts as embedding."""

    embedding: int
    """Tables of tokens, positions and token types."""
    blocks: int
    head: int
    """The output matrix unless it is tied, and what comes before it in masked models."""
    norms: int
    """Outside the blocks, with biases."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.blocks + self.head + self.norms


@dataclass(frozen=True)
class Plan:
    """A run that has not begun."""

    config: RunConfig
    """Resolved."""
    assumptions: tuple[str, ...]
    """What the plan took where nothing was said, in sentences."""
    parameters: Parameters
    flops_per_token: dict[str, float]
    """Training FLOPs by convention: `firstlight` is the one of all totals here, `hardware` includes recomputation."""
    total_steps: int
    global_batch_size: int
    source_tokens: dict[str, int]
    """Training tokens by source, where their datasets are here."""
    source_epochs: dict[str, float]
    expected: Expectations | None
    """None for masked models, of which the laws say nothing."""
    device: Device
    devices: int
    devices_per_node: int
    own: Ranked | None
    """The recipe's own layout; None where the recipe or the hardware does not allow a step."""
    own_memory: tuple[RankMemory, ...]
    """By pipeline rank."""
    search: SearchResult | None
    memory: tuple[tuple[RankMemory, ...], ...]
    """Of each of the best layouts, by pipeline rank."""
    overrides: tuple[tuple[str, ...], ...]
    """Settings that make the recipe so, for each of the best layouts."""
    cost: RunCost | None
    costed: Ranked | None
    """The layout whose pace hours and money are of: the recipe's own, or the best where that does not fit."""
    consistency: Consistency

    @property
    def step_tokens(self) -> int:
        """Tokens of a global batch."""
        return self.global_batch_size * self.config.data.sequence_length

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.total_steps * self.step_tokens

    @property
    def total_flops(self) -> float:
        """Model FLOPs of the whole run, in Firstlight's convention."""
        return self.total_tokens * self.flops_per_token["firstlight"]

    @property
    def own_place(self) -> int | None:
        """Place of the recipe's own layout among all that fit; None where it does not, or none were tried."""
        if self.search is None or self.own is None or not self.own_fits:
            return None
        return self.search.place(self.own)

    @property
    def own_fits(self) -> bool:
        """Whether the recipe's own layout fits into the device's memory."""
        room = self.device.memory_bytes
        return self.own is not None and (room is None or self.own.memory_bytes <= room)

    def to_json(self) -> dict[str, Any]:
        """Plain values with units in their names."""
        config, expected = self.config, self.expected
        return {
            "format_version": 1,
            "name": config.name,
            "assumptions": list(self.assumptions),
            "parameters": {**asdict(self.parameters), "total": self.parameters.total},
            "flops_per_token": dict(self.flops_per_token),
            "total_flops": self.total_flops,
            "total_tokens": self.total_tokens,
            "total_steps": self.total_steps,
            "step_tokens": self.step_tokens,
            "global_batch_size_sequences": self.global_batch_size,
            "sequence_length_tokens": config.data.sequence_length,
            "sources": {
                name: {"tokens": tokens, "epochs": self.source_epochs.get(name)}
                for name, tokens in self.source_tokens.items()
            },
            "laws": None if expected is None else _laws(expected),
            "hardware": {
                "device": self.device.name,
                "devices": self.devices,
                "devices_per_node": self.devices_per_node,
                "memory_bytes": self.device.memory_bytes,
            },
            "own_layout": None if self.own is None else {**_ranked(self.own), "place": self.own_place},
            "own_memory_bytes": [
                {**asdict(memory), "fragmentation": memory.fragmentation, "total": memory.total}
                for memory in self.own_memory
            ],
            "layouts": [
                {**_ranked(ranked), "overrides": list(overrides)}
                for ranked, overrides in zip(self.search.best, self.overrides, strict=True)
            ]
            if self.search
            else [],
            "layouts_that_lose": [asdict(loss) for loss in self.search.losses] if self.search else [],
            "layouts_tried": self.search.candidates if self.search else 0,
            "layouts_that_fit": len(self.search.fitting) if self.search else 0,
            "cost": None if self.cost is None else _cost(self.cost),
            "findings": [
                {"kind": f.kind, "severity": f.severity, "evidence": f.evidence, "remedy": f.remedy}
                for f in self.consistency.findings
            ],
            "looked_at": list(self.consistency.looked_at),
            "not_looked_at": dict(self.consistency.not_looked_at),
        }


def _laws(expected: Expectations) -> dict[str, Any]:
    over = expected.overtraining
    return {
        "loss_nats_per_token": expected.losses,
        "effective_tokens": expected.effective_tokens,
        "tokens_per_parameter": expected.tokens / expected.parameters,
        "compute_optimal": {
            name: {"parameters": best.parameters, "tokens": best.tokens} for name, best in expected.optimal.items()
        },
        "loss_above_best_nats_per_token": over.loss_penalty,
        "wasted_compute_fraction": over.wasted_compute,
        "learning_rate": expected.learning_rates,
        "batch_tokens": expected.batch_tokens,
        "critical_batch_tokens": expected.critical_batch_tokens,
        "extrapolated": expected.extrapolated,
    }


def _ranked(ranked: Ranked) -> dict[str, Any]:
    division, step = ranked.division, ranked.step
    layout = division.layout
    return {
        **{name: getattr(layout, name) for name in ("pipeline", "replicate", "shard", "context", "tensor")},
        "pipeline_schedule": division.schedule if layout.pipeline > 1 else None,
        "pipeline_stages_per_rank": division.stages_per_rank,
        "micro_batch_size": division.micro_batch_size,
        "gradient_accumulation_steps": division.accumulation,
        "recompute": division.recompute,
        "memory_bytes": round(ranked.memory_bytes),
        "step_seconds": {"low": step.low_seconds, "typical": step.seconds, "high": step.high_seconds},
        "step_parts_seconds": step.parts,
        "tokens_per_second": step.tokens_per_second,
        "tokens_per_second_per_device": step.tokens_per_second_per_device,
        "mfu": step.mfu,
        "hfu": step.hfu,
    }


def _cost(cost: RunCost) -> dict[str, Any]:
    def values(given: Range | None) -> dict[str, float] | None:
        return None if given is None else asdict(given)

    return {
        "hours": values(cost.hours),
        "days": values(cost.days),
        "device_hours": values(cost.device_hours),
        "usd": values(cost.usd),
        "usd_per_device_hour": None
        if cost.price is None
        else {"low": cost.price.low_usd_per_hour, "high": cost.price.high_usd_per_hour, "read": cost.price.date},
        "energy_kwh": values(cost.energy_kwh),
    }
