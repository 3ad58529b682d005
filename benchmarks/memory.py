"""Peak memory of real training steps on ranks, against `firstlight.planning.memory` and PyTorch's memory tracker.

Every layout is real ranks of our own engine, eager, one thread each. Measured is the most that PyTorch's allocator had
given out at a time during the second step: on a CPU every allocation and release as the profiler records them, added
to the weights and moments that were there before; on CUDA `torch.cuda.max_memory_allocated`. Beside it stands the peak
that `torch.distributed._tools.mem_tracker.MemTracker` finds for one more step. The prediction is `RankMemory.tensors`,
without the margin and the context that a device needs besides. With --write the table takes its place in docs/memory.md
and its translation.

    python benchmarks/memory.py --write
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
from collections import defaultdict
from typing import Any

from on_ranks import Settings, add_rank_arguments, of_this_rank, run_ranks, tell, world_size_of

SIZE: Settings = {
    "data.sequence_length": 256,
    "model.vocab_size": 4096,
    "model.hidden_size": 256,
    "model.intermediate_size": 704,
    "model.num_hidden_layers": 8,
    "training.micro_batch_size": 4,
}
"""8 million parameters, 1,024 tokens a micro-batch: activations and states are hundreds of MB, a step is seconds."""
FOUR = {"training.gradient_accumulation_steps": 4}
BF16 = {"training.precision": "bf16"}
LAYOUTS: dict[str, Settings] = {
    "1 process": {},
    "1 process, bf16": BF16,
    "1 process, accumulation 2": {"training.gradient_accumulation_steps": 2},
    "1 process, selective recomputation": {"training.recompute": "selective"},
    "1 process, full recomputation": {"training.recompute": "full"},
    "FSDP 2": {"parallel.shard": 2},
    "FSDP 2, bf16": {"parallel.shard": 2, **BF16},
    "FSDP 2, accumulation 2": {"parallel.shard": 2, "training.gradient_accumulation_steps": 2},
    "FSDP 2, selective recomputation": {"parallel.shard": 2, "training.recompute": "selective"},
    "FSDP 2, full recomputation": {"parallel.shard": 2, "training.recompute": "full"},
    "TP 2": {"parallel.tensor": 2},
    "TP 2, bf16": {"parallel.tensor": 2, **BF16},
    "TP 2, full recomputation": {"parallel.tensor": 2, "training.recompute": "full"},
    "CP 2": {"parallel.context": 2},
    "PP 2, 1F1B": {"parallel.pipeline": 2, **FOUR},
    "PP 2, GPipe, full recomputation": {
        "parallel.pipeline": 2,
        "parallel.pipeline_schedule": "gpipe",
        "training.recompute": "full",
        **FOUR,
    },
    "PP 2, interleaved": {"parallel.pipeline": 2, "parallel.pipeline_schedule": "interleaved", **FOUR},
    "PP 2, interleaved zero bubble": {
        "parallel.pipeline": 2,
        "parallel.pipeline_schedule": "interleaved_zero_bubble",
        **FOUR,
    },
    "PP 2, ZBV": {"parallel.pipeline": 2, "parallel.pipeline_schedule": "zbv", **FOUR},
    "FSDP 4": {"parallel.shard": 4},
    "HSDP 2 × 2": {"parallel.replicate": 2, "parallel.shard": 2},
    "FSDP 2 × TP 2": {"parallel.shard": 2, "parallel.tensor": 2},
    "TP 2 × PP 2": {"parallel.tensor": 2, "parallel.pipeline": 2, **FOUR},
    "PP 2 × FSDP 2": {"parallel.pipeline": 2, "parallel.shard": 2, **FOUR},
}
"""Settings beside SIZE; fp32 and one micro-batch a step unless they say otherwise."""
HEADS = {
    "en": "| layout | predicted, MB | measured, MB | PyTorch's tracker, MB | predicted / measured |",
    "zh": "| 布局 | 预测，MB | 实测，MB | PyTorch 的跟踪器，MB | 预测 / 实测 |",
}
WORDS = {
    "1 process": "单进程",
    "accumulation": "梯度累积",
    "selective recomputation": "选择性重计算",
    "full recomputation": "完全重计算",
    "interleaved zero bubble": "交错零气泡",
    "interleaved": "交错",
    " to ": " 至 ",
    ", ": "，",
}
PAGES = {"en": "memory.md", "zh": "memory.zh.md"}


def main() -> None:
    """Measure every layout and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="LAYOUT", help="these layouts only")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where the ranks compute")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    add_rank_arguments(parser)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        tell(arguments, functools.partial(measure, tracked=arguments.work == "tracked"))
        return

    import torch

    from common import machine, write_table

    about = f"{machine()}, torch {torch.__version__}; {datetime.date.today()}"
    print(about)
    names = list(arguments.only or LAYOUTS)
    found = measure_layouts({name: {"training.device": arguments.device, **LAYOUTS[name]} for name in names})
    rows = [row(name, found[name]) for name in names]
    for language, head in HEADS.items():
        table = "\n".join((head, "|---|" + "---:|" * 4, *rows, "", f"`benchmarks/memory.py`; {about}."))
        if language == "zh":
            for word, translated in WORDS.items():
                table = "\n".join(line.replace(word, translated) for line in table.splitlines())
        else:
            print(table)
        if arguments.write:
            write_table(PAGES[language], "memory-table", table)
    worst = max((abs(rank["predicted"] / rank["measured"] - 1), name) for name in names for rank in found[name])
    print(f"furthest from what was measured: {100 * worst[0]:.1f} % ({worst[1]})")


