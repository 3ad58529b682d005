"""Han characters, and whether a text is written in simplified or traditional ones.

Characters of the character set GB 2312 (simplified) that Big5 (traditional) does not have speak for simplified script,
and the other way round; most characters are in both and say nothing. Python has both sets as codecs.
"""

from __future__ import annotations

import re
from functools import cache

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af〇"
"""Han characters, as the inside of a class in a regular expression."""
HAN_CHARACTER = re.compile(f"[{HAN}]")


def script_of(text: str) -> str | None:
    """ "Hans" or "Hant" (ISO 15924), whichever has more characters of its own; None where neither has more."""
    simplified, traditional = _script_patterns()
    if text.isascii():
        return None
    balance = len(simplified.findall(text)) - len(traditional.findall(text))
    return "Hans" if balance > 0 else "Hant" if balance < 0 else None


@cache
def _script_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of characters of simplified and of traditional script alone."""
    han = [chr(point) for point in range(0x4E00, 0xA000)]
    simplified = {character for character in han if _encodes(character, "gb2312")}
    traditional = {character for character in han if _encodes(character, "big5")}
    return (
        re.compile(f"[{''.join(sorted(simplified - traditional))}]"),
        re.compile(f"[{''.join(sorted(traditional - simplified))}]"),
    )


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
