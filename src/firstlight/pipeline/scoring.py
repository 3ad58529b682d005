"""The verb `eval`: a run's scores by domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from firstlight.config import RunConfig
from firstlight.documents import expand_inputs, read_documents
from firstlight.evaluation.perplexity import (
    PSEUDO_TOKENS,
    evaluate_documents,
    evaluate_pretraining,
    evaluate_split,
    evaluation_masks,
)
from firstlight.evaluation.pseudo import EvenSample, pseudo_numbers, pseudo_score
from firstlight.evaluation.score import Share
from firstlight.evaluation.scorer import Scorer
from firstlight.evaluation.windows import split_documents
from firstlight.model import LanguageModel
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.pipeline.evaluated import open_model, record_evaluation
from firstlight.support.console import progress, warn
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.sources import open_source
from firstlight.tokens.split import Split
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.load import TrainedModel

DEFAULT_BATCH_SIZE = 8
Scores = dict[str, dict[str, float | None]]
"""By domain, the numbers of `Score.as_dict`, and those of pseudo-perplexity where it was asked for."""


def evaluate(
    run: str | Path,
    *,
    step: int | None = None,
    files: Mapping[str, Sequence[str]] | None = None,
    max_tokens: int | None = None,
    sequence_length: int | None = None,
    stride: int | None = None,
    pseudo_tokens: int = PSEUDO_TOKENS,
    device: str | None = None,
) -> Scores:
    """Loss, perplexity and accuracy of a run by domain: on its held-out documents, or on `files` by domain.

    run: a run folder, or the folder of a Hugging Face model, which is evaluated on files. Bits per byte too of a causal
    model; of a masked one pseudo-perplexity over at most `pseudo_tokens` tokens a domain (0: none). Each document is
    read by itself, in windows of `sequence_length` tokens (unset: data.sequence_length) that begin `stride` tokens
    apart (unset: a whole window). Intervals are of 95 %, over documents. max_tokens: most tokens per domain; unset: all
    of them. Arithmetic is fp32. What comes out is also a line in the run's `evaluations.jsonl`.
    """
    trained = open_model(run, step, device)
    settings = _Settings(sequence_length or trained.config.data.sequence_length, stride, max_tokens, pseudo_tokens)
    limit = trained.config.model.max_position_embeddings
    assert limit is not None
    if settings.length > limit:
        raise ConfigError(f"--sequence-length is {settings.length}, and the model has {limit} positions; lower it.")
    if files:
        scores = _on_files(trained, files, settings)
    else:
        scores = _on_held_out(trained, settings)
    record_evaluation(
        trained,
        {
            "files" if files else "held_out": scores,
            "sequence_length": settings.length,
            "stride": stride or settings.length,
            "max_tokens": max_tokens,
        },
    )
    return scores


@dataclass(frozen=True)
class _Settings:
    length: int
    stride: int | None
    max_tokens: int | None
    pseudo_tokens: int


def _on_held_out(trained: TrainedModel, settings: _Settings) -> Scores:
    splits = dict(_held_out(trained))
    if not splits:
        raise DataError(
            f"{trained.run.path}: none of its sources has held-out documents; evaluate files with --data NAME=FILES."
        )
    causal, most = trained.config.model.causal, settings.max_tokens
    scorer = replace(scorer_of(trained), length=settings.length)
    samples = {name: EvenSample(0 if causal else settings.pseudo_tokens, trained.tokenizer) for name in splits}
    total = sum(min(split.num_tokens, most or split.num_tokens) for split in splits.values())
    with progress("evaluate", total, "tokens") as bar:
        scores = {
            name: evaluate_documents(
                scorer,
                split_documents(split, trained.tokenizer, most),
                stride=settings.stride,
                max_tokens=most,
                advance=bar.advance,
                sample=samples[name],
            )
            for name, split in splits.items()
        }
    numbers = {
        name: {**score.as_dict(causal=causal), **score.intervals(trained.config.seed, causal=causal)}
        for name, score in scores.items()
    }
    places = sum(len(sample.places) for sample in samples.values())
    if places:
        with progress("hide one at a time", places, "tokens") as bar:
            for name, sample in samples.items():
                numbers[name] |= pseudo_numbers(pseudo_score(scorer, sample, bar.advance))
    return numbers


def score_splits(
    model: LanguageModel | ParallelModel,
    splits: Mapping[str, Split],
    config: RunConfig,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    ranks: Ranks,
) -> Scores:
    """Scores of `model` on a split of each source, cut and masked as the configuration says.

    max_tokens: most tokens per source; unset: all. ranks: the processes that share the work, all of which call this
    and get the same scores.
    """
    scorer = rank_scorer(model, config, tokenizer, ranks)
    return {
        name: evaluate_split(scorer, split, max_tokens=max_tokens).as_dict(causal=config.model.causal)
        for name, split in splits.items()
    }


def rank_scorer(model: LanguageModel | ParallelModel, config: RunConfig, tokenizer: Tokenizer, ranks: Ranks) -> Scorer:
    """How the processes of a run score its model together; every layout takes batches of whole size."""
    return replace(
        run_scorer(model, config, tokenizer, ranks.device),
        whole_batches=True,
        share=Share(ranks.data_rank, ranks.layout.data, ranks.sum_over_data),
    )


def run_scorer(
    model: LanguageModel | ParallelModel, config: RunConfig, tokenizer: Tokenizer, device: torch.device
) -> Scorer:
    """How a run's model is scored, in this process alone."""
    return Scorer(
        model,
        tokenizer,
        config.data.sequence_length,
        batch_size_of(config),
        device,
        None if config.model.causal else evaluation_masks(config.masking, tokenizer, config.seed),
        config.data.attention_within_documents,
    )


