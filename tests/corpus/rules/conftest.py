"""Words and sentences as the rules part them, in plain Python; datatrove made to part them so; many documents."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from firstlight.config import CorpusConfig
from firstlight.corpus.comparisons.units import WITHOUT_SPACES
from firstlight.corpus.rules.characters import TABLE_SIZE, terminal_marks
from firstlight.corpus.step import Block, Result
from firstlight.corpus.steps import make_step
from firstlight.documents import Document, read_documents

CLOSING = "\"'”’)]}»」』】）》〉"
TERMINAL = "".join(map(chr, terminal_marks()))
_APART = {n for low, high in (*WITHOUT_SPACES, (0x20000, TABLE_SIZE - 1)) for n in range(low, high + 1)}
Judge = Callable[..., Result]

CHINESE = (
    "春天来了，小河边的柳树长出了新的叶子。孩子们在草地上放风筝，老人们坐在长椅上晒太阳。"
    "这座城市的历史可以追溯到一千多年以前，当时它是一个重要的贸易中心。他说：“我们明天再来吧！”\n"
    "在数学中，质数是大于一的自然数，除了一和它本身以外不再有其他因数的数。为什么会这样呢？因为定义如此。\n"
    "2024年12月31日，公司在上海召开了年度大会；会上，王先生被选为新的主席，任期三年。"
)


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """5,000 texts: prose, encyclopedia, code and Chinese, whole and cut, a third of them spoilt in some way."""
    draw = random.Random(1)
    texts = [
        item.text
        for name, most in (("starter:books", 200), ("starter:wikipedia", 3000), ("starter:code", 400))
        for item in _some(name, most)
    ]
    sentences = CHINESE.replace("\n", "").replace("。", "。\n").replace("；", "；\n").splitlines()
    for _ in range(400):
        lines = ["".join(draw.choices(sentences, k=draw.randint(1, 4))) for _ in range(draw.randint(1, 12))]
        texts.append(draw.choice(["\n", "\n\n", " "]).join(lines))
    while len(texts) < 5000:
        text = draw.choice(texts)
        start = draw.randrange(len(text))
        texts.append(_spoil(text[start : start + draw.randint(100, 3000)], draw))
    return texts


def _some(name: str, most: int) -> Iterator[Document]:
    count = 0
    for item in read_documents(name):
        if isinstance(item, Document) and count < most:
            count += 1
            yield Document(item.text[:6000], item.metadata)


def _spoil(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    line, word = draw.choice(lines), draw.choice(text.split() or ["word"])
    ways: Sequence[Callable[[], str]] = (
        lambda: "\n".join([*lines, *[line] * draw.randint(1, 40)]),
        lambda: text + f" {word}" * draw.randint(1, 400),
        lambda: "\n\n".join([text, text[: draw.randint(1, 900)], text]),
        lambda: "\n".join(f"{draw.choice(['-', '•', ' - '])} {each}" for each in lines),
        lambda: "\n".join(each[:60] + draw.choice(["...", "…", ""]) for each in lines),
        lambda: text.replace(" ", draw.choice([" # ", " ... ", " … ", "  ", "\u3000"])),
        lambda: "".join(draw.choice("0123456789.,;|") if draw.random() < 0.3 else sign for sign in text),
        lambda: text.replace(". ", draw.choice([".\n", ".[12]\n", ".\r\n", "[edit].\u2028", '."\x85'])),
        lambda: text.replace(" ", "", draw.randint(1, 2000)),
        lambda: text + draw.choice([" Lorem Ipsum dolor sit amet.", "\nWe use cooKies here, see it.", " a {b} c. "]),
        lambda: "\n".join(each + draw.choice([" enable JavaScript now.", "", "."]) for each in lines),
        lambda: "\n\n\n" + text + "\n",
    )
    return draw.choice(ways)()


@pytest.fixture
def datatrove_words(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes datatrove part words our way, by name, and sentences too."""
    pytest.importorskip("datatrove")
    from datatrove.utils import text, word_tokenizers

    def use(split: str) -> None:
        class Ours(word_tokenizers.WordTokenizer):
            def word_tokenize(self, text: str) -> list[str]:
                return split_words(text, split)

            def sent_tokenize(self, text: str) -> list[str]:
                return split_sentences(text)

            def span_tokenize(self, text: str) -> list[tuple[int, int]]:
                spans, place = [], 0
                for sentence in split_sentences(text):
                    spans.append((place, place + len(sentence)))
                    place += len(sentence)
                return spans

        monkeypatch.setattr(word_tokenizers, "load_word_tokenizer", lambda language: Ours())
        text.split_into_parts.cache_clear()

    return use


def split_words(text: str, split: str) -> list[str]:
    """The words of a text."""
    if split == "whitespace":
        return text.split()
    if split == "jieba":
        import rjieba

        return [word for word in rjieba.cut(text) if word.strip()]
    words: list[str] = []
    kind = base = ""
    for place, character in enumerate(text):
        if character.isspace():
            kind = ""
        elif kind and _is_mark(character):
            words[-1] += character
        elif kind == "letters" and _in_word(character):
            words[-1] += character
            base = character
        elif (kind == "letters" and _joins(base, character, text[place + 1 : place + 2])) or (
            kind == "sign" and character == base
        ):
            words[-1] += character
        else:
            words.append(character)
            base = character
            kind = (
                "letters" if _in_word(character) else "other" if _is_mark(character) or _letter(character) else "sign"
            )
    return words


def _joins(before: str, sign: str, after: str) -> bool:
    if not _in_word(after):
        return False
    return (
        sign == "."
        or (sign in "'’" and before.isalpha() and after.isalpha())
        or (sign in ",:/" and before.isdecimal() and after.isdecimal())
    )


def _letter(character: str) -> bool:
    return character.isalnum() or character == "_"


def _in_word(character: str) -> bool:
    return bool(character) and _letter(character) and ord(character) not in _APART


def _is_mark(character: str) -> bool:
    return ord(character) > 0x2FF and unicodedata.category(character)[0] == "M" and not _letter(character)


def split_sentences(line: str) -> list[str]:
    """The sentences of a line."""
    sentences: list[str] = []
    current, place = "", 0
    while place < len(line):
        character = line[place]
        place += 1
        current += character
        if character not in TERMINAL:
            continue
        wide = ord(character) > 127
        while place < len(line) and line[place] in TERMINAL + CLOSING:
            wide |= line[place] in TERMINAL and ord(line[place]) > 127
            current += line[place]
            place += 1
        if wide or place == len(line) or line[place].isspace():
            sentences.append(current)
            current = ""
    return [*sentences, current] if current.strip() else sentences


@pytest.fixture
def reference() -> SimpleNamespace:
    """`words(text, split)` and `sentences(line)` in plain Python."""
    return SimpleNamespace(words=split_words, sentences=split_sentences)


@pytest.fixture
def judge() -> Judge:
    """What a step of these settings says of texts."""

    def apply(settings: Any, texts: Sequence[str], metadata: Sequence[dict[str, Any]] | None = None) -> Result:
        step = CorpusConfig(steps=[settings]).steps[0]
        return make_step(step).apply(Block(list(texts), list(metadata or [{}] * len(texts)), "web"))

    return apply
