"""The whole way in minutes: text → tokens → training → evaluation → sample → export → what to do next.

Training is given a time, not a number of steps: a few steps are timed on this machine first, and the number that fits
becomes `training.total_steps` of the run, whose schedule needs to know its end.
"""

from __future__ import annotations

import itertools
import shlex
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from firstlight.config import RunConfig
from firstlight.evaluation.generation import generate
from firstlight.parallel.compile import why_not_compile
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.precision import COMPUTE_TYPES
from firstlight.parallel.ranks import Ranks
from firstlight.pipeline.filling import show_filled
from firstlight.pipeline.reporting import REPORT, keep_sample, report_after_training
from firstlight.pipeline.run_training import check_before_work, sample_stream, train_prepared
from firstlight.pipeline.scoring import Scores, evaluate
from firstlight.pipeline.show import show_scores
from firstlight.pipeline.stages import Prepared, prepare
from firstlight.pipeline.verbs import export
from firstlight.planning.hardware import measured_peak_flops
from firstlight.recipe import apply_overrides, parse_config, read_recipe
from firstlight.support.console import command, heading, human_seconds, note, out, printable, progress, warn
from firstlight.support.errors import ConfigError
from firstlight.tokens.objective import objective_of
from firstlight.training.device import choose_device
from firstlight.training.load import load_trained
from firstlight.training.run_folder import RunFolder
from firstlight.training.trainer import Trainer

WARM_UP_STEPS = 3
TIMED_STEPS = 8
FEWEST_STEPS = 20
HIDDEN_FRACTION = 0.3
"""Share of the tokens that a masked quickstart hides unless it is told: it reads few, and learns from the hidden ones
(Wettig et al. 2023, arXiv:2202.08005, find that up to 40 % teach more than the usual 15 %)."""
STARTER_PROMPT = "My fellow citizens,"
"""How the sample begins when the text is the packaged one and no prompt is given."""


def quickstart(
    data: Mapping[str, Sequence[str]] | None = None,
    *,
    minutes: float = 4.0,
    name: str | None = None,
    prompt: str = "",
    overrides: Sequence[str] = (),
) -> RunFolder:
    """Run every stage on `data` (domain → files; unset: packaged text) and train for about `minutes`.

    Run again, it goes on where it was: kept stages are not repeated, an interrupted training is resumed. name: of the
    run; unset: quickstart, or quickstart-masked where `overrides` make the model a masked one. prompt: how the sample
    of text begins; of a masked model the text in which words are hidden; unset: packaged or held-out text.
    """
    began = time.monotonic()
    config = parse_config(_settings(data or {}, name or "quickstart", overrides), "quickstart")
    if not config.model.causal:
        config = _masked(config, name, overrides)
    run = check_before_work(config)
    prepared = prepare(config)
    if run.exists:
        config = _same_length(config, run.config)
    elif config.training.total_tokens is None and not any(o.startswith("training.total_steps=") for o in overrides):
        config = _paced(config, prepared, minutes)
    run = train_prepared(config, replace(prepared, config=_with_pace(prepared.config, config)))
    heading("evaluate: held-out text")
    if prepared.held_out:
        scores = evaluate(run.path, pseudo_tokens=0)
    else:
        scores = {}
        warn("no document was held out, so nothing is evaluated; give several files, or JSON lines of many documents.")
    if config.model.causal:
        heading("sample: what the model writes")
        prompt = prompt or ("" if data else STARTER_PROMPT)
        written = "".join(_sample(run.path, prompt))
        out.print(printable(prompt + written), markup=False)
        keep_sample(run, config.steps(world_size=1), prompt, written)
    else:
        heading("sample: what the model fills in")
        show_filled(run.path, prompt, prepared.held_out)
    heading("export: Hugging Face format")
    folder = export(run.path, run.path / "huggingface")
    report_after_training(run)  # again, with the sample
    _summary(config, run, scores, folder, time.monotonic() - began, prompt or "The")
    return run


def _settings(data: Mapping[str, Sequence[str]], name: str, overrides: Sequence[str]) -> dict[str, Any]:
    tree, _ = read_recipe("quickstart")
    tree["name"] = name
    if data:
        tree["data"]["sources"] = {source: {"text": list(files)} for source, files in data.items()}
        tree["data"].pop("mixture")
    apply_overrides(tree, overrides)
    return tree


