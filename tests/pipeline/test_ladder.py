"""A ladder trains once, goes on where it was killed, refuses to mix settings, and can be fitted from its folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from firstlight.cli.scaling import scaling_app
from firstlight.pipeline.ladder import TABLE, Ladder, is_finished, plan_ladder, train_ladder
from firstlight.pipeline.measured_runs import final_loss, read_measured
from firstlight.pipeline.scaling_picture import draw_fit
from firstlight.pipeline.scaling_report import FitReport
from firstlight.planning.flops import matmul_parameters, parameter_count
from firstlight.planning.scaling_fit import fit_scaling_law, hold_out
from firstlight.planning.scaling_laws import BESIROGLU
from firstlight.support.errors import ConfigError, DataError, DivergedError
from firstlight.training.run_folder import RunFolder
from firstlight.training.trainer import Trainer

SETTINGS = ("model.num_attention_heads=2", "training.total_steps=40", "training.global_batch_size=4")
SIZES, LENGTHS = (19e3, 29e3), (0.1,)

Plan = Callable[..., Ladder]


@pytest.fixture
def plan(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """`plan(folder, *overrides, sizes=…)`: a ladder of the tiny recipe, into a folder of this test."""
    monkeypatch.chdir(trained_folder)

    def make(folder: str = "ladder", *overrides: str, **settings: Any) -> Ladder:
        asked = {"sizes": SIZES, "tokens_per_parameter": LENGTHS, **settings}
        return plan_ladder("recipe.yaml", [*SETTINGS, *overrides], output=tmp_path / folder, **asked)

    return make


def losses(folder: Path) -> dict[str, float]:
    return {run.name: run.loss for run in read_measured([folder])}


def test_rungs_are_runs_that_are_trained_once(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ladder = plan()
    output = tmp_path / "ladder"
    assert not output.exists()
    assert set(train_ladder(ladder, output).values()) == {"finished"}
    table = json.loads((output / TABLE).read_text())["rungs"]
    assert {row["name"] for row in table} == {rung.name for rung in ladder.rungs}
    for rung in ladder.rungs:
        run = RunFolder.open(output / rung.name)
        assert is_finished(rung)
        (row,) = (row for row in table if row["name"] == rung.name)
        assert row["parameters"] == rung.parameters == matmul_parameters(run.config.model)
        assert row["parameters_total"] == parameter_count(run.config.model)
        assert (row["tokens"], row["flops"]) == (rung.tokens, pytest.approx(rung.flops))
        last = [json.loads(line) for line in run.metrics.read_text().splitlines()][-1]
        sums = [
            (last[f"validation/{name}/loss"], last[f"validation/{name}/tokens"]) for name in run.config.data.sources
        ]
        assert row["loss"] == pytest.approx(sum(loss * n for loss, n in sums) / sum(n for _, n in sums))

    before = {file: file.stat().st_mtime_ns for file in output.glob("*/metrics.jsonl")}
    capsys.readouterr()
    train_ladder(plan(), output)
    assert {file: file.stat().st_mtime_ns for file in output.glob("*/metrics.jsonl")} == before
    assert capsys.readouterr().err.count("finished before, kept") == 2

    train_ladder(plan(sizes=(19e3,), tokens_per_parameter=(0.3,)), output)
    assert len(losses(output)) == 3


def test_a_ladder_that_was_killed_goes_on_and_ends_the_same(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_size: dict[str, Any] = {"sizes": (19e3,), "tokens_per_parameter": (0.1, 0.2)}
    train_ladder(plan("whole", **one_size), tmp_path / "whole")
    step = Trainer.train_step
    steps = 0

    def killed(self: Trainer, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > first.config.steps(1) + 0.6 * second.config.steps(1):
            raise KeyboardInterrupt
        return step(self, *arguments)

    ladder = plan("cut", **one_size)
    first, second = ladder.rungs
    monkeypatch.setattr(Trainer, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_ladder(ladder, tmp_path / "cut")
    monkeypatch.setattr(Trainer, "train_step", step)
    assert [is_finished(rung) for rung in ladder.rungs] == [True, False]
    assert final_loss(RunFolder(tmp_path / "cut" / second.name), second.config.steps(1)) is None
    assert len(losses(tmp_path / "cut")) == 1
    train_ladder(ladder, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    events = (tmp_path / "cut" / second.name / "events.jsonl").read_text()
    assert '"resumed"' in events


def test_a_rung_of_other_settings_is_refused_before_anything_is_trained(plan: Plan, tmp_path: Path) -> None:
    train_ladder(plan(sizes=(19e3,)), tmp_path / "ladder")
    with pytest.raises(ConfigError, match=r"optimizer\.lr = .*another --output"):
        train_ladder(plan("ladder", "optimizer.lr=1e-2"), tmp_path / "ladder")
    assert len(losses(tmp_path / "ladder")) == 1


def test_a_rung_that_diverges_is_left_out(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = plan()
    fit = Trainer.fit

    def diverge(self: Trainer) -> None:
        if self.config.name == ladder.rungs[0].name:
            raise DivergedError("the loss is NaN.")
        fit(self)

    monkeypatch.setattr(Trainer, "fit", diverge)
    outcomes = train_ladder(ladder, tmp_path / "ladder")
    assert outcomes[ladder.rungs[0].name] == "diverged"
    assert list(outcomes.values()).count("finished") == 1
    assert len(losses(tmp_path / "ladder")) == 1


def test_a_budget_is_kept(plan: Plan) -> None:
    whole = plan()
    with pytest.raises(ConfigError, match=r"more than the budget of .* its last rung"):
        plan(budget_flops=0.5 * whole.flops)
    with pytest.raises(ConfigError, match=r"h here, more than the budget"):
        plan(budget_seconds=0.01 * whole.total_seconds)
    with pytest.raises(ConfigError, match="needs a budget"):
        plan(sizes=2)
    budget = 50 * whole.flops
    sized = plan(sizes=2, budget_flops=budget)
    assert 0.5 * budget < sized.flops <= budget
    assert len({rung.parameters for rung in sized.rungs}) == 2


def table(path: Path) -> Path:
    """Losses of a known law as a table of N, D and loss."""
    rows = [(n, n * ratio, BESIROGLU.loss(n, n * ratio)) for n in (1e8, 2e8, 4e8, 8e8) for ratio in (5, 20, 80)]
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["N", "D", "loss"])
        writer.writerows(rows)
    return path


def test_a_table_is_fitted_on_the_command_line(tmp_path: Path) -> None:
    file = table(tmp_path / "losses.csv")
    told = CliRunner().invoke(
        scaling_app,
        [*("fit", str(file), "--hold-out", "1"), *("--predict", "10B,0.2T", "--budget", "1e21"), "--json"],
        catch_exceptions=False,
    )
    found = json.loads(told.stdout)
    assert found["law"]["alpha"]["value"] == pytest.approx(BESIROGLU.alpha, rel=1e-3)
    assert len(found["runs"]) == 11
    assert abs(found["held_out"][0]["error"]) < 1e-4
    assert found["predictions"][0]["loss"]["value"] == pytest.approx(BESIROGLU.loss(1e10, 2e11), rel=1e-4)
    assert found["optima"][0]["parameters"]["value"] == pytest.approx(BESIROGLU.optimum(1e21).parameters, rel=1e-2)

    shown = CliRunner().invoke(scaling_app, ["fit", str(file), "--hold-out", "1", "--budget", "1e21"])
    assert "held out" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    from_csv = read_measured([table(tmp_path / "losses.csv")])
    rows = [{"parameters": run.parameters, "tokens": run.tokens, "loss": run.loss} for run in from_csv]
    (tmp_path / "losses.json").write_text(json.dumps(rows))
    assert read_measured([tmp_path / "losses.json"]) == from_csv


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("N,D\n1e8,2e9\n", "row 1: loss is missing"),
        ("N,D,loss\n1e8,2e9,-1\n", "loss is -1; a number above 0 is due"),
        ("N,D,loss\n", "without rows"),
    ],
)
def test_a_bad_table_is_told_of(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "losses.csv").write_text(content)
    with pytest.raises(DataError, match=sentence):
        read_measured([tmp_path / "losses.csv"])
    with pytest.raises(DataError, match="neither a run folder"):
        read_measured([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ladder", "quickstart", "--sizes", "big"], "--sizes big: a number above 0 is due"),
        (["ladder", "quickstart", "--sizes", "1M", "--budget", "soonh"], "--budget soon"),
        (["fit", "x.csv", "--predict", "1B"], "parameters and tokens are due"),
        (["fit", "x.csv", "--budget", "2h"], "FLOPs are due here"),
    ],
)
def test_a_slip_on_the_command_line_is_told_at_once(arguments: list[str], sentence: str) -> None:
    told = CliRunner().invoke(scaling_app, arguments)
    assert isinstance(told.exception, ConfigError)
    assert sentence in str(told.exception)


def test_the_picture_shows_every_run_and_is_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    fitted, left_out = hold_out(read_measured([table(tmp_path / "losses.csv")]), 1)
    fit = fit_scaling_law(fitted, samples=10)
    report = FitReport(fit, "given", [(run, fit.predict(run.parameters, run.tokens)) for run in left_out])
    for name in ("one.svg", "two.svg"):
        draw_fit(report, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    for text in ("held out", "best N", "N = 100M", "nats per held-out token"):
        assert text in drawn
