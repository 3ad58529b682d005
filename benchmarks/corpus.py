"""Quality rules against datatrove's: MB/s of one core by rule and for the whole chain, and how often both decide alike.

The same documents, in memory, go through Gopher repetition, Gopher quality, C4 and FineWeb (Chinese ones through the
rules of FineWeb-2 for Mandarin): here, in datatrove with its default words (spaCy), and in datatrove with words split
at white space. One process, one thread, processor time; the three take turns, medians count. Each rule is measured
alone on all documents, then the chain, in which a dropped document goes no further. datatrove's default is slow, so
that it gets every n-th document (`--default-share`); rates are by bytes of text. "Alike" compares decisions: with words
of white space on both sides, and ours (signs apart) with datatrove's default.

    python benchmarks/corpus.py --input corpus/*.jsonl.zst
"""

from __future__ import annotations

import argparse
import datetime
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from common import STARTER, machine
from firstlight.config import CorpusConfig
from firstlight.config.rules import MANDARIN_STOP_WORDS
from firstlight.corpus.chain import Link, run_chain
from firstlight.corpus.step import Block
from firstlight.corpus.steps import make_step
from firstlight.corpus.text_steps.scripts import HAN_CHARACTER
from firstlight.documents import Document, expand_inputs, read_documents

ENGLISH = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
CHINESE = ("fineweb2_mandarin",)
BLOCK_CHARACTERS = 4_000_000
WHITESPACE, DEFAULT = "datatrove, white space", "datatrove, default"
Decide = Callable[[Sequence[str]], list[bool]]


