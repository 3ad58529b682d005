"""What a run survives: every fault that the tests cause, how often it was caused, and what came of it.

    python benchmarks/reliability.py --kills 200 --write      # the table of docs/reliability.md

Each row is a set of tests; a parametrised case counts as one try unless the test says how many it made. A row is as
good as its worst try: one that did not end as it should is named.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from common import machine, write_table

ROOT = Path(__file__).parents[1]


class Row(NamedTuple):
    """A fault."""

    fault: str
    tests: tuple[str, ...]
    """Arguments of pytest."""
    outcome: str


class Tries(NamedTuple):
    """What came of a row."""

    number: int
    remarks: list[str]
    failed: list[str]
    skipped: int


FAULTS, TRAINING, SUPPORT, LAUNCH = "tests/faults/", "tests/training/", "tests/support/", "tests/launch/"
CHECKPOINT = f"{TRAINING}test_checkpoint.py"
ROWS = (
    Row(
        "SIGKILL at a random moment, raw text to exported model",
        (f"{FAULTS}test_kills.py", "-k", "not [6]"),
        "started again, it ends with the same bytes: documents, tokens, samples and losses of every step, parameters",
    ),
    Row(
        "a worker of corpus build or tokenization killed",
        (f"{FAULTS}test_corpus_kills.py::test_killed_workers_are_replaced",),
        "replaced; the same bytes",
    ),
    Row(
        "a rank killed, failing, or stuck while another fails",
        (f"{SUPPORT}test_peers.py", f"{LAUNCH}test_torchrun.py"),
        "the reason is told once, all ranks end within seconds, and start again where that can help",
    ),
    Row(
        "a process that stands still",
        (f"{FAULTS}test_hang.py",),
        "named with its stack; the run ends with its own code and can be started again",
    ),
    Row(
        "SIGTERM, SIGINT, SIGUSR1, SIGUSR2, the time limit, Ctrl-C in every stage",
        (f"{FAULTS}test_signals.py", f"{FAULTS}test_ctrl_c.py", f"{LAUNCH}test_slurm.py"),
        "the step is finished and saved, or nothing half-written stays",
    ),
    Row(
        "a full disk, a folder without permission, a disk that takes nothing, in every stage that writes",
        (f"{FAULTS}test_disk.py",),
        "the file is named; what was there before stays as it was",
    ),
    Row(
        "a checkpoint of which any file is deleted, cut short, or changed in one bit; a save that was killed",
        (CHECKPOINT, f"{FAULTS}test_damage.py", "-k", "checkpoint or damaged or killed or failure"),
        "found before it is used, named, set aside; the one before is used",
    ),
    Row(
        "a token shard cut short (also while it is read), exchanged or gone; ids outside the vocabulary",
        (
            f"{FAULTS}test_damage.py",
            "tests/pipeline/test_verify.py",
            "tests/tokens/test_indexed.py",
            "-k",
            "shard_of or vocabulary or damaged or cut_short",
        ),
        "named before the first step, when it happens, or by `firstlight verify`",
    ),
    Row("a clock that is set back", (f"{FAULTS}test_damage.py", "-k", "clock"), "changes nothing"),
    Row(
        "a second place for checkpoints that breaks off, or holds another run",
        (f"{TRAINING}test_second_place.py",),
        "training goes on; what is there is whole or no checkpoint",
    ),
    Row(
        "a run folder of which a part is missing, cut short or another's",
        (f"{FAULTS}test_damaged_runs.py",),
        "named by every verb that needs it; nothing is changed",
    ),
    Row(
        "two processes on one run",
        (f"{TRAINING}test_resume.py::test_a_second_process_on_a_live_run_is_refused",),
        "the second is refused",
    ),
    Row(
        "hostile text: binary, 1-GB lines, deep nesting, lone surrogates, NUL, BOM, mixed encodings, cut gz and zst, …",
        (f"{FAULTS}test_hostile_inputs.py",),
        "what can be read is read, the rest is counted with its place",
    ),
    Row(
        "control sequences in texts, names and files",
        (f"{FAULTS}test_terminal.py", "-k", "orders"),
        "none reaches the terminal",
    ),
    Row(
        "code in checkpoints, tokenizers, models, data sets and recipes",
        ("tests/security/test_code.py",),
        "never run",
    ),
    Row("names and links that lead outside", ("tests/security/test_paths.py",), "nothing is written or read there"),
    Row("small files that claim to be large", ("tests/security/test_unfolding.py",), "refused in one sentence"),
    Row("keys in the environment, in addresses, in settings", ("tests/security/test_secrets.py",), "in no file or log"),
    Row(
        "random damage to every kind of file that is read (fuzzing)",
        ("tests/fuzz",),
        "read, or refused with the documented error; no hang, no large allocation",
    ),
)


def tries(row: Row, environment: dict[str, str]) -> Tries:
    """Run the tests of a row."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *row.tests]
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
        if not report.exists():
            raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout}\n{ended.stderr}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    if not cases:
        raise SystemExit(f"{' '.join(command)} found no test:\n{ended.stdout}")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    told = [{item.get("name"): item.get("value") for item in case.iter("property")} for case in cases]
    remarks = [str(properties["remark"]) for properties in told if "remark" in properties]
    number = sum(int(properties.get("tries") or 1) for properties in told) - len(skipped)
    return Tries(number, remarks, [str(case.get("name")) for case in failed], len(skipped))


def line(row: Row, found: Tries) -> str:
    """One row of the table."""
    outcome = row.outcome
    if found.remarks:
        outcome += f" ({'; '.join(found.remarks)})"
    if found.failed:
        outcome = f"**{len(found.failed)} of the tests failed: {', '.join(found.failed)}**"
    return f"| {row.fault} | {found.number:,} | {outcome} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--fuzz", type=int, default=1000, help="files per reader")
    parser.add_argument("--only", help="rows whose fault holds this text")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md and .zh.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write is for the whole table")
    environment = {"KILLS": str(arguments.kills), "FUZZ_EXAMPLES": str(arguments.fuzz), "NO_COLOR": "1"}
    lines = ["| fault | times tried | outcome |", "|---|---|---|"]
    for row in ROWS:
        if not arguments.only or arguments.only in row.fault:
            lines.append(line(row, tries(row, environment)))
            print(lines[-1], flush=True)
    table = "\n".join(lines) + f"\n\n`benchmarks/reliability.py`; {machine()}; {date.today()}."
    if arguments.write:
        for page in ("reliability.md", "reliability.zh.md"):
            write_table(page, "reliability", table)


if __name__ == "__main__":
    main()
