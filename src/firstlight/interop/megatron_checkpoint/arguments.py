"""The shape of a model in the arguments of Megatron's training command, which a checkpoint keeps, both ways.

Megatron has hundreds of arguments; those that change what a model computes are listed here, each with what Firstlight
computes. Source: megatron/training/arguments.py (core_transformer_config_from_args) and megatron-core 0.16,
`transformer/transformer_config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.config import ModelConfig
from firstlight.interop.fields import Fields
from firstlight.support.errors import ConfigError

FIXED: Mapping[str, tuple[Any, ...]] = {
    "num_experts": (None, 0),
    "multi_latent_attention": (False, None),
    "mtp_num_layers": (None, 0),
    "is_hybrid_model": (False, None),
    "hybrid_layer_pattern": (None,),
    "hybrid_override_pattern": (None,),
    "heterogeneous_layers_config_path": (None,),
    "heterogeneous_layers_config_encoded_json": (None, ""),
    "experimental_attention_variant": (None,),
    "linear_attention_freq": (None,),
    "linear_attention_type": (None,),
    "attention_output_gate": (False, None),
    "softmax_type": ("vanilla", None),
    "softmax_scale": (None,),
    "window_attn_skip_freq": (None,),
    "no_rope_freq": (None,),
    "rotary_interleaved": (False, None),
    "rotary_percent": (1, None),
    "mrope_section": (None,),
    "qk_l2_norm": (False, None),
    "qk_clip": (False, None),
    "apply_layernorm_1p": (False, None),
    "apply_residual_connection_post_layernorm": (False, None),
    "squared_relu": (False, None),
    "quick_geglu": (False, None),
    "glu_linear_offset": (0, None),
    "activation_func_clamp_value": (None,),
    "use_mup": (False, None),
}
"""Argument → the values with which Megatron computes what Firstlight does; one that is missing has the first."""
ROTARY, LEARNED = "rope", "learned_absolute"
_ABSENT = object()
_KIND = ("position_embedding_type", "normalization", "swiglu", "add_bias_linear", "add_qkv_bias", "qk_layernorm")
"""The arguments that tell one family from another."""
_ROTARY_KIND = {"position_embedding_type": ROTARY, "normalization": "RMSNorm", "swiglu": True, "add_bias_linear": False}
_LEARNED_KIND = {"position_embedding_type": LEARNED, "normalization": "LayerNorm", "swiglu": False}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_ROTARY_KIND, "add_qkv_bias": False, "qk_layernorm": False},
    "mistral": {**_ROTARY_KIND, "add_qkv_bias": False, "qk_layernorm": False},
    "qwen2": {**_ROTARY_KIND, "add_qkv_bias": True, "qk_layernorm": False},
    "qwen3": {**_ROTARY_KIND, "add_qkv_bias": False, "qk_layernorm": True},
    "gpt2": {**_LEARNED_KIND, "add_bias_linear": True, "add_qkv_bias": False, "qk_layernorm": False},
}
"""Firstlight's families that Megatron's GPT model can be, by the arguments of `_KIND`."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What Megatron's --use-rope-scaling fixes (`RotaryEmbedding._apply_scaling`)."""
RESTORED = frozenset(
    {"num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"}
    | {"group_query_attention", "max_position_embeddings", "position_embedding_type", "add_position_embedding"}
    | {"rotary_base", "rotary_percent", "add_bias_linear", "add_qkv_bias", "swiglu", "normalization"}
    | {"untie_embeddings_and_output_weights", "hidden_dropout", "attention_dropout"}
)
"""What Megatron's --use-checkpoint-args takes from a checkpoint (`load_args_from_checkpoint`); the rest are flags."""


