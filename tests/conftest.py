"""What every test shares: one thread, no network, no clock; the command line as a user calls it; a little real text.

The environment is set before any library reads it. The text is Python's own (reference manual and source code), so
that nothing is downloaded and nothing is made up.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
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


@pytest.fixture
def run_firstlight(tmp_path: Path) -> Callable[..., Result]:
    """`run_firstlight("train", "quickstart", cwd=…, timeout=…, env={…})` runs the command line in a process of its own.

    It starts in the test's own folder, in a terminal without colour of 80 columns unless `env` says otherwise, and is
    given no input. After `timeout` seconds it is killed with all its children and the test fails.
    """

    def run(
        *arguments: str | Path, cwd: Path | None = None, timeout: float = 120, env: Mapping[str, str] | None = None
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
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                stdout, stderr = process.communicate()
                pytest.fail(f"{' '.join(command)} did not end within {timeout:g} s\n{stdout}\n{stderr}")
        return Result(process.returncode, stdout, stderr)

    return run


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
