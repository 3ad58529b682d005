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
import os
import statistics
import time
from collections import Counter
from typing import Any

from on_ranks import add_rank_arguments, of_this_rank, run_ranks, tell

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
"""Settings beside those of `on_ranks`; a step has one micro-batch unless they say otherwise."""
SCALING = {
    "data.sequence_length": 256,
    "model.vocab_size": 4096,
    "model.hidden_size": 256,
    "model.intermediate_size": 704,
    "training.micro_batch_size": 8,
}
"""Model of the weak scaling."""


def main() -> None:
    arguments = _arguments()
    if arguments.rank is not None:
        tell(arguments, WORK[arguments.work])
        return
    import torch

    from common import machine

    print(f"machine: {machine()}; {datetime.date.today()}; torch {torch.__version__}, gloo, one thread a rank\n")
    print(
        "| layout | gather | reduce | copies | tensor | context | pipeline | scalars | sent, MB | measured / formula |"
    )
    print("|---|" + "---:|" * 9)
    for name, settings in LAYOUTS.items():
        (ranks,) = run_ranks(__file__, "count", [settings])
        busiest = max(ranks, key=lambda rank: sum(rank["sent"].values()))
        sent = [busiest["sent"].get(kind, 0) for kind in busiest["formula"]]
        ratios = {sum(rank["sent"].values()) / sum(rank["formula"].values()) for rank in ranks}
        cells = [f"{number / 1e6:.3f}" if number else "" for number in sent[:-1]] + [f"{sent[-1]:.0f} B"]
        shown = " to ".join(f"{ratio:.4f}" for ratio in sorted({min(ratios), max(ratios)}))
        print(f"| {name} | {' | '.join(cells)} | {sum(sent) / 1e6:.3f} | {shown} |", flush=True)
    _print_scaling(arguments.rounds)


def count(trainer: Any, batch: Any) -> dict[str, dict[str, float]]:
    """{"sent": bytes by kind that this rank sent in its second step, "formula": those that the planner expects}."""
    from dataclasses import asdict

    from firstlight.planning.communication import traffic_per_rank

    trainer.train_step(batch)
    counter = _counter(trainer.ranks)
    with counter:
        trainer.train_step(batch)
    expected = of_this_rank(traffic_per_rank, trainer)
    return {"sent": counter.sent, "formula": asdict(expected)}


def speed(trainer: Any, batch: Any) -> float:
    """Tokens a second of all ranks together, the median of 10 steps."""
    seconds = []
    for _ in range(13):
        started = time.perf_counter()
        trainer.train_step(batch)
        seconds.append(time.perf_counter() - started)
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


def _print_scaling(rounds: int) -> None:
    sides = {1: SCALING, 2: {**SCALING, "parallel.shard": 2}}
    found: dict[int, list[float]] = {ranks: [] for ranks in sides}
    for number in range(rounds):
        for ranks in sides if number % 2 == 0 else reversed(sides):
            (rates,) = run_ranks(__file__, "speed", [sides[ranks]])
            found[ranks].append(statistics.mean(rates))
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
    add_rank_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
