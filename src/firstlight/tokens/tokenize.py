"""Documents to a token dataset, in parallel, and from where it was after a kill at any moment.

Inputs are cut into units (a large file, or several small ones); each becomes shards of its own under a name that is
the fingerprint of all that shapes it, inside the hidden folder `.NAME.partial` beside the output. When all are there,
shards get their final names in the order of the inputs, and the folder is renamed to the output. So the result does
not depend on the number of workers, on which of them was faster, or on how often the work was interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from firstlight.documents import expand_inputs, in_units, input_size, sources_fingerprint
from firstlight.engine import run_jobs
from firstlight.support.console import human_bytes, human_count, note, progress, warn
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import fingerprint, folder_lock, publish_folder, read_json
from firstlight.support.secrets import without_secrets
from firstlight.tokens.dataset import (
    DESCRIPTION,
    FORMAT_VERSION,
    SPLITS,
    TOKENIZER_FOLDER,
    LanguageCounts,
    Shard,
    TokenDataset,
    describe,
    write_description,
)
from firstlight.tokens.indexed import data_path, index_path
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenize_unit import RECORD, TokenizeSettings
from firstlight.tokens.tokenizer import Tokenizer

UNIT_BYTES = 8_000_000
"""Small files are taken together until they are this large on disk."""
SHOWN_LANGUAGES = 8
RECORD_VERSION = 2
"""Of a unit's record; units of another version are not used."""


@dataclass(frozen=True)
class Unit:
    """Files that are tokenized together; `name` is the fingerprint of them, the settings and the tokenizer."""

    name: str
    inputs: tuple[str, ...]
    size: int
    """Bytes on disk."""


def tokenize_files(
    files: Sequence[str],
    tokenizer: Tokenizer,
    output: str | Path,
    *,
    source: str,
    validation_fraction: float = 0.01,
    shard_tokens: int = 100_000_000,
    workers: int | None = None,
    ray: str | None = None,
    text_field: str = "text",
    invalid_utf8: Literal["repair", "reject"] = "repair",
    max_bad_fraction: float = 0.01,
    overwrite: bool = False,
) -> TokenDataset:
    """Tokenize files (any input kind, see `expand_inputs`) into the token dataset `output`, and open it.

    Every document ends with EOD. A share `validation_fraction` of documents, chosen by a hash of their text, is the
    validation split. A shard has at most `shard_tokens` tokens, unless one document is longer. `workers`: cores to
    use; unset: all. `ray`: address of a Ray cluster that does the work. Documents that are empty or cannot be read are
    left out, counted and shown.

    After an interruption the same call goes on from the finished units. Raises DataError when `output` exists (unless
    `overwrite`, and it is a token dataset), when more than `max_bad_fraction` of the lines are bad, or when no text is
    left; ConfigError for settings out of range.
    """
    output = Path(output)
    if not 0 <= validation_fraction < 1:
        raise ConfigError(f"validation_fraction is {validation_fraction}; from 0 to below 1 is due.")
    for name, value in (("shard_tokens", shard_tokens), ("workers", workers)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is due.")
    _check_output(output, overwrite)
    settings = TokenizeSettings(validation_fraction, shard_tokens, text_field, invalid_utf8)
    units = plan_units(expand_inputs(files), settings, tokenizer)
    partial = output.with_name(f".{output.name}.partial")
    with folder_lock(partial, "this tokenization"):
        final = partial / f"final-{fingerprint([source, [unit.name for unit in units]])[:16]}"
        try:
            _tokenize_units(units, tokenizer, settings, partial, final, source, workers, ray)
            _assemble(units, tokenizer, settings, partial, final, source, max_bad_fraction)
            publish_folder(final, output)
        except BaseException:
            if any((partial / unit.name / RECORD).is_file() for unit in units):
                note(f"finished parts are kept in {partial}; the same command goes on from there.")
            else:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(partial)
    dataset = TokenDataset.open(output)
    _show(dataset)
    return dataset


def plan_units(inputs: Sequence[str], settings: TokenizeSettings, tokenizer: Tokenizer) -> list[Unit]:
    """Inputs in order, cut into units of `UNIT_BYTES`; an input whose size is unknown is a unit by itself."""
    shaping = [FORMAT_VERSION, RECORD_VERSION, asdict(settings), tokenizer.fingerprint]
    return [Unit(sources_fingerprint(group, shaping)[:32], group, size) for group, size in in_units(inputs, UNIT_BYTES)]


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / DESCRIPTION).is_file():
        raise DataError(f"{output}: exists and is not a token dataset; choose another name.")
    if not overwrite:
        raise DataError(f"{output}: this token dataset exists already; delete it or choose another name.")


def _tokenize_units(
    units: Sequence[Unit],
    tokenizer: Tokenizer,
    settings: TokenizeSettings,
    partial: Path,
    final: Path,
    source: str,
    workers: int | None,
    ray: str | None,
) -> None:
    """Leave every unit complete in `partial`; what is there already is kept, what belongs to none is removed."""
    assembling = final.exists()
    done = [unit for unit in units if _is_complete(partial / unit.name, assembling)]
    wanted = {unit.name for unit in done} | {final.name}
    for entry in partial.iterdir():
        if entry.is_dir() and entry.name not in wanted:
            shutil.rmtree(entry, ignore_errors=True)  # a worker of a killed run may be writing there for a moment
    left = [unit for unit in units if unit not in done]
    if done and left:
        note(f"{source}: going on; {len(done)} of {len(units)} parts were finished before.")
    tokenizer.save(partial / TOKENIZER_FOLDER)
    setup = {"tokenizer": str(partial / TOKENIZER_FOLDER), "settings": asdict(settings)}
    left.sort(key=lambda unit: -unit.size)  # the largest first, so that the workers end together
    jobs = [{"inputs": unit.inputs, "folder": str(partial / unit.name)} for unit in left]
    total = sum(unit.size for unit in units)
    finished = sum(unit.size for unit in done)
    with (
        progress(f"tokenize {source}", total or None, "bytes", finished) as bar,
        run_jobs("firstlight.tokens.tokenize_unit", setup, jobs, workers, ray) as answers,
    ):
        tokens = 0
        for answer in answers:
            if answer["kind"] == "progress":
                tokens += answer["tokens"]
                bar.advance(answer["bytes"])
                bar.show(f"{human_count(tokens)} tokens")


