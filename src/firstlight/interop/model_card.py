"""The README.md of an export, made from what the run recorded: data, training, held-out scores, how to load.

Only facts that are known are written; what a publisher must add (the licence) is said. Host names, command lines and
local folders stay in the run folder, because a card is made to be published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from firstlight import __version__
from firstlight.support.console import human_count

PUBLIC = (
    *("name", "license", "mixture", "training", "evaluation", "tasks"),
    *("versions", "tokenizer", "datasets", "imported"),
)
MASKED = "ForMaskedLM"
"""How the class of a masked language model ends."""


def public_facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's provenance that may be published: the fields of `PUBLIC`, files without their folders."""
    facts = {key: provenance[key] for key in PUBLIC if provenance.get(key)}
    if "datasets" in facts:
        facts["datasets"] = {
            source: {key: value for key, value in dataset.items() if key != "path"}
            | {"text": [_without_folder(text) for text in dataset.get("text", [])]}
            for source, dataset in facts["datasets"].items()
        }
    if "imported" in facts:
        given = facts["imported"]
        source = given["source"] if given["hub"] else PurePosixPath(given["source"]).name
        facts["imported"] = {"source": source} | {key: given[key] for key in ("model_type", "dtype", "drawn")}
    return facts


def model_card(settings: Mapping[str, Any], summary: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Markdown with the hub's YAML header.

    settings: config.json; summary: of `export_huggingface`; facts: any of {"name": str, "license": str, "datasets":
    {source: {"tokens": {"train": int}, "documents": {"train": int}, "text": [str]}}, "mixture": {source: weight},
    "training": {setting: value, "tokens": int among them}, "evaluation": {source: {"loss", "perplexity",
    "accuracy", "bits_per_byte", and the ends of intervals}}, "tasks": {task: numbers}, "versions": {package: version},
    "imported": {"source", "model_type",
    "drawn": [str]}}.
    """
    name = facts.get("name", "Language model")
    masked = settings["architectures"][0].endswith(MASKED)
    parts = [
        _header(facts.get("license"), masked),
        f"# {name}",
        f"A {'masked' if masked else 'causal'} language model of {summary['parameters']:,} parameters, {_past(facts)}. "
        + _purpose(masked),
        _usage(masked),
        _section("Model", _table(("setting", "value"), _model_rows(settings, summary))),
    ]
    if facts.get("datasets"):
        parts.append(_section("Training data", _data_table(facts["datasets"], facts.get("mixture") or {})))
    if facts.get("training") and (facts["training"].get("tokens") or not facts.get("imported")):
        parts.append(_section("Training", _table(("setting", "value"), _training_rows(facts, summary))))
    if facts.get("evaluation"):
        parts.append(_section("Evaluation on held-out documents", _score_table(facts["evaluation"])))
    if facts.get("tasks"):
        parts.append(_section("Evaluation on tasks", _task_table(facts["tasks"])))
    if not facts.get("license"):
        parts.append(
            _section(
                "Licence",
                "Not stated. Whoever publishes this model sets `license:` at the top of this file; the licences of "
                "the training data may bear on it.",
            )
        )
    return "\n\n".join(parts) + "\n"


def _past(facts: Mapping[str, Any]) -> str:
    """Where the weights come from."""
    imported = facts.get("imported")
    if not imported:
        return f"pretrained from random weights with Firstlight {__version__}"
    start = f"with the weights of {imported['source']} ({imported['model_type']})"
    if imported["drawn"]:
        start += " and a head over the vocabulary from random weights"
    tokens = facts.get("training", {}).get("tokens")
    if not tokens:
        return f"{start}; Firstlight {__version__} read and wrote them without training"
    return f"pretrained further, beginning {start}, on {human_count(tokens)} tokens with Firstlight {__version__}"


def _purpose(masked: bool) -> str:
    if masked:
        return "It fills in hidden tokens from the text on both sides, and is a start for training on other tasks."
    return "It continues text; it was not taught to follow instructions, and what it writes may be wrong or offensive."


def _header(license_name: str | None, masked: bool) -> str:
    task = "fill-mask" if masked else "text-generation"
    lines = ["library_name: transformers", f"pipeline_tag: {task}", "tags:", "- firstlight", f"- {task}"]
    return "\n".join(["---", *([f"license: {license_name}"] if license_name else []), *lines, "---"])


def _usage(masked: bool) -> str:
    kind = "AutoModelForMaskedLM" if masked else "AutoModelForCausalLM"
    lines = [
        f"from transformers import {kind}, AutoTokenizer\n",
        'folder = "."  # this folder, or its name on the hub',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"model = {kind}.from_pretrained(folder)",
    ]
    if masked:
        lines += [
            'inputs = tokenizer(f"Once upon a {tokenizer.mask_token}.", return_tensors="pt")',
            'hidden = inputs["input_ids"][0] == tokenizer.mask_token_id',
            "likeliest = model(**inputs).logits[0, hidden].topk(5).indices[0]",
            "print(tokenizer.convert_ids_to_tokens(likeliest.tolist()))",
        ]
    else:
        lines += [
            'inputs = tokenizer("Once upon a time", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50, do_sample=True)[0]))",
        ]
    code = "\n".join(lines)
    return _section("Use", f"```python\n{code}\n```")


def _model_rows(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "class", settings["architectures"][0]
    yield "parameters", f"{summary['parameters']:,}"
    yield "weights", f"{settings['dtype']}, {summary['bytes']:,} bytes"
    unused = f", of which no token has {summary['unused_rows']:,}" if summary["unused_rows"] else ""
    yield "vocabulary", f"{settings['vocab_size']:,}{unused}"
    yield "longest sequence", f"{settings.get('max_position_embeddings', settings.get('n_positions')):,} tokens"


def _data_table(datasets: Mapping[str, Mapping[str, Any]], mixture: Mapping[str, float]) -> str:
    total = sum(mixture.values())
    stated = any(dataset.get("license") for dataset in datasets.values())
    rows = [
        (
            source,
            f"{mixture[source] / total:.1%}" if source in mixture else "in proportion to tokens",
            _count(dataset.get("tokens", {}).get("train")),
            _count(dataset.get("documents", {}).get("train")),
            ", ".join(f"`{text}`" for text in dataset.get("text", [])),
            *([dataset.get("license", "not stated")] if stated else []),
        )
        for source, dataset in datasets.items()
    ]
    return _table(
        ("source", "share of training", "tokens", "documents", "text", *(["licence"] if stated else [])), rows
    )


def _training_rows(facts: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    training = facts["training"]
    for key, value in training.items():
        yield key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)
    if training.get("tokens"):
        yield "tokens per parameter", f"{training['tokens'] / summary['parameters']:.3g}"
    for package in ("firstlight", "torch"):
        if facts.get("versions", {}).get(package):
            yield package, str(facts["versions"][package])


def _score_table(evaluation: Mapping[str, Mapping[str, float]]) -> str:
    """With 95 % intervals over documents where `firstlight eval` has found them."""
    columns = ("loss", "perplexity", "accuracy", "bits_per_byte")
    rows = [
        (source, *(_with_interval(score, key) for key in columns), _count(score.get("tokens")))
        for source, score in evaluation.items()
    ]
    titles = ("source", "loss (nats per token)", "perplexity", "accuracy", "bits per byte", "tokens scored")
    table = _table(titles, rows)
    if any("perplexity_low" in score for score in evaluation.values()):
        table += "\n\nIn brackets: 95 % intervals, from documents drawn anew."
    return table


def _task_table(tasks: Mapping[str, Mapping[str, float]]) -> str:
    rows = (
        (task, metric, _number(value), _number(numbers.get(f"{metric}_stderr")), _number(numbers.get("chance")))
        for task, numbers in tasks.items()
        for metric, value in numbers.items()
        if metric not in ("chance", "items") and not metric.endswith("_stderr")
    )
    return _table(("task", "metric", "value", "standard error", "accuracy of guessing"), rows)


def _with_interval(score: Mapping[str, float], key: str) -> str:
    low, high = score.get(f"{key}_low"), score.get(f"{key}_high")
    ends = f" ({_number(low)} to {_number(high)})" if low is not None and high is not None else ""
    return _number(score.get(key)) + ends


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _count(number: float | None) -> str:
    return "" if number is None else human_count(number)


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


def _without_folder(text: str) -> str:
    """`hf:…` and `starter:…` as they are; of a path only the last part."""
    return text if text.startswith(("hf:", "starter:")) else PurePosixPath(text).name
