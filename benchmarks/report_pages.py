"""The page of a run in a real browser: drawn, without errors and network, narrow and wide, and how long it takes.

    python benchmarks/report_pages.py --run runs/quickstart --shots docs/images
    python benchmarks/report_pages.py --large          # 10 runs of 100,000 steps: reading, writing, opening

Needs a Chromium. It is spoken to through a pipe (Chrome DevTools Protocol), so nothing else has to be installed.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.pipeline.reporting import report
from firstlight.recipe import dump_config, load_config

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
RUNS, STEPS = 10, 100_000
LIMIT_SECONDS = 3.0
"""For the large page to open with every chart drawn."""
CHECK = """(() => {
  const wide = [...document.querySelectorAll("body *")].filter(e => e.getClientRects().length
    && !e.closest(".scroll") && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
  const empty = [...document.querySelectorAll("canvas")].filter(canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4)
      if (data[i + 3] > 40) seen.add(data[i] + "," + data[i + 1] + "," + data[i + 2]);
    return seen.size < 3;
  });
  const root = document.documentElement;
  return JSON.stringify({ charts: document.querySelectorAll("figure").length,
    canvases: document.querySelectorAll("canvas").length, empty: empty.length,
    overflow: root.scrollWidth - root.clientWidth, wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 80)),
    drawn: performance.getEntriesByName("drawn")[0].startTime / 1000, language: root.lang });
})()"""


class Browser:
    """A headless Chromium."""

    def __init__(self, sent: int, received: int) -> None:
        self._sent, self._received = os.fdopen(sent, "wb", 0), os.fdopen(received, "rb", 0)
        self._numbers, self._rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> Any:
        """The result of a method; what happens meanwhile is kept in `events`."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": values}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        self._sent.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                block = self._received.read(1 << 20)
                assert block, "the browser has ended"
                self._rest += block
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, address: str, width: int, height: int, dark: bool, language: str) -> dict[str, Any]:
        """Open a page, wait until all is drawn, and say what was seen."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        self._until_drawn()
        drawn = json.loads(self.value(CHECK))["drawn"]
        self.value(f"document.querySelector('[data-language={language}]').click()")
        self._until_drawn()
        return {
            **json.loads(self.value(CHECK)),
            "drawn": drawn,
            "errors": self.errors(),
            "asked": self.requests(address),
        }

    def _until_drawn(self) -> None:
        deadline = time.monotonic() + 60
        while not self.value("document.documentElement?.dataset.drawn === 'yes'"):
            assert time.monotonic() < deadline, f"not drawn within a minute: {self.errors()}"
            time.sleep(0.1)

    def value(self, expression: str) -> Any:
        """What an expression gives."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def errors(self) -> list[str]:
        """What the page has complained of."""
        found = []
        for event in self.events:
            method, about = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(about["exceptionDetails"])[:300])
            if method == "Log.entryAdded" and about["entry"]["level"] == "error":
                found.append(about["entry"]["text"])
            if method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
                found.append(json.dumps(about["args"])[:300])
        return found

    def requests(self, own: str) -> list[str]:
        """Addresses besides its own that the page has asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in sent]
        return [address for address in addresses if address != own and not address.startswith("data:")]

    def picture(self, file: Path, height: int | None = None) -> None:
        """The page, or its first `height` pixels, as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height or 1e9, size["height"]), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium that ends with the block."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("no Chromium: apt-get install chromium fonts-noto-cjk")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        command = (
            f'exec "{program}" --headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe '
            f'--user-data-dir="{profile}" 3<&{to_read} 4>&{from_write}'
        )
        process = subprocess.Popen(["sh", "-c", command], pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL)
        os.close(to_read), os.close(from_write)
        try:
            yield Browser(to_write, from_read)
        finally:
            process.terminate()
            process.wait()
            time.sleep(0.5)  # its children still write to the profile


def large_runs(folder: Path, runs: int = RUNS, steps: int = STEPS) -> list[Path]:
    """Run folders with a line of metrics for each of many steps; made up, of the size and shape of real ones."""
    made = []
    for number in range(runs):
        run = folder / f"run-{number}"
        run.mkdir()
        overrides = [f"training.total_steps={steps}", f"optimizer.lr={1e-3 * (number + 1)}", "model.vocab_size=32000"]
        config = load_config("quickstart", [*overrides, f"name=run-{number}"])
        sources = {
            name: source.model_copy(update={"text": [], "tokens": "nowhere"})
            for name, source in config.data.sources.items()
        }
        config = config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})
        (run / "config.yaml").write_text(dump_config(config))
        draw = np.random.default_rng(number)
        step = np.arange(1, steps + 1)
        loss = 2.5 + 8 * step**-0.3 + 0.05 * draw.normal(size=steps)
        loss[draw.integers(1000, steps, 20)] += 2
        noise = 1 + 0.05 * draw.normal(size=(2, steps))
        with (run / "metrics.jsonl").open("w") as handle:
            for at in range(steps):
                line = {
                    "step": int(step[at]), "loss": loss[at], "learning_rate": 1e-3 * (1 - at / steps),
                    "grad_norm": 0.5 * noise[0, at], "tokens_per_second": 1e5 * noise[1, at], "mfu": 0.4 * noise[1, at],
                    "param_norm": 100 + at**0.5, "skipped_steps": 0, "samples_consumed": 8 * (at + 1),
                    "tokens_consumed": 2048 * (at + 1), "seconds": 0.02 / noise[1, at], "data_wait_fraction": 0.001,
                    "save_seconds": 0.0, "peak_memory_bytes": 8_000_000_000,
                }  # fmt: skip
                handle.write(json.dumps(line) + "\n")
        made.append(run)
    return made


def look(file: Path, name: str, shots: Path | None) -> bool:
    """Open a page at all widths, schemes and languages; whether all was well."""
    well = True
    address = file.resolve().as_uri()
    with browser() as page:
        for width, dark, language in ((1280, False, "en"), (1280, True, "zh"), (360, False, "en"), (360, True, "zh")):
            seen = page.open(address, width, 900, dark, language)
            good = not (seen["errors"] or seen["asked"] or seen["empty"] or seen["wide"] or seen["overflow"] > 0)
            good = good and seen["language"] == language and seen["canvases"] == seen["charts"] > 0
            well = well and good
            scheme = "dark" if dark else "light"
            print(f"{name} {width}px {scheme} {language}: {'ok' if good else 'NOT OK'} {json.dumps(seen)}", flush=True)
            if shots:
                page.picture(shots / f"{name}-{width}-{scheme}-{language}.png")
    return well


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="run folders to show")
    parser.add_argument("--shots", type=Path, help="folder for pictures")
    parser.add_argument("--large", action="store_true", help="also 10 runs of 100,000 steps")
    chosen = parser.parse_args(arguments)
    well = True
    with tempfile.TemporaryDirectory() as folder:
        if chosen.run:
            well &= look(report(chosen.run, Path(folder) / "report.html"), "report", chosen.shots)
        if chosen.large:
            runs = large_runs(Path(folder))
            began = time.perf_counter()
            file = report(runs, Path(folder) / "large.html")
            print(f"{RUNS} × {STEPS:,} steps: read and written in {time.perf_counter() - began:.1f} s, "
                  f"{file.stat().st_size / 1e6:.1f} MB", flush=True)  # fmt: skip
            with browser() as page:
                times = [page.open(file.resolve().as_uri(), 1280, 900, False, "en")["drawn"] for _ in range(3)]
            print(f"opened with every chart drawn in {', '.join(f'{seconds:.2f}' for seconds in times)} s")
            well &= min(times) < LIMIT_SECONDS
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
