"""The best few ways to divide a training step over given devices, and why the others lose.

Every way is tried that the arithmetic of `firstlight.config.parallel` lets through: data = replicate × shard, tensor,
context, pipeline with its schedules, micro-batch and recomputation, at the recipe's global batch. A way that does not
fit into memory is dropped with what it lacks; of those that fit, the one with the shortest predicted step wins. Tensor
and context parallel groups stay within a machine unless that is lifted: they speak in every block, and the network is
about ten times slower than the links inside.

Recomputing more is never faster, so a heavier mode is tried only where a lighter one does not fit. What does not fit at
one micro-batch does not at a larger one, as long as gradients are added up over several; nor with fewer shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from firstlight.config import Layout
from firstlight.config.batch import divisors
from firstlight.config.parallel import SINGLE_STAGE, Schedule
from firstlight.planning.activations import Recompute
from firstlight.planning.division import Division, Problem, Ranked
from firstlight.planning.layout_losses import Loss, Losses
from firstlight.planning.step_time import StepTime

LARGEST_MICRO_BATCH = 64
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
"""Least work first, most memory first."""
INTERLEAVED_STAGES = (2, 4)
"""Stages a rank that are tried."""
SHOWN = 5


@dataclass(frozen=True)
class SearchResult:
    """The best, and what became of the others."""

    best: tuple[Ranked, ...]
    """Of different layouts, fastest first."""
    fitting: tuple[Ranked, ...]
    """All that fit, fastest first."""
    losses: tuple[Loss, ...] = ()
    candidates: int = 0
    """Divisions whose arithmetic comes out; the losses of kind impossible are not among them."""

    def place(self, ranked: Ranked) -> int:
        """Which place, from 1, a division would take among all that fit."""
        return 1 + sum(other.step.seconds < ranked.step.seconds * (1 - 1e-9) for other in self.fitting)


def search_layouts(
    problem: Problem,
    memory_of: Callable[[Division], float],
    step_of: Callable[[Division], StepTime],
    shown: int = SHOWN,
) -> SearchResult:
    """Try every division of `problem`.

    memory_of: bytes of the rank that needs the most; step_of: predicted time of a step. Both are asked only for
    divisions whose arithmetic comes out.
    """
    losses = Losses(problem)
    fitting = []
    least = _LeastRecomputation()
    for alternatives in _divisions(problem, losses):
        start = least.known_of(alternatives[0])
        chosen = _lightest_that_fits(alternatives, start, problem, memory_of, losses)
        least.learn(alternatives[0], None if chosen is None else chosen[0].recompute)
        if chosen is not None:
            fitting.append(Ranked(*chosen, step_of(chosen[0])))
    fitting.sort(key=lambda ranked: (ranked.step.seconds, ranked.memory_bytes))
    best: dict[tuple[int, ...], Ranked] = {}
    for ranked in fitting:
        best.setdefault(ranked.division.layout.sizes, ranked)
    chosen_best = tuple(list(best.values())[:shown])
    for ranked in fitting:
        if ranked not in chosen_best:
            losses.slower(ranked, fitting[0])
    return SearchResult(chosen_best, tuple(fitting), losses.all(), losses.candidates)


def _divisions(problem: Problem, losses: Losses) -> Iterator[list[Division]]:
    """Divisions that differ in recomputation only, together."""
    limit = problem.devices if problem.across_nodes else min(problem.devices, problem.devices_per_node)
    for tensor in divisors(problem.devices):
        for context in divisors(problem.devices // tensor):
            if limit % (tensor * context):
                continue
            if not losses.comes_out("tensor, context", Layout(tensor=tensor, context=context)):
                continue
            for pipeline in divisors(problem.devices // (tensor * context)):
                data = problem.devices // (tensor * context * pipeline)
                if problem.global_batch_size % data:
                    sentence = (
                        f"{data} data-parallel ranks do not divide global_batch_size {problem.global_batch_size}."
                    )
                    losses.add(Loss("impossible", "batch", 1, sentence))
                    continue
                if not losses.comes_out("layers", Layout(pipeline=pipeline), problem.global_batch_size):
                    continue
                for shard in _shards(data, context * tensor, problem.devices_per_node):
                    layout = Layout(
                        pipeline=pipeline, replicate=data // shard, shard=shard, context=context, tensor=tensor
                    )
                    yield from _of_layout(problem, layout, losses)


def _of_layout(problem: Problem, layout: Layout, losses: Losses) -> Iterator[list[Division]]:
    per_rank = problem.global_batch_size // layout.data
    for micro in divisors(per_rank):
        if micro > LARGEST_MICRO_BATCH:
            break
        for schedule, stages in _schedules(problem, layout):
            if not losses.comes_out("micro-batches", layout, per_rank // micro, schedule, stages):
                continue
            alternatives = []
            for recompute in RECOMPUTE:
                division = Division(layout, micro, per_rank // micro, recompute, schedule, stages)
                reason = problem.refused(division)
                if reason:
                    losses.add(Loss("refused", "", 1, reason))
                else:
                    alternatives.append(division)
            if alternatives:
                yield alternatives


def _schedules(problem: Problem, layout: Layout) -> Iterator[tuple[Schedule, int]]:
    if layout.pipeline == 1:
        yield "1f1b", 1
        return
    for schedule in problem.schedules:
        stages = (1,) if schedule in SINGLE_STAGE else INTERLEAVED_STAGES if schedule == "interleaved" else (2,)
        for count in stages:
            if count * layout.pipeline <= problem.model.num_hidden_layers:
                yield schedule, count


def _shards(data: int, inner: int, devices_per_node: int) -> list[int]:
    """Sizes that are worth trying: all data-parallel ranks, those within a machine, none."""
    within = max((d for d in divisors(data) if d * inner <= devices_per_node), default=1)
    return sorted({data, within, 1}, reverse=True)


def _lightest_that_fits(
    alternatives: Sequence[Division],
    start: int,
    problem: Problem,
    memory_of: Callable[[Division], float],
    losses: Losses,
) -> tuple[Division, float] | None:
    """The division with the least recomputation that fits, and its bytes. start: place in RECOMPUTE of the lightest
    that may. The heaviest, which needs the least, is asked before those between."""
    losses.candidates += len(alternatives)
    left = [division for division in alternatives if RECOMPUTE.index(division.recompute) >= start]
    if not left:
        losses.add(Loss("memory", "", len(alternatives)))
        return None
    needs = memory_of(left[0])
    if needs <= problem.memory_bytes:
        return left[0], needs
    last = memory_of(left[-1]) if len(left) > 1 else needs
    if last > problem.memory_bytes:
        losses.add(Loss("memory", "", len(alternatives), lacks_bytes=last - problem.memory_bytes))
        return None
    for division in left[1:-1]:
        needs = memory_of(division)
        if needs <= problem.memory_bytes:
            return division, needs
    return left[-1], last


class _LeastRecomputation:
    """What divisions that were tried have shown of those that need more memory: a larger micro-batch, as long as
    gradients are added up over several, and fewer shards."""

    def __init__(self) -> None:
        self._of_layout: dict[tuple[Layout, Schedule, int], int] = {}
        self._of_shards: dict[tuple[int, int, int, int, Schedule, int], int] = {}

    def known_of(self, division: Division) -> int:
        """Place in RECOMPUTE of the lightest that may fit; beyond its end: none does."""
        in_layout, over_shards = self._keys(division)
        smaller = self._of_layout.get(in_layout, 0) if division.accumulation > 1 else 0
        return max(smaller, self._of_shards.get(over_shards, 0))

    def learn(self, division: Division, recompute: Recompute | None) -> None:
        """recompute: the lightest that fits; None: none does."""
        in_layout, over_shards = self._keys(division)
        place = len(RECOMPUTE) if recompute is None else RECOMPUTE.index(recompute)
        self._of_layout[in_layout] = self._of_shards[over_shards] = place

    @staticmethod
    def _keys(
        division: Division,
    ) -> tuple[tuple[Layout, Schedule, int], tuple[int, int, int, int, Schedule, int]]:
        layout, rest = division.layout, (division.schedule, division.stages_per_rank)
        shared = layout.pipeline, layout.context, layout.tensor, division.micro_batch_size
        return (layout, *rest), (*shared, *rest)
