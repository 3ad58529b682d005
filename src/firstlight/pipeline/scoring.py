"""The verb `eval`: a run's scores by domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.documents import expand_inputs, read_documents
from firstlight.evaluation.perplexity import (
    PSEUDO_TOKENS,
    evaluate_pretraining,
    evaluate_split,
    evaluation_masks,
)
from firstlight.evaluation.pseudo import EvenSample, pseudo_numbers, pseudo_score
from firstlight.evaluation.score import Share
from firstlight.evaluation.scorer import Scorer
from firstlight.model import LanguageModel
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.support.console import progress, warn
from firstlight.support.errors import DataError
from firstlight.tokens.dataset import Split, TokenDataset
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.load import TrainedModel, load_trained

DEFAULT_BATCH_SIZE = 8
Scores = dict[str, dict[str, float | None]]
"""By domain, the numbers of `Score.as_dict`, and those of pseudo-perplexity where it was asked for."""


def evaluate(
    run: str | Path,
    *,
    step: int | None = None,
    files: Mapping[str, Sequence[str]] | None = None,
    max_tokens: int | None = None,
    pseudo_tokens: int = PSEUDO_TOKENS,
    device: str | None = None,
) -> Scores:
    """Loss, perplexity and accuracy of a run by domain: on its held-out documents, or on `files` by domain.

    Bits per byte too of a causal model; of a masked one pseudo-perplexity over at most `pseudo_tokens` tokens a domain
    (0: none). max_tokens: most tokens per domain; unset: all of them. Arithmetic is fp32.
    """
    trained = load_trained(run, step, device)
    if files:
        return _on_files(trained, files, max_tokens, pseudo_tokens)
    return _on_held_out(trained, max_tokens, pseudo_tokens)


def _on_held_out(trained: TrainedModel, max_tokens: int | None, pseudo_tokens: int) -> Scores:
    splits = dict(_held_out(trained))
    if not splits:
        raise DataError(
            f"{trained.run.path}: none of its sources has held-out documents; evaluate files with --data NAME=FILES."
        )
    causal = trained.config.model.causal
    scorer = _scorer(trained.model, trained.config, trained.tokenizer)
    samples = {name: EvenSample(0 if causal else pseudo_tokens, trained.tokenizer) for name in splits}
    total = sum(min(split.num_tokens - 1, max_tokens or split.num_tokens) for split in splits.values())
    with progress("evaluate", total, "tokens") as bar:
        scores = {
            name: evaluate_split(scorer, split, max_tokens=max_tokens, advance=bar.advance, sample=samples[name])
            for name, split in splits.items()
        }
    numbers = {name: score.as_dict(causal=causal) for name, score in scores.items()}
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
    scorer = _scorer(model, config, tokenizer, ranks)
    return {
        name: evaluate_split(scorer, split, max_tokens=max_tokens).as_dict(causal=config.model.causal)
        for name, split in splits.items()
    }


def _scorer(
    model: LanguageModel | ParallelModel, config: RunConfig, tokenizer: Tokenizer, ranks: Ranks | None = None
) -> Scorer:
    """ranks: unset for this process alone."""
    ranks = ranks or Ranks(device=next(p.device for _, p in model.named_parameters()))
    return Scorer(
        model,
        tokenizer,
        config.data.sequence_length,
        _batch_size(config),
        ranks.device,
        None if config.model.causal else evaluation_masks(config.masking, tokenizer, config.seed),
        config.data.attention_within_documents,
        Share(ranks.data_rank, ranks.layout.data, ranks.sum_over_data),
    )


def _batch_size(config: RunConfig) -> int:
    return config.evaluation.batch_size or config.training.micro_batch_size or DEFAULT_BATCH_SIZE


def _held_out(trained: TrainedModel) -> Iterator[tuple[str, Split]]:
    for name, source in trained.config.data.sources.items():
        assert source.tokens is not None
        dataset = TokenDataset.open(Path(source.tokens))
        if dataset.tokenizer_fingerprint != trained.tokenizer.fingerprint:
            raise DataError(f"{source.tokens}: made with another tokenizer than the run {trained.run.path}.")
        split = dataset.splits.get("validation")
        if split is None or split.num_tokens < 2:
            warn(f"source '{name}' has no held-out documents; it is not evaluated.")
        else:
            yield name, split


def _on_files(
    trained: TrainedModel, files: Mapping[str, Sequence[str]], max_tokens: int | None, pseudo_tokens: int
) -> Scores:
    inputs = {name: expand_inputs(patterns) for name, patterns in files.items()}
    tallies = {name: Tally() for name in inputs}
    try:
        with progress("evaluate", None, "tokens") as bar:
            scores = evaluate_pretraining(
                trained.model,
                trained.tokenizer,
                {name: _texts(paths, tallies[name]) for name, paths in inputs.items()},
                sequence_length=trained.config.data.sequence_length,
                batch_size=_batch_size(trained.config),
                max_tokens=max_tokens,
                advance=bar.advance,
                masking=None if trained.config.model.causal else trained.config.masking,
                seed=trained.config.seed,
                pseudo_tokens=pseudo_tokens,
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
