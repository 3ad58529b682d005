"""The tables of a dry run: what each says, and nothing that would have to be worked out. They fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from firstlight.config import Layout, RunConfig
from firstlight.pipeline.stages import Prepared, describe_datasets
from firstlight.planning.communication import StepTraffic
from firstlight.planning.flops import parameter_count, training_flops_per_token
from firstlight.planning.memory import RankMemory
from firstlight.planning.pipeline import stage_costs
from firstlight.planning.schedules import bubble_fraction
from firstlight.support.console import human_bytes, human_count, out, printable
from firstlight.tokens.batches import rank_slice
from firstlight.tokens.stream import Stream

CHECKPOINT_BYTES = 12
"""A parameter in a checkpoint: fp32, and two fp32 moments."""
_BYTES = {"GiB": 2**30, "MiB": 2**20}
STEPS_SHOWN, DATA_RANKS_SHOWN, SAMPLES_SHOWN = 2, 4, 3
TRAFFIC_PARTS = {
    "gather": "gathered weights (FSDP)",
    "reduce": "gradients to their shards (FSDP)",
    "replicate": "gradients between copies (HSDP)",
    "tensor": "activations, tensor parallel",
    "context": "keys and values, context parallel",
    "pipeline": "activations from stage to stage",
    "total": "together",
}
MEMORY_PARTS = {
    "parameters": "weights, fp32",
    "gradients": "gradients, fp32",
    "optimizer": "AdamW's moments, fp32",
    "compute_weights": "weights to multiply with",
    "activations": "activations that are kept",
    "backward": "a block's backward pass",
    "buffers": "gradients on their way (FSDP)",
    "head": "head and loss",
    "fragmentation": "margin of the allocator",
    "device_context": "device's own context",
    "total": "most at a time",
}


def show_run(config: RunConfig, layout: Layout) -> None:
    """Layout and batch arithmetic, length and work."""
    batch, steps, length = config.batch(layout.world_size), config.steps(layout.world_size), config.data.sequence_length
    tokens = steps * batch.global_batch_size * length
    processes = f"{layout.world_size} processes = {layout}" if layout.world_size > 1 else "one process"
    show_section(config.name)
    _show_facts(
        layout=processes,
        batch=f"{batch.global_batch_size:,} sequences = {batch.micro_batch_size} micro-batch × "
        f"{batch.gradient_accumulation_steps} accumulation × {batch.data_parallel} data-parallel",
        length=f"{steps:,} steps × {batch.global_batch_size:,} sequences × {length:,} = {human_count(tokens)} tokens",
        FLOPs=f"{training_flops_per_token(config.model, length, config.predicted_share) * tokens:.2e}",
    )


def show_parameters(config: RunConfig, held: list[tuple[int, int]]) -> None:
    """Parameters of the whole and of a rank. held: (fewest, most) of each pipeline rank."""
    whole = parameter_count(config.model)
    fewest, most = min(low for low, _ in held), max(high for _, high in held)
    show_section("Parameters")
    _show_facts(
        **{
            "whole model": f"{whole:,}",
            "a rank": f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}",
            "checkpoint": f"{human_bytes(CHECKPOINT_BYTES * whole)} with the optimizer",
        }
    )


def show_pipeline(
    config: RunConfig,
    layout: Layout,
    stages: tuple[list[int], list[range]],
    held: list[tuple[int, int]],
    memory: list[RankMemory],
) -> None:
    """What every pipeline rank has. stages: rank and blocks of each. held, memory: of each pipeline rank."""
    owners, split = stages
    length, recompute = config.data.sequence_length, config.training.recompute
    costs = stage_costs(config.model, length, recompute, config.predicted_share).of_stages(split)
    schedule = config.parallel.pipeline_schedule
    bubble = bubble_fraction(
        schedule,
        layout.pipeline,
        config.parallel.stages_per_rank,
        config.batch(layout.world_size).gradient_accumulation_steps,
        costs,
    )
    show_section(f"Pipeline: {schedule}, ranks wait {100 * bubble:.1f} % of a step")
    unit = _unit([rank.total for rank in memory])
    table = _table("pipeline rank", "layers", "work", "most parameters", unit, left=2)
    for rank in range(layout.pipeline):
        here = [stage for stage, owner in enumerate(owners) if owner == rank]
        held_here = ["embedding"] * (0 in here) + [_range(split[stage]) for stage in here if split[stage]]
        held_here += ["head"] * (len(owners) - 1 in here)
        work = sum(costs[stage] for stage in here) / sum(costs)
        total = _amount(memory[rank].total, unit)
        table.add_row(str(rank), ", ".join(held_here), f"{100 * work:.1f} %", f"{held[rank][1]:,}", total)
    out.print(table)


def show_memory(memory: list[RankMemory], config: RunConfig, device_type: str) -> None:
    """Bytes by part at the moment when they are the most, of the pipeline ranks that need the most and the least."""
    training = config.training
    recompute = "nothing recomputed" if training.recompute == "none" else f"{training.recompute} recomputation"
    show_section(f"Memory of a rank: an estimate for {device_type}, {training.precision}, {recompute}")
    whole = ("fragmentation", "device_context", "total")
    _show_by_part(
        [{**rank.at_peak(), **{part: getattr(rank, part) for part in whole}} for rank in memory], MEMORY_PARTS
    )


def show_traffic(traffic: list[StepTraffic]) -> None:
    """Bytes by purpose, of the pipeline ranks that send the most and the least."""
    show_section("Sent by a rank in a step")
    _show_by_part([{part: getattr(rank, part) for part in TRAFFIC_PARTS} for rank in traffic], TRAFFIC_PARTS)


def _show_by_part(ranks: Sequence[Mapping[str, int]], parts: dict[str, str]) -> None:
    ordered = sorted(range(len(ranks)), key=lambda rank: ranks[rank]["total"])
    shown = list(dict.fromkeys((ordered[-1], ordered[0])))
    unit = _unit([rank["total"] for rank in ranks])
    table = _table("", *[unit] if len(ranks) == 1 else [f"pipeline rank {rank}, {unit}" for rank in shown], left=1)
    for part, name in parts.items():
        values = [ranks[rank].get(part, 0) for rank in shown]
        if any(values):
            table.add_row(name, *(_amount(value, unit) for value in values))
    out.print(table)


def show_samples(config: RunConfig, layout: Layout, prepared: Prepared, stream: Stream) -> None:
    """Which sequences the first samples of some data-parallel ranks are."""
    show_section("First samples: source epoch:sequence")
    show_lines([describe_datasets(prepared.datasets), *stream.notes()])
    ranks = list(range(layout.data))
    if len(ranks) > DATA_RANKS_SHOWN:
        ranks = [*ranks[: DATA_RANKS_SHOWN - 1], ranks[-1]]
    table = _table("step", "data rank", "samples", "", left=4)
    for step in range(min(STEPS_SHOWN, config.steps(layout.world_size))):
        for rank in ranks:
            batch = config.batch(layout.world_size).global_batch_size
            first, count = rank_slice(step, batch, rank, layout.data)
            ids = stream.samples(first, min(count, SAMPLES_SHOWN))
            rows = zip(ids.source.tolist(), ids.epoch.tolist(), ids.sequence.tolist(), strict=True)
            names = [f"{printable(stream.sources[source])} {epoch}:{sequence}" for source, epoch, sequence in rows]
            more = ["…"] if count > SAMPLES_SHOWN else []
            table.add_row(str(step + 1), str(rank), f"{first} to {first + count - 1}", escape(", ".join(names + more)))
    out.print(table)


def show_section(title: str) -> None:
    """A heading."""
    out.print(f"\n[bold cyan]{escape(printable(title))}[/bold cyan]")


def show_lines(lines: Iterable[str]) -> None:
    """Sentences, broken between words."""
    for line in lines:
        out.print(escape(printable(line)), soft_wrap=False)


def _table(*columns: str, left: int) -> Table:
    """A table without lines whose first `left` columns hold words."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def _show_facts(**facts: str) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, fact in facts.items():
        table.add_row(name, escape(printable(fact)))
    out.print(table)


def _range(blocks: range) -> str:
    return f"{blocks[0]} to {blocks[-1]}" if len(blocks) > 1 else str(blocks[0])


def _unit(totals: Sequence[int]) -> str:
    return "GiB" if max(totals) >= _BYTES["GiB"] else "MiB"


def _amount(number: float, unit: str) -> str:
    return f"{number / _BYTES[unit]:.2f}"
