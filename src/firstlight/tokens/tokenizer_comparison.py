"""How well tokenizers fit a text: bytes a token, tokens a word, what is lost, and how fast, by source and language.

Few tokens for the same text mean more text in a context and fewer steps for a corpus, and a language with many tokens a
word (fertility: Rust et al. 2021, https://arxiv.org/abs/2012.15613) is one that the vocabulary was not made for.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from firstlight.documents import Document, expand_inputs, input_size, read_documents
from firstlight.support.console import human_bytes, human_count, printable, progress
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.split import language_of
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import Reservoir, sampling_key

if TYPE_CHECKING:
    from rich.console import Group

BATCH_CHARACTERS = 4_000_000

_LEGEND = """[dim]word: between white space; every Han character is one
bytes + unk.: tokens that are one byte of a character, or unknown
exact: documents that decode to what they were[/dim]"""

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")


def compare_tokenizers(
    tokenizers: Sequence[str],
    sources: Mapping[str, Sequence[str]],
    *,
    max_bytes_per_source: int = 20_000_000,
    seed: int = 1234,
    text_field: str = "text",
    max_bad_fraction: float = 0.01,
) -> dict[str, Any]:
    """Encode a sample of every source with every tokenizer (anything that `Tokenizer.load` takes).

    `sources` gives the inputs of each (see `expand_inputs`); of each at most `max_bytes_per_source` UTF-8 bytes are
    drawn, the documents with the lowest keyed hash of their text. A group is the documents of a source in one language
    (metadata `language`). The report, ready for JSON:

    - `groups`: `source`, `language`, `documents`, `text_bytes`, `characters`, `words` (runs of what is no white space;
      a Han character is a word);
    - `tokenizers`: `name`, `vocab_size`, `vocabulary_used` (different ids in the whole sample), `encoder`, and `groups`
      in the same order and `total`, each with `tokens`, `bytes_per_token`, `characters_per_token`, `tokens_per_word`,
      `byte_share` (of tokens: single bytes of a longer character), `unknown_share`, `exact_documents` (that decode to
      the same text), `seconds` and `mb_per_second` (of encoding with the cores there are; the first pass).

    Raises ConfigError when there is nothing to compare, DataError for what cannot be read.
    """
    if not tokenizers or not sources:
        raise ConfigError("a comparison needs at least one tokenizer and one source of text.")
    if max_bytes_per_source < 1:
        raise ConfigError(f"max_bytes_per_source is {max_bytes_per_source}; at least 1 is due.")
    loaded = [Tokenizer.load(name) for name in tokenizers]
    groups = _sample(sources, max_bytes_per_source, seed, text_field, max_bad_fraction)
    size = sum(_text_bytes(texts) for texts in groups.values())
    with progress("compare tokenizers", len(loaded) * size, "bytes") as bar:
        described = []
        for tokenizer in loaded:
            bar.show(tokenizer.name)
            described.append(_measure(tokenizer, groups, bar.advance))
        bar.show("")
    return {
        "max_bytes_per_source": max_bytes_per_source,
        "groups": [
            {"source": source, "language": language, **_size(texts)} for (source, language), texts in groups.items()
        ],
        "tokenizers": described,
    }


def comparison_table(report: Mapping[str, Any]) -> Group:
    """The report as tables for a terminal of 80 columns or more."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    fits = Table("text", "tokenizer", box=None, pad_edge=False, header_style="bold")
    for column in ("bytes/\ntoken", "tokens/\nword", "bytes+\nunk. %", "exact\n%", "MB/s"):
        fits.add_column(column, justify="right", no_wrap=True)
    fits.columns[0].overflow = "fold"
    labels = [f"{group['source']} ({group['language']})" for group in report["groups"]]
    for number, label in enumerate([*labels, "all"]):
        fits.add_section()
        for place, tokenizer in enumerate(report["tokenizers"]):
            found = tokenizer["total"] if number == len(labels) else tokenizer["groups"][number]
            fits.add_row(
                "" if place else escape(printable(label)),
                _short(tokenizer["name"]),
                f"{found['bytes_per_token']:.2f}",
                f"{found['tokens_per_word']:.2f}",
                f"{100 * (found['byte_share'] + found['unknown_share']):.2f}",
                _percent(found["exact_documents"], found["documents"]),
                f"{found['mb_per_second']:.1f}",
            )
    sizes = Table("tokenizer", "vocabulary", "used", "encoder", box=None, pad_edge=False, header_style="bold")
    for tokenizer in report["tokenizers"]:
        used = f"{tokenizer['vocabulary_used']:,} ({100 * tokenizer['vocabulary_used'] / tokenizer['vocab_size']:.0f}%)"
        sizes.add_row(_short(tokenizer["name"]), f"{tokenizer['vocab_size']:,}", used, tokenizer["encoder"])
    documents = sum(group["documents"] for group in report["groups"])
    size = sum(group["text_bytes"] for group in report["groups"])
    return Group(f"{human_count(documents)} documents, {human_bytes(size)} of text\n", fits, "", sizes, f"\n{_LEGEND}")


