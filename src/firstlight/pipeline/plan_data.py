"""What a plan reads of a recipe's tokenizer and token datasets, where they are here: sizes alone, nothing is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from firstlight.config import ModelConfig, RunConfig
from firstlight.pipeline.mixture_report import mixture_report
from firstlight.planning.diagnosis import Finding
from firstlight.support.errors import ConfigError, FirstlightError
from firstlight.tokens.batches import SampleStream
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.tokenizer import Tokenizer


def datasets_here(config: RunConfig) -> dict[str, TokenDataset]:
    """The token datasets of a recipe; none unless all its sources name one that is on this machine."""
    folders = {name: source.tokens for name, source in config.data.sources.items()}
    if not all(folder and Path(folder).is_dir() for folder in folders.values()):
        return {}
    return {name: TokenDataset.described(str(folder)) for name, folder in folders.items()}


def tokenizer_size_of(config: RunConfig, datasets: Mapping[str, TokenDataset]) -> int | None:
    """Tokens of the tokenizer that training would use; None where that is on the hub or made of unknown text."""
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path).vocab_size if Path(config.tokenizer.path).exists() else None
    if datasets:
        return max(dataset.vocab_size for dataset in datasets.values())
    return config.tokenizer.vocab_size if any(source.text for source in config.data.sources.values()) else None


def resolved_model(config: RunConfig, tokenizer_size: int | None) -> ModelConfig:
    """The model with its shape complete; a vocabulary that is too small for the tokenizer is left as it is."""
    size = tokenizer_size or config.tokenizer.vocab_size
    if config.model.vocab_size is not None and config.model.vocab_size < size:
        size = config.model.vocab_size
    return config.model.resolved(size, config.data.sequence_length)


def passes_over_sources(
    config: RunConfig, datasets: Mapping[str, TokenDataset], steps: int, global_batch_size: int
) -> tuple[dict[str, float], float | None, list[Finding]]:
    """(passes over each source, what all tokens drawn are worth in new ones, what training would refuse)."""
    if not datasets:
        return {}, None, []
    tokens = steps * global_batch_size * config.data.sequence_length
    splits = {name: dataset.splits["train"] for name, dataset in datasets.items()}
    sizes = {name: split.num_tokens for name, split in splits.items()}
    findings = []
    try:
        stream = SampleStream(splits, config.data, config.seed, config.model.vocab_size)
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
