"""The stages before training: corpus → tokenizer → token datasets, each kept under a fingerprint of its inputs.

A stage's folder name ends in the fingerprint of everything that shaped it. The same inputs find the same folder and
the stage is skipped with one line; other inputs make another folder, and runs that began with the old one still
find it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig, SourceConfig
from firstlight.support.console import err, heading, human_count, note
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import fingerprint, folder_lock
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.null import NullTokenizer
from firstlight.tokens.objective import objective_of
from firstlight.tokens.prefix import DEFAULT_SPLIT, look_at_ids
from firstlight.tokens.sources import SourceTokens, check_split, is_split, open_source
from firstlight.tokens.split import Split
from firstlight.tokens.tokenizer import Tokenizer

STAGE_VERSIONS = {"tokenizer": 2, "tokens": 1}
"""Raised when a stage writes something else from the same inputs, so that old results are not taken for new ones."""


@dataclass(frozen=True)
class Prepared:
    """What training starts from."""

    config: RunConfig
    """The configuration with every source as a token dataset and the model's shape complete."""
    tokenizer: Tokenizer
    datasets: dict[str, SourceTokens]

    @property
    def held_out(self) -> dict[str, Split]:
        """The validation split of each source that has one to predict on."""
        splits = {name: dataset.splits.get("validation") for name, dataset in self.datasets.items()}
        return {name: split for name, split in splits.items() if split is not None and split.num_tokens > 1}

    def provenance(self, original: RunConfig) -> dict[str, dict[str, Any]]:
        """Per source: where the tokens lie, their fingerprint and size, and the text they came from."""
        return {
            source: {
                "path": str(dataset.path),
                "fingerprint": dataset.fingerprint,
                "tokens": {name: split.num_tokens for name, split in dataset.splits.items()},
                "documents": {name: split.num_documents for name, split in dataset.splits.items()},
                "text": list(original.data.sources[source].text),
                **({"license": given} if (given := original.data.sources[source].license) else {}),
            }
            for source, dataset in self.datasets.items()
        }


def prepare(config: RunConfig, tokenizer: Tokenizer | None = None) -> Prepared:
    """Run the stages that `config` needs and that were not run before; returns what training starts from.

    tokenizer: the one that the model already has; unset: that of the recipe or the datasets, or one is trained.
    """
    if not config.data.sources:
        raise ConfigError("data.sources is empty; name at least one, as in data.sources.web.text=[crawl/*.jsonl.zst].")
    for name, source in config.data.sources.items():
        if not source.text and not source.tokens and not source.validation_tokens:
            raise ConfigError(
                f"data.sources.{name} names no text and no tokens; "
                f"give data.sources.{name}.text=[FILES] or data.sources.{name}.tokens=FOLDER."
            )
    if all(source.only_validates for source in config.data.sources.values()):
        raise ConfigError("data.sources has validation_tokens alone; give a source to train on, with text or tokens.")
    check_split(config.data)
    texts = {name: s.text for name, s in config.data.sources.items() if s.text}
    split = config.data.split
    datasets = {name: open_source(s, split) for name, s in config.data.sources.items() if name not in texts}
    tokenizer = _common_tokenizer(config, datasets, tokenizer)
    if texts:
        directory = Path(config.data.directory)
        with folder_lock(directory, "the data folder"):
            corpus = _corpus(config, texts, directory)
            tokenizer = tokenizer or _trained_tokenizer(config, texts, corpus, directory)
            for name in texts:
                folder = _token_dataset(config, name, corpus, tokenizer, directory).folder
                datasets[name] = open_source(SourceConfig(tokens=str(folder)))
    datasets = {name: datasets[name] for name in config.data.sources}
    tokenizer = tokenizer or _no_tokenizer(config)
    prepared = Prepared(_resolved(config, tokenizer, datasets), tokenizer, datasets)
    _look_at(prepared)
    return prepared


def _no_tokenizer(config: RunConfig) -> NullTokenizer:
    """What prefixes are trained on without: their ids. ConfigError where that is not enough."""
    if config.model.vocab_size is None:
        raise ConfigError(
            "token ids of prefixes come without a tokenizer; give the one that made them with tokenizer.path, or only "
            "the number of ids with model.vocab_size (then without bits per byte, generation and export)."
        )
    if config.data.attention_within_documents:
        raise ConfigError(
            "data.attention_within_documents looks for the end-of-document token; give the tokenizer of the prefixes "
            "with tokenizer.path, or leave it out."
        )
    tokenizer = NullTokenizer(config.model.vocab_size)
    objective_of(config, tokenizer)
    note(f"no tokenizer: ids 0 to {tokenizer.vocab_size - 1} as they are; no bits per byte, no generation, no export")
    return tokenizer


def _look_at(prepared: Prepared) -> None:
    """Ids of prefixes, at some places, before anything is built on them; those of folders were checked when written."""
    data, vocab_size = prepared.config.data, prepared.config.model.vocab_size
    assert vocab_size is not None
    for name, dataset in prepared.datasets.items():
        for part, split in dataset.splits.items():
            if not (dataset.folder and dataset.folder.splits.get(part) is split):
                look_at_ids(split, vocab_size, f"source '{name}': ")
    divided = [name for name, source in data.sources.items() if is_split(source)]
    if divided and data.split is None:
        note(f"data.split is unset: {', '.join(divided)} divided as {DEFAULT_SPLIT} (train, validation, neither)")


