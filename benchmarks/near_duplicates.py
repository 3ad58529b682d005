"""Near-duplicates: our MinHash against datatrove's, on the same documents with planted duplicates.

Documents of the inputs are cut into English (or other scripts) and Chinese ones, each set with seeded copies planted
among them: exact, 1, 2, 3 and 5 % of the words (in Chinese, characters) replaced, cut to 80 and 70 %, and with
boilerplate around. Both sides read the same two JSON-lines files with two processes, make 14 bands of 8 minima over
5-grams, cluster, and read the documents again to drop all but one of each cluster. datatrove runs with words split at
white space, and again with every Han character as a word (its default, spaCy, is not measured). The cost of
starting is measured on ten documents and taken off on both sides.

Rates are medians and shares are means over runs that differ in the seed of the permutations, on both sides. Recall:
planted pairs of which not both stay. Precision: of a sample of removed documents, those whose 5-grams have a Jaccard
similarity of at least 0.7 (or 0.5) with the document that stays for them.

    python benchmarks/near_duplicates.py --input corpus/*.jsonl.zst --megabytes 120
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import random
import re
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common import STARTER, machine
from firstlight.config.duplicates import NearDuplicates
from firstlight.corpus.comparisons.minhash import hash_ngrams
from firstlight.corpus.comparisons.near import NearComparison
from firstlight.corpus.comparisons.units import character_table, hash_units
from firstlight.corpus.step import Block
from firstlight.documents import Document, expand_inputs, json_line, read_documents

HAN = re.compile(r"[\u3400-\u9fff]")
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
KINDS = ("exact", "edits 1 %", "edits 2 %", "edits 3 %", "edits 5 %", "cut to 80 %", "cut to 70 %", "boilerplate")
BOILERPLATE = {
    "english": (
        "Home About Contact Subscribe to our newsletter and follow us\n",
        "\nAll rights reserved. No part of this page may be reproduced without written permission of the publisher.",
    ),
    "chinese": (
        "首页 关于我们 联系方式 欢迎订阅\n",
        "\n版权所有，未经书面授权不得转载、摘编或以其他方式使用本网站的内容。",
    ),
}
BLOCK_DOCUMENTS = 2048


@dataclass
class Planted:
    """Two files of documents, and where copies and their originals are."""

    files: list[Path]
    texts: list[list[str]]
    pairs: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Of each kind (original, copy), as file · 2^32 + line."""

    @property
    def megabytes(self) -> float:
        return sum(len(text.encode()) for texts in self.texts for text in texts) / 1e6


@dataclass
class Outcome:
    """What one side removed, and in what time."""

    seconds: float
    signature_seconds: float
    kept: dict[int, int]
    """Of each removed document the one that stays for it."""
    largest: int = 0


