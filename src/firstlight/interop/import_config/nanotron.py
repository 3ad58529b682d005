"""Nanotron's YAML. Facts from huggingface/nanotron: examples/config_tiny_llama.yaml, config_qwen.yaml, helpers.py."""

from __future__ import annotations

from typing import Any

from firstlight.interop.import_config.carried import Left, Source, plain_name, without_none
from firstlight.support.errors import ConfigError

_PRECISIONS = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16", "double": "fp32"}
_SCHEDULES = {"1f1b": "1f1b", "afab": "gpipe"}
_REASONS = {
    "data_stages": "data is read from text, folders or Megatron-LM's prefixes here; set data.sources",
    "checkpoints": "checkpoints lie in the run folder",
    "lighteval": "use firstlight eval",
    "logging": "the run folder has what is measured",
    "general": "there is nothing like it here",
    "profiler": "use torch.profiler from outside",
    "s3_upload": "use checkpoint.copy_to",
    "model.ddp_bucket_cap_mb": "communication is FSDP2's here",
    "model.model_config.bos_token_id": "the tokenizer knows it",
    "model.model_config.eos_token_id": "the tokenizer knows it",
    "model.model_config.pad_token_id": "the tokenizer knows it",
    "model.model_config.use_cache": "it does not change the model",
    "model.model_config.pretraining_tp": "it does not change the model",
    "model.model_config._attn_implementation": "PyTorch chooses the kernel here",
    "optimizer.zero_stage": "data-parallel ranks share weights, gradients and optimizer (FSDP2) here",
    "optimizer.accumulate_grad_in_fp32": "always so here",
    "optimizer.optimizer_factory.torch_adam_is_fused": "always so here",
    "parallelism": "there is nothing like it here",
    "tokenizer": "there is nothing like it here",
}
_SCHEDULER = "optimizer.learning_rate_scheduler"


def read(source: Source, origin: str) -> tuple[dict[str, Any], list[Left]]:
    """The recipe, and the fields that are not in it. ConfigError for a model that Firstlight does not have."""
    steps = source.take("tokens.train_steps")
    interval = source.take("tokens.val_check_interval", -1)
    accumulation, micro = source.take("tokens.batch_accumulation_per_replica"), source.take("tokens.micro_batch_size")
    replicas = source.take("parallelism.dp", 1)
    tree: dict[str, Any] = {
        "name": plain_name(str(source.take("general.run", "nanotron")), "nanotron"),
        "seed": source.take("general.seed"),
        "data": {"sequence_length": source.take("tokens.sequence_length")},
        "tokenizer": without_none({"path": source.take("tokenizer.tokenizer_name_or_path")}),
        "model": _model(source, origin),
        "optimizer": _optimizer(source),
        "schedule": _schedule(source, steps),
        "training": without_none(
            {
                "total_steps": steps,
                "micro_batch_size": micro,
                "global_batch_size": micro * accumulation * replicas if micro and accumulation else None,
                "max_grad_norm": source.take("optimizer.clip_grad"),
                "precision": _PRECISIONS.get(str(source.take("model.dtype", "bfloat16")), "bf16"),
                "recompute": "full" if source.take("parallelism.recompute_layer") else "none",
            }
        ),
        "parallel": without_none(
            {
                "tensor": source.take("parallelism.tp", 1),
                "pipeline": source.take("parallelism.pp", 1),
                "context": source.take("parallelism.context_parallel_size", 1),
                "pipeline_schedule": _SCHEDULES.get(str(source.take("parallelism.pp_engine", "1f1b")).lower()),
            }
        ),
        "checkpoint": without_none({"interval_steps": source.take("checkpoints.checkpoint_interval")}),
        "logging": without_none({"interval_steps": source.take("logging.iteration_step_info_interval")}),
    }
    if interval > 0:
        tree["evaluation"] = {"interval_steps": interval}
    if source.take("parallelism.expert_parallel_size", 1) != 1:
        raise ConfigError(f"{origin}: parallelism.expert_parallel_size: there are no mixtures of experts here.")
    source.take("parallelism.tp_mode")  # REDUCE_SCATTER and ALL_REDUCE compute the same
    source.take("parallelism.tp_linear_async_communication")
    source.take("parallelism.tp_recompute_allgather")
    return without_none(tree), source.rest(_REASONS)


