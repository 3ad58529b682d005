"""The single stages as functions, one for each verb of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.recipe import load_config
from firstlight.support.console import out
from firstlight.support.errors import ConfigError, DataError, did_you_mean
from firstlight.support.files import check_writable


def build_corpus(
    config: str | Path | RunConfig,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    workers: int | None = None,
    ray: str | None = None,
) -> Path:
    """Build the documents of every source with text in a recipe; returns the corpus folder.

    output: the folder to write; unset: `data.directory/NAME-corpus`. Replaces an earlier corpus there. workers:
    programs at a time; unset: one a core. ray: address of the Ray cluster that does the work; unset: this machine.
    """
    from firstlight import corpus

    config = config if isinstance(config, RunConfig) else load_config(config, overrides)
    texts = {name: source.text for name, source in config.data.sources.items() if source.text}
    if not texts:
        raise ConfigError("data.sources names no text; give one, as in data.sources.web.text=[crawl/*.jsonl.zst].")
    folder = Path(output) if output else Path(config.data.directory) / f"{config.name}-corpus"
    _check_output(folder, "corpus.json", "a corpus")
    out.print(corpus.corpus_table(corpus.build_corpus(texts, folder, config.corpus, workers=workers, ray=ray)))
    return folder


def train_classifier(good: Sequence[str], bad: Sequence[str], output: str | Path, **settings: Any) -> dict[str, Any]:
    """Train a classifier of documents from good and bad examples; see `firstlight.corpus.classifier`."""
    from firstlight.corpus import classifier

    _check_output(Path(output), "classifier.json", "a classifier")
    return classifier.train_classifier(good, bad, Path(output), **settings)


def train_tokenizer(
    files: Sequence[str] | Mapping[str, Sequence[str]],
    output: str | Path,
    *,
    vocab_size: int,
    weights: Mapping[str, float] | None = None,
    digits: str = "single",
    sample_bytes: int = 200_000_000,
    seed: int = 1234,
    text_field: str = "text",
) -> Any:
    """Train a byte-level BPE tokenizer on text files of any input kind and save it to `output`; returns it.

    files: of one source, or by the name of each. weights: share of each source in the sample; unset: all documents
    are one pool. ConfigError when sources and weights do not have the same names, or a weight is not above 0.
    """
    from firstlight.documents import expand_inputs
    from firstlight.tokens.mixture import shares
    from firstlight.tokens.tokenizer_training import train_on_sample

    _check_output(Path(output), "training.json", "a tokenizer trained before")
    sources = files if isinstance(files, Mapping) else {"text": files}
    for source in weights or {}:
        if source not in sources:
            raise ConfigError(f"there is a weight for '{source}', but no text.{did_you_mean(source, sources)}")
    for source in sources:
        if weights and source not in weights:
            raise ConfigError(f"there is text for '{source}', but no weight; give it one, or leave it out.")
    return train_on_sample(
        {name: expand_inputs(patterns) for name, patterns in sources.items()},
        Path(output),
        vocab_size=vocab_size,
        digits=digits,
        weights={name: float(share) for name, share in shares(weights, "weights").items()} if weights else None,
        max_bytes=sample_bytes,
        seed=seed,
        text_field=text_field,
    )


def compare_tokenizers(tokenizers: Sequence[str], sources: Mapping[str, Sequence[str]], **settings: Any) -> Any:
    """Encode samples of sources with several tokenizers; see `firstlight.tokens.tokenizer_comparison`."""
    from firstlight.tokens import tokenizer_comparison

    return tokenizer_comparison.compare_tokenizers(tokenizers, sources, **settings)


def tokenize(
    files: Sequence[str],
    tokenizer: str | Path,
    output: str | Path,
    *,
    source: str | None = None,
    validation_fraction: float = 0.01,
    shard_tokens: int = 100_000_000,
    workers: int | None = None,
    ray: str | None = None,
    text_field: str = "text",
) -> Any:
    """Tokenize text files into a token dataset; returns the TokenDataset. `source`: its name; unset: the folder's."""
    from firstlight.documents import expand_inputs
    from firstlight.tokens.tokenize import tokenize_files
    from firstlight.tokens.tokenizer import Tokenizer

    _check_output(Path(output), "dataset.json", "a token dataset")
    return tokenize_files(
        expand_inputs(files),
        Tokenizer.load(str(tokenizer)),
        Path(output),
        source=source or Path(output).name,
        validation_fraction=validation_fraction,
        shard_tokens=shard_tokens,
        workers=workers,
        ray=ray,
        text_field=text_field,
    )


