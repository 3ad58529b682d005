"""Trains a classifier from files of good and of bad documents, and measures it on documents held out.

The model is a logistic regression on the shares of hashed n-grams in a document (scikit-learn's liblinear solver: one
thread, no chance in it), with both classes given equal weight. The same inputs give the same files: documents are
sorted, sampled and held out by a hash of their text, so that neither the order of the files nor a copy of a document
matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.classifier.held_out import held_out_figures
from firstlight.corpus.classifier.model import (
    MAX_BITS,
    MAX_NGRAMS,
    MIN_BITS,
    TrainedClassifier,
    load_features,
)
from firstlight.corpus.step import Block
from firstlight.documents import BadLine, Document, expand_inputs, input_size, read_documents
from firstlight.support.console import ProgressBar, note, progress, warn
from firstlight.support.errors import ConfigError, DataError, FirstlightError

MIN_DOCUMENTS = 50
INVERSE_REGULARISATION = 1e4
"""C of the regression; features are shares of a document, far below 1, and so need large weights."""
TOLERANCE = 1e-3
_OVERFILL = 1.25
_TEXTS_AT_ONCE = 1000


@dataclass
class Examples:
    """Documents of one class: a sample by hash of at most `max_bytes`, without copies."""

    max_bytes: int
    texts: dict[bytes, str] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("documents", "duplicates", "bad_lines", "skipped"), 0)
    )
    _bytes: int = 0
    _limit: bytes | None = None

    def add(self, text: str, key: bytes) -> None:
        """Count a document, and keep it as long as its hash is among the smallest that fit."""
        self.counts["documents"] += 1
        if key in self.texts:
            self.counts["duplicates"] += 1
        elif self._limit is None or key < self._limit:
            self.texts[key] = text
            self._bytes += len(text.encode("utf-8"))
            if self._bytes > _OVERFILL * self.max_bytes:
                self.trim()

    def trim(self) -> None:
        """Drop the largest hashes until the texts fit."""
        total = 0
        kept: dict[bytes, str] = {}
        for key in sorted(self.texts):
            size = len(self.texts[key].encode("utf-8"))
            if total + size > self.max_bytes and kept:
                self._limit = key
                break
            kept[key] = self.texts[key]
            total += size
        self.texts, self._bytes = kept, total


def train_classifier(
    good: Sequence[str],
    bad: Sequence[str],
    output: Path,
    *,
    text_field: str = "text",
    ngrams: int = 2,
    bits: int = 20,
    max_bytes: int = 100_000_000,
    held_out_fraction: float = 0.1,
    seed: int = 1234,
) -> dict[str, Any]:
    """Learn to tell the documents of `good` from those of `bad`, write the classifier to `output`, return its record.

    good, bad: files, globs, folders, `hf:` or `starter:` names. ngrams: features join 1 to so many neighbouring words
    (or characters of Chinese and its like). bits: 2^bits buckets, 4 bytes each. max_bytes: of more text in a class, a
    sample by hash is used. A text that both classes hold is left out of both, and counted.

    The record (`classifier.json`) has the settings, the inputs with their counts, and `held_out`: figures on the
    documents that training did not see (see `held_out_figures`). Raises DataError when a class has fewer than 50
    different documents, ConfigError for a setting out of range.
    """
    _check(ngrams, bits, max_bytes, held_out_fraction)
    classes = {"good": expand_inputs(good), "bad": expand_inputs(bad)}
    examples = {name: Examples(max_bytes) for name in classes}
    with progress(
        "read", sum(input_size(path) for paths in classes.values() for path in paths) or None, "bytes"
    ) as bar:
        for name, paths in classes.items():
            _read(paths, examples[name], text_field, seed, bar)
    both = sorted(examples["good"].texts.keys() & examples["bad"].texts.keys())
    for name, example in examples.items():
        for key in both:
            del example.texts[key]
        example.trim()
        _check_example(name, example, len(both))
    if both:
        warn(f"{len(both):,} texts are in the good and in the bad files; they say nothing and were left out.")
    keys = sorted([*examples["good"].texts, *examples["bad"].texts])
    texts = [examples["good"].texts.get(key) or examples["bad"].texts[key] for key in keys]
    is_good = np.array([key in examples["good"].texts for key in keys])
    held_out = np.array([_share(key, seed) < held_out_fraction for key in keys])
    for name, chosen in (("good", is_good), ("bad", ~is_good)):
        if not (held_out & chosen).any() or not (~held_out & chosen).any():
            raise DataError(
                f"the {name} files leave no document to train on, or none to hold out; give more documents."
            )
    note(f"training on {np.sum(~held_out):,} documents, {np.sum(held_out):,} held out")
    model = _fit([text for text, out in zip(texts, held_out, strict=True) if not out], is_good[~held_out], bits, ngrams)
    tested = [text for text, out in zip(texts, held_out, strict=True) if out]
    figures = held_out_figures(model.score(tested), is_good[held_out])
    training = {
        "seed": seed,
        "held_out_fraction": held_out_fraction,
        "max_bytes": max_bytes,
        "text_field": text_field,
        "in_both": len(both),
        **{
            name: {
                "inputs": classes[name],
                **example.counts,
                "used": len(example.texts),
                "used_bytes": sum(len(text.encode("utf-8")) for text in example.texts.values()),
            }
            for name, example in examples.items()
        },
    }
    return model.save(Path(output), {"training": training, "held_out": figures})


def _check(ngrams: int, bits: int, max_bytes: int, held_out_fraction: float) -> None:
    if not 1 <= ngrams <= MAX_NGRAMS:
        raise ConfigError(f"ngrams is {ngrams}; 1 to {MAX_NGRAMS} are possible.")
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"bits is {bits}; {MIN_BITS} to {MAX_BITS} are possible.")
    if max_bytes < 1:
        raise ConfigError(f"max_bytes is {max_bytes}; it is above 0.")
    if not 0 < held_out_fraction < 1:
        raise ConfigError(f"held_out_fraction is {held_out_fraction:g}; it lies between 0 and 1.")


def _read(paths: Sequence[str], examples: Examples, text_field: str, seed: int, bar: ProgressBar) -> None:
    first: BadLine | None = None
    for path in paths:
        for item in read_documents(path, text_field=text_field, consumed=bar.advance):
            if isinstance(item, Document):
                examples.add(item.text, hashlib.blake2b(item.text.encode("utf-8"), digest_size=16).digest())
            elif isinstance(item, BadLine):
                first = first or item
                examples.counts["bad_lines"] += 1
            else:
                examples.counts["skipped"] += 1
    if first:
        warn(
            f"{examples.counts['bad_lines']:,} lines cannot be read and were left out; the first is {first.path}, "
            f"line {first.line}: {first.reason}."
        )


def _check_example(name: str, example: Examples, in_both: int) -> None:
    if len(example.texts) >= MIN_DOCUMENTS:
        return
    counts = example.counts
    left_out = [
        f"{number:,} {what}"
        for number, what in ((counts["duplicates"], "copies"), (in_both, "also in the other files"))
        if number
    ]
    of_all = f" (of {counts['documents']:,}; left out: {', '.join(left_out)})" if left_out else ""
    raise DataError(
        f"the {name} files have {len(example.texts):,} different documents{of_all}; "
        f"a classifier needs at least {MIN_DOCUMENTS} good and {MIN_DOCUMENTS} bad ones."
    )


def _share(key: bytes, seed: int) -> float:
    """A number in [0, 1) for a text's hash, evenly spread."""
    digest = hashlib.blake2b(b"%d held out " % seed + key, digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _fit(texts: Sequence[str], is_good: NDArray[np.bool_], bits: int, ngrams: int) -> TrainedClassifier:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise FirstlightError("training a classifier needs `scikit-learn`; pip install 'firstlight[corpus]'.") from None
    regression = LogisticRegression(
        C=INVERSE_REGULARISATION,
        tol=TOLERANCE,
        solver="liblinear",
        class_weight="balanced",
        max_iter=1000,
        random_state=0,
    )
    with progress("train", len(texts), "documents") as bar:
        features = _shares_of_features(texts, bits, ngrams, bar)
        bar.show("fitting the weights")
        regression.fit(features, is_good)
        bar.show("")
    return TrainedClassifier(regression.coef_[0].astype(np.float32), float(regression.intercept_[0]), bits, ngrams)


def _shares_of_features(texts: Sequence[str], bits: int, ngrams: int, bar: ProgressBar) -> Any:
    """[texts, 2^bits] sparse matrix: which share of a text's features falls into each bucket."""
    from scipy.sparse import csr_matrix, vstack

    features = load_features()
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = list(texts[start : start + _TEXTS_AT_ONCE])
        data, offsets = Block(part, [{}] * len(part)).utf8()
        counts = features.count_features(data, offsets, ngrams)
        first = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=first[1:])
        buckets = np.empty(first[-1], dtype=np.int32)
        features.fill_features(data, offsets, bits, ngrams, first, buckets)
        matrix = csr_matrix(
            (np.repeat(1 / np.maximum(counts, 1), counts), buckets, first), shape=(len(counts), 2**bits)
        )
        matrix.sum_duplicates()
        parts.append(matrix)
        bar.advance(len(part))
    return vstack(parts, format="csr")
