"""Reading a recipe to plan it: contradictions become findings where the plan can go on without one of the settings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from firstlight.config import RunConfig
from firstlight.pipeline.run_training import check_combinations, read_run_or_recipe
from firstlight.planning.diagnosis import Finding
from firstlight.recipe import apply_overrides, parse_config, read_recipe
from firstlight.support.errors import ConfigError
from firstlight.training.schedule import decay_range, warmup_steps

_LEFT_OUT: tuple[tuple[str, ...], ...] = (
    ("training.gradient_accumulation_steps",),
    ("training.micro_batch_size", "training.gradient_accumulation_steps"),
    ("model.max_position_embeddings",),
    ("optimizer.min_lr",),
    ("parallel",),
    ("parallel", "training.micro_batch_size", "training.gradient_accumulation_steps"),
    ("training.global_batch_size", "training.gradient_accumulation_steps"),
    ("parallel", "training.global_batch_size", "training.gradient_accumulation_steps"),
)
"""Settings that the plan may go on without, the least first."""
_MOST_CONTRADICTIONS = 4


def read_for_plan(recipe: str | Path, overrides: Sequence[str]) -> tuple[RunConfig, list[Finding]]:
    """The configuration, and what training would refuse in it.

    Raises ConfigError for what is no contradiction but a mistake (a key that is not known, a value of another type),
    and for a contradiction that no setting can be left out of.
    """
    if Path(recipe).is_dir():
        return read_run_or_recipe(recipe, overrides), []
    tree, origin = read_recipe(recipe)
    apply_overrides(tree, overrides)
    findings: list[Finding] = []
    mended = tree
    while len(findings) < _MOST_CONTRADICTIONS and (found := _problem(mended, origin)) is not None:
        trials = [(settings, changed) for settings in _LEFT_OUT if (changed := _without(mended, settings)) is not None]
        problems = [_problem(changed, origin) for _, changed in trials]
        # Best is what leaves nothing wrong, then what leaves something else.
        better = [place for place, problem in enumerate(problems) if problem is None]
        better += [place for place, problem in enumerate(problems) if problem not in (None, found)]
        if not better:
            return parse_config(tree, origin), []
        settings, changed = trials[better[0]]
        left_out = [setting for setting in settings if _value(mended, setting) is not None]
        findings.append(_contradiction(found.removeprefix(f"{origin}: "), left_out))
        mended = changed
    return parse_config(mended, origin), findings


def refused_by_training(
    config: RunConfig, total_steps: int, step_tokens: int
) -> tuple[list[Finding], tuple[int, int] | None]:
    """(what training refuses before it starts, from its own checks; last step of the warm-up and step where the decay
    ends, None where the schedule contradicts itself)."""
    findings = []
    try:
        check_combinations(config)
    except ConfigError as problem:
        findings.append(_contradiction(str(problem)))
    try:
        warmup = warmup_steps(config.schedule, total_steps, step_tokens)
        return findings, (warmup, decay_range(config.schedule, total_steps, step_tokens)[1])
    except ConfigError as problem:
        return [*findings, _contradiction(str(problem))], None


def _contradiction(sentence: str, left_out: Sequence[str] = ()) -> Finding:
    """Training's own sentence, which ends with what would be right after its first semicolon."""
    evidence, semicolon, remedy = sentence.partition("; ")
    helps = remedy if semicolon else "Change one of the settings that it names."
    if "_" not in helps.split()[0]:  # a setting is written as it is
        helps = helps[:1].upper() + helps[1:]
    if left_out:
        helps += f" This plan goes on without {' and '.join(left_out)}."
    end = "" if evidence.endswith((".", "?")) else "."
    return Finding("contradiction", "problem", None, f"{evidence}{end}", helps)


def _problem(tree: dict[str, Any], origin: str) -> str | None:
    """What is wrong with the tree where its settings disagree; None where they do not, or are none."""
    try:
        RunConfig.model_validate(tree)
    except ConfigError as problem:
        return f"{origin}: {problem}"
    except ValidationError as problem:
        if all(error["type"] == "value_error" for error in problem.errors()):
            return f"{origin}: {problem.errors()[0]['ctx']['error']}"
    return None


def _without(tree: dict[str, Any], settings: Sequence[str]) -> dict[str, Any] | None:
    """The tree without some settings; None where it has none of them, or not the first."""
    if _value(tree, settings[0]) is None:
        return None
    changed = copy.deepcopy(tree)
    for setting in settings:
        *parents, last = setting.split(".")
        node: Any = changed
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(last, None)
    return changed


def _value(tree: dict[str, Any], setting: str) -> Any:
    node: Any = tree
    for part in setting.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
