"""The stream of a configuration: which of the orders it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from firstlight.config import RunConfig
from firstlight.tokens.batches import SampleStream
from firstlight.tokens.megatron_stream import MegatronStream
from firstlight.tokens.split import Split
from firstlight.tokens.stream import Stream


def open_stream(
    splits: Mapping[str, Split],
    config: RunConfig,
    samples: int,
    identities: Mapping[str, str] | None = None,
) -> Stream:
    """The training samples of a configuration; splits: the training split of each source.

    samples: of the whole run. identities: a fingerprint of each source's data, with which an order that is kept in
    files goes to `data.directory`; unset: nothing is written. Ids outside the model's vocabulary never leave it.
    """
    vocab_size = config.model.vocab_size
    if config.data.order == "stateless":
        return SampleStream(splits, config.data, config.seed, vocab_size)
    directory = Path(config.data.directory) if identities is not None else None
    return MegatronStream(
        splits, config.data, config.seed, samples, vocab_size, directory=directory, identities=identities
    )
