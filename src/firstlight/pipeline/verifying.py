"""The verb `verify`: files against the sizes and hashes that were recorded when they were written.

A token dataset and a checkpoint record theirs; a run is its checkpoints and the token datasets that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstlight.support.console import progress
from firstlight.support.errors import DataError, FirstlightError, os_error_sentence
from firstlight.support.recorded import RecordedFile
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.indexed import data_path, index_path
from firstlight.tokens.prefix import PrefixDataset, is_prefix
from firstlight.tokens.split import DESCRIPTION
from firstlight.training.checkpoint.folder import (
    MANIFEST,
    named_step,
    read_manifest,
    read_state,
    recorded_files,
)
from firstlight.training.run_folder import RunFolder

Advance = Callable[[int], None]
QUICK_CLAIM = "sizes as recorded"


@dataclass(frozen=True)
class Verified:
    """What came of one token dataset or checkpoint."""

    path: Path
    what: str
    """token dataset, token ids of a prefix, checkpoint."""
    files: int
    """Files that were recorded."""
    size: int
    """Bytes of them."""
    faults: list[str]
    """A sentence for each file that is not as it was written; empty: all are."""
    claim: str
    """What was compared, as the end of the sentence "it is …"."""


@dataclass(frozen=True)
class _Thing:
    """Something with a record of its files."""

    path: Path
    what: str
    files: list[RecordedFile]
    faults: Callable[[bool, Advance], Iterator[str]]
    """(quick, advance) → a sentence for each fault."""
    claim: str = "sizes and SHA-256 as recorded"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files if isinstance(file.size, int))


def verify(paths: Sequence[str | Path], *, quick: bool = False) -> list[Verified]:
    """Compare every file of token datasets, checkpoints, folders of checkpoints and run folders with its record.

    quick: sizes only. DataError for a path that has no such record.
    """
    things = list({thing.path.absolute(): thing for path in paths for thing in _things(Path(path))}.values())
    results = []
    with progress("verify", None if quick else sum(thing.size for thing in things), "bytes") as bar:
        for thing in things:
            bar.show(str(thing.path))
            faults = list(thing.faults(quick, bar.advance))
            claim = QUICK_CLAIM if quick else thing.claim
            results.append(Verified(thing.path, thing.what, len(thing.files), thing.size, faults, claim))
        bar.show("")
    return results


def _things(path: Path) -> Iterator[_Thing]:
    if (path / DESCRIPTION).is_file():
        yield _dataset(path)
    elif is_prefix(path):
        yield _prefix(path)
    elif named_step(path.name) is not None or (path / MANIFEST).is_file():
        yield _checkpoint(path)
    elif (path / "config.yaml").is_file():
        yield from _run(path)
    elif path.is_dir() and (checkpoints := _checkpoints(path)):
        yield from checkpoints
    else:
        what = "nothing here records hashes" if path.is_dir() else "no such folder"
        raise DataError(f"{path}: {what}; a token dataset, a prefix, a checkpoint or a run folder is due.")


def _run(path: Path) -> Iterator[_Thing]:
    run = RunFolder.open(path)
    yield from _checkpoints(run.checkpoints)
    for source in run.config.data.sources.values():
        for place in (source.tokens, source.validation_tokens):
            if place:
                vocab_size = run.config.model.vocab_size
                yield _prefix(Path(place), vocab_size) if is_prefix(place) else _dataset(Path(place))


def _checkpoints(folder: Path) -> list[_Thing]:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [_checkpoint(entry) for entry in there if named_step(entry.name) is not None]


def _dataset(folder: Path) -> _Thing:
    try:
        dataset = TokenDataset.described(folder)
    except (FirstlightError, OSError) as problem:
        return _unreadable(folder, "token dataset", problem)
    return _Thing(
        folder,
        "token dataset",
        list(dataset.files()),
        lambda quick, advance: dataset.faults(quick=quick, advance=advance),
    )


def _prefix(path: Path, vocab_size: int | None = None) -> _Thing:
    """vocab_size: also compare every id with it."""
    what = "token ids of a prefix"
    try:
        prefix = PrefixDataset(path)
    except (FirstlightError, OSError) as problem:
        return _unreadable(path, what, problem)
    files = [RecordedFile(index_path(path), prefix.reader.idx_bytes, "", "")]
    if vocab_size is not None:
        files.append(RecordedFile(data_path(path), prefix.reader.bin_bytes, "", ""))
    claim = "every entry of the index" + (" and every id" if vocab_size else "") + " sound (no hashes are recorded)"
    return _Thing(
        path, what, files, lambda quick, advance: prefix.faults(vocab_size, quick=quick, advance=advance), claim
    )


def _checkpoint(folder: Path) -> _Thing:
    if not (folder / MANIFEST).is_file():
        problem = DataError(f"{folder / MANIFEST}: missing; without it this is no checkpoint, and nothing reads it.")
        return _unreadable(folder, "checkpoint", problem)
    try:
        files = recorded_files(folder, read_manifest(folder))
    except (FirstlightError, OSError) as problem:
        return _unreadable(folder, "checkpoint", problem)

    def faults(quick: bool, advance: Advance) -> Iterator[str]:
        found = [fault for file in files if (fault := file.fault(quick=quick, advance=advance))]
        yield from found
        if not found:
            try:
                read_state(folder)
            except FirstlightError as problem:
                yield str(problem)

    return _Thing(folder, "checkpoint", files, faults)


def _unreadable(path: Path, what: str, problem: FirstlightError | OSError) -> _Thing:
    sentence = os_error_sentence(problem) if isinstance(problem, OSError) else str(problem)
    return _Thing(path, what, [], lambda quick, advance: iter([sentence]))
