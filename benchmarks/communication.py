"""What ranks send in a training step, counted, against `firstlight.planning.communication`; and weak scaling on a CPU.

Sent: real gloo ranks of a small LLaMA take a step, and every collective and message that torch dispatches is counted,
forward and backward, as the bytes that a rank sends with ring algorithms. Scaling: the same batch for each rank, one
thread each, on one rank and on two that shard the model (FSDP 2); the sides take turns and the medians count. The two
ranks share caches and memory, so this shows what the code costs, not what a network does.

    python benchmarks/communication.py --rounds 5
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

LAYOUTS: dict[str, dict[str, Any]] = {
    "FSDP 2": {"parallel.shard": 2},
    "FSDP 2, accumulation 4": {"parallel.shard": 2, "training.gradient_accumulation_steps": 4},
    "FSDP 4": {"parallel.shard": 4},
    "HSDP 2 × 2": {"parallel.replicate": 2, "parallel.shard": 2},
    "TP 2": {"parallel.tensor": 2},
    "TP 4": {"parallel.tensor": 4},
    "CP 2": {"parallel.context": 2},
    "PP 2": {"parallel.pipeline": 2, "training.gradient_accumulation_steps": 4},
    "FSDP 2 × TP 2": {"parallel.shard": 2, "parallel.tensor": 2},
    "TP 2 × PP 2": {"parallel.tensor": 2, "parallel.pipeline": 2, "training.gradient_accumulation_steps": 4},
    "PP 2 × FSDP 2": {"parallel.pipeline": 2, "parallel.shard": 2, "training.gradient_accumulation_steps": 4},
}
"""Settings beside SETTINGS; a step has one micro-batch unless they say otherwise."""
SETTINGS: dict[str, dict[str, Any]] = {
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
SCALING = {
    "data.sequence_length": 256,
    "model.vocab_size": 4096,
    "model.hidden_size": 256,
    "model.intermediate_size": 704,
    "training.micro_batch_size": 8,
}
"""Model of the weak scaling, beside SETTINGS."""


def main() -> None:
    arguments = _arguments()
    if arguments.rank is not None:
        print(json.dumps(WORK[arguments.work](arguments)))
        return
    import torch

    from common import machine

    print(f"machine: {machine()}; {datetime.date.today()}; torch {torch.__version__}, gloo, one thread a rank\n")
    print(
        "| layout | gather | reduce | copies | tensor | context | pipeline | scalars | sent, MB | measured / formula |"
    )
    print("|---|" + "---:|" * 9)
    for name, settings in LAYOUTS.items():
        ranks = run_ranks("count", settings)
        busiest = max(ranks, key=lambda rank: sum(rank["sent"].values()))
        sent = [busiest["sent"].get(kind, 0) for kind in busiest["formula"]]
        ratios = {sum(rank["sent"].values()) / sum(rank["formula"].values()) for rank in ranks}
        cells = [f"{number / 1e6:.3f}" if number else "" for number in sent[:-1]] + [f"{sent[-1]:.0f} B"]
        shown = " to ".join(f"{ratio:.4f}" for ratio in sorted({min(ratios), max(ratios)}))
        print(f"| {name} | {' | '.join(cells)} | {sum(sent) / 1e6:.3f} | {shown} |", flush=True)
    _print_scaling(arguments.rounds)


def run_ranks(work: str, settings: dict[str, Any], timeout: float = 300) -> list[Any]:
    """Do `work` on as many processes as the `parallel` sizes among `settings` ask for; what each of them found."""
    from firstlight.config.parallel import least_world_size

    world_size = least_world_size(_configuration(settings).parallel)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, __file__, "--work", work, "--rank", str(rank), "--world-size", str(world_size)),
                    *("--store", str(Path(folder) / "store"), "--settings", json.dumps(settings)),
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
    return [json.loads(output.splitlines()[-1]) for output, _ in ended]


def count(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{"sent": bytes by kind that this rank sent in its second step, "formula": those that the planner expects}."""
    from dataclasses import asdict

    from firstlight.planning.communication import traffic_per_rank

    trainer, batch = _trainer(arguments)
    config, ranks = trainer.config, trainer.ranks
    trainer.train_step(batch)
    counter = _counter(ranks)
    with counter:
        trainer.train_step(batch)
    expected = traffic_per_rank(
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
        device_type="cpu",
    )
    _leave()
    return {"sent": counter.sent, "formula": asdict(expected[ranks.place.pipeline])}


def speed(arguments: argparse.Namespace) -> float:
    """Tokens a second of all ranks together, the median of 10 steps."""
    trainer, batch = _trainer(arguments)
    seconds = []
    for _ in range(13):
        started = time.perf_counter()
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - started)
    _leave()
    return trainer.step_tokens / statistics.median(seconds[3:])


WORK = {"count": count, "speed": speed}


