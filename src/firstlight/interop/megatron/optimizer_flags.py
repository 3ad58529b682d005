"""Optimizer, learning rate and precision of Megatron-LM's flags.

Lengths are counted in samples there and in tokens or steps here; `schedule.position: before_step` makes each step's
learning rate that of Megatron-LM's OptimizerParamScheduler.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from firstlight.interop.megatron.options import Flags
from firstlight.support.errors import ConfigError

_STYLES = {
    "constant": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "inverse-square-root": "inverse_square_root",
    "WSD": "wsd",
}


class Length(NamedTuple):
    """Length of training."""

    steps: int
    batch: int
    """Sequences of a global batch."""
    sequence: int
    """Tokens of a sequence."""


def optimizer_section(flags: Flags) -> dict[str, Any]:
    """The section `optimizer`."""
    if flags["optimizer"] != "adam":
        raise ConfigError(f"--optimizer {flags['optimizer']}: adam is what there is here.")
    if flags["lr"] is None:
        raise ConfigError("--lr is missing; there is no default learning rate.")
    if not 0 <= flags["min_lr"] <= flags["lr"]:
        raise ConfigError(f"--min-lr {flags['min_lr']:g} must lie between 0 and --lr {flags['lr']:g}.")
    return {
        "lr": flags["lr"],
        "min_lr": flags["min_lr"],
        "weight_decay": flags["weight_decay"],
        "betas": [flags["adam_beta1"], flags["adam_beta2"]],
        "eps": flags["adam_eps"],
    }


def schedule_section(flags: Flags, length: Length) -> dict[str, Any]:
    """The section `schedule`."""
    by_samples = flags["train_samples"] is not None
    _check_units(flags, by_samples)
    style = flags["lr_decay_style"]
    total = flags["train_samples"] if by_samples else length.steps * length.batch
    given = flags["lr_decay_samples"] if by_samples else flags["lr_decay_iters"]
    decay = total if given is None else given * (1 if by_samples else length.batch)
    warmup: float = flags["lr_warmup_samples"] if by_samples else flags["lr_warmup_iters"] * length.batch
    if flags["lr_warmup_fraction"] is not None:
        warmup = flags["lr_warmup_fraction"] * decay
    if not 0 <= warmup < decay:
        raise ConfigError(
            f"the warm-up of {warmup / length.batch:g} steps must be shorter than the decay of "
            f"{decay / length.batch:g} steps (--lr-decay-iters or --lr-decay-samples, else the whole training)."
        )
    section: dict[str, Any] = {"name": _STYLES[style], "position": "before_step"}
    section |= _in_steps("warmup", warmup, length) if warmup else {}
    if flags["lr_warmup_init"]:
        if not warmup:
            raise ConfigError("--lr-warmup-init has no effect without a warm-up; give --lr-warmup-iters too.")
        section["initial_lr"] = flags["lr_warmup_init"]
    if style == "WSD":
        section |= _wsd(flags, by_samples, length, decay, total)
    elif style != "constant" and decay != length.steps * length.batch:
        section |= _in_steps("decay", decay, length)
    if style == "inverse-square-root" and not warmup:
        raise ConfigError("--lr-decay-style inverse-square-root falls from the end of a warm-up; give one.")
    if flags["fp16"]:
        section["waits_for_overflow"] = True
    return section


def _wsd(flags: Flags, by_samples: bool, length: Length, decay: int, total: int) -> dict[str, Any]:
    if decay != total or total != length.steps * length.batch:
        raise ConfigError("--lr-decay-style WSD: the decay ends with the training here; give both the same length.")
    annealed = flags["lr_wsd_decay_samples"] if by_samples else flags["lr_wsd_decay_iters"]
    if not annealed:
        raise ConfigError(f"--lr-decay-style WSD needs --lr-wsd-decay-{'samples' if by_samples else 'iters'}.")
    samples = annealed * (1 if by_samples else length.batch)
    return {"wsd_decay": flags["lr_wsd_decay_style"], **_in_steps("decay", samples, length)}


def _in_steps(what: str, samples: float, length: Length) -> dict[str, Any]:
    """A length in steps where it is a whole number of them, else in tokens."""
    steps = samples / length.batch
    if steps == int(steps):
        return {f"{what}_steps": int(steps)}
    return {f"{what}_tokens": round(samples * length.sequence)}


def _check_units(flags: Flags, by_samples: bool) -> None:
    """ConfigError where lengths are in steps and in samples, as Megatron-LM refuses it, or have no effect."""
    wrong = ("lr_decay_iters", "lr_warmup_iters", "lr_wsd_decay_iters")
    if not by_samples:
        wrong = ("lr_decay_samples", "lr_warmup_samples", "lr_wsd_decay_samples")
    unit, others = ("--train-samples", "samples") if by_samples else ("--train-iters", "iters")
    for key in wrong:
        if flags.given.get(key):
            raise ConfigError(f"--{key.replace('_', '-')} does not go with {unit}; give it in {others}.")
    if flags["lr_warmup_fraction"] is not None and (flags["lr_warmup_iters"] or flags["lr_warmup_samples"]):
        raise ConfigError("--lr-warmup-fraction and a warm-up in iterations or samples: give one of them.")
    if flags["lr_decay_style"] != "WSD":
        for key in ("lr_wsd_decay_style", "lr_wsd_decay_iters", "lr_wsd_decay_samples"):
            if key in flags.given:
                raise ConfigError(
                    f"--{key.replace('_', '-')} has no effect without --lr-decay-style WSD; leave it out."
                )


def precision(flags: Flags) -> dict[str, Any]:
    """The fields precision and loss_scale of the section `training`."""
    if flags["fp16"] and flags["bf16"]:
        raise ConfigError("--fp16 and --bf16: give one of them.")
    if not flags["fp16"]:
        for key in ("initial_loss_scale", "min_loss_scale", "loss_scale_window", "hysteresis"):
            if key in flags.given and flags.given[key] != Flags({})[key]:
                raise ConfigError(f"--{key.replace('_', '-')} has no effect without --fp16; leave it out.")
        return {"precision": "bf16" if flags["bf16"] else "fp32"}
    scale = {"initial": flags["initial_loss_scale"], "growth_interval": int(flags["loss_scale_window"])}
    scale |= {"hysteresis": flags["hysteresis"], "minimum": flags["min_loss_scale"]}
    return {"precision": "fp16", "loss_scale": scale}
