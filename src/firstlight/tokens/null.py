"""What stands for a tokenizer where there is none: ids can be trained on without one, but not read as text.

Megatron-LM has the same under the name `NullTokenizer`. Loss and perplexity need ids alone; bits per byte, text to go
on with and files for others to use need a tokenizer, and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import fingerprint, write_json
from firstlight.tokens.tokenizer import NULL_FILE, Tokenizer


class NullTokenizer(Tokenizer):
    """`vocab_size` ids without a text."""

    has_text = False

    def __init__(self, vocab_size: int) -> None:
        self.name = "no tokenizer"
        self.vocab_size = vocab_size
        self.eod_id = vocab_size - 1  # as Megatron-LM's; it fills up batches and is looked for nowhere
        self.pad_id = self.mask_id = None
        self._fast, self.slow_because = None, "there is no tokenizer"

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the number of ids."""
        return fingerprint({"null": self.vocab_size})

    @property
    def special_ids(self) -> np.ndarray:
        """None is known to be special."""
        return np.empty(0, dtype=np.int64)

    @property
    def ordinary_ids(self) -> np.ndarray:
        """[vocab_size] int64: all of them."""
        return np.arange(self.vocab_size, dtype=np.int64)

    @property
    def unknown_id(self) -> None:
        """There is none."""

    @property
    def eod_token(self) -> str:
        """The number of the id that fills up batches."""
        return str(self.eod_id)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """DataError: there is nothing to encode with."""
        raise DataError("text cannot be encoded: the model was trained on token ids without a tokenizer.")

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The numbers themselves."""
        return " ".join(str(int(index)) for index in ids)

    def spellings(self) -> list[bytes]:
        """DataError: ids have no text."""
        raise DataError("how tokens spell text is not known: there is no tokenizer.")

    def token_bytes(self) -> np.ndarray:
        """DataError: ids have no text."""
        raise DataError("how many bytes a token stands for is not known: there is no tokenizer.")

    def save(self, folder: str | Path) -> None:
        """Write the number of ids; `Tokenizer.load` reads it where no tokenizer.json is put beside it."""
        write_json(Path(folder) / NULL_FILE, {"vocab_size": self.vocab_size})


def check_has_text(tokenizer: Tokenizer, what: str, folder: Path) -> None:
    """ConfigError, with the way out, where `what` needs a tokenizer and a run has none. folder: of the run."""
    if not tokenizer.has_text:
        raise ConfigError(
            f"{what} needs a tokenizer, and {folder} was trained on token ids without one; put the tokenizer.json that "
            f"made the ids (at most {tokenizer.vocab_size} tokens) into {folder / 'tokenizer'}."
        )
