"""From a recipe, a file or a run folder to a trained run: prepare, build, resume or begin, train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.parallel.compile import why_not_compile
from firstlight.pipeline.scoring import score_splits
from firstlight.pipeline.stages import Prepared, describe_datasets, prepare
from firstlight.planning.flops import parameter_count, training_flops_per_token
from firstlight.recipe import apply_overrides, config_diff, load_config, parse_config, read_recipe
from firstlight.support.console import heading, human_count, note, warn
from firstlight.support.errors import ConfigError
from firstlight.support.files import folder_lock
from firstlight.tokens.batches import SampleStream
from firstlight.training.device import choose_device, device_name, peak_flops
from firstlight.training.load import allocate_model, build_model
from firstlight.training.run_folder import RunFolder
from firstlight.training.schedule import decay_range
from firstlight.training.trainer import Trainer, Validate


def train(recipe: str | Path, overrides: Sequence[str] = ()) -> RunFolder:
    """Train a recipe (name or YAML file), or resume a run folder; returns the run.

    Stages before training run first where the recipe names text (cached). A run that exists is resumed from its newest
    sound checkpoint when its settings agree, and refused when they do not.
    """
    original = read_run_or_recipe(recipe, overrides)
    check_before_work(original)
    return train_prepared(original, prepare(original))


def read_run_or_recipe(recipe: str | Path, overrides: Sequence[str]) -> RunConfig:
    """Configuration of a recipe, of a file, or of a run folder (whose name and place then follow the folder)."""
    path = Path(recipe)
    if not path.is_dir():
        return load_config(recipe, overrides)
    run = RunFolder.open(path)
    for override in overrides:
        if override.partition("=")[0].strip() in ("name", "runs_directory"):
            raise ConfigError(
                f"'{override}': a resumed run keeps its folder, {path}; rename the folder to rename the run."
            )
    if path.name in ("", ".."):
        path = path.resolve()
    tree, origin = read_recipe(run.config_file)
    apply_overrides(tree, overrides)
    return parse_config({**tree, "runs_directory": str(path.parent), "name": path.name}, origin)


def check_before_work(config: RunConfig) -> RunFolder:
    """The run of a configuration, after all that can be wrong with it and its folder before stages are run."""
    check_supported(config)
    run = RunFolder(config.run_folder)
    if not run.exists:
        run.check_place()
        return run
    with folder_lock(run.path, "the run"):
        _ = run.config, run.provenance
    return run


def check_supported(config: RunConfig) -> None:
    """ConfigError for what the schema knows and this release cannot do yet, before anything is started."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        raise ConfigError(
            f"started as {world_size} processes; this release trains in one process. Start it without torchrun."
        )
    parallel = config.parallel
    for name, size in (("tensor", parallel.tensor), ("pipeline", parallel.pipeline), ("context", parallel.context)):
        if size > 1:
            raise ConfigError(
                f"parallel.{name} is {size}; this release trains in one process. Use parallel.{name}=1, "
                "or wait for the release that divides a model over processes."
            )
    if config.training.precision == "fp16":
        raise ConfigError(
            "training.precision is fp16, which needs a loss scale that this release does not have; "
            "use training.precision=bf16 (same speed, wider range) or fp32."
        )
    choose_device(config.training.device)
    step_tokens = config.batch(world_size=1).global_batch_size * config.data.sequence_length
    decay_range(config.schedule, config.steps(world_size=1), step_tokens)


def show_settings(original: RunConfig, resolved: RunConfig) -> None:
    """Print how the resolved configuration differs from the recipe."""
    differences = [(k, before, after) for k, before, after in config_diff(original, resolved) if after != []]
    if differences:
        note("\nsettings that were filled in:")
        for key, before, after in differences:
            note(f"  {key}: {'unset' if before in (None, {}) else before} → {after}")


def train_prepared(original: RunConfig, prepared: Prepared) -> RunFolder:
    """Train or resume the run of a configuration whose stages before training are done."""
    run = RunFolder(original.run_folder)
    show_settings(original, prepared.config)
    with folder_lock(run.path, "the run"):
        return _train_locked(original, prepared, run)


def _train_locked(original: RunConfig, prepared: Prepared, run: RunFolder) -> RunFolder:
    config = prepared.config
    heading(f"train: {run.path}")
    device = choose_device(config.training.device)
    stream = sample_stream(prepared)
    for remark in stream.notes():
        note(remark)
    total_steps, global_batch_size = config.steps(world_size=1), config.batch(1).global_batch_size
    stream.check_supply(total_steps * global_batch_size, global_batch_size)
    peak, peak_source = peak_flops(device, config.training.precision)
    reason = why_not_compile(device) if config.training.compile else "training.compile is false"
    if config.training.compile and reason:
        warn(f"torch.compile is off: {reason}.")
    _describe(config, prepared, device, peak, peak_source, total_steps, compiled=reason is None)

    resuming = run.exists and run.last_step() is not None
    model = allocate_model(config, device) if resuming else build_model(config, device)
    trainer = Trainer(
        config,
        run,
        model,
        stream,
        device,
        eod_id=prepared.tokenizer.eod_id,
        peak_flops=peak,
        compile_blocks=reason is None,
        validate=validator(prepared),
    )
    provenance = prepared.provenance(original)
    if run.exists:
        run.check_resumable(config, provenance, prepared.tokenizer)
        run.write_config(config)
        prepared.tokenizer.save(run.tokenizer_folder)
    else:
        run.create(config, prepared.tokenizer, provenance)
    if resuming:
        trainer.resume()
        if trainer.step >= trainer.total_steps:
            note(f"{run.path} is finished: step {trainer.step} of {trainer.total_steps}; more: training.total_steps=N")
            return run
        note(f"resumed at step {trainer.step}")
    else:
        run.trim_metrics(0)  # of a start that ended before its first checkpoint
    trainer.fit()
    run.event("finished", step=trainer.step)
    return run


def sample_stream(prepared: Prepared) -> SampleStream:
    """The training samples of a prepared configuration; ids outside the model's vocabulary never leave it."""
    splits = {name: dataset.splits["train"] for name, dataset in prepared.datasets.items()}
    config = prepared.config
    return SampleStream(splits, config.data, config.seed, config.model.vocab_size)


def validator(prepared: Prepared) -> Validate | None:
    """A function model → {source: loss, perplexity, bits per byte} on held-out documents; None without any."""
    config, splits = prepared.config, prepared.held_out
    for name in prepared.datasets:
        if name not in splits:
            warn(f"source '{name}' has no held-out documents; it is not validated.")
    if not splits:
        return None
    return lambda model: score_splits(model, splits, config, prepared.tokenizer, config.evaluation.max_tokens)


def _describe(
    config: RunConfig, prepared: Prepared, device: Any, peak: float, source: str, steps: int, compiled: bool
) -> None:
    batch, length = config.batch(1), config.data.sequence_length
    tokens = steps * batch.global_batch_size * length
    flops = training_flops_per_token(config.model, length) * tokens
    rate = f"{peak / 1e12:.3g} TFLOP/s" if peak >= 1e12 else f"{peak / 1e9:.3g} GFLOP/s"
    note(f"device: {device.type} ({device_name(device)}), peak {rate} ({source})")
    note(
        f"model: {human_count(parameter_count(config.model))} parameters, {config.training.precision}"
        f"{', compiled' if compiled else ''}"
    )
    note(describe_datasets(prepared.datasets))
    note(
        f"plan: {steps} steps × {batch.global_batch_size} sequences × {length} tokens = {human_count(tokens)} tokens, "
        f"{flops:.2e} FLOPs"
    )
