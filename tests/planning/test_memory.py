"""The estimate is what a real model keeps, byte for byte in its blocks, and divides as the layout does."""

from __future__ import annotations

import time
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from firstlight.config.parallel import Layout
from firstlight.model import CausalLanguageModel, loss
from firstlight.parallel import vocabulary
from firstlight.parallel.recompute import apply_recompute
from firstlight.planning import activations, memory
from firstlight.planning.flops import matmul_parameters, parameter_count
from firstlight.planning.memory import memory_per_rank
from firstlight.recipe import load_config

MODES = ["none", "selective", "full"]
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "grouped-tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qk-norm": {"num_key_value_heads": 1, "architecture": "qwen3"},
    "wide": {"head_dim": 32, "intermediate_size": 160, "vocab_size": 4096},
    "gpt2": {"architecture": "gpt2", "tie_word_embeddings": False},
}
BATCH, SEQUENCE = 2, 128


class Storages(TorchDispatchMode):
    """Follows the memory of every tensor that operations make: `held` bytes now, `peak` at most."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.known: dict[int, Any] = {parameter.untyped_storage()._cdata: None for parameter in model.parameters()}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def freed(_: Any) -> None:
            del self.known[key]
            self.held -= size

        self.known[key] = weakref.ref(storage, freed)
        self.held += size
        self.peak = max(self.peak, self.held)


def build(mode: str, num_layers: int, fields: dict[str, Any]) -> CausalLanguageModel:
    shape = {"vocab_size": 512, "hidden_size": 64, "num_heads": 4, "max_position_embeddings": SEQUENCE}
    model = CausalLanguageModel(**{**shape, "num_layers": num_layers, **fields})
    if mode != "none":
        apply_recompute(model, mode)
    return model


def run(model: CausalLanguageModel, precision: str) -> torch.Tensor:
    tokens = torch.zeros(BATCH, SEQUENCE, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return model.token_loss(tokens, tokens)


def estimate(model: CausalLanguageModel, **options: Any) -> memory.RankMemory:
    settings = {"micro_batch_size": BATCH, "sequence_length": SEQUENCE, "device_type": "cpu", **options}
    (result,) = memory_per_rank(model.config, Layout(), **settings)
    return result


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_blocks_keep_exactly_what_is_estimated(fields, precision, mode):
    kept, estimated = [], []
    for num_layers in (1, 3):
        model = build(mode, num_layers, fields)
        with Storages(model) as storages:
            total = run(model, precision)
        expected = estimate(model, precision=precision, recompute=mode)
        # Autocast's copies of the matrices outlive the forward pass only where nothing casts them again.
        copies = expected.compute_weights if mode == "none" else 0
        kept.append(storages.held)
        estimated.append(expected.activations + copies)
        del total
    assert kept[1] - kept[0] == estimated[1] - estimated[0]


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_the_total_is_the_peak_of_a_step(fields, precision, mode):
    """Within 6 %.

    The weights lie outside the measurement, and the optimizer's moments, which do not change, are not made.
    """
    model = build(mode, 4, fields)
    for accumulation in (1, 2):
        model.zero_grad(set_to_none=True)
        with Storages(model) as storages:
            for _ in range(accumulation):
                run(model, precision).backward()
        expected = estimate(model, precision=precision, recompute=mode, accumulation=accumulation)
        assert expected.parameters == 4 * model.num_parameters()
        measured = storages.peak + expected.parameters + expected.optimizer
        assert 0.94 <= expected.total / measured <= 1.06


def test_its_chunks_are_those_of_the_loss():
    for name in ("CHUNK_TOKENS", "CHUNK_TOKENS_ELSEWHERE", "BLOCK_LOGITS", "BLOCK_LOGITS_ELSEWHERE"):
        assert getattr(activations, name) == getattr(loss, name), name
    assert activations.PARALLEL_CHUNK_TOKENS == vocabulary.CHUNK_TOKENS


def of_layout(name: str = "llama-1b", **options: Any) -> list[memory.RankMemory]:
    sizes = {size: options.pop(size) for size in Layout.model_fields if size in options}
    settings = {"micro_batch_size": 2, "sequence_length": 2048, "accumulation": 8, **options}
    return memory_per_rank(load_config(name).model.resolved(), Layout(**sizes), **settings)


@pytest.mark.parametrize("name", ["llama-1b", "gpt2-124m"])
@pytest.mark.parametrize(("schedule", "stages_per_rank"), [("1f1b", 1), ("interleaved", 2), ("zbv", 2)])
def test_the_ranks_of_a_pipeline_hold_the_model_once(name, schedule, stages_per_rank):
    model = load_config(name).model.resolved()
    copies = model.vocab_size * model.hidden_size if model.tie_word_embeddings else 0  # first and last stage
    for sharding in ({}, {"shard": 2}, {"context": 2, "shard": 2}, {"replicate": 4}):
        ranks = of_layout(name, pipeline=4, schedule=schedule, stages_per_rank=stages_per_rank, **sharding)
        parts = sharding.get("shard", 1) * sharding.get("context", 1)
        held = sum(rank.parameters for rank in ranks) * parts
        assert held == pytest.approx(4 * (parameter_count(model) + copies), rel=1e-6)
        assert [rank.optimizer for rank in ranks] == [2 * rank.parameters for rank in ranks]


def test_states_are_sixteen_bytes_a_parameter():
    """FSDP over 64 ranks leaves 16 P / 64 (Rajbhandari et al. 2020, figure 1, for a model of 7.5 billion)."""
    model = load_config("llama-7b").model.resolved()
    (rank,) = of_layout("llama-7b", shard=64, accumulation=1)
    assert rank.parameters + rank.gradients + rank.optimizer == pytest.approx(
        16 * parameter_count(model) / 64, rel=1e-6
    )
    (waiting,) = of_layout("llama-7b", shard=64, accumulation=2)
    assert waiting.gradients == pytest.approx(4 * parameter_count(model), rel=1e-6)


def test_tensor_parallel_ranks_divide_everything_but_what_they_gather():
    model = load_config("llama-1b").model.resolved()
    whole, half = of_layout()[0], of_layout(tensor=2)[0]
    norms = parameter_count(model) - matmul_parameters(model) - model.vocab_size * model.hidden_size
    assert half.parameters == 4 * ((parameter_count(model) - norms) // 2 + norms)
    gathered = model.num_hidden_layers * 2 * 2 * 2048 * 2 * model.hidden_size  # bf16, twice a block
    statistics = model.num_hidden_layers * 2 * 2048 * 2 * 4
    assert half.activations == (whole.activations - gathered - statistics) / 2 + gathered + statistics
    assert of_layout(tensor=2, recompute="full")[0].activations * 2 == of_layout(recompute="full")[0].activations


def test_recomputation_and_sharding_only_ever_save():
    for sizes in ({}, {"tensor": 8}, {"context": 4}, {"pipeline": 2}, {"shard": 4, "tensor": 2}):
        none, selective, full = (of_layout(recompute=mode, **sizes)[0] for mode in MODES)
        assert none.activations > selective.activations > full.activations
        assert none.total > selective.total > full.total
    assert of_layout(shard=8, accumulation=1)[0].total < of_layout(shard=2, accumulation=1)[0].total


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_pipeline_ranks_hold_what_is_in_flight(ranks):
    """With 1f1b the first rank holds as many blocks' activations as the model has, whatever the number of ranks, and
    with interleaving 1 + (p-1)/(p·v) times that (Korthikanti et al. 2022, section 4.2.3)."""
    model = load_config("llama-7b").model.resolved()
    options = {"pipeline": ranks, "accumulation": 2 * ranks, "recompute": "full"}
    between = 2 * 2048 * 4 * model.hidden_size
    first, *_, last = of_layout("llama-7b", **options)
    assert first.activations == between * (model.num_hidden_layers + ranks)
    assert last.activations == between * (model.num_hidden_layers // ranks + 1)
    assert of_layout("llama-7b", schedule="gpipe", **options)[0].activations == 2 * first.activations
    interleaved = of_layout("llama-7b", schedule="interleaved", stages_per_rank=2, **options)[0]
    blocks = model.num_hidden_layers * (1 + (ranks - 1) / (2 * ranks))
    stages = (interleaved.activations / between - blocks) / (1 + (ranks - 1) / (2 * ranks))
    assert stages == pytest.approx(2 * ranks)


def test_an_accelerator_needs_a_margin_and_its_context_besides():
    on_cuda, on_cpu = (of_layout(shard=8, device_type=device)[0] for device in ("cuda", "cpu"))
    assert on_cuda.fragmentation == round(memory.FRAGMENTATION * on_cuda.tensors)
    assert on_cuda.total == on_cuda.tensors + on_cuda.fragmentation + memory.DEVICE_CONTEXT_BYTES
    assert (on_cpu.fragmentation, on_cpu.device_context, on_cpu.total) == (0, 0, on_cpu.tensors)


def test_a_search_can_ask_for_thousands_of_layouts():
    """Asked again it takes well under a millisecond, also where a schedule had to be played the first time."""
    questions = [
        {"shard": 64, "tensor": 2},
        {"pipeline": 8, "shard": 4, "tensor": 4},
        {"pipeline": 8, "shard": 16, "schedule": "interleaved", "stages_per_rank": 2, "accumulation": 64},
        {"pipeline": 4, "shard": 16, "schedule": "zbv", "stages_per_rank": 2, "accumulation": 64},
    ]
    model = load_config("llama-7b").model.resolved()

    def ask(options: dict[str, Any]) -> None:
        sizes = {size: options[size] for size in Layout.model_fields if size in options}
        others = {name: value for name, value in options.items() if name not in sizes}
        memory_per_rank(model, Layout(**sizes), **{"micro_batch_size": 1, "sequence_length": 2048, **others})

    for question in questions:
        ask({"accumulation": 16, **question})
    started = time.process_time()
    for _ in range(50):
        for question in questions:
            ask({"accumulation": 16, **question})
    assert time.process_time() - started < 50 * len(questions) * 0.001
