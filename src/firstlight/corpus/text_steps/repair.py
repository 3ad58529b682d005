"""Mojibake, stray control characters, odd line ends and HTML entities, mended with ftfy (Speer 2019).

What a line becomes is what `ftfy.fix_text` makes of it, with ligatures, character widths and curly quotes left alone.
ftfy is slow (some MB/s) and nearly all lines need nothing, so each text is first searched for what any of its fixes
begins with. For mojibake that is ftfy's own pattern, looked for only where two characters meet that it could match;
a version of ftfy with another pattern is searched with that pattern, whole.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Any

from ftfy import TextFixerConfig, fix_text
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES
from ftfy.chardata import HTML_ENTITY_RE

from firstlight.config.text_steps import RepairUnicode
from firstlight.corpus.step import Block, Result

_KNOWN_PATTERN = 1455352246
"""CRC-32 of the pattern of ftfy 6.3, of which `candidate_pattern` is derived."""
_REACH = 6
"""Characters of the longest match of ftfy's pattern."""
_LINE_CHARACTERS = 1_000_000
"""ftfy cuts longer lines."""
_ASCII_CONTROL = bytes({*range(32), 127} - set(b"\t\n\f\r"))
_CONTROL = re.compile("[\u206a-\u206f\ufeff\ufff9-\ufffc]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class RepairUnicodeStep:
    """Mends texts line by line; lines that no fix could change never reach ftfy."""

    def __init__(self, config: RepairUnicode) -> None:
        self.config = config
        self._form: Any = None if config.normalization == "none" else config.normalization

    def apply(self, block: Block) -> Result:
        """Drops nothing; counts "mended" documents, but for line ends alone "line ends"."""
        texts, counts = [], {"mended": 0, "line ends": 0}
        for text in block.texts:
            unified = unify_line_ends(text)
            mended = self.mend(unified)
            if mended != unified:
                counts["mended"] += 1
            elif unified != text:
                counts["line ends"] += 1
            texts.append(mended if mended != text else text)
        return Result([None] * len(block), texts=texts, counts={name: n for name, n in counts.items() if n})

    def mend(self, text: str) -> str:
        """What ftfy makes of a text with unified line ends."""
        entities = self.config.html_entities and "&" in text and "<" not in text
        if not self.may_change(text, entities):
            return text
        settings = TextFixerConfig(
            unescape_html=entities,
            remove_terminal_escapes=self.config.remove_control,
            fix_latin_ligatures=False,
            fix_character_width=False,
            uncurl_quotes=False,
            remove_control_chars=self.config.remove_control,
            normalization=self._form,
            explain=False,
        )
        return "".join(fix_text(line, settings) if self.may_change(line, entities) else line for line in _lines(text))

    def may_change(self, text: str, entities: bool) -> bool:
        """False only for texts that ftfy leaves as they are; entities: whether HTML entities are to be decoded."""
        if entities and HTML_ENTITY_RE.search(text):
            return True
        if self.config.remove_control and _has_control(text):
            return True
        if text.isascii():
            return False
        if has_mojibake(text) or _SURROGATE.search(text):
            return True
        return self._form is not None and not unicodedata.is_normalized(self._form, text)


def _has_control(text: str) -> bool:
    """Whether ftfy would remove a character of `text`."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data.translate(None, _ASCII_CONTROL)) < len(data) or bool(not text.isascii() and _CONTROL.search(text))


def unify_line_ends(text: str) -> str:
    """CR LF, CR and the line and paragraph separators of Unicode as LF."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\u2028", "\n").replace("\u2029", "\n")


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, each with its line end."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def has_mojibake(text: str) -> bool:
    """False only where ftfy's pattern matches no line of `text`."""
    if _CANDIDATE is None:
        return bool(_BADNESS.search(text))
    for place in _CANDIDATE.finditer(text):
        start = max(0, place.start() - _REACH)
        if len(text) > _LINE_CHARACTERS or _BADNESS.search(text, start, place.end() + _REACH):
            return True
    return False


def candidate_pattern() -> re.Pattern[str]:
    """A fast pattern that matches in, or right beside, every match of ftfy's.

    Every match of ftfy's pattern is a C1 control character, or has two neighbours that the pattern names of which one
    is no common letter, quotation mark or dash; or else is one of four shapes with a letter that begins UTF-8 read as
    something else: Ã or Â before a space, œ before no letter, and quotation marks between В, Г, Р, С or Β, Γ, Ξ, Ο.
    """
    category = MOJIBAKE_CATEGORIES
    marks = category["start_punctuation"] + category["end_punctuation"]
    quiet = _members(category["common"] + marks + category["upper_common"] + category["lower_common"])
    named = _members(BADNESS_RE.pattern + "\xa0\xad") - _members("\x80-\x9f")
    loud = (named - quiet) | {"Ђ"}
    named_class, loud_class, marks_class = _class(named), _class(loud), _class(_members(marks))
    first = _class(loud | _members("\x80-\x9fВГРСΒΓΞΟ"))
    return re.compile(
        f"{first}(?:"  # one class in front: `re` looks for it fast
        f"(?<=[\x80-\x9f])|(?<={loud_class})(?={named_class})|(?<={named_class}{loud_class})"
        "|(?<=[ÃÂ])(?= )|(?<=[Œœ])(?=[^A-Za-z])"
        f"|(?<=[ВГРС])(?={marks_class}[ВГРС])|(?<=[ΒΓΞΟ])(?={marks_class}[ΒΓΞΟ]))"
    )


def _members(pattern: str) -> set[str]:
    """The characters beyond ASCII that a pattern names, ranges spelt out."""
    found = set()
    for part in re.findall("[^\0-\x7f]-[^\0-\x7f]|[^\0-\x7f]", pattern):
        found |= set(map(chr, range(ord(part[0]), ord(part[-1]) + 1)))
    return found


def _class(characters: set[str]) -> str:
    return "[" + "".join(sorted(characters)) + "]"


_BADNESS = re.compile(BADNESS_RE.pattern, re.VERBOSE | re.MULTILINE)
_CANDIDATE = candidate_pattern() if zlib.crc32(BADNESS_RE.pattern.encode()) == _KNOWN_PATTERN else None
