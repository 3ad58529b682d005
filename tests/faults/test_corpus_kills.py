"""Killed at random moments, the way from raw text to tokens loses no document, doubles none, gives the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

pytest.importorskip("daft")

from firstlight.documents import Document, json_line, read_documents
from firstlight.tokens import TokenDataset

SOURCES = ("first", "second")
FILES = 6
PROGRAM = """
import sys
from pathlib import Path
from firstlight.config import CorpusConfig
from firstlight.corpus import build_corpus, plan
from firstlight.tokens import Tokenizer, tokenize, tokenize_files

plan.UNIT_BYTES = tokenize.UNIT_BYTES = 100_000  # small units, so that a small corpus has many
steps = ["repair_unicode", "length", "exact_duplicates", "near_duplicates", "gopher_repetition"]
steps.insert(4, {"step": "repeated_lines", "min_documents": 3})
sources = {name: [f"../in/{name}-*.jsonl"] for name in sys.argv[2:]}
if not Path("corpus").exists():
    settings = CorpusConfig(steps=steps, max_bad_fraction=0.5, shard_bytes=50_000)
    build_corpus(sources, Path("corpus"), settings, workers=2)
for name in sources:
    if not Path(name).exists():
        tokenize_files([f"corpus/{name}"], Tokenizer.load(sys.argv[1]), name, source=name, validation_fraction=0.2,
                       shard_tokens=10_000, workers=2)
