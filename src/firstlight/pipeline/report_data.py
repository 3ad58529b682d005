"""What a run's text went through, for its page: the corpus it came from and how the tokenizer spells it.

Found through the token datasets that the run names, which name the corpus; on another machine, or after they were
removed, there is nothing to find, and the page leaves these parts out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.pipeline.diagnosing import read_lines
from firstlight.report.facts import Corpus, Dropped, FunnelStep, Spelled
from firstlight.support.errors import DataError, FirstlightError
from firstlight.support.files import read_json
from firstlight.tokens.dataset import TokenDataset

EXAMPLES = 3
"""Dropped documents of each step of the corpus."""


def datasets_of(config: RunConfig) -> dict[str, TokenDataset]:
    """The token datasets of a run that are here, by source; their shards need not be."""
    found = {}
    for name, source in config.data.sources.items():
        try:
            if source.tokens:
                found[name] = TokenDataset.described(source.tokens)
        except (DataError, OSError):
            continue
    return found


def spelling_of(datasets: Mapping[str, TokenDataset]) -> list[Spelled]:
    """Documents, tokens and bytes of each source over all its splits, and of each language where it has several."""
    rows = []
    for source, dataset in datasets.items():
        splits = list(dataset.splits.values())
        rows.append(
            Spelled(
                source,
                None,
                sum(split.num_documents for split in splits),
                sum(split.num_tokens for split in splits),
                sum(split.text_bytes for split in splits),
            )
        )
        languages = sorted({language for split in splits for language in split.by_language})
        for language in languages if len(languages) > 1 else ():
            counts = [split.by_language[language] for split in splits if language in split.by_language]
            rows.append(
                Spelled(
                    source,
                    language,
                    sum(count.documents for count in counts),
                    sum(count.tokens for count in counts),
                    sum(count.text_bytes for count in counts),
                )
            )
    return rows


def tokenizer_training_of(datasets: Mapping[str, TokenDataset]) -> dict[str, int]:
    """Bytes of text by source that the tokenizer was trained on; empty where that is not known."""
    for dataset in datasets.values():
        for folder in _places(dataset, dataset.description["tokenizer"].get("name")):
            try:
                told = read_json(folder / "training.json", "record of a tokenizer's training")
                return {str(name): int(size) for name, size in told["bytes_by_source"].items()}
            except (FirstlightError, OSError, KeyError, TypeError, ValueError, AttributeError):
                continue
    return {}


def corpora_of(datasets: Mapping[str, TokenDataset]) -> list[Corpus]:
    """The corpora that the datasets were tokenized from, each once."""
    corpora: dict[Path, Corpus] = {}
    for dataset in datasets.values():
        for folder in _corpus_places(dataset):
            try:
                if folder.resolve() not in corpora:
                    corpora[folder.resolve()] = _read_corpus(folder)
                break
            except (FirstlightError, OSError, KeyError, TypeError, ValueError, AttributeError):
                continue
    return list(corpora.values())


def _corpus_places(dataset: TokenDataset) -> Iterator[Path]:
    inputs = dataset.description.get("inputs")
    for given in inputs[:1] if isinstance(inputs, list) else ():
        path = given.get("path") if isinstance(given, dict) else None
        yield from _places(dataset, str(Path(path).parent.parent) if isinstance(path, str) else None)


def _places(dataset: TokenDataset, named: Any) -> Iterator[Path]:
    """Where a folder that a dataset names may be: there, or beside the dataset, if both were moved."""
    if isinstance(named, str) and named:
        yield Path(named)
        yield dataset.folder.parent / Path(named).name


def _read_corpus(folder: Path) -> Corpus:
    report = read_json(folder / "corpus.json", "report of a corpus")
    sources: Sequence[Mapping[str, Any]] = list(report["sources"].values())
    steps = [
        FunnelStep(
            str(step["step"]).replace("_", " "),
            str(step.get("meaning", "")),
            int(step["documents_out"]),
            int(step["bytes_out"]),
            {str(reason): int(count) for reason, count in step["dropped"].items()},
            _examples(folder / "dropped" / f"{number:02d}-{step['step']}.jsonl"),
        )
        for number, step in enumerate(report["steps"])
    ]
    return Corpus(
        sum(int(source["documents_in"]) for source in sources),
        sum(int(source["bytes_in"]) for source in sources),
        steps,
    )


def _examples(file: Path) -> list[Dropped]:
    lines, _ = read_lines(file)
    return [
        Dropped(str(line.get("source", "")), str(line.get("reason", "")), str(line.get("text", "")))
        for line in lines[:EXAMPLES]
    ]
