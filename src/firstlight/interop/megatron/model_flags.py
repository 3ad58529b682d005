"""The model that Megatron-LM's flags describe, as one of Firstlight's families.

Megatron-LM composes a model from independent switches; a family here fixes them together. A combination that no family
has is refused with the flags by which the nearest family differs.
"""

from __future__ import annotations

from typing import Any

from firstlight.interop.megatron.options import Flags
from firstlight.support.errors import ConfigError

_SWITCHES: dict[str, dict[str, Any]] = {
    "gpt2": {"normalization": "LayerNorm", "swiglu": False, "position_embedding_type": "learned_absolute"}
    | {"disable_bias_linear": False, "add_qkv_bias": False, "qk_layernorm": False, "group_query_attention": False},
    "llama": {"normalization": "RMSNorm", "swiglu": True, "position_embedding_type": "rope"}
    | {"disable_bias_linear": True, "add_qkv_bias": False, "qk_layernorm": False},
}
_SWITCHES["mistral"] = _SWITCHES["llama"]
_SWITCHES["qwen2"] = {**_SWITCHES["llama"], "add_qkv_bias": True}
_SWITCHES["qwen3"] = {**_SWITCHES["llama"], "qk_layernorm": True}
FAMILIES = tuple(_SWITCHES)
"""Families that Megatron-LM's flags can describe."""
LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What --use-rope-scaling fixes."""
_ROTARY = ("rotary_base", "rotary_seq_len_interpolation_factor", "use_rope_scaling", "rope_scaling_factor")
_KV_CHANNELS = ("llama", "mistral", "qwen3")


def switches(family: str) -> dict[str, Any]:
    """The options that make a model of `family`, by key."""
    return _SWITCHES[family]


def model_section(flags: Flags) -> dict[str, Any]:
    """The section `model` of a recipe, without the vocabulary. ConfigError names the flag that is not right."""
    for key in ("num_layers", "hidden_size", "num_attention_heads", "max_position_embeddings"):
        if not flags[key] or flags[key] < 0:
            raise ConfigError(f"--{key.replace('_', '-')} is missing, or not above 0; Megatron-LM needs it.")
    family = _family(flags)
    hidden, heads = flags["hidden_size"], flags["num_attention_heads"]
    gated = bool(flags["swiglu"])
    section: dict[str, Any] = {
        "architecture": family,
        "hidden_size": hidden,
        "intermediate_size": flags["ffn_hidden_size"] or default_ffn(hidden, gated),
        "num_hidden_layers": flags["num_layers"],
        "num_attention_heads": heads,
        "max_position_embeddings": flags["max_position_embeddings"],
        "rms_norm_eps": flags["norm_epsilon"],
        "tie_word_embeddings": not flags["untie_embeddings_and_output_weights"],
        "initializer_range": flags["init_method_std"],
        "hidden_dropout": flags["hidden_dropout"],
        "attention_dropout": flags["attention_dropout"],
    }
    if flags["group_query_attention"]:
        section["num_key_value_heads"] = flags["num_query_groups"]
    elif "num_query_groups" in flags.given:
        raise ConfigError("--num-query-groups has no effect without --group-query-attention; give both or neither.")
    if flags["kv_channels"] and flags["kv_channels"] * heads != hidden:
        section["head_dim"] = flags["kv_channels"]
        if family not in _KV_CHANNELS:
            raise ConfigError(f"--kv-channels: heads of architecture {family} are as wide as --hidden-size allows.")
    if family != "gpt2":
        section |= _rotary(flags)
    for key in _ROTARY if family == "gpt2" else ():
        if flags[key] != Flags({})[key]:
            raise ConfigError(f"--{key.replace('_', '-')} has no effect with learned positions; leave it out.")
    if family == "mistral":
        section["sliding_window"] = _window(flags)
    return section


def default_ffn(hidden: int, gated: bool) -> int:
    """Width of the feed-forward layer where --ffn-hidden-size is not given."""
    return int((4 * hidden * 2 / 3) / 64) * 64 if gated else 4 * hidden


def _family(flags: Flags) -> str:
    wanted = {key: flags[key] for key in _SWITCHES["qwen2"]}
    wanted["group_query_attention"] = flags["group_query_attention"]
    if flags["use_rotary_position_embeddings"]:
        wanted["position_embedding_type"] = "rope"
    wanted["window_size"] = "window_size" in flags.given
    differing = {}
    for family, having in _SWITCHES.items():
        having = {**having, "window_size": family == "mistral"}
        differing[family] = [key for key, value in having.items() if bool_or_text(wanted[key]) != bool_or_text(value)]
    nearest = min(differing, key=lambda family: len(differing[family]))
    if differing[nearest]:
        changes = ", ".join(
            _shown(key, {**_SWITCHES[nearest], "window_size": nearest == "mistral"}[key]) for key in differing[nearest]
        )
        raise ConfigError(
            f"no family of Firstlight is built so; the nearest is {nearest}, which differs in: {changes}. "
            "(docs/megatron.md has the flags of each.)"
        )
    return nearest


def bool_or_text(value: Any) -> Any:
    """Switches as true or false, whether they were given or not."""
    return value if isinstance(value, str) else bool(value)


def _shown(key: str, value: Any) -> str:
    name = f"--{key.replace('_', '-')}"
    return f"{name} {value}" if isinstance(value, str) else f"{'with' if value else 'without'} {name}"


def _rotary(flags: Flags) -> dict[str, Any]:
    section: dict[str, Any] = {"rope_theta": float(flags["rotary_base"])}
    linear = flags["rotary_seq_len_interpolation_factor"]
    if flags["use_rope_scaling"]:
        if linear:
            raise ConfigError("--use-rope-scaling and --rotary-seq-len-interpolation-factor: give one of them.")
        section["rope_scaling"] = {"type": "llama3", "factor": flags["rope_scaling_factor"], **LLAMA3_SCALING}
    elif linear:
        section["rope_scaling"] = {"type": "linear", "factor": float(linear)}
    elif "rope_scaling_factor" in flags.given:
        raise ConfigError("--rope-scaling-factor has no effect without --use-rope-scaling; give both or neither.")
    return section


def _window(flags: Flags) -> int:
    parts = str(flags["window_size"]).strip("()").split(",")
    if len(parts) != 2 or not parts[0].strip().isdecimal() or parts[1].strip() != "0":
        raise ConfigError(
            f"--window-size {flags['window_size']}: W,0 is what is understood here, with W positions to the left."
        )
    return int(parts[0]) + 1
