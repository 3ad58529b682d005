"""A split is one row of tokens, whatever its shards; opening costs the same at any size; damage is named."""

from __future__ import annotations

import copy
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.support.errors import DataError
from firstlight.tokens.dataset import TokenDataset, describe, write_description
from firstlight.tokens.indexed import IndexedWriter, token_dtype
from firstlight.tokens.split import Shard, check_ids
from firstlight.tokens.tokenizer import Tokenizer

Documents = list[list[int]]


def write_shard(folder: Path, name: str, documents: Documents, tokenizer: Tokenizer) -> Shard:
    with IndexedWriter(folder / name, token_dtype(tokenizer.vocab_size)) as writer:
        for document in documents:
            writer.add_document([*document, tokenizer.eod_id])
    return Shard(
        name,
        writer.num_tokens,
        writer.num_documents,
        3 * writer.num_tokens,
        writer.bin_bytes,
        writer.idx_bytes,
        writer.bin_sha256,
        writer.idx_sha256,
    )


def make(folder: Path, tokenizer: Tokenizer, **splits: list[Documents]) -> TokenDataset:
    shards = {
        split: [
            write_shard(folder, f"{split}-{number:05d}", documents, tokenizer) for number, documents in enumerate(parts)
        ]
        for split, parts in splits.items()
    }
    write_description(folder, describe("source", tokenizer, shards), tokenizer)
    return TokenDataset.open(folder)


@pytest.fixture
def dataset(tmp_path: Path, tiny_tokenizer: Tokenizer) -> TokenDataset:
    return make(tmp_path, tiny_tokenizer, train=[[[5, 6], [7]], [[8, 9, 10]]], validation=[[[11]]])


shard_lists = st.lists(
    st.lists(st.lists(st.integers(2, 999), max_size=5), min_size=1, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=40)
@given(data=st.data(), shards=shard_lists)
def test_a_split_reads_as_one_row(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Tokenizer,
    data: st.DataObject,
    shards: list[Documents],
) -> None:
    split = make(tmp_path_factory.mktemp("dataset"), tiny_tokenizer, train=shards).splits["train"]
    documents = [[*document, tiny_tokenizer.eod_id] for shard in shards for document in shard]
    row = [token for document in documents for token in document]
    assert (split.num_tokens, split.num_documents) == (len(row), len(documents))
    assert split.text_bytes == 3 * len(row)
    start = data.draw(st.integers(0, len(row)))
    length = data.draw(st.integers(0, len(row) - start))
    part = split.read(start, length)
    assert part.dtype == np.uint16
    assert part.tolist() == row[start : start + length]
    assert [document.tolist() for document in split.documents()] == documents
    ends = np.cumsum([len(document) for document in documents]).tolist()
    bounds = [split.document_bounds(number) for number in range(len(documents))]
    assert bounds == list(zip([0, *ends], ends, strict=False))


def test_outside_of_a_split_is_an_index_error(dataset: TokenDataset) -> None:
    split = dataset.splits["train"]
    for start, length in ((-1, 1), (0, split.num_tokens + 1), (split.num_tokens, 1), (0, -1)):
        with pytest.raises(IndexError):
            split.read(start, length)
    for document in (-1, 3):
        with pytest.raises(IndexError):
            split.document_bounds(document)


def test_what_is_read_cannot_be_written(dataset: TokenDataset) -> None:
    with pytest.raises(ValueError, match="read-only"):
        dataset.splits["train"].read(0, 2)[0] = 1


def test_a_dataset_knows_its_tokenizer(dataset: TokenDataset, tiny_tokenizer: Tokenizer) -> None:
    assert dataset.tokenizer_fingerprint == tiny_tokenizer.fingerprint == dataset.tokenizer.fingerprint
    assert (dataset.vocab_size, dataset.eod_id) == (tiny_tokenizer.vocab_size, tiny_tokenizer.eod_id)
    assert dataset.source == "source"
    assert dataset.description["splits"]["validation"]["tokens"] == 2
    dataset.verify()


def test_another_tokenizer_in_the_folder_is_found(dataset: TokenDataset, tiny_tokenizer: Tokenizer) -> None:
    file = dataset.folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="not the tokenizer that made this dataset"):
        TokenDataset.open(dataset.folder).tokenizer  # noqa: B018


