"""E-mail addresses, IP addresses, telephone, identity and card numbers and keys, found by patterns and replaced.

Whatever can be checked is: octets, dates of birth, check digits (ISO 7064 MOD 11-2, Luhn), reserved addresses. Where a
number may as well be something else (a version, a section, a large integer) it stays: patterns cannot find every name
and number of a person, and a text full of holes is worth little. FineWeb (Penedo et al. 2024, section 3.7) replaces
e-mail and public IP addresses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from firstlight.config.text_steps import ScrubPII
from firstlight.corpus.step import Block, Result
from firstlight.corpus.text_steps import pii_checks as checks
from firstlight.corpus.text_steps.scripts import HAN_CHARACTER

PLACEHOLDERS = {
    "email": "[EMAIL]",
    "ip": "[IP]",
    "phone": "[PHONE]",
    "chinese_id": "[ID]",
    "bank_card": "[CARD]",
    "key": "[KEY]",
}
EXAMPLES = {"email": "email@example.com", "ip": "192.0.2.1"}
EXAMPLE_IPV6 = "2001:db8::1"
ORDER = ("ip", "chinese_id", "bank_card", "phone")
"""Kinds of numbers, in the order in which they are tried at each place."""

_NUMBERS = re.compile(r"[+(\d][\d.() +-]{6,}[Xx]?", re.ASCII)
"""Around every IPv4 address and telephone, identity or card number."""
_NUMBER_START = re.compile(r"[+(]|(?<![0-9])[0-9]")
_BEFORE, _AFTER = r"(?<![0-9A-Za-z_.+-])", r"(?![0-9A-Za-z_]|[.,-][0-9])"
"""No number goes on at either side."""

_DOMAIN = re.compile(
    r"@((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z]{2,24})(?![\w@-])", re.IGNORECASE | re.ASCII
)
_LOCAL = re.compile(r"[A-Za-z0-9_%+](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?\Z")
_IPV4 = re.compile(rf"{_BEFORE}\d{{1,3}}(?:\.\d{{1,3}}){{3}}{_AFTER}", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:]|\.\d)", re.IGNORECASE | re.ASCII)
_IPV6_HINT = re.compile(":[0-9A-Fa-f]{0,4}:")
_IPV6_HEAD = re.compile(r"[0-9A-Fa-f:]{0,40}\Z")
_CHINESE_ID = re.compile(rf"{_BEFORE}[1-8]\d{{5}}(?:18|19|20)\d{{9}}[\dXx]{_AFTER}", re.ASCII)
_BANK_CARD = re.compile(rf"{_BEFORE}[3-6]\d{{3}}(?:[ -]?\d{{4}}){{3}}(?:[ -]?\d{{1,3}})?{_AFTER}", re.ASCII)
_PHONE = re.compile(
    rf"(?<![\w.+)\]-])\+[1-9]\d{{0,2}}(?:[ .-]?\(\d{{1,4}}\))?(?:[ .-]?\d{{2,4}}){{2,5}}{_AFTER}"
    rf"|{_BEFORE}(?:1[ .-])?\([2-9]\d{{2}}\) ?[2-9]\d{{2}}[ .-]\d{{4}}{_AFTER}"
    rf"|{_BEFORE}(?:1[ .-])?[2-9]\d{{2}}([.-])[2-9]\d{{2}}\1\d{{4}}{_AFTER}",
    re.ASCII,
)
"""With a country code; as in North America, (202) 555-0143 or 202-555-0143."""
_CHINESE_PHONE = re.compile(
    rf"{_BEFORE}(?:86[ -]?)?1[3-9]\d(?:\d{{8}}|([ -])\d{{4}}\1\d{{4}}){_AFTER}"
    rf"|{_BEFORE}(?:0(?:10|2\d|[3-9]\d{{2}})-|\(0(?:10|2\d|[3-9]\d{{2}})\) ?)[2-8]\d{{6,7}}{_AFTER}",
    re.ASCII,
)
_KEYS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (literals, re.compile(pattern))
    for literals, pattern in (
        (("AKIA", "ASIA"), r"A[KS]IA(?<!\w.{4})(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}(?!\w)"),
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_(?<!\w.{4})[0-9A-Za-z]{36,251}(?!\w)"),
        (("github_pat_",), r"github_pat_(?<!\w.{11})[0-9A-Za-z_]{50,250}(?!\w)"),
        (("glpat-",), r"glpat-(?<!\w.{6})[0-9A-Za-z_-]{20,64}(?![\w-])"),
        (("xox",), r"xox[abprs]-(?<!\w.{5})\d[0-9A-Za-z-]{20,200}(?![\w-])"),
        (("AIza",), r"AIza(?<!\w.{4})[0-9A-Za-z_-]{35}(?![\w-])"),
        (("k_live_",), r"[sr]k_live_(?<!\w.{8})[0-9A-Za-z]{20,247}(?!\w)"),
        (("sk-",), r"sk-(?<![\w-].{3})(?=[\w-]{0,200}\d)(?=[\w-]{0,200}[A-Z])[0-9A-Za-z_-]{40,200}(?![\w-])"),
        (("hf_",), r"hf_(?<!\w.{3})[A-Za-z]{34}(?!\w)"),
        (("eyJ",), r"eyJ(?<![\w-].{3})[\w-]{8,2000}\.eyJ[\w-]{8,8000}\.[\w-]{16,2000}(?![\w-])"),
        (
            ("PRIVATE KEY",),
            r"-----BEGIN (?:[A-Z0-9]{2,12} )?PRIVATE KEY(?: BLOCK)?-----(?=[^-]{0,400}[0-9A-Za-z+/=]{40})"
            r"[^-]{64,20000}-----END (?:[A-Z0-9]{2,12} )?PRIVATE KEY(?: BLOCK)?-----",
        ),
    )
)
"""Signs of each kind of key, without which its pattern is not tried, and the pattern, which begins with one: so `re` is
fast."""


class ScrubPIIStep:
    """Replaces what it finds; each kind has a cheap sign without which its pattern is not tried."""

    def __init__(self, config: ScrubPII) -> None:
        self.config = config
        self._marks = PLACEHOLDERS | (EXAMPLES if config.replacement == "example" else {})
        self._mark_ipv6 = EXAMPLE_IPV6 if config.replacement == "example" else self._marks["ip"]
        self._checks: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]] = {
            "ip": (_IPV4, lambda match: checks.is_ipv4(match, private=config.private_ip)),
            "chinese_id": (_CHINESE_ID, checks.is_chinese_id),
            "bank_card": (_BANK_CARD, checks.is_card_number),
            "phone": (_PHONE, checks.is_phone_number),
            "chinese phone": (_CHINESE_PHONE, lambda match: True),
        }
        self._number_kinds = [kind for kind in ORDER if kind in config.kinds and kind in self._checks]

    def apply(self, block: Block) -> Result:
        """Drops nothing; counts what was replaced by kind."""
        counts = Counter[str]()
        return Result([None] * len(block), texts=[self._scrub(text, counts) for text in block.texts], counts=counts)

    def _scrub(self, text: str, counts: Counter[str]) -> str:
        kinds = self.config.kinds
        if "key" in kinds:
            for literals, pattern in _KEYS:
                if any(literal in text for literal in literals):
                    text, found = pattern.subn(self._marks["key"], text)
                    counts.update({"key": found} if found else {})
        if "email" in kinds and "@" in text:
            text = _replaced(text, [(*span, self._marks["email"]) for span in _emails(text)], "email", counts)
        if "ip" in kinds and ("::" in text or (":" in text and _IPV6_HINT.search(text))):
            spans = _ipv6_addresses(text, self.config.private_ip)
            text = _replaced(text, [(*span, self._mark_ipv6) for span in spans], "ip", counts)
        if self._number_kinds and _NUMBERS.search(text):
            text = self._scrub_numbers(text, counts)
        return text

    def _scrub_numbers(self, text: str, counts: Counter[str]) -> str:
        kinds: list[str] = list(self._number_kinds)
        if "phone" in kinds and not text.isascii() and HAN_CHARACTER.search(text):
            kinds.append("chinese phone")
        tried = [(kind.split()[-1], *self._checks[kind]) for kind in kinds]
        pieces, done = [], 0
        for span in _NUMBERS.finditer(text):
            for start in _NUMBER_START.finditer(text, max(done, span.start()), span.end()):
                if start.start() < done:
                    continue
                for kind, pattern, check in tried:
                    match = pattern.match(text, start.start())
                    if match and check(match):
                        pieces += [text[done : match.start()], self._marks[kind]]
                        done = match.end()
                        counts[kind] += 1
                        break
        return "".join([*pieces, text[done:]]) if pieces else text


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every address that may be a person's."""
    done = 0
    for place in _DOMAIN.finditer(text):
        local = _LOCAL.search(text, max(done, place.start() - 64), place.start())
        if local and checks.is_personal_address(text, local.start(), local[0], place[1]):
            done = place.end()
            yield local.start(), done


def _ipv6_addresses(text: str, private: bool) -> Iterator[tuple[int, int]]:
    """Start and end of every IPv6 address that is to be replaced."""
    done = 0
    for hint in _IPV6_HINT.finditer(text):
        head = _IPV6_HEAD.search(text, max(done, hint.start() - 40), hint.start())
        match = _IPV6.match(text, head.start()) if head and hint.start() >= done else None
        if match and checks.is_ipv6(match[0], private):
            done = match.end()
            yield match.span()


def _replaced(text: str, spans: Iterable[tuple[int, int, str]], kind: str, counts: Counter[str]) -> str:
    """The text with other words at some places (rising), each counted as `kind`."""
    pieces, done = [], 0
    for start, end, mark in spans:
        pieces += [text[done:start], mark]
        done = end
        counts[kind] += 1
    return "".join([*pieces, text[done:]]) if pieces else text
