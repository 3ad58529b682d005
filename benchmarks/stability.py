"""What the guard does: planted faults with and without it, false alarms on clean runs, and what its checks cost.

Trains small models on the packaged text (extra `starter`) in a temporary folder, every run from the same weights over
the same samples. Faults are planted by sample number, so that a run which goes back and passes over the samples meets
them once: 20 steps of random tokens, 20 steps of shuffled targets, a learning rate a hundred times too large for 5
steps. Clean runs of five sizes count the steps that are skipped although nothing was wrong. With --write the tables go
to docs/stability.md and its translation, and the curves to docs/images/stability.svg.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import STARTER, machine, write_table
from firstlight.config import RunConfig, StabilityConfig
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.pipeline.run_training import sample_stream, validator
from firstlight.pipeline.stages import Prepared, prepare
from firstlight.recipe import parse_config
from firstlight.support.errors import DivergedError
from firstlight.tokens.objective import Objective, next_token
from firstlight.training import trainer as trainer_module
from firstlight.training.guard import Guard
from firstlight.training.run_folder import RunFolder
from firstlight.training.trainer import Trainer

STEPS, BATCH, LENGTH = 500, 8, 128
FAULT_AT, FAULT_STEPS, RATE_STEPS = 250, 20, 5
SIZES = {
    "32 × 2": {"model.hidden_size": 32, "model.num_hidden_layers": 2},
    "64 × 3": {"model.hidden_size": 64, "model.num_hidden_layers": 3},
    "64 × 3, 2 sequences a step": {"training.global_batch_size": 2},
    "96 × 4": {"model.hidden_size": 96, "model.num_hidden_layers": 4},
    "128 × 4, 16 sequences a step": {
        "model.hidden_size": 128,
        "model.num_hidden_layers": 4,
        "training.global_batch_size": 16,
    },
}
"""Width × blocks; 8 sequences a step unless said otherwise."""
HEADS = {
    "faults": {
        "en": "| fault | guard | steps skipped | times gone back | loss at the end | against the clean run |",
        "zh": "| 故障 | 守卫 | 跳过的步数 | 回退次数 | 最终损失 | 与正常运行之比 |",
    },
    "clean": {
        "en": "| width × blocks | steps | skipped | gone back | largest deviation, loss | norm | cost of checks |",
        "zh": "| 宽度 × 层数 | 步数 | 跳过 | 回退次数 | 最大偏差，损失 | 梯度范数 | 检查占一步的比例 |",
    },
}
PAGES = {"en": "stability.md", "zh": "stability.zh.md"}
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "stability.svg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of every run")
    parser.add_argument("--write", action="store_true", help="put tables and picture into the documentation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder), arguments.steps)
        clean = laboratory.run("clean", {}, None)
        faults = {
            (fault, guard): laboratory.run(f"{fault} {guard}", {"stability.guard": guard}, plant)
            for fault, plant in FAULTS.items()
            for guard in (True, False)
        }
        sizes = {name: laboratory.run(name, settings, None) for name, settings in SIZES.items()}
    about = f"{machine()}; torch {torch.__version__}; {datetime.date.today():%d %B %Y}."
    for language, page in PAGES.items():
        tables = {"faults": fault_rows(clean, faults), "clean": clean_rows(sizes)}
        for kind, rows in tables.items():
            columns = HEADS[kind][language].count("|") - 1
            text = "\n".join((HEADS[kind][language], "|---" * columns + "|", *rows, "", about))
            if language == "en":
                print(text, end="\n\n")
            if arguments.write:
                write_table(page, kind, text)
    if arguments.write:
        draw(clean, faults)


class Laboratory:
    """One text, many runs."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps, self.count = folder, steps, 0

    def run(self, name: str, settings: dict[str, Any], plant: Callable[[Trainer], None] | None) -> dict[str, Any]:
        """{"losses": by step, "final": mean of the held-out losses, "skipped", "rollbacks", "cost", "steps"}."""
        self.count += 1
        config = self._config(f"run-{self.count}", settings)
        prepared = prepare(config)
        config = prepared.config
        run = RunFolder(config.run_folder)
        run.create(config, prepared.tokenizer, prepared.provenance(config))
        trainer = self._trainer(config, prepared, run)
        if plant is not None:
            plant(trainer)
        began = time.perf_counter()
        ended = ""
        try:
            trainer.fit()
        except DivergedError as problem:
            ended = str(problem)
        finally:
            trainer_module.learning_rate = LEARNING_RATE
        seconds = (time.perf_counter() - began) / self.steps
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        final = statistics.mean(score["loss"] for score in trainer.last_validation.values())
        print(
            f"{name}: {final:.3f}, {trainer.guard.skipped_steps} skipped, {trainer.guard.rollbacks} back {ended}",
            flush=True,
        )
        return {
            "losses": [(line["step"], line["loss"]) for line in lines if "loss" in line],
            "final": final,
            "skipped": trainer.guard.skipped_steps,
            "rollbacks": trainer.guard.rollbacks,
            "cost": cost_of_a_check(trainer.guard) / seconds,
            "steps": trainer.step,
            "largest": largest_deviations(run),
        }

    def _config(self, name: str, settings: dict[str, Any]) -> RunConfig:
        flat = {
            "model.hidden_size": 64,
            "model.num_hidden_layers": 3,
            "training.global_batch_size": BATCH,
            **settings,
        }
        tree: dict[str, Any] = {
            "name": name,
            "runs_directory": str(self.folder / "runs"),
            "data": {
                "directory": str(self.folder / "data"),
                "sources": {text.partition(":")[2]: {"text": [text]} for text in STARTER},
                "mixture": {"books": 0.6, "wikipedia": 0.2, "code": 0.2},
                "sequence_length": LENGTH,
                "validation_fraction": 0.03,
            },
            "tokenizer": {"vocab_size": 4096, "sample_bytes": 10_000_000},
            "model": {"num_attention_heads": 4, "tie_word_embeddings": True},
            "optimizer": {"lr": 3e-3, "min_lr": 3e-4},
            "schedule": {"warmup_steps": 50},
            "training": {"total_steps": self.steps, "precision": "fp32", "compile": False, "device": "cpu"},
            "checkpoint": {"interval_steps": 50},
            "evaluation": {"interval_steps": self.steps, "max_tokens": 20_000},
            "logging": {"interval_steps": 1},
        }
        for key, value in flat.items():
            section, field = key.split(".")
            tree.setdefault(section, {})[field] = value
        tree["training"]["micro_batch_size"] = tree["training"]["global_batch_size"]
        return parse_config(tree, "stability")

    def _trainer(self, config: RunConfig, prepared: Prepared, run: RunFolder) -> Trainer:
        ranks = Ranks(device=torch.device("cpu"))
        model = ParallelModel(config, ranks)
        model.materialize()
        model.init_weights()
        return Trainer(
            config,
            run,
            model,
            sample_stream(prepared),
            objective=next_token,
            eod_id=prepared.tokenizer.eod_id,
            peak_flops=math.inf,  # MFU is not what is measured
            validate=validator(prepared, ranks),
        )


