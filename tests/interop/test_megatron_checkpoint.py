"""Checkpoints of the real megatron-core: what it saves computes the same here, what we export there.

megatron-core is no dependency: without it (`pip install --no-deps megatron-core`) these tests are left out; those of
`test_megatron_checkpoint_folders.py` need none. It takes ten seconds to import, so few processes do many jobs.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .megatron_rank import KINDS, TIED, VOCABULARY, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("megatron") is None, reason="megatron-core is not installed"),
]
RANK = Path(__file__).with_name("megatron_rank.py")
Ranks = Callable[..., list[str]]


def check(ranks: Ranks, size: int, jobs: list[str], folder: Path) -> None:
    """Every job's logits are met here and there (see `megatron_rank.py`), and the model was understood."""
    said = ranks(RANK, size, folder, *jobs, timeout=500)[0].splitlines()
    lines = [json.loads(line) for line in said if line.startswith("{")]
    assert [line["job"] for line in lines] == jobs
    for line in lines:
        kind, first = line["job"].split(":")[:2]
        assert line["here"] < 1e-5 and line["there"] < 1e-5, line
        assert line["size"] > 0.1, "logits that are all near 0 compare nothing"
        assert line["architecture"] == kind.partition("-")[0]
        assert line["tied"] is (kind in TIED)
        assert (line["padding"], line["iteration"], line["dtype"]) == (
            rows(int(first[0])) - VOCABULARY,
            7,
            "float32",
        )


def test_logits_there_and_back(run_as_ranks: Ranks, tmp_path: Path) -> None:
    check(run_as_ranks, 1, ["gpt2:1,1:1,1:stacked", "llama:1,1:1,1:own"], tmp_path)


def test_logits_of_every_kind(run_as_ranks: Ranks, tmp_path: Path) -> None:
    check(run_as_ranks, 1, [f"{kind}:1,1:1,1:stacked" for kind in KINDS], tmp_path)


def test_logits_at_other_layouts(run_as_ranks: Ranks, tmp_path: Path) -> None:
    """Each kind is saved at tensor or pipeline 2 and loaded at the other."""
    layouts = {kind: ("2,1:1,2", "1,2:2,1")[number % 2] for number, kind in enumerate(KINDS)}
    jobs = [f"{kind}:{sizes}:{('stacked', 'own')[kind == 'qwen3']}" for kind, sizes in layouts.items()]
    check(run_as_ranks, 2, jobs, tmp_path)


@pytest.mark.timeout(600)
def test_logits_at_tensor_and_pipeline_together(run_as_ranks: Ranks, tmp_path: Path) -> None:
    check(run_as_ranks, 4, ["llama:2,2:1,4:stacked", "gpt2:1,4:2,2:stacked"], tmp_path)
