"""Export to a folder that `AutoModelForCausalLM` and `AutoTokenizer` load.

The llama family carries Hugging Face's own parameter names and pairing of rotary channels, so its weights are copied
as they are (Qwen3 when it has a query-key norm); the gpt2 family is renamed, with matrices transposed and the three
projections of attention fused, as GPT-2's Conv1D has them. `transformers` is not needed to write the folder, nor a
model: weights are read, turned and written one tensor at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from firstlight import __version__
from firstlight.config import ModelConfig
from firstlight.interop.model_card import model_card, public_facts
from firstlight.interop.safetensors_file import write_safetensors
from firstlight.interop.weights import Weights, huggingface_tensors, weights_of_model
from firstlight.model import CausalLanguageModel
from firstlight.support.console import note, progress
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, write_json
from firstlight.tokens.tokenizer import Tokenizer

MARKER = "firstlight.json"
"""Names the folder as an export (format, version, provenance), so that a later export may replace it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def export_huggingface(
    model: CausalLanguageModel | Weights,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Write weights, configuration, tokenizer and model card into `folder`; returns what was written.

    model: in memory, or the `Weights` of a checkpoint. provenance: JSON-like facts of the run; those that may be
    published (`model_card.PUBLIC`) go to the card and to `firstlight.json`. Weights above `max_shard_bytes` are split
    over several files with an index. dtype: "float32" or "bfloat16". Returns {"folder", "architecture", "parameters",
    "bytes", "files", "padding_rows", "unused_rows"}: the last rows of the vocabulary that were left out because
    rounding up had added them, and those that no token has and that stay because the vocabulary's size was given. The
    folder is whole or absent. Raises ConfigError, naming the field, for what Hugging Face's model cannot represent,
    and DataError for a target that is neither empty nor an earlier export, or that the weights cannot be written to.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known; known: {', '.join(DTYPES)}.")
    if max_shard_bytes < 1:
        raise ConfigError(f"max_shard_bytes is {max_shard_bytes}; at least 1 is due.")
    weights = model if isinstance(model, Weights) else weights_of_model(model)
    settings = huggingface_config(weights.config, tokenizer, dtype)
    vocab_size = settings["vocab_size"]
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model's vocabulary {vocab_size}; "
            "they do not belong together."
        )
    _check_target(folder)

    summary: dict[str, Any] = {
        "folder": str(folder),
        "architecture": settings["architectures"][0],
        "padding_rows": weights.config.vocab_padding,
        "unused_rows": vocab_size - tokenizer.vocab_size,
    }
    facts = public_facts(provenance or {})
    with atomic_folder(folder) as temporary:
        tokenizer.save(temporary)
        write_json(temporary / "config.json", settings)
        write_json(temporary / "generation_config.json", _generation_config(settings))
        try:
            summary |= _write_weights(weights, temporary, DTYPES[dtype], max_shard_bytes)
        except OSError as problem:
            raise DataError(f"{folder}: the weights cannot be written ({problem.strerror or problem}).") from None
        (temporary / "README.md").write_text(model_card(settings, summary, facts), encoding="utf-8")
        description = {"format": "huggingface", "firstlight": __version__, "padding_rows": summary["padding_rows"]}
        write_json(temporary / MARKER, {**description, "provenance": facts})
    if summary["padding_rows"]:
        note(f"export: {summary['padding_rows']} padding rows of the vocabulary left out; {vocab_size} rows remain.")
    if summary["unused_rows"]:
        note(f"export: no token has {summary['unused_rows']} of the {vocab_size} vocabulary rows.")
    return summary


def huggingface_config(config: ModelConfig, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    """The content of config.json: LlamaForCausalLM, Qwen3ForCausalLM or GPT2LMHeadModel.

    Its vocabulary is without padding. Raises ConfigError, naming the field, for a shape that the class does not have.
    """
    assert config.vocab_size is not None
    common = {
        "vocab_size": config.vocab_size - config.vocab_padding,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": tokenizer.eod_id,
        "eos_token_id": tokenizer.eod_id,
        "pad_token_id": tokenizer.pad_id,
        "dtype": dtype,
        "use_cache": True,
    }
    if config.initializer_range > 1:
        raise ConfigError(f"model.initializer_range is {config.initializer_range:g}; Hugging Face allows at most 1.")
    if config.architecture == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            **common,
            "n_embd": config.hidden_size,
            "n_layer": config.num_hidden_layers,
            "n_head": config.num_attention_heads,
            "n_inner": config.intermediate_size,
            "n_positions": config.max_position_embeddings,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    if not config.qk_norm and config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"model.num_attention_heads {config.num_attention_heads} does not divide hidden_size {config.hidden_size}, "
            "which Hugging Face's LLaMA requires even when head_dim is given; only with qk_norm (Qwen3) is it allowed."
        )
    return {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if config.qk_norm else "llama",
        **common,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": False,
        "attention_dropout": 0.0,
        # transformers 5 reads rope_parameters, earlier versions and other engines rope_theta.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        **({"use_sliding_window": False} if config.qk_norm else {"mlp_bias": False}),
    }


def _write_weights(weights: Weights, folder: Path, dtype: torch.dtype, max_shard_bytes: int) -> dict[str, Any]:
    """Write model.safetensors, or numbered shards and their index. One tensor is held at a time."""
    tensors = {tensor.name: tensor for tensor in huggingface_tensors(weights)}
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    shards = _plan_shards(
        ((name, math.prod(tensor.shape) * dtype.itemsize) for name, tensor in tensors.items()), max_shard_bytes
    )
    file_names = [
        "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    total = parameters * dtype.itemsize
    with progress("export", total, "bytes") as bar:
        for file_name, shard in zip(file_names, shards, strict=True):
            shapes = {name: tensors[name].shape for name in shard}
            write_safetensors(
                folder / file_name, shapes, lambda name: tensors[name].read(weights), dtype, wrote=bar.advance
            )
    if len(shards) > 1:
        places = {name: file for file, shard in zip(file_names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": total, "total_parameters": parameters}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)
    return {"parameters": parameters, "bytes": total, "files": file_names}


def _plan_shards(sizes: Iterator[tuple[str, int]], max_shard_bytes: int) -> list[dict[str, int]]:
    """Weights in order, as many to a shard as fit; one that is larger than a shard gets its own."""
    shards: list[dict[str, int]] = [{}]
    for name, size in sizes:
        if shards[-1] and sum(shards[-1].values()) + size > max_shard_bytes:
            shards.append({})
        shards[-1][name] = size
    return shards


def _generation_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    ids = {key: settings[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {key: value for key, value in ids.items() if value is not None}


def _check_target(folder: Path) -> None:
    if folder.is_file():
        raise DataError(f"{folder}: a file, where the export needs a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise DataError(
            f"{folder}: not empty, and not an earlier export (it has no {MARKER}); give an empty or a new folder."
        )
