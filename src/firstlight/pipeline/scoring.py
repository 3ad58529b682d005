"""The verb `eval`: a run's loss, perplexity and bits per byte by domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.documents import expand_inputs, read_documents
from firstlight.evaluation.perplexity import Share, evaluate_pretraining, evaluate_split
from firstlight.model import CausalLanguageModel
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.support.console import progress, warn
from firstlight.support.errors import DataError
from firstlight.tokens.dataset import Split, TokenDataset
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.load import TrainedModel, load_trained

DEFAULT_BATCH_SIZE = 8
Scores = dict[str, dict[str, float]]


def evaluate(
    run: str | Path,
    *,
    step: int | None = None,
    files: Mapping[str, Sequence[str]] | None = None,
    max_tokens: int | None = None,
    device: str | None = None,
) -> Scores:
    """Loss, perplexity and bits per byte of a run by domain: on its held-out documents, or on `files` by domain.

    max_tokens: most tokens per domain; unset: all of them. Arithmetic is fp32.
    """
    trained = load_trained(run, step, device)
    return _on_files(trained, files, max_tokens) if files else _on_held_out(trained, max_tokens)


def _on_held_out(trained: TrainedModel, max_tokens: int | None) -> Scores:
    splits = dict(_held_out(trained))
    if not splits:
        raise DataError(
            f"{trained.run.path}: none of its sources has held-out documents; evaluate files with --data NAME=FILES."
        )
    total = sum(min(split.num_tokens - 1, max_tokens or split.num_tokens) for split in splits.values())
    with progress("evaluate", total, "tokens") as bar:
        return score_splits(trained.model, splits, trained.config, trained.tokenizer, max_tokens, bar.advance)


def score_splits(
    model: CausalLanguageModel | ParallelModel,
    splits: Mapping[str, Split],
    config: RunConfig,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    advance: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
) -> Scores:
    """Scores of `model` on a split of each source, cut and masked as the configuration says.

    max_tokens: most tokens per source; unset: all. `advance` is told the number of tokens evaluated. ranks: the
    processes that share the work, all of which call this and get the same scores; unset: this one alone.
    """
    ranks = ranks or Ranks(device=next(p.device for _, p in model.named_parameters()))
    share = Share(ranks.data_rank, ranks.layout.data, ranks.sum_over_data)
    token_bytes = tokenizer.token_bytes()
    return {
        name: evaluate_split(
            model,
            split,
            sequence_length=config.data.sequence_length,
            token_bytes=token_bytes,
            batch_size=_batch_size(config),
            device=ranks.device,
            max_tokens=max_tokens,
            eod_id=tokenizer.eod_id if config.data.attention_within_documents else None,
            advance=advance,
            share=share,
        ).as_dict()
        for name, split in splits.items()
    }


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


def _on_files(trained: TrainedModel, files: Mapping[str, Sequence[str]], max_tokens: int | None) -> Scores:
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
