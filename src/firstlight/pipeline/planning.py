"""The verb `plan`: what a recipe would take, and whether it agrees with itself, before anything is started.

Nothing is built and nothing is written. Figures of the model are exact, those of memory, time and money predictions
with a range, by `firstlight.planning`; what training refuses is asked of training's own functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.pipeline.plan_budget import Budget, within_budget
from firstlight.pipeline.plan_data import datasets_here, passes_over_sources, resolved_model, tokenizer_size_of
from firstlight.pipeline.plan_machines import Machines, calibration_of, cluster_settings, machines_for
from firstlight.pipeline.plan_reading import read_for_plan, refused_by_training
from firstlight.pipeline.plan_steps import StepPlanner, settings_for
from firstlight.planning import conventions
from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.consistency import Situation, check_consistency
from firstlight.planning.diagnosis import Finding
from firstlight.planning.expectations import expectations
from firstlight.planning.flops import hardware_flops_per_token, training_flops_per_token
from firstlight.planning.hardware import load_device
from firstlight.planning.plan import Parameters, Plan
from firstlight.planning.shape import Shape


def plan(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    gpus: int | None = None,
    gpu: str | None = None,
    budget: Budget | None = None,
    calibrate: str | Path | None = None,
    search: bool = True,
) -> Plan:
    """The plan of a recipe, a YAML file or a run folder.

    gpus: how many; unset: as many as the recipe is written for. gpu: which (`load_device`); unset: this machine's, or
    for several processes on a machine without any, an A100, which the plan then says. budget: the length of training
    follows from it. calibrate: a run folder whose measured speed corrects the predictions. search: for other layouts.

    Raises ConfigError for what is wrong with recipe, hardware or budget. A recipe that contradicts itself is planned as
    far as it goes; `Plan.consistency` says how.
    """
    assumptions: list[str] = []
    chosen = load_device(gpu) if gpu else None
    cluster = [] if gpus is None else cluster_settings(gpus, chosen)
    config, findings = read_for_plan(recipe, [*overrides, *cluster])
    machines = machines_for(config, chosen, elsewhere=gpus is not None, assumptions=assumptions)
    calibration = DEFAULT
    if calibrate is not None:
        calibration = calibration_of(calibrate, machines)
        assumptions.append(f"Step times are {calibration.scale:.3g} times the model's, as measured in {calibrate}.")
    return make_plan(
        config, machines, budget=budget, calibration=calibration, search=search, found=findings, assumptions=assumptions
    )


def make_plan(
    config: RunConfig,
    machines: Machines,
    *,
    budget: Budget | None = None,
    calibration: Calibration = DEFAULT,
    search: bool = True,
    found: Sequence[Finding] = (),
    assumptions: Sequence[str] = (),
) -> Plan:
    """The plan of a configuration on given machines; search=False: of its own layout only, in milliseconds.

    found: what reading the recipe has found. Raises ConfigError where the recipe has no length and there is no budget.
    """
    assumed = list(assumptions)
    datasets = datasets_here(config)
    tokenizer_size = tokenizer_size_of(config, datasets)
    config = config.model_copy(update={"model": resolved_model(config, tokenizer_size)})
    planner = StepPlanner(config, machines, calibration)
    own = planner.own()
    result = planner.search(own) if search else None
    costed = own
    if result and result.best and not (own and planner.fits(own)):
        costed = result.best[0]
        assumed.append("The recipe's own layout does not fit: hours and money are those of the best one that does.")
    if budget is not None and budget.given:
        config = within_budget(budget, config, planner, costed, assumed)
    batch, steps = config.batch(machines.devices), config.steps(machines.devices)
    tokens = steps * batch.global_batch_size * config.data.sequence_length
    epochs, worth, drawn = passes_over_sources(config, datasets, steps, batch.global_batch_size)
    sizes = {name: dataset.splits["train"].num_tokens for name, dataset in datasets.items()}
    expected = None
    if config.model.causal:
        expected = expectations(config.model, config.data.sequence_length, tokens, worth)
    refused, schedule = refused_by_training(config, steps, tokens // steps)
    situation = Situation(
        config=config,
        layout=config.layout(machines.devices),
        batch=batch,
        total_steps=steps,
        schedule=schedule,
        device=machines.device,
        devices_per_node=machines.devices_per_node,
        expected=expected,
        source_tokens=sizes,
        source_epochs=epochs,
        tokenizer_size=tokenizer_size,
        memory_bytes=round(own.memory_bytes) if own else None,
        step_seconds=costed.step.seconds if costed else None,
        bubble_share=own.step.bubble_seconds / own.step.seconds if own else 0.0,
    )
    return Plan(
        config=config,
        assumptions=tuple(assumed),
        parameters=parameters_by_part(config),
        flops_per_token=flops_by_convention(config),
        total_steps=steps,
        global_batch_size=batch.global_batch_size,
        source_tokens=sizes,
        source_epochs=epochs,
        expected=expected,
        device=machines.device,
        devices=machines.devices,
        devices_per_node=machines.devices_per_node,
        own=own,
        own_memory=tuple(planner.memory(own.division)) if own else (),
        search=result,
        memory=tuple(tuple(planner.memory(ranked.division)) for ranked in result.best) if result else (),
        overrides=tuple(tuple(settings_for(config, r.division, machines, every=bool(found))) for r in result.best)
        if result
        else (),
        cost=planner.cost(costed, tokens) if costed else None,
        costed=costed,
        consistency=check_consistency(situation, [*found, *drawn, *refused]),
    )


def parameters_by_part(config: RunConfig) -> Parameters:
    """Where the parameters of a resolved configuration's model are."""
    shape = Shape.of(config.model)
    embedding = shape.embedding_parameters + shape.table_rows * shape.hidden_size
    head = shape.head_transform + (0 if shape.tied else shape.embedding_parameters)
    return Parameters(embedding, shape.parameters - embedding - head - shape.other_vectors, head, shape.other_vectors)


def flops_by_convention(config: RunConfig) -> dict[str, float]:
    """Training FLOPs for each token by the conventions that people quote; `hardware` includes recomputation."""
    model, length, predicted = config.model, config.data.sequence_length, config.predicted_share
    shape = Shape.of(model)
    return {
        "firstlight": training_flops_per_token(model, length, predicted),
        "hardware": hardware_flops_per_token(model, length, config.training.recompute, predicted),
        "six_n": conventions.six_n(shape.parameters),
        "palm": conventions.palm(shape.parameters, shape.num_hidden_layers, shape.attention_width, length),
        "megatron_lm": conventions.megatron_lm(shape, length),
    }
