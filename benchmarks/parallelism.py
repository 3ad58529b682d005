"""How far the losses of each layout are from those of one process: `firstlight train` of one recipe in fp32, 20 steps.

Every layout is real ranks (gloo, CPU) started by torchrun, as a user starts them, on the text of Python's reference
manual. Printed are the largest relative differences of the losses and of the gradient norms from one process that
takes the whole batch at once. With --write the table takes its place in docs/parallelism.md and its translation.

    python benchmarks/parallelism.py --write
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import yaml

from common import machine, write_table
from firstlight import pipeline

STEPS = 20
BATCH = 16
REFERENCE = "one process"
LAYOUTS: dict[str, dict[str, int | str]] = {
    REFERENCE: {},
    "accumulation 2": {"accumulation": 2},
    "accumulation 4": {"accumulation": 4},
    "FSDP 2": {"shard": 2},
    "FSDP 4": {"shard": 4},
    "HSDP 2 × 2": {"replicate": 2, "shard": 2},
    "TP 2": {"tensor": 2},
    "TP 4": {"tensor": 4},
    "CP 2": {"context": 2},
    "PP 2": {"pipeline": 2, "accumulation": 4},
    "PP 2, gpipe": {"pipeline": 2, "accumulation": 4, "pipeline_schedule": "gpipe"},
    "PP 2, zero bubble": {"pipeline": 2, "accumulation": 4, "pipeline_schedule": "interleaved_zero_bubble"},
    "PP 2, zbv": {"pipeline": 2, "accumulation": 4, "pipeline_schedule": "zbv"},
    "PP 4, interleaved": {"pipeline": 4, "accumulation": 4, "pipeline_schedule": "interleaved"},
    "FSDP 2 × TP 2": {"shard": 2, "tensor": 2},
    "TP 2 × PP 2": {"tensor": 2, "pipeline": 2, "accumulation": 4},
    "CP 2 × FSDP 2": {"context": 2, "shard": 2},
    "PP 2 × FSDP 2": {"pipeline": 2, "shard": 2, "accumulation": 4},
}
HEADS = {
    "en": "| layout | processes | losses | gradient norms |\n|---|---|---|---|",
    "zh": "| 布局 | 进程数 | 损失 | 梯度范数 |\n|---|---|---|---|",
}
PAGES = {"en": "parallelism.md", "zh": "parallelism.zh.md"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    arguments = parser.parse_args()
    about = f"{machine()}, torch {torch.__version__}; {datetime.date.today()}"
    print(about)
    with tempfile.TemporaryDirectory() as name:
        rows = list(measure(Path(name)))
    for language, page in PAGES.items():
        table = "\n".join((HEADS[language], *rows, "", f"`benchmarks/parallelism.py`; {about}."))
        if language == "zh":
            table = table.replace(REFERENCE, "单进程").replace("accumulation", "梯度累积")
        else:
            print(table)
        if arguments.write:
            write_table(page, "parity", table)


def measure(folder: Path) -> Any:
    """The lines of the table, one a layout."""
    recipe = prepare(folder)
    expected: list[tuple[float, float]] = []
    for name, sizes in LAYOUTS.items():
        found = train(folder, recipe, name, sizes)
        assert len(found) == STEPS
        expected = expected or found
        loss, norm = (max(abs(a[i] - b[i]) / b[i] for a, b in zip(found, expected, strict=True)) for i in (0, 1))
        shown = "| — | — |" if name == REFERENCE else f"| {loss:.1e} | {norm:.1e} |"
        print(f"  {name}: losses {loss:.1e}, gradient norms {norm:.1e}", file=sys.stderr, flush=True)
        yield f"| {name} | {processes(sizes)} {shown}"
    print(f"  {REFERENCE}: loss {expected[0][0]:.3f} to {expected[-1][0]:.3f}", file=sys.stderr)


def prepare(folder: Path) -> Path:
    """A recipe of an eight-layer LLaMA with an odd vocabulary, and its tokens."""
    text = folder / "manual.jsonl"
    documents = ({"text": topics[name].strip(), "metadata": {}} for name in sorted(topics))
    text.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    pipeline.train_tokenizer([str(text)], str(folder / "tokenizer"), vocab_size=509)
    pipeline.tokenize([str(text)], str(folder / "tokenizer"), str(folder / "tokens"), workers=1)
    settings = {
        "name": "parity",
        "runs_directory": str(folder / "runs"),
        "data": {"sources": {"manual": {"tokens": str(folder / "tokens")}}, "sequence_length": 64},
        "model": {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4},
        "optimizer": {"lr": 1e-3, "min_lr": 1e-4},
        "schedule": {"warmup_steps": 5},
        "training": {
            "total_steps": STEPS,
            "global_batch_size": BATCH,
            "precision": "fp32",
            "device": "cpu",
            "compile": False,
        },
        "logging": {"interval_steps": 1},
    }
    file = folder / "parity.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def train(folder: Path, recipe: Path, name: str, sizes: dict[str, int | str]) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step of one run."""
    run = re.sub(r"[^a-z0-9]+", "-", name.lower())
    parallel = [f"parallel.{key}={value}" for key, value in sizes.items() if key != "accumulation"]
    accumulation = f"training.gradient_accumulation_steps={sizes.get('accumulation', 1)}"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes(sizes)}"),
        *("-m", "firstlight", "train", str(recipe), f"name={run}", accumulation, *parallel),
    ]
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    lines = map(json.loads, (folder / "runs" / run / "metrics.jsonl").read_text().splitlines())
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def processes(sizes: dict[str, int | str]) -> int:
    count = 1
    for key, value in sizes.items():
        if isinstance(value, int) and key != "accumulation":
            count *= value
    return count


if __name__ == "__main__":
    main()
