"""The whole way from raw files to token datasets: time by stage, memory on five times the text, and what 15 TB cost.

Builds a corpus of the given files (one source each) with the steps of a web corpus, trains a tokenizer on a sample and
tokenizes, once for the files as they are and once for copies of them in which the words of every line are in another
order (so that they are no duplicates). Peak memory is the sum of the proportional set sizes of all processes, sampled.
What a further GB costs is the difference of the largest and the smallest run, so that starting programs does not
count; the extrapolation multiplies it. Sizes are of text in UTF-8.

    python benchmarks/pipeline.py --input corpus/*.jsonl.zst --times 1 5
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
import zstandard

from common import STARTER, machine
from firstlight.documents import Document, json_line, read_documents

CODE = "code"


@dataclass
class Run:
    """What one size of corpus took."""

    size: int
    stages: dict[str, tuple[float, float]]
    """Wall and processor seconds."""
    peaks: dict[str, float]
    """Peak memory in bytes, by command."""
    figures: dict[str, dict[str, int]]
    """Of comparisons, by step."""
    documents: int
    signal_bytes: dict[str, int]
    """Bytes on disk of what comparisons compare, and of documents between two phases."""


def main() -> None:
    """Print the machine, a table for every size, and the extrapolation."""
    arguments = _arguments()
    print(f"{machine()}, {datetime.date.today()}")
    runs = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for times in arguments.times:
            folder = Path(name) / str(times)
            folder.mkdir()
            sources, size = _sources(arguments.input, times, folder)
            runs.append(_run(folder, sources, size))
            _show(runs[-1], len(sources))
            shutil.rmtree(folder)
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        print(f"\npeak memory, {last.size / first.size:.1f} times the text: by command", end=" ")
        print(", ".join(f"{name} {last.peaks[name] / peak:.2f}" for name, peak in first.peaks.items()), end="; ")
        print(f"largest {max(last.peaks.values()) / max(first.peaks.values()):.2f}")
        _extrapolate(first, last, arguments.terabytes * 1e12, arguments.machines, arguments.cores)


def _run(folder: Path, sources: dict[str, list[str]], size: int) -> Run:
    recipe = folder / "recipe.yaml"
    names = set(sources)
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "benchmark",
                "data": {"sources": {name: {"text": files} for name, files in sources.items()}},
                "corpus": {"steps": _steps(names)},
            }
        )
    )
    stages: dict[str, tuple[float, float]] = {}
    peaks: dict[str, float] = {}

    def stage(label: str, *command: object) -> None:
        wall, cpu, peak = _measured([sys.executable, "-m", "firstlight", *map(str, command)], folder)
        before = stages.get(label, (0.0, 0.0))
        stages[label] = before[0] + wall, before[1] + cpu
        peaks[label] = max(peak, peaks.get(label, 0.0))

    stage("corpus build", "corpus", "build", recipe, "--output", "corpus")
    for label, seconds in json.loads((folder / "corpus" / "timings.json").read_text()).items():
        short = label if label.startswith("compare") else " ".join(label.split()[:2])
        stages[f"… {short}"] = seconds["wall"], seconds["cpu"]
    train = ("tokenizer", "train", "corpus/*/*.zst", "--output", "tokenizer", "--sample-bytes", 30_000_000)
    stage("tokenizer train", *train)
    for name in sorted(names):
        stage("tokenize", "tokenize", f"corpus/{name}", "--tokenizer", "tokenizer", "--output", f"tokens/{name}")
    report = json.loads((folder / "corpus" / "corpus.json").read_text())
    work = folder / ".corpus.work"
    return Run(
        size,
        stages,
        peaks,
        {step["step"]: step["figures"] for step in report["steps"] if "figures" in step},
        sum(source["documents_in"] for source in report["sources"].values()),
        {kind: sum(file.stat().st_size for file in work.rglob(kind)) for kind in ("signals-*.parquet", "*.arrow")},
    )


def _show(run: Run, sources: int) -> None:
    whole = [sum(times) for times in zip(*(t for label, t in run.stages.items() if label[0] != "…"), strict=True)]
    print(f"\n{run.size / 1e6:,.0f} MB of text, {run.documents:,} documents, {sources} sources\n")
    print("| stage | seconds | CPU seconds | MB/s | peak memory, MB |\n|---|---|---|---|---|")
    for label, (wall, cpu) in [*run.stages.items(), ("whole way", tuple(whole))]:
        peak = f"{run.peaks[label] / 1e6:,.0f}" if label in run.peaks else ""
        print(f"| {label} | {wall:.1f} | {cpu:.1f} | {run.size / 1e6 / wall:.1f} | {peak} |")
    for step, figures in run.figures.items():
        print(f"{step}: {figures}")


def _extrapolate(small: Run, large: Run, size: float, machines: int, cores: int) -> None:
    """What `size` bytes cost on so many machines, when every GB costs what the last one did."""
    more = large.size - small.size
    print(f"\n{size / 1e12:g} TB on {machines} machines of {cores} cores, every GB as the last one:\n")
    print("| stage | CPU seconds a GB | core-hours | hours |\n|---|---|---|---|")
    total = 0.0
    for label, (_, cpu) in large.stages.items():
        if label in small.stages and label != "tokenizer train":  # its sample does not grow
            a_gigabyte = (cpu - small.stages[label][1]) / more * 1e9
            hours = a_gigabyte * size / 1e9 / 3600
            total += hours if label[0] != "…" else 0.0
            print(f"| {label} | {a_gigabyte:.0f} | {hours:,.0f} | {hours / machines / cores:.1f} |")
    print(f"| all | | {total:,.0f} | {total / machines / cores:.1f} |")
    documents = large.documents / large.size * size
    print(f"\ndocuments: {documents:.2e} of {large.size / large.documents:,.0f} bytes")
    for kind, stored in large.signal_bytes.items():
        print(f"{kind}: {stored / large.size * size / 1e12:.2f} TB on disk, compressed")
    for step, figures in large.figures.items():
        shuffled = figures.get("shuffled_bytes", 0) / figures["documents"] if figures.get("documents") else 0
        kept = figures["documents"] / large.documents * documents
        print(
            f"{step}: {shuffled:,.0f} bytes shuffled for each of {kept:.2e} documents, {shuffled * kept / 1e12:.2f} TB"
        )


def _steps(names: set[str]) -> list[object]:
    prose = {"except_sources": sorted(names & {CODE})}
    steps: list[object] = [
        {"step": "length", "min_characters": 1},
        "repair_unicode",
        {"step": "language", **prose},
        {"step": "gopher_repetition", **prose, "languages": ["en"]},
        {"step": "gopher_quality", **prose, "languages": ["en"]},
        {"step": "c4", **prose, "languages": ["en"]},
        {"step": "fineweb", **prose, "languages": ["en"]},
        {"step": "fineweb2_mandarin", **prose, "languages": ["zh"]},
    ]
    if CODE in names:
        steps.append({"step": "code", "sources": [CODE]})
    return [*steps, "scrub_pii", "exact_duplicates", "near_duplicates"]


def _sources(files: Sequence[str], times: int, folder: Path) -> tuple[dict[str, list[str]], int]:
    """Files by source, and bytes of text; copies beyond the first have the words of their lines in another order."""
    sources: dict[str, list[str]] = {}
    size = 0
    for file in files:
        name = Path(file).name.removeprefix("starter:").split(".")[0]
        sources[name] = [str(Path(file).resolve()) if Path(file).exists() else file]
        documents = [item for item in read_documents(file) if isinstance(item, Document)]
        size += times * sum(len(document.text.encode()) for document in documents)
        for copy in range(1, times):
            path = folder / "inputs" / f"{name}-{copy}.jsonl.zst"
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as handle, zstandard.ZstdCompressor(3).stream_writer(handle) as stream:
                for number, document in enumerate(documents):
                    draw = random.Random(f"{copy} {number} {name}")
                    stream.write(json_line("\n".join(_salted(document.text, draw)), document.metadata))
            sources[name].append(str(path))
    return sources, size


def _salted(text: str, draw: random.Random) -> Iterator[str]:
    for line in text.split("\n"):
        if " " in line.strip():
            first, *words = line.split(" ")
            last = words.pop()
            draw.shuffle(words)
            yield " ".join([first, *words, last])
        else:
            letters = list(line[:-1])
            draw.shuffle(letters)
            yield "".join(letters) + line[-1:]


def _measured(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak bytes) of a command and all that it starts."""
    before = psutil.Process().cpu_times()
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            peak = max(peak, _memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors}")
    after = psutil.Process().cpu_times()
    cpu = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    return time.monotonic() - started, cpu, peak


def _memory(pid: int) -> float:
    """Proportional set sizes of a process and its descendants, bytes."""
    total = 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_ = "files of JSON lines; the name before the first dot is the source"
    parser.add_argument("--input", nargs="+", default=STARTER, help=help_)
    parser.add_argument("--times", nargs="+", type=int, default=[1, 5], help="how many times as much text")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--terabytes", type=float, default=15, help="of text, to extrapolate to")
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--cores", type=int, default=32, help="of each machine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
