"""The bytes that each token of a vocabulary stands for, read from its tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

Kind = Literal["byte-level", "sentencepiece", "wordpiece"]

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF_LETTER = {byte: byte for byte in _PRINTABLE} | {256 + i: byte for i, byte in enumerate(_OTHERS)}
"""Code point → byte in the names of byte-level tokens: printable bytes are themselves, the others follow from U+0100 on
(Radford et al. 2019)."""


def kind_of(content: dict[str, Any]) -> Kind | None:
    """How a parsed tokenizer.json writes the bytes of its tokens; None where it is none of the three known ways."""
    decoders = set(types_of(content.get("decoder")))
    if "ByteLevel" in decoders:
        return "byte-level"
    if decoders & {"ByteFallback", "Metaspace"}:
        return "sentencepiece"
    return "wordpiece" if content["model"].get("type") == "WordPiece" else None


def speller(content: dict[str, Any]) -> Callable[[str], bytes] | None:
    """A function from a token's name to the bytes that it stands for; None where that is not known.

    Exact for byte-level tokenizers. For SentencePiece-like ones ▁ is a space and <0xAB> one byte. WordPiece, which does
    not keep white space, has one space before every word.
    """
    kind = kind_of(content)
    if kind == "wordpiece":
        prefix = content["model"].get("continuing_subword_prefix", "##")
        return lambda token: (token.removeprefix(prefix) if token.startswith(prefix) else f" {token}").encode()
    return {"byte-level": _byte_level, "sentencepiece": _sentencepiece}[kind] if kind else None


def types_of(part: Any) -> Iterable[str]:
    """All `type` names in a component of tokenizer.json."""
    if isinstance(part, dict):
        yield str(part.get("type"))
        for value in part.values():
            yield from types_of(value)
    elif isinstance(part, list):
        for value in part:
            yield from types_of(value)


def _byte_level(token: str) -> bytes:
    try:
        return token.translate(BYTE_OF_LETTER).encode("latin-1")
    except UnicodeEncodeError:  # a name that is no sequence of bytes, as added tokens have
        return token.encode()


def _sentencepiece(token: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()
