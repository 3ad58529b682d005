"""What a plan reads of a recipe's tokenizer and token datasets, where they are here: sizes alone, nothing is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from firstlight.config import ModelConfig, RunConfig
from firstlight.pipeline.mixture_report import mixture_report
from firstlight.planning.diagnosis import Finding
from firstlight.support.errors import ConfigError, FirstlightError
from firstlight.tokens.sources import SourceTokens, are_tokens_here, check_split, open_source
from firstlight.tokens.streams import open_stream
from firstlight.tokens.tokenizer import Tokenizer


def datasets_here(config: RunConfig) -> dict[str, SourceTokens]:
    """The tokens that a recipe trains on; none unless all its sources name some that are on this machine."""
    check_split(config.data)
    sources = {name: source for name, source in config.data.sources.items() if not source.only_validates}
    if not all(source.tokens and are_tokens_here(source.tokens) for source in sources.values()):
        return {}
    return {name: open_source(source, config.data.split) for name, source in sources.items()}


def tokenizer_size_of(config: RunConfig, datasets: Mapping[str, SourceTokens]) -> int | None:
    """Tokens of the tokenizer that training would use; None where that is on the hub or made of unknown text."""
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path).vocab_size if Path(config.tokenizer.path).exists() else None
    if datasets:
        folders = [dataset.folder.vocab_size for dataset in datasets.values() if dataset.folder]
        return max(folders, default=config.model.vocab_size)
    return config.tokenizer.vocab_size if any(source.text for source in config.data.sources.values()) else None


def resolved_model(config: RunConfig, tokenizer_size: int | None) -> ModelConfig:
    """The model with its shape complete; a vocabulary that is too small for the tokenizer is left as it is."""
    size = tokenizer_size or config.tokenizer.vocab_size
    if config.model.vocab_size is not None and config.model.vocab_size < size:
        size = config.model.vocab_size
    return config.model.resolved(size, config.data.sequence_length)


def passes_over_sources(
    config: RunConfig, datasets: Mapping[str, SourceTokens], steps: int, global_batch_size: int
) -> tuple[dict[str, float], float | None, list[Finding]]:
    """(passes over each source, what all tokens drawn are worth in new ones, what training would refuse)."""
    if not datasets:
        return {}, None, []
    tokens = steps * global_batch_size * config.data.sequence_length
    splits = {name: dataset.splits["train"] for name, dataset in datasets.items()}
    sizes = {name: split.num_tokens for name, split in splits.items()}
    findings = []
    try:
        stream = open_stream(splits, config, steps * global_batch_size)
        stream.check_supply(steps * global_batch_size, global_batch_size)
    except FirstlightError as problem:
        findings.append(
            Finding(
                "not enough text",
                "problem",
                None,
                str(problem),
                "`firstlight mixture RECIPE --propose` finds weights that fit.",
            )
        )
    try:
        report = mixture_report(config.data, sizes, tokens, config.seed)
    except ConfigError:
        return {}, None, findings
    return {name: source["epochs"] for name, source in report["sources"].items()}, report["effective_tokens"], findings
