"""A configuration as Megatron-LM's flags; the translator reads them back to the same configuration.

What the flags cannot say is not decided here: the export translates them back and compares (`differences.py`).
"""

from __future__ import annotations

import math
from typing import Any

from firstlight.config import ModelConfig, RunConfig
from firstlight.interop.megatron.model_flags import FAMILIES, switches
from firstlight.support.errors import ConfigError
from firstlight.training.schedule import decay_range, warmup_steps

Flag = list[str]
_STYLES = {
    "constant": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "inverse_square_root": "inverse-square-root",
    "wsd": "WSD",
}


def resolved(config: RunConfig) -> RunConfig:
    """The same with shape, batch and length filled in, so that two ways of saying one thing are equal."""
    batch = config.batch(config.declared_world_size)
    model = config.model
    full = model.model_copy(update={"vocab_size": model.vocab_size or 1}).resolved(
        sequence_length=config.data.sequence_length
    )
    training = config.training.model_copy(
        update={
            "micro_batch_size": batch.micro_batch_size,
            "global_batch_size": batch.global_batch_size,
            "gradient_accumulation_steps": None,
            "total_steps": config.steps(config.declared_world_size),
            "total_tokens": None,
        }
    )
    full = full.model_copy(update={"vocab_size": model.vocab_size})
    return config.model_copy(update={"model": full, "training": training})


def to_flags(config: RunConfig, data: list[Flag], tokenizer: list[Flag]) -> list[Flag]:
    """The flags of a resolved configuration, one option with its values in each.

    data, tokenizer: their flags, which depend on files. ConfigError names a field that no flag can say.
    """
    return [
        *_model(config.model),
        *_optimizer(config),
        *_schedule(config),
        *_training(config),
        *_parallel(config),
        *data,
        *tokenizer,
        *_run(config),
    ]


def _model(model: ModelConfig) -> list[Flag]:
    if model.architecture not in FAMILIES:
        raise ConfigError(
            f"model.architecture {model.architecture}: Megatron-LM's pretrain_gpt.py builds models like "
            f"{', '.join(FAMILIES)}."
        )
    if not model.causal:
        raise ConfigError("model.objective masked: Megatron-LM's pretrain_gpt.py predicts the next token.")
    flags = [
        ["--num-layers", str(model.num_hidden_layers)],
        ["--hidden-size", str(model.hidden_size)],
        ["--ffn-hidden-size", str(model.intermediate_size)],
        ["--num-attention-heads", str(model.num_attention_heads)],
    ]
    if model.num_key_value_heads != model.num_attention_heads:
        flags += [["--group-query-attention"], ["--num-query-groups", str(model.num_key_value_heads)]]
    if model.head_dim is not None and model.head_dim * model.num_attention_heads != model.hidden_size:
        flags.append(["--kv-channels", str(model.head_dim)])
    flags.append(["--max-position-embeddings", str(model.max_position_embeddings)])
    for key, value in switches(model.architecture).items():
        name = f"--{key.replace('_', '-')}"
        if isinstance(value, str):
            flags.append([name, value])
        elif value:
            flags.append([name])
    if model.architecture == "mistral":
        flags.append(["--window-size", f"{(model.sliding_window or 0) - 1},0"])
    if model.family.positions == "rotary":
        flags += _rotary(model)
    if not model.tie_word_embeddings:
        flags.append(["--untie-embeddings-and-output-weights"])
    return [
        *flags,
        ["--norm-epsilon", number(model.norm_eps)],
        ["--init-method-std", number(model.initializer_range)],
        ["--hidden-dropout", number(model.hidden_dropout)],
        ["--attention-dropout", number(model.attention_dropout)],
    ]


def _rotary(model: ModelConfig) -> list[Flag]:
    if model.rope_theta != int(model.rope_theta or 0):
        raise ConfigError(f"model.rope_theta {model.rope_theta}: Megatron-LM's --rotary-base is a whole number.")
    flags = [["--rotary-base", str(int(model.rope_theta or 0))]]
    scaling = model.rope_scaling
    if scaling is not None and scaling.type == "llama3":
        flags += [["--use-rope-scaling"], ["--rope-scaling-factor", number(scaling.factor)]]
    elif scaling is not None:
        if scaling.factor != int(scaling.factor):
            raise ConfigError(
                f"model.rope_scaling.factor {scaling.factor}: Megatron-LM's --rotary-seq-len-interpolation-factor is "
                "a whole number."
            )
        flags.append(["--rotary-seq-len-interpolation-factor", str(int(scaling.factor))])
    return flags


def _optimizer(config: RunConfig) -> list[Flag]:
    optimizer = config.optimizer
    return [
        ["--optimizer", "adam"],
        ["--lr", number(optimizer.lr)],
        ["--min-lr", number(optimizer.min_lr)],
        ["--weight-decay", number(optimizer.weight_decay)],
        ["--adam-beta1", number(optimizer.betas[0])],
        ["--adam-beta2", number(optimizer.betas[1])],
        ["--adam-eps", number(optimizer.eps)],
        ["--clip-grad", number(config.training.max_grad_norm)],
    ]