def count_words(text: str) -> int:
    """Runs of characters that are not white space; a Han character is a word."""
    return len(_WORDS.findall(text))


def _sample(
    sources: Mapping[str, Sequence[str]], max_bytes: int, seed: int, text_field: str, max_bad_fraction: float
) -> dict[tuple[str, str], list[str]]:
    """Texts by (source, language), sources in the given order, languages sorted."""
    inputs = {name: expand_inputs(patterns) for name, patterns in sources.items()}
    key = sampling_key(seed)
    groups: dict[tuple[str, str], list[str]] = {}
    with progress("sample text", sum(input_size(path) for paths in inputs.values() for path in paths), "bytes") as bar:
        for name, paths in inputs.items():
            tally, reservoir = Tally(), Reservoir(max_bytes)
            for path in paths:
                for entry in read_documents(path, text_field=text_field, consumed=bar.advance):
                    if tally.take(entry) is not None:
                        assert isinstance(entry, Document)
                        data = entry.text.encode("utf-8")
                        digest = hashlib.blake2b(data, key=key, digest_size=16).digest()
                        reservoir.offer(digest, language_of(entry.metadata), data)
            tally.conclude(name, max_bad_fraction)
            drawn: dict[str, list[str]] = {}
            for language, data in reservoir.drawn():
                if text := data.decode("utf-8", "ignore"):
                    drawn.setdefault(language, []).append(text)
            groups |= {(name, language): drawn[language] for language in sorted(drawn)}
    if not groups:
        raise DataError(f"max_bytes_per_source is {max_bytes}: not one whole character of text; raise it.")
    return groups


def _measure(tokenizer: Tokenizer, groups: Mapping[tuple[str, str], Sequence[str]], advance: Any) -> dict[str, Any]:
    """One tokenizer's entry in the report."""
    tokenizer.load_fast()
    used = np.zeros(tokenizer.vocab_size, dtype=bool)
    lone_bytes, unknown = tokenizer.lone_bytes(), tokenizer.unknown_id
    counts = []
    for texts in groups.values():
        count = dict.fromkeys(("tokens", "byte_tokens", "unknown_tokens", "exact_documents"), 0) | {"seconds": 0.0}
        for batch in text_batches(texts, BATCH_CHARACTERS):
            started = time.perf_counter()
            ids, offsets = tokenizer.encode_arrays(batch)
            count["seconds"] += time.perf_counter() - started
            used[ids] = True
            count["tokens"] += len(ids)
            count["byte_tokens"] += int(np.count_nonzero(lone_bytes[ids]))
            count["unknown_tokens"] += int(np.count_nonzero(ids == unknown)) if unknown is not None else 0
            for text, (begin, end) in zip(batch, pairwise(offsets.tolist()), strict=True):
                count["exact_documents"] += tokenizer.decode(ids[begin:end].tolist(), skip_special_tokens=False) == text
            advance(_text_bytes(batch))
        counts.append(_size(texts) | count)
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    return {
        "name": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "vocabulary_used": int(used.sum()),
        "encoder": "gigatoken" if tokenizer.is_fast else "tokenizers",
        "groups": [_rates(count) for count in counts],
        "total": _rates(total),
    }


def _rates(count: Mapping[str, Any]) -> dict[str, Any]:
    tokens, words = max(count["tokens"], 1), max(count["words"], 1)
    return {
        "documents": count["documents"],
        "tokens": count["tokens"],
        "bytes_per_token": count["text_bytes"] / tokens,
        "characters_per_token": count["characters"] / tokens,
        "tokens_per_word": count["tokens"] / words,
        "byte_share": count["byte_tokens"] / tokens,
        "unknown_share": count["unknown_tokens"] / tokens,
        "exact_documents": count["exact_documents"],
        "seconds": count["seconds"],
        "mb_per_second": count["text_bytes"] / 1e6 / max(count["seconds"], 1e-9),
    }


def _size(texts: Sequence[str]) -> dict[str, int]:
    return {
        "documents": len(texts),
        "text_bytes": _text_bytes(texts),
        "characters": sum(map(len, texts)),
        "words": sum(map(count_words, texts)),
    }


def _text_bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8")) for text in texts)


def text_batches(texts: Sequence[str], most_characters: int) -> Iterator[list[str]]:
    """Texts in order, in batches that end with the text that fills them."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= most_characters:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _percent(part: int, whole: int) -> str:
    """100 only when all are."""
    return "100" if part == whole else f"{min(99.99, 100 * part / whole):.2f}"


def _short(name: str) -> str:
    """The end of a long path, which tells tokenizers apart."""
    from rich.markup import escape

    return escape(printable(name if len(name) <= 24 else f"…{name[-23:]}"))
