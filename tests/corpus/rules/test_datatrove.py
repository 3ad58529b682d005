"""On the same words and sentences every rule decides as datatrove does, document by document, for the same reason."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from firstlight.config.rules import MANDARIN_STOP_WORDS

SPLITS = ("whitespace", "signs_apart", "jieba")
REASONS = {
    "gopher_repetition": {
        "empty": "empty",
        "dup_para_frac": "duplicate paragraphs",
        "dup_para_char_frac": "characters in duplicate paragraphs",
        "dup_line_frac": "duplicate lines",
        "dup_line_char_frac": "characters in duplicate lines",
        **{f"top_{n}_gram": f"commonest {n}-gram" for n in range(1, 5)},
        **{f"duplicated_{n}_n_grams": f"repeated {n}-grams" for n in range(1, 11)},
    },
    "gopher_quality": {
        "gopher_short_doc": "few words",
        "gopher_long_doc": "many words",
        "gopher_below_avg_threshold": "short words",
        "gopher_above_avg_threshold": "long words",
        "gopher_too_many_hashes": "many # signs",
        "gopher_too_many_ellipsis": "many ellipses",
        "gopher_too_many_bullets": "bullet lines",
        "gopher_too_many_end_ellipsis": "lines end in ellipses",
        "gopher_below_alpha_threshold": "few alphabetic words",
        "gopher_enough_stop_words": "few stop words",
    },
    "c4": {"lorem_ipsum": "lorem ipsum", "curly_bracket": "curly bracket", "too_few_sentences": "few sentences"},
    "fineweb": {
        "empty": "no lines",
        "line_punct_ratio": "few lines end sentences",
        "short_line_ratio": "short lines",
        "char_dup_ratio": "repeated lines",
        "list_ratio": "many line ends",
    },
}
REASONS["fineweb2_mandarin"] = {**REASONS["gopher_quality"], **REASONS["fineweb"], **REASONS["gopher_repetition"]}
RULES = [
    *((step, split) for step in ("gopher_repetition", "gopher_quality", "fineweb") for split in SPLITS),
    *(("fineweb2_mandarin", split) for split in ("signs_apart", "jieba")),
    ("c4", "whitespace"),
]
PIECES = ["a", "ab", "the", "of", "b", "ba", "#", "...", "…", "-", "•", "12", "be.", "to?", "[3]", "[edit]", "{", '."']
PIECES += [
    "一天。",
    *[" "] * 9,
    "\n",
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n",
    "\u2028",
    "\t",
    "\x1c",
    "\n be. \n",
    " a be to?\n",
]


def strange(seed: int) -> list[str]:
    """1,500 short texts of pieces that rules look for."""
    draw = random.Random(seed)
    return ["".join(draw.choices(PIECES, k=draw.randint(1, 50))) for _ in range(1500)]


def filters(step: str) -> list[Any]:
    """datatrove's filters of a step, with its own defaults."""
    from datatrove.pipeline import filters as of

    if step == "fineweb2_mandarin":
        repetition = {"dup_para_frac": 0, "dup_line_char_frac": 0, "dup_para_char_frac": 0, "dup_line_frac": 0.287}
        top = ((2, 0.256), (3, 0.201), (4, 0.171))
        repeated = ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127))
        words = {"min_avg_word_length": 1, "max_avg_word_length": 5, "max_non_alpha_words_ratio": 0.735}
        return [
            of.GopherRepetitionFilter(**repetition, top_n_grams=top, dup_n_grams=repeated),
            of.FineWebQualityFilter(
                short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=0.106, new_line_ratio=0.178
            ),
            of.GopherQualityFilter(**words, stop_words=list(MANDARIN_STOP_WORDS)),
        ]
    names = {
        "gopher_repetition": "GopherRepetitionFilter",
        "gopher_quality": "GopherQualityFilter",
        "c4": "C4QualityFilter",
        "fineweb": "FineWebQualityFilter",
    }
    return [getattr(of, names[step])()]


