"""Text to token ids and back, around the Rust `tokenizers` library, with `gigatoken` for many texts at once.

A tokenizer is its `tokenizer.json`, read as data (never pickled) and made safe for documents: nothing truncates,
nothing is added at either end, and text that spells a special token is encoded as ordinary text, so that a web page
which contains `<|endoftext|>` cannot forge the end of a document. `save` writes the files that `AutoTokenizer` loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.support.console import note, warn
from firstlight.support.errors import DataError, FirstlightError, os_error_sentence
from firstlight.support.files import atomic_file, fingerprint, read_json, write_json
from firstlight.support.hub import place_or_hub
from firstlight.tokens.fast import Arrays, FastEncoder, NotExact, flat
from firstlight.tokens.spelling import kind_of, speller
from firstlight.tokens.words import word_edges

EOD_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"
MASK_TOKEN = "<|mask|>"

KNOWN_EOD = (EOD_TOKEN, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>", "[EOS]", "[SEP]")
"""Names tried, in this order, when no file beside `tokenizer.json` names the end-of-document token."""
KNOWN_PAD = (PAD_TOKEN, "<pad>", "[PAD]")
KNOWN_MASK = (MASK_TOKEN, "[MASK]", "<mask>")

MOST_TOKENS = 100_000_000
"""A tokenizer with higher ids is damaged, or was made to fill memory: the largest in use have a million."""

FAST_FROM_CHARACTERS = 1_000_000
"""Characters in one call from which on loading `gigatoken` pays."""

NULL_FILE = "null.json"
"""In place of a `tokenizer.json` where a model was trained on ids without one: how many there are."""

HUB_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
)


class Tokenizer:
    """A tokenizer with its end-of-document (EOD) token and, where it has them, its padding and its mask token.

    `content` is the parsed `tokenizer.json`; `eod`, `pad` and `mask` are token texts or ids. `origin` names it in
    errors. Raises DataError when the content is not a tokenizer, or has no such token.
    """

    has_text = True
    """Whether ids can be written as text."""

    def __init__(
        self,
        content: dict[str, Any],
        eod: str | int | None = None,
        pad: str | int | None = None,
        mask: str | int | None = None,
        *,
        origin: str = "tokenizer",
    ) -> None:
        from tokenizers import Tokenizer as RustTokenizer

        self.name = origin
        safe = {**content, "truncation": None, "padding": None, "post_processor": None}
        if isinstance(safe.get("model"), dict) and safe["model"].get("dropout"):
            safe["model"] = {**safe["model"], "dropout": None}
        try:
            self._rust = RustTokenizer.from_str(json.dumps(safe))
        except Exception as problem:
            raise DataError(f"{origin}: not a readable tokenizer.json ({problem}).") from None
        self._rust.encode_special_tokens = True
        self._fast: FastEncoder | None = None
        self.slow_because: str | None = None
        """Why `tokenizers` encodes large batches here and not `gigatoken`; None when it does, or was not yet asked."""
        self.vocab_size: int = 1 + max(self._rust.get_vocab(with_added_tokens=True).values(), default=-1)
        """Rows that an embedding needs: highest id + 1, added tokens included."""
        if self.vocab_size == 0:
            raise DataError(f"{origin}: a tokenizer without a single token.")
        if self.vocab_size > MOST_TOKENS:
            raise DataError(f"{origin}: its ids go up to {self.vocab_size - 1}; at most {MOST_TOKENS} tokens are read.")
        eod_id = self._find(eod, KNOWN_EOD, "eos_token")
        if eod_id is None:
            raise DataError(
                f'{origin}: no end-of-document token found; name one as "eos_token" in a tokenizer_config.json beside '
                f"tokenizer.json, or use a tokenizer that has one of {', '.join(KNOWN_EOD)}."
            )
        self.eod_id: int = eod_id
        self.pad_id: int | None = self._find(pad, KNOWN_PAD, "pad_token")
        self.mask_id: int | None = self._find(mask, KNOWN_MASK, "mask_token")
        if eod_id in self.encode(self.eod_token):
            warn(f"{origin}: text that contains {self.eod_token!r} will be read as the end of a document.")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Load a `tokenizer.json`, a folder that holds one, or a Hugging Face hub name.

        The EOD token is the first of: `eos_token` in `tokenizer_config.json`, then in `special_tokens_map.json`;
        `eos_token_id` in `generation_config.json`, then in `config.json`; a name of `KNOWN_EOD` in the vocabulary.
        Raises DataError when there is no such tokenizer, or it is damaged, or has no EOD token.
        """
        place = place_or_hub(path, HUB_FILES)
        file = place / "tokenizer.json" if place.is_dir() else place
        if not file.exists() and (place / NULL_FILE).is_file():
            from firstlight.tokens.null import NullTokenizer

            return NullTokenizer(read_json(place / NULL_FILE, "number of ids")["vocab_size"])
        if not file.exists():
            what = "folder without a tokenizer.json" if place.is_dir() else "no such tokenizer file or folder"
            raise DataError(f"{path}: {what}; a trained tokenizer's folder or a tokenizer.json is due.")
        try:
            content = read_json(file, "tokenizer")
        except OSError as problem:
            raise DataError(os_error_sentence(problem)) from None
        except FirstlightError as problem:
            raise DataError(str(problem)) from None
        if not isinstance(content, dict):
            raise DataError(f"{file}: not a tokenizer.json (no JSON object).")
        return cls(content, *_special_tokens(file.parent), origin=str(path))

    def _find(self, token: str | int | None, known: Sequence[str], field: str) -> int | None:
        """The id of a token given by text or id, else of the first known name in the vocabulary."""
        if token is None:
            return next((i for name in known if (i := self._rust.token_to_id(name)) is not None), None)
        index = self._rust.token_to_id(token) if isinstance(token, str) else token
        if index is None or not 0 <= index < self.vocab_size:
            raise DataError(f"{self.name}: {field} {token!r} is not in the vocabulary of {self.vocab_size} tokens.")
        return index

    @property
    def eod_token(self) -> str:
        """Text of the end-of-document token."""
        return str(self._rust.id_to_token(self.eod_id))

    @property
    def pad_token(self) -> str | None:
        """Text of the padding token."""
        return None if self.pad_id is None else self._rust.id_to_token(self.pad_id)

    @property
    def mask_token(self) -> str | None:
        """Text of the mask token, which stands for a hidden one in masked language modelling."""
        return None if self.mask_id is None else self._rust.id_to_token(self.mask_id)

    @cached_property
    def special_ids(self) -> np.ndarray:
        """[n] int64, rising: ids of the tokens that stand for no text: EOD, padding, mask, unknown and all others that
        are marked special."""
        named = (self.eod_id, self.pad_id, self.mask_id, self.unknown_id)
        marked = [index for index, token in self._rust.get_added_tokens_decoder().items() if token.special]
        return np.unique(np.array([*marked, *(index for index in named if index is not None)], dtype=np.int64))

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """[n] int64, rising: ids of all tokens but the special ones."""
        every = np.fromiter(self._rust.get_vocab(with_added_tokens=True).values(), dtype=np.int64)
        return np.setdiff1d(every, self.special_ids)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of all that decides the ids: the canonical content without empty fields, and the EOD id.

        The padding and the mask token are left out: they never enter a token dataset.
        """
        return fingerprint({"content": _without_empty(json.loads(self._rust.to_str())), "eod_id": self.eod_id})

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added. DataError for text with a lone surrogate, which UTF-8 cannot hold."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, in Rust threads (as many as RAYON_NUM_THREADS says, else one a core)."""
        texts = list(texts)
        asked_before = self._fast is not None or self.slow_because is not None
        if self._use_fast(texts):
            ids, offsets = self.encode_arrays(texts)
            return [ids[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]
        if self.slow_because and not asked_before:
            note(f"{self.name}: encoding with `tokenizers`: {self.slow_because}.")
        return self._encode_exactly(texts)

    def encode_arrays(self, texts: Sequence[str], *, exactly: bool = False) -> Arrays:
        """`encode_batch` without Python lists: (ids [tokens] uint32, offsets [texts + 1] int64).

        Text number i is ids[offsets[i]:offsets[i + 1]]. With `exactly`, `tokenizers` itself encodes whatever the size.
        """
        texts = list(texts)
        if exactly or not self._use_fast(texts):
            return flat(self._encode_exactly(texts))
        assert self._fast
        try:
            return self._fast.encode(texts)
        except (UnicodeEncodeError, TypeError):
            _check_unicode(texts)
            raise

    @property
    def is_fast(self) -> bool:
        """Whether `gigatoken` is loaded and encodes from now on."""
        return self._fast is not None

    def load_fast(self) -> bool:
        """Load `gigatoken` now, whatever the size of what is to be encoded, and compare it; whether it is used."""
        if self._fast is None and self.slow_because is None:
            content = json.loads(self._rust.to_str())
            try:
                self._fast = FastEncoder(content, lambda sample: self.encode_arrays(sample, exactly=True))
            except NotExact as problem:
                self.slow_because = str(problem)
        return self._fast is not None

    def _use_fast(self, texts: Sequence[str]) -> bool:
        return self.is_fast or (sum(map(len, texts)) >= FAST_FROM_CHARACTERS and self.load_fast())

    def _encode_exactly(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._rust.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            _check_unicode(texts)
            raise
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        return self._rust.decode([int(index) for index in ids], skip_special_tokens=skip_special_tokens)

    def spellings(self) -> list[bytes]:
        """[vocab_size] The UTF-8 bytes of text that each token stands for; none for special and unused ids.

        Exact for byte-level tokenizers. For SentencePiece-like ones ▁ is a space and <0xAB> one byte; a space that the
        tokenizer itself puts before the text counts too. WordPiece, which does not keep white space, has a space
        before every token that begins a word. Raises DataError for other tokenizers.
        """
        spell = speller(json.loads(self._rust.to_str()))
        if spell is None:
            raise DataError(
                f"{self.name}: how its tokens spell text is not known; a byte-level, SentencePiece or WordPiece "
                "tokenizer is due."
            )
        spelled = [b""] * self.vocab_size
        for token, index in self._rust.get_vocab(with_added_tokens=False).items():
            spelled[index] = spell(token)
        for index, added in self._rust.get_added_tokens_decoder().items():
            spelled[index] = added.content.encode("utf-8")
        for index in self.special_ids.tolist():
            spelled[index] = b""
        return spelled

    @cached_property
    def word_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """(begins, ends), both [vocab_size] bool: tokens that begin a word, and tokens after which one begins.

        See `firstlight.tokens.words`, which finds the words of a row by them. Raises DataError where `spellings` does.
        """
        return word_edges(self.spellings())

    def token_bytes(self) -> np.ndarray:
        """[vocab_size] int32: how many bytes `spellings` has for each token.

        Raises DataError for tokenizers that do not keep white space (WordPiece), which have no bytes per token.
        """
        if kind_of(json.loads(self._rust.to_str())) not in ("byte-level", "sentencepiece"):
            raise DataError(f"{self.name}: bytes per token are known for byte-level and SentencePiece tokenizers only.")
        return np.array([len(spelling) for spelling in self.spellings()], dtype=np.int32)

    def lone_bytes(self) -> np.ndarray:
        """[vocab_size] bool: tokens that are one byte of a character that has several."""
        byte_level = kind_of(json.loads(self._rust.to_str())) == "byte-level"
        lone = np.zeros(self.vocab_size, dtype=bool)
        pattern = r"[\u00a1-\u00ff\u0122-\u0143]" if byte_level else r"<0x[89A-Fa-f][0-9A-Fa-f]>"
        for token, index in self._rust.get_vocab(with_added_tokens=False).items():
            lone[index] = re.fullmatch(pattern, token) is not None
        return lone

    @property
    def unknown_id(self) -> int | None:
        """The id for what the vocabulary cannot write, where there is one."""
        model = json.loads(self._rust.to_str())["model"]
        if isinstance(model.get("unk_id"), int):
            return int(model["unk_id"])
        return self._rust.token_to_id(model["unk_token"]) if model.get("unk_token") else None

    def pad_batch(self, texts: Sequence[str], max_length: int) -> dict[str, np.ndarray]:
        """One document a row: cut to `max_length` tokens, or padded on the right.

        Returns `input_ids` and `attention_mask` (1 on text, 0 on padding), both [len(texts), max_length] int64. A
        tokenizer without a padding token pads with EOD, as is usual with GPT-2; the mask tells them apart.
        """
        if max_length < 1:
            raise DataError(f"max_length is {max_length}; at least 1 token is due.")
        filler = self.eod_id if self.pad_id is None else self.pad_id
        input_ids = np.full((len(texts), max_length), filler, dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, ids in enumerate(self.encode_batch(texts)):
            kept = ids[:max_length]
            input_ids[row, : len(kept)] = kept
            attention_mask[row, : len(kept)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into `folder`.

        `transformers.AutoTokenizer.from_pretrained(folder)` then gives the same ids and adds nothing; unlike here,
        it reads a special token's text as the token, which is the ecosystem's custom for prompts.
        """
        folder = Path(folder)
        named = {"eos_token": self.eod_token, "pad_token": self.pad_token, "mask_token": self.mask_token}
        special = {field: token for field, token in named.items() if token is not None}
        with atomic_file(folder / "tokenizer.json", "w") as handle:
            handle.write(self._rust.to_str(pretty=True))
        write_json(folder / "special_tokens_map.json", special)
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_input_names": ["input_ids", "attention_mask"],
                **special,
            },
        )


def _check_unicode(texts: Iterable[str]) -> None:
    """DataError when one of the texts holds a lone surrogate."""
    for text in texts:
        if isinstance(text, str) and re.search("[\ud800-\udfff]", text):
            raise DataError("text with a lone surrogate (U+D800 to U+DFFF) is not valid Unicode.")


def _special_tokens(folder: Path) -> list[str | int | None]:
    """EOD, padding and mask token as the files beside `tokenizer.json` name them, the first one that does."""
    found: dict[str, str | int | None] = {"eos_token": None, "pad_token": None, "mask_token": None}
    for name, suffix in (
        ("tokenizer_config.json", ""),
        ("special_tokens_map.json", ""),
        ("generation_config.json", "_id"),
        ("config.json", "_id"),
    ):
        if not (folder / name).is_file():
            continue
        try:
            settings = read_json(folder / name, "tokenizer configuration")
        except FirstlightError as problem:
            raise DataError(str(problem)) from None
        for field in found:
            value = settings.get(field + suffix) if isinstance(settings, dict) else None
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, list):
                value = value[0] if value else None
            if found[field] is None and isinstance(value, (str, int)) and not isinstance(value, bool):
                found[field] = value
    return list(found.values())


def _without_empty(value: Any) -> Any:
    """Drop None and False, which newer library versions write where older ones wrote nothing."""
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None and item is not False}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
