"""The way from raw text to tokens on a Ray cluster gives what it gives on one machine, byte for byte, whatever dies."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

pytest.importorskip("daft")
pytest.importorskip("ray")

from firstlight.documents import Document, json_line, read_documents

SOURCES = ("code", "manual")
STEPS = [
    "repair_unicode",
    {"step": "length", "min_characters": 100},
    "exact_duplicates",
    "near_duplicates",
    {"step": "repeated_lines", "min_documents": 3},
    {"step": "blocklist", "urls": ["../blocked.txt"]},
    "gopher_repetition",
    {"step": "scrub_pii", "except_sources": ["code"]},
]
PROGRAM = """
import sys
from pathlib import Path
from firstlight import pipeline
from firstlight.corpus import plan
from firstlight.tokens import tokenize

plan.UNIT_BYTES = tokenize.UNIT_BYTES = 100_000  # small units, so that a small corpus has many
tokenizer, sources, ray = sys.argv[1], sys.argv[2].split(), sys.argv[3] if len(sys.argv) > 3 else None
if not Path("corpus").exists():
    pipeline.build_corpus("../recipe.yaml", "corpus", ray=ray)
for source in sources:
    if not Path(source).exists():
        files = [f"corpus/{source}"]
        pipeline.tokenize(files, tokenizer, source, validation_fraction=0.2, shard_tokens=20_000, ray=ray)
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: dict[str, Path]) -> Path:
    """A folder with a recipe over real text with duplicates, in several files a source, named by relative paths."""
    folder = tmp_path_factory.mktemp("ray").resolve()
    draw = random.Random(7)
    for name in SOURCES:
        texts = [item.text for item in read_documents(str(tiny_corpus[name])) if isinstance(item, Document)]
        texts += [text + " One more sentence at the end." for text in texts[::5]] + texts[::7]
        draw.shuffle(texts)
        for number in range(4):
            lines = (json_line(text, {"n": n, "url": f"http://h{n}.org/"}) for n, text in enumerate(texts[number::4]))
            (folder / f"{name}-{number}.jsonl").write_bytes(b"".join(lines))
    (folder / "blocked.txt").write_text("h3.org\n")
    sources = {name: {"text": [f"../{name}-*.jsonl"]} for name in SOURCES}
    recipe = {"name": "ray", "data": {"sources": sources}, "corpus": {"steps": STEPS}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def start(folder: Path, tokenizer: Path, *ray: str) -> subprocess.Popen[str]:
    """The way from raw text to tokens, in `folder`."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(tokenizer), " ".join(SOURCES), *ray]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 0, said
    return said


def digests(folder: Path) -> dict[str, str]:
    """Every file of the results, but that of the timings."""
    files = (file for part in ("corpus", *SOURCES) for file in sorted((folder / part).rglob("*")))
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.name != "timings.json"
    }


def workers_at_work(folder: Path) -> list[int]:
    """Processes of units that are being worked on: their number ends the names of unfinished folders."""
    unfinished = [*folder.glob(".*.work/phase-*/.unit-*"), *folder.glob(".*.partial/.*.*")]
    return [int(name.rpartition(".")[2]) for name in map(str, unfinished)]


def wait_for_worker(process: subprocess.Popen[str], folder: Path, stage: str, seen: set[int]) -> int:
    """A process that works on a unit of the corpus or of tokens and was not seen before."""
    while process.poll() is None:
        if (folder / "corpus").exists() == (stage == "tokens"):
            for pid in set(workers_at_work(folder)) - seen:
                seen.add(pid)
                return pid
        time.sleep(0.002)
    pytest.fail(f"the way ended before a worker was seen: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def here(raw: Path, tokenizer_folder: Path) -> dict[str, str]:
    """What one machine gives."""
    finish(start(raw / "here", tokenizer_folder))
    found = digests(raw / "here")
    assert len([name for name in found if name.endswith(".zst")]) > len(SOURCES)
    return found


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(raw: Path, tokenizer_folder: Path, here: dict[str, str]) -> None:
    finish(start(raw / "there", tokenizer_folder, "local"))
    assert digests(raw / "there") == here


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_kills_on_a_cluster_change_nothing(raw: Path, tokenizer_folder: Path, here: dict[str, str]) -> None:
    """A process of Ray, worker programs, and at last the caller; what is left is then done without the cluster."""
    folder, seen = raw / "killed", set[int]()
    process = start(folder, tokenizer_folder, "local")
    with contextlib.suppress(psutil.NoSuchProcess):  # whoever has just ended needs no kill
        psutil.Process(wait_for_worker(process, folder, "corpus", seen)).parent().kill()
    seen.update(workers_at_work(folder))  # they end with it
    for stage in ("corpus", "tokens"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(wait_for_worker(process, folder, stage, seen)).kill()
    wait_for_worker(process, folder, "tokens", seen)
    process.kill()
    said = process.communicate()[1]
    assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, seen)):
        assert time.monotonic() < deadline, "worker programs outlive their caller"
        time.sleep(0.02)
    finish(start(folder, tokenizer_folder))
    assert digests(folder) == here
