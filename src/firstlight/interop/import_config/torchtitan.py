"""torchtitan's TOML. Facts from pytorch/torchtitan: torchtitan/config/job_config.py, components/lr_scheduler.py and the
flavors of models/llama3."""

from __future__ import annotations

from typing import Any

from firstlight.interop.import_config.carried import Left, Source, plain_name, without_none

_LLAMA3 = {"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
FLAVORS: dict[tuple[str, str], dict[str, Any]] = {
    ("llama3", flavor): {
        "architecture": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        **_LLAMA3,
    }
    for flavor, hidden, inner, layers, heads, groups in (
        ("debugmodel", 256, 768, 6, 16, 16),
        ("8B", 4096, 14336, 32, 32, 8),
        ("70B", 8192, 28672, 80, 64, 8),
        ("405B", 16384, 53248, 126, 128, 8),
    )
}
"""Shapes by model.name and model.flavor; a configuration names them and does not say them."""
_SCHEDULES = {
    "1F1B": "1f1b",
    "GPipe": "gpipe",
    "Interleaved1F1B": "interleaved",
    "InterleavedZeroBubble": "interleaved_zero_bubble",
    "ZBVZeroBubble": "zbv",
}
_REASONS = {
    "job": "there is nothing like it here",
    "profiling": "use torch.profiler from outside",
    "metrics": "the run folder has what is measured; set logging",
    "model.converters": "for float8 set training.precision=fp8",
    "model": "there is nothing like it here",
    "optimizer": "there is nothing like it here",
    "training.dataset": "data is read from text, folders or Megatron-LM's prefixes here; set data.sources",
    "training.dataset_path": "data is read from text, folders or Megatron-LM's prefixes here; set data.sources",
    "training": "there is nothing like it here",
    "parallelism": "there is nothing like it here",
    "checkpoint": "checkpoints lie in the run folder",
    "activation_checkpoint": "there is nothing like it here",
    "compile": "blocks are compiled here",
    "quantize": "for float8 set training.precision=fp8",
    "float8": "for float8 set training.precision=fp8",
    "mx": "for float8 set training.precision=fp8",
    "comm": "set training.hang_seconds",
    "fault_tolerance": "start the command again; it goes on from the last checkpoint",
    "validation": "held-out documents are validated on here; set evaluation",
}


def read(source: Source) -> tuple[dict[str, Any], list[Left]]:
    """The recipe, and the fields that are not in it."""
    name, flavor = str(source.take("model.name", "llama3")), str(source.take("model.flavor", "debugmodel"))
    steps = source.take("training.steps", 10000)
    pipeline = source.take("parallelism.pipeline_parallel_degree", 1)
    path = source.take("model.hf_assets_path") or source.take("model.tokenizer_path")
    tree: dict[str, Any] = {
        "name": plain_name(f"{name}-{flavor}", "torchtitan"),
        "description": source.take("job.description"),
        "seed": source.take("training.seed"),
        "data": {"sequence_length": source.take("training.seq_len", 2048)},
        "tokenizer": without_none({"path": path}),
        "model": _model(source, name, flavor),
        "optimizer": _optimizer(source),
        "schedule": _schedule(source, steps),
        "training": {
            "total_steps": steps,
            **_batch(source, pipeline),
            "max_grad_norm": source.take("training.max_norm", 1.0),
            "precision": "fp32" if source.take("training.mixed_precision_param") == "float32" else "bf16",
            "compile": bool(source.take("compile.enable", source.take("training.compile", False))),
            "recompute": _recompute(source),
        },
        "parallel": _parallel(source, pipeline),
        "checkpoint": without_none({"interval_steps": source.take("checkpoint.interval")}),
        "logging": {
            "interval_steps": source.take("metrics.log_freq", 10),
        },
    }
    if source.take("validation.enable", source.take("validation.enabled")):
        tree["evaluation"] = {"interval_steps": source.take("validation.freq", 10)}
    return without_none(tree), source.rest(_REASONS)


def _model(source: Source, name: str, flavor: str) -> dict[str, Any]:
    shape = FLAVORS.get((name, flavor))
    if shape is None:
        known = ", ".join(f"{one} {other}" for one, other in FLAVORS)
        source.remark("model.flavor", f"{name} {flavor}", f"its shape is not known here (known: {known}); set model")
        return {}
    source.remark(
        "model.flavor", flavor, "rope_scaling differs from version to version; set model.rope_scaling if yours has it"
    )
    return dict(shape)


def _optimizer(source: Source) -> dict[str, Any]:
    name = str(source.take("optimizer.name", "AdamW"))
    if name != "AdamW":
        source.remark("optimizer.name", name, "AdamW is what there is here")
    lr = source.take("optimizer.lr", 8e-4)
    factor = source.take("lr_scheduler.min_lr_factor", source.take("lr_scheduler.lr_min", 0.0))
    decay = source.take("optimizer.weight_decay", 0.1)
    source.remark("optimizer.weight_decay", decay, "decays matrices only here, all parameters in torchtitan")
    source.take("optimizer.implementation")  # the same numbers up to rounding
    return {
        "lr": lr,
        "min_lr": lr * factor,
        "weight_decay": decay,
        "betas": [source.take("optimizer.beta1", 0.9), source.take("optimizer.beta2", 0.95)],
        "eps": source.take("optimizer.eps", 1e-8),
    }


def _schedule(source: Source, steps: int) -> dict[str, Any]:
    warmup = min(source.take("lr_scheduler.warmup_steps", 200), steps)
    ratio, shape = source.take("lr_scheduler.decay_ratio"), source.take("lr_scheduler.decay_type", "linear")
    source.remark("lr_scheduler", "steps", "torchtitan divides by warm-up + 1 and decay + 1 steps: up to a step apart")
    section = without_none({"warmup_steps": warmup or None})
    if ratio is None and shape in ("linear", "cosine"):
        return {"name": shape, **section}
    length = round(steps * ratio) if ratio is not None else steps - warmup
    if warmup + length > steps:
        source.remark(
            "lr_scheduler.decay_ratio", ratio, f"warm-up and decay overlap; the decay is cut to {steps - warmup}"
        )
        length = steps - warmup
    decay = {"sqrt": "minus_sqrt"}.get(shape, shape)
    return {"name": "wsd", "wsd_decay": decay, "decay_steps": max(1, length), **section}


def _batch(source: Source, pipeline: int) -> dict[str, Any]:
    local = source.take("training.local_batch_size", source.take("training.batch_size", 8))
    micro = source.take("parallelism.pipeline_parallel_microbatch_size", 1) if pipeline > 1 else local
    whole = source.take("training.global_batch_size", -1)
    if whole > 0:
        return {"micro_batch_size": micro, "global_batch_size": whole}
    return {"micro_batch_size": micro, "gradient_accumulation_steps": max(1, local // micro)}


def _recompute(source: Source) -> str:
    mode = str(source.take("activation_checkpoint.mode", "selective"))
    option = str(source.take("activation_checkpoint.selective_ac_option", "2"))
    if mode == "selective" and option != "op":
        source.remark(
            "activation_checkpoint.selective_ac_option", option, "every block is recomputed as far as selective says"
        )
    return mode if mode in ("none", "selective", "full") else "none"


def _parallel(source: Source, pipeline: int) -> dict[str, Any]:
    shard = source.take("parallelism.data_parallel_shard_degree", -1)
    reshard = source.take("parallelism.fsdp_reshard_after_forward", "default")
    schedule = str(source.take("parallelism.pipeline_parallel_schedule", "1F1B"))
    if schedule not in _SCHEDULES and pipeline > 1:
        source.remark("parallelism.pipeline_parallel_schedule", schedule, "1f1b is used instead")
    return without_none(
        {
            "replicate": source.take("parallelism.data_parallel_replicate_degree", 1),
            "shard": shard if shard > 0 else None,
            "tensor": source.take("parallelism.tensor_parallel_degree", 1),
            "context": source.take("parallelism.context_parallel_degree", 1),
            "pipeline": pipeline,
            "pipeline_schedule": _SCHEDULES.get(schedule, "1f1b") if pipeline > 1 else None,
            "reshard_after_forward": {"always": True, "never": False}.get(reshard),
        }
    )
