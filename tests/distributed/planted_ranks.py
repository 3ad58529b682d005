"""One rank that trains a recipe with a fault planted: `torchrun … planted_ranks.py FAULT.json RECIPE OVERRIDES…`.

FAULT.json has one of
    {"kind": "overflow", "rank", "steps"}    infinite numbers in the gradients of one rank, whatever that rank holds
    {"kind": "spike", "rank", "steps"}       gradients of one rank a thousand times too large
    {"kind": "kills", "kills": [{"rank", "step", "when": "step" or "save"}, …]}
                                             SIGKILL, one at each start, in the middle of a step or of its save
What the test wants to see of the ranks' insides is written next to FAULT.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from firstlight.parallel.parallel_model import ParallelModel
from firstlight.pipeline.run_training import train
from firstlight.support import ranks
from firstlight.support.parts import local_part
from firstlight.training.guard import Guard, Verdict
from firstlight.training.loss_scale import LossScale
from firstlight.training.trainer import Trainer


def plant_overflow(folder: Path, rank: int, steps: list[int]) -> None:
    """Make a gradient of `rank` infinite at `steps`; every rank keeps a line for each step with the loss scale."""
    forward_backward, update = ParallelModel.forward_backward, LossScale.update
    done = 0

    def overflow(model: ParallelModel, *arguments: Any) -> torch.Tensor:
        nonlocal done
        done += 1
        loss = forward_backward(model, *arguments)
        if done in steps and ranks.rank() == rank:
            mine = max((local_part(p.grad) for _, p in model.named_parameters()), key=torch.numel)
            mine.view(-1)[0] = torch.inf
        return loss

    def keep(scale: LossScale, overflow: bool) -> None:
        update(scale, overflow)
        with (folder / f"scales_{ranks.rank()}").open("a") as handle:
            handle.write(json.dumps({"overflow": overflow, **scale.state()}) + "\n")

    ParallelModel.forward_backward = overflow  # type: ignore[method-assign]
    LossScale.update = keep  # type: ignore[method-assign]


def plant_spike(folder: Path, rank: int, steps: list[int]) -> None:
    """Multiply the gradients of `rank` by a thousand at `steps`; every rank keeps a line for each verdict."""
    forward_backward, judge = ParallelModel.forward_backward, Guard.judge
    done = 0

    def spike(model: ParallelModel, *arguments: Any) -> torch.Tensor:
        nonlocal done
        done += 1
        loss = forward_backward(model, *arguments)
        if done in steps and ranks.rank() == rank:
            for _, parameter in model.named_parameters():
                if parameter.grad is not None:
                    local_part(parameter.grad).mul_(1000)
        return loss

    def keep(guard: Guard, *arguments: Any) -> Verdict:
        verdict = judge(guard, *arguments)
        with (folder / f"verdicts_{ranks.rank()}").open("a") as handle:
            handle.write(json.dumps([verdict.accepted, verdict.reason, verdict.limit]) + "\n")
        return verdict

    ParallelModel.forward_backward = spike  # type: ignore[method-assign]
    Guard.judge = keep  # type: ignore[method-assign]


def plant_kills(folder: Path, kills: list[dict[str, Any]]) -> None:
    """Kill a rank at this start as `kills` says, if it still says anything; a rank dies in a step only when the
    checkpoint before it is complete."""
    start = ranks.restarts()
    if start >= len(kills) or kills[start]["rank"] != ranks.rank():
        return
    kill = kills[start]
    forward_backward, train_step, write_data = (
        ParallelModel.forward_backward,
        Trainer.train_step,
        FileSystemWriter.write_data,
    )
    trainers: list[Trainer] = []

    def noted(trainer: Trainer, *arguments: Any) -> Any:
        trainers[:] = [trainer]
        return train_step(trainer, *arguments)

    def die_in_step(model: ParallelModel, *arguments: Any) -> torch.Tensor:
        loss = forward_backward(model, *arguments)
        (trainer,) = trainers
        if trainer.step + 1 == kill["step"]:
            while (trainer.run.last_step() or 0) < kill["saved"]:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    def die_in_save(writer: FileSystemWriter, *arguments: Any) -> Any:
        result = write_data(writer, *arguments)
        if f"step_{kill['step']:06d}" in str(writer.path):
            (folder / f"left_{start}").write_text(json.dumps(sorted(os.listdir(Path(writer.path).parent))))  # noqa: PTH208
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Trainer.train_step = noted  # type: ignore[method-assign]
    if kill["when"] == "step":
        ParallelModel.forward_backward = die_in_step  # type: ignore[method-assign]
    else:
        FileSystemWriter.write_data = die_in_save  # type: ignore[method-assign]


def main() -> None:
    file, recipe, *overrides = sys.argv[1:]
    torch.set_num_threads(1)
    fault = json.loads(Path(file).read_text())
    plant = {"overflow": plant_overflow, "spike": plant_spike, "kills": plant_kills}[fault.pop("kind")]
    plant(Path(file).parent, **fault)
    train(recipe, overrides)


if __name__ == "__main__":
    main()
