"""What a build leaves to look at: `corpus.json`, samples of what each step dropped, and the funnel as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firstlight.corpus.funnel import StepCounts
from firstlight.documents import encode_json
from firstlight.support.console import human_bytes, human_count, note
from firstlight.support.files import atomic_file, write_json

PICTURE = "funnel.svg"
REASONS_SHOWN = 3


def write_report(report: Mapping[str, Any], counts: Mapping[int, Mapping[str, StepCounts]], folder: Path) -> None:
    """Write `corpus.json`, `dropped/NN-STEP.jsonl` and `funnel.svg` into `folder`."""
    limit = report["settings"]["samples_per_step"]
    for number, by_source in counts.items():
        total = StepCounts()
        for step in by_source.values():
            total.add(step.as_dict(), limit)
        if total.samples:
            name = f"{number:02d}-{report['steps'][number]['step']}.jsonl"
            with atomic_file(folder / "dropped" / name, "w") as handle:
                handle.writelines(encode_json(sample) + "\n" for sample in total.samples)
    draw_funnel(report, folder / PICTURE)
    write_json(folder / "corpus.json", report)


def draw_funnel(report: Mapping[str, Any], path: Path) -> None:
    """The text that is left after each step, as an SVG; says so and draws nothing where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        note(f"no {path.name}: the picture needs `matplotlib`; pip install 'firstlight[corpus]'.")
        return
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    bars = _bars(report)
    with matplotlib.rc_context({"svg.hashsalt": "firstlight", "font.family": "sans-serif", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 0.9 + 0.42 * len(bars)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        places = range(len(bars))
        largest = max(size for _, size, _, _ in bars) or 1
        axes.barh(places, [largest for _ in bars], color="#eef1f6", height=0.72)
        axes.barh(places, [size for _, size, _, _ in bars], color="#a9c3ea", height=0.72)
        for place, (_, size, documents, remark) in enumerate(bars):
            share = f"{size / largest:.1%}"
            parts = [share, human_bytes(size), f"{human_count(documents)} documents", *([remark] if remark else [])]
            axes.text(
                0.008 * largest,
                place,
                " · ".join(parts),
                va="center",
                fontsize=8,
                color="#1b2434",
            )
        axes.set_yticks(places, [name for name, *_ in bars], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, largest)
        axes.set_xticks([])
        axes.set_title("Text left after each step", loc="left", fontsize=11)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _bars(report: Mapping[str, Any]) -> list[tuple[str, int, int, str]]:
    """(name, bytes left, documents left, why most were dropped): what was read, then every step."""
    sources = report["sources"].values()
    bars = [("read", sum(s["bytes_in"] for s in sources), sum(s["documents_in"] for s in sources), "")]
    for step in report["steps"]:
        worst = sorted(step["dropped"].items(), key=lambda item: (-item[1], item[0]))[:REASONS_SHOWN]
        remark = ", ".join(f"−{human_count(count)} {reason}" for reason, count in worst)
        bars.append((step["step"].replace("_", " "), step["bytes_out"], step["documents_out"], remark))
    return bars
