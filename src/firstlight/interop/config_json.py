"""Hugging Face's config.json both ways: what it says as a `ModelConfig`, and a `ModelConfig` in its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstlight.config import ModelConfig
from firstlight.interop.classes import HARMLESS, HuggingFaceClass, class_of_model, class_of_model_type
from firstlight.interop.fields import Fields
from firstlight.recipe import parse_config
from firstlight.support.console import note
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer

MOST_BLOCKS = 10_000
"""A configuration with more is damaged, or was made to fill memory."""


def read_config(content: Mapping[str, Any], origin: str) -> tuple[HuggingFaceClass, ModelConfig]:
    """The class that a config.json names, and the resolved configuration of the model that computes the same.

    origin: names the file in errors. Raises ConfigError, naming the field and its value, for whatever changes what the
    model computes and that Firstlight does not compute, and for fields that nobody here knows.
    """
    fields = Fields(content, origin)
    theirs = class_of_model_type(fields.take("model_type"), origin)
    settings: dict[str, Any] = {"architecture": theirs.architecture, "objective": theirs.objective}
    for name, ours in theirs.fields.items():
        value = fields.take(name)
        if value is None and name not in theirs.defaults:
            raise ConfigError(f"{origin}: {name} is missing.")
        settings[ours] = theirs.defaults.get(name) if value is None else value
    layers = settings["num_hidden_layers"]
    if not isinstance(layers, int) or not 1 <= layers <= MOST_BLOCKS:
        raise fields.refusal("the number of blocks", layers, f"a whole number from 1 to {MOST_BLOCKS} is due")
    for converter in theirs.converters:
        settings |= converter.read(fields, layers)
    for name, values in theirs.fixed.items():
        value = fields.take(name, values[0])
        if value not in values:
            has = " or ".join(repr(other) for other in values)
            raise fields.refusal(name, value, f"Firstlight's {theirs.architecture} computes with {has}")
    settings |= _read_dropouts(fields, theirs)
    fields.check_rest(HARMLESS | theirs.free)
    whole = parse_config({"name": "model", "data": {"sequence_length": 1}, "model": settings}, origin)
    return theirs, whole.model.resolved()


def write_config(config: ModelConfig, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    """The content of config.json for a model of the resolved configuration `config`.

    Its vocabulary is without padding. Raises ConfigError, naming the field, for a shape or an objective that no class
    of `transformers` has.
    """
    theirs = class_of_model(config)
    if config.initializer_range > 1:
        raise ConfigError(f"model.initializer_range is {config.initializer_range:g}; Hugging Face allows at most 1.")
    if theirs.heads_divide_width and config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"model.num_attention_heads {config.num_attention_heads} does not divide hidden_size {config.hidden_size}, "
            f"which {theirs.name} requires even when head_dim is given; architecture mistral and qwen3 do not."
        )
    assert config.vocab_size is not None
    settings: dict[str, Any] = {"architectures": [theirs.name], "model_type": theirs.model_type}
    settings |= {name: getattr(config, ours) for name, ours in theirs.fields.items()}
    settings["vocab_size"] = config.vocab_size - config.vocab_padding
    settings |= {name: values[0] for name, values in theirs.fixed.items()}
    settings |= {name: 0.0 if ours is None else getattr(config, ours) for name, ours in theirs.dropouts.items()}
    if config.hidden_dropout and "hidden_dropout" not in theirs.dropouts.values():
        note(
            f"export: model.hidden_dropout {config.hidden_dropout:g} is left out, because {theirs.name} has no field "
            "for it; it matters in training only."
        )
    for converter in theirs.converters:
        settings |= converter.write(config)
    return {**settings, **_token_ids(theirs, tokenizer), "dtype": dtype, "use_cache": config.causal}


def _read_dropouts(fields: Fields, theirs: HuggingFaceClass) -> dict[str, float]:
    """What config.json says of dropout, as fields of `ModelConfig`, with a note of what these cannot say."""
    settings: dict[str, float] = {}
    left_out = []
    for name, ours in theirs.dropouts.items():
        value = fields.take_number(name, theirs.dropout) or 0.0
        if settings.setdefault(ours, value) != value if ours else value:
            left_out.append(f"{name} {value:g}")
    if left_out:
        kept = ", ".join(f"{ours} {value:g}" for ours, value in settings.items())
        note(
            f"{fields.origin}: {', '.join(left_out)} has no counterpart here: training goes on with {kept}; what the "
            "model computes otherwise is the same."
        )
    return settings


def _token_ids(theirs: HuggingFaceClass, tokenizer: Tokenizer) -> dict[str, int | None]:
    """The tokens that a class names in its configuration; documents begin and end with the same one."""
    ids = {"bos_token_id": tokenizer.eod_id, "eos_token_id": tokenizer.eod_id, "pad_token_id": tokenizer.pad_id}
    if theirs.model_type == "modernbert":
        ids |= {"cls_token_id": tokenizer.eod_id, "sep_token_id": tokenizer.eod_id}
    if theirs.objective == "masked" and tokenizer.mask_id is not None:
        ids["mask_token_id"] = tokenizer.mask_id
    return ids
