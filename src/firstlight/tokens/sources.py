"""The tokens of a recipe's source, wherever they lie: a folder of Firstlight's, a prefix of Megatron-LM's, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firstlight.config import DataConfig, SourceConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import fingerprint
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.prefix import DEFAULT_SPLIT, PrefixDataset, is_prefix
from firstlight.tokens.split import Split


@dataclass(frozen=True)
class SourceTokens:
    """What a source is trained and validated on."""

    path: Path
    """Folder or prefix of the training tokens; of those held out where it has no others."""
    fingerprint: str
    """Of all its data."""
    splits: Mapping[str, Split]
    """"train" and "validation", those that there are."""
    folder: TokenDataset | None = None
    """The folder of Firstlight's among its places, which knows its tokenizer."""

    @property
    def train_tokens(self) -> int:
        """Tokens to train on."""
        return self.splits["train"].num_tokens if "train" in self.splits else 0


def open_source(source: SourceConfig, split: str | None = None) -> SourceTokens:
    """Open `tokens` and `validation_tokens` of a source in constant time; split: `data.split`, for prefixes.

    DataError for a place that is neither a token dataset nor a prefix, or damaged.
    """
    places = [place for place in (source.tokens, source.validation_tokens) if place]
    opened = [_open(place) for place in places]
    folders = [tokens for tokens in opened if isinstance(tokens, TokenDataset)]
    splits: dict[str, Split] = {}
    if source.tokens:
        tokens = opened[0]
        if isinstance(tokens, TokenDataset):
            splits = dict(tokens.splits)
        else:
            splits = {"train": tokens.whole()} if source.validation_tokens else tokens.splits(split or DEFAULT_SPLIT)
    if source.validation_tokens:
        splits["validation"] = _whole(opened[-1])
    prints = [tokens.fingerprint for tokens in opened]
    return SourceTokens(
        Path(places[0]), prints[0] if len(prints) == 1 else fingerprint(prints), splits, folders[0] if folders else None
    )


def is_split(source: SourceConfig) -> bool:
    """Whether `data.split` divides this source."""
    return bool(source.tokens) and not source.validation_tokens and is_prefix(str(source.tokens))


def check_split(data: DataConfig) -> None:
    """ConfigError for a `data.split` that divides nothing."""
    if data.split is None or any(is_split(source) for source in data.sources.values()):
        return
    raise ConfigError(
        f"data.split {data.split!r} divides Megatron-LM prefixes without validation_tokens, and no source is one; "
        "leave it out (text and token datasets hold out a part of their own)."
    )


def are_tokens_here(place: str) -> bool:
    """Whether `tokens` or `validation_tokens` of a source can be opened on this machine."""
    return is_prefix(place) or Path(place).is_dir()


def _open(place: str) -> TokenDataset | PrefixDataset:
    if is_prefix(place):
        return PrefixDataset(place)
    path = Path(place)
    if path.suffix in (".bin", ".idx") and path.is_file():
        raise DataError(f"{place}: one file of a prefix; give both by their common name, {path.with_suffix('')}.")
    if not path.is_dir():
        raise DataError(
            f"{place}: no such folder; a finished token dataset (from `firstlight tokenize`) is due, or the common "
            "name of a .bin and an .idx of Megatron-LM's."
        )
    return TokenDataset.open(path)


def _whole(tokens: TokenDataset | PrefixDataset) -> Split:
    if isinstance(tokens, PrefixDataset):
        return tokens.whole()
    shards = [shard for split in tokens.splits.values() for shard in split.shards]
    return Split(tokens.folder, shards, tokens.dtype)
