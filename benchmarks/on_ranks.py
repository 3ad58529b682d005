"""Training steps of a small model on real ranks, one thread each: starting them, and the trainer that each of them has.

A benchmark calls `run_ranks` with its own file, which starts that file again on every rank with the arguments of
`add_rank_arguments`; there it does its work with `trainer_and_batch` and prints what it found with `tell`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
"""Values of a recipe by dotted name, beside SETTINGS."""
SETTINGS: Settings = {
    "data": {"sequence_length": 128},
    "model": {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "training": {
        "total_steps": 1000,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "precision": "fp32",
        "compile": False,
        "device": "cpu",
    },
    "parallel": {},
}


def run_ranks(file: str, work: str, settings: Sequence[Settings], timeout: float = 300) -> list[list[Any]]:
    """Do `work` once for each of `settings`, all of which ask for as many processes; what each rank found, by settings.

    file: the script that does the work. Raises RuntimeError with a rank's error when one fails.
    """
    (world_size,) = {world_size_of(each) for each in settings}
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, file, "--work", work, "--rank", str(rank), "--world-size", str(world_size)),
                    *("--store", str(Path(folder) / "store"), "--settings", json.dumps(list(settings))),
                ],
                env={"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0", **os.environ}
                | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world_size)
        ]
        try:
            ended = [process.communicate(timeout=timeout) for process in processes]
        finally:
            for process in processes:
                process.kill()
    errors = [error for process, (_, error) in zip(processes, ended, strict=True) if process.returncode]
    if errors:
        raise RuntimeError(f"{work} at {settings}:\n{errors[0]}")
    found = [json.loads(output.splitlines()[-1]) for output, _ in ended]
    return [list(ranks) for ranks in zip(*found, strict=True)]


def add_rank_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run_ranks` passes to a rank; of a script that a person starts, `rank` is None."""
    for name in ("--work", "--store", "--settings"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--rank", "--world-size"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)


def tell(arguments: argparse.Namespace, work: Callable[[Any, Any], Any]) -> None:
    """Do a rank's work, `work(trainer, batch)`, for every settings and print what it found."""
    print(json.dumps([work(*both) for both in _trainers(arguments)]))


def world_size_of(settings: Settings) -> int:
    """Processes that the `parallel` sizes among settings ask for."""
    from firstlight.config.parallel import least_world_size

    return least_world_size(configuration(settings).parallel)


def configuration(settings: Settings) -> Any:
    """SETTINGS with these values instead, the model resolved."""
    from firstlight.recipe import apply_overrides, parse_config

    tree = {"name": "benchmark", **json.loads(json.dumps(SETTINGS))}
    apply_overrides(tree, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    config = parse_config(tree, "benchmark")
    return config.model_copy(update={"model": config.model.resolved(sequence_length=config.data.sequence_length)})


def _trainers(arguments: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """A trainer of every settings, and a batch for it; a process group for each, one after the other."""
    import torch.distributed as dist

    for number, settings in enumerate(json.loads(arguments.settings)):
        yield trainer_and_batch(settings, arguments.rank, arguments.world_size, f"{arguments.store}-{number}")
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()


def trainer_and_batch(settings: Settings, rank: int, world_size: int, store: str) -> tuple[Any, Any]:
    """A rank's trainer, and a batch for it: random tokens, the same on ranks that share samples. store: a file that
    the ranks meet at."""
    import torch
    import torch.distributed as dist

    from firstlight.parallel.parallel_model import ParallelModel
    from firstlight.parallel.ranks import Ranks, make_ranks
    from firstlight.tokens.loader import TokenBatch
    from firstlight.tokens.objective import next_token
    from firstlight.training.trainer import Trainer

    torch.set_num_threads(1)
    config = configuration(settings)
    device = torch.device(config.training.device)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    layout = config.layout(world_size)
    ranks = Ranks(layout, device=device)
    if layout.world_size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=world_size)
        ranks = make_ranks(layout, device)
    model = ParallelModel(config, ranks, compile_blocks=config.training.compile)
    model.materialize()
    model.init_weights()
    model.train()
    nowhere: Any = None
    trainer = Trainer(config, nowhere, model, nowhere, objective=next_token, eod_id=0, peak_flops=1.0)
    rows = trainer.batch.global_batch_size // layout.data
    generator = torch.Generator().manual_seed(ranks.data_rank)
    shape = (rows, config.data.sequence_length)
    ids, targets = (torch.randint(config.model.vocab_size, shape, generator=generator) for _ in range(2))
    return trainer, TokenBatch(0, ids, targets)


def of_this_rank(estimate: Callable[..., Sequence[Any]], trainer: Any) -> Any:
    """What an estimate of the planner by pipeline rank (`memory_per_rank`, `traffic_per_rank`) says of a trainer's."""
    config, ranks = trainer.config, trainer.ranks
    return estimate(
        config.model,
        ranks.layout,
        micro_batch_size=trainer.batch.micro_batch_size,
        sequence_length=config.data.sequence_length,
        accumulation=trainer.batch.gradient_accumulation_steps,
        precision=config.training.precision,
        recompute=config.training.recompute,
        schedule=config.parallel.pipeline_schedule,
        stages_per_rank=config.parallel.stages_per_rank,
        reshard_after_forward=config.parallel.reshard_after_forward,
        device_type=ranks.device.type,
    )[ranks.place.pipeline]
