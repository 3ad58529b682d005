"""From the start of `firstlight train` to its first training step: 1 M against 10 G tokens (a sparse file).

Both are the same command on the same tiny model, in alternating processes; what differs is the dataset. Imports, the
opening of the dataset, the mixture, the model and the first step are all in the time.

    python benchmarks/startup.py --rounds 7
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from common import machine, write_sparse
from firstlight.tokens.tokenizer_training import train_tokenizer

SIZES = {"1 M": 1_000_000, "10 G": 10_000_000_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each size")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = train_tokenizer([Path(__file__).read_text()], 300, show_progress=False)
        times: dict[str, list[float]] = {}
        for label, tokens in SIZES.items():
            write_sparse(folder / label, tokens, tokenizer)
            _write_recipe(folder, label)
            times[label] = []
        for number in range(arguments.rounds):
            for label in SIZES if number % 2 == 0 else reversed(SIZES):
                times[label].append(_seconds_to_first_step(folder, label, number))
    print(f"{machine()}, {datetime.date.today()}; median (lowest to highest) of {arguments.rounds} alternating runs\n")
    print("| tokens in the dataset | seconds from start to first step |\n|---|---|")
    for label, seconds in times.items():
        print(f"| {label} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")
    medians = [statistics.median(seconds) for seconds in times.values()]
    print(f"\nratio {medians[1] / medians[0]:.3f}")


def _write_recipe(folder: Path, label: str) -> None:
    recipe = {
        "name": "startup",
        "runs_directory": str(folder / "runs"),
        "data": {
            "sources": {"text": {"tokens": str(folder / label)}},
            "sequence_length": 128,
            "validation_fraction": 0,
        },
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "training": {"total_steps": 1, "global_batch_size": 8, "precision": "fp32", "compile": False},
    }
    (folder / f"{label}.yaml").write_text(yaml.safe_dump(recipe))


def _seconds_to_first_step(folder: Path, label: str, number: int) -> float:
    name = f"{label.replace(' ', '')}-{number}"
    metrics = folder / "runs" / name / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "firstlight", "train", str(folder / f"{label}.yaml"), f"name={name}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (metrics.is_file() and metrics.stat().st_size):
        if process.poll() not in (None, 0):
            raise SystemExit(process.communicate()[1])
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    process.communicate()
    return seconds


if __name__ == "__main__":
    main()
