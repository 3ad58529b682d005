"""The verb `scaling ladder`: train the rungs of a ladder one after the other, as ordinary runs on the same tokens.

Every rung is a run folder of its own below the ladder's, with a recipe of its own beside them, so that everything that
works on runs works on rungs. Started again, finished rungs are skipped and one that was killed goes on; started with
further sizes or lengths, these are added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.pipeline.ladder_pace import seconds_per_flop
from firstlight.pipeline.measured_runs import final_loss, measured_run, runs_below
from firstlight.pipeline.run_training import check_supported, read_run_or_recipe, sample_stream, train_prepared
from firstlight.pipeline.stages import Prepared, prepare
from firstlight.planning.flops import parameter_count
from firstlight.planning.ladder import LadderRules, Rung, make_ladder, sizes_for_budget
from firstlight.recipe import config_diff, dump_config
from firstlight.support.console import heading, human_seconds, note, warn
from firstlight.support.errors import ConfigError, DivergedError
from firstlight.support.files import atomic_file, folder_lock, write_json
from firstlight.support.ranks import world_size
from firstlight.tokens.sources import open_source
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.device import choose_device, peak_flops
from firstlight.training.run_folder import RunFolder

TABLE = "ladder.json"
RECIPES = "recipes"
_DECIDES_THE_LOSS = (
    *("model.", "data.", "optimizer.", "schedule.", "seed"),
    *("training.total_steps", "training.global_batch_size"),
)
_DECIDED_BY_STAGES = ("data.directory", "data.sources.", "data.max_epochs", "model.vocab_", "model.max_position")
_SIZING_ROUNDS = 8
_WELL_USED = 0.85
"""Share of a budget that is enough; shapes are whole numbers, so that it is seldom met."""
_LIKELY_SHARE_OF_PEAK = 0.3
"""Where the search for sizes that fit into some hours begins."""


@dataclass(frozen=True)
class Ladder:
    """A recipe and the rungs that follow from it, cheapest first."""

    recipe: RunConfig
    rungs: list[Rung]
    seconds: dict[str, float]
    """Expected time of each rung by name, on this machine."""

    @property
    def flops(self) -> float:
        return sum(rung.flops for rung in self.rungs)

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def plan_ladder(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    sizes: Sequence[float] | int,
    tokens_per_parameter: Sequence[float],
    output: str | Path,
    budget_flops: float | None = None,
    budget_seconds: float | None = None,
    rules: LadderRules | None = None,
) -> Ladder:
    """What a ladder of a recipe would be; nothing is started or written.

    sizes: matmul parameters of each, or how many, and the budget then says how large they are. A few steps of the
    sizes are timed with random tokens. ConfigError where the rungs cost more than the budget, or the recipe cannot
    give them.
    """
    if world_size() > 1:
        raise ConfigError(
            "a ladder trains one rung after the other in one process; start it without torchrun. To train a rung on "
            f"several processes, launch its recipe in {Path(output) / RECIPES}; the ladder then finds it finished."
        )
    config = read_run_or_recipe(recipe, overrides)
    vocab_size = _tokenizer_size(config)

    def rungs_of(sizes: Sequence[float]) -> list[Rung]:
        rungs = make_ladder(config, vocab_size, sizes, tokens_per_parameter, str(output), rules)
        check_supported(rungs[0].config)
        return rungs

    if not isinstance(sizes, int):
        rungs = rungs_of(sizes)
        ladder = Ladder(config, rungs, _seconds(rungs))
        _check_budget(ladder, budget_flops, budget_seconds)
        return ladder
    if budget_flops is None and budget_seconds is None:
        raise ConfigError("a number of sizes needs a budget, as in --budget 1e16 (FLOPs) or --budget 2h.")
    flops = budget_flops or _LIKELY_SHARE_OF_PEAK * _peak_flops(config) * (budget_seconds or 0.0)
    for _ in range(_SIZING_ROUNDS):
        rungs = rungs_of(sizes_for_budget(sizes, tokens_per_parameter, flops))
        ladder = Ladder(config, rungs, _seconds(rungs))
        used = max(ladder.flops / (budget_flops or math.inf), ladder.total_seconds / (budget_seconds or math.inf))
        if _WELL_USED <= used <= 1:
            break
        flops *= 0.97 / used
    _check_budget(ladder, budget_flops, budget_seconds)
    return ladder


def train_ladder(ladder: Ladder, output: str | Path) -> dict[str, str]:
    """Train every rung that is not finished; returns {name: finished or diverged} and writes OUTPUT/ladder.json.

    Text is prepared once. A rung that diverges is noted, and the next one begins. ConfigError where a run in `output`
    has the name of a rung and other settings.
    """
    output = Path(output)
    for rung in ladder.rungs:
        _check_same(rung)
    outcomes: dict[str, str] = {}
    with folder_lock(output, "the ladder"):
        write_recipes(ladder.rungs, output)
        prepared = prepare(ladder.recipe)
        ready = [(rung, _prepared(rung.config, prepared)) for rung in ladder.rungs]
        for _, of_rung in ready:  # before hours are spent on the first ones
            batch = of_rung.config.batch(1).global_batch_size
            sample_stream(of_rung).check_supply(of_rung.config.steps(1) * batch, batch)
        for number, (rung, of_rung) in enumerate(ready, 1):
            if is_finished(rung):
                note(f"{rung.config.run_folder}: finished before, kept")
                outcomes[rung.name] = "finished"
                continue
            heading(f"rung {number} of {len(ready)}: {rung.name}")
            try:
                train_prepared(rung.config, of_rung)
                outcomes[rung.name] = "finished"
            except DivergedError as problem:
                warn(f"{rung.name}: {problem} The fit will leave it out.")
                outcomes[rung.name] = "diverged"
            write_json(output / TABLE, ladder_table(output))
        write_json(output / TABLE, ladder_table(output))
    return outcomes


def write_recipes(rungs: Sequence[Rung], output: Path) -> None:
    """A recipe of each rung in OUTPUT/recipes, to train it in another way, or to look at."""
    for rung in rungs:
        with atomic_file(output / RECIPES / f"{rung.name}.yaml", "w") as handle:
            handle.write(dump_config(rung.config))


def ladder_table(output: Path) -> dict[str, Any]:
    """What `scaling fit` needs of every finished run below `output`, and the counts of parameters beside each other."""
    rows = []
    for run in runs_below(output):
        measured = measured_run(run)
        if measured is None:
            continue
        model = run.config.model
        row = {
            "name": measured.name,
            "parameters": int(measured.parameters),
            "parameters_of_blocks": int(measured_run(run, "blocks").parameters),  # type: ignore[union-attr]
            "parameters_total": parameter_count(model),
            "tokens": int(measured.tokens),
            "flops": measured.flops,
            "loss": measured.loss,
            "hidden_size": model.hidden_size,
            "num_hidden_layers": model.num_hidden_layers,
            "lr": run.config.optimizer.lr,
            "global_batch_size": run.config.training.global_batch_size,
        }
        rows.append(row)
    return {"rungs": sorted(rows, key=lambda row: (row["parameters"], row["tokens"]))}


def is_finished(rung: Rung) -> bool:
    """Whether the rung's run has reached its last step, with its checkpoint and its validation."""
    run = RunFolder(rung.config.run_folder)
    steps = rung.config.steps(1)
    return run.exists and run.last_step() == steps and final_loss(run, steps) is not None


