"""What the benchmarks share: the machine's name, tables in the documentation, and token datasets of any size that take
hardly any disk."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from firstlight.support.files import write_json
from firstlight.tokens.dataset import DESCRIPTION, FORMAT_VERSION, Shard, describe, write_description
from firstlight.tokens.indexed import IndexedWriter, data_path, index_path
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.device import device_name

STARTER = ["starter:books", "starter:wikipedia", "starter:code"]
"""Text that is at hand wherever the benchmarks' packages are (extra `starter`)."""
VOCAB_SIZE = 32_000
DOCUMENT_TOKENS = 1000
SHARD_TOKENS = 100_000_000


def machine() -> str:
    """Processor, cores, system and Python."""
    name = device_name(torch.device("cpu"))
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def write_table(page: str, marker: str, table: str) -> None:
    """Put `table` between the markers <!-- MARKER --> and <!-- /MARKER --> of a page in docs/."""
    path = Path(__file__).parents[1] / "docs" / page
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = text.split(begin)
    path.write_text(f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def write_sparse(folder: Path, total: int, tokenizer: Tokenizer | None = None) -> None:
    """A dataset of `total` zero tokens whose shards are hard links to one sparse file."""
    folder.mkdir()
    size = min(total, SHARD_TOKENS)
    with IndexedWriter(folder / "train-00000", np.uint16) as writer:
        zeros = np.zeros(DOCUMENT_TOKENS, dtype=np.uint16)
        for _ in range(size // DOCUMENT_TOKENS):
            writer.add_document(zeros)
    bin_file, idx_file = data_path(folder / "train-00000"), index_path(folder / "train-00000")
    os.truncate(bin_file, 0)
    os.truncate(bin_file, 2 * size)
    names = [f"train-{number:05d}" for number in range(total // size)]
    for name in names[1:]:
        data_path(folder / name).hardlink_to(bin_file)
        index_path(folder / name).hardlink_to(idx_file)
    shards = [shard_of(folder, name, size) for name in names]
    if tokenizer is None:
        describe_without_tokenizer(folder, shards)
    else:
        write_description(folder, describe("text", tokenizer, {"train": shards}), tokenizer)


def shard_of(folder: Path, name: str, tokens: int) -> Shard:
    """The record of a shard whose documents have DOCUMENT_TOKENS tokens."""
    bin_bytes, idx_bytes = data_path(folder / name).stat().st_size, index_path(folder / name).stat().st_size
    return Shard(name, tokens, -(-tokens // DOCUMENT_TOKENS), 0, bin_bytes, idx_bytes, "", "")


def describe_without_tokenizer(folder: Path, shards: list[Shard]) -> None:
    """`dataset.json` of tokens that no tokenizer made."""
    write_json(
        folder / DESCRIPTION,
        {
            "format_version": FORMAT_VERSION,
            "source": "text",
            "tokenizer": {"fingerprint": "none: made for a benchmark", "vocab_size": VOCAB_SIZE, "eod_id": 0},
            "dtype": "uint16",
            "splits": {"train": {"shards": [asdict(shard) for shard in shards]}},
        },
    )
