"""A Ray cluster: what answers to no address, and work that survives the death of whatever does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("daft")
pytest.importorskip("ray")

from firstlight.engine.cluster import connect
from firstlight.support.errors import FirstlightError

PROGRAM = """
import json, os, sys
from firstlight.engine import run_jobs
from firstlight.engine.cluster import connect
from firstlight.support.errors import FirstlightError

connect("local")
os.chdir(sys.argv[3])
for jobs in json.loads(sys.argv[2]):
    try:
        with run_jobs(sys.argv[1], {"folder": "begun"}, jobs["jobs"], jobs.get("workers"), "local") as answers:
            print(json.dumps(list(answers)))
    except FirstlightError as problem:
        print(json.dumps(str(problem)))
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1", "write ray://HOST:10001"),
        ("nonsense", "Invalid address format: nonsense"),
        ("no-such-machine.invalid:6379", ""),
    ],
)
def test_an_address_without_a_cluster_is_one_sentence(address: str, reason: str) -> None:
    with pytest.raises(FirstlightError, match=rf"^--ray {address}: no Ray cluster answers there \(.*{reason}.*\)\.$"):
        connect(address)


def test_the_command_line_says_so_soon_and_leaves_nothing(
    run_firstlight: Callable[..., Any], trained_folder: Path, tmp_path: Path, tree: Callable[[Path], dict[str, int]]
) -> None:
    before = tree(trained_folder)
    for command in (("corpus", "build", "text.yaml"), ("tokenize", "manual.jsonl", "--tokenizer", "tokenizer")):
        result = run_firstlight(
            *command, "--output", tmp_path / "new", "--ray", "127.0.0.1:1", cwd=trained_folder, timeout=30
        )
        assert result.sentence() == "error: --ray 127.0.0.1:1: no Ray cluster answers there (Connection refused)."
    assert tree(trained_folder) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_whatever_dies_the_jobs_are_done_where_the_caller_stands(module: str, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    killed = [{"name": f"a{n}", "items": n, "fate": fate, "times": 1} for n, fate in enumerate([None, "killed", None])]
    losses = [{"name": f"b{n}", "items": n, "fate": fate} for n, fate in enumerate([None, "machine", "query", None])]
    refused = [{"name": "c0", "items": 1, "fate": "refuses"}]
    few = [{"name": "d", "items": 1}] * 4
    passes = [{"jobs": killed}, {"jobs": losses}, {"jobs": refused}, {"jobs": few, "workers": 1}]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, json.dumps(passes), tmp_path], cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *answers, refusal, few_answers = map(json.loads, done.stdout.splitlines())
    for jobs, given in zip([killed, losses, few], [*answers, few_answers], strict=True):
        assert isinstance(given, list), given
        assert [answer["kind"] for answer in given].count("done") == len(jobs)
        items = [answer["items"] for answer in given if answer["kind"] == "progress"]
        assert sum(items) == sum(job["items"] + 1 for job in jobs)
    assert refusal == "this cannot be read."
    begun = [file.name for file in (tmp_path / "begun").iterdir()]
    assert sum(name.startswith("a1-") for name in begun) == 2
    assert sum(name.startswith("d-") for name in begun) == 1, "one job at a time needs one program"
    assert "(signal 9; memory may have run out); what it worked on is begun again" in done.stderr
    assert "the Ray cluster lost what it worked on (The actor died unexpectedly" in done.stderr