LEARNING_RATE = trainer_module.learning_rate


def spoilt(trainer: Trainer, sample: int, steps: int) -> bool:
    """Whether a sample lies in the planted window."""
    batch = trainer.batch.global_batch_size
    return FAULT_AT * batch <= sample < (FAULT_AT + steps) * batch


def plant_noise(trainer: Trainer) -> None:
    """Random tokens instead of text."""

    def objective(rows: Any, first_sample: int) -> Any:
        if spoilt(trainer, first_sample, FAULT_STEPS):
            rows = np.random.default_rng(first_sample).integers(0, 4096, rows.shape)
        return next_token(rows, first_sample)

    trainer.objective = objective


def plant_shuffled_targets(trainer: Trainer) -> None:
    """The targets of a step in another order."""
    plain: Objective = next_token

    def objective(rows: Any, first_sample: int) -> Any:
        inputs, targets = plain(rows, first_sample)
        if spoilt(trainer, first_sample, FAULT_STEPS):
            shuffled = np.random.default_rng(first_sample).permutation(targets.reshape(-1))
            targets = shuffled.reshape(targets.shape)
        return inputs, targets

    trainer.objective = objective


def plant_learning_rate(trainer: Trainer) -> None:
    """A learning rate a hundred times too large."""

    def wrong(*arguments: Any) -> float:
        factor = 100 if spoilt(trainer, trainer.samples_consumed, RATE_STEPS) else 1
        return factor * LEARNING_RATE(*arguments)

    trainer_module.learning_rate = wrong


FAULTS = {
    "20 steps of random tokens": plant_noise,
    "20 steps of shuffled targets": plant_shuffled_targets,
    "learning rate × 100 for 5 steps": plant_learning_rate,
}


def cost_of_a_check(guard: Guard, times: int = 200) -> float:
    """Seconds that judging one step takes, with a full window."""
    config, state = guard.config, guard.state()
    other = Guard(config)
    other.load(state)
    began = time.perf_counter()
    for _ in range(times):
        other.judge(state["losses"][-1], 1.0)
    return (time.perf_counter() - began) / times


def largest_deviations(run: RunFolder) -> tuple[float, float]:
    """Of all accepted steps, how far loss and logarithm of the gradient norm lay above the window's medians at most."""
    guard = Guard(StabilityConfig())
    largest = (0.0, 0.0)
    for line in map(json.loads, run.metrics.read_text().splitlines()):
        if line.get("grad_norm") is None or line["loss"] is None:
            continue
        if line["step"] > guard.config.least_steps:
            seen = guard.deviations(line["loss"], line["grad_norm"])
            largest = (max(largest[0], seen[0]), max(largest[1], seen[1]))
        guard.judge(line["loss"], line["grad_norm"])
    return largest


def fault_rows(clean: dict[str, Any], faults: dict[tuple[str, bool], dict[str, Any]]) -> list[str]:
    rows = [f"| – | on | {clean['skipped']} | {clean['rollbacks']} | {clean['final']:.3f} | 1.000 |"]
    for (fault, guard), run in faults.items():
        rows.append(
            f"| {fault} | {'on' if guard else 'off'} | {run['skipped']} | {run['rollbacks']} | {run['final']:.3f} | "
            f"{run['final'] / clean['final']:.3f} |"
        )
    return rows


def clean_rows(sizes: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"| {name} | {run['steps']} | {run['skipped']} | {run['rollbacks']} | {run['largest'][0]:.1f} | "
        f"{run['largest'][1]:.1f} | {100 * run['cost']:.2f} % |"
        for name, run in sizes.items()
    ]


def draw(clean: dict[str, Any], faults: dict[tuple[str, bool], dict[str, Any]]) -> None:
    """Curves side by side: a panel for each fault, clean in grey, without and with the guard over it."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(FAULTS), figsize=(12, 3.6), sharey=True, layout="constrained")
    for panel, fault in zip(panels, FAULTS, strict=True):
        for run, color, label in (
            (faults[fault, False], "#c44e52", "guard off"),
            (faults[fault, True], "#4c72b0", "guard on"),
            (clean, "#888888", "clean"),
        ):
            steps, losses = zip(*((step, loss) for step, loss in run["losses"] if loss is not None), strict=True)
            panel.plot(steps, np.minimum(losses, 12), color=color, label=label, linewidth=0.8)
        panel.set_title(fault, fontsize=10)
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("training loss, nats a token")
    panels[-1].legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
