"""How a plan is shown: within its columns, the same in Chinese, and a page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

from firstlight.cli.plan import plan as verb
from firstlight.pipeline.plan_page import page
from firstlight.pipeline.plan_pictures import curves, stacked_bars
from firstlight.pipeline.plan_tables import exit_code, show_plan
from firstlight.pipeline.planning import plan
from firstlight.planning.plan import Plan
from firstlight.support.errors import EXIT_PROBLEMS

VOID = {"meta", "link", "br", "rect", "line", "polyline"}


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Of many kinds: several pipeline ranks, a masked model, no time at all, nothing that fits, this machine."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("firstlight.pipeline.plan_machines.peak_flops", lambda device, precision: (1e11, "made up"))
    made = {
        "pipeline": plan("llama-7b", gpus=16, gpu="a100"),
        "masked": plan("bert-base", gpu="h100"),
        "no time": plan("llama-1b", gpu="v100"),
        "too large": plan("llama-7b", ["training.precision=bf16"], gpus=2, gpu="rtx-4090"),
        "here": plan("quickstart"),
    }
    monkeypatch.undo()
    return made


class Page(HTMLParser):
    """Tags that are open, what they hold, and addresses."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(text: str) -> Page:
    parser = Page()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["pipeline", "masked", "no time", "too large", "here"])
def test_a_page_is_whole_and_needs_nothing_else(plans: dict[str, Plan], kind: str, language: str) -> None:
    text = page(plans[kind], language)  # type: ignore[arg-type]
    read_page = read(text)
    assert read_page.addresses == [] and "script" not in read_page.tags and "@import" not in text
    assert "url(" not in text
    assert f'<html lang="{language}">' in text and "prefers-color-scheme: dark" in text and "@media print" in text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().split()
    for finding in plans[kind].consistency.findings:
        assert finding.evidence in "".join(read_page.texts)


def test_the_page_says_what_the_plan_says(plans: dict[str, Plan]) -> None:
    made = plans["pipeline"]
    text = "".join(read(page(made)).texts)
    assert "6.74B" in text and "629B tokens" in text
    assert made.search is not None
    for ranked, overrides in zip(made.search.best, made.overrides, strict=True):
        assert " ".join(overrides) in text and f"{ranked.step.seconds:.3g}" in text


def test_chinese_has_no_english_headings(plans: dict[str, Plan]) -> None:
    for made in plans.values():
        headings = re.findall(r"<h2>(.*?)</h2>", page(made, "zh"))
        assert headings and not any(re.search(r"[A-Za-z]{3}", heading) for heading in headings)


def test_text_of_others_is_escaped(plans: dict[str, Plan]) -> None:
    hostile = "<script>alert('x')</script>\x1b[2J\u202e"
    made = replace(plans["pipeline"], assumptions=(hostile,), source_tokens={hostile: 10}, source_epochs={hostile: 1.0})
    text = page(made)
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    assert "&lt;script&gt;" in text
    read(text)


def test_bars_are_as_long_as_their_numbers() -> None:
    rows = [("a", {"x": 10.0, "y": 30.0}), ("b", {"x": 5.0, "y": 0.0})]
    picture = stacked_bars(rows, lambda value: f"{value:g} GB", "memory", ("limit", 80.0))
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', picture)]
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.01) and widths[0] == pytest.approx(2 * widths[2], rel=0.01)
    assert "40 GB" in picture and "limit 80 GB" in picture


def test_curves_stay_in_the_picture_and_keep_their_order() -> None:
    lines = {"law": [(1e9, 4.0), (1e10, 3.0), (1e11, 2.5)], "other": [(1e9, 3.5), (1e11, 2.0)]}
    picture = curves(lines, ("here", 1e10), "tokens", "loss", "loss")
    for points in re.findall(r'polyline points="([^"]+)"', picture):
        places = [tuple(map(float, point.split(","))) for point in points.split()]
        assert [x for x, _ in places] == sorted(x for x, _ in places)
        assert [y for _, y in places] == sorted(y for _, y in places)  # down the page, as losses fall
        assert all(0 <= x <= 760 and 0 <= y <= 300 for x, y in places)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["pipeline", "masked", "no time", "too large", "here"])
@pytest.mark.parametrize("columns", [80, 100])
def test_the_terminal_shows_all_of_it_within_its_columns(
    plans: dict[str, Plan],
    kind: str,
    language: str,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("firstlight.support.console.out._width", columns)
    made = plans[kind]
    show_plan(made, language)  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert max(map(cell_len, shown.splitlines())) <= columns
    flat = re.sub(r"\s+", "", shown)
    for finding in made.consistency.findings:
        assert re.sub(r"\s+", "", finding.evidence + finding.remedy).replace(" ", "") != "" and finding.kind in shown
        assert re.sub(r"\s+", "", finding.remedy) in flat
    for overrides in made.overrides:
        assert re.sub(r"\s+", "", "".join(overrides)) in flat


def test_nothing_that_fits_is_said(plans: dict[str, Plan], capsys: pytest.CaptureFixture[str]) -> None:
    made = plans["too large"]
    assert made.search is not None and made.search.best == ()
    show_plan(made)
    shown = " ".join(capsys.readouterr().out.split())
    assert "fits" in shown and "the nearest lacks" in shown
    assert exit_code(made) == EXIT_PROBLEMS and exit_code(plans["pipeline"]) == 0


@pytest.fixture
def run_verb() -> Callable[..., object]:
    app = typer.Typer()
    app.command()(verb)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_verb_writes_table_json_and_page(run_verb: Callable, tmp_path: Path) -> None:
    file = tmp_path / "plan.html"
    result = run_verb("llama-1b", "--gpu", "h100", "--tokens", "5B", "--json", "--html", file)
    assert result.exit_code == 0, result.output
    assert '"total_tokens": 5000' in result.output
    read(file.read_text(encoding="utf-8"))
    twisted = run_verb("llama-1b", "training.gradient_accumulation_steps=3", "--gpu", "h100")
    assert twisted.exit_code == EXIT_PROBLEMS
