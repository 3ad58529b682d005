"""Ids in flat arrays from `gigatoken`, tens of times as fast as `tokenizers`, wherever both give the same.

`gigatoken` (Rust) has splitting patterns compiled in and keeps the ids of pieces it has met. It is young, so nothing is
taken on trust: a tokenizer whose parts it might read otherwise is not given to it, what it gives is compared on a
sample of many scripts when it is loaded, and tokenization compares again on the documents themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from firstlight.tokens.splitting import DIGITS_OF_PATTERN, KNOWN_PATTERNS, pieces

Arrays = tuple[np.ndarray, np.ndarray]
"""Ids of many texts: ([tokens] one text after the other, [texts + 1] int64 where each begins and the last one ends)."""
Encode = Callable[[Sequence[str]], Arrays]


RELOAD_CHARACTERS = 250_000_000
"""Characters after which the engine is loaded anew: it remembers every piece that it has met, for ever."""


class NotExact(Exception):
    """Why `gigatoken` is not used for a tokenizer, in words that end a sentence."""


def flat(rows: Sequence[Sequence[int]]) -> Arrays:
    """Lists of ids as `Arrays`, uint32."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    ids = np.fromiter((index for row in rows for index in row), dtype=np.uint32, count=int(offsets[-1]))
    return ids, offsets


class FastEncoder:
    """`gigatoken` for one tokenizer; `exact` is the encoder it stands in for, and does what it cannot do.

    `content` is a parsed tokenizer.json. Raises NotExact when `gigatoken` is missing or cannot read the tokenizer, when
    a part of it is known to be read otherwise, and when the two encode `SAMPLE` differently.
    """

    def __init__(self, content: dict[str, Any], exact: Encode) -> None:
        try:
            import gigatoken
        except ImportError:
            raise NotExact("gigatoken is not installed (pip install 'firstlight[corpus]')") from None
        self._exact = exact
        plain, self._digits = _for_gigatoken(content)
        self._content = json.dumps(plain)
        self._load = gigatoken.Tokenizer.from_json
        self._characters = 0
        try:
            self._engine = self._load(self._content)
        except Exception as problem:
            raise NotExact(f"gigatoken cannot read this tokenizer ({_first_line(problem)})") from None
        sample = [*SAMPLE, *_spelled(content)]
        different = first_difference(self.encode, exact, sample)
        if different is not None:
            raise NotExact(f"gigatoken gives other ids for this tokenizer, for example for {sample[different][:40]!r}")

    def encode(self, texts: Sequence[str]) -> Arrays:
        """Ids of texts, uint32, in Rust threads (as many as RAYON_NUM_THREADS says, else one a core).

        UnicodeEncodeError for text with a lone surrogate.
        """
        if not self._digits:
            return self._fast(list(texts))
        fast: list[str] = []
        slow: list[str] = []
        places: list[int] = []
        ends = np.empty((2, len(texts)), dtype=np.int64)
        for number, text in enumerate(texts):
            cut = pieces(text, self._digits)
            if cut is None:
                fast.append(text)
            else:
                for is_fast, piece in cut:
                    if is_fast:
                        fast.append(piece)
                    else:
                        places.append(len(fast))
                        slow.append(piece)
            ends[:, number] = len(fast), len(slow)
        ids, offsets = self._fast(fast)
        if not slow:
            return ids, offsets
        other, starts = self._exact(slow)
        parts = []
        begin = 0
        for place, first, last in zip(offsets[places].tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            parts += [ids[begin:place], other[first:last]]
            begin = place
        joined = np.concatenate([*parts, ids[begin:]])
        return joined, np.concatenate([[0], offsets[ends[0]] + starts[ends[1]]])

    def _fast(self, texts: list[str]) -> Arrays:
        if not texts:
            return np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64)
        if self._characters > RELOAD_CHARACTERS:
            self._engine, self._characters = self._load(self._content), 0
        self._characters += sum(map(len, texts))
        rows = self._engine.encode_batch(texts, parallel=True).layout
        return np.asarray(rows.content.data), np.asarray(rows.offsets.data)


def first_difference(encode: Encode, exact: Encode, texts: Sequence[str]) -> int | None:
    """Number of the first text to which two encoders give different ids; None when there is none."""
    ids, offsets = encode(texts)
    expected, bounds = exact(texts)
    if np.array_equal(offsets, bounds) and np.array_equal(ids, expected):
        return None
    for number in range(len(texts)):
        mine, right = ids[offsets[number] : offsets[number + 1]], expected[bounds[number] : bounds[number + 1]]
        if not np.array_equal(mine, right):
            return number
    raise AssertionError("offsets that overlap")


