"""The page of a run: whole, without network, true to the records, with nothing that acts in it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from firstlight import pipeline
from firstlight.pipeline.reporting import gather, keep_sample, report_after_training
from firstlight.report.page import page
from firstlight.support.errors import CheckpointError, ConfigError
from firstlight.training.run_folder import RunFolder

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\x1b[2J\u202e&lt;"
VOID = {"meta", "br", "input", "img", "link"}


class Page(HTMLParser):
    """Tags, texts, scripts, and attributes of a page whose tags must close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not (self.open and self.open[-1] in ("script", "style")):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found.group(1))


@pytest.fixture
def run(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a trained run to spoil; its data are where they were."""
    monkeypatch.chdir(trained_folder)
    return shutil.copytree(trained_folder / "runs" / "tiny", tmp_path / "tiny")


def append(file: Path, *lines: dict[str, Any]) -> None:
    with file.open("a") as handle:
        handle.writelines(json.dumps(line) + "\n" for line in lines)


def long_metrics(run: Path, steps: int, **more: Any) -> None:
    """Another record: a loss that falls, with a jump at step 150."""
    lines = [
        {
            "step": step,
            "loss": 8.0 if step == 150 else 4.0 + 2.0 / step,
            "tokens_per_second": 100.0,
            "mfu": 0.25,
            "seconds": 2.0,
            "data_wait_fraction": 0.25,
            "save_seconds": 0.5 if step == 2 else 0.0,
            **more,
        }
        for step in range(1, steps + 1)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_training_leaves_a_page_in_the_run_folder(trained_folder: Path) -> None:
    text = (trained_folder / "runs" / "tiny" / "report.html").read_text(encoding="utf-8")
    seen = Page(text)
    assert "It reached its last step" in seen.text and "训练已完成" in seen.text
    assert "manual" in seen.text and "code" in seen.text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_page_is_whole_and_needs_nothing_else(run: Path, language: str, tmp_path: Path) -> None:
    file = pipeline.report([run], tmp_path / "page.html", language=language)  # type: ignore[arg-type]
    text = file.read_text(encoding="utf-8")
    seen = Page(text)
    for _, attributes in seen.tags:
        assert not {"src", "href", "srcset", "onclick", "onload"} & attributes.keys()
    assert "url(" not in text and "@import" not in text
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and "http-equiv" in a)
    assert policy and "default-src 'none'" in policy and "connect-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0] and "unsafe-eval" not in policy
    assert f'<html lang="{language}">' in text
    charts = data_of(text)["charts"]
    figures = [a["id"] for t, a in seen.tags if t == "figure"]
    assert figures == [f"chart-{chart['id']}" for chart in charts] and "chart-loss" in figures
    images = [a for t, a in seen.tags if a.get("role") == "img"]
    assert len(images) == len(charts) and all(a["aria-label"] and a["tabindex"] == "0" for a in images)
    assert text.count('lang="en"') - text.count('<html lang="en"') == text.count('lang="zh"') - text.count(
        '<html lang="zh"'
    )
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_curves_are_those_of_the_records(run: Path) -> None:
    (facts,) = gather([run])
    charts = {chart["id"]: chart for chart in data_of(page([facts]))["charts"]}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    (series,) = charts["loss"]["series"]
    assert series["x"] == [line["step"] for line in losses]
    assert series["y"] == pytest.approx([line["loss"] for line in losses], rel=1e-5)
    names = {one["name"][0] for one in charts["validation"]["variants"]["bits_per_byte"]}
    assert names == {"manual", "code"}
    assert facts.seconds == pytest.approx(
        sum(line.get("seconds", 0) + line.get("save_seconds", 0) + line.get("validation_seconds", 0) for line in lines)
    )
    assert {spelled.source for spelled in facts.spelled} == {"manual", "code"}
    assert facts.outcomes and facts.why_no_plan is None


def test_time_is_shared_out_and_events_are_marked(run: Path) -> None:
    long_metrics(run, 200)
    append(run / "metrics.jsonl", {"step": 200, "validation/a/b/loss": 4.5, "validation_seconds": 3.0})
    append(
        run / "events.jsonl",
        {"event": "skipped", "step": 150, "reason": "loss", "loss": 8.0, "limit": 5.0, "samples": [10, 20]},
        {"event": "rolled_back", "step": 180, "to_step": 160, "skipped_samples": [20, 30]},
        {"event": "stopped", "step": 200, "signal": "SIGTERM"},
    )
    (facts,) = gather([run])
    shares = {"compute": 300, "data": 100, "evaluation": 3, "checkpoints": 0.5}
    assert facts.shares == pytest.approx(shares) and facts.validation["loss"].keys() == {"a/b"}
    assert facts.clock is not None and facts.clock.values[-1] == pytest.approx(400.5)
    marks = {mark.kind: mark for mark in facts.marks}
    assert marks["skipped"].step == 150 and "limit 5" in marks["skipped"].said.en
    assert "step 160" in marks["rolled_back"].said.en and "10 samples" in marks["rolled_back"].said.en
    assert "SIGTERM" in marks["stopped"].said.zh
    text = Page(page([facts])).text
    assert "went back to step 160" in text and "skipped steps" in text


def test_a_jump_of_the_loss_that_nothing_skipped_is_marked(run: Path) -> None:
    long_metrics(run, 200)
    assert [mark.step for mark in gather([run])[0].marks if mark.kind == "spike"] == [150]


def test_nothing_of_others_acts(run: Path) -> None:
    append(run / "events.jsonl", {"event": "stopped", "step": 3, "signal": HOSTILE}, {"event": HOSTILE, "step": 4})
    append(run / "metrics.jsonl", {"step": 4, f"validation/{HOSTILE}/loss": 1.0})
    keep_sample(RunFolder(run), 4, HOSTILE, HOSTILE)
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["command"] = [HOSTILE]
    provenance["datasets"][HOSTILE] = {"path": HOSTILE, "text": [HOSTILE], "fingerprint": HOSTILE}
    (run / "provenance.json").write_text(json.dumps(provenance))
    hostile = run.rename(run.parent / "x<img src=x>")
    text = page(gather([hostile]))
    seen = Page(text)
    assert "\x1b" not in text and "\u202e" not in text and "<img" not in text and "<script>alert" not in text
    assert [t for t, _ in seen.tags].count("script") == 3
    assert "<script>alert('x')</script>" in seen.text
    assert "alert" in json.dumps(data_of(text))


def test_several_runs_lie_on_top_of_each_other(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("lr: 0.0003", "lr: 0.0007"))
    text = pipeline.report([run, other], tmp_path / "both.html").read_text(encoding="utf-8")
    seen, data = Page(text), data_of(text)
    assert [about["name"] for about in data["runs"]] == ["tiny", "other"]
    assert [series["run"] for series in data["charts"][0]["series"]] == [0, 1]
    assert "optimizer.lr" in seen.text and "0.0007" in seen.text
    differing = text.split('<section class="differences">')[1].split("</section>")[0]
    assert "optimizer.lr" in differing and "schedule.name" not in differing
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    with pytest.raises(ConfigError, match="named twice"):
        pipeline.report([run, run])


@pytest.mark.parametrize("missing", ["metrics.jsonl", "events.jsonl", "provenance.json", "checkpoints", "tokenizer"])
def test_what_is_missing_is_left_out(run: Path, missing: str) -> None:
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    Page(page(gather([run])))


def test_a_moved_run_without_its_data_has_a_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"tokens: .*tokens/", "tokens: /gone/tokens/", text))
    monkeypatch.chdir(run)
    (facts,) = gather([run])
    assert not facts.spelled and not facts.corpora
    Page(page([facts]))


def test_the_verb_ends_with_a_sentence_when_there_is_no_run(run: Path, firstlight, tmp_path: Path) -> None:
    assert "no such run folder" in firstlight("report", tmp_path / "nothing").sentence()
    assert "a folder" in firstlight("report", run, "--output", tmp_path).sentence()
    result = firstlight("report", run, "--language", "zh")
    assert result.code == 0 and "report.html" in result.stderr
    with pytest.raises(CheckpointError):
        pipeline.report([tmp_path])


def test_a_page_that_cannot_be_written_does_not_fail_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").unlink(missing_ok=True)
    (run / "report.html").mkdir()
    report_after_training(RunFolder(run))
    assert "no report: " in capsys.readouterr().err