def scorer_of(trained: TrainedModel) -> Scorer:
    """How the model of a finished run is scored."""
    device = next(trained.model.parameters()).device
    return run_scorer(trained.model, trained.config, trained.tokenizer, device)


def batch_size_of(config: RunConfig) -> int:
    """Sequences that an evaluation reads at once."""
    return config.evaluation.batch_size or config.training.micro_batch_size or DEFAULT_BATCH_SIZE


def _held_out(trained: TrainedModel) -> Iterator[tuple[str, Split]]:
    for name, source in trained.config.data.sources.items():
        tokens = open_source(source, trained.config.data.split)
        if tokens.folder and tokens.folder.tokenizer_fingerprint != trained.tokenizer.fingerprint:
            raise DataError(f"{tokens.folder.folder}: made with another tokenizer than the run {trained.run.path}.")
        split = tokens.splits.get("validation")
        if split is None or split.num_tokens < 2:
            warn(f"source '{name}' has no held-out documents; it is not evaluated.")
        else:
            yield name, split


def _on_files(trained: TrainedModel, files: Mapping[str, Sequence[str]], settings: _Settings) -> Scores:
    inputs = {name: expand_inputs(patterns) for name, patterns in files.items()}
    tallies = {name: Tally() for name in inputs}
    try:
        with progress("evaluate", None, "tokens") as bar:
            scores = evaluate_pretraining(
                trained.model,
                trained.tokenizer,
                {name: _texts(paths, tallies[name]) for name, paths in inputs.items()},
                sequence_length=settings.length,
                stride=settings.stride,
                batch_size=batch_size_of(trained.config),
                max_tokens=settings.max_tokens,
                advance=bar.advance,
                masking=None if trained.config.model.causal else trained.config.masking,
                seed=trained.config.seed,
                pseudo_tokens=settings.pseudo_tokens,
            )
    except DataError:
        _conclude(tallies)  # no text at all: the tally knows why
        raise
    _conclude(tallies)
    domains: Scores = scores["domains"]
    return domains


def _conclude(tallies: Mapping[str, Tally]) -> None:
    for name, tally in tallies.items():
        tally.conclude(f"evaluation of '{name}'", max_bad_fraction=1.0)


def _texts(paths: Sequence[str], tally: Tally) -> Iterator[str]:
    for path in paths:
        for entry in read_documents(path):
            text = tally.take(entry)
            if text is not None:
                yield text
