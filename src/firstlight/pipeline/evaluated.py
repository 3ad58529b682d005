"""What is evaluated, a run or the folder of a Hugging Face model, and where a run keeps what came out.

`evaluations.jsonl` of a run folder has a line for each evaluation: when, of which step, how, and the numbers. The card
of an export shows the last ones of its step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from firstlight.support.files import to_json
from firstlight.support.lines import LineFile
from firstlight.support.secrets import without_secrets
from firstlight.training.device import choose_device
from firstlight.training.load import TrainedModel, allocate_model, load_trained
from firstlight.training.run_folder import RunFolder

HUGGING_FACE = "config.json"
"""The file that tells the folder of such a model from a run."""


def open_model(source: str | Path, step: int | None = None, device: str | None = None) -> TrainedModel:
    """The model of a run at `step` (unset: the newest), or of a Hugging Face folder, in evaluation mode."""
    run = RunFolder(Path(source))
    if run.exists or not (run.path / HUGGING_FACE).is_file():
        return load_trained(source, step, device)
    from firstlight.pipeline.importing import open_huggingface

    given, tokenizer, config = open_huggingface(source)
    model = allocate_model(config, choose_device(device or "auto"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(given.tensors[name])
    return TrainedModel(run, config, model.eval(), tokenizer, {"step": None})


def record_evaluation(trained: TrainedModel, found: Mapping[str, Any]) -> None:
    """Add a line to `evaluations.jsonl`; nothing where the model is not a run's."""
    if not trained.run.exists:
        return
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": trained.state["step"],
        **found,
    }
    LineFile(trained.run.evaluations).write(to_json(without_secrets(line)))


def recorded_evaluation(run: RunFolder, step: int) -> dict[str, Any]:
    """The newest numbers of `step`: {"held_out": by source, "tasks": by task}, each where there are any."""
    found: dict[str, Any] = {}
    for line in _lines(run):
        if line.get("step") != step:
            continue
        if isinstance(line.get("held_out"), dict):
            found["held_out"] = line["held_out"]
        if isinstance(line.get("tasks"), dict):
            found["tasks"] = {**found.get("tasks", {}), **line["tasks"]}
    return found


def _lines(run: RunFolder) -> Iterator[dict[str, Any]]:
    if not run.evaluations.is_file():
        return
    for text in run.evaluations.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue  # cut short by a kill
        if isinstance(line, dict):
            yield line
