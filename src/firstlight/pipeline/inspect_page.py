"""What `inspect` prints: a line a document, cut to the width of the terminal, without characters that act on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from firstlight.support.console import human_count, out, printable
from firstlight.support.files import to_json
from firstlight.support.secrets import without_secrets

Facts = Mapping[str, Any]
WIDTH = 120
"""Cells of a line that is not written to a terminal."""
_ACTING = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Of what a terminal acts on, what JSON does not escape by itself."""
RANGES = 12
"""Readings of a document, and inputs of a dataset, that are shown."""


def step_lines(facts: Facts, most_documents: int | None) -> Iterator[str]:
    """A step; most_documents: of each sample, None: all, with their whole text."""
    first, count = facts["first_sample"], facts["samples"]
    rank = "" if facts["rank"] is None else f", rank {facts['rank']}"
    yield (
        f"{facts['run']}, step {facts['step']:,} of {facts['total_steps']:,}{rank}: samples {first:,} to "
        f"{first + count - 1:,}, {facts['tokens_per_sample']:,} tokens each"
    )
    yield from _about(facts)
    for row in facts["rows"]:
        documents: Sequence[Facts] = row["documents"]
        hidden = "" if row["hidden_tokens"] is None else f", {row['hidden_tokens']} tokens to find"
        number = f"{len(documents)} document{'' if len(documents) == 1 else 's'}"
        yield f"sample {row['sample']:,} ({row['row']}): {row['source']}, pass {row['epoch'] + 1}, {number}{hidden}"
        shown = documents if most_documents is None else documents[:most_documents]
        labels = [f"  {document['document']}  {_part(document)}" for document in shown]
        indent = max(map(len, labels))
        for label, document in zip(labels, shown, strict=True):
            if most_documents is None:
                yield label
                yield from _origin(document)
                yield str(document["text"])
            else:
                yield f"{label:<{indent}}  {_one_line(document['text'], indent + 4)}"
                yield from _origin(document)
        if len(shown) < len(documents):
            yield f"  … and {len(documents) - len(shown)} more (--documents {len(documents)})"
    if facts["more_rows"]:
        yield f"… and {facts['more_rows']:,} more samples (--samples N; --sample N: one of them, whole)"


def reading_lines(facts: Facts) -> Iterator[str]:
    """Which steps read a document."""
    yield f"{facts['source']}:{facts['document']}, {facts['tokens']:,} tokens: {_one_line(facts['text'], 40)}"
    readings: Sequence[Facts] = facts["readings"]
    if not readings:
        yield f"No step of {facts['run']} reads it, up to the last one ({facts['total_steps']:,})."
        return
    done = len({reading["step"] for reading in readings if reading["trained"]})
    yield (
        f"{facts['run']} is at step {facts['steps_trained']:,}; "
        f"{done or 'no'} step{'s' if done != 1 else ''} of it read from this document."
    )
    for reading in readings[:RANGES]:
        yield f"  {_when(reading)}: sample {reading['sample']:,}, pass {reading['epoch'] + 1}, {_tokens(reading)}"
    if len(readings) > RANGES:
        yield f"  … and {len(readings) - RANGES:,} more (--json has all)"


def overview_lines(facts: Facts) -> Iterator[str]:
    """A run: what it draws from each source."""
    yield (
        f"{facts['run']}: step {facts['steps_trained']:,} of {facts['total_steps']:,}, {facts['samples_per_step']:,} "
        f"samples of {facts['tokens_per_sample']:,} tokens each"
    )
    for name, source in facts["sources"].items():
        yield (
            f"  {name}: {human_count(source['documents']['train'])} documents, "
            f"{human_count(source['tokens']['train'])} tokens; read {source['epochs_trained']:.3g} times so far, "
            f"{source['epochs']:.3g} at the end"
        )
    yield "What a step read: --step N. Which steps read a document: --document SOURCE:NUMBER."