def main() -> None:
    """Print the machine, then a table for each language."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", default=STARTER, help="files, folders or globs of documents")
    parser.add_argument("--megabytes", type=float, default=15, help="of text for each language")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, with seeds of the permutations from 1")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        for language, texts in _texts(arguments.input, arguments.megabytes * 1e6).items():
            if texts:
                _compare(language, texts, arguments.seed, arguments.repeats, Path(name) / language)


def _compare(language: str, texts: list[str], draw_seed: int, repeats: int, folder: Path) -> None:
    planted = _plant(texts, language, random.Random(draw_seed), folder / "documents")
    few = _write([planted.texts[0][:5], planted.texts[1][:5]], folder / "few")
    print(f"\n{language}: {planted.megabytes:.1f} MB, {sum(map(len, planted.texts)):,} documents", flush=True)
    seeds = range(1, repeats + 1)
    columns: dict[str, list[tuple[Outcome, Outcome]]] = {}
    with _pool() as pool:
        kinds: dict[str, dict[str, Any]] = {
            "ours": {},
            "ours, first stays": {"keep": "first"},
            "ours, similarity ≥ 0.7": {"min_similarity": 0.7},
        }
        for label, settings in kinds.items():
            columns[label] = [
                tuple(_ours(pool, NearDuplicates(seed=n, **settings), of, folder / "ours") for of in both)
                for n, both in ((n, (planted.files, few)) for n in seeds)
            ]
    for label, characters in (("datatrove, white space", False), ("datatrove, Han apart", True)):
        if language == "chinese" or not characters:
            columns[label] = [
                tuple(_datatrove(of, characters, n, folder / "peer") for of in (planted.files, few)) for n in seeds
            ]
    print("| |" + "|".join(columns) + "|\n|---|" + "---|" * len(columns))
    for label, cells in _rows(planted, columns, draw_seed):
        print(f"| {label} | " + " | ".join(cells) + " |")
    ours, peer = _expected_recall(planted, language == "chinese")
    print(
        f"\nrecall that 14 bands of 8 give for these pairs on average: our 5-grams {ours:.3f}, datatrove's {peer:.3f}"
    )


def _rows(
    planted: Planted, columns: dict[str, list[tuple[Outcome, Outcome]]], seed: int
) -> Iterator[tuple[str, list[str]]]:
    """Lines of the table: of times the median, of shares the mean over runs, which differ in the permutations' seed."""
    size = planted.megabytes
    rates = [statistics.median(size / (run.seconds - few.seconds) for run, few in runs) for runs in columns.values()]
    yield "MB/s, whole", [f"{rate:.2f}" for rate in rates]
    for label, rate in zip(columns, rates, strict=True):
        if label.startswith("datatrove"):
            yield f"× {label}", [f"{each / rate:.1f}" for each in rates]
    signing = [
        statistics.median(size / (run.signature_seconds - few.signature_seconds) for run, few in runs)
        for runs in columns.values()
    ]
    yield "MB/s, signatures", [f"{rate:.2f}" for rate in signing]
    whole = [statistics.median(run.seconds for run, _ in runs) for runs in columns.values()]
    yield "seconds with start", [f"{seconds:.2f}" for seconds in whole]
    yield "removed", [f"{statistics.mean(len(run.kept) for run, _ in runs):,.0f}" for runs in columns.values()]
    yield "largest cluster", [f"{max(run.largest for run, _ in runs):,}" for runs in columns.values()]
    every = [pair for pairs in planted.pairs.values() for pair in pairs]
    for kind, pairs in {**planted.pairs, "all": every}.items():
        found = [
            statistics.mean(sum(a in run.kept or b in run.kept for a, b in pairs) / len(pairs) for run, _ in runs)
            for runs in columns.values()
        ]
        yield f"recall, {kind} ({len(pairs)})", [f"{share:.3f}" for share in found]
    similar = [
        np.concatenate([_similarities(planted, run.kept, random.Random(seed)) for run, _ in runs])
        for runs in columns.values()
    ]
    for least in (0.7, 0.5):
        yield f"precision, J ≥ {least}", [f"{np.mean(values >= least):.3f}" for values in similar]


def _expected_recall(planted: Planted, characters: bool) -> tuple[float, float]:
    """1 - (1 - J^8)^14 by the exact Jaccard similarity J of the planted pairs' 5-grams: ours, and datatrove's."""
    from datatrove.utils.text import ngrams, simplify_text

    def peer(text: str) -> set[Any]:
        return set(ngrams(_Words(characters).word_tokenize(simplify_text(text)), 5))

    expected = []
    for grams in (_ngrams, peer):
        recalls = []
        for pairs in planted.pairs.values():
            for pair in pairs:
                one, other = (grams(_text(planted, place)) for place in pair)
                recalls.append(1 - (1 - (len(one & other) / max(1, len(one | other))) ** 8) ** 14)
        expected.append(float(np.mean(recalls)))
    return expected[0], expected[1]


def _texts(inputs: Sequence[str], size: float) -> dict[str, list[str]]:
    """Different texts of up to `size` bytes for each language, from the beginnings of all inputs by turns."""
    found: dict[str, dict[str, None]] = {"english": {}, "chinese": {}}
    left = dict.fromkeys(found, size)
    for row in itertools.zip_longest(*(_beginning(path, 2 * size) for path in expand_inputs(inputs))):
        for text in row:
            if text is not None:
                language = "chinese" if len(HAN.findall(text)) > 0.3 * len(text) else "english"
                if left[language] > 0 and text not in found[language]:
                    found[language][text] = None
                    left[language] -= len(text.encode())
    return {language: list(texts) for language, texts in found.items()}


