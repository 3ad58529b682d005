"""Tokens per second and peak memory of one training configuration: `firstlight train` against `transformers` Trainer.

Both train a LLaMA of the same shape on the same tokens, with the same precision, threads, batch, sequence length,
clipping and fused AdamW. Every run is a process of its own; time is counted from the end of one optimizer step to the
end of the next, memory is the most that the process had resident by its last step. The peer's settings (torch.compile
or not, attention kernel) all take part in every round, in turns with ours; the medians of the rounds count, against
the peer's best. CPU seconds are shown too: they say more than wall time on a machine that does other work.

    python benchmarks/training.py --precision bf16 --rounds 3
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

WORDS = 40_000
RESULT = "RESULT "
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        {"ours": _train_ours, "peer": _train_peer}[arguments.child](json.loads(arguments.settings))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Run every side in turns and print the table."""
    import torch
    import transformers

    from firstlight.training.device import device_name

    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    print(f"machine: {device_name(torch.device('cpu'))}, {os.cpu_count()} cores; {datetime.date.today()}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads a run")
    print(
        f"model: LLaMA, hidden {arguments.hidden_size}, feed-forward {arguments.intermediate_size}, "
        f"{arguments.layers} layers, {arguments.heads} heads, vocabulary {arguments.vocab_size}; "
        f"batch {arguments.batch} × {arguments.sequence_length} tokens, {arguments.precision}"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        _write_data(folder, arguments, environment)
        settings = {**vars(arguments), "folder": str(folder)}
        sides = [{"kind": "ours", **settings}]
        for compiled, attention, memory in product((True, False), arguments.peer_attention, arguments.peer_memory):
            peer = {"compile": compiled, "attention": attention, "memory": memory}
            sides.append({"kind": "peer", **settings, **peer})
        runs: dict[str, list[dict[str, float]]] = {_name(side): [] for side in sides}
        for number in range(arguments.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                run = _run(side, environment)
                runs[_name(side)].append(run)
                print(
                    f"  round {number + 1}: {_name(side)}: {run['tokens_per_second']:,.0f} tokens/s, "
                    f"{run['cpu_seconds']:.2f} CPU s a step",
                    flush=True,
                )
    _print_table(runs)


def _run(settings: dict[str, Any], environment: dict[str, str]) -> dict[str, float]:
    """One side in a process of its own: median tokens/s and CPU seconds a step after the warm-up, and peak MiB."""
    command = [sys.executable, __file__, "--child", settings["kind"], "--settings", json.dumps(settings)]
    if settings.get("memory") == "kept":
        environment = {**environment, **KEEP_FREED_MEMORY}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if done.returncode or not lines:
        raise SystemExit(f"{_name(settings)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    stamps = json.loads(lines[-1].removeprefix(RESULT))["stamps"][settings["warmup"] - 1 :]
    pairs = list(pairwise(stamps))
    wall = statistics.median(after[0] - before[0] for before, after in pairs)
    return {
        "tokens_per_second": settings["batch"] * settings["sequence_length"] / wall,
        "cpu_seconds": statistics.median(after[1] - before[1] for before, after in pairs),
        "peak_mib": stamps[-1][2],
    }


def _print_table(runs: dict[str, list[dict[str, float]]]) -> None:
    """Medians over the rounds for every side, ours first; the ratios are to the best peer in each column."""
    print(f"\n{'':32}{'tokens/s':>10}{'lowest':>9}{'highest':>9}{'CPU s/step':>12}{'peak MiB':>10}")
    medians = []
    for name, rounds in runs.items():
        rates = [run["tokens_per_second"] for run in rounds]
        rate, cpu, peak = (statistics.median(run[key] for run in rounds) for key in rounds[0])
        medians.append((rate, cpu, peak))
        print(f"{name:32}{rate:10,.0f}{min(rates):9,.0f}{max(rates):9,.0f}{cpu:12.2f}{peak:10,.0f}")
    (rate, cpu, peak), *peers = medians
    print(
        f"\nratio to the best peer: {rate / max(peer[0] for peer in peers):.2f} × the tokens/s, "
        f"{cpu / min(peer[1] for peer in peers):.2f} × the CPU seconds, "
        f"{peak / min(peer[2] for peer in peers):.2f} × the memory"
    )


def _name(settings: dict[str, Any]) -> str:
    if settings["kind"] == "ours":
        return "firstlight train"
    memory = ", memory kept" if settings["memory"] == "kept" else ""
    return f"Trainer, {settings['attention']}, {'compiled' if settings['compile'] else 'eager'}{memory}"


def _stamp() -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, MiB resident at most) of this process."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _train_ours(settings: dict[str, Any]) -> None:
    from firstlight.cli import main as firstlight
    from firstlight.training.trainer import Trainer

    stamps = []
    train_step = Trainer.train_step

    def stamped(self: Trainer, batch: Any) -> Any:
        result = train_step(self, batch)
        stamps.append(_stamp())
        return result

    Trainer.train_step = stamped  # type: ignore[method-assign]
    sys.argv = ["firstlight", "train", str(Path(settings["folder"]) / "recipe.yaml"), f"name=run-{time.time_ns()}"]
    try:
        firstlight()
    except SystemExit as end:
        if end.code:
            raise
    print(RESULT + json.dumps({"stamps": stamps}))


def _train_peer(settings: dict[str, Any]) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(settings["threads"])
    rows = torch.from_numpy(np.load(Path(settings["folder"]) / "rows.npy"))[:, :-1]
    stamps = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(_stamp())

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=settings["vocab_size"],
            hidden_size=settings["hidden_size"],
            intermediate_size=settings["intermediate_size"],
            num_hidden_layers=settings["layers"],
            num_attention_heads=settings["heads"],
            num_key_value_heads=settings["heads"],
            max_position_embeddings=settings["sequence_length"],
            tie_word_embeddings=False,
            use_cache=False,
            attn_implementation=settings["attention"],
        )
    )
    options = TrainingArguments(
        output_dir=str(Path(settings["folder"]) / "peer"),
        per_device_train_batch_size=settings["batch"],
        max_steps=settings["warmup"] + settings["steps"],
        optim="adamw_torch_fused",
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        bf16=settings["precision"] == "bf16",
        torch_compile=settings["compile"],
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    data = [{"input_ids": row, "labels": row} for row in rows]
    Trainer(model=model, args=options, train_dataset=data, callbacks=[Clock()]).train()
    print(RESULT + json.dumps({"stamps": stamps}))


def _write_data(folder: Path, arguments: argparse.Namespace, environment: dict[str, str]) -> None:
    """Text of invented words with Zipf's frequencies, its tokenizer and token dataset, the peer's rows, our recipe."""
    samples = arguments.batch * (arguments.warmup + arguments.steps)
    text = folder / "text.jsonl"
    with text.open("w") as file:
        for document in _documents(2 * samples * arguments.sequence_length):
            file.write(json.dumps({"text": document}) + "\n")
    tokenizer, tokens = folder / "tokenizer", folder / "tokens"
    size = ["--vocab-size", str(arguments.vocab_size)]
    _firstlight(["tokenizer", "train", str(text), *size, "--output", str(tokenizer)], environment)
    _firstlight(["tokenize", str(text), "--tokenizer", str(tokenizer), "--output", str(tokens)], environment)

    from firstlight.config import DataConfig
    from firstlight.tokens.batches import SampleStream
    from firstlight.tokens.dataset import TokenDataset

    splits = {"text": TokenDataset.open(tokens).splits["train"]}
    stream = SampleStream(splits, DataConfig(sequence_length=arguments.sequence_length), seed=0)
    np.save(folder / "rows.npy", stream.read(0, samples))
    recipe = {
        "name": "benchmark",
        "runs_directory": str(folder / "runs"),
        "data": {"sources": {"text": {"tokens": str(tokens)}}, "sequence_length": arguments.sequence_length},
        "model": {
            "vocab_size": arguments.vocab_size,
            "hidden_size": arguments.hidden_size,
            "intermediate_size": arguments.intermediate_size,
            "num_hidden_layers": arguments.layers,
            "num_attention_heads": arguments.heads,
        },
        "schedule": {"name": "constant"},
        "training": {
            "total_steps": arguments.warmup + arguments.steps,
            "micro_batch_size": arguments.batch,
            "global_batch_size": arguments.batch,
            "precision": arguments.precision,
            "device": "cpu",
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _documents(tokens: int) -> Iterable[str]:
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(random.choice(letters, length)) for length in random.integers(3, 10, WORDS)])
    share = 1 / np.arange(1, WORDS + 1)
    # Every word occurs, so that a vocabulary of tens of thousands of tokens can be learned.
    drawn = np.concatenate([random.permutation(WORDS), random.choice(WORDS, tokens, p=share / share.sum())])
    for start in range(0, len(drawn), 500):
        yield " ".join(words[drawn[start : start + 500]])


def _firstlight(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firstlight", *command], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"firstlight {' '.join(command)} failed:\n{done.stderr}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of matrix products")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="OMP_NUM_THREADS of every run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--warmup", type=int, default=2, help="optimizer steps before time counts, at least 1")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps that are timed")
    parser.add_argument("--batch", type=int, default=8, help="sequences in a step")
    parser.add_argument("--sequence-length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--hidden-size", type=int, default=384)
    parser.add_argument("--intermediate-size", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--peer-attention", nargs="+", default=["sdpa"], help="attention kernels of the peer")
    parser.add_argument(
        "--peer-memory",
        nargs="+",
        choices=("default", "kept"),
        default=["default"],
        help="kept: the peer with the setting of glibc that Firstlight makes for itself",
    )
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--child", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
