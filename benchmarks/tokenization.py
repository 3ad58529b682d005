"""Tokenization against `tokenizers` on the same documents: MB/s of encoding and of the whole verb, and equality of ids.

Every figure of encoding comes from a process of its own, the encoders in turn, so that the first pass over the text is
a first pass: `gigatoken` remembers the pieces of text that it has met. The claim is the first pass; later passes are
shown beside it. Identity is checked for every id of every document.

    python benchmarks/tokenization.py --input corpus/*.jsonl.zst
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common import STARTER, machine
from firstlight.documents import Document, expand_inputs, read_documents
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_comparison import text_batches

BATCH_CHARACTERS = 2_000_000
"""As in tokenization."""
HIDDEN = "import sys; sys.modules['gigatoken'] = None"


def main() -> None:
    arguments = _arguments()
    if arguments.encode:
        print(json.dumps(_encode(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = arguments.tokenizer or _train(arguments, folder)
        _report(arguments, tokenizer, Path(folder))


def _report(arguments: argparse.Namespace, tokenizer: str, folder: Path) -> None:
    runs: dict[str, list[dict[str, float]]] = {"tokenizers": [], "gigatoken": []}
    for number in range(arguments.runs):
        for encoder, found in runs.items():
            found.append(_encode_aside(arguments, tokenizer, encoder, folder / f"{encoder}-{number}"))
    verbs: dict[str, list[dict[str, float]]] = {"tokenizers": [], "gigatoken": []}
    for number in range(arguments.runs if not arguments.encode_only else 0):
        for encoder, found in verbs.items():
            found.append(_verb(arguments, tokenizer, encoder, folder / f"verb-{encoder}-{number}"))
    first = runs["gigatoken"][0]
    print(f"{machine()}, {arguments.workers} used; {datetime.date.today()}; {arguments.runs} runs in turn, medians\n")
    print(
        f"{first['documents']:,.0f} documents, {first['size'] / 1e6:,.0f} MB of text; "
        f"vocabulary of {first['vocab_size']:,.0f}\n"
    )
    print("| | `tokenizers` MB/s | with `gigatoken` MB/s | times |\n|---|---|---|---|")
    passes = [
        ("encode, first pass", "first"),
        ("encode, first pass, a CPU second", "first_cpu"),
        ("later pass", "later"),
    ]
    rows = [(label, runs, name) for label, name in passes]
    if not arguments.encode_only:
        rows += [("whole verb", verbs, "wall"), ("whole verb, a CPU second", verbs, "cpu")]
    for label, table, name in rows:
        slow, fast = (
            statistics.median(run["size"] / 1e6 / run[name] for run in table[encoder])
            for encoder in ("tokenizers", "gigatoken")
        )
        print(f"| {label} | {slow:.2f} | {fast:.1f} | {fast / slow:.1f} |")
    memory = {name: statistics.median(run["memory"] for run in found) / 1e6 for name, found in runs.items()}
    shown = ", ".join(f"{name} {size:,.0f} MB" for name, size in memory.items())
    print(f"\npeak memory of encoding, text and all ids held: {shown}")
    print(f"encoder loaded and compared in {first['load']:.2f} s; used: {bool(first['is_fast'])}")
    same = _same(folder / "tokenizers-0.npz", folder / "gigatoken-0.npz")
    print(f"documents with the same ids, encoding: {same} of {first['documents']:,.0f}")
    if not arguments.encode_only:
        slow, fast = (TokenDataset.open(folder / f"verb-{name}-0") for name in ("tokenizers", "gigatoken"))
        equal = [file.read_bytes() for file in sorted(slow.folder.iterdir()) if file.is_file()] == [
            file.read_bytes() for file in sorted(fast.folder.iterdir()) if file.is_file()
        ]
        print(f"token datasets of both, byte for byte: {'the same' if equal else 'DIFFERENT'}")


def _encode_aside(arguments: argparse.Namespace, tokenizer: str, encoder: str, output: Path) -> dict[str, float]:
    return json.loads(
        subprocess.run(
            [
                *(sys.executable, __file__, "--encode", encoder, "--tokenizer", tokenizer, "--output", str(output)),
                *("--workers", str(arguments.workers), "--input", *arguments.input),
            ],
            stdout=subprocess.PIPE,
            check=True,
            env=os.environ | _threads(arguments.workers),
        ).stdout
    )


def _encode(arguments: argparse.Namespace) -> dict[str, float]:
    """Two passes over all documents in batches; ids into OUTPUT.npz."""
    tokenizer = Tokenizer.load(arguments.tokenizer)
    exactly = arguments.encode == "tokenizers"
    texts = [entry.text for path in expand_inputs(arguments.input) for entry in _documents(path)]
    started = time.perf_counter()
    if not exactly:
        tokenizer.load_fast()
    found = {
        "load": time.perf_counter() - started,
        "is_fast": float(tokenizer.is_fast),
        "vocab_size": tokenizer.vocab_size,
        "documents": len(texts),
        "size": sum(len(text.encode()) for text in texts),
    }
    for name in ("first", "later"):
        parts = []
        started, cpu = time.perf_counter(), time.process_time()
        for batch in text_batches(texts, BATCH_CHARACTERS):
            if exactly:
                parts.append([row.ids for row in tokenizer._rust.encode_batch_fast(batch, add_special_tokens=False)])
            else:
                parts.append(tokenizer.encode_arrays(batch))
        found[name], found[f"{name}_cpu"] = time.perf_counter() - started, time.process_time() - cpu
        if exactly:
            found["later"] = found["first"]
            break
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if exactly:
        rows = [np.array(ids, dtype=np.uint32) for part in parts for ids in part]
        lengths = np.array([len(row) for row in rows])
        np.savez(arguments.output, ids=np.concatenate(rows), lengths=lengths)
    else:
        ids = np.concatenate([ids for ids, _ in parts])
        np.savez(arguments.output, ids=ids, lengths=np.concatenate([np.diff(offsets) for _, offsets in parts]))
    return found


def _documents(path: str) -> Iterator[Document]:
    for entry in read_documents(path):
        if isinstance(entry, Document) and entry.text:
            yield entry


def _same(one: Path, other: Path) -> int:
    """Documents whose ids are the same in both files."""
    first, second = np.load(one), np.load(other)
    rows, others = (np.split(found["ids"], np.cumsum(found["lengths"])[:-1]) for found in (first, second))
    assert len(rows) == len(others)
    return sum(np.array_equal(row, other) for row, other in zip(rows, others, strict=True))


def _verb(arguments: argparse.Namespace, tokenizer: str, encoder: str, output: Path) -> dict[str, float]:
    """`firstlight tokenize` as a program of its own; without `gigatoken` where `tokenizers` is measured."""
    environment = dict(os.environ)
    if encoder == "tokenizers":
        hidden = output.with_name("hidden")
        hidden.mkdir(exist_ok=True)
        (hidden / "sitecustomize.py").write_text(HIDDEN)
        environment["PYTHONPATH"] = str(hidden)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "firstlight", "tokenize", *arguments.input),
            *("--tokenizer", tokenizer, "--output", str(output), "--source", "text"),
            *("--workers", str(arguments.workers)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    size = sum(split.text_bytes for split in TokenDataset.open(output).splits.values())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "size": size}


def _train(arguments: argparse.Namespace, folder: str) -> str:
    """A tokenizer of 32,000 tokens from a sample of the inputs."""
    output = str(Path(folder) / "tokenizer")
    subprocess.run(
        [
            *(sys.executable, "-m", "firstlight", "tokenizer", "train", *arguments.input, "--output", output),
            *("--vocab-size", "32000", "--sample-bytes", str(arguments.sample_bytes)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return output


def _threads(workers: int) -> dict[str, str]:
    return {"RAYON_NUM_THREADS": str(workers), "TOKENIZERS_PARALLELISM": "true" if workers > 1 else "false"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", default=STARTER, help="anything that `firstlight tokenize` reads")
    parser.add_argument("--tokenizer", help="folder or tokenizer.json; unset: one is trained on a sample")
    parser.add_argument("--sample-bytes", type=int, default=30_000_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cores to use")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--encode-only", action="store_true", help="leave the whole verb out")
    parser.add_argument("--encode", choices=["tokenizers", "gigatoken"], help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