def main() -> None:
    """Print the machine, then a table for each language."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", default=STARTER, help="files, folders or globs of documents")
    parser.add_argument("--documents", type=int, default=5000, help="of each language, by turns from all inputs")
    parser.add_argument("--default-share", type=int, default=8, help="datatrove's default gets one document of so many")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{machine()}, {datetime.date.today()}")
    for language, texts in _texts(arguments.input, arguments.documents).items():
        if texts:
            _compare(language, texts, arguments.default_share, arguments.rounds)


def _compare(language: str, texts: list[str], share: int, rounds: int) -> None:
    steps = CHINESE if language == "Chinese" else ENGLISH
    few = texts[::share]
    sides: dict[str, tuple[list[str], Callable[[Sequence[str]], Decide]]] = {"Firstlight": (texts, _ours)}
    if language == "English":
        sides[WHITESPACE] = (texts, lambda names: _datatrove(names, whitespace=True))
    sides[DEFAULT] = (few, lambda names: _datatrove(names, whitespace=False))
    print(f"\n{language}: {_megabytes(texts):.1f} MB, {len(texts):,} documents; default: {_megabytes(few):.1f} MB\n")
    rows = [(name, [name]) for name in steps] + ([("whole chain", list(steps))] if len(steps) > 1 else [])
    rates: dict[str, dict[str, list[float]]] = {label: {side: [] for side in sides} for label, _ in rows}
    decided: dict[str, dict[str, list[bool]]] = {label: {} for label, _ in rows}
    for of, make in sides.values():  # compile and import before the clock runs
        make(list(steps))(of[:20])
    for _ in range(rounds):
        for label, names in rows:
            for side, (of, make) in sides.items():
                decide = make(names)
                started = time.process_time()
                decided[label][side] = decide(of)
                rates[label][side].append(_megabytes(of) / (time.process_time() - started))
    peers = list(sides)[1:]
    print("| |" + "".join(f" {side}, MB/s |" for side in sides) + "".join(f" × {peer} |" for peer in peers))
    print("|---|" + "---|" * (len(sides) + len(peers)))
    for label, by_side in rates.items():
        middle = {side: statistics.median(found) for side, found in by_side.items()}
        cells = [f"{rate:.2f}" for rate in middle.values()]
        cells += [f"{middle['Firstlight'] / middle[peer]:.1f}" for peer in peers]
        print(f"| {label} | " + " | ".join(cells) + " |")
    print("\ndecisions alike:")
    for label, names in rows:
        said = f"  {label}: {_alike(decided[label]['Firstlight'][::share], decided[label][DEFAULT])} with its default"
        if WHITESPACE in sides:
            same_words = _ours(names, words="whitespace")(texts)
            said += f"; {_alike(same_words, decided[label][WHITESPACE])} on words of white space"
        print(said)


def _alike(one: list[bool], other: list[bool]) -> str:
    return f"{sum(a == b for a, b in zip(one, other, strict=True)):,} of {len(one):,}"


def _ours(names: Sequence[str], words: str | None = None) -> Decide:
    settings: list[Any] = [{"step": name, "words": words} if words and name != "c4" else name for name in names]
    config = CorpusConfig(steps=settings)
    steps = [make_step(step) for step in config.steps]

    def decide(texts: Sequence[str]) -> list[bool]:
        kept = np.zeros(len(texts), dtype=bool)
        for first, block in _blocks(texts):
            links = [
                Link(number, step, lambda block, ids, made=made: made.apply(block))
                for number, (step, made) in enumerate(zip(config.steps, steps, strict=True))
            ]
            _, ids = run_chain(links, block, np.arange(first, first + len(block)), samples=0)
            kept[ids] = True
        return kept.tolist()

    return decide


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, Block]]:
    first = characters = 0
    for place, text in enumerate(texts):
        characters += len(text)
        if characters >= BLOCK_CHARACTERS or place == len(texts) - 1:
            yield first, Block(list(texts[first : place + 1]), [{}] * (place + 1 - first), "web")
            first, characters = place + 1, 0


def _datatrove(names: Sequence[str], whitespace: bool) -> Decide:
    from datatrove.data import Document as Page
    from datatrove.pipeline import filters as of
    from datatrove.utils import text as words
    from datatrove.utils import word_tokenizers

    by_language = word_tokenizers.__dict__.setdefault("_default_loader", word_tokenizers.load_word_tokenizer)
    own = word_tokenizers.WhitespaceTokenizer()
    own.word_tokenize = str.split
    word_tokenizers.load_word_tokenizer = (lambda language: own) if whitespace else by_language
    limits = {5: 0.198, 6: 0.182, 7: 0.167, 8: 0.154, 9: 0.14, 10: 0.127}
    made = {
        "gopher_repetition": lambda: [of.GopherRepetitionFilter()],
        "gopher_quality": lambda: [of.GopherQualityFilter()],
        "c4": lambda: [of.C4QualityFilter()],
        "fineweb": lambda: [of.FineWebQualityFilter()],
        "fineweb2_mandarin": lambda: [
            of.GopherRepetitionFilter(
                dup_line_frac=0.287,
                dup_para_frac=0,
                dup_line_char_frac=0,
                dup_para_char_frac=0,
                top_n_grams=((2, 0.256), (3, 0.201), (4, 0.171)),
                dup_n_grams=tuple(limits.items()),
                language="cmn_Hani",
            ),
            of.FineWebQualityFilter(
                short_line_thr=999,
                char_duplicates_ratio=0.1,
                line_punct_thr=0.106,
                new_line_ratio=0.178,
                language="cmn_Hani",
            ),
            of.GopherQualityFilter(
                min_avg_word_length=1,
                max_avg_word_length=5,
                max_non_alpha_words_ratio=0.735,
                stop_words=list(MANDARIN_STOP_WORDS),
                language="cmn_Hani",
            ),
        ],
    }

    def decide(texts: Sequence[str]) -> list[bool]:
        words.split_into_parts.cache_clear()
        pages: Iterator[Any] = (Page(text=text, id=str(number)) for number, text in enumerate(texts))
        for name in names:
            for part in made[name]():
                pages = part.run(pages, 0, 1)
        kept = {int(page.id) for page in pages}
        return [number in kept for number in range(len(texts))]

    return decide


def _texts(inputs: Sequence[str], documents: int) -> dict[str, list[str]]:
    """By language, up to so many texts of at most 100,000 characters, a seeded sample of each input."""
    found: dict[str, list[list[str]]] = {"English": [], "Chinese": []}
    for path in expand_inputs(inputs):
        by_language: dict[str, list[str]] = {"English": [], "Chinese": []}
        for item in read_documents(path):
            if isinstance(item, Document) and 0 < len(item.text) <= 100_000:
                is_chinese = len(HAN_CHARACTER.findall(item.text)) > 0.3 * len(item.text)
                by_language["Chinese" if is_chinese else "English"].append(item.text)
        for language, texts in by_language.items():
            if len(texts) > 50:
                random.Random(path.rpartition("/")[2]).shuffle(texts)
                found[language].append(texts)
    chosen = {}
    for language, groups in found.items():
        texts = [text for group in groups for text in group[: documents // len(groups)]]
        random.Random(1).shuffle(texts)
        chosen[language] = texts
    return chosen


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


if __name__ == "__main__":
    main()