def _for_gigatoken(content: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The tokenizer.json to give to `gigatoken`, and the digits of our own pattern when it has that, else "".

    Special tokens are left out: text that spells one is ordinary text, which `gigatoken` has no setting for.
    """
    model = content.get("model") or {}
    kind = model.get("type")
    if kind != "BPE":
        raise NotExact(f"gigatoken is used for BPE, and this is {kind or 'a model without a type'}")
    added = [token for token in content.get("added_tokens") or [] if not token.get("special")]
    plain = {**content, "added_tokens": added, "post_processor": None}
    digits = ""
    pre_tokenizer = content.get("pre_tokenizer") or {}
    splits = []
    for part in pre_tokenizer.get("pretokenizers") or []:
        pattern = (part.get("pattern") or {}).get("Regex")
        if part.get("type") == "Split" and part.get("behavior") == "Isolated" and pattern in KNOWN_PATTERNS:
            digits = DIGITS_OF_PATTERN[pattern]
            part = {**part, "pattern": {"Regex": KNOWN_PATTERNS[pattern]}}
        splits.append(part)
    if digits:
        if content.get("normalizer") or added or len(splits) != 2:
            raise NotExact("this splitting is followed only without a normalizer and added tokens")
        plain["pre_tokenizer"] = {**pre_tokenizer, "pretokenizers": splits}
    return plain, digits


def _spelled(content: dict[str, Any]) -> list[str]:
    """Texts that spell the added tokens, special or not."""
    names = [str(token["content"]) for token in content.get("added_tokens") or []]
    return [text for name in names[:100] for text in (name, f"a{name}b {name} {name}{name}\n{name}", f" {name[:-1]}")]


def _first_line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]


SAMPLE = (
    "",
    " ",
    "\n",
    "\0",
    "The quick brown fox jumps over the lazy dog. It's 3.14159, isn't it? We'll see; they've gone — I'd say ‘so’.",
    "'Twas 'the' best; 'data' and 'street' d'accord O'Reilly's rock'n'roll DON'T I'LL WE'VE 'S 'tis’s \"'re\" x'reyes",
    "'tis\n'tis\t'tis\t\t'dir  'sun\u00a0'ton\u3000'lls é'mé 世's世 .'sa ('ta) _'ma 1'da \r\n'veto \u0301'sé",
    "  two  three   four\ttab\t\ttabs \n newline\r\n\r\n CRLF \r lone\u000b\u000c\u0085\u2028\u2029\u00a0\u3000 end   ",
    "line\n\n\n    indented = {'key': \"value\", 'size': 0x1F}  # comment\n\tif (a != b && c >= d) { return -1; }\n",
    "def f(self, *args, **kwargs):\n    '''Docs.'''\n    return [x ** 2 for x in range(10_000) if x % 3 == 0]\n\n\n",
    "https://example.org/a/b?c=d&e=f#g user.name+tag@example.co.uk C:\\path\\file.txt <html><b class='x'>&amp;</b>",
    "1234567890 12 345 6,789.00 ½ ¾ Ⅷ ² ① ٣٤٥ १२३ 一二三 ３４５ 1e-9 2024-12-31T23:59:59Z +86 138 0000 0000",
    "你好，世界！今天是二〇二四年。“引号”、《书名》——省略……全角ＡＢＣ１２３　空格。臺灣繁體字與简体字。𠀀𪚥",
    "こんにちは世界。カタカナ、ひらがな、漢字。ﾊﾝｶｸ ー々〆 が か\u3099 안녕하세요 세계 한국어 \u1112\u1161\u11ab",
    "Привет, мир! Ещё раз: ёлка й и\u0306. Καλημέρα κόσμε, ά α\u0301 ϊ. Ünïcödé naïve façade Straße ẞ ĳ ŉ ǅ ﬁ ſt",
    "שָׁלוֹם עוֹלָם. مَرْحَبًا بِالْعَالَمِ ـــ. नमस्ते दुनिया क्षि। สวัสดีชาวโลก ก็นะ. ສະບາຍດີ မင်္ဂလာပါ ជំរាបសួរ",
    "বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ગુજરાતી ਪੰਜਾਬੀ ქართული Հայերեն አማርኛ ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ བོད་ཡིག 𐌰𐌱 𓀀",
    "😀 👩\u200d👩\u200d👧\u200d👦 👍🏽 🏳\ufe0f\u200d🌈 🇨🇳🇺🇸 ❤\ufe0f ☺\ufe0e 1\ufe0f⃣ ⌚\ufe0f 🧑🏿\u200d🚀",
    " \u200d \u200b\u200c \ufeff \u2060 \ufe0f\ufe0e \U000e0041\U000e007f",
    "e\u0301 a\u0308\u0323 \u0301 \u0301\u0302 x\u20dd \u1ab0 \t\u0301a \n\u0301b .\u0301c 1\u0301d",
    " '\u0301s 't\u0301 o\u0301'ta",
    "<|endoftext|> a<|endoftext|>b <|pad|><s></s> <unk> [CLS] [MASK] <|im_start|>user <|endoftext",
    " <|end|> <|begin_of_text|>",
    "∑∫√≤≥≠±×÷∞∂∇ ∀x∈ℝ: ‖x‖₂ ≥ 0 ⇒ α·β→γ, €100 £20 ¥3000 ₿1 №5 §7 ©®™ °C ½% ‰ † ‡ • ◦ ▪ █▓▒░ ─│┌┐",
    "\x01\x02\x1b[31m\x1c\x1d\x1e\x1f\x7f\x80\x9f\xad\ufffd\ufffe\uffff\ue000\U0010ffff",
    " \u202e\u2066\u061c \u0378 \U0001fabc",
    "a" * 700,
    " " * 700 + "x",
    "\n" * 300 + "=" * 300 + "ab" * 300 + "-" * 77 + "0" * 200 + "!?" * 50,
    "世" * 300 + "😀" * 60 + "\u0301" * 60 + "\t" * 99 + "\r\n" * 40 + "'s" * 40 + "'sa" * 40,
    "TheHTTPServerIsCamelCase snake_case_name SCREAMING_CASE kebab-case x1y2z3 3rd 2nd iPhone14Pro",
    " McDonald's eBay ab12CD",
    "supercalifragilisticexpialidocious Donaudampfschifffahrtsgesellschaft antidisestablishmentarianism ACGTACGTTAGC",
    "\\begin{equation} \\frac{\\partial u}{\\partial t} = \\alpha \\nabla^2 u \\end{equation} $x_{i}^{2}$ % note",
    '{"id": 1, "tags": ["a", "b\\n"], "ok": true, "n": null, "f": 1.5e+10}\n| a | b |\n|---|---|\n| 1 | 2 |\n* x\n- y',
)
"""Letters of many scripts, signs, digits, spaces, code, special tokens as text, long runs: what engines disagree on."""
