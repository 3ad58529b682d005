"""Loss, perplexity, accuracy and bits per byte on held-out text, weighted by tokens, of causal and of masked models.

A masked model's loss and accuracy are those of the tokens that its own rule of masking hides, keyed by the number of
the window: the same tokens at every step, batch size and number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from firstlight.config import MaskingConfig
from firstlight.config.families import Objective
from firstlight.evaluation.pseudo import EvenSample, pseudo_numbers, pseudo_score
from firstlight.evaluation.score import Score
from firstlight.evaluation.scorer import Masks, Scorer
from firstlight.evaluation.windows import Tokens, at_most, document_windows, split_windows, text_documents
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.masking import Masking
from firstlight.tokens.permutation import derive_key
from firstlight.tokens.split import Split
from firstlight.tokens.tokenizer import Tokenizer

PSEUDO_TOKENS = 1000
"""Tokens of a domain that are hidden one at a time, for pseudo-perplexity."""


def evaluation_masks(config: MaskingConfig, tokenizer: Tokenizer, seed: int) -> Masks:
    """What is hidden of held-out text in a run of `seed`; never drawn as in training."""
    return Masking(config, tokenizer, derive_key(seed, "validation"))


def evaluate_split(
    scorer: Scorer, split: Split, *, max_tokens: int | None = None, advance: Callable[[int], None] | None = None
) -> Score:
    """Score on a split of a token dataset, at the cost of reading it once: what a training run does now and then.

    The split is cut into windows of `scorer.length` columns; of a causal model every token but the first is predicted
    once, from what its window holds of its own document. With `max_tokens`, windows spread evenly over the whole split
    are taken. `advance` is told the number of tokens evaluated, batch by batch. DataError for an id outside the
    vocabulary.
    """
    windows = split_windows(split, scorer.length, scorer.tokenizer, causal=scorer.masks is None, max_tokens=max_tokens)
    return scorer.score(windows, advance)


def evaluate_documents(
    scorer: Scorer,
    documents: Iterable[Tokens],
    *,
    stride: int | None = None,
    max_tokens: int | None = None,
    advance: Callable[[int], None] | None = None,
    sample: EvenSample | None = None,
    first: int = 0,
) -> Score:
    """Score on documents, each by itself, in windows of `scorer.length` columns.

    stride: tokens between the beginnings of neighbouring windows, of which a causal model predicts each token once;
    unset: windows do not overlap. max_tokens: stop after the window that reaches so many. sample: is shown every
    window. first: number of the first document, by which the score keeps the sums of each. ConfigError for a stride
    that is not within a window, or that a masked model is given.
    """
    causal = scorer.masks is None
    if stride is not None and not causal:
        raise ConfigError("a stride is for causal models; a masked one sees both sides of a token. Leave it out.")
    if stride is not None and not 1 <= stride <= scorer.length:
        raise ConfigError(f"stride is {stride}; at least 1 is due, and at most the window's {scorer.length} tokens.")
    windows = at_most(document_windows(documents, scorer.length, stride, causal=causal, first=first), max_tokens)
    return scorer.score(sample.watch(windows) if sample else windows, advance)


def evaluate_pretraining(
    model: nn.Module,
    tokenizer: Tokenizer,
    dataset: Iterable[str] | Mapping[str, Iterable[str]],
    *,
    sequence_length: int | None = None,
    stride: int | None = None,
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
    two end-of-document tokens, of which a causal model predicts the second. Returns the numbers of `Score.as_dict` and
    `Score.intervals` over everything, and for a mapping also {"domains": {name: the same}}.

    objective: causal or masked; unset: the model's own, masked for the classes of `transformers` called …ForMaskedLM,
    causal for others. Of a masked model, `masking` says what is hidden of each text, `seed` draws it, and at most
    `pseudo_tokens` tokens of a domain are then hidden one at a time: {"pseudo_perplexity", "pseudo_bits_per_byte",
    "pseudo_tokens"}; 0: none. Such a model from elsewhere is called as model(input_ids, attention_mask=…) where texts
    of different lengths share a batch.
    `sequence_length`: columns per window; unset: the model's max_position_embeddings. `stride`: see
    `evaluate_documents`. `max_tokens`: stop after the window that reaches so many tokens in a domain. `advance` is told
    the number of tokens evaluated.
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
    scores, pseudo, documents = dict[str, Score](), dict[str, Score](), 0
    for name, texts in domains.items():
        sample = EvenSample(pseudo_tokens if masks else 0, tokenizer)
        scores[name] = evaluate_documents(
            scorer,
            text_documents(texts, tokenizer),
            stride=stride,
            max_tokens=max_tokens,
            advance=advance,
            sample=sample,
            first=documents,
        )
        documents += len(scores[name].documents[documents:])
        pseudo[name] = pseudo_score(scorer, sample, advance)
    model.train(training)
    total = sum(scores.values(), Score())
    if not total.tokens:
        raise DataError("the dataset to evaluate holds no text.")
    causal = masks is None
    numbers = {
        name: score.as_dict(causal=causal) | score.intervals(seed, causal=causal) | pseudo_numbers(pseudo[name])
        for name, score in scores.items()
    }
    result: dict[str, Any] = total.as_dict(causal=causal) | total.intervals(seed, causal=causal)
    result |= pseudo_numbers(sum(pseudo.values(), Score()))
    return {**result, "domains": numbers} if isinstance(dataset, Mapping) else result


def _objective_of(model: nn.Module) -> Objective:
    masked = not getattr(getattr(model, "config", None), "causal", True) or type(model).__name__.endswith("ForMaskedLM")
    return "masked" if masked else "causal"