def _masked(config: RunConfig, name: str | None, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a masked run with a name of its own and a larger share hidden, where neither is chosen."""
    changes: dict[str, Any] = {}
    if name is None and config.name == "quickstart":
        changes["name"] = "quickstart-masked"
    if not any(override.startswith("masking") for override in overrides):
        changes["masking"] = config.masking.model_copy(update={"fraction": HIDDEN_FRACTION})
    return config.model_copy(update=changes)


def _same_length(config: RunConfig, before: RunConfig) -> RunConfig:
    """The length and precision that an earlier start of the same run chose."""
    chosen = {"total_steps": before.training.total_steps, "precision": before.training.precision}
    return config.model_copy(update={"training": config.training.model_copy(update=chosen)})


def _paced(config: RunConfig, prepared: Prepared, minutes: float) -> RunConfig:
    """The same configuration with the precision that is fast here and as many steps as fit into `minutes`."""
    heading("pace: a few steps to learn how fast this machine is")
    device = choose_device(config.training.device)
    training = config.training
    if device.type == "cpu" and training.precision == "bf16":
        rates = {p: measured_peak_flops(device, COMPUTE_TYPES[p], seconds=0.2) for p in ("bf16", "fp32")}
        if rates["fp32"] > rates["bf16"]:
            note(f"bf16 is {rates['fp32'] / rates['bf16']:.1f}× slower than fp32 on this CPU: fp32 is used")
            training = training.model_copy(update={"precision": "fp32"})
    seconds = _seconds_per_step(prepared.config.model_copy(update={"training": training}), prepared, device)
    wanted = max(FEWEST_STEPS, round(60 * minutes / seconds))
    steps = sample_stream(prepared).longest_run(wanted, config.batch(1).global_batch_size)
    if steps < 1:
        raise ConfigError("the text is too short for a single training step; give more text with --data.")
    note(f"{seconds:.2f} s a step: {steps} steps take about {human_seconds(steps * seconds)}")
    if steps < wanted:
        note(f"(more would pass over a source more than data.max_epochs={config.data.max_epochs:g} times)")
    interval = -(-steps // 4)
    warmup = min(config.schedule.warmup_steps or 0, steps // 5)
    return config.model_copy(
        update={
            "training": training.model_copy(update={"total_steps": steps}),
            "schedule": config.schedule.model_copy(update={"warmup_steps": warmup}),
            "evaluation": config.evaluation.model_copy(update={"interval_steps": interval}),
            "checkpoint": config.checkpoint.model_copy(update={"interval_steps": interval}),
        }
    )


def _with_pace(resolved: RunConfig, paced: RunConfig) -> RunConfig:
    """The resolved configuration with the sections that pacing decides."""
    sections = ("training", "schedule", "evaluation", "checkpoint")
    return resolved.model_copy(update={name: getattr(paced, name) for name in sections})


def _seconds_per_step(config: RunConfig, prepared: Prepared, device: torch.device) -> float:
    """Median time of a training step, compilation and warm-up left out; the model is thrown away."""
    compile_blocks = config.training.compile and why_not_compile(device) is None
    model = ParallelModel(config, Ranks(device=device), compile_blocks=compile_blocks)
    model.materialize()
    model.init_weights()
    run = RunFolder(config.run_folder, writes=False)
    objective, eod_id = objective_of(config, prepared.tokenizer), prepared.tokenizer.eod_id
    stream = sample_stream(prepared, in_memory=True)
    trainer = Trainer(config, run, model, stream, objective=objective, eod_id=eod_id, peak_flops=1.0)
    times = []
    steps = WARM_UP_STEPS + TIMED_STEPS
    with progress("time", steps, "steps") as bar, trainer.batches() as batches:
        bar.show("compiling" if config.training.compile else "")
        for batch in itertools.islice(batches, steps):
            started = time.perf_counter()
            trainer.train_step(batch)
            times.append(time.perf_counter() - started)
            bar.advance()
            bar.show("")
    return statistics.median(times[WARM_UP_STEPS:])


def _sample(run: Path, prompt: str) -> Iterator[str]:
    trained = load_trained(run, device="cpu")
    yield from generate(
        trained.model, trained.tokenizer, prompt, max_new_tokens=120, temperature=0.8, top_p=0.95, seed=1
    )


def _summary(
    config: RunConfig,
    run: RunFolder,
    scores: Scores,
    folder: Path,
    seconds: float,
    prompt: str,
) -> None:
    heading(f"done in {human_seconds(seconds)}{': held-out text' if scores else ''}")
    if scores:
        show_scores(scores)
    here = run.path
    note("")
    for what, where in (
        ("settings", run.config_file),
        ("metrics", run.metrics),
        ("checkpoints", run.checkpoints),
        ("data", Path(config.data.directory)),
        ("for Hugging Face", folder),
        ("page of the run", here / REPORT),
    ):
        note(f"  {what + ':':<18}{where}")
    note("\nWhat next:")
    more = ("more text from the model", f"firstlight generate {here} --prompt {shlex.quote(prompt)}")
    if not config.model.causal:
        more = ("hidden words of a text of yours", f"firstlight fill {here} 'The {run.tokenizer.mask_token} of the'")
    for purpose, line in (
        more,
        ("scores on text of yours", f"firstlight eval {here} --data mine='my-texts/*.txt'"),
        ("train on", f"firstlight train {here} training.total_steps={2 * config.steps(world_size=1)}"),
        ("a model of your own text", "firstlight quickstart --name mine --data books='my-texts/*.txt'"),
        ("a recipe to edit", "firstlight init quickstart mine.yaml && firstlight train mine.yaml"),
    ):
        note(f"  {purpose}:")
        command(line)