def read_arguments(content: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Fields of `ModelConfig`, without the vocabulary, of a model that was trained with these arguments.

    origin: names the file in errors. Raises ConfigError, naming the argument and its value, for whatever Firstlight
    does not compute, and for what is missing.
    """
    fields = Fields(content, origin)
    for name, values in FIXED.items():
        value = fields.take(name, values[0])
        if value not in values:
            raise fields.refusal(_named(name), value, f"Firstlight computes with {values[0]!r}")
    settings: dict[str, Any] = {"objective": "causal"}
    for name, ours in (
        ("num_layers", "num_hidden_layers"),
        ("hidden_size", "hidden_size"),
        ("ffn_hidden_size", "intermediate_size"),
        ("num_attention_heads", "num_attention_heads"),
        ("max_position_embeddings", "max_position_embeddings"),
    ):
        settings[ours] = fields.take(name)
        if settings[ours] is None:
            raise ConfigError(f"{origin}: {_named(name)} is missing; give the shape with --recipe.")
    settings["head_dim"] = fields.take("kv_channels")
    grouped = fields.take("group_query_attention", True)
    groups = fields.take("num_query_groups")
    settings["num_key_value_heads"] = groups if grouped else None
    settings["norm_eps"] = fields.take_number("norm_epsilon", fields.take_number("layernorm_epsilon", 1e-5))
    settings["tie_word_embeddings"] = not fields.take("untie_embeddings_and_output_weights", False)
    settings["initializer_range"] = fields.take_number("init_method_std", 0.02)
    settings["hidden_dropout"] = fields.take_number("hidden_dropout", 0.1)
    settings["attention_dropout"] = fields.take_number("attention_dropout", 0.1)
    settings["architecture"] = _family(fields, content)
    if settings["architecture"] == "gpt2":
        _check_gelu(fields)
    else:
        settings |= _rotary(fields)
        settings |= _window(fields, settings["architecture"])
    return settings


def write_arguments(config: ModelConfig) -> dict[str, Any]:
    """The arguments of a model with the resolved configuration `config`.

    Raises ConfigError, naming the field, for what Megatron's GPT model does not compute.
    """
    if config.architecture not in FAMILIES or not config.causal:
        raise ConfigError(
            f"model.architecture {config.architecture} with objective {config.objective}: Megatron's GPT model has "
            f"nothing like it; {', '.join(FAMILIES)} with objective causal can be exported."
        )
    kind = FAMILIES[config.architecture]
    groups, heads = config.num_key_value_heads, config.num_attention_heads
    arguments: dict[str, Any] = {
        **kind,
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.intermediate_size,
        "num_attention_heads": heads,
        "group_query_attention": groups != heads,
        "num_query_groups": groups,
        "kv_channels": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "add_position_embedding": kind["position_embedding_type"] == LEARNED,
        "norm_epsilon": config.norm_eps,
        "untie_embeddings_and_output_weights": not config.tie_word_embeddings,
        "init_method_std": config.initializer_range,
        "hidden_dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
    }
    if kind["position_embedding_type"] == LEARNED:
        return {**arguments, "bias_gelu_fusion": True}
    return {**arguments, **_written_rotary(config), **_written_window(config)}


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """The flags that a command needs beside --use-checkpoint-args, which does not restore all of a model's shape."""
    defaults = {"norm_epsilon": 1e-5, "init_method_std": 0.02, "rope_scaling_factor": 8.0}
    words = []
    for name, value in arguments.items():
        if name in RESTORED or value in (None, False) or defaults.get(name, _ABSENT) == value:
            continue
        if name == "bias_gelu_fusion":  # Megatron's default, which a flag can only switch off
            continue
        values = [] if value is True else [str(item) for item in (value if isinstance(value, tuple) else (value,))]
        flag = "--" + name.replace("_", "-")
        words.append(f"{flag} {','.join(values)}" if name == "window_size" else " ".join((flag, *values)))
    return words


def _named(name: str) -> str:
    return f"args.{name}"


def _family(fields: Fields, content: Mapping[str, Any]) -> str:
    """The family that computes with these arguments; ConfigError, with those of all families, when none does."""
    positions = fields.take("position_embedding_type", LEARNED)
    if fields.take("use_rotary_position_embeddings", False):  # before position_embedding_type there was this
        positions = ROTARY
    given: dict[str, Any] = {
        "position_embedding_type": positions,
        "normalization": fields.take("normalization", "LayerNorm"),
        "swiglu": bool(fields.take("swiglu", False)),
        "add_bias_linear": bool(fields.take("add_bias_linear", True)),
        "add_qkv_bias": bool(fields.take("add_qkv_bias", False)),
        "qk_layernorm": bool(fields.take("qk_layernorm", False)),
    }
    if given["add_bias_linear"]:
        given["add_qkv_bias"] = False  # it has one anyway
    for name, kind in FAMILIES.items():
        if kind == given:
            return "mistral" if name == "llama" and content.get("window_size") else name
    shown = ", ".join(f"{name} {given[name]!r}" for name in _KIND)
    raise ConfigError(
        f"{fields.origin}: the arguments {shown} make a model that Firstlight has not; it has "
        + "; ".join(
            f"{name}: " + ", ".join(f"{key} {value!r}" for key, value in kind.items() if value != given[key])
            for name, kind in FAMILIES.items()
            if name != "mistral"
        )
        + " instead."
    )


def _check_gelu(fields: Fields) -> None:
    """ConfigError for the exact gelu: Megatron's fused kernel, its default, and --openai-gelu approximate it."""
    fused, openai = fields.take("bias_gelu_fusion", True), fields.take("openai_gelu", False)
    if not fused and not openai:
        raise fields.refusal(
            _named("bias_gelu_fusion"),
            fused,
            "without it Megatron computes gelu exactly, where Firstlight's gpt2 has the approximation with tanh; "
            "where a difference below 0.001 does not matter, give the shape with --recipe",
        )


def _rotary(fields: Fields) -> dict[str, Any]:
    theta = fields.take_number("rotary_base", 10_000)
    linear = fields.take_number("rotary_seq_len_interpolation_factor")
    llama3 = fields.take("use_rope_scaling", False)
    factor = fields.take_number("rope_scaling_factor", 8.0)
    scaling: dict[str, Any] | None = None
    if linear not in (None, 1):
        if llama3:
            raise fields.refusal(
                _named("rotary_seq_len_interpolation_factor"), linear, "Firstlight has it only without use_rope_scaling"
            )
        scaling = {"type": "linear", "factor": linear}
    elif llama3:
        scaling = {"type": "llama3", "factor": factor, **_LLAMA3}
    return {"rope_theta": theta, "rope_scaling": scaling}


def _written_rotary(config: ModelConfig) -> dict[str, Any]:
    assert config.rope_theta is not None
    theta: float = config.rope_theta
    if not theta.is_integer():
        raise ConfigError(f"model.rope_theta is {theta}; Megatron's --rotary-base takes whole numbers.")
    arguments: dict[str, Any] = {"rotary_base": int(theta), "rotary_percent": 1.0}
    scaling = config.rope_scaling
    if scaling is None:
        return arguments
    if scaling.type == "linear":
        if not scaling.factor.is_integer():
            raise ConfigError(
                f"model.rope_scaling.factor is {scaling.factor}; Megatron's --rotary-seq-len-interpolation-factor "
                "takes whole numbers."
            )
        return {**arguments, "rotary_seq_len_interpolation_factor": int(scaling.factor)}
    for name, value in _LLAMA3.items():
        if getattr(scaling, name) != value:
            raise ConfigError(
                f"model.rope_scaling.{name} is {getattr(scaling, name):g}; Megatron's --use-rope-scaling has {value:g}."
            )
    return {**arguments, "use_rope_scaling": True, "rope_scaling_factor": scaling.factor}


def _window(fields: Fields, architecture: str) -> dict[str, Any]:
    """Megatron counts the positions before a token, Firstlight the token too."""
    window = fields.take("window_size")
    if window is None:
        return {}
    if not (
        isinstance(window, list | tuple)
        and len(window) == 2
        and all(isinstance(side, int) for side in window)
        and window[0] >= 0
        and window[1] in (0, -1)
    ):
        raise fields.refusal(_named("window_size"), window, "a window of (positions before, 0) is due")
    return {"sliding_window": window[0] + 1}


def _written_window(config: ModelConfig) -> dict[str, Any]:
    return {"window_size": (config.sliding_window - 1, 0)} if config.sliding_window else {}
