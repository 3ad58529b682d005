"""The verb `doctor` on run folders: a real clean run, records that were cut short or tampered with, exit codes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from firstlight import pipeline
from firstlight.pipeline.diagnosing import read_lines, read_record
from firstlight.support.errors import EXIT_PROBLEMS, EXIT_WARNINGS, CheckpointError
from firstlight.support.files import folder_lock, in_use
from firstlight.training.run_folder import RunFolder

ORDER = "\x1b[2J\x1b]0;title\x07\u202e"


@pytest.fixture(scope="module")
def clean_run(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 250 steps on real text, every step logged."""
    folder = tmp_path_factory.mktemp("clean")
    recipe = yaml.safe_load((trained_folder / "recipe.yaml").read_text())
    for source in recipe["data"]["sources"].values():
        source["tokens"] = str(trained_folder / source["tokens"])
    recipe |= {"name": "clean", "runs_directory": str(folder)}
    recipe["data"]["mixture"] = {"manual": 0.6, "code": 0.4}
    recipe["optimizer"] = {"lr": 3e-3, "min_lr": 3e-4}
    recipe["schedule"] = {"warmup_steps": 10}
    recipe["training"]["total_steps"] = 250
    recipe["checkpoint"] = {"interval_steps": 50}
    recipe["evaluation"] = {"interval_steps": 50, "max_tokens": 2000}
    recipe["logging"] = {"interval_steps": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return pipeline.train(folder / "recipe.yaml").path


@pytest.fixture
def run(clean_run: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(clean_run, tmp_path / "run")


def rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    lines = [json.dumps(change(json.loads(line))) for line in file.read_text().splitlines()]
    file.write_text("".join(f"{line}\n" for line in lines))


def append(file: Path, *lines: dict[str, Any]) -> None:
    with file.open("a") as handle:
        handle.writelines(json.dumps(line) + "\n" for line in lines)


def severities(path: Path) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in pipeline.doctor(path)[1].findings}


def test_a_clean_run_has_nothing_worse_than_notes(clean_run, firstlight):
    record, diagnosis = pipeline.doctor(clean_run)
    speed = "slower steps"  # what else the machine does meanwhile is no property of the run
    assert [f for f in diagnosis.findings if f.severity != "note" and f.kind != speed] == []
    assert set(diagnosis.not_looked_at) <= {"loss scale", "communication", "scaling law", "plateau", "parameter norm"}
    assert record.last_step == record.total_steps == 250
    if speed not in severities(clean_run):
        result = firstlight("doctor", clean_run)
        assert result.code == 0
        assert "step 250 of 250" in result.stdout and "Looked at: loss spikes, not finite" in result.stdout


def test_sources_are_counted_as_the_stream_draws_them(clean_run):
    sources = pipeline.doctor(clean_run)[0].sources
    assert sum(source.drawn for source in sources.values()) == 250 * 8
    assert sources["manual"].drawn == pytest.approx(0.6 * 2000, abs=16)
    assert sources["manual"].wanted == pytest.approx(0.6)
    assert all(source.epochs == source.epochs_at_end > 0 for source in sources.values())


def test_samples_of_skipped_steps_are_counted_by_source_and_once(run):
    skipped = [{"event": "skipped", "step": step, "samples": [8 * step - 8, 8 * step]} for step in range(101, 117)]
    back = {"event": "rolled_back", "step": 116, "to_step": 100, "skipped_samples": [800, 928]}
    append(run / "events.jsonl", *skipped, back, {"event": "finished", "step": 250})
    sources = pipeline.doctor(run)[0].sources
    assert sum(source.skipped for source in sources.values()) == 128
    assert sources["manual"].skipped == pytest.approx(0.6 * 128, abs=16)


def test_metrics_that_go_back_count_from_where_they_go_on(run):
    before = (run / "metrics.jsonl").read_text().splitlines()
    again = [json.dumps({**json.loads(line), "loss": 1.0}) for line in before if 100 < json.loads(line)["step"] <= 120]
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in before[:130] + again))
    record = read_record(RunFolder.open(run))
    steps = [line["step"] for line in record.metrics if "loss" in line]
    assert steps == list(range(1, 121))
    assert [line["loss"] for line in record.metrics if line["step"] == 110] == [1.0]


def test_lines_cut_short_and_lines_of_another_kind_are_left_out_and_counted(run, firstlight):
    with (run / "metrics.jsonl").open("ab") as handle:
        handle.write(b'{"step": 7\n[1, 2]\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"step": 251, "lo')
    with (run / "events.jsonl").open("ab") as handle:
        handle.write(b'{"time": "now", "event": 3}\n{"event": "finished", "step": 250}\n')
    lines, bad = read_lines(run / "metrics.jsonl")
    assert bad == 4 and all(isinstance(line, dict) for line in lines)
    result = firstlight("doctor", run)
    assert result.code in (0, EXIT_WARNINGS)
    assert "4 lines of metrics.jsonl cannot be read" in result.stdout