def measure_layouts(layouts: dict[str, Settings], timeout: float = 1800, tracked: bool = True) -> dict[str, list[Any]]:
    """What `measure` finds on each rank of each layout; layouts of as many ranks one after the other in one start.

    tracked: also with PyTorch's tracker, which is slow.
    """
    sizes: dict[int, dict[str, Settings]] = defaultdict(dict)
    for name, settings in layouts.items():
        both = {**SIZE, **settings}
        sizes[world_size_of(both)][name] = both
    work = "tracked" if tracked else "allocated"
    return {
        name: ranks
        for group in sizes.values()
        for name, ranks in zip(group, run_ranks(__file__, work, list(group.values()), timeout), strict=True)
    }


def row(name: str, ranks: list[dict[str, Any]]) -> str:
    """A line of the table: the fullest rank, and how far prediction and measurement are apart over all ranks."""
    fullest = max(ranks, key=lambda rank: rank["measured"])
    sizes = (fullest[key] for key in ("predicted", "measured", "tracker"))
    ratios = sorted({f"{rank['predicted'] / rank['measured']:.3f}" for rank in ranks})
    shown = ratios[0] if len(ratios) == 1 else f"{ratios[0]} to {ratios[-1]}"
    return f"| {name} | {' | '.join(f'{size / 1e6:.1f}' if size else '–' for size in sizes)} | {shown} |"


def measure(trainer: Any, batch: Any, *, tracked: bool) -> dict[str, Any]:
    """Bytes of this rank: predicted, measured, and by PyTorch's tracker; `parts` of the prediction."""
    from dataclasses import asdict

    from firstlight.planning.in_flight import SPLIT_BACKWARD

    trainer.train_step(batch)  # makes the optimizer's moments
    measured = _allocated_on_cuda(trainer, batch) if trainer.device.type == "cuda" else _allocated(trainer, batch)
    predicted = prediction(trainer)
    return {
        "predicted": predicted.tensors,
        "measured": measured,
        # The tracker's hooks do not go with a backward pass that is taken apart.
        "tracker": _tracked(trainer, batch)
        if tracked and trainer.config.parallel.pipeline_schedule not in SPLIT_BACKWARD
        else 0,
        "parts": asdict(predicted),
    }


def prediction(trainer: Any) -> Any:
    """The planner's estimate for this rank."""
    from firstlight.planning.memory import memory_per_rank

    return of_this_rank(memory_per_rank, trainer)


def _allocated(trainer: Any, batch: Any) -> int:
    """The peak of the CPU's allocator in a step: what was there before it, and every change that the profiler saw."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.train_step(batch)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return _held(trainer) + max(itertools.accumulate(changes))


def _allocated_on_cuda(trainer: Any, batch: Any) -> int:
    import torch

    torch.cuda.reset_peak_memory_stats()
    trainer.train_step(batch)
    return torch.cuda.max_memory_allocated()


def _held(trainer: Any) -> int:
    """Bytes of the weights and moments between steps."""
    from firstlight.support.parts import local_part

    tensors = [parameter.detach() for _, parameter in trainer.model.named_parameters()]
    tensors += [tensor for _, tensor in trainer.optimizer.tensors()]
    storages = (local_part(tensor).untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tracked(trainer: Any, batch: Any) -> int:
    """The peak that PyTorch's own tracker finds in a step."""
    from torch.distributed._tools.mem_tracker import MemTracker

    class Tracker(MemTracker):
        """It takes a module's second micro-batch for a second iteration, unless it forgets the first."""

        def _pre_fw_hook(self, module: Any, inputs: Any) -> None:
            if not self._mod_tracker.is_bw:
                self.memory_tracking.pop(module, None)
            super()._pre_fw_hook(module, inputs)

    tracker = Tracker()
    tracker.track_external(*trainer.model.parts.values(), trainer.optimizer._adamw)
    with tracker:
        trainer.train_step(batch)
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return snapshot["Total"]


if __name__ == "__main__":
    main()
