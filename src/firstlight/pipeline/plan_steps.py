"""A training step of a configuration on given machines: its memory, its time, what a run of such steps costs, and the
other ways to divide it."""

from __future__ import annotations

import math
from collections.abc import Callable

from firstlight.config import RunConfig
from firstlight.config.parallel import SINGLE_STAGE
from firstlight.pipeline.plan_machines import Machines
from firstlight.pipeline.run_training import check_combinations
from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.cost import Overheads, RunCost, cost_of_run, evaluation_share
from firstlight.planning.division import Division, Problem, Ranked
from firstlight.planning.memory import RankMemory, memory_per_rank
from firstlight.planning.search import SearchResult, search_layouts
from firstlight.planning.step_time import StepPredictor, StepTime
from firstlight.planning.work import Software
from firstlight.support.errors import ConfigError


class StepPlanner:
    """Memory, time and cost of one configuration's step on given machines."""

    def __init__(self, config: RunConfig, machines: Machines, calibration: Calibration = DEFAULT) -> None:
        """config: with a resolved model."""
        self.config, self.machines = config, machines
        self.room = machines.device.memory_bytes or math.inf
        training = config.training
        try:
            self.predictor: StepPredictor | None = StepPredictor(
                config.model,
                machines.device,
                config.data.sequence_length,
                training.precision,
                predicted=config.predicted_share,
                software=Software(compiled=training.compile),
                calibration=calibration,
            )
        except ConfigError:  # the device lacks the precision, which the check of precisions says
            self.predictor = None

    def own(self) -> Ranked | None:
        """The recipe's own layout."""
        config, devices = self.config, self.machines.devices
        if self.predictor is None:
            return None
        batch = config.batch(devices)
        division = Division(
            config.layout(devices),
            batch.micro_batch_size,
            batch.gradient_accumulation_steps,
            config.training.recompute,
            config.parallel.pipeline_schedule,
            config.parallel.stages_per_rank,
            config.parallel.reshard_after_forward,
        )
        return self._ranked(division)

    def search(self, own: Ranked | None) -> SearchResult | None:
        """All other layouts; None where there is nothing to divide."""
        if own is None or self.predictor is None:
            return None
        config, machines = self.config, self.machines
        several = () if config.training.compile else ("interleaved_zero_bubble", "zbv")
        problem = Problem(
            model=config.model,
            sequence_length=config.data.sequence_length,
            global_batch_size=config.batch(machines.devices).global_batch_size,
            devices=machines.devices,
            devices_per_node=machines.devices_per_node,
            memory_bytes=self.room,
            schedules=("1f1b", "interleaved", *several),
            refused=_refusal(config),
        )
        return search_layouts(problem, self._memory_bytes, self._step)

    def fits(self, ranked: Ranked) -> bool:
        """Whether the device has the memory for it."""
        return ranked.memory_bytes <= self.room

    def cost(self, ranked: Ranked, tokens: float) -> RunCost:
        """Hours, money and energy of `tokens` at the pace of a layout."""
        evaluation = self.config.evaluation
        evaluated = (evaluation.max_tokens or 0) * max(1, len(self.config.data.sources))
        overheads = Overheads(
            evaluation=min(1.0, evaluation_share(evaluation.interval_steps, evaluated, ranked.step.tokens))
        )
        return cost_of_run(ranked.step, tokens, self.machines.device, overheads=overheads)

    def memory(self, division: Division) -> list[RankMemory]:
        """By pipeline rank."""
        config = self.config
        return memory_per_rank(
            config.model,
            division.layout,
            micro_batch_size=division.micro_batch_size,
            sequence_length=config.data.sequence_length,
            accumulation=division.accumulation,
            precision=config.training.precision,
            recompute=division.recompute,
            schedule=division.schedule,
            stages_per_rank=division.stages_per_rank,
            reshard_after_forward=division.reshard_after_forward,
            device_type=self.machines.device_type,
            predicted=config.predicted_share,
        )

    def _memory_bytes(self, division: Division) -> float:
        return max(rank.total for rank in self.memory(division))

    def _step(self, division: Division) -> StepTime:
        assert self.predictor is not None
        return self.predictor.predict(
            division.layout,
            micro_batch_size=division.micro_batch_size,
            accumulation=division.accumulation,
            recompute=division.recompute,
            schedule=division.schedule,
            stages_per_rank=division.stages_per_rank,
            reshard_after_forward=division.reshard_after_forward,
        )

    def _ranked(self, division: Division) -> Ranked:
        return Ranked(division, self._memory_bytes(division), self._step(division))


def settings_for(config: RunConfig, division: Division, machines: Machines, *, every: bool = False) -> list[str]:
    """Settings to paste behind the recipe so that it is divided like this: those that differ from `config`.

    every: also those that do not, because the recipe as it is written says something else.
    """
    layout, training, parallel = division.layout, config.training, config.parallel
    several = layout.pipeline > 1 and division.schedule not in SINGLE_STAGE
    same_world = config.declared_world_size == layout.world_size
    nodes = layout.world_size // machines.devices_per_node
    wanted = {
        "launch.nodes": (nodes, nodes if same_world else config.launch.nodes or 1),
        "launch.gpus_per_node": (
            machines.devices_per_node,
            machines.devices_per_node if same_world else config.launch.gpus_per_node,
        ),
        "parallel.replicate": (layout.replicate, parallel.replicate),
        "parallel.shard": (layout.shard, layout.shard if parallel.shard is None and same_world else parallel.shard),
        "parallel.context": (layout.context, parallel.context),
        "parallel.tensor": (layout.tensor, parallel.tensor),
        "parallel.pipeline": (layout.pipeline, parallel.pipeline),
        "parallel.pipeline_schedule": (division.schedule, parallel.pipeline_schedule),
        "parallel.pipeline_stages_per_rank": (
            division.stages_per_rank if several else None,
            parallel.stages_per_rank if several else parallel.pipeline_stages_per_rank,
        ),
        "parallel.reshard_after_forward": (division.reshard_after_forward, parallel.reshard_after_forward),
        "training.global_batch_size": (
            division.micro_batch_size * division.accumulation * layout.data,
            training.global_batch_size,
        ),
        "training.micro_batch_size": (division.micro_batch_size, training.micro_batch_size),
        "training.gradient_accumulation_steps": (
            division.accumulation,
            training.gradient_accumulation_steps or division.accumulation,
        ),
        "training.recompute": (division.recompute, training.recompute),
    }
    return [f"{key}={'null' if new is None else new}" for key, (new, old) in wanted.items() if every or new != old]


def _refusal(config: RunConfig) -> Callable[[Division], str | None]:
    """What training would say to a division whose arithmetic comes out; each kind is asked once."""
    known: dict[tuple[bool, bool, str, str], str | None] = {}

    def refusal(division: Division) -> str | None:
        layout = division.layout
        kind = layout.tensor > 1 and layout.context > 1, layout.pipeline > 1, division.schedule, division.recompute
        if kind not in known:
            training = config.training.model_copy(update={"recompute": division.recompute})
            trial = config.model_copy(update={"parallel": division.parallel(), "training": training})
            try:
                check_combinations(trial)
                known[kind] = None
            except ConfigError as problem:
                known[kind] = str(problem)
        return known[kind]

    return refusal
