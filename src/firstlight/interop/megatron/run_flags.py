"""Batch, layout, checkpoints, validation and logging of Megatron-LM's flags, with the arithmetic that must come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from firstlight.config.batch import nearest_multiples
from firstlight.interop.megatron.options import Flags
from firstlight.support.errors import ConfigError

DEFAULT_SAVE = "runs/pretrain_gpt"
"""Run folder without --save."""


class Arithmetic(NamedTuple):
    """How processes and the batch come out: world = tensor × pipeline × context × data,
    global batch = micro × data × microbatches."""

    world: int
    tensor: int
    pipeline: int
    context: int
    data: int
    micro: int
    microbatches: int
    batch: int

    def __str__(self) -> str:
        context = f" × context {self.context}" if self.context > 1 else ""
        processes = "process" if self.world == 1 else "processes"
        return (
            f"{self.world} {processes} = tensor {self.tensor} × pipeline {self.pipeline}{context} × data {self.data}; "
            f"{self.batch} sequences a step = micro-batch {self.micro} × data {self.data} × {self.microbatches} "
            f"microbatch{'es' if self.microbatches > 1 else ''}"
        )


def arithmetic(flags: Flags, world: int) -> Arithmetic:
    """ConfigError, with the equation, when processes or batch do not come out."""
    tensor, pipeline = flags["tensor_model_parallel_size"], flags["pipeline_model_parallel_size"]
    context, micro = flags["context_parallel_size"], flags["micro_batch_size"]
    if min(tensor, pipeline, context) < 1:
        raise ConfigError("--tensor-, --pipeline-model-parallel-size and --context-parallel-size must be above 0.")
    if not micro or micro < 1:
        raise ConfigError("--micro-batch-size is missing, or not above 0; Megatron-LM needs it.")
    ranks = tensor * pipeline * context
    if world % ranks:
        raise ConfigError(
            f"--tensor-model-parallel-size {tensor} × --pipeline-model-parallel-size {pipeline} × "
            f"--context-parallel-size {context} = {ranks} does not divide the {world} "
            f"process{'es' if world > 1 else ''}; start a multiple of {ranks} with torchrun."
        )
    data = world // ranks
    batch = flags["global_batch_size"] if flags["global_batch_size"] is not None else micro * data
    if batch < 1 or batch % (micro * data):
        raise ConfigError(
            f"--global-batch-size {batch} is not divisible by --micro-batch-size {micro} × data-parallel size {data} = "
            f"{micro * data}; nearest: {nearest_multiples(max(1, batch), micro * data)}."
        )
    return Arithmetic(world, tensor, pipeline, context, data, micro, batch // (micro * data), batch)


def total_steps(flags: Flags, batch: int) -> int:
    """Steps of --train-iters, or the whole global batches of --train-samples."""
    steps, samples = flags["train_iters"], flags["train_samples"]
    if (steps is None) == (samples is None):
        raise ConfigError("give one of --train-iters and --train-samples.")
    total = steps if steps is not None else samples // batch
    if total < 1:
        raise ConfigError(f"training of {total} steps; at least 1 is due.")
    return int(total)


def parallel_section(flags: Flags, sizes: Arithmetic) -> dict[str, Any]:
    """The section `parallel`."""
    section: dict[str, Any] = {"tensor": sizes.tensor, "pipeline": sizes.pipeline, "context": sizes.context}
    copies = flags["num_distributed_optimizer_instances"]
    if copies != 1:
        if copies < 1 or sizes.data % copies:
            raise ConfigError(f"--num-distributed-optimizer-instances {copies} does not divide data {sizes.data}.")
        section["replicate"] = copies
    if "data_parallel_sharding_strategy" in flags.given:
        section["reshard_after_forward"] = flags["data_parallel_sharding_strategy"] == "optim_grads_params"
    elif flags["torch_fsdp2_no_reshard_after_forward"]:
        section["reshard_after_forward"] = False
    layers, stages = flags["num_layers"], _stages_per_rank(flags, sizes.pipeline)
    if layers % (sizes.pipeline * stages):
        raise ConfigError(
            f"--num-layers {layers} is not divisible by {sizes.pipeline} pipeline ranks × {stages} stages; "
            f"nearest: {nearest_multiples(layers, sizes.pipeline * stages)}."
        )
    if stages > 1:
        section |= {"pipeline_schedule": "interleaved", "pipeline_stages_per_rank": stages}
    elif sizes.pipeline > 1 and sizes.microbatches < sizes.pipeline:
        section["pipeline_schedule"] = "gpipe"  # 1f1b here needs as many micro-batches as ranks; results are the same
    return section


def _stages_per_rank(flags: Flags, pipeline: int) -> int:
    per_stage, stages = flags["num_layers_per_virtual_pipeline_stage"], flags["num_virtual_stages_per_pipeline_rank"]
    if per_stage and stages:
        raise ConfigError("--num-layers-per-virtual-pipeline-stage and --num-virtual-stages-per-pipeline-rank: one.")
    if per_stage:
        if flags["num_layers"] % (pipeline * per_stage):
            raise ConfigError(
                f"--num-layers-per-virtual-pipeline-stage {per_stage} × {pipeline} pipeline ranks does not divide "
                f"--num-layers {flags['num_layers']}."
            )
        stages = flags["num_layers"] // (pipeline * per_stage)
    if stages and stages > 1 and pipeline == 1:
        raise ConfigError("virtual pipeline stages need --pipeline-model-parallel-size above 1.")
    return stages or 1


def recompute(flags: Flags) -> str:
    """`training.recompute`."""
    kind = flags["recompute_granularity"] or ("selective" if flags["recompute_activations"] else "none")
    if kind != "full":
        for key in ("recompute_method", "recompute_num_layers"):
            if key in flags.given:
                raise ConfigError(f"--{key.replace('_', '-')} goes with --recompute-granularity full; leave it out.")
    if flags["recompute_method"] == "block" or flags["recompute_num_layers"] not in (None, 1):
        raise ConfigError(
            "--recompute-granularity full recomputes every block by itself here: --recompute-method uniform "
            "--recompute-num-layers 1 is what there is."
        )
    return str(kind)


def run_folder(flags: Flags) -> tuple[Path, bool]:
    """The run folder, and whether the command goes on with a run that is there (--load)."""
    save, load = flags["save"], flags["load"]
    if load and save and Path(load) != Path(save):
        raise ConfigError(
            f"--load {load} is not --save {save}: a run goes on in its own folder here; copy the folder to {save} and "
            "give that twice."
        )
    if flags["exit_on_missing_checkpoint"] and not load:
        raise ConfigError("--exit-on-missing-checkpoint has no effect without --load.")
    if save and not flags["save_interval"]:
        raise ConfigError("--save needs --save-interval.")
    folder = Path(save or load or DEFAULT_SAVE)
    if folder.name in ("", ".."):
        raise ConfigError(f"--save {folder}: give the folder a name of its own.")
    return folder, bool(load)


def checkpoint_section(flags: Flags, steps: int) -> dict[str, Any]:
    """The section `checkpoint`."""
    if flags["ckpt_format"] not in ("torch_dist", "torch_dcp"):
        raise ConfigError(f"--ckpt-format {flags['ckpt_format']}: checkpoints are torch.distributed.checkpoint's here.")
    interval = flags["save_interval"] or steps
    retained = flags["save_retain_interval"]
    return {
        "interval_steps": interval,
        "asynchronous": bool(flags["async_save"]),
        "keep_last": 1 if retained else 2,
        "keep_every_steps": retained or interval,
    }


def evaluation_section(flags: Flags, sizes: Arithmetic) -> dict[str, Any]:
    """The section `evaluation`."""
    iters = flags["eval_iters"]
    if iters < 0 or flags["eval_interval"] < 1:
        raise ConfigError("--eval-iters must be 0 or more, --eval-interval 1 or more.")
    if iters == 0 and not flags["full_validation"]:
        return {"interval_steps": 0}
    tokens = None if flags["full_validation"] else iters * sizes.batch * flags["seq_length"]
    return {"interval_steps": flags["eval_interval"], "max_tokens": tokens, "batch_size": sizes.micro}


def logging_section(flags: Flags, folder: Path) -> dict[str, Any]:
    """The section `logging`."""
    name = flags["wandb_exp_name"]
    if name and name != folder.name:
        raise ConfigError(f"--wandb-exp-name {name}: a run is called as its folder; use --save .../{name}.")
    section: dict[str, Any] = {"interval_steps": flags["log_interval"]}
    trackers = {"tensorboard": flags["tensorboard_dir"], "wandb": flags["wandb_project"]}
    section["trackers"] = [name for name, given in trackers.items() if given]
    if flags["wandb_project"]:
        section["project"] = flags["wandb_project"]
    return section
