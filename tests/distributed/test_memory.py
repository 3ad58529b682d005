"""What ranks of our own engine take in a step, as PyTorch's allocator counts it, is what the planner says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL = {
    "data.sequence_length": 256,
    "model.vocab_size": 2048,
    "model.hidden_size": 128,
    "model.intermediate_size": 352,
    "model.num_hidden_layers": 6,
    "training.micro_batch_size": 4,
}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_memory", FOLDER / "memory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


def check(benchmark: ModuleType, layouts: dict[str, dict[str, Any]], within: float) -> None:
    found = benchmark.measure_layouts({name: {**SMALL, **layouts[name]} for name in layouts}, tracked=False)
    ratios = {name: [rank["predicted"] / rank["measured"] for rank in ranks] for name, ranks in found.items()}
    assert all(abs(ratio - 1) <= within for ranks in ratios.values() for ratio in ranks), ratios
    assert all(rank["measured"] > 20e6 for ranks in found.values() for rank in ranks), found


def test_two_ranks_take_what_is_predicted(benchmark: ModuleType) -> None:
    names = ("FSDP 2, bf16", "TP 2", "PP 2, 1F1B")
    check(benchmark, {name: benchmark.LAYOUTS[name] for name in names}, within=0.12)


@pytest.mark.slow
def test_every_layout_takes_what_is_predicted(benchmark: ModuleType) -> None:
    check(benchmark, benchmark.LAYOUTS, within=0.15)
