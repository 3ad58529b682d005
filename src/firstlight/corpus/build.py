"""Builds a corpus: documents of every source → filters → exact duplicates → shards, in the order of the input.

The result is one folder, whole or absent, and the same bytes whatever the number of cores: documents are judged in
parallel, but counted, deduplicated and written in the order source, file, line.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from firstlight.config import CorpusConfig
from firstlight.corpus.duplicates import SeenTexts
from firstlight.corpus.filters import Step, filter_steps, judge
from firstlight.corpus.shards import ShardWriter
from firstlight.corpus.statistics import SourceStatistics
from firstlight.documents import BadLine, Document, expand_inputs, input_size, read_documents
from firstlight.support.console import ProgressBar, progress, warn
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, write_json

WINDOW_CHARACTERS = 8_000_000
WINDOW_DOCUMENTS = 8192
EARLY_LINES = 10_000
"""After so many lines of a source, it is given up at once when most of them are bad."""

Window = list[Document | BadLine]


def build_corpus(
    sources: Mapping[str, Sequence[str]],
    output: Path,
    settings: CorpusConfig | None = None,
    *,
    shard_bytes: int = 256_000_000,
) -> dict[str, Any]:
    """Read the inputs of each source, filter, drop exact duplicates over all sources, write `output`.

    `sources` maps the name of each source to files, globs, folders, `hf:` or `starter:` names (see `expand_inputs`).
    Of equal texts the first stays, in the order of sources, sorted files and lines. `output` then holds
    `SOURCE/documents-00000.jsonl.zst` …, each of at most `shard_bytes` of JSON (a longer document has its own), and
    `corpus.json`, whose content is returned: settings, inputs, and counts for each source.

    Raises DataError when an input is missing, when more than `max_bad_fraction` of a source's lines are bad, when
    nothing of a source is left, or when `output` cannot be written; ConfigError for a bad name of a source. `output`
    is then as it was before.
    """
    settings = settings or CorpusConfig()
    output = Path(output)
    inputs = _inputs(sources, output)
    steps = filter_steps(settings)
    sizes = {path: input_size(path) for paths in inputs.values() for path in paths}
    total = None if 0 in sizes.values() and any(path.startswith("hf:") for path in sizes) else sum(sizes.values())
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(atomic_folder(output))
            seen = stack.enter_context(SeenTexts(folder / ".seen.sqlite")) if settings.deduplicate else None
            bar = stack.enter_context(progress("corpus", total, "bytes"))
            report: dict[str, Any] = {
                "format": "firstlight corpus",
                "version": 1,
                "settings": settings.model_dump(mode="json"),
                "drop_reasons": {
                    **{step.reason: step.meaning for step in steps},
                    **({"duplicate": "the same text occurred before, in any source"} if seen else {}),
                },
                "sources": {},
            }
            for source, paths in inputs.items():
                statistics, files = _build_source(
                    source, paths, folder / source, settings, steps, seen, bar, shard_bytes
                )
                report["sources"][source] = {"inputs": paths, "files": files, **statistics.summary()}
            bar.show("")
            write_json(folder / "corpus.json", report)
    except OSError as problem:
        raise DataError(f"{output}: the corpus cannot be written ({problem.strerror or problem}).") from None
    except sqlite3.Error as problem:
        raise DataError(f"{output}: the table of texts seen cannot be written ({problem}).") from None
    return report


def _inputs(sources: Mapping[str, Sequence[str]], output: Path) -> dict[str, list[str]]:
    if not sources:
        raise ConfigError("no sources: name at least one, as in books=my/*.jsonl.zst.")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: a file, where the folder of the corpus is due.")
    inputs: dict[str, list[str]] = {}
    for source, patterns in sources.items():
        if not re.fullmatch(r"[\w-][\w.-]*", source):
            raise ConfigError(
                f"'{source}': the name of a source has letters, digits, '_', '-' and '.', as in web-2024."
            )
        inputs[source] = expand_inputs(patterns)
        for path in inputs[source]:
            if output.resolve() in Path(path).resolve().parents:
                raise DataError(f"{path}: lies in the output folder {output}; choose another output.")
    return inputs


def _build_source(
    source: str,
    paths: Sequence[str],
    folder: Path,
    settings: CorpusConfig,
    steps: Sequence[Step],
    seen: SeenTexts | None,
    bar: ProgressBar,
    shard_bytes: int,
) -> tuple[SourceStatistics, list[str]]:
    statistics = SourceStatistics()
    with ShardWriter(folder, shard_bytes) as writer:
        for window in _windows(paths, settings, bar):
            documents = []
            for item in window:
                if isinstance(item, BadLine):
                    statistics.bad(item)
                else:
                    documents.append(item)
            for document, verdict in zip(documents, judge([d.text for d in documents], steps), strict=True):
                size = verdict.characters, verdict.text_bytes
                statistics.read(*size, document.repaired, "\0" in document.text)
                if verdict.reason:
                    statistics.dropped[verdict.reason] += 1
                elif seen is not None and not seen.first_time(document.text):
                    statistics.dropped["duplicate"] += 1
                else:
                    document.metadata.setdefault("source", source)
                    writer.write(document)
                    statistics.kept(*size)
            bar.show(f"{source}: {statistics.counts['documents_out']:,} documents kept")
            lines = statistics.counts["documents_in"] + statistics.counts["bad_lines"]
            if lines >= EARLY_LINES and statistics.bad_share() > max(0.5, settings.max_bad_fraction):
                break
    _check(source, statistics, settings)
    return statistics, writer.files


def _windows(paths: Sequence[str], settings: CorpusConfig, bar: ProgressBar) -> Iterator[Window]:
    window: Window = []
    characters = 0
    for path in paths:
        for item in read_documents(
            path, text_field=settings.text_field, invalid_utf8=settings.invalid_utf8, consumed=bar.advance
        ):
            window.append(item)
            characters += len(item.text) if isinstance(item, Document) else 0
            if characters >= WINDOW_CHARACTERS or len(window) >= WINDOW_DOCUMENTS:
                yield window
                window, characters = [], 0
    if window:
        yield window


def _check(source: str, statistics: SourceStatistics, settings: CorpusConfig) -> None:
    counts = statistics.counts
    bad, lines = counts["bad_lines"], counts["bad_lines"] + counts["documents_in"]
    if bad:
        first = statistics.first_bad[0]
        where = f"{first.path}, line {first.line}: {first.reason}"
        share = f"{bad:,} of {lines:,} lines ({statistics.bad_share():.2%}) cannot be read"
        if statistics.bad_share() > settings.max_bad_fraction:
            raise DataError(
                f"source '{source}': {share}, more than the {settings.max_bad_fraction:.2%} that "
                f"corpus.max_bad_fraction allows; the first is {where}."
            )
        warn(f"source '{source}': {share} and were left out; the first is {where}; corpus.json lists more.")
    if not counts["documents_out"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(statistics.dropped.items()))
        raise DataError(
            f"source '{source}': no document is left of {counts['documents_in']:,} read"
            f"{f' ({reasons})' if reasons else ''}; check its inputs or loosen the corpus filters."
        )