def _corpus(config: RunConfig, texts: dict[str, list[str]], directory: Path) -> Path:
    from firstlight.corpus import build_corpus, corpus_fingerprint, corpus_table

    output = directory / f"corpus-{corpus_fingerprint(texts, config.corpus)[:8]}"
    heading("corpus: raw text → documents")
    if not _kept(output, "corpus.json"):
        err.print(corpus_table(build_corpus(texts, output, config.corpus, work=directory / ".corpus-work")))
    return output


def _trained_tokenizer(config: RunConfig, texts: dict[str, list[str]], corpus: Path, directory: Path) -> Tokenizer:
    from firstlight.tokens.tokenizer_training import train_on_sample

    weights = {name: config.data.mixture.get(name, 0.0) for name in texts} if config.data.mixture else None
    inputs = [STAGE_VERSIONS["tokenizer"], corpus.name, config.tokenizer.model_dump(), weights, config.seed]
    output = directory / f"tokenizer-{fingerprint(inputs)[:8]}"
    heading("tokenizer: documents → vocabulary")
    if not _kept(output, "tokenizer.json"):
        train_on_sample(
            {name: corpus_files(corpus, name) for name in texts},
            output,
            vocab_size=config.tokenizer.vocab_size,
            digits=config.tokenizer.digits,
            weights=weights,
            max_bytes=config.tokenizer.sample_bytes,
            seed=config.seed,
        )
    return Tokenizer.load(output)


def _token_dataset(config: RunConfig, source: str, corpus: Path, tokenizer: Tokenizer, directory: Path) -> TokenDataset:
    from firstlight.tokens.tokenize import tokenize_files

    data = config.data
    inputs = [
        STAGE_VERSIONS["tokens"],
        corpus.name,
        source,
        tokenizer.fingerprint,
        data.validation_fraction,
        data.shard_tokens,
    ]
    output = directory / f"tokens-{source}-{fingerprint(inputs)[:8]}"
    heading(f"tokens: {source}")
    if _kept(output, "dataset.json"):
        return TokenDataset.open(output)
    return tokenize_files(
        corpus_files(corpus, source),
        tokenizer,
        output,
        source=source,
        validation_fraction=data.validation_fraction,
        shard_tokens=data.shard_tokens,
    )


def corpus_files(corpus: Path, source: str) -> list[str]:
    """Document files of one source in a built corpus, in order."""
    files = sorted(str(file) for file in (corpus / source).glob("documents-*"))
    if not files:
        raise DataError(f"{corpus / source}: no documents are left of source '{source}' after filtering.")
    return files


def _kept(output: Path, marker: str) -> bool:
    """True, with one line that says so, when this stage was run before on the same inputs."""
    if not (output / marker).is_file():
        return False
    note(f"same inputs as before: kept {output}")
    return True


def _common_tokenizer(
    config: RunConfig, datasets: dict[str, SourceTokens], tokenizer: Tokenizer | None
) -> Tokenizer | None:
    """The tokenizer that recipe and given datasets agree on, fit for the objective; None when one is to be trained."""
    origin = "tokenizer.path" if config.tokenizer.path else "the model's own"
    tokenizer = Tokenizer.load(config.tokenizer.path) if config.tokenizer.path else tokenizer
    first: tuple[str, str] | None = (origin, tokenizer.fingerprint) if tokenizer else None
    for name, tokens in datasets.items():
        dataset = tokens.folder
        if dataset is None:
            continue
        if first and dataset.tokenizer_fingerprint != first[1]:
            raise ConfigError(
                f"{dataset.folder}: its tokens were made with another tokenizer than {first[0]} "
                f"({dataset.tokenizer_fingerprint[:8]}, not {first[1][:8]}); tokenize both with the same one."
            )
        first = first or (f"data.sources.{name}", dataset.tokenizer_fingerprint)
        tokenizer = tokenizer or dataset.tokenizer
    if tokenizer is not None:
        objective_of(config, tokenizer)
    return tokenizer


def _resolved(config: RunConfig, tokenizer: Tokenizer, datasets: dict[str, SourceTokens]) -> RunConfig:
    sources = {
        name: source.model_copy(update={"text": [], "tokens": str(dataset.path.resolve())})
        if source.text
        else _absolute(source)
        for (name, source), dataset in zip(config.data.sources.items(), datasets.values(), strict=True)
    }
    model = config.model.resolved(tokenizer.vocab_size, config.data.sequence_length)
    assert model.vocab_size is not None
    if model.vocab_size > tokenizer.vocab_size:
        note(
            f"model.vocab_size {model.vocab_size} = {tokenizer.vocab_size} of the tokenizer "
            f"+ {model.vocab_size - tokenizer.vocab_size} rows of padding"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources}), "model": model})


def _absolute(source: SourceConfig) -> SourceConfig:
    tokens, held_out = (place and str(Path(place).resolve()) for place in (source.tokens, source.validation_tokens))
    return source.model_copy(update={"tokens": tokens, "validation_tokens": held_out})


def describe_datasets(datasets: dict[str, SourceTokens]) -> str:
    """One line: tokens by source and split."""
    names = ("train", "validation")
    parts = (
        f"{source} {' + '.join(human_count(d.splits[n].num_tokens) for n in names if n in d.splits)}"
        for source, d in datasets.items()
    )
    return f"tokens ({' + '.join(names)}): {', '.join(parts)}"
