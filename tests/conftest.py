"""What every test shares: one thread, no network, no clock; the command line as a user calls it; a little real text.

The environment is set before any library reads it. The text is Python's own (reference manual and source code), so
that nothing is downloaded and nothing is made up.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, settings

_hub_cache = tempfile.TemporaryDirectory(prefix="firstlight-tests-")
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HOME": _hub_cache.name,
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "offline",
}

# A shell that starts the tests in the background has them ignore Ctrl-C, and every command they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "firstlight",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("firstlight")


class Result(NamedTuple):
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    def sentence(self, code: int = 1, label: str = "error") -> str:
        """The sentence a failed command ends with; it is whole, the only one of its kind, and no traceback is near."""
        assert self.code == code, self.stderr
        assert "Traceback" not in self.stderr
        *before, last = self.stderr.splitlines()
        assert last.startswith(f"{label}: "), self.stderr
        assert not any(line.startswith(f"{label}: ") for line in before), self.stderr
        assert re.search(r"[.?]$|: firstlight train \S+$", last), last
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", self.stderr), self.stderr
        return last


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, int]]:
    """`tree(folder)`: every name below it, hidden ones included, with the size of files and -1 for folders."""

    def names(folder: Path) -> dict[str, int]:
        return {
            str(path.relative_to(folder)): path.stat().st_size if path.is_file() else -1
            for path in sorted(folder.rglob("*"))
        }

    return names


@pytest.fixture
def run_firstlight(tmp_path: Path) -> Callable[..., Result]:
    """`run_firstlight("train", "quickstart", cwd=…, timeout=…, env={…})` runs the command line in a process of its own.

    It starts in the test's own folder, in a terminal without colour of 80 columns unless `env` says otherwise, and is
    given no input. `limit` is called in the new process before it begins. After `timeout` seconds it is killed with
    all its children and the test fails.
    """

    def run(
        *arguments: str | Path,
        cwd: Path | None = None,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        limit: Callable[[], None] | None = None,
    ) -> Result:
        command = [sys.executable, "-m", "firstlight", *map(str, arguments)]
        environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80", **(env or {})}
        with subprocess.Popen(
            command,
            cwd=cwd or tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=limit,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                stdout, stderr = process.communicate()
                pytest.fail(f"{' '.join(command)} did not end within {timeout:g} s\n{stdout}\n{stderr}")
        return Result(process.returncode, stdout, stderr)

    return run


@pytest.fixture
def run_as_ranks(tmp_path: Path) -> Callable[..., list[str]]:
    """`run_as_ranks(script, 4, *arguments)` runs `python script RANK SIZE STORE arguments…` for all ranks at once.

    STORE is a file that the ranks meet at. Gives what each printed; the test fails when one does not end with 0 within
    `timeout` seconds, and none outlives it.
    """

    def run(script: Path, size: int, *arguments: str | Path, timeout: float = 200) -> list[str]:
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}
        ranks = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(size), tmp_path / "store", *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        try:
            ended = [process.communicate(timeout=timeout) for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        assert [process.returncode for process in ranks] == [0] * size, "\n".join(errors for _, errors in ended)
        return [output for output, _ in ended]

    return run


@pytest.fixture
def firstlight(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """`firstlight("train", …)` runs the command line in this process, which saves the seconds that imports take."""
    from firstlight.cli import main

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["firstlight", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    handler = signal.getsignal(signal.SIGINT)
    yield run
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="session")
def trained_folder(tiny_corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after the first steps: text, a tokenizer, token datasets, recipes and a trained run.

    `recipe.yaml` names the token datasets, `text.yaml` the text; `runs/tiny` has checkpoints of steps 2 and 4.
    """
    from firstlight import pipeline

    recipe = {
        "name": "tiny",
        "data": {
            "sources": {"manual": {"tokens": "tokens/manual"}, "code": {"tokens": "tokens/code"}},
            "sequence_length": 64,
            "mixture_block_size": 16,
        },
        "tokenizer": {"vocab_size": 512},
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 2048},
        "schedule": {"warmup_steps": 0},
        "training": {"total_steps": 4, "global_batch_size": 8, "precision": "fp32", "device": "cpu", "compile": False},
        "checkpoint": {"interval_steps": 2},
    }
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for source, file in tiny_corpus.items():
            shutil.copy(file, f"{source}.jsonl")
        pipeline.train_tokenizer(["manual.jsonl"], "tokenizer", vocab_size=512)
        for source in tiny_corpus:
            pipeline.tokenize([f"{source}.jsonl"], "tokenizer", f"tokens/{source}", validation_fraction=0.1, workers=1)
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        data = {**recipe["data"], "sources": {"manual": {"text": ["manual.jsonl"]}}}
        Path("text.yaml").write_text(yaml.safe_dump({**recipe, "name": "text", "data": data}, sort_keys=False))
        pipeline.train("recipe.yaml")
    return folder


@pytest.fixture(scope="session")
def tokenizer_folder(tiny_corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer of 1,200 tokens, as `firstlight tokenizer train` leaves it."""
    from firstlight import pipeline

    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    pipeline.train_tokenizer([str(path) for path in tiny_corpus.values()], folder, vocab_size=1200)
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """JSON lines files of two sources, about 200 kB of text each: {"manual": English prose, "code": Python source}."""
    folder = tmp_path_factory.mktemp("corpus")
    corpus = {}
    for source, texts in (("manual", _manual()), ("code", _code())):
        corpus[source] = folder / f"{source}.jsonl"
        with corpus[source].open("w", encoding="utf-8") as handle:
            size = 0
            for number, text in enumerate(texts):
                document = {"text": text, "metadata": {"source": source, "number": number}}
                handle.write(json.dumps(document, ensure_ascii=False) + "\n")
                size += len(text)
                if size >= 200_000:
                    break
    return corpus


def _manual() -> Iterator[str]:
    """Pages of the language reference that `help()` shows."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name].strip()


def _code() -> Iterator[str]:
    """Modules of the standard library, the short ones of the top folder."""
    for file in sorted(Path(inspect.__file__).parent.glob("*.py")):
        if 1_000 <= file.stat().st_size <= 20_000:
            yield file.read_text(encoding="utf-8")
