"""From a recipe, a file or a run folder to a trained run: prepare, build, resume or begin, train."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.config.run import LaunchConfig
from firstlight.parallel.compile import why_not_compile
from firstlight.parallel.float8 import check_float8
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks, local_device, start_ranks, stop_ranks
from firstlight.pipeline.scoring import score_splits
from firstlight.pipeline.stages import Prepared, describe_datasets, prepare
from firstlight.pipeline.task_scoring import task_scorer
from firstlight.planning.flops import parameter_count, training_flops_per_token
from firstlight.planning.in_flight import SPLIT_BACKWARD
from firstlight.recipe import apply_overrides, config_diff, load_config, parse_config, read_recipe
from firstlight.support.console import heading, human_count, note, warn
from firstlight.support.errors import ConfigError
from firstlight.support.files import folder_lock
from firstlight.support.logs import log_to
from firstlight.support.peers import watching
from firstlight.support.ranks import local_world_size, world_size
from firstlight.tokens.lineage import describe_samples
from firstlight.tokens.objective import objective_of
from firstlight.tokens.stream import Stream
from firstlight.tokens.streams import open_stream
from firstlight.training.checkpoint import warn_of_little_room
from firstlight.training.checkpoint.second_place import SecondPlace
from firstlight.training.device import choose_device, device_name, peak_flops
from firstlight.training.run_folder import RunFolder
from firstlight.training.schedule import decay_range
from firstlight.training.trackers import check_trackers
from firstlight.training.trainer import Trainer, Validate


def train(recipe: str | Path | RunConfig, overrides: Sequence[str] = ()) -> RunFolder:
    """Train a recipe (name, YAML file or configuration), or resume a run folder; returns the run.

    Stages before training run first where the recipe names text (cached). A run that exists is resumed from its newest
    sound checkpoint when its settings agree, and refused when they do not. Under torchrun, every process calls this;
    the stages before training are run by one of them.
    """
    read = recipe if isinstance(recipe, RunConfig) else read_run_or_recipe(recipe, overrides)
    original = with_global_batch_of_run(read)
    check_supported(original)
    log_to(original.run_folder)
    with watching():
        ranks = start_ranks(original.layout(world_size()), local_device(choose_device(original.training.device)))
        prepared = ranks.from_chief(lambda: _checked_and_prepared(original))
        run = train_prepared(original, prepared if ranks.chief else prepare(prepared.config), ranks)
        stop_ranks()
    return run


def with_global_batch_of_run(config: RunConfig) -> RunConfig:
    """A recipe that leaves the global batch to the number of processes keeps that of a run it goes on with, so that
    other processes go on with the same batches."""
    run = RunFolder(config.run_folder)
    if config.training.global_batch_size is not None or not run.begun:
        return config
    begun = run.config
    batch = begun.batch(begun.declared_world_size).global_batch_size
    kept = {"global_batch_size": batch, "gradient_accumulation_steps": None}
    return config.model_copy(update={"training": config.training.model_copy(update=kept)})


def _checked_and_prepared(original: RunConfig) -> Prepared:
    check_folder(original)
    run = RunFolder(original.run_folder)
    return prepare(original, run.tokenizer if run.imported else None)


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
    tree["launch"] = _cluster().model_dump()
    if isinstance(tree.get("training"), dict) and tree["training"].get("global_batch_size"):
        tree["training"].pop("gradient_accumulation_steps", None)  # follows from the number of processes
    apply_overrides(tree, overrides)
    return parse_config({**tree, "runs_directory": str(path.parent), "name": path.name}, origin)


def check_before_work(config: RunConfig) -> RunFolder:
    """The run of a configuration, after all that can be wrong with it and its folder before stages are run."""
    check_supported(config)
    return check_folder(config)


def check_folder(config: RunConfig) -> RunFolder:
    """The run of a configuration, after all that can be wrong with its folder; on one process of a run."""
    run = RunFolder(config.run_folder)
    if config.checkpoint.copy_to:
        SecondPlace(run.checkpoints, config.checkpoint).close()
    if not run.exists:
        run.check_place()
        return run
    with folder_lock(run.path, "the run"):
        _ = run.config, run.provenance
    return run


def check_supported(config: RunConfig) -> None:
    """ConfigError for what these processes on this machine cannot do, before anything is started."""
    config.layout(world_size())
    device = choose_device(config.training.device)
    if device.type == "mps" and world_size() > 1:
        raise ConfigError("Apple MPS trains in one process; use training.device=cpu, or start it without torchrun.")
    precision = config.training.precision
    if precision == "fp16" and device.type == "cpu" and not config.training.fp16_on_cpu:
        raise ConfigError(
            "training.precision is fp16, whose matrix products are hundreds of times slower than bf16's on a CPU; use "
            "training.precision=bf16 or fp32, or insist with training.fp16_on_cpu=true."
        )
    if precision == "fp8":
        check_float8(device)
    check_combinations(config)
    check_trackers(config)
    step_tokens = config.batch(world_size()).global_batch_size * config.data.sequence_length
    decay_range(config.schedule, config.steps(world_size()), step_tokens)


def check_combinations(config: RunConfig) -> None:
    """ConfigError for techniques that torch cannot join."""
    schedule, training = config.parallel.pipeline_schedule, config.training
    both = config.parallel.tensor > 1 and config.parallel.context > 1
    if training.compile and training.recompute == "full" and both:
        raise ConfigError(
            "training.recompute=full of compiled blocks does not work with parallel.tensor and context together; "
            "use training.recompute=selective, or training.compile=false."
        )
    if schedule not in SPLIT_BACKWARD or config.parallel.pipeline == 1:
        return
    if training.compile:
        raise ConfigError(
            f"parallel.pipeline_schedule {schedule} takes the backward pass apart, which compiled blocks do not allow; "
            "use training.compile=false, or pipeline_schedule=interleaved."
        )
    if training.recompute != "none":
        why = "does not allow" if training.recompute == "selective" else "would keep in memory all the same"
        raise ConfigError(
            f"parallel.pipeline_schedule {schedule} takes the backward pass apart, which training.recompute="
            f"{training.recompute} {why}; use training.recompute=none, or pipeline_schedule=interleaved."
        )


def _cluster() -> LaunchConfig:
    """The processes that run now, as a recipe would ask for them."""
    return LaunchConfig(nodes=world_size() // local_world_size(), gpus_per_node=local_world_size())


def show_settings(original: RunConfig, resolved: RunConfig) -> None:
    """Print how the resolved configuration differs from the recipe."""
    differences = [(k, before, after) for k, before, after in config_diff(original, resolved) if after != []]
    if differences:
        note("\nsettings that were filled in:")
        for key, before, after in differences:
            note(f"  {key}: {'unset' if before in (None, {}) else before} → {after}")


def train_prepared(original: RunConfig, prepared: Prepared, ranks: Ranks | None = None) -> RunFolder:
    """Train or resume the run of a configuration whose stages before training are done; ranks: unset in one process."""
    if ranks is None:
        ranks = Ranks(device=choose_device(original.training.device))
    run = RunFolder(original.run_folder, writes=ranks.chief)
    show_settings(original, prepared.config)
    batch = {"global_batch_size": prepared.config.batch(ranks.layout.world_size).global_batch_size}
    training = prepared.config.training.model_copy(update=batch)
    config = prepared.config.model_copy(update={"launch": _cluster(), "training": training})
    with folder_lock(run.path, "the run") if ranks.chief else nullcontext():
        _train_locked(original, replace(prepared, config=config), run, ranks)
    if ranks.chief:
        from firstlight.pipeline.reporting import report_after_training  # which knows the planner, and that knows this

        report_after_training(run)
    return run


def _train_locked(original: RunConfig, prepared: Prepared, run: RunFolder, ranks: Ranks) -> RunFolder:
    config, device = prepared.config, ranks.device
    heading(f"train: {run.path}")
    stream = sample_stream(prepared)
    for remark in stream.notes():
        note(remark)
    batch = config.batch(ranks.layout.world_size)
    total_steps = config.steps(ranks.layout.world_size)
    stream.check_supply(total_steps * batch.global_batch_size, batch.global_batch_size)
    ranks.from_chief(stream.prepare)
    peak, peak_source = ranks.from_chief(lambda: peak_flops(device, config.training.precision))
    reason = why_not_compile(device) if config.training.compile else "training.compile is false"
    if config.training.compile and reason:
        warn(f"torch.compile is off: {reason}.")
    _describe(config, prepared, ranks, peak, peak_source, total_steps, compiled=reason is None)

    resuming, exists = ranks.from_chief(lambda: (run.exists and run.last_step() is not None, run.exists))
    model = ParallelModel(config, ranks, compile_blocks=reason is None)
    model.materialize()
    if not resuming:
        model.init_weights()
    trainer = Trainer(
        config,
        run,
        model,
        stream,
        objective=objective_of(config, prepared.tokenizer),
        eod_id=prepared.tokenizer.eod_id,
        peak_flops=peak,
        remark="compiling" if reason is None else "",
        validate=validator(prepared, ranks),
        score_tasks=task_scorer(config, prepared.tokenizer, ranks),
        describe=functools.partial(describe_samples, stream, prepared.tokenizer),
    )
    ranks.from_chief(lambda: _keep_settings(original, prepared, stream, run, exists))
    if resuming:
        trainer.resume()
        if trainer.step >= trainer.total_steps:
            note(f"{run.path} is finished: step {trainer.step} of {trainer.total_steps}; more: training.total_steps=N")
            return run
        note(f"resumed at step {trainer.step}")
    else:
        run.trim_metrics(0)  # of a start that ended before its first checkpoint
    if ranks.chief:
        warn_of_little_room(run.checkpoints, config)
    trainer.fit()
    run.event("finished", step=trainer.step)
    return run


def _keep_settings(original: RunConfig, prepared: Prepared, stream: Stream, run: RunFolder, exists: bool) -> None:
    """Begin the run folder, or check that an existing one goes on as it began and note what has changed."""
    provenance = prepared.provenance(original)
    for source in stream.sources:
        if record := stream.record(source):
            provenance[source]["order"] = record
    if exists:
        run.check_resumable(prepared.config, provenance, prepared.tokenizer)
        run.begin_imported(provenance)
        run.write_config(prepared.config)
        prepared.tokenizer.save(run.tokenizer_folder)
    else:
        run.create(prepared.config, prepared.tokenizer, provenance)


def sample_stream(prepared: Prepared, in_memory: bool = False) -> Stream:
    """The training samples of a prepared configuration; ids outside the model's vocabulary never leave it.

    in_memory: write no files of its order, and read none.
    """
    config, ranks = prepared.config, prepared.config.declared_world_size
    training = {name: dataset for name, dataset in prepared.datasets.items() if "train" in dataset.splits}
    splits = {name: dataset.splits["train"] for name, dataset in training.items()}
    identities = None if in_memory else {name: dataset.fingerprint for name, dataset in training.items()}
    return open_stream(splits, config, config.steps(ranks) * config.batch(ranks).global_batch_size, identities)


def validator(prepared: Prepared, ranks: Ranks) -> Validate | None:
    """A function model → {source: loss, perplexity, bits per byte} on held-out documents; None without any."""
    config, splits = prepared.config, prepared.held_out
    for name in prepared.datasets:
        if name not in splits:
            warn(f"source '{name}' has no held-out documents; it is not validated.")
    if not splits:
        return None
    most = config.evaluation.max_tokens
    return lambda model: score_splits(model, splits, config, prepared.tokenizer, most, ranks=ranks)


def _describe(
    config: RunConfig, prepared: Prepared, ranks: Ranks, peak: float, source: str, steps: int, compiled: bool
) -> None:
    device, batch, length = ranks.device, config.batch(ranks.layout.world_size), config.data.sequence_length
    tokens = steps * batch.global_batch_size * length
    flops = training_flops_per_token(config.model, length, config.predicted_share) * tokens
    rate = f"{peak / 1e12:.3g} TFLOP/s" if peak >= 1e12 else f"{peak / 1e9:.3g} GFLOP/s"
    if ranks.layout.world_size > 1:
        note(f"layout: {ranks.layout.world_size} processes = {ranks.layout}")
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