def generate(
    run: str | Path,
    prompt: str = "",
    *,
    step: int | None = None,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> Iterator[str]:
    """Text that the model of a run writes after `prompt`, piece by piece as it comes."""
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise ConfigError("the prompt is not valid UTF-8 text.")
    from firstlight.evaluation.generation import generate as write
    from firstlight.tokens.null import check_has_text
    from firstlight.training.load import load_trained
    from firstlight.training.run_folder import RunFolder

    check_has_text(RunFolder.open(run).tokenizer, "generation", Path(run))
    trained = load_trained(run, step, device)
    yield from write(
        trained.model,
        trained.tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )


def export(
    run: str | Path,
    folder: str | Path,
    *,
    format: str = "huggingface",
    step: int | None = None,
    dtype: str = "auto",
) -> Path:
    """Write the model of a run as a folder that `transformers` loads, or that Megatron-LM does; returns the folder.

    format: huggingface or megatron-checkpoint. dtype: float32, bfloat16 or float16; auto: that of the weights a model
    was imported with, else float32. No model is built: the memory that it takes is that of the largest tensor, a few
    times over.
    """
    if format not in ("huggingface", "megatron-checkpoint"):
        raise ConfigError(f"--format {format} is not known; known: huggingface, megatron-checkpoint.")
    from firstlight.interop import megatron_checkpoint
    from firstlight.interop.huggingface import export_huggingface
    from firstlight.interop.weights import weights_of_checkpoint
    from firstlight.pipeline.evaluated import recorded_evaluation
    from firstlight.planning.flops import training_flops_per_token
    from firstlight.tokens.null import check_has_text
    from firstlight.training.load import open_trained

    _check_output(Path(folder), "firstlight.json", "an earlier export")
    trained = open_trained(run, step)
    check_has_text(trained.tokenizer, "export", Path(run))
    recorded = recorded_evaluation(trained.run, trained.state["step"])
    length, tokens = trained.config.data.sequence_length, trained.state["tokens_consumed"]
    flops = tokens * training_flops_per_token(trained.config.model, length, trained.config.predicted_share)
    provenance = {
        **trained.run.provenance,
        "name": trained.config.name,
        "license": trained.config.license,
        "mixture": trained.config.data.mixture,
        "training": {
            "step": trained.state["step"],
            "tokens": tokens,
            "flops": f"{flops:.2e}",
            "sequence_length": length,
            "precision": trained.config.training.precision,
        },
        "evaluation": recorded.get("held_out") or trained.state.get("validation") or {},
        "tasks": recorded.get("tasks", {}),
    }
    weights = weights_of_checkpoint(trained.tensors, trained.config.model)
    if format == "megatron-checkpoint":
        step = trained.state["step"]
        summary = megatron_checkpoint.export_megatron(
            weights, trained.tokenizer, Path(folder), provenance=provenance, dtype=dtype, step=step
        )
        megatron_checkpoint.show_how_to_load(summary)
        return Path(folder)
    origin = trained.run.origin if trained.run.origin.is_dir() else None
    export_huggingface(weights, trained.tokenizer, Path(folder), provenance=provenance, dtype=dtype, origin=origin)
    return Path(folder)


def _check_output(folder: Path, marker: str, what: str) -> None:
    """Before any work: DataError or OSError when `folder` cannot be written, or holds something else than `what`."""
    if folder.name in ("", ".."):
        raise DataError(f"{folder}: give the output folder a name of its own.")
    check_writable(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: a file, where the output folder is due; choose another output.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise DataError(f"{folder}: not empty and not {what}; choose another output.")
