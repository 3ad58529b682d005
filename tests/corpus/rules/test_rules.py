"""What the steps are to their users: rules that can be left out, language scores, lines that go."""

from __future__ import annotations

from typing import Any

import pytest

from firstlight.config import CorpusConfig
from firstlight.config.rules import MANDARIN_STOP_WORDS, FineWeb, FineWeb2Mandarin, GopherQuality, GopherRepetition
from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError

PROSE = (
    "It was the best of times, it was the worst of times, and we have to be with that. "
    "The period was so far like the present period, that some of its noisiest authorities insisted on its being "
    "received, for good or for evil, in the superlative degree of comparison only. There were a king with a large jaw "
    "and a queen with a plain face, on the throne of England."
)
LIMITS = {
    "gopher_quality": [name for name in GopherQuality.model_fields if name.startswith(("min_", "max_"))],
    "fineweb": [name for name in FineWeb.model_fields if name.startswith(("min_", "max_"))],
}


def test_prose_passes_every_rule(judge: Any) -> None:
    for step in ("gopher_repetition", "gopher_quality", "fineweb"):
        assert judge(step, [PROSE]).reasons == [None]


@pytest.mark.parametrize("step", ["gopher_quality", "fineweb"])
def test_without_its_rules_a_step_drops_nothing_that_has_words(step: str, judge: Any) -> None:
    texts = ["a", "# # #", "- ...\n- …\n- ...", "12 34 56", "same line\nsame line\nsame line"]
    assert None not in judge(step, texts).reasons
    assert judge({"step": step, **dict.fromkeys(LIMITS[step])}, texts).reasons == [None] * len(texts)


def test_without_its_rules_repetition_drops_nothing(judge: Any) -> None:
    limits = dict.fromkeys(name for name in GopherRepetition.model_fields if name.startswith("max_duplicate"))
    text = "again and again\n" * 50
    assert judge("gopher_repetition", [text]).reasons == ["duplicate lines"]
    settings = {"step": "gopher_repetition", **limits, "max_top_ngram": {}, "max_repeated_ngrams": {}}
    assert judge(settings, [text]).reasons == [None]


@pytest.mark.parametrize("step", ["gopher_repetition", "gopher_quality", "fineweb", "c4", "code", "fineweb2_mandarin"])
@pytest.mark.parametrize("text", ["", " ", "\n\n", "\0", "\u3000\u2028", "\x1c", "。", "\U0001f600" * 3])
def test_texts_without_a_word_are_judged(step: str, text: str, judge: Any) -> None:
    before, reason, after = judge(step, [PROSE, text, PROSE]).reasons
    assert before == after == judge(step, [PROSE]).reasons[0]
    assert reason is not None or (step == "gopher_repetition" and text)


def test_rules_see_each_document_by_itself(judge: Any) -> None:
    texts = ["dots ..", ". more", PROSE, "", PROSE.upper(), "- a\n- b", "一" * 60, PROSE]
    for step in ("gopher_repetition", "gopher_quality", "fineweb", "c4", "code", "fineweb2_mandarin"):
        together = judge(step, texts)
        alone = [judge(step, [text]) for text in texts]
        assert together.reasons == [one.reasons[0] for one in alone], step
        if together.texts:
            assert together.texts == [one.texts[0] for one in alone]


def test_mandarin_has_the_thresholds_of_fineweb_2() -> None:
    step = CorpusConfig(steps=["fineweb2_mandarin"]).steps[0]
    assert isinstance(step, FineWeb2Mandarin)
    published = {
        "min_language_score": 0.692,
        "max_duplicate_lines": 0.287,
        "min_terminal_lines": 0.106,
        "max_newlines_per_word": 0.178,
        "max_mean_word_length": 5,
        "min_mean_word_length": 1,
        "min_alphabetic_words": 0.735,
        "max_repeated_line_characters": 0.1,
    }
    assert {name: getattr(step, name) for name in published} == published
    assert "".join(step.stop_words) == MANDARIN_STOP_WORDS
    assert step.max_duplicate_paragraphs is step.max_short_lines is step.max_duplicate_line_characters is None


def test_mandarin_looks_at_the_score_that_the_metadata_have(judge: Any) -> None:
    texts = ["这是一个关于中国的句子，我们在学习和工作中都会用到它，因为它是有用的。" * 1 + PROSE] * 4
    about = [{"language_score": 0.5}, {"language_score": 0.7}, {}, {"language_score": "high"}]
    reasons = judge("fineweb2_mandarin", texts, about).reasons
    assert reasons[0] == "uncertain language"
    assert "uncertain language" not in reasons[1:]
    settings = {"step": "fineweb2_mandarin", "min_language_score": None}
    assert "uncertain language" not in judge(settings, texts, about).reasons


def test_c4_removes_lines_and_says_why(judge: Any) -> None:
    sentences = [f"This is sentence number {word} of a page." for word in ("one", "two", "three", "four", "five")]
    lines = [
        "Home | About",
        sentences[0] + "[1][citation needed]",
        "Please enable JavaScript to see this page.",
        "Too few.",
        f"{'x' * 1001} is a long word in a line.",
        "This site uses cookies to be nice to you.",
        "It goes on and on...",
        *sentences[1:],
    ]
    result = judge("c4", ["\n".join(lines)])
    assert result.reasons == [None]
    assert result.texts == ["\n".join(sentences)]
    assert result.counts == {
        "lines with a long word": 1,
        "lines without a mark at the end": 2,
        "lines with few words": 1,
        "lines about javascript": 1,
        "lines about policies": 1,
    }


def test_c4_leaves_a_clean_text_as_it_is(judge: Any) -> None:
    text = "\n".join(f"This is sentence {number} of a page." for number in range(5))
    assert judge("c4", [text]).texts[0] is text


def test_c4_without_a_line_left(judge: Any) -> None:
    assert judge({"step": "c4", "min_sentences": None}, ["Home\nAbout"]).reasons == ["no line left"]


def test_ngram_limits_are_read_from_yaml_and_the_command_line() -> None:
    config = load_config(
        "quickstart", ["corpus.steps=[{step: gopher_repetition, max_top_ngram: {2: 0.5}, max_repeated_ngrams: {}}]"]
    )
    step = config.corpus.steps[0]
    assert isinstance(step, GopherRepetition)
    assert step.max_top_ngram == {2: 0.5} and step.max_repeated_ngrams == {}
    again = CorpusConfig.model_validate(config.corpus.model_dump(mode="json"))
    assert again == config.corpus


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        ("{step: gopher_quality, min_word: 5}", "min_words"),
        ("{step: gopher_quality, words: spacy}", "signs_apart"),
        ("{step: gopher_repetition, max_top_ngram: {0: 0.1}}", "max_top_ngram"),
        ("{step: gopher_repetition, max_duplicate_lines: 30}", "max_duplicate_lines"),
        ("{step: code, licence_header: strip}", "licence_header"),
    ],
)
def test_a_wrong_setting_names_the_right_one(step: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        load_config("quickstart", [f"corpus.steps=[{step}]"])