def dataset_lines(facts: Facts) -> Iterator[str]:
    """A token dataset or prefix."""
    if facts["kind"] == "prefix":
        yield f"{facts['path']}: prefix of Megatron-LM's, {facts['sequences']:,} sequences of {facts['dtype']} ids"
        yield "  It records neither its tokenizer nor the files that it was made from."
    else:
        yield (
            f"{facts['path']}: token dataset of '{facts['source']}', {facts['dtype']}, tokenizer {facts['tokenizer']} "
            f"of {facts['vocab_size']:,} tokens"
        )
        inputs = facts["inputs"]
        shown = ", ".join(map(str, inputs[:3])) + (f", … {len(inputs) - 3:,} more" if len(inputs) > 3 else "")
        yield f"  from {shown or 'inputs that are not recorded'}"
    for name, split in facts["splits"].items():
        size = f", {split['text_bytes'] / facts['tokens'][name]:.2f} bytes a token" if split["text_bytes"] else ""
        yield f"{name}: {facts['documents'][name]:,} documents, {facts['tokens'][name]:,} tokens{size}"
        languages = sorted(split["languages"].items(), key=lambda item: -item[1]["tokens"])
        if len(languages) > 1:
            yield "  " + ", ".join(f"{language} {human_count(c['tokens'])} tokens" for language, c in languages[:8])
        labels = [f"  {document['document']}  {document['tokens']:,} tokens" for document in split["first_documents"]]
        indent = max(map(len, labels), default=0)
        for label, document in zip(labels, split["first_documents"], strict=True):
            yield f"{label:<{indent}}  {_one_line(document['text'], indent + 4)}"
    yield "One document, whole: --document N."


def document_lines(facts: Facts) -> Iterator[str]:
    """One document, whole."""
    yield f"{facts['path']}, {facts['split']}, document {facts['document']}: {facts['tokens']:,} tokens"
    yield from _origin(facts)
    yield str(facts["text"])


def show(lines: Iterator[str]) -> None:
    """Print lines; what a terminal would act on becomes '·'."""
    for line in lines:
        print(printable(line))


def show_json(facts: Facts) -> None:
    """Print facts as one JSON object, in which such characters are escaped."""
    print(_ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", to_json(without_secrets(facts), indent=2)))


def _about(facts: Facts) -> Iterator[str]:
    """What is special about a step."""
    if not facts["trained"]:
        yield "It is not trained yet; this is what it will read."
    if facts["did_not_count"]:
        why = {"skipped": "the guard skipped it", "overflow": "fp16 overflowed"}[facts["did_not_count"]]
        yield f"The model did not move at this step: {why}."
    if facts["passed_over"]:
        ranges = ", ".join(f"{first:,} to {end - 1:,}" for first, end in facts["passed_over"])
        yield f"Before it the run went back and passed over samples {ranges}."


def _part(document: Facts) -> str:
    if document["tokens"] == document["document_tokens"]:
        return f"whole, {document['tokens']:,} tokens"
    return f"{_tokens(document)} of {document['document_tokens']:,}"


def _tokens(part: Facts) -> str:
    first, last = part["first"], part["first"] + part["tokens"] - 1
    return f"token {first:,}" if first == last else f"tokens {first:,} to {last:,}"


def _when(reading: Facts) -> str:
    if reading["step"] is None:
        return "passed over when the run went back"
    if not reading["trained"]:
        return f"step {reading['step']:,} (not trained yet)"
    return f"step {reading['step']:,}" + (" (the model did not move)" if reading["did_not_count"] else "")


def _origin(document: Facts) -> Iterator[str]:
    if origin := document.get("origin"):
        metadata = f"  {to_json(origin['metadata'])}" if origin["metadata"] else ""
        yield f"      {origin['path']}, entry {origin['entry']:,}{metadata}"


def _one_line(text: str, indent: int) -> str:
    """Text between quotes on the rest of a line."""
    room = max(20, (out.width if out.is_terminal else WIDTH) - indent)
    flat = " ".join(printable(text).split())
    return f"“{flat}”" if cell_len(flat) <= room else f"“{set_cell_size(flat, room - 1).rstrip()}…”"