def _is_complete(folder: Path, assembling: bool) -> bool:
    """Whether a unit's record is there, and its shards of the recorded sizes unless they are being moved."""
    if not (folder / RECORD).is_file():
        return False
    shards = [Shard(**shard) for shards in read_json(folder / RECORD, "record")["splits"].values() for shard in shards]
    return assembling or all(
        file.is_file() and file.stat().st_size == size
        for shard in shards
        for file, size in (
            (data_path(folder / shard.name), shard.bin_bytes),
            (index_path(folder / shard.name), shard.idx_bytes),
        )
    )


def _assemble(
    units: Sequence[Unit],
    tokenizer: Tokenizer,
    settings: TokenizeSettings,
    partial: Path,
    final: Path,
    source: str,
    max_bad_fraction: float,
) -> None:
    """Move the units' shards into `final` under their last names and describe them; can be repeated after a kill."""
    records = [read_json(partial / unit.name / RECORD, "record") for unit in units]
    tally = Tally()
    for record in records:
        tally.add(record["tally"])
    try:
        tally.conclude(source, max_bad_fraction)
        if not any(record["splits"]["train"] for record in records):
            raise DataError(
                f"{source}: all {tally.documents} documents fell into the validation split; lower validation_fraction "
                f"({settings.validation_fraction:g}) or add text."
            )
    except DataError:
        shutil.rmtree(partial)
        raise
    _show_encoder(records, source)
    final.mkdir(exist_ok=True)
    splits: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    for unit, record in zip(units, records, strict=True):
        for split, shards in record["splits"].items():
            for written in shards:
                shard = replace(Shard(**written), name=f"{split}-{len(splits[split]):05d}")
                _move(partial / unit.name / written["name"], final / shard.name)
                splits[split].append(shard)
    if settings.validation_fraction and not splits["validation"]:
        warn(
            f"{source}: none of {tally.documents} documents fell into the validation split; "
            f"raise validation_fraction ({settings.validation_fraction:g}) or add text to have one."
        )
    more: dict[str, Any] = {
        "settings": asdict(settings),
        "inputs": [
            {"path": without_secrets(path), "bytes": input_size(path)} for unit in units for path in unit.inputs
        ],
        "reading": tally.as_dict(),
    }
    by_language = {split: _add_languages([record["by_language"][split] for record in records]) for split in SPLITS}
    write_description(final, describe(source, tokenizer, splits, by_language, **more), tokenizer)


def _show_encoder(records: Sequence[dict[str, Any]], source: str) -> None:
    """Why `tokenizers` encoded and not the much faster `gigatoken`, where that was so."""
    reasons = sorted({str(record["slow_because"]) for record in records if record["slow_because"]})
    if reasons:
        note(f"{source}: encoded with `tokenizers`: {'; '.join(reasons)}.")
    differing = [record["other_ids"] for record in records if record["other_ids"]]
    if differing:
        warn(
            f"{source}: gigatoken gave other ids than `tokenizers` in {len(differing)} of {len(records)} parts "
            f"(for {differing[0]}); `tokenizers` encoded those, so that all ids are right."
        )


def _add_languages(parts: Sequence[dict[str, dict[str, int]]]) -> dict[str, LanguageCounts]:
    total: dict[str, LanguageCounts] = {}
    for part in parts:
        for language, counts in part.items():
            total.setdefault(language, LanguageCounts()).add(**counts)
    return total


def _move(old: Path, new: Path) -> None:
    for path in (data_path, index_path):
        if path(old).exists():
            path(old).rename(path(new))
        assert path(new).is_file(), path(new)


def _show(dataset: TokenDataset) -> None:
    splits = dataset.splits.values()
    parts = (
        f"{human_count(split.num_tokens)} tokens of {human_count(split.num_documents)} documents ({name})"
        for name, split in dataset.splits.items()
    )
    text_bytes = sum(split.text_bytes for split in splits)
    tokens = sum(split.num_tokens for split in splits)
    note(
        f"{dataset.source}: {', '.join(parts)}; {human_bytes(text_bytes)} of text, "
        f"{text_bytes / tokens:.2f} bytes a token; in {dataset.folder}"
    )
    languages = _add_languages(
        [{name: asdict(counts) for name, counts in split.by_language.items()} for split in splits]
    )
    if len(languages) > 1:
        ranked = sorted(languages.items(), key=lambda item: (-item[1].tokens, item[0]))
        shown = (
            f"{name} {human_count(counts.tokens)} tokens, {counts.text_bytes / counts.tokens:.2f} bytes and "
            f"{counts.characters / counts.tokens:.2f} characters a token"
            for name, counts in ranked[:SHOWN_LANGUAGES]
        )
        more = f"; and {len(ranked) - SHOWN_LANGUAGES} more" if len(ranked) > SHOWN_LANGUAGES else ""
        note(f"{dataset.source} by language: {'; '.join(shown)}{more}")
