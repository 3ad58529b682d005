"""Samples per second and time to the first batch: our loader against Hugging Face `datasets` + torch `DataLoader`.

Both read the same tokens, shuffled, as (inputs, targets) of int64, from memory-mapped files on the same disk. The peer
gets rows of a fixed length cut in advance, and the best of its settings (format, worker processes) for each figure,
found in a trial before. Then the two alternate; medians count. Last, our start-up on 1 M and on 10 G tokens (a sparse
file). Imports and preparation of the files are not timed.

    python benchmarks/loading.py --tokens 50e6 --sequence-length 1024 --batch 16
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from common import (
    DOCUMENT_TOKENS,
    SHARD_TOKENS,
    VOCAB_SIZE,
    describe_without_tokenizer,
    machine,
    shard_of,
    write_sparse,
)
from firstlight.config import DataConfig
from firstlight.tokens.batches import SampleStream
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.indexed import IndexedWriter
from firstlight.tokens.loader import Loader

Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    arguments = _arguments()
    length, batch = arguments.sequence_length, arguments.batch
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, arguments.tokens, dtype=np.uint16)
        batches = min(arguments.batches, (arguments.tokens - 1) // length // batch)
        if batches < 2:
            raise SystemExit(f"--tokens {arguments.tokens} is fewer than two batches of {batch} × {length} tokens.")
        _write_ours(folder / "ours", tokens)
        _write_peer(folder / "peer", tokens, length)

        def ours(folder: Path = folder / "ours") -> Pairs:
            return _ours(folder, length, batch)

        settings = [(kind, workers) for kind in ("torch", "numpy") for workers in (0, 1, 2)]
        peers = {
            f"{kind}, {workers} workers": _peer_with(folder / "peer", kind, workers, batch)
            for kind, workers in settings
        }
        trials = {label: [_measure(peer, batches) for _ in range(2)] for label, peer in peers.items()}
        for label, runs in trials.items():
            rate, first = max(rate for _, rate in runs), min(first for first, _ in runs)
            print(f"trial: datasets ({label}): {rate * batch:,.0f} samples/s, first batch after {first * 1e3:,.1f} ms")
        quickest = min(trials, key=lambda label: min(first for first, _ in trials[label]))
        fastest = max(trials, key=lambda label: max(rate for _, rate in trials[label]))

        rates = _alternate(
            arguments.repeats, lambda: _measure(ours, batches)[1], lambda: _measure(peers[fastest], batches)[1]
        )
        starts = _alternate(arguments.repeats, lambda: _measure(ours, 2)[0], lambda: _measure(peers[quickest], 2)[0])
        write_sparse(folder / "small", 1_000_000)
        write_sparse(folder / "huge", 10_000_000_000)
        sizes = _alternate(
            4 * arguments.repeats,
            lambda: _measure(lambda: ours(folder / "small"), 2)[0],
            lambda: _measure(lambda: ours(folder / "huge"), 2)[0],
        )

    print(
        f"\n{machine()}, {datetime.date.today()}: {arguments.tokens:,} tokens, rows of {length}, batches of {batch}, "
    )
    print(f"{batches} batches a run, median of {arguments.repeats} alternating runs\n")
    print("| figure | firstlight | datasets + DataLoader (best setting) | ratio |")
    print("|---|---|---|---|")
    print(f"| samples/s | {rates[0] * batch:,.0f} | {rates[1] * batch:,.0f} ({fastest}) | {rates[0] / rates[1]:.2f} |")
    sooner = starts[0] / starts[1]
    print(f"| first batch, ms | {starts[0] * 1e3:.1f} | {starts[1] * 1e3:.1f} ({quickest}) | {sooner:.2f} |")
    print("\n| tokens in the dataset (firstlight) | shards | first batch, ms |\n|---|---|---|")
    print(f"| 1 M | 1 | {sizes[0] * 1e3:.1f} |\n| 10 G (sparse) | 100 | {sizes[1] * 1e3:.1f} |")


def _measure(start: Callable[[], Pairs], batches: int) -> tuple[float, float]:
    """Seconds from nothing opened to the first batch, and batches per second after it."""
    began = time.perf_counter()
    pairs = start()
    next(pairs)
    first = time.perf_counter()
    for _ in range(batches - 1):
        inputs, targets = next(pairs)
    ended = time.perf_counter()
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == targets.shape
    pairs.close()  # type: ignore[attr-defined]
    return first - began, (batches - 1) / (ended - first)


def _alternate(repeats: int, one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Medians of `one` and `other`, run in turn."""
    results = [(one(), other()) for _ in range(repeats)]
    return statistics.median(a for a, _ in results), statistics.median(b for _, b in results)


def _ours(folder: Path, length: int, batch: int) -> Pairs:
    dataset = TokenDataset.open(folder)
    stream = SampleStream(
        {"text": dataset.splits["train"]}, DataConfig(sequence_length=length), seed=1, vocab_size=dataset.vocab_size
    )
    with Loader(stream, 0, batch) as loader:
        for step in loader:
            yield step.input_ids, step.targets


def _peer_with(folder: Path, kind: str, workers: int, batch: int) -> Callable[[], Pairs]:
    return lambda: _peer(folder, kind, workers, batch)


def _peer(folder: Path, kind: str, workers: int, batch: int) -> Pairs:
    import datasets

    dataset = datasets.load_from_disk(str(folder)).with_format(kind)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=_stack if kind == "numpy" else None,
        pin_memory=torch.cuda.is_available(),
    )
    for rows in loader:
        yield rows["tokens"][:, :-1], rows["tokens"][:, 1:]


def _stack(rows: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {"tokens": torch.from_numpy(np.stack([row["tokens"] for row in rows]).astype(np.int64))}


def _write_ours(folder: Path, tokens: np.ndarray) -> None:
    folder.mkdir()
    shards = []
    for number, start in enumerate(range(0, len(tokens), SHARD_TOKENS)):
        part = tokens[start : start + SHARD_TOKENS]
        with IndexedWriter(folder / f"train-{number:05d}", np.uint16) as writer:
            for document in range(0, len(part), DOCUMENT_TOKENS):
                writer.add_document(part[document : document + DOCUMENT_TOKENS])
        shards.append(shard_of(folder, f"train-{number:05d}", len(part)))
    describe_without_tokenizer(folder, shards)


def _write_peer(folder: Path, tokens: np.ndarray, length: int) -> None:
    import datasets
    import pyarrow

    datasets.disable_progress_bars()
    rows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::length]
    flat = pyarrow.array(rows.reshape(-1), type=pyarrow.uint16())
    table = pyarrow.table({"tokens": pyarrow.FixedSizeListArray.from_arrays(flat, length + 1)})
    datasets.Dataset(table).save_to_disk(str(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tokens", type=lambda text: int(float(text)), default=50_000_000, help="tokens in the dataset"
    )
    parser.add_argument("--sequence-length", type=int, default=1024, help="tokens in a row")
    parser.add_argument("--batch", type=int, default=16, help="rows in a batch")
    parser.add_argument("--batches", type=int, default=1000, help="most batches in one run")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side")
    parser.add_argument("--folder", help="where the temporary files go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
