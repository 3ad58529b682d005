"""How long the layout search takes, and how many ways it tries: llama-7b and a model of 70 B parameters.

    python benchmarks/layout_search.py [--write]

--write puts the table into docs/plan.md and docs/plan.zh.md. Seconds are those of one core, so
that other programs on the machine count little. Limit: 2 for 1,024 devices; exit code 1 above it.
"""

from __future__ import annotations

import sys
import time
from datetime import date

from common import machine, write_table
from firstlight.config import RunConfig
from firstlight.pipeline.plan_machines import Machines
from firstlight.pipeline.plan_steps import StepPlanner
from firstlight.planning import in_flight, memory
from firstlight.planning.hardware import find_device
from firstlight.planning.search import SearchResult
from firstlight.recipe import load_config

LIMIT_SECONDS, LIMIT_DEVICES = 2.0, 1024
REPETITIONS = 3
LARGE = (
    *("model.hidden_size=8192", "model.intermediate_size=28672", "model.num_hidden_layers=80"),
    *("model.num_attention_heads=64", "model.num_key_value_heads=8"),
)
"""The shape of Llama 2 70B (arXiv:2307.09288)."""
SIMPLE = ("parallel.tensor=1", "parallel.pipeline=1", "training.micro_batch_size=1", "training.precision=bf16")
CASES = {"7 B": (), "70 B": LARGE}
DEVICES = (8, 128, 1024)


def main() -> int:
    rows, slow = [], False
    for name, settings in CASES.items():
        for devices in DEVICES:
            cluster = [f"launch.nodes={devices // 8}", "launch.gpus_per_node=8"]
            config = load_config("llama-7b", [*cluster, *SIMPLE, *settings])
            seconds, found = min((_search(config, devices) for _ in range(REPETITIONS)), key=lambda timed: timed[0])
            slow |= devices == LIMIT_DEVICES and seconds > LIMIT_SECONDS
            best = found.best[0].division if found.best else None
            chosen = f"{best.layout}, micro-batch {best.micro_batch_size}, recompute {best.recompute}" if best else "–"
            rows.append((name, devices, found.candidates, len(found.fitting), seconds, chosen))
    table = ["| parameters | devices (A100 80 GB) | tried | fit | core seconds | best |", "|---|---|---|---|---|---|"]
    table += [f"| {n} | {d:,} | {t:,} | {f:,} | {s:.2f} | {b} |" for n, d, t, f, s, b in rows]
    table += ["", f"{machine()}; one thread, {date.today():%Y-%m-%d}; `python benchmarks/layout_search.py`."]
    print("\n".join(table))
    if "--write" in sys.argv:
        for page in ("plan.md", "plan.zh.md"):
            write_table(page, "layout-search", "\n".join(table))
    return int(slow)


def _search(config: RunConfig, devices: int) -> tuple[float, SearchResult]:
    """(seconds of a core, result) of a search from nothing: a new planner, without what an earlier one has kept."""
    in_flight.in_flight.cache_clear()
    memory._stages.cache_clear()
    model = config.model.resolved(config.tokenizer.vocab_size, config.data.sequence_length)
    started = time.process_time()
    planner = StepPlanner(
        config.model_copy(update={"model": model}), Machines(find_device("a100-80g"), devices, min(devices, 8))
    )
    result = planner.search(planner.own())
    assert result is not None
    return time.process_time() - started, result


if __name__ == "__main__":
    sys.exit(main())