def test_a_run_without_its_small_files_is_looked_at_all_the_same(run, firstlight):
    for name in ("metrics.jsonl", "events.jsonl", "provenance.json"):
        (run / name).unlink()
    result = firstlight("doctor", run)
    assert "Not looked at: loss spikes (no loss)" in result.stdout
    assert "repeated text (provenance.json does not say how large the sources are)" in result.stdout
    assert "Traceback" not in result.stderr


def test_a_running_run_is_told_from_a_killed_one(run, firstlight):
    (run / "events.jsonl").unlink()
    assert severities(run)["ended without a word"] == "warning"
    with folder_lock(run, "the run"):
        assert in_use(run)
        assert "ended without a word" not in severities(run)
        assert re.search(r"loss \d\.\d+; running$", firstlight("doctor", run).stdout.splitlines()[0])
    assert not in_use(run)


def test_exit_codes_and_json_follow_the_worst_finding(run, firstlight):
    append(run / "events.jsonl", {"event": "stopped", "step": 250, "signal": "SIGTERM"})
    rewrite(run / "metrics.jsonl", lambda line: {**line, **({"tokens_per_second": 1e4} if "loss" in line else {})})
    assert firstlight("doctor", run).code == 0
    rewrite(run / "metrics.jsonl", lambda line: {**line, **({"data_wait_fraction": 0.5} if "loss" in line else {})})
    assert firstlight("doctor", run).code == EXIT_WARNINGS == 10
    append(run / "events.jsonl", {"event": "diverged", "step": 251, "loss": "nan", "grad_norm": "nan"})
    result = firstlight("doctor", run, "--json")
    assert result.code == EXIT_PROBLEMS == 11
    found = json.loads(result.stdout)
    assert found["findings"][0]["kind"] == "diverged"
    assert found["counts"]["problem"] == 1 and found["counts"]["warning"] >= 1
    assert found["running"] is False and found["last_event"] == "diverged" and found["step"] == 251
    assert set(found["looked_at"]).isdisjoint(found["not_looked_at"])


def test_planted_trouble_in_a_real_curve_is_found(run):
    rewrite(
        run / "metrics.jsonl",
        lambda line: {**line, **({"loss": line["loss"] + 2} if "loss" in line and line["step"] > 200 else {})},
    )
    found = severities(run)
    assert found["loss spike without return"] == found["rising loss"] == "problem"


def test_what_the_guard_wrote_is_told_with_samples_and_text(clean_run, tmp_path):
    nervous = ["stability.loss_deviations=0.05", "stability.least_steps=4", "stability.rollback_after=1000"]
    flat = ["optimizer.lr=1e-6", "optimizer.min_lr=1e-7", "training.total_steps=40"]
    given = [f"runs_directory={tmp_path}", *flat, *nervous]
    run = pipeline.train(clean_run.parent / "recipe.yaml", given)
    record, diagnosis = pipeline.doctor(run.path)
    (found,) = [finding for finding in diagnosis.findings if finding.kind == "skipped steps"]
    assert found.severity == "warning"
    assert re.match(r"step \d+, samples \d+ to \d+: loss \d\.\d+, gradient norm \S+, limit \d\.\d+$", found.examples[0])
    assert re.match(r"(manual|code), document \d+: “\S", found.examples[1])
    assert sum(source.skipped for source in record.sources.values()) == 8 * len(record.of_kind("skipped"))


def test_text_fits_the_terminal_and_cannot_give_it_orders(run, run_firstlight, monkeypatch):
    document = {"source": f"we{ORDER}b", "document": 3, "text": f"汉字{ORDER}" * 40}
    numbers = {"reason": f"{ORDER}", "loss": 9.0, "limit": 5.0, "samples": [816, 824], "documents": [document]}
    append(run / "events.jsonl", {"event": "skipped", "step": 103, **numbers})
    append(run / "events.jsonl", {"event": "stopped", "step": 250, "signal": ORDER})
    monkeypatch.setenv("FORCE_COLOR", "")
    result = run_firstlight("doctor", run, env={"COLUMNS": "80", "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"})
    assert "step 103, samples 816 to 823" in result.stdout
    assert "汉字" in result.stdout
    for character in ("\x07", "\u202e", "\x1b]", "\x1b[2J"):
        assert character not in result.stdout
    from rich.cells import cell_len

    path = str(run)
    for line in re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines():
        assert cell_len(line) <= 80 or path in line, line


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_other_folders_are_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        pipeline.doctor(tmp_path / name)
