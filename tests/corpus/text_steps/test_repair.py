"""Repairing Unicode: exactly what ftfy does to every line, and no text that ftfy would change is passed by."""

from __future__ import annotations

import itertools
import random
import re
import unicodedata

import ftfy
import pytest
from ftfy.badness import BADNESS_RE
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firstlight.config.text_steps import RepairUnicode
from firstlight.corpus.step import Block
from firstlight.corpus.text_steps import STEPS, repair

NAMED = sorted(repair._members(BADNESS_RE.pattern + "\xa0\xad"))
"""Every character beyond ASCII of ftfy's pattern."""
AROUND = sorted({*NAMED, *"aA .,?!\n-z&;<\r\x85\u2028\u2029\x00\x1b[m\ufeff\ufffc\u0301ﬁＡ“—詩éΑВв", "&amp;", "&#233;"})
PROSE = [
    "Ça va? Là-bas, « déjà vu » – voilà l'œuvre d'Émile: 25 °C, 3 × 4 µm, £5 → 7 €.",
    "Das Öl der Straße kostet 5 €; § 12 gilt, ½ Stück.",
    "Съешь ещё этих мягких французских булок — да выпей чаю. «Война и мир» — роман.",
    "Ο Έλληνας είπε: «Καλημέρα» — τι κάνεις;",
    "山重水複疑無路，柳暗花明又一村。“引文”……——《陸游》",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň. Īsumā, ļoti žēl.",
    "│ table ─┼─ ║ box ▒▒",
]


def step(**options):
    return STEPS[RepairUnicode](RepairUnicode(**options))


def by_ftfy(text: str, **options) -> str:
    """ftfy over a whole text with unified line ends, no line passed by."""
    config = RepairUnicode(**options)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return ftfy.fix_text(
        text,
        unescape_html=config.html_entities and "<" not in text,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        remove_control_chars=config.remove_control,
        remove_terminal_escapes=config.remove_control,
        normalization=None if config.normalization == "none" else config.normalization,
    )


def mended(text: str, **options) -> str:
    (result,) = step(**options).apply(Block([text], [{}])).texts
    return result


choices = st.fixed_dictionaries(
    {
        "normalization": st.sampled_from(["none", "NFC", "NFKC"]),
        "remove_control": st.booleans(),
        "html_entities": st.booleans(),
    }
)
hostile = st.lists(st.sampled_from(AROUND), max_size=14).map("".join)


@settings(max_examples=400)
@given(hostile, choices)
@example("œ\nx", {})
@example("Ã \nÂ ", {})
@example("a\x85b", {})
@example("&eacute;\n<b>&eacute;", {})
@example("\x1b[1mbold\x1b[0m", {"remove_control": False})
def test_it_is_ftfy_line_by_line(text, options):
    assert mended(text, **options) == by_ftfy(text, **options)


@settings(max_examples=200)
@given(st.text(max_size=60), st.sampled_from(["latin-1", "windows-1252", "windows-1251", "macroman", "cp437"]))
def test_mojibake_of_any_text_becomes_what_ftfy_makes_of_it(text, codec):
    garbled = text.encode("utf-8", "replace").decode(codec, "replace")
    assert mended(garbled) == by_ftfy(garbled)


@pytest.mark.skipif(repair._CANDIDATE is None, reason="another pattern than that of ftfy 6.3 is searched whole")
def test_every_match_of_ftfys_pattern_is_found_by_the_fast_one():
    contexts = ["{}{}", "x{}{}x", " {}{} ", "{}{}»", "В{}{}"]
    for first, second in itertools.product([*NAMED, " ", "a", "‚"], [*NAMED, " ", "a"]):
        for context in contexts if first < "\u0250" else contexts[:2]:
            text = context.format(first, second)
            if BADNESS_RE.search(text):
                assert repair.has_mojibake(text), ascii(text)


@pytest.mark.skipif(repair._CANDIDATE is None, reason="another pattern than that of ftfy 6.3 is searched whole")
def test_the_fast_pattern_misses_no_longer_match():
    chance, matches = random.Random(3), 0
    letters = [*NAMED, *"ÂÃØÙÐÎŒœВГРСΒΓΞΟ×à√≈‚вЂβ€ā" * 12, *"az A. \n" * 20]
    for _ in range(60_000):
        text = "".join(chance.choices(letters, k=7))
        if any(BADNESS_RE.search(line) for line in text.splitlines(keepends=True)):
            matches += 1
            assert repair.has_mojibake(text), ascii(text)
    assert matches > 1000
    for text in ("ГўВЂВ™s ok", "ØµØ±", "вЂ™", "β€™", "С»Р", "Ο»Ξ", "a Ã ", "‚Äî", "√±", "à²ª"):
        assert not BADNESS_RE.search(text) or repair.has_mojibake(text)


@pytest.mark.parametrize("text", PROSE)
def test_good_prose_is_left_alone_and_not_sent_to_ftfy(text, monkeypatch):
    monkeypatch.setattr(repair, "fix_text", lambda *_: pytest.fail("sent to ftfy"))
    block = Block([text, "plain ASCII, R&D"], [{}, {}])
    result = step().apply(block)
    assert all(new is old for new, old in zip(result.texts, block.texts, strict=True))
    assert not result.counts


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("dÃ©jÃ vu", "déjà vu"),
        ("â€œquotedâ€\x9d textâ€¦", "“quoted” text…"),
        ("ä¸­æ–‡ç¼–ç \xa0", None),
        ("P&eacute;rez &amp; Co", "Pérez & Co"),
        ("<p>&eacute;</p>", "<p>&eacute;</p>"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("\ufeffbell\x07 nul\x00 \x1b[31mred\x1b[0m", "bell nul red"),
        ("e\u0301", "é"),
        ("ﬁne ＡＢＣ “curly”", "ﬁne ＡＢＣ “curly”"),
        ("tab\tform\ffeed", "tab\tform\ffeed"),
    ],
)
def test_what_is_mended(broken, whole):
    assert mended(broken) == (by_ftfy(broken) if whole is None else whole)


@given(hostile)
def test_normal_forms(text):
    assert unicodedata.is_normalized("NFC", mended(text))
    assert unicodedata.is_normalized("NFKC", mended(text, normalization="NFKC"))
    assert not re.search("[\r\u2028\u2029]", mended(text))


def test_documents_are_counted():
    block = Block(["dÃ©jÃ", "a\r\nb", "good", "x\x00"], [{}] * 4)
    result = step().apply(block)
    assert result.counts == {"mended": 2, "line ends": 1}
    assert set(result.reasons) == {None}


def test_a_line_that_ftfy_cuts_is_not_passed_by():
    text = "x" * 1_000_000 + "Ã la mode " + "y" * 1000
    assert mended(text) == by_ftfy(text)


def test_another_pattern_of_ftfy_is_searched_whole(monkeypatch):
    monkeypatch.setattr(repair, "_CANDIDATE", None)
    assert mended("dÃ©jÃ vu") == "déjà vu"
    assert not repair.has_mojibake("déjà vu")
