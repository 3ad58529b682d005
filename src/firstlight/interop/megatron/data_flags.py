"""Data and tokenizer of Megatron-LM's flags: prefixes, their blend, their split, and the padded vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firstlight.interop.megatron.options import Flags, command_line
from firstlight.support.errors import ConfigError
from firstlight.support.files import read_json
from firstlight.tokens.tokenizer import Tokenizer

DEFAULT_SPLIT = "969, 30, 1"
NO_LIMIT = 1e9
"""Passes over a source: Megatron-LM has no limit."""
_KINDS = ("train", "valid", "test")


def data_section(flags: Flags, required: bool = True) -> dict[str, Any]:
    """The section `data`. ConfigError when nothing names data and it is required, or two flags do."""
    if not flags["seq_length"]:
        raise ConfigError("--seq-length is missing.")
    section: dict[str, Any] = {
        "sequence_length": flags["seq_length"],
        "order": "megatron",
        "max_epochs": NO_LIMIT,
        "attention_within_documents": _within_documents(flags),
    }
    whole = _whole_blend(flags)
    parts = _parts(flags)
    if whole is not None and any(parts.values()):
        raise ConfigError("--data-path with --split, or --train-data-path and --valid-data-path: give one of the two.")
    if whole is not None:
        sources, mixture = _sources(whole, "tokens", "--data-path")
        return {**section, "sources": sources, "mixture": mixture, "split": flags["split"] or DEFAULT_SPLIT}
    if not any(parts.values()) and not required:
        return section
    if not parts["train"]:
        raise ConfigError(
            "no data: give --data-path PREFIX (or --train-data-path and --valid-data-path), where PREFIX.bin and "
            "PREFIX.idx are what preprocess_data.py wrote."
        )
    if parts["test"]:
        raise ConfigError("test data is not used in training; leave it out and run firstlight eval afterwards.")
    if flags["split"]:
        raise ConfigError("--split divides --data-path; leave it out, the parts are named one by one.")
    sources, mixture = _sources(parts["train"], "tokens", "--train-data-path")
    held_out, _ = _sources(parts["valid"] or [], "validation_tokens", "--valid-data-path", taken=sources)
    return {**section, "sources": {**sources, **held_out}, "mixture": mixture, "split": "100, 0, 0"}


def _within_documents(flags: Flags) -> bool:
    if flags["reset_position_ids"] and not flags["reset_attention_mask"]:
        raise ConfigError("--reset-position-ids goes with --reset-attention-mask here; give both or neither.")
    return bool(flags["reset_attention_mask"])


def _whole_blend(flags: Flags) -> list[str] | None:
    given, file = flags["data_path"], flags["data_args_path"]
    if given is not None and file is not None:
        raise ConfigError("--data-path and --data-args-path: give one of them.")
    return command_line(_text(file, "--data-args-path")) if file is not None else given


def _parts(flags: Flags) -> dict[str, list[str] | None]:
    parts: dict[str, list[str] | None] = {kind: flags[f"{kind}_data_path"] for kind in _KINDS}
    file = flags["per_split_data_args_path"]
    if file is None:
        return parts
    if any(parts.values()):
        raise ConfigError("--per-split-data-args-path and --train-data-path: give one of them.")
    content = read_json(Path(file), "file of --per-split-data-args-path")
    if not isinstance(content, dict) or not set(content) <= set(_KINDS):
        raise ConfigError(f"{file}: an object with train, valid and test is due, each a list of prefixes.")
    for kind, value in content.items():
        if value is None:
            continue
        listed = value if isinstance(value, list) else [value]
        parts[kind] = [str(item) for item in listed]
    return parts


def _text(file: str, option: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{option} {file}: {getattr(problem, 'strerror', None) or 'not a text file'}.") from None


def split_blend(blend: Sequence[str], option: str) -> tuple[list[str], list[float] | None]:
    """Prefixes, and their weights where weights are given: p, or w1 p1 w2 p2, or p1 p2."""
    if len(blend) % 2:
        return list(blend), None
    numbers: list[float | None] = []
    for item in blend[::2]:
        try:
            numbers.append(float(item))
        except ValueError:
            numbers.append(None)
    if all(number is None for number in numbers):
        return list(blend), None
    weights = [number for number in numbers if number is not None]
    if len(weights) < len(numbers) or min(weights) <= 0:
        raise ConfigError(f"{option} {' '.join(blend)}: a weight above 0 before each prefix, or before none.")
    return list(blend[1::2]), weights


def _sources(
    blend: Sequence[str], field: str, option: str, taken: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, float]]:
    prefixes, weights = split_blend(blend, option)
    if not prefixes and field == "tokens":
        raise ConfigError(f"{option} names no prefix.")
    sources: dict[str, Any] = {}
    mixture: dict[str, float] = {}
    for number, prefix in enumerate(prefixes):
        name = base = Path(prefix).name
        copies = 2
        while name in sources or name in (taken or {}):
            name, copies = f"{base}-{copies}", copies + 1
        sources[name] = {field: prefix.strip()}
        if weights:
            mixture[name] = weights[number]
    return sources, mixture


def tokenizer_path(flags: Flags, required: bool = True) -> str | None:
    """`tokenizer.path`; None for NullTokenizer, and where none is named and none required."""
    kind, model = flags["tokenizer_type"], flags["tokenizer_model"]
    if kind == "NullTokenizer":
        if not flags["vocab_size"]:
            raise ConfigError("--tokenizer-type NullTokenizer needs --vocab-size.")
        if model is not None:
            raise ConfigError("--tokenizer-model has no effect with --tokenizer-type NullTokenizer; leave it out.")
        return None
    if kind is None and model is None and not required:
        return None
    if kind is None and model is None:
        raise ConfigError(
            "no tokenizer: give --tokenizer-type HuggingFaceTokenizer --tokenizer-model DIR (a tokenizer.json or its "
            "folder), or --tokenizer-type NullTokenizer --vocab-size N. Megatron-LM's default, GPT2BPETokenizer, reads "
            "vocab and merges files, which are not read here."
        )
    if kind not in ("HuggingFaceTokenizer", "Llama2Tokenizer"):
        raise ConfigError(
            f"--tokenizer-type {kind or 'GPT2BPETokenizer'}: HuggingFaceTokenizer, Llama2Tokenizer and NullTokenizer "
            "are understood here; make a tokenizer.json of yours and use HuggingFaceTokenizer."
        )
    if model is None:
        raise ConfigError(f"--tokenizer-type {kind} needs --tokenizer-model.")
    if "vocab_size" in flags.given:
        raise ConfigError("--vocab-size is for --tokenizer-type NullTokenizer; other tokenizers know theirs.")
    if kind == "Llama2Tokenizer" and Path(model).suffix == ".model":
        beside = Path(model).parent / "tokenizer.json"
        if not beside.is_file():
            raise ConfigError(
                f"--tokenizer-model {model}: a tokenizer.json with the same tokens is due beside it (transformers' "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it)."
            )
        return str(beside.parent)
    return str(model)


def vocabulary(flags: Flags, path: str | None, read_tokenizer: bool = True) -> dict[str, int]:
    """`vocab_size` and `vocab_padding` of the section `model`: padded to a multiple of 128 × tensor size.

    read_tokenizer: when false, the size comes from --padded-vocab-size and the padding is not known.
    """
    if not read_tokenizer and not flags["vocab_size"]:
        return {"vocab_size": flags["padded_vocab_size"]}
    tokens = flags["vocab_size"] + 1 if path is None else Tokenizer.load(path).vocab_size
    unit = flags["make_vocab_size_divisible_by"] * flags["tensor_model_parallel_size"]
    if unit < 1:
        raise ConfigError("--make-vocab-size-divisible-by must be above 0.")
    size = flags["padded_vocab_size"] or -(-tokens // unit) * unit
    if size < tokens:
        raise ConfigError(f"--padded-vocab-size {size} is smaller than the tokenizer's {tokens}.")
    return {"vocab_size": size, "vocab_padding": size - tokens}
