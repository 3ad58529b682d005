"""What a checkpoint costs: training held up by an asynchronous save against a synchronous one, memory of an export.

Saving: one process trains a LLaMA; the time that `save` takes out of the loop is measured, and a step before and after,
because the bytes that are written then share the machine with it. Exporting: peak resident memory of a process that
writes a checkpoint as a Hugging Face folder, against one that loads the same model with `transformers` and calls
`save_pretrained`; both also without doing it, because the imports count too. Every measurement is a process of its own;
the sides take turns; the medians count.

    python benchmarks/checkpoint.py --rounds 5
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
from pathlib import Path
from typing import Any

STEPS = 2
"""Training steps before a save, and after it while the bytes are written."""


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(WORK[arguments.child](arguments)))
        return
    import torch
    import transformers

    from common import machine

    print(f"machine: {machine()}; {datetime.date.today()}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        facts = _run("prepare", name, arguments)
        print(
            f"model: LLaMA, {facts['parameters'] / 1e6:.0f} M parameters, {facts['bytes'] / 1e6:,.0f} MB in fp32, "
            f"largest tensor {facts['largest'] / 1e6:.0f} MB; checkpoint {3 * facts['bytes'] / 1e6:,.0f} MB"
        )
        _print_saving(_in_turns(["synchronous", "asynchronous"], name, arguments))
        _print_exporting(_in_turns(["export", "save_pretrained", "import_ours", "import_peer"], name, arguments), facts)


def train_and_save(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step before a save, in `save`, and of a step while the bytes are written."""
    import torch

    from firstlight.config import CheckpointConfig
    from firstlight.training.checkpoint import CheckpointWriter

    model = _model(arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(arguments.vocab_size, (arguments.batch, arguments.sequence_length))

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.token_loss(ids, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    folder = Path(arguments.folder) / arguments.child
    config = CheckpointConfig(keep_last=1, asynchronous=arguments.child == "asynchronous")
    with CheckpointWriter(folder, config) as writer:
        for number in range(2):  # the first save makes the host memory, the second one uses it again
            before = [step() for _ in range(1 + STEPS)][1:]
            writer.wait()
            started = time.perf_counter()
            writer.save(number + 1, _tensors(model, optimizer), {})
            held_up = time.perf_counter() - started
            after = [step() for _ in range(STEPS)]
    return {"step": statistics.mean(before), "held_up": held_up, "step_after": statistics.mean(after)}


def prepare(arguments: argparse.Namespace) -> dict[str, float]:
    """The checkpoint that is exported, and the same model as a Hugging Face folder for the peer to load."""
    import torch

    from firstlight.config import CheckpointConfig
    from firstlight.interop.huggingface import export_huggingface
    from firstlight.tokens.tokenizer_training import train_tokenizer
    from firstlight.training.checkpoint import CheckpointWriter

    model = _model(arguments)
    tokenizer = train_tokenizer(["hello world"] * 3, 280)
    folder = Path(arguments.folder)
    tokenizer.save(folder / "tokenizer")
    (folder / "model.json").write_text(model.config.model_dump_json())
    with CheckpointWriter(folder / "checkpoints", CheckpointConfig(asynchronous=False)) as writer:
        writer.save(1, _tensors(model, torch.optim.AdamW(model.parameters())), {})
    export_huggingface(model, tokenizer, folder / "hugging-face")
    sizes = [value.nbytes for value in model.parameters()]
    return {"parameters": model.num_parameters(), "bytes": sum(sizes), "largest": max(sizes)}


def export(arguments: argparse.Namespace) -> dict[str, float]:
    """`firstlight export`, from the checkpoint to the folder."""
    from firstlight.config import ModelConfig
    from firstlight.interop.huggingface import export_huggingface
    from firstlight.interop.weights import weights_of_checkpoint
    from firstlight.tokens.tokenizer import Tokenizer
    from firstlight.training.checkpoint import CheckpointTensors, find_checkpoint

    started, folder = time.perf_counter(), Path(arguments.folder)
    if arguments.child == "export":
        tensors = CheckpointTensors(find_checkpoint(folder / "checkpoints"))
        weights = weights_of_checkpoint(tensors, ModelConfig.model_validate_json((folder / "model.json").read_text()))
        export_huggingface(weights, Tokenizer.load(folder / "tokenizer"), folder / "ours")
    return {"peak": _peak_bytes(), "seconds": time.perf_counter() - started}


def save_pretrained(arguments: argparse.Namespace) -> dict[str, float]:
    """The peer: the model into memory, and `save_pretrained`."""
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    started, folder = time.perf_counter(), Path(arguments.folder)
    if arguments.child == "save_pretrained":
        AutoModelForCausalLM.from_pretrained(folder / "hugging-face").save_pretrained(folder / "peer")
    return {"peak": _peak_bytes(), "seconds": time.perf_counter() - started}


WORK = {
    "prepare": prepare,
    "synchronous": train_and_save,
    "asynchronous": train_and_save,
    "export": export,
    "import_ours": export,
    "save_pretrained": save_pretrained,
    "import_peer": save_pretrained,
}


def _model(arguments: argparse.Namespace) -> Any:
    from firstlight.model import CausalLanguageModel

    return CausalLanguageModel(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        num_layers=arguments.layers,
        num_heads=arguments.hidden_size // 64,
    )


def _tensors(model: Any, optimizer: Any) -> dict[str, Any]:
    """Parameters and both moments of each, as training saves them."""
    import torch

    tensors = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter] or dict.fromkeys(("exp_avg", "exp_avg_sq"), torch.zeros_like(parameter))
        tensors[f"model.{name}"] = parameter
        tensors |= {f"optimizer.{name}.{moment}": state[moment] for moment in ("exp_avg", "exp_avg_sq")}
    return tensors


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _in_turns(sides: list[str], folder: str, arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            runs[side].append(_run(side, folder, arguments))
            print(f"  round {number + 1}: {side}: {runs[side][-1]}", flush=True)
    return runs


def _run(child: str, folder: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One measurement in a process of its own."""
    shape = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in SHAPE]
    ended = subprocess.run(
        [sys.executable, __file__, "--child", child, "--folder", folder, *shape],
        env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(f"{child} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def _print_saving(runs: dict[str, list[dict[str, float]]]) -> None:
    print("\n| | a step, s | `save` holds training up, s | a step after it, s |\n|---|---|---|---|")
    for side, run in runs.items():
        low, high = min(r["held_up"] for r in run), max(r["held_up"] for r in run)
        step, held_up, after = (_median(run, key) for key in ("step", "held_up", "step_after"))
        print(f"| {side} | {step:.2f} | {held_up:.2f} ({low:.2f} to {high:.2f}) | {after:.2f} |")
    ratio = _median(runs["asynchronous"], "held_up") / _median(runs["synchronous"], "held_up")
    print(f"asynchronous / synchronous, training held up: {ratio:.3f}")


def _print_exporting(runs: dict[str, list[dict[str, float]]], facts: dict[str, float]) -> None:
    print("\n| | peak memory, MB | above the imports, MB | largest tensors | seconds |\n|---|---|---|---|---|")
    above = {}
    for side, imports in (("export", "import_ours"), ("save_pretrained", "import_peer")):
        peak = _median(runs[side], "peak")
        above[side] = peak - _median(runs[imports], "peak")
        print(
            f"| {side} | {peak / 1e6:,.0f} | {above[side] / 1e6:,.0f} | {above[side] / facts['largest']:.1f} "
            f"| {_median(runs[side], 'seconds'):.2f} |"
        )
    whole = _median(runs["export"], "peak") / _median(runs["save_pretrained"], "peak")
    print(f"export / save_pretrained: {whole:.2f}, above the imports {above['export'] / above['save_pretrained']:.2f}")


def _median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


SHAPE = {"vocab_size": 16_000, "hidden_size": 768, "layers": 8, "batch": 1, "sequence_length": 128}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="where files are written; unset: the system's temporary folder")
    for name, value in SHAPE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--child", choices=WORK, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
