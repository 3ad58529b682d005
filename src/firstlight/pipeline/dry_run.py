"""What a run would be, on any number of processes, told by one that has neither their memory nor their hardware.

The model is built as each kind of rank would build it, by the code that training runs, on the meta device and in a
process group of torch's `fake` backend, which counts ranks and sends nothing; so the parameters of a rank are those
that it will hold. Memory, bubble and FLOPs are the planner's. Nothing is started and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from firstlight.config import Layout, RunConfig
from firstlight.parallel.parallel_model import ParallelModel, stages_of
from firstlight.parallel.ranks import Ranks, make_ranks
from firstlight.pipeline import dry_run_tables as tables
from firstlight.pipeline.run_training import (
    check_combinations,
    read_run_or_recipe,
    sample_stream,
    with_global_batch_of_run,
)
from firstlight.pipeline.stages import prepare
from firstlight.planning.communication import traffic_per_rank
from firstlight.planning.memory import memory_per_rank
from firstlight.support.parts import local_part
from firstlight.tokens.objective import objective_of
from firstlight.tokens.sources import are_tokens_here
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.device import choose_device
from firstlight.training.run_folder import RunFolder
from firstlight.training.schedule import decay_range


def dry_run(recipe: str | Path, overrides: Sequence[str] = (), world_size: int | None = None) -> None:
    """Print what training a recipe or a run folder on `world_size` processes would be, without starting any.

    world_size: unset, those that the recipe is written for, or that the run ran on. Raises ConfigError as training
    would, except for what depends on the hardware.
    """
    if world_size is None and Path(recipe).is_dir():
        world_size = RunFolder.open(recipe).config.declared_world_size
    cluster = [] if world_size is None else ["launch.nodes=1", f"launch.gpus_per_node={world_size}"]
    config = with_global_batch_of_run(read_run_or_recipe(recipe, [*overrides, *cluster]))
    layout = config.layout(config.declared_world_size)
    check_combinations(config)
    missing = _missing_stages(config)
    prepared = None if missing else prepare(config)
    config = prepared.config if prepared else _with_model(config)
    batch, steps = config.batch(layout.world_size), config.steps(layout.world_size)
    decay_range(config.schedule, steps, batch.global_batch_size * config.data.sequence_length)
    stream = None
    if prepared:
        stream = sample_stream(prepared, in_memory=True)
        stream.check_supply(steps * batch.global_batch_size, batch.global_batch_size)
    held = parameters_by_pipeline_rank(config, layout)
    shape = _step(config, layout)
    memory = memory_per_rank(config.model, layout, **shape)
    tables.show_run(config, layout)
    tables.show_parameters(config, held)
    if layout.pipeline > 1:
        tables.show_pipeline(config, layout, stages_of(config, layout), held, memory)
    tables.show_memory(memory, config, shape["device_type"])
    if layout.world_size > 1:
        tables.show_traffic(traffic_per_rank(config.model, layout, **shape))
    if prepared and stream:
        tables.show_samples(config, layout, prepared, stream)
    else:
        tables.show_section("Before training, not run now")
        tables.show_lines(missing)
    tables.show_lines(["", "Nothing was started or written."])


def parameters_of_rank(config: RunConfig, layout: Layout, rank: int) -> int:
    """Elements of the parameters that `rank` holds when a resolved `config` is trained at `layout`."""
    # Float8 asks for its hardware, and changes no parameter.
    training = config.training.model_copy(update={"precision": "bf16"})
    with _as_rank(layout, rank) as ranks:
        model = ParallelModel(config.model_copy(update={"training": training}), ranks)
        return sum(local_part(parameter).numel() for _, parameter in model.named_parameters())


def parameters_by_pipeline_rank(config: RunConfig, layout: Layout) -> list[tuple[int, int]]:
    """(fewest, most) elements of parameters among the ranks of each pipeline rank.

    Every dimension is divided in chunks of equal size, of which the last ones may be short or empty: of the ranks that
    share a stage the first holds the most and the last the least.
    """
    size = layout.world_size // layout.pipeline
    owners, split = stages_of(config, layout)
    known: dict[tuple[int, bool, bool], tuple[int, int]] = {}
    held = []
    for rank in range(layout.pipeline):
        here = [stage for stage, owner in enumerate(owners) if owner == rank]
        kind = sum(len(split[stage]) for stage in here), 0 in here, len(owners) - 1 in here
        if kind not in known:
            ends = {rank * size, (rank + 1) * size - 1}
            counts = [parameters_of_rank(config, layout, end) for end in sorted(ends)]
            known[kind] = min(counts), max(counts)
        held.append(known[kind])
    return held


@contextmanager
def _as_rank(layout: Layout, rank: int) -> Iterator[Ranks]:
    if layout.world_size == 1:
        yield Ranks(layout)
        return
    dist.init_process_group("fake", rank=rank, world_size=layout.world_size)
    try:
        yield make_ranks(layout, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def _with_model(config: RunConfig) -> RunConfig:
    """The configuration with its model's shape complete, for the tokenizer that it names or asks for."""
    size = config.tokenizer.vocab_size
    if config.tokenizer.path:
        tokenizer = Tokenizer.load(config.tokenizer.path)
        objective_of(config, tokenizer)
        size = tokenizer.vocab_size
    elif config.model.vocab_size is not None and not any(source.text for source in config.data.sources.values()):
        size = config.model.vocab_size  # the tokenizer is that of token datasets which are not here
    return config.model_copy(update={"model": config.model.resolved(size, config.data.sequence_length)})


def _missing_stages(config: RunConfig) -> list[str]:
    """What is between this recipe and its token datasets, one line each; none when they are all here."""
    sources = config.data.sources
    texts = [name for name, source in sources.items() if source.text]
    lines = []
    if texts:
        listed = ", ".join(texts)
        tokenizer = config.tokenizer.path or any(source.tokens for source in sources.values())
        lines.append(f"corpus: {listed}: text to documents")
        if not tokenizer:
            lines.append(f"tokenizer: one of {config.tokenizer.vocab_size:,} tokens, from these documents")
        lines += [f"tokens: {listed}: documents to a token dataset", "What was made from the same inputs is kept."]
    lines += [
        f"data.sources.{name} names no text and no tokens yet"
        for name, source in sources.items()
        if not source.text and not source.tokens and not source.validation_tokens
    ]
    lines += [
        f"data.sources.{name}.{field} {place} is not on this machine"
        for name, source in sources.items()
        for field, place in (("tokens", source.tokens), ("validation_tokens", source.validation_tokens))
        if place and not are_tokens_here(place)
    ]
    return lines if sources else ["data.sources is empty"]


def _step(config: RunConfig, layout: Layout) -> dict[str, Any]:
    """What the planner asks about a step, beside the model and the layout."""
    batch = config.batch(layout.world_size)
    return {
        "micro_batch_size": batch.micro_batch_size,
        "sequence_length": config.data.sequence_length,
        "accumulation": batch.gradient_accumulation_steps,
        "precision": config.training.precision,
        "recompute": config.training.recompute,
        "schedule": config.parallel.pipeline_schedule,
        "stages_per_rank": config.parallel.stages_per_rank,
        "reshard_after_forward": config.parallel.reshard_after_forward,
        "device_type": _device_type(config, layout),
        "predicted": config.predicted_share,
    }


def _device_type(config: RunConfig, layout: Layout) -> str:
    """What the ranks will compute on: unless the recipe says so, this machine's device, or CUDA for several ranks."""
    if config.training.device != "auto":
        return config.training.device
    return choose_device("auto").type if layout.world_size == 1 else "cuda"