def decisions(judges: Sequence[Any], texts: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Of each text datatrove's reason, and the text as its filters leave it."""
    from datatrove.data import Document

    for number, text in enumerate(texts):
        document = Document(text=text, id=str(number))
        reason = None
        for judge in judges:
            answer = judge.filter(document)
            if answer is not True:
                reason = answer[1]
                break
        yield reason, document.text


USUAL = [("fineweb2_mandarin", "jieba"), ("c4", "whitespace"), *((rule[0], "signs_apart") for rule in RULES)]


@pytest.mark.parametrize(
    ("step", "split"), [rule if rule in USUAL else pytest.param(*rule, marks=pytest.mark.slow) for rule in RULES]
)
def test_every_rule_decides_as_datatrove_does(
    step: str, split: str, documents: list[str], judge: Any, datatrove_words: Callable[[str], None]
) -> None:
    datatrove_words(split)
    ours = judge(step if step == "c4" else {"step": step, "words": split}, documents)
    seen = set()
    for number, (reason, text) in enumerate(decisions(filters(step), documents)):
        expected = reason and REASONS[step][reason]
        assert ours.reasons[number] == expected, documents[number]
        if reason is None and step == "c4":
            assert ours.texts[number] == text
        seen.add(expected)
    assert None in seen and len(seen) > 3
    if split == "signs_apart" and step != "fineweb2_mandarin":
        assert len(seen) >= 0.7 * len(REASONS[step]), seen


@pytest.mark.parametrize("share", [0.03, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("step", ["gopher_repetition", "gopher_quality", "fineweb"])
def test_short_strange_texts_too(step: str, share: float, judge: Any, datatrove_words: Callable[[str], None]) -> None:
    datatrove_words("signs_apart")
    ours, peers = _same_settings(step, share)
    texts = [text for text in strange(1) if step == "gopher_repetition" or text.strip()]
    found = judge({"step": step, **ours}, texts).reasons
    for text, mine, (reason, _) in zip(texts, found, decisions(peers, texts), strict=True):
        assert mine == (reason and REASONS[step][reason]), text


def _same_settings(step: str, share: float) -> tuple[dict[str, Any], list[Any]]:
    """A step with all its limits at about `share`, for us and for datatrove."""
    from datatrove.pipeline import filters as of

    if step == "gopher_repetition":
        top, repeated = {1: share, 2: share, 3: share}, {1: share, 2: share, 3: share}
        peer = of.GopherRepetitionFilter(share, share, share, share, tuple(top.items()), tuple(repeated.items()))
        pieces = ("paragraphs", "paragraph_characters", "lines", "line_characters")
        limits = {f"max_duplicate_{piece}": share for piece in pieces}
        return {**limits, "max_top_ngram": top, "max_repeated_ngrams": repeated}, [peer]
    if step == "fineweb":
        ours = {
            "min_terminal_lines": share,
            "max_short_lines": 1 - share / 2,
            "short_line_characters": 4,
            "max_repeated_line_characters": share,
            "max_newlines_per_word": share,
        }
        return ours, [of.FineWebQualityFilter(None, share, False, None, 1 - share / 2, 4, share, share)]
    ours = {
        "min_words": 1,
        "max_words": 12,
        "min_mean_word_length": 1.2,
        "max_mean_word_length": 2.5,
        "max_hashes_per_word": share,
        "max_ellipses_per_word": share,
        "max_bullet_lines": share,
        "max_ellipsis_lines": share,
        "min_alphabetic_words": share,
        "min_stop_words": 1,
    }
    return ours, [of.GopherQualityFilter(1, 12, 1.2, 2.5, share, share, share, share, 1)]


def test_c4_cuts_lines_as_datatrove_does(judge: Any, datatrove_words: Callable[[str], None]) -> None:
    from datatrove.pipeline.filters import C4QualityFilter

    datatrove_words("whitespace")
    texts = strange(2)
    ours = judge({"step": "c4", "min_sentences": 1, "min_line_words": 2, "max_word_length": 7}, texts)
    peer = C4QualityFilter(min_num_sentences=1, min_words_per_line=2, max_word_length=7)
    for number, (reason, text) in enumerate(decisions([peer], texts)):
        assert ours.reasons[number] == (reason and REASONS["c4"][reason]), texts[number]
        assert reason or ours.texts[number] == text
