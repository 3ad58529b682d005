"""What ranks send: closed forms of the papers, and what dividing, accumulating and recomputing must change.

That the figures are what ranks really send is tested with real ranks, in tests/distributed/test_communication.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from firstlight.config import Layout, ModelConfig
from firstlight.planning.communication import StepTraffic, traffic_per_rank
from firstlight.planning.flops import parameter_count

MODEL = ModelConfig(
    vocab_size=512, hidden_size=64, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4
).resolved()
ROWS, LENGTH = 2, 128


def traffic(model: ModelConfig = MODEL, sizes: dict[str, int] | None = None, **settings: Any) -> list[StepTraffic]:
    settings = {"accumulation": 1, "precision": "fp32", **settings}
    return traffic_per_rank(model, Layout(**(sizes or {})), micro_batch_size=ROWS, sequence_length=LENGTH, **settings)


def test_one_process_sends_nothing() -> None:
    (alone,) = traffic()
    assert alone.total == 0


@pytest.mark.parametrize("ranks", [2, 4, 64])
def test_sharded_data_parallel_sends_one_and_a_half_times_plain_data_parallel(ranks: int) -> None:
    """ZeRO, section 7.2.2: parameters are gathered twice and gradients scattered once, 3 Ψ for the 2 Ψ of an
    all-reduce; here without what stays gathered between the passes."""
    (sharded,) = traffic(sizes={"shard": ranks})
    whole = 4 * parameter_count(MODEL) * (ranks - 1) / ranks
    head = 4 * (MODEL.vocab_size + 1) * MODEL.hidden_size * (ranks - 1) / ranks
    assert sharded.reduce == round(whole)
    assert sharded.gather == round(2 * whole - head)
    (kept,) = traffic(sizes={"shard": ranks}, reshard_after_forward=False)
    assert kept.gather == kept.reduce == sharded.reduce


def test_gradients_are_reduced_once_whatever_the_accumulation() -> None:
    (once,), (often,) = (traffic(sizes={"replicate": 2, "shard": 2}, accumulation=n) for n in (1, 8))
    assert (often.reduce, often.replicate) == (once.reduce, once.replicate)
    assert often.gather == 8 * once.gather


def test_copies_exchange_the_shards_of_gradients() -> None:
    (rank,) = traffic(sizes={"replicate": 4, "shard": 2})
    assert rank.replicate == 2 * 3 / 4 * 4 * parameter_count(MODEL) / 2


def test_a_tensor_parallel_block_has_eight_collectives() -> None:
    """Korthikanti et al. 2022: a gather and a scatter around attention and feed-forward, in each direction."""
    deeper = MODEL.model_copy(update={"num_hidden_layers": MODEL.num_hidden_layers + 1})
    ranks = 4
    (rank,), (more,) = (traffic(model, {"tensor": ranks}) for model in (MODEL, deeper))
    activations = ROWS * LENGTH * MODEL.hidden_size * 4
    norms = 2 * MODEL.hidden_size * 4
    share = (ranks - 1) / ranks
    assert more.tensor - rank.tensor == 8 * share * activations + 2 * share * norms
    selective, full = (traffic(deeper, {"tensor": ranks}, recompute=r)[0].tensor for r in ("selective", "full"))
    assert selective - more.tensor == 2 * share * activations * deeper.num_hidden_layers
    assert full - more.tensor == 3 * share * activations * deeper.num_hidden_layers


def test_grouped_keys_make_context_parallel_cheap() -> None:
    (few,), (many,) = (
        traffic(MODEL.model_copy(update={"num_key_value_heads": groups}), {"context": 2}) for groups in (2, 8)
    )
    assert many.context == 4 * few.context
    assert MODEL.head_dim is not None
    keys_and_values = 2 * ROWS * LENGTH // 2 * 8 * MODEL.head_dim * 4
    assert many.context == 2 * MODEL.num_hidden_layers * keys_and_values  # there and, as gradients, back


def test_a_pipeline_sends_one_activation_for_each_boundary_direction_and_micro_batch() -> None:
    ranks = traffic(sizes={"pipeline": 4}, accumulation=8)
    activation = ROWS * LENGTH * MODEL.hidden_size * 4
    assert [rank.pipeline for rank in ranks] == [8 * n * activation for n in (1, 2, 2, 1)]
    interleaved = traffic(sizes={"pipeline": 4}, accumulation=8, schedule="interleaved", stages_per_rank=2)
    assert [rank.pipeline for rank in interleaved] == [8 * n * activation for n in (3, 4, 4, 3)]
    in_a_v = traffic(sizes={"pipeline": 4}, accumulation=8, schedule="zbv", stages_per_rank=2)
    assert [rank.pipeline for rank in in_a_v] == [8 * n * activation for n in (2, 4, 4, 2)]


def test_a_pipeline_gathers_once_a_step_unless_it_frees_weights_after_each_forward_pass() -> None:
    sizes = {"pipeline": 2, "shard": 2}
    kept, freed = (traffic(sizes=sizes, accumulation=4, reshard_after_forward=reshard) for reshard in (None, True))
    assert [rank.gather for rank in kept] == [rank.reduce for rank in kept]
    # 1f1b gathers for each forward pass that does not follow a backward pass, and for each backward pass after one.
    assert freed[0].gather == 5 * kept[0].gather
    assert [rank.reduce for rank in freed] == [rank.reduce for rank in kept]


def test_a_tied_matrix_is_exchanged_where_two_ranks_hold_it() -> None:
    tied = MODEL.model_copy(update={"tie_word_embeddings": True})
    matrix = 4 * MODEL.vocab_size * MODEL.hidden_size
    apart, together = (traffic(model, {"pipeline": 4}, accumulation=8) for model in (MODEL, tied))
    assert [b.pipeline - a.pipeline for a, b in zip(apart, together, strict=True)] == [matrix, 0, 0, matrix]
    settings = {"sizes": {"pipeline": 4}, "accumulation": 8, "schedule": "zbv", "stages_per_rank": 2}
    assert [r.pipeline for r in traffic(MODEL, **settings)] == [r.pipeline for r in traffic(tied, **settings)]


def test_half_the_bytes_a_number_where_numbers_are_halved() -> None:
    sizes = {"context": 2, "tensor": 2}
    (single,), (half,) = (traffic(sizes=sizes, precision=precision) for precision in ("fp32", "bf16"))
    assert half.gather * 2 == single.gather and half.context * 2 == single.context
    assert half.reduce == single.reduce, "gradients are summed in fp32"
    assert single.tensor / 2 < half.tensor < single.tensor, "the embedding and the loss stay in fp32"
