"""Train a byte-level BPE vocabulary on a sample of the text that a model will see.

Byte-level BPE (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2) starts from the
256 bytes, so that it can write any text. Before merging, text is split by a pattern of the kind that GPT-4 and Llama 3
use, so that no token spans words, digits are never merged at random, and runs of spaces in code become single tokens.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from firstlight.documents import input_size, read_documents
from firstlight.support.console import ProgressBar, human_bytes, note, progress, warn
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, write_json
from firstlight.tokens.splitting import split_pattern
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import EOD_TOKEN, MASK_TOKEN, PAD_TOKEN, Tokenizer

SPECIAL_TOKENS = (EOD_TOKEN, PAD_TOKEN, MASK_TOKEN)
"""Ids 0, 1 and 2 of a trained tokenizer; causal and masked models share it."""
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    digits: Literal["single", "groups_of_three"] | str = "single",
    total_bytes: int | None = None,
    show_progress: bool = True,
) -> Tokenizer:
    """Learn a vocabulary of `vocab_size` tokens from texts; the same texts in any order give the same one.

    `<|endoftext|>` is id 0, `<|pad|>` id 1, `<|mask|>` id 2, the 256 bytes follow, then the merges. `total_bytes`:
    UTF-8 bytes of all texts, for the progress bar. Text with fewer merges to learn gives a smaller vocabulary, and a
    note. Raises ConfigError below 259 tokens, DataError when there is no text.
    """
    _check_vocab_size(vocab_size)
    import json

    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as RustTokenizer

    rust = RustTokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split_pattern(digits)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    if show_progress:
        with progress("train tokenizer", total_bytes, "bytes") as bar:
            seen = _train_aside(rust, trainer, texts, bar)
    else:
        seen = _train_aside(rust, trainer, texts, None)
    if not seen:
        raise DataError("no text to train a tokenizer on.")
    tokenizer = Tokenizer(json.loads(rust.to_str()), *SPECIAL_TOKENS, origin="trained tokenizer")
    if tokenizer.vocab_size < vocab_size:
        note(
            f"the text has merges for {tokenizer.vocab_size} tokens only, not {vocab_size}; "
            "the vocabulary is that small. More text would fill it."
        )
    return tokenizer


def _check_vocab_size(vocab_size: int) -> None:
    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(
            f"tokenizer.vocab_size is {vocab_size}; 256 bytes and {len(SPECIAL_TOKENS)} special tokens need at least "
            f"{SMALLEST_VOCABULARY}."
        )


def _train_aside(rust: Any, trainer: Any, texts: Iterable[str], bar: ProgressBar | None) -> int:
    """Train in a thread of its own, so that Ctrl-C is heard while Rust works; returns the bytes of text seen."""
    seen = 0
    stop = False
    problem: BaseException | None = None

    def feed() -> Iterator[str]:
        nonlocal seen
        for text in texts:
            if stop:
                raise InterruptedError
            size = len(text.encode("utf-8"))
            seen += size
            if bar:
                bar.advance(size)
            yield text
        if bar:
            bar.show("learning merges …")

    def train() -> None:
        nonlocal problem
        try:
            rust.train_from_iterator(feed(), trainer)
        except BaseException as caught:
            problem = caught

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    finally:
        stop = True
    if problem is not None:
        raise problem
    if bar:
        bar.show("")
    return seen


def sample_texts(
    files_by_source: Mapping[str, Sequence[str]],
    weights: Mapping[str, float] | None,
    max_bytes: int,
    seed: int,
    *,
    text_field: str = "text",
    max_bad_fraction: float = 0.01,
) -> tuple[list[str], dict[str, int]]:
    """Draw at most `max_bytes` UTF-8 bytes of documents: (texts, bytes by source).

    Source s gives weights[s] / sum(weights) of `max_bytes`, or all it has when that is less; without weights, all
    documents are one pool. Which documents: those with the lowest keyed hash of their text, so that the draw depends on
    `seed` and the documents but not on their order or files. Memory is `max_bytes`. The last document is cut to fit.
    """
    total = sum(weights.values()) if weights else 0.0
    shares = {name: weights.get(name, 0.0) / total for name in files_by_source} if weights and total else None
    pool = Reservoir(max_bytes)
    reservoirs = {name: Reservoir(int(shares[name] * max_bytes)) if shares else pool for name in files_by_source}
    key = sampling_key(seed)
    read = [(name, file) for name, files in files_by_source.items() for file in files if reservoirs[name].limit]
    tally = Tally()
    with progress("sample text", sum(input_size(file) for _, file in read), "bytes") as bar:
        for name, file in read:
            for entry in read_documents(file, text_field=text_field, consumed=bar.advance):
                text = tally.take(entry)
                if text is not None:
                    data = text.encode("utf-8")
                    reservoirs[name].offer(hashlib.blake2b(data, key=key, digest_size=16).digest(), name, data)
    tally.conclude("sample for the tokenizer", max_bad_fraction)
    texts: list[str] = []
    taken = dict.fromkeys(files_by_source, 0)
    for reservoir in dict.fromkeys(reservoirs.values()):
        for name, data in reservoir.drawn():
            text = data.decode("utf-8", "ignore")
            texts.append(text)
            taken[name] += len(text.encode("utf-8"))
    return texts, taken


def _say_what_is_missing(taken: Mapping[str, int], weights: Mapping[str, float] | None, max_bytes: int) -> None:
    """Warn of sources that are too small for their share of the sample: the tokenizer sees less of them."""
    total = sum(weights.values()) if weights else 0.0
    if not weights or not total or len(taken) < 2:
        return
    found = sum(taken.values())
    for name, size in taken.items():
        share = weights.get(name, 0.0) / total
        if size < 0.99 * int(share * max_bytes):
            warn(
                f"{name}: {human_bytes(size)} of text, all it has, where its weight asks for "
                f"{human_bytes(share * max_bytes)}; it is {size / max(found, 1):.1%} of the sample, not {share:.1%}. "
                f"A sample of at most {human_bytes(size / share)} keeps the shares."
            )


class Reservoir:
    """The documents with the lowest hashes that together fill `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0
        self._heap: list[tuple[int, str, bytes]] = []

    def offer(self, digest: bytes, source: str, data: bytes) -> None:
        rank = -int.from_bytes(digest, "big")
        if self._size >= self.limit and self._heap and rank <= self._heap[0][0]:
            return
        heapq.heappush(self._heap, (rank, source, data))
        self._size += len(data)
        while self._heap and self._size - len(self._heap[0][2]) >= self.limit:
            self._size -= len(heapq.heappop(self._heap)[2])

    def drawn(self) -> Iterator[tuple[str, bytes]]:
        """(source, text) by rising hash; the last one is cut where the limit is reached."""
        left = self.limit
        for _, source, data in sorted(self._heap, reverse=True):
            if left > 0:
                yield source, data[:left]
            left -= len(data)


def sampling_key(seed: int) -> bytes:
    """Key of the sampling hash."""
    return hashlib.blake2b(f"tokenizer sample {seed}".encode(), digest_size=32).digest()


def train_on_sample(
    files_by_source: Mapping[str, Sequence[str]],
    output: Path,
    *,
    vocab_size: int,
    digits: str = "single",
    weights: Mapping[str, float] | None = None,
    max_bytes: int = 200_000_000,
    seed: int = 1234,
    text_field: str = "text",
) -> Tokenizer:
    """Sample, train, and write the tokenizer's folder with `training.json` (what it was trained on); returns it.

    See `sample_texts` and `train_tokenizer`. The folder appears when it is whole.
    """
    _check_vocab_size(vocab_size)
    texts, taken = sample_texts(files_by_source, weights, max_bytes, seed, text_field=text_field)
    _say_what_is_missing(taken, weights, max_bytes)
    shown = ", ".join(f"{name} {human_bytes(size)}" for name, size in taken.items()) if len(taken) > 1 else ""
    note(f"training on {human_bytes(sum(taken.values()))} of text{f': {shown}' if shown else ''}")
    tokenizer = train_tokenizer(texts, vocab_size, digits=digits, total_bytes=sum(taken.values()))
    with atomic_folder(Path(output)) as folder:
        tokenizer.save(folder)
        write_json(
            folder / "training.json",
            {"vocab_size": tokenizer.vocab_size, "digits": digits, "seed": seed, "bytes_by_source": taken},
        )
    note(f"tokenizer: {tokenizer.vocab_size:,} tokens, in {output}")
    return Tokenizer.load(output)