def _check_same(rung: Rung) -> None:
    """ConfigError where the rung's folder holds a run of other settings, so that its loss is that of something else."""
    run = RunFolder(rung.config.run_folder)
    if not run.exists:
        run.check_place()
        return
    asked = rung.config.model_copy(update={"model": rung.model})
    for key, before, after in config_diff(run.config, asked):
        if key.startswith(_DECIDES_THE_LOSS) and not key.startswith(_DECIDED_BY_STAGES):
            raise ConfigError(
                f"{run.path}: this rung was begun with {key} = {before!r}, now it would be {after!r}; "
                "give another --output, or move the run away."
            )


def _check_budget(ladder: Ladder, budget_flops: float | None, budget_seconds: float | None) -> None:
    last = ladder.rungs[-1]
    seconds = ladder.total_seconds
    advice = "leave out the largest size or the longest length, or raise the budget."
    if budget_flops is not None and ladder.flops > budget_flops:
        raise ConfigError(
            f"the ladder needs {ladder.flops:.2e} FLOPs, more than the budget of {budget_flops:.2e}; its last rung "
            f"{last.name} alone needs {last.flops:.2e}: {advice}"
        )
    if budget_seconds is not None and seconds > budget_seconds:
        raise ConfigError(
            f"the ladder needs about {seconds / 3600:.2g} h here, more than the budget of {budget_seconds / 3600:.2g} "
            f"h; its last rung {last.name} alone needs {ladder.seconds[last.name] / 3600:.2g} h: {advice}"
        )


def _seconds(rungs: Sequence[Rung]) -> dict[str, float]:
    rates = seconds_per_flop(rungs)
    return {rung.name: rate * rung.flops for rung, rate in zip(rungs, rates, strict=True)}


def _peak_flops(config: RunConfig) -> float:
    return peak_flops(choose_device(config.training.device), config.training.precision)[0]


def _prepared(config: RunConfig, prepared: Prepared) -> Prepared:
    """What a rung starts from: its own settings, the tokens that all share."""
    model = config.model.resolved(prepared.tokenizer.vocab_size, config.data.sequence_length)
    return replace(prepared, config=config.model_copy(update={"data": prepared.config.data, "model": model}))


def _tokenizer_size(config: RunConfig) -> int:
    """Tokens of the vocabulary that the recipe's stages will have."""
    if config.tokenizer.path:
        return Tokenizer.load(config.tokenizer.path).vocab_size
    for source in config.data.sources.values():
        folder = open_source(source, config.data.split).folder if source.tokens or source.validation_tokens else None
        if folder:
            return folder.vocab_size
    if not any(source.text for source in config.data.sources.values()) and config.model.vocab_size:
        return config.model.vocab_size
    return config.tokenizer.vocab_size


def describe_ladder(ladder: Ladder) -> str:
    """One line: rungs, compute, time."""
    sizes = {rung.parameters for rung in ladder.rungs}
    cost = f"{ladder.flops:.1e} FLOPs, about {human_seconds(ladder.total_seconds)} here"
    return f"{len(ladder.rungs)} rungs of {len(sizes)} sizes, {cost}"
