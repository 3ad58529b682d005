"""Export to a folder that `AutoModelForCausalLM` and `AutoTokenizer` load.

The llama family carries Hugging Face's own parameter names and pairing of rotary channels, so its weights are copied
as they are (Qwen3 when it has a query-key norm); the gpt2 family is renamed, with matrices transposed and the three
projections of attention fused, as GPT-2's Conv1D has them. `transformers` is not needed to write the folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from firstlight import __version__
from firstlight.config import ModelConfig
from firstlight.interop.model_card import model_card, public_facts
from firstlight.model import CausalLanguageModel
from firstlight.support.console import note, progress
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, write_json
from firstlight.tokens.tokenizer import Tokenizer

MARKER = "firstlight.json"
"""Names the folder as an export (format, version, provenance), so that a later export may replace it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GPT2_BLOCK = {
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}


def export_huggingface(
    model: CausalLanguageModel,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Write weights, configuration, tokenizer and model card into `folder`; returns what was written.

    provenance: JSON-like facts of the run; those that may be published (`model_card.PUBLIC`) go to the card and to
    `firstlight.json`. Weights above `max_shard_bytes` are split over several files with an index. dtype: "float32" or
    "bfloat16". Returns {"folder", "architecture", "parameters", "bytes", "files", "padding_rows"}. The folder is whole
    or absent. Raises ConfigError, naming the field, for what Hugging Face's model cannot represent, and DataError for
    a target that is neither empty nor an earlier export.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not known; known: {', '.join(DTYPES)}.")
    if max_shard_bytes < 1:
        raise ConfigError(f"max_shard_bytes is {max_shard_bytes}; at least 1 is due.")
    vocab_size = model.head_weight.shape[0]
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model's vocab_size is {vocab_size}; "
            "they do not belong together."
        )
    settings = huggingface_config(model.config, tokenizer, dtype)
    _check_target(folder)

    summary: dict[str, Any] = {"folder": str(folder), "architecture": settings["architectures"][0]}
    with atomic_folder(folder) as temporary:
        tokenizer.save(temporary)
        write_json(temporary / "config.json", settings)
        write_json(temporary / "generation_config.json", _generation_config(settings))
        try:
            summary |= _write_weights(model, temporary, DTYPES[dtype], max_shard_bytes)
        except SafetensorError as problem:  # its word for a full disk, too
            raise DataError(f"{folder}: the weights cannot be written ({problem}).") from None
        summary["padding_rows"] = vocab_size - tokenizer.vocab_size
        facts = public_facts(provenance or {})
        (temporary / "README.md").write_text(model_card(settings, summary, facts), encoding="utf-8")
        write_json(temporary / MARKER, {"format": "huggingface", "firstlight": __version__, "provenance": facts})
    if summary["padding_rows"]:
        note(f"export: {summary['padding_rows']} of {vocab_size} vocabulary rows are padding, no token has them.")
    return summary


def huggingface_config(config: ModelConfig, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    """The content of config.json: LlamaForCausalLM, Qwen3ForCausalLM or GPT2LMHeadModel.

    Raises ConfigError, naming the field, for a shape that the class does not have.
    """
    common = {
        "vocab_size": config.vocab_size,
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


def huggingface_weights(model: CausalLanguageModel) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight under Hugging Face's names, one at a time; tied weights once."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if model.config.architecture == "llama":
        yield from weights.items()
        return
    yield "transformer.wte.weight", weights["model.embed_tokens.weight"]
    yield "transformer.wpe.weight", weights["model.embed_positions.weight"]
    for layer in range(model.config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}.", f"transformer.h.{layer}."
        fused = [f"{ours}self_attn.{name}_proj" for name in "qkv"]
        yield f"{theirs}attn.c_attn.weight", torch.cat([weights[f"{name}.weight"] for name in fused]).T
        yield f"{theirs}attn.c_attn.bias", torch.cat([weights[f"{name}.bias"] for name in fused])
        for name, other in GPT2_BLOCK.items():
            weight = weights[f"{ours}{name}.weight"]
            yield f"{theirs}{other}.weight", weight.T if weight.ndim == 2 else weight
            yield f"{theirs}{other}.bias", weights[f"{ours}{name}.bias"]
    yield "transformer.ln_f.weight", weights["model.norm.weight"]
    yield "transformer.ln_f.bias", weights["model.norm.bias"]
    if "lm_head.weight" in weights:
        yield "lm_head.weight", weights["lm_head.weight"]


def _write_weights(
    model: CausalLanguageModel, folder: Path, dtype: torch.dtype, max_shard_bytes: int
) -> dict[str, Any]:
    """Write model.safetensors, or numbered shards and their index. No more than a shard is held beside the model."""
    from safetensors.torch import save_file

    sizes = ((name, weight.numel() * dtype.itemsize) for name, weight in huggingface_weights(model))
    shards = _plan_shards(sizes, max_shard_bytes)
    file_names = [
        "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    total = sum(sum(shard.values()) for shard in shards)
    weights = huggingface_weights(model)
    with progress("export", total, "bytes") as bar:
        for file_name, shard in zip(file_names, shards, strict=True):
            part = itertools.islice(weights, len(shard))
            tensors = {name: weight.to("cpu", dtype).contiguous() for name, weight in part}
            save_file(tensors, folder / file_name, metadata={"format": "pt"})
            bar.advance(sum(shard.values()))
    parameters = model.num_parameters()
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
