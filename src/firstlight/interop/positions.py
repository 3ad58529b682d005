"""Rotary positions and attention windows, where several fields of a config.json make one setting.

Read in the style of transformers 4 (rope_theta, rope_scaling, global_rope_theta, …) and 5 (rope_parameters,
layer_types); both are written, each reader finds its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from firstlight.config import ModelConfig
from firstlight.interop.fields import Fields

FULL_ATTENTION, LOCAL_ATTENTION = "full_attention", "sliding_attention"
MODERNBERT_EVERY, MODERNBERT_WINDOW = 3, 128
THETA, MODERNBERT_THETA = 10_000.0, 160_000.0
_PARTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Type of rotary positions → the fields of `RopeScaling` that it reads."""


@dataclass(frozen=True)
class Converter:
    """Fields of config.json that belong together, both ways."""

    read: Callable[[Fields, int], dict[str, Any]]
    """(fields, number of blocks) → fields of `ModelConfig`. ConfigError for what Firstlight does not compute."""
    write: Callable[[ModelConfig], dict[str, Any]]
    """A resolved configuration → fields of config.json."""


def _read_rotary(fields: Fields, layers: int) -> dict[str, Any]:
    old, new = fields.take_section("rope_scaling"), fields.take_section("rope_parameters")
    theta = fields.take_number("rope_theta")
    name, section = ("rope_scaling", old) if old else ("rope_parameters", new)
    section.setdefault("partial_rotary_factor", fields.take("partial_rotary_factor"))
    return {
        "rope_theta": section.pop("rope_theta", None) or theta or THETA,
        "rope_scaling": _scaling(fields, name, section),
    }


def _scaling(fields: Fields, name: str, section: dict[str, Any]) -> dict[str, Any] | None:
    """The content of rope_scaling or rope_parameters, without its theta, as a `RopeScaling`."""
    older = section.pop("type", None)
    kind = section.pop("rope_type", None) or older or "default"
    if not isinstance(kind, str) or kind not in _PARTS:
        raise fields.refusal(f"{name}.rope_type", kind, f"Firstlight has {', '.join(_PARTS)}")
    taken = {part: section.pop(part) for part in _PARTS[kind] if section.get(part) is not None}
    if section.get("partial_rotary_factor") == 1:
        del section["partial_rotary_factor"]
    for part, value in section.items():
        if value is not None:
            raise fields.refusal(f"{name}.{part}", value, f"Firstlight's rotary positions of type {kind} have none")
    return {"type": kind, **taken} if _PARTS[kind] else None