def _counter(ranks: Any) -> Any:
    """A mode whose `sent` has the bytes by kind; an operation between ranks that it does not know is an error."""
    import torch.distributed as dist
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode

    groups = {name: ranks.dimension(name).get_group() for name in ("pipeline", "replicate", "fsdp", "tensor")}
    groups |= {"context": ranks.context_group} if ranks.context_group else {}
    sizes = {group.group_name: dist.get_world_size(group) for group in (*groups.values(), dist.group.WORLD)}
    tensor_group = groups["tensor"].group_name

    def first_tensor(value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else first_tensor(value[0])

    def group_of(arguments: tuple[Any, ...]) -> str:
        named = [argument for argument in arguments if isinstance(argument, str) and argument in sizes]
        boxed = [argument for argument in arguments if type(argument).__name__ == "ScriptObject"]
        return named[-1] if named else next(name for name in map(_group_name, boxed) if name)

    class Counted(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.sent: Counter[str] = Counter()

        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.__name__.replace("_", "")
            between = function.namespace in ("c10d", "_c10d_functional")
            if between and not name.startswith(("wait", "recv", "wraptensor")):
                self._add(function.namespace, name, args)
            return function(*args, **(kwargs or {}))

        def _add(self, namespace: str, name: str, args: Any) -> None:
            group = group_of(args)
            size, share = sizes[group], (sizes[group] - 1) / sizes[group]
            # The operations of c10d name what they write first, those that return it do not.
            inputs = first_tensor(args[1] if namespace == "c10d" and "base" in name else args[0])
            if namespace == "_c10d_functional":
                kind = "tensor" if group == tensor_group else "context"
            else:
                kind = "tensor" if group == tensor_group and size > 1 else "gather"
            if name.startswith("send"):
                self.sent["pipeline"] += inputs.nbytes
            elif name.startswith("allgather"):
                self.sent[kind] += (size - 1) * inputs.nbytes
            elif name.startswith("reducescatter"):
                self.sent["reduce" if kind == "gather" else kind] += share * inputs.nbytes
            elif name.startswith("allreduce"):
                if namespace == "c10d":
                    kind = "scalars" if inputs.numel() <= 3 else "replicate"
                self.sent[kind] += 2 * share * inputs.nbytes
            else:
                raise RuntimeError(f"{namespace}.{name} sends between ranks, and nothing here counts it")

    return Counted()


def _group_name(boxed: Any) -> str | None:
    import torch.distributed as dist

    try:
        return dist.ProcessGroup.unbox(boxed).group_name
    except RuntimeError:  # another kind of object, such as the operation of a reduction
        return None


def _configuration(settings: dict[str, Any]) -> Any:
    from firstlight.recipe import apply_overrides, parse_config

    tree = {"name": "benchmark", **json.loads(json.dumps(SETTINGS))}
    apply_overrides(tree, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    config = parse_config(tree, "benchmark")
    return config.model_copy(update={"model": config.model.resolved(sequence_length=config.data.sequence_length)})


def _trainer(arguments: argparse.Namespace) -> Any:
    """This rank's trainer, and a batch for it: random tokens, the same on ranks that share samples."""
    import torch
    import torch.distributed as dist

    from firstlight.parallel.parallel_model import ParallelModel
    from firstlight.parallel.ranks import Ranks, make_ranks
    from firstlight.tokens.loader import TokenBatch
    from firstlight.tokens.objective import next_token
    from firstlight.training.trainer import Trainer

    torch.set_num_threads(1)
    config, device = _configuration(json.loads(arguments.settings)), torch.device("cpu")
    layout = config.layout(arguments.world_size)
    ranks = Ranks(layout)
    if layout.world_size > 1:
        store = f"file://{arguments.store}"
        dist.init_process_group("gloo", init_method=store, rank=arguments.rank, world_size=arguments.world_size)
        ranks = make_ranks(layout, device)
    model = ParallelModel(config, ranks)
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


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _print_scaling(rounds: int) -> None:
    sides = {1: SCALING, 2: {**SCALING, "parallel.shard": 2}}
    found: dict[int, list[float]] = {ranks: [] for ranks in sides}
    for number in range(rounds):
        for ranks in sides if number % 2 == 0 else reversed(sides):
            found[ranks].append(statistics.mean(run_ranks("speed", sides[ranks])))
    print("\n| ranks | tokens/s | lowest to highest | per rank |\n|---|---:|---:|---:|")
    base = statistics.median(found[1])
    for ranks, rates in found.items():
        rate = statistics.median(rates)
        share = f"{100 * rate / ranks / base:.0f} %"
        print(f"| {ranks} | {rate:,.0f} | {min(rates):,.0f} to {max(rates):,.0f} | {share} |")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side of the weak scaling")
    for name in ("--work", "--store", "--settings"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--rank", "--world-size"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
