"""Beside megatron-core itself: the same samples in the same order, and each reads what the other wrote."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from firstlight.config import DataConfig
from firstlight.tokens.indexed import DTYPES, IndexedReader, IndexedWriter
from firstlight.tokens.megatron_stream import MegatronStream
from firstlight.tokens.prefix import PrefixDataset

pytestmark = pytest.mark.filterwarnings("ignore")
indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", exc_type=ImportError)
pytest.importorskip("megatron.core.datasets.helpers_cpp", exc_type=ImportError)
SPLIT, VOCABULARY = "80, 20, 0", 250


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory):
    """Three prefixes of other types; documents of none to three sequences, some of them empty."""
    folder, generator = tmp_path_factory.mktemp("prefixes"), np.random.default_rng(0)
    made = []
    for name, documents, dtype in (("web", 200, np.uint16), ("books", 120, np.int32), ("code", 70, np.int64)):
        with IndexedWriter(folder / name, dtype) as writer:
            for _ in range(documents):
                for _ in range(generator.integers(0, 4)):
                    writer.add_sequence(generator.integers(0, VOCABULARY, generator.integers(0, 30)))
                writer.end_document()
        made.append(str(folder / name))
    return made


def theirs(prefixes, weights, samples, length, seed):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=length,
        blend=(prefixes, weights),
        split=SPLIT,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        tokenizer=SimpleNamespace(vocab_size=VOCABULARY, eod=0, pad=-1, unique_identifiers={}),
    )
    others = 0 if weights or len(prefixes) == 1 else None
    return BlendedMegatronDatasetBuilder(GPTDataset, [samples, others, others], lambda: True, config).build()[0]


def ours(prefixes, weights, samples, length, seed):
    splits = {prefix: PrefixDataset(prefix).splits(SPLIT)["train"] for prefix in prefixes}
    mixture = dict(zip(prefixes, weights, strict=True)) if weights else {}
    data = DataConfig(sequence_length=length, order="megatron", mixture=mixture)
    return MegatronStream(splits, data, seed, samples, VOCABULARY)


@pytest.mark.parametrize(
    ("sources", "weights", "samples", "length", "seed", "passes", "apart"),
    [
        ("w", None, 90, 16, 1234, [1], [False]),
        ("w", None, 700, 16, 7, [3], [False]),
        ("w", None, 600, 13, 9, [3], [True]),
        ("w", None, 476, 16, 7, [2], [False]),
        ("w", [1.0], 476, 16, 7, [3], [True]),  # for what is asked beyond the share
        ("wbc", [0.3, 0.5, 0.2], 300, 16, 1, None, None),
        ("cbw", [3.0, 5.0, 1.0], 700, 31, 2**32 - 1, None, None),
        ("wb", [1.0, 1.0], 200, 16, 1, None, None),
        ("wbc", None, 200, 16, 5, [1, 1, 1], [False] * 3),
    ],
)
def test_samples_are_megatron_cores(prefixes, sources, weights, samples, length, seed, passes, apart):
    chosen = [prefixes["wbc".index(letter)] for letter in sources]
    reference, stream = theirs(chosen, weights, samples, length, seed), ours(chosen, weights, samples, length, seed)
    assert len(reference) == stream.num_samples >= samples
    expected = np.stack([[*(item := reference[n])["tokens"], item["labels"][-1]] for n in range(len(reference))])
    assert np.array_equal(stream.read(0, len(reference)), expected)
    records = [stream.record(source) for source in stream.sources]
    if passes:
        assert [record["passes"] for record in records] == passes
        assert [record["last_pass_apart"] for record in records] == apart
    elif len(chosen) == 3:
        assert any(record["last_pass_apart"] for record in records)


@pytest.mark.parametrize("weights", [[0.1, 0.2, 0.7], [1.0, 1.0, 1.0, 1.0], [0.005, 0.3, 0.3, 0.395], [9.0, 2.0]])
def test_the_rhythm_is_megatron_cores_ties_included(weights):
    from megatron.core.datasets import helpers

    from firstlight.tokens.megatron_blend import blend_of, rhythm

    mixture = {f"s{number}": weight for number, weight in enumerate(weights)}
    blend = blend_of(DataConfig(order="megatron", mixture=mixture), dict.fromkeys(mixture, 10**9), 20_000)
    source, before = np.zeros(blend.size, np.int16), np.zeros(blend.size, np.int64)
    helpers.build_blending_indices(source, before, np.array(blend.weights), len(weights), blend.size, False)
    for one, other in zip(rhythm(blend), (source, before), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("code", DTYPES)
def test_each_reads_what_the_other_wrote(tmp_path, code):
    dtype = DTYPES[code]
    documents = [[[1, 2, 3], [4]], [], [[5, 100]], [[]], [[7] * 50]]
    with IndexedWriter(tmp_path / "ours", dtype) as writer:
        for document in documents:
            for sequence in document:
                writer.add_sequence(sequence)
            writer.end_document()
    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=indexed.DType.dtype_from_code(code))
    for document in documents:
        flat = [token for sequence in document for token in sequence]
        builder.add_document(torch.tensor(flat), [len(sequence) for sequence in document])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for kind in ("bin", "idx"):
        assert (tmp_path / f"ours.{kind}").read_bytes() == (tmp_path / f"theirs.{kind}").read_bytes()
    read = indexed.IndexedDataset(str(tmp_path / "ours"))
    assert read.document_indices.tolist() == [0, 2, 2, 3, 4, 5]
    assert [read[n].tolist() for n in range(len(read))] == [s for document in documents for s in document]
    reader = IndexedReader(tmp_path / "theirs")
    assert [[s.tolist() for s in reader.document(n)] for n in range(5)] == documents
    if dtype.kind == "f":  # no token ids
        return
    split = PrefixDataset(tmp_path / "theirs").whole()
    assert [document.tolist() for document in split.documents()] == [
        [token for sequence in document for token in sequence] for document in documents
    ]