def _write_rotary(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    section: dict[str, Any] = {"rope_type": scaling.type if scaling else "default"}
    if scaling:
        section |= {part: getattr(scaling, part) for part in _PARTS[scaling.type]}
    return {
        "rope_theta": config.rope_theta,
        **({"rope_scaling": section} if scaling else {}),
        "rope_parameters": {**section, "rope_theta": config.rope_theta},
    }


def _read_full(fields: Fields, layers: int) -> dict[str, Any]:
    if set(types := fields.take_list("layer_types")) - {FULL_ATTENTION}:
        raise fields.refusal("layer_types", types, "this architecture attends to all positions")
    return {}


def _read_window(fields: Fields, layers: int) -> dict[str, Any]:
    window = fields.take_number("sliding_window", 4096)
    types = set(fields.take_list("layer_types"))
    if types - {LOCAL_ATTENTION if window else FULL_ATTENTION}:
        raise fields.refusal("layer_types", sorted(types), "Firstlight's blocks of this architecture are all alike")
    return {"sliding_window": window or 0}


def _write_window(config: ModelConfig) -> dict[str, Any]:
    return {"sliding_window": config.sliding_window or None}


def _read_switched_window(fields: Fields, layers: int) -> dict[str, Any]:
    switched = fields.take("use_sliding_window", False)
    window = fields.take_number("sliding_window", 4096)
    first = fields.take_number("max_window_layers", 28)
    types = fields.take_list("layer_types")
    local = bool(switched and window)
    if not types:
        types = [LOCAL_ATTENTION if local and layer >= first else FULL_ATTENTION for layer in range(layers)]
    if set(types) == {FULL_ATTENTION}:
        return {"sliding_window": 0}
    if set(types) == {LOCAL_ATTENTION} and local:
        return {"sliding_window": window}
    raise fields.refusal(
        "max_window_layers", first, "Firstlight's blocks of this architecture all have the window, or none has it"
    )


def _write_switched_window(config: ModelConfig) -> dict[str, Any]:
    window, layers = config.sliding_window, config.num_hidden_layers
    return {
        "use_sliding_window": bool(window),
        "sliding_window": window or None,
        "max_window_layers": 0 if window else layers,
        "layer_types": [LOCAL_ATTENTION if window else FULL_ATTENTION] * layers,
    }


def _read_per_type(fields: Fields, layers: int) -> dict[str, Any]:
    """ModernBERT: every so manieth block is global, with rotary positions of its own."""
    window = fields.take_number("local_attention", MODERNBERT_WINDOW)
    if not window:
        raise fields.refusal("local_attention", window, "at least 1 is due")
    every = fields.take_number("global_attn_every_n_layers") or MODERNBERT_EVERY
    if types := fields.take_list("layer_types"):
        every = _every(fields, types, layers)
    stretched = fields.take_section("rope_scaling")
    section = fields.take_section("rope_parameters")
    theta = fields.take_number("global_rope_theta", MODERNBERT_THETA)
    thetas = {FULL_ATTENTION: theta, LOCAL_ATTENTION: fields.take_number("local_rope_theta", THETA) or theta}
    for kind in thetas:
        parameters = {**(section.pop(kind, None) or {}), **stretched}
        thetas[kind] = parameters.pop("rope_theta", None) or thetas[kind]
        if _scaling(fields, f"rope_parameters.{kind}", parameters):
            raise fields.refusal(f"rope_parameters.{kind}", parameters, "ModernBERT's positions are not stretched here")
    if section:
        raise fields.refusal("rope_parameters", section, f"{FULL_ATTENTION} and {LOCAL_ATTENTION} are due")
    return {
        "sliding_window": window,
        "global_attention_every": every,
        "rope_theta": thetas[FULL_ATTENTION],
        "local_rope_theta": thetas[LOCAL_ATTENTION],
    }


def _every(fields: Fields, types: list[str], layers: int) -> int:
    """n, where block i is global if and only if n divides i; 0 where none is."""
    found = [number for number, kind in enumerate(types) if kind == FULL_ATTENTION]
    every = (found[1] if len(found) > 1 else layers) if found else 0
    due = [FULL_ATTENTION if every and layer % every == 0 else LOCAL_ATTENTION for layer in range(layers)]
    if types != due:
        raise fields.refusal(
            "layer_types",
            types,
            f"Firstlight's {layers} blocks are {FULL_ATTENTION} from the first on, every so manieth",
        )
    return every


def _write_per_type(config: ModelConfig) -> dict[str, Any]:
    layers = range(config.num_hidden_layers)
    theta, local = config.rope_theta, config.local_rope_theta
    every = config.global_attention_every if config.sliding_window else 1
    return {
        "local_attention": config.sliding_window or MODERNBERT_WINDOW,
        "layer_types": [FULL_ATTENTION if config.is_global(layer) else LOCAL_ATTENTION for layer in layers],
        **({"global_attn_every_n_layers": every} if every else {}),
        "global_rope_theta": theta,
        "local_rope_theta": local,
        "rope_parameters": {
            FULL_ATTENTION: {"rope_type": "default", "rope_theta": theta},
            LOCAL_ATTENTION: {"rope_type": "default", "rope_theta": local},
        },
    }


ROTARY = Converter(_read_rotary, _write_rotary)
FULL = Converter(_read_full, lambda config: {})
"""Attention to all positions, whatever is said of layer types."""
WINDOW = Converter(_read_window, _write_window)
SWITCHED_WINDOW = Converter(_read_switched_window, _write_switched_window)
"""Qwen's window, which is off unless use_sliding_window is true, and then begins at a block."""
PER_TYPE = Converter(_read_per_type, _write_per_type)
