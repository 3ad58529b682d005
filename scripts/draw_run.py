"""Draw a run for the documentation: loss, learning rate and held-out bits per byte over tokens, as one SVG.

    python scripts/draw_run.py runs/quickstart docs/images/quickstart.svg

Reads only metrics.jsonl. Needs matplotlib (extra `docs`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOMAIN = "validation/"
METRIC = "/bits_per_byte"


def main(run: Path, picture: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    tokens_at = {line["step"]: line["tokens_consumed"] / 1e6 for line in training}
    per_step = training[-1]["tokens_consumed"] / training[-1]["step"] / 1e6
    validation = [line for line in lines if any(key.startswith(DOMAIN) for key in line)]

    plt.rcParams.update({"font.size": 10, "svg.fonttype": "path", "svg.hashsalt": "firstlight"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    left.plot([tokens_at[line["step"]] for line in training], [line["loss"] for line in training], color="#3949ab")
    left.set(title="training loss", xlabel="tokens (millions)", ylabel="nats per token")
    rate = left.twinx()
    rate.plot(
        [tokens_at[line["step"]] for line in training],
        [line["learning_rate"] for line in training],
        color="#9e9e9e",
        linewidth=1,
        linestyle="--",
    )
    rate.set(ylabel="learning rate (dashed)", ylim=(0, None))
    domains = [key.removeprefix(DOMAIN).removesuffix(METRIC) for key in validation[0] if key.endswith(METRIC)]
    for domain in domains:
        values = [line[f"{DOMAIN}{domain}{METRIC}"] for line in validation]
        positions = [line["step"] * per_step for line in validation]
        right.plot(positions, values, marker="o", label=f"{domain} {values[-1]:.2f}")
    right.set(title="held-out text", xlabel="tokens (millions)", ylabel="bits per byte")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines["top"].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/draw_run.py RUN PICTURE.svg")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