def _beginning(path: str, size: float) -> list[str]:
    """Texts of 200 to 100,000 characters, about `size` bytes of them."""
    texts = []
    for item in read_documents(path):
        if isinstance(item, Document) and 200 <= len(item.text) <= 100_000:
            texts.append(item.text)
            size -= len(item.text.encode())
            if size < 0:
                break
    return texts


def _plant(texts: list[str], language: str, draw: random.Random, folder: Path) -> Planted:
    """A quarter of the texts of 150 words and more gets a copy; originals and copies are shuffled into two files."""
    long = [n for n, text in enumerate(texts) if len(WORD.findall(text)) >= 150]
    originals = draw.sample(long, len(long) // 4)
    vocabulary = WORD.findall(" ".join(texts[:2000]))
    copies = [
        (KINDS[n % len(KINDS)], original, _copy(texts[original], KINDS[n % len(KINDS)], language, vocabulary, draw))
        for n, original in enumerate(originals)
    ]
    every = texts + [copy for _, _, copy in copies]
    order = list(range(len(every)))
    draw.shuffle(order)
    halves = [order[: len(order) // 2], order[len(order) // 2 :]]
    place = {text: (file << 32) + line for file, half in enumerate(halves) for line, text in enumerate(half)}
    planted = Planted([], [[every[n] for n in half] for half in halves])
    planted.files = _write(planted.texts, folder)
    for n, (kind, original, _) in enumerate(copies):
        planted.pairs.setdefault(kind, []).append((place[original], place[len(texts) + n]))
    planted.pairs = {kind: planted.pairs[kind] for kind in KINDS if kind in planted.pairs}
    return planted


def _copy(text: str, kind: str, language: str, vocabulary: list[str], draw: random.Random) -> str:
    if kind.startswith("edits"):
        words = list(WORD.finditer(text))
        chosen = sorted(draw.sample(range(len(words)), round(len(words) * int(kind.split()[1]) / 100)), reverse=True)
        for n in chosen:
            text = text[: words[n].start()] + draw.choice(vocabulary) + text[words[n].end() :]
        return text
    if kind.startswith("cut"):
        return text[: len(text) * int(kind.split()[2]) // 100]
    if kind == "boilerplate":
        before, after = BOILERPLATE[language]
        return before + text + after
    return text


def _write(texts: list[list[str]], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, part in enumerate(texts):
        files.append(folder / f"{number}.jsonl")
        files[-1].write_bytes(b"".join(json_line(text, {}) for text in part))
    return files


@contextlib.contextmanager
def _pool() -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def _ours(
    pool: concurrent.futures.ProcessPoolExecutor, config: NearDuplicates, files: list[Path], folder: Path
) -> Outcome:
    import pyarrow.parquet

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "decision").mkdir(parents=True)
    started = time.perf_counter()
    work = [(config, str(file), number, str(folder)) for number, file in enumerate(files)]
    signals = list(pool.map(_our_signals, work))
    signed = time.perf_counter()
    figures = NearComparison(config).decide(signals, folder / "decision", ())
    dropped = sum(pool.map(_our_filter, work))
    seconds = time.perf_counter() - started
    kept: dict[int, int] = {}
    for file in sorted((folder / "decision").glob("dropped-*.parquet")):
        rows = pyarrow.parquet.read_table(file).to_pydict()
        kept |= dict(zip(rows["document"], rows["kept"], strict=True))
    assert dropped == len(kept)
    return Outcome(seconds, signed - started, kept, figures["largest_cluster"])


def _blocks(path: str, number: int) -> Iterator[tuple[Block, Any]]:
    texts: list[str] = []
    first = number << 32
    for item in read_documents(path):
        assert isinstance(item, Document)
        texts.append(item.text)
        if len(texts) == BLOCK_DOCUMENTS:
            yield Block(texts, [{}] * len(texts)), np.arange(first, first + len(texts))
            first += len(texts)
            texts = []
    if texts:
        yield Block(texts, [{}] * len(texts)), np.arange(first, first + len(texts))


def _our_signals(work: tuple[NearDuplicates, str, int, str]) -> str:
    import pyarrow.parquet

    config, path, number, folder = work
    comparison = NearComparison(config)
    tables = [comparison.signals(block, ids) for block, ids in _blocks(path, number)]
    output = f"{folder}/signals-{number}.parquet"
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), output, compression="zstd")
    return output


def _our_filter(work: tuple[NearDuplicates, str, int, str]) -> int:
    config, path, number, folder = work
    comparison = NearComparison(config)
    comparison.load(Path(folder) / "decision")
    return sum(
        sum(reason is not None for reason in comparison.apply(block, ids).reasons)
        for block, ids in _blocks(path, number)
    )


class _Words:
    """A word tokenizer for datatrove: white space, and where wished every Han character by itself."""

    def __init__(self, characters: bool) -> None:
        self.characters = characters

    def word_tokenize(self, text: str) -> list[str]:
        return (HAN.sub(r" \g<0> ", text) if self.characters else text).split()


def _xxhash(text: str) -> int:
    """What datatrove 0.10.1 calls for 64 bits, which gives xxhash 4 a str that it no longer takes."""
    import xxhash

    return int(xxhash.xxh64_intdigest(text.encode("utf-8")))


def _datatrove(files: list[Path], characters: bool, seed: int, folder: Path) -> Outcome:
    import datatrove.pipeline.dedup.minhash as minhash
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.remove()
    shutil.rmtree(folder, ignore_errors=True)
    minhash.load_word_tokenizer = lambda language: _Words(characters)
    config = minhash.MinhashConfig(seed=seed, hash_config=HashConfig(precision=64))
    place = {name: str(folder / name) for name in ("signatures", "buckets", "removed")}

    def reader() -> Any:
        return JsonlReader(str(files[0].parent), glob_pattern="*.jsonl")

    signature = minhash.MinhashDedupSignature(place["signatures"], config=config)
    signature._hash_func = _xxhash
    stages = [
        ([reader(), signature], 2),
        ([minhash.MinhashDedupBuckets(place["signatures"], place["buckets"], config=config)], config.num_buckets),
        ([minhash.MinhashDedupCluster(place["buckets"], place["removed"], config=config, save_cluster_id=True)], 1),
        ([reader(), minhash.MinhashDedupFilter(place["removed"])], 2),
    ]
    started = time.perf_counter()
    ends = []
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=min(2, tasks), logging_dir=str(folder / f"log-{number}")
        ).run()
        ends.append(time.perf_counter())
    kept, largest = _datatrove_kept(Path(place["removed"]))
    return Outcome(ends[-1] - started, ends[0] - started, kept, largest)


def _datatrove_kept(folder: Path) -> tuple[dict[int, int], int]:
    """Of each document that datatrove removes the one that stays for it, and the size of the largest cluster."""
    removed = {
        (int(file.stem) << 32) + line
        for file in folder.glob("*.remove")
        for (line,) in struct.iter_unpack("<I", file.read_bytes())
    }
    clusters: dict[int, list[int]] = {}
    for file in folder.glob("*.clusters"):
        for line, cluster in struct.iter_unpack("<2I", file.read_bytes()):
            clusters.setdefault(cluster, []).append((int(file.stem) << 32) + line)
    kept: dict[int, int] = {}
    for members in clusters.values():
        (stays,) = (member for member in members if member not in removed)
        kept |= {member: stays for member in members if member != stays}
    assert kept.keys() == removed
    return kept, max(map(len, clusters.values()), default=0)


def _similarities(planted: Planted, kept: dict[int, int], draw: random.Random) -> np.ndarray:
    """Exact Jaccard similarity of up to 2,000 removed documents with those that stay for them."""
    pairs = draw.sample(sorted(kept.items()), min(2000, len(kept)))
    return np.array([_jaccard(_text(planted, one), _text(planted, other)) for one, other in pairs])


def _text(planted: Planted, place: int) -> str:
    return planted.texts[place >> 32][place & 0xFFFFFFFF]


def _jaccard(one: str, other: str) -> float:
    first, second = _ngrams(one), _ngrams(other)
    return len(first & second) / max(1, len(first | second))


def _ngrams(text: str) -> set[int]:
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    units, grams = np.empty(len(data), np.uint64), np.empty(len(data), np.uint64)
    count = hash_units(data, 0, len(data), character_table(True), units)
    return set(grams[: hash_ngrams(units, count, 5, grams)].tolist())


if __name__ == "__main__":
    main()