def _model(source: Source, origin: str) -> dict[str, Any]:
    def field(name: str, default: Any = None) -> Any:
        return source.take(f"model.model_config.{name}", default)

    llama, qwen = field("is_llama_config"), field("is_qwen2_config")
    if not (llama or qwen):
        raise ConfigError(
            f"{origin}: model.model_config: models with is_llama_config or is_qwen2_config are known here."
        )
    if field("moe_config") is not None:
        raise ConfigError(f"{origin}: model.model_config.moe_config: there are no mixtures of experts here.")
    for name in ("rope_interleaved", "interleaved_rotary", "z_loss_enabled"):
        if field(name):
            raise ConfigError(f"{origin}: model.model_config.{name} is true; Firstlight's models have it false.")
    activation = field("hidden_act", "silu")
    if activation != "silu":
        raise ConfigError(f"{origin}: model.model_config.hidden_act {activation}: silu is what there is here.")
    architecture = "qwen2" if qwen and field("attention_bias") else "llama"
    window = field("sliding_window_size")
    if window:
        source.leave("model.model_config.sliding_window_size", "architecture mistral has one; set it by hand")
    source.take("model.model_config.z_loss_coefficient")  # without effect unless z_loss_enabled
    field("initializer_range")  # init_method.std is what counts there
    scaling = field("rope_scaling")
    return without_none(
        {
            "architecture": architecture,
            "vocab_size": field("vocab_size") if source.take("model.make_vocab_size_divisible_by", 1) == 1 else None,
            "hidden_size": field("hidden_size"),
            "intermediate_size": field("intermediate_size"),
            "num_hidden_layers": field("num_hidden_layers"),
            "num_attention_heads": field("num_attention_heads"),
            "num_key_value_heads": field("num_key_value_heads"),
            "max_position_embeddings": _positions(source),
            "rope_theta": field("rope_theta", 10000.0),
            "rope_scaling": scaling,
            "rms_norm_eps": field("rms_norm_eps", 1e-6),
            "tie_word_embeddings": field("tie_word_embeddings", False),
            "initializer_range": source.take("model.init_method.std"),
        }
    )


def _positions(source: Source) -> int | None:
    """Nanotron trains beyond max_position_embeddings without a word; here the recipe would be refused."""
    declared, used = source.take("model.model_config.max_position_embeddings"), source.take("tokens.sequence_length")
    if declared and used and used > declared:
        source.remark(
            "model.model_config.max_position_embeddings", declared, f"raised to tokens.sequence_length {used}"
        )
        return int(used)
    return declared


def _optimizer(source: Source) -> dict[str, Any]:
    factory = "optimizer.optimizer_factory"
    name = str(source.take(f"{factory}.name", "adamW"))
    if name.lower() != "adamw":
        source.remark(f"{factory}.name", name, "AdamW is what there is here")
    excluded = source.take("optimizer.weight_decay_exclude_named_params", [])
    source.remark(
        "optimizer.weight_decay",
        source.take("optimizer.weight_decay"),
        f"decays matrices only here; in Nanotron all but weight_decay_exclude_named_params {excluded}",
    )
    return without_none(
        {
            "lr": source.take(f"{_SCHEDULER}.learning_rate"),
            "min_lr": source.take(f"{_SCHEDULER}.min_decay_lr", source.take(f"{_SCHEDULER}.learning_rate")),
            "weight_decay": source.take("optimizer.weight_decay"),
            "betas": [source.take(f"{factory}.adam_beta1", 0.9), source.take(f"{factory}.adam_beta2", 0.999)],
            "eps": source.take(f"{factory}.adam_eps"),
        }
    )


def _schedule(source: Source, steps: int | None) -> dict[str, Any]:
    """lr_scheduler_builder: the first step stands at 0; the decay begins after the warm-up, or at a step of its own."""
    warmup = source.take(f"{_SCHEDULER}.lr_warmup_steps", 0)
    style = source.take(f"{_SCHEDULER}.lr_decay_style")
    begins = source.take(f"{_SCHEDULER}.lr_decay_starting_step", warmup)
    length = source.take(f"{_SCHEDULER}.lr_decay_steps")
    if source.take(f"{_SCHEDULER}.lr_warmup_style", "linear") == "constant":
        warmup = 0
    section: dict[str, Any] = {"position": "before_step", "warmup_steps": warmup or None}
    if style is None:
        return without_none({**section, "name": "constant"})
    if style == "1-sqrt":
        style = "minus_sqrt"
    if begins == warmup and style in ("cosine", "linear"):
        return without_none({**section, "name": style, "decay_steps": begins + length if length else None})
    if style not in ("cosine", "linear", "minus_sqrt"):
        source.remark(f"{_SCHEDULER}.lr_decay_style", style, "cosine is used instead")
        style = "cosine"
    ends = begins + length if length else steps
    if ends != steps:
        source.remark(f"{_SCHEDULER}.lr_decay_steps", length, f"the decay from step {begins} ends with training here")
    return without_none({**section, "name": "wsd", "wsd_decay": style, "decay_steps": (steps or 0) - begins})
