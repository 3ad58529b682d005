r"""How a trained tokenizer splits text before merging, and how a fast engine that knows other patterns can follow it.

A fast engine has its patterns compiled in; ours is not among them. Two that are differ from it where it can be
seen: there a contraction's tail cuts a word that only begins like one ('data → 'd|ata), and with digits in groups
combining marks are no part of words. Text is cut around the first and set aside for the second, so that what the
engine gets is split alike by both patterns. Why that holds is said at each rule; tests and every tokenization check it.
"""

from __future__ import annotations

import re

from firstlight.support.errors import ConfigError

_DIGITS = {"single": r"\p{N}", "groups_of_three": r"\p{N}{1,3}"}


def split_pattern(digits: str = "single") -> str:
    """The regular expression (Oniguruma) whose matches are the pieces that BPE merges within, in order of preference:

    an English contraction's tail; letters and their combining marks with one leading space or sign; digits (`digits`:
    "single" or "groups_of_three", from the left); other signs with one leading space and the line ends after them; line
    ends with the white space before them; white space, of which the last character stays with the word that follows.
    """
    if digits not in _DIGITS:
        raise ConfigError(f"tokenizer.digits is '{digits}'; single or groups_of_three is due.")
    return "|".join(
        (
            r"['’](?i:s|t|re|ve|m|ll|d)(?![\p{L}\p{M}])",
            r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",
            _DIGITS[digits],
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    )


_TAILS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN_PATTERNS = {
    split_pattern("single"): (
        rf"{_TAILS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_ENDS}"
    ),
    split_pattern("groups_of_three"): (
        rf"{_TAILS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_ENDS}"
    ),
}
"""The nearest known pattern of each of ours: the one of Qwen 3.5 for single digits, of OLMo 3 for groups."""

DIGITS_OF_PATTERN = {split_pattern(digits): digits for digits in _DIGITS}
"""Which digits a pattern of ours is for."""

Pieces = list[tuple[bool, str]]
"""A text in pieces: (whether the fast engine may encode it, text)."""

_TAIL = re.compile(r"'(?:[sStTmMdDſ]|[rR][eE]|[vV][eE]|[lL][lL])(?=[^\x00-@\[-`{-\x7f])")
"""A contraction's tail that a letter or something beyond ASCII follows."""
_LATIN = r"A-Za-zÀ-ÖØ-öø-ɏ"
_WORD = re.compile(rf"'[{_LATIN}]+")
_SIGNS = r"\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011\uff01-\uff0f"
"""Some signs beyond ASCII that are neither white space nor letters, marks or digits."""
_BEFORE = re.compile(rf"[0-9{_LATIN}\r\n\u0391-\u03a1\u03a3-\u03c9\u0400-\u0481\u3041-\u3096\u30a1-\u30fa一-龥]")
"""Some letters, digits and line ends: a match ends with them when an apostrophe follows."""
_INSIDE = re.compile(rf"[ !-/:-@\[-`{{-~{_SIGNS}]")
"""Space and some signs: an apostrophe after them is in one match with them."""
_AFTER = re.compile(rf"[\x00-@\[-`{{-\x7f{_SIGNS}]")
"""Some of what ends a word: all but letters and marks."""
_MAYBE_MARK = re.compile(
    "[^\x00-\u02ff\u0370-\u0482\u048a-\u0590\u2000-\u20cf\u2100-\u2cee\u3000-\u3029\u3030-\u3098\u309b-\ua66e"
    "\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U0001f000-\U0001faff\U00020000-\U0003ffff]"
)
"""Whatever lies outside blocks that hold no combining mark."""


def pieces(text: str, digits: str) -> Pieces | None:
    """A text cut so that the known pattern splits the fast pieces as ours does; None when the text needs no cut.

    Cuts lie where both patterns end a match and the next begins, so that the ids of the pieces, one after the other,
    are the ids of the text. A text in which that cannot be told is one piece that is not fast.
    """
    if digits == "groups_of_three" and not text.isascii() and _MAYBE_MARK.search(text):
        return [(False, text)]
    cut: Pieces = []
    done = 0
    for tail in _TAIL.finditer(text):
        start = tail.start()
        before = text[start - 1 : start]
        if _INSIDE.match(before):
            continue  # the apostrophe belongs to a run of signs, or to the space before it, in both patterns
        word = _WORD.match(text, start)
        assert word
        after = text[word.end() : word.end() + 1]
        if before == "\t":
            start -= 1  # of white space before a sign, the last character is a match of its own
        elif before and not _BEFORE.match(before):
            return [(False, text)]
        if after and not _AFTER.match(after):
            return [(False, text)]
        cut += [(True, text[done:start]), (False, text[start : word.end()])]
        done = word.end()
    return [*cut, (True, text[done:])] if cut else None