"""


class Way:
    """From raw text to tokens, in a folder; it can be killed and goes on when it is started again."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self._tokenizer = folder, tokenizer
        folder.mkdir()

    def start(self) -> subprocess.Popen[str]:
        """The way as a process, in a process group of its own."""
        command = [sys.executable, "-c", PROGRAM, str(self._tokenizer), *SOURCES]
        return subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def finish(self) -> str:
        """Go to the end, undisturbed; what was said."""
        process = self.start()
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        return said

    def digests(self) -> dict[str, str]:
        """Every file of the results, but that of the timings."""
        files = (file for part in ("corpus", *SOURCES) for file in sorted((self.folder / part).rglob("*")))
        return {
            str(file.relative_to(self.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.is_file() and file.name != "timings.json"
        }

    def documents(self, source: str) -> list[Document]:
        found = [
            item for file in sorted((self.folder / "corpus" / source).iterdir()) for item in read_documents(str(file))
        ]
        assert all(isinstance(item, Document) for item in found)
        return [item for item in found if isinstance(item, Document)]

    def workers_at_work(self) -> list[int]:
        """Processes of units that are being worked on: their number ends the names of unfinished folders."""
        unfinished = [*self.folder.glob(".*.work/phase-*/.unit-*"), *self.folder.glob(".*.partial/.*.*")]
        return [int(folder.name.rpartition(".")[2]) for folder in unfinished]

    def processes(self) -> list[int]:
        """All processes whose working directory is this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self.folder:
                    found.append(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: dict[str, Path]) -> Path:
    """A folder with raw text in `in`: documents with unique ids, some of them twice or nearly so, and bad lines."""
    folder = tmp_path_factory.mktemp("kills").resolve()
    (folder / "in").mkdir()
    texts = [
        item.text for path in tiny_corpus.values() for item in read_documents(str(path)) if isinstance(item, Document)
    ]
    draw = random.Random(1)
    for source in SOURCES:
        for number in range(FILES):
            own = [" ".join(draw.sample(text.split(" "), text.count(" ") + 1)) for text in texts[number % 2 :: 2]]
            chosen = [*own, *texts[number::9], *own[::9], *(text + " More." for text in own[::7])]
            lines = (json_line(text, {"id": f"{source} {number} {n}"}) for n, text in enumerate(chosen))
            (folder / "in" / f"{source}-{number}.jsonl").write_bytes(b"".join(lines) + b"no document\n")
    return folder


@pytest.fixture(scope="module")
def whole(raw: Path, tokenizer_folder: Path) -> tuple[Way, float]:
    """The way undisturbed, and the seconds that it takes on a machine that has compiled what it needs."""
    Way(raw / "before", tokenizer_folder).finish()
    way = Way(raw / "whole", tokenizer_folder)
    began = time.monotonic()
    way.finish()
    return way, time.monotonic() - began


def test_every_document_is_there_once(whole: tuple[Way, float], raw: Path) -> None:
    way, _ = whole
    report = json.loads((way.folder / "corpus" / "corpus.json").read_text())
    for source in SOURCES:
        given = [item for file in sorted(raw.glob(f"in/{source}-*")) for item in read_documents(str(file))]
        ids = [item.metadata["id"] for item in given if isinstance(item, Document)]
        documents = way.documents(source)
        kept = [document.metadata["id"] for document in documents]
        counts = report["sources"][source]
        assert len(set(ids)) == len(ids) == counts["documents_in"]
        assert len(given) - len(ids) == counts["bad_lines"] == FILES
        assert set(kept) < set(ids) and kept == [name for name in ids if name in set(kept)]
        assert len(ids) - len(kept) == sum(counts["dropped"].values())
        dataset = TokenDataset.open(way.folder / source)
        dataset.verify()
        rows = [row.tolist() for split in dataset.splits.values() for row in split.documents()]
        expected = [[*dataset.tokenizer.encode(item.text), dataset.tokenizer.eod_id] for item in documents]
        assert Counter(map(tuple, rows)) == Counter(map(tuple, expected))


@pytest.mark.parametrize(
    "kills",
    [pytest.param(4, marks=pytest.mark.slow), pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_kills_at_random_moments_change_nothing(
    kills: int, whole: tuple[Way, float], raw: Path, tokenizer_folder: Path
) -> None:
    undisturbed, seconds = whole
    seed = int(os.environ.get("KILLS_SEED") or random.randrange(2**32))
    print(f"KILLS_SEED={seed} gives the same moments again.")
    draw = random.Random(seed)
    killed: Counter[str] = Counter()
    disturbed = False
    ways: list[Way] = []
    while killed.total() < kills:
        if not ways or (ways[-1].folder / SOURCES[-1]).exists():
            ways.append(Way(raw / f"killed-{kills}-{len(ways)}", tokenizer_folder))
            disturbed = False
        began = time.monotonic()
        process = ways[-1].start()
        try:
            said = process.communicate(timeout=draw.uniform(0.1, 0.6) * seconds)[1]
            assert process.returncode == 0, said
            if not disturbed:  # so long it takes now; when it was measured, the machine may have been busy
                seconds = min(seconds, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed["tokenization" if (ways[-1].folder / "corpus").exists() else "corpus build"] += 1
            disturbed = True
    ways[-1].finish()
    for way in ways:
        assert way.digests() == undisturbed.digests()
        assert not way.processes()
        assert sorted(entry.name for entry in way.folder.glob("[!.]*")) == ["corpus", *SOURCES]
    print(f"kills on {len(ways)} ways of {seconds:.1f} s: {dict(killed)}")


def test_killed_workers_are_replaced(whole: tuple[Way, float], raw: Path, tokenizer_folder: Path) -> None:
    way = Way(raw / "workers", tokenizer_folder)
    process = way.start()
    killed: dict[str, list[int]] = {"corpus": [], "tokens": []}
    while process.poll() is None:
        stage = killed["tokens" if (way.folder / "corpus").exists() else "corpus"]
        for pid in way.workers_at_work():
            if len(stage) < 2 and pid not in stage:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                stage.append(pid)
        time.sleep(0.002)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert [len(pids) for pids in killed.values()] == [2, 2]
    # One that has just finished its unit is replaced without a word.
    assert 0 < said.count("(signal 9; memory may have run out); what it worked on is begun again.") <= 4
    assert way.digests() == whole[0].digests()
    assert not way.workers_at_work() and not way.processes()