def _schedule(config: RunConfig) -> list[Flag]:
    """Length of training, warm-up and decay: in steps, or in samples where a length is no whole number of steps."""
    schedule, training, sequence = config.schedule, config.training, config.data.sequence_length
    assert training.total_steps is not None and training.global_batch_size is not None
    total, batch = training.total_steps, training.global_batch_size
    exact = schedule.position == "before_step"
    tokens = {"warmup": schedule.warmup_tokens, "decay": schedule.decay_tokens}
    by_samples = exact and any(length is not None and length % (batch * sequence) for length in tokens.values())
    unit, ending = (batch, "samples") if by_samples else (1, "iters")

    def length(what: str, steps: int) -> str:
        given = tokens[what]
        return str(round(given / sequence)) if by_samples and given is not None else str(steps * unit)

    step_tokens = batch * sequence
    warmup = warmup_steps(schedule, total, step_tokens)
    start, end = decay_range(schedule, total, step_tokens)
    flags = [
        [f"--train-{ending}", str(total * unit)],
        ["--lr-decay-style", _STYLES[schedule.name]],
    ]
    if warmup:
        flags.append([f"--lr-warmup-{ending}", length("warmup", warmup)])
    if schedule.initial_lr:
        flags.append(["--lr-warmup-init", number(schedule.initial_lr)])
    if schedule.name == "wsd":
        flags += [["--lr-wsd-decay-style", schedule.wsd_decay]]
        flags += [[f"--lr-wsd-decay-{ending}", length("decay", end - start)]]
    elif schedule.name != "constant" and (end != total or (exact and schedule.decay_tokens is not None)):
        flags.append([f"--lr-decay-{ending}", length("decay", end)])
    return flags


def _training(config: RunConfig) -> list[Flag]:
    training = config.training
    flags = [
        ["--micro-batch-size", str(training.micro_batch_size)],
        ["--global-batch-size", str(training.global_batch_size)],
        ["--seq-length", str(config.data.sequence_length)],
        ["--seed", str(config.seed)],
    ]
    if training.precision in ("fp16", "bf16"):
        flags.append([f"--{training.precision}"])
    elif training.precision == "fp8":
        raise ConfigError("training.precision fp8: it has no exact counterpart in Megatron-LM; use bf16.")
    if training.precision == "fp16":
        scale = training.loss_scale
        if scale.initial is not None:
            flags.append(["--initial-loss-scale", number(scale.initial)])
        flags += [
            ["--loss-scale-window", str(scale.growth_interval)],
            ["--hysteresis", str(scale.hysteresis)],
            ["--min-loss-scale", number(scale.minimum)],
        ]
    if training.recompute != "none":
        flags.append(["--recompute-granularity", training.recompute])
    if training.recompute == "full":
        flags += [["--recompute-method", "uniform"], ["--recompute-num-layers", "1"]]
    if training.max_hours is not None:
        flags.append(["--exit-duration-in-mins", str(max(1, round(60 * training.max_hours)))])
    if training.hang_seconds != type(training)().hang_seconds and training.hang_seconds >= 60:
        flags.append(["--distributed-timeout-minutes", str(training.hang_seconds // 60)])
    return flags


def _parallel(config: RunConfig) -> list[Flag]:
    parallel = config.parallel
    flags = [
        ["--tensor-model-parallel-size", str(parallel.tensor)],
        ["--pipeline-model-parallel-size", str(parallel.pipeline)],
        ["--context-parallel-size", str(parallel.context)],
        ["--use-distributed-optimizer"],
    ]
    if parallel.tensor > 1:
        flags.append(["--sequence-parallel"])
    if parallel.stages_per_rank > 1:
        flags.append(["--num-virtual-stages-per-pipeline-rank", str(parallel.stages_per_rank)])
    if parallel.replicate > 1:
        flags.append(["--num-distributed-optimizer-instances", str(parallel.replicate)])
    if parallel.reshard_after_forward is not None:
        strategy = "optim_grads_params" if parallel.reshard_after_forward else "optim_grads"
        flags += [["--use-megatron-fsdp"], ["--data-parallel-sharding-strategy", strategy]]
    return flags


def _run(config: RunConfig) -> list[Flag]:
    checkpoint, evaluation, logging = config.checkpoint, config.evaluation, config.logging
    assert config.training.global_batch_size is not None
    folder = str(config.run_folder)
    flags = [["--save", folder], ["--load", folder], ["--save-interval", str(checkpoint.interval_steps)]]
    if checkpoint.keep_every_steps not in (None, checkpoint.interval_steps) or checkpoint.keep_last == 1:
        flags.append(["--save-retain-interval", str(checkpoint.keep_every_steps or checkpoint.interval_steps)])
    if checkpoint.asynchronous:
        flags.append(["--async-save"])
    if evaluation.interval_steps == 0:
        flags.append(["--eval-iters", "0"])
    else:
        flags.append(["--eval-interval", str(evaluation.interval_steps)])
        batch_tokens = config.training.global_batch_size * config.data.sequence_length
        if evaluation.max_tokens is None:
            flags.append(["--full-validation"])
        else:
            flags.append(["--eval-iters", str(math.ceil(evaluation.max_tokens / batch_tokens))])
    flags.append(["--log-interval", str(logging.interval_steps)])
    return flags


def number(value: Any) -> str:
    """As short as it reads back to the same number."""
    text = repr(float(value))
    return text.removesuffix(".0")
