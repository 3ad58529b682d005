"""A trained classifier: a weight for each bucket of hashed features, and a bias; the folder that holds them.

The score of a text is sigmoid(bias + mean of the weights of its features): a linear fastText model with two classes
(Joulin et al. 2017), which a core computes at some 200 MB/s. A folder is `classifier.json` and `weights.safetensors`;
neither can hold code, so a folder from a stranger is safe to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.step import Block
from firstlight.support.errors import DataError, FirstlightError
from firstlight.support.files import atomic_folder, read_json, sha256_file, write_json

DESCRIPTION = "classifier.json"
WEIGHTS = "weights.safetensors"
FORMAT_VERSION = 1
MIN_BITS, MAX_BITS = 8, 28
MAX_NGRAMS = 3


@dataclass(frozen=True)
class TrainedClassifier:
    """Scores texts. `weights`: [2^bits] float32; `ngrams`: most units that a feature joins."""

    weights: NDArray[np.float32]
    bias: float
    bits: int
    ngrams: int

    def score(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """[texts] probability of being good, when good and bad are equally frequent. 0 for a text without a word."""
        texts = list(texts)
        return self.score_block(Block(texts, [{}] * len(texts)))

    def score_block(self, block: Block) -> NDArray[np.float32]:
        """[len(block)] the same for the texts of a block."""
        sums, counts = load_features().sum_weights(*block.utf8(), self.weights, self.bits, self.ngrams)
        logits = self.bias + sums / np.maximum(counts, 1)
        return np.where(counts > 0, 1 / (1 + np.exp(-np.clip(logits, -500, 500))), 0.0).astype(np.float32)

    def save(self, folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
        """Write the folder, whole or absent; returns what `classifier.json` holds: `record` and the model's form."""
        from safetensors.numpy import save

        with atomic_folder(folder) as temporary:
            (temporary / WEIGHTS).write_bytes(save({"weights": self.weights}))
            description = {
                "format": "firstlight classifier",
                "version": FORMAT_VERSION,
                "features": load_features().FEATURES_VERSION,
                "bits": self.bits,
                "ngrams": self.ngrams,
                "bias": self.bias,
                "weights_sha256": sha256_file(temporary / WEIGHTS),
                **record,
            }
            write_json(temporary / DESCRIPTION, description)
        return description

    @classmethod
    def load(cls, folder: str | Path) -> TrainedClassifier:
        """Open a folder. DataError, in one sentence, for a folder that is no classifier, or not the one written."""
        folder = Path(folder)
        described, file = folder / DESCRIPTION, folder / WEIGHTS
        if not described.is_file():
            what = f"no {DESCRIPTION} in this folder" if folder.is_dir() else "no such folder"
            raise DataError(f"{folder}: {what}; one from `firstlight corpus classifier` is due.")
        try:
            description = read_json(described, "description of a classifier")
        except FirstlightError as problem:
            raise DataError(str(problem)) from None
        try:
            version, features = description["version"], description["features"]
            bits, ngrams, bias = description["bits"], description["ngrams"], float(description["bias"])
            digest = description["weights_sha256"]
            if not (isinstance(bits, int) and MIN_BITS <= bits <= MAX_BITS and np.isfinite(bias)):
                raise ValueError("bits or bias out of range")
            if ngrams not in range(1, MAX_NGRAMS + 1):
                raise ValueError("ngrams out of range")
        except (KeyError, TypeError, ValueError, OverflowError) as problem:
            raise DataError(f"{described}: damaged description of a classifier ({problem!r}).") from None
        known = FORMAT_VERSION, load_features().FEATURES_VERSION
        if (version, features) != known:
            raise DataError(
                f"{described}: format {version} with features {features}; this program reads {known[0]} with "
                f"{known[1]}. Train the classifier again, or use the program that wrote it."
            )
        if not file.is_file():
            raise DataError(f"{file}: no such file; the classifier is incomplete, train it again.")
        if sha256_file(file) != digest:
            raise DataError(
                f"{file}: its content is not what was written (SHA-256 differs); train the classifier again."
            )
        return cls(_read_weights(file, bits), bias, bits, ngrams)


def _read_weights(file: Path, bits: int) -> NDArray[np.float32]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = load_file(file)["weights"]
    except (SafetensorError, KeyError) as problem:
        raise DataError(f"{file}: not a safetensors file of weights ({problem}); train the classifier again.") from None
    if weights.dtype != np.float32 or weights.shape != (2**bits,) or not np.isfinite(weights).all():
        raise DataError(
            f"{file}: {weights.dtype} of shape {weights.shape}, where {2**bits} finite float32 are due; it is damaged."
        )
    return weights


def load_features() -> ModuleType:
    """The module of compiled features. FirstlightError when numba is not installed."""
    try:
        from firstlight.corpus.classifier import features
    except ImportError:
        raise FirstlightError("a classifier needs the `numba` package; pip install 'firstlight[corpus]'.") from None
    return features
