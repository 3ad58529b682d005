"""Loss, perplexity, accuracy and bits per byte on held-out text, weighted by tokens, of causal and of masked models.

A masked model's loss and accuracy are those of the tokens that its own rule of masking hides, keyed by the number of
the window: the same tokens at every step, batch size and number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from firstlight.config import MaskingConfig
from firstlight.config.families import Objective
from firstlight.evaluation.pseudo import EvenSample, pseudo_numbers, pseudo_score
from firstlight.evaluation.score import Score
from firstlight.evaluation.scorer import Masks, Scorer, Window
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.dataset import Split, check_ids
from firstlight.tokens.masking import Masking
from firstlight.tokens.permutation import derive_key
from firstlight.tokens.tokenizer import Tokenizer

PSEUDO_TOKENS = 1000
"""Tokens of a domain that are hidden one at a time, for pseudo-perplexity."""


def evaluation_masks(config: MaskingConfig, tokenizer: Tokenizer, seed: int) -> Masks:
    """What is hidden of held-out text in a run of `seed`; never drawn as in training."""
    return Masking(config, tokenizer, derive_key(seed, "validation"))


def evaluate_split(
    scorer: Scorer,
    split: Split,
    *,
    max_tokens: int | None = None,
    advance: Callable[[int], None] | None = None,
    sample: EvenSample | None = None,
) -> Score:
    """Score on a split of a token dataset.

    The split is cut into windows of `scorer.length` columns; of a causal model every token but the first is predicted
    once. With `max_tokens`, windows spread evenly over the whole split are taken. `advance` is told the number of
    tokens evaluated, batch by batch. sample: is shown every window. DataError for an id outside the vocabulary.
    """
    rest = scorer.window_tokens - scorer.length
    windows = -(-(split.num_tokens - rest) // scorer.length)
    if windows < 1:
        raise DataError("a validation split of fewer than two tokens cannot be evaluated; hold out more text.")
    chosen = windows
    if max_tokens is not None:
        chosen = max(1, min(windows, max_tokens // scorer.length))
    numbers = (i * windows // chosen for i in range(chosen))
    rows = ((number, _read(split, number * scorer.length, scorer)) for number in numbers)
    return scorer.score(sample.watch(rows) if sample else rows, advance)


def _read(split: Split, start: int, scorer: Scorer) -> np.ndarray:
    length = min(scorer.window_tokens, split.num_tokens - start)
    tokens = np.asarray(split.read(start, length), dtype=np.int64)
    check_ids(tokens, scorer.tokenizer.vocab_size, split, start)
    return tokens


def evaluate_pretraining(
    model: nn.Module,
    tokenizer: Tokenizer,
    dataset: Iterable[str] | Mapping[str, Iterable[str]],
    *,
    sequence_length: int | None = None,
    batch_size: int = 8,
    max_tokens: int | None = None,
    advance: Callable[[int], None] | None = None,
    objective: Objective | None = None,
    masking: MaskingConfig | None = None,
    seed: int = 1234,
    pseudo_tokens: int = PSEUDO_TOKENS,
) -> dict[str, Any]:
    """Loss, perplexity, accuracy and bits per byte of `model` on texts, weighted by tokens.

    dataset: texts, or a mapping of domain → texts. Each text is one document, evaluated by itself: it stands between
    two end-of-document tokens, of which a causal model predicts the second. Returns the numbers of `Score.as_dict`
    over everything, and for a mapping also {"domains": {name: the same}}.

    objective: causal or masked; unset: the model's own, masked for the classes of `transformers` called …ForMaskedLM,
    causal for others. Of a masked model, `masking` says what is hidden of each text, `seed` draws it, and at most
    `pseudo_tokens` tokens of a domain are then hidden one at a time: {"pseudo_perplexity", "pseudo_bits_per_byte",
    "pseudo_tokens"}; 0: none. Such a model from elsewhere is called as model(input_ids, attention_mask=…) where texts
    of different lengths share a batch.
    `sequence_length`: columns per window; unset: the model's max_position_embeddings. `max_tokens`: stop after the
    window that reaches so many tokens in a domain. `advance` is told the number of tokens evaluated.
    """
    config = getattr(model, "config", None)
    length = sequence_length or getattr(config, "max_position_embeddings", None) or 1024
    masks = None
    if (objective or _objective_of(model)) == "masked":
        masks = evaluation_masks(masking or MaskingConfig(), tokenizer, seed)
    elif masking is not None:
        raise ConfigError("masking is for objective masked, and this one is causal; leave it out.")
    scorer = Scorer(model, tokenizer, length, batch_size, next(model.parameters()).device, masks)
    domains = dataset if isinstance(dataset, Mapping) else {"": dataset}
    training = model.training
    model.eval()
    scores, pseudo = dict[str, Score](), dict[str, Score]()
    for name, texts in domains.items():
        windows = _at_most(_windows(texts, scorer), max_tokens)
        sample = EvenSample(pseudo_tokens if masks else 0, tokenizer)
        scores[name] = scorer.score(sample.watch(windows), advance)
        pseudo[name] = pseudo_score(scorer, sample, advance)
    model.train(training)
    total = sum(scores.values(), Score())
    if not total.tokens:
        raise DataError("the dataset to evaluate holds no text.")
    numbers = {
        name: score.as_dict(causal=masks is None) | pseudo_numbers(pseudo[name]) for name, score in scores.items()
    }
    result: dict[str, Any] = total.as_dict(causal=masks is None) | pseudo_numbers(sum(pseudo.values(), Score()))
    return {**result, "domains": numbers} if isinstance(dataset, Mapping) else result


def _objective_of(model: nn.Module) -> Objective:
    masked = not getattr(getattr(model, "config", None), "causal", True) or type(model).__name__.endswith("ForMaskedLM")
    return "masked" if masked else "causal"


def _windows(texts: Iterable[str], scorer: Scorer) -> Iterator[Window]:
    """Windows of one text each. Neighbours of a causal model share a token, so that every token is predicted once."""
    number, eod = 0, scorer.tokenizer.eod_id
    rest = scorer.window_tokens - scorer.length
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"a dataset to evaluate is made of texts, not of {type(text).__name__}.")
        tokens = np.asarray([eod, *scorer.tokenizer.encode(text), eod], dtype=np.int64)
        for start in range(0, len(tokens) - rest, scorer.length):
            yield number, tokens[start : start + scorer.window_tokens]
            number += 1


def _at_most(windows: Iterable[Window], max_tokens: int | None) -> Iterator[Window]:
    """Windows until their tokens reach `max_tokens`."""
    seen = 0
    for number, tokens in windows:
        yield number, tokens
        seen += len(tokens) - 1
        if max_tokens is not None and seen >= max_tokens:
            return
