"""What real ranks send in a step, counted, is what the planner says, to the byte, for everything it tells apart."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "communication.py"
TIED = {"model.tie_word_embeddings": True}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_communication", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE.parent)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "settings",
    [
        {"parallel.shard": 2, "training.gradient_accumulation_steps": 3, "training.precision": "bf16", **TIED},
        {"parallel.tensor": 2, "training.recompute": "full", "model.architecture": "qwen3"},
        {"parallel.pipeline": 2, "training.gradient_accumulation_steps": 4, **TIED},
        pytest.param(
            {"parallel.tensor": 2, "model.architecture": "gpt2", "model.num_key_value_heads": None},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"parallel.tensor": 2, "training.recompute": "full", "model.architecture": "olmo2"}, marks=pytest.mark.slow
        ),
    ],
    ids=["fsdp", "tensor", "pipeline", "gpt2", "olmo2"],
)
def test_ranks_send_what_the_formula_says(benchmark: ModuleType, settings: dict[str, Any]) -> None:
    small = {"data.sequence_length": 32, "model.hidden_size": 64, "model.intermediate_size": 128}
    (ranks,) = benchmark.run_ranks(benchmark.__file__, "count", [{**small, **settings}], timeout=240)
    assert len(ranks) == 2
    for rank in ranks:
        expected = {kind: count for kind, count in rank["formula"].items() if count}
        assert rank["sent"] == expected
        assert len(expected) > 1, "nothing but scalars was counted"