def test_the_fingerprint_follows_the_content(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    def fingerprint(name: str, token: int) -> str:
        (tmp_path / name).mkdir()
        return make(tmp_path / name, tiny_tokenizer, train=[[[token]]]).fingerprint

    assert fingerprint("a", 5) == fingerprint("b", 5) != fingerprint("c", 6)


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.idx", "validation-00000.bin"])
def test_opening_finds_a_shard_that_is_missing_or_of_another_size(dataset: TokenDataset, name: str) -> None:
    file = dataset.folder / name
    size = file.stat().st_size
    for other in (size - 1, size + 1, 0):
        os.truncate(file, other)
        with pytest.raises(DataError, match=rf"{name}: {other} bytes, but dataset.json says {size}"):
            TokenDataset.open(dataset.folder)
    file.unlink()
    with pytest.raises(DataError, match=rf"{name}: missing, though dataset.json names it"):
        TokenDataset.open(dataset.folder)


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00000.idx"])
def test_verify_finds_one_changed_bit(dataset: TokenDataset, name: str) -> None:
    file = dataset.folder / name
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    opened = TokenDataset.open(dataset.folder)
    with pytest.raises(DataError, match=rf"{name}: its content is not what was written"):
        opened.verify()


def test_every_fault_is_told_and_what_is_sound_is_read_on(dataset: TokenDataset) -> None:
    for name in ("train-00000.bin", "validation-00000.idx"):
        raw = bytearray((dataset.folder / name).read_bytes())
        raw[-1] ^= 1
        (dataset.folder / name).write_bytes(raw)
    (dataset.folder / "train-00001.idx").unlink()
    read: list[int] = []
    faults = list(TokenDataset.described(dataset.folder).faults(advance=read.append))
    assert [fault.partition(": ")[0].rpartition("/")[2] for fault in faults] == [
        "train-00000.bin",
        "train-00001.idx",
        "validation-00000.idx",
    ]
    there = [file.path for file in dataset.files() if file.path.exists()]
    assert sum(read) == sum(file.stat().st_size for file in there)


@pytest.mark.parametrize("place", range(9))
def test_an_id_outside_the_vocabulary_is_found_wherever_it_stands(
    tmp_path: Path, tiny_tokenizer: Tokenizer, place: int
) -> None:
    documents = [[5, 6], [7], [8, 9, 10]]
    flat = [token for document in documents for token in [*document, -1]]
    at = next(n for n in range(place, len(flat) + place) if flat[n % len(flat)] != -1) % len(flat)
    number = 0
    for document in documents:
        for index in range(len(document)):
            if number == at:
                document[index] = 60_000
            number += 1
        number += 1
    dataset = make(tmp_path, tiny_tokenizer, train=[documents[:2], documents[2:]])
    first = 5
    shard, token = (0, at) if at < first else (1, at - first)
    where = rf"train-0000{shard}\.bin, token {token} is outside the vocabulary of {tiny_tokenizer.vocab_size}"
    with pytest.raises(DataError, match=f"token id 60000 at .*{where}"):
        dataset.verify()
    split = dataset.splits["train"]
    with pytest.raises(DataError, match=f"token id 60000 at .*{where}"):
        check_ids(split.read(0, split.num_tokens), tiny_tokenizer.vocab_size, split, 0)
    check_ids(split.read(0, at), tiny_tokenizer.vocab_size, split, 0)
    check_ids(split.read(at + 1, split.num_tokens - at - 1), tiny_tokenizer.vocab_size, split, at + 1)


def test_a_folder_without_description_is_no_dataset(tmp_path: Path, dataset: TokenDataset) -> None:
    (dataset.folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"no dataset\.json in this folder"):
        TokenDataset.open(dataset.folder)
    with pytest.raises(DataError, match="no such folder"):
        TokenDataset.open(tmp_path / "nothing")


def paths(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [prefix] if prefix else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [*found, *(path for key, value in items for path in paths(value, (*prefix, key)))]


JUNK = [None, True, -1, 2**70, 1.5, float("nan"), "", "../../etc/passwd", "float64", [], [None], {}, {"x": 1}]


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_description_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "train-00000.bin").write_bytes(b"\x05\x00\x00\x00")
    (folder / "train-00000.idx").write_bytes(b"x" * 62)
    shard = Shard("train-00000", 2, 1, 6, 4, 62, "", "")
    description = copy.deepcopy(describe("source", tiny_tokenizer, {"train": [shard]}))
    path = data.draw(st.sampled_from(paths(description)))
    place = description
    for key in path[:-1]:
        place = place[key]
    if data.draw(st.booleans()) and isinstance(place, dict):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(st.sampled_from(JUNK))
    (folder / "dataset.json").write_text(json.dumps(description))
    try:
        opened = TokenDataset.open(folder)
    except DataError as problem:
        assert str(folder) in str(problem)
    else:
        assert opened.splits["train"].num_tokens == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 2}', "[" * 100_000])
def test_a_description_that_is_none_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        TokenDataset.open(tmp_path)


def test_a_shard_of_another_type_is_found_when_read(dataset: TokenDataset) -> None:
    index = dataset.folder / "train-00000.idx"
    raw = bytearray(index.read_bytes())
    raw[17:18] = struct.pack("<B", 3)
    index.write_bytes(raw)
    with pytest.raises(DataError, match="2 documents of int16"):
        TokenDataset.open(dataset.folder).splits["train"].read(0, 1)


def bytes_read() -> int:
    """Bytes that this process asked the system to read so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts reads by Linux's /proc")
def test_ten_billion_tokens_open_and_read_like_ten(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    tokens = 2_000_000_000
    shards = []
    for number in range(5):
        name = f"train-{number:05d}"
        with (tmp_path / f"{name}.bin").open("wb") as handle:
            handle.truncate(2 * tokens)
            handle.seek(2 * tokens - 4)
            handle.write(struct.pack("<HH", 100 + number, 0))
        header = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, 1, 2)
        (tmp_path / f"{name}.idx").write_bytes(header + struct.pack("<iqqq", tokens, 0, 0, 1))
        shards.append(Shard(name, tokens, 1, 0, 2 * tokens, 62, "", ""))
    write_description(tmp_path, describe("source", tiny_tokenizer, {"train": shards}), tiny_tokenizer)
    before = bytes_read()
    split = TokenDataset.open(tmp_path).splits["train"]
    assert split.num_tokens == 10_000_000_000
    for number in range(5):
        assert split.read((number + 1) * tokens - 2, 2).tolist() == [100 + number, 0]
    assert split.read(2 * tokens - 2, 5).tolist() == [101, 0, 0, 0, 0]
    assert split.document_bounds(4) == (4 * tokens, 5 * tokens)
    assert bytes_read() - before < 100_000
