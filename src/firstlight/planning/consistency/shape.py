"""The shape of the model: sizes that hardware likes, positions that are trained, a vocabulary that fits."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.config.batch import divisors, nearest_multiples
from firstlight.planning.consistency.situation import Situation
from firstlight.planning.diagnosis import Finding
from firstlight.planning.flops import head_matrices, training_flops_per_token

UNIT = 64
"""Matrix units work on tiles whose sides are multiples of 64 elements (128 for the largest); other sizes are rounded up
and the rest is wasted (NVIDIA, "Matrix Multiplication Background User's Guide", sections 2.2 and 3.2)."""
HEAD_UNIT, LARGEST_HEAD = 8, 256
"""Flash attention takes head sizes that are multiples of 8 up to 256 (Dao 2023, arXiv:2307.08691; its repository)."""
LARGE_VOCABULARY = 0.5
"""Share of the parameters."""


def positions(situation: Situation) -> Iterator[Finding]:
    """Positions that no training sequence has. (A sequence longer than positions is refused before.)"""
    model, length = situation.config.model, situation.config.data.sequence_length
    assert model.max_position_embeddings is not None
    if model.max_position_embeddings <= length:
        return
    learned = model.family.positions == "learned"
    what = (
        f"the last {model.max_position_embeddings - length:,} rows of its position table are never trained"
        if learned
        else f"positions beyond {length:,} are never seen in training"
    )
    yield Finding(
        "untrained positions",
        "warning" if learned else "note",
        None,
        f"data.sequence_length is {length:,}, model.max_position_embeddings {model.max_position_embeddings:,}: {what}.",
        f"Set model.max_position_embeddings={length}, or train on longer sequences (at the end, at least).",
    )


def vocabulary(situation: Situation) -> Iterator[Finding]:
    """Rows of the vocabulary that divide badly, are missing, or make up most of the model."""
    model, tensor = situation.config.model, situation.layout.tensor
    size = model.vocab_size
    assert size is not None
    if size % (UNIT * tensor) and (situation.on_accelerator or tensor > 1):
        over = f" × parallel.tensor {tensor} = {UNIT * tensor}" if tensor > 1 else ""
        better = -(-size // (UNIT * tensor)) * UNIT * tensor
        yield Finding(
            "vocabulary size",
            "note",
            None,
            f"model.vocab_size {size:,} is not a multiple of {UNIT}{over} (nearest: "
            f"{nearest_multiples(size, UNIT * tensor)}): the head, {_head_share(situation):.0%} of the work, is a "
            "matrix product of an awkward size.",
            f"Set model.vocab_size={better}; rows without a token cost little and export leaves them out.",
        )
    if situation.tokenizer_size is not None and situation.tokenizer_size > size:
        yield Finding(
            "vocabulary too small",
            "problem",
            None,
            f"The tokenizer has {situation.tokenizer_size:,} tokens, model.vocab_size is {size:,}.",
            f"Set model.vocab_size={-(-situation.tokenizer_size // UNIT) * UNIT}, or leave it out.",
        )
    rows = size * model.hidden_size * (1 if model.tie_word_embeddings else 2)
    share = rows / situation.parameters
    if share > LARGE_VOCABULARY:
        yield Finding(
            "mostly vocabulary",
            "note",
            None,
            f"{size:,} rows × {model.hidden_size} wide × {1 if model.tie_word_embeddings else 2} tables = {rows:,} "
            f"parameters, {share:.0%} of the model's.",
            "Use a smaller vocabulary for so small a model"
            + ("." if model.tie_word_embeddings else ", or model.tie_word_embeddings=true."),
        )


def widths(situation: Situation) -> Iterator[Finding]:
    """Widths of matrices on one rank that are no multiples of a tile."""
    if not situation.on_accelerator:
        return
    model, tensor = situation.config.model, situation.layout.tensor
    assert model.intermediate_size is not None
    for name, size, parts in (
        ("hidden_size", model.hidden_size, 1),
        ("intermediate_size", model.intermediate_size, tensor),
    ):
        if size % (UNIT * parts):
            each = f" / parallel.tensor {parts} = {size / parts:g}" if parts > 1 else ""
            yield Finding(
                "awkward width",
                "note",
                None,
                f"model.{name} {size:,}{each} is not a multiple of {UNIT}, so part of every matrix product is padding.",
                f"Use {nearest_multiples(size, UNIT * parts)}.",
            )


def head_size(situation: Situation) -> Iterator[Finding]:
    """Attention heads of a size that fast kernels do not take."""
    model = situation.config.model
    assert model.head_dim is not None
    if (model.head_dim % HEAD_UNIT == 0 and model.head_dim <= LARGEST_HEAD) or not situation.on_accelerator:
        return
    remedy = "Set model.head_dim=64 or 128."
    if model.head_dim * model.num_attention_heads == model.hidden_size:
        fitting = [heads for heads in divisors(model.hidden_size) if model.hidden_size // heads % HEAD_UNIT == 0]
        nearest = min(fitting, key=lambda heads: abs(model.hidden_size / heads - 64), default=None)
        remedy = f"Set model.num_attention_heads={nearest}." if nearest else "Make hidden_size a multiple of 64."
    yield Finding(
        "unusual head size",
        "warning",
        None,
        f"model.head_dim is {model.head_dim} (hidden_size {model.hidden_size:,}, num_attention_heads "
        f"{model.num_attention_heads}); fast attention kernels want a multiple of {HEAD_UNIT} up to {LARGEST_HEAD}, "
        "best 64 or 128.",
        remedy,
    )


def _head_share(situation: Situation) -> float:
    config = situation.config
    predicted = config.predicted_share
    whole = training_flops_per_token(config.model, config.data.sequence_length, predicted)
    return 6 * predicted * head_matrices(config.model) / whole
