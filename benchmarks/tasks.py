"""Tasks on a model of ours: through Firstlight's adapter of lm-eval, and through its own `hf` backend on the export.

Three tasks are written to a temporary folder in lm-eval's format, from the packaged text: which of four ends belongs to
a passage (short and long ones), and the last word of a passage. Both answer the same requests, in turns (A B A B), and
must come to the same metrics; the table has the ratio of the medians. With --write it takes its place in
docs/evaluation.md and its translation.

    python benchmarks/tasks.py --items 60 --rounds 3
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from common import STARTER, machine, write_table
from firstlight.documents import read_documents
from firstlight.evaluation.likelihood import cached_likelihoods
from firstlight.evaluation.lm_eval_model import FirstlightLM
from firstlight.interop.huggingface import export_huggingface
from firstlight.model import CausalLanguageModel
from firstlight.tokens.tokenizer_training import train_tokenizer

SHAPE = {"hidden_size": 256, "num_layers": 6, "num_heads": 8, "max_position_embeddings": 512}
VOCAB_SIZE = 16_000
HEADS = {
    "en": "| task | requests | Firstlight | lm-eval `hf` | ratio | metrics |",
    "zh": "| 任务 | 请求数 | Firstlight | lm-eval `hf` | 比值 | 指标 |",
}
SAME = {"en": "the same", "zh": "相同"}
PAGES = {"en": "evaluation.md", "zh": "evaluation.zh.md"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100, help="questions of each task")
    parser.add_argument("--rounds", type=int, default=5, help="times that each answers each task")
    parser.add_argument("--batch-size", type=int, default=16, help="rows at a time, for both")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    arguments = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments.items, arguments.rounds, arguments.batch_size)
    about = (
        f"{machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, {datetime.date.today()}; "
        f"{arguments.rounds} rounds, medians."
    )
    for language, page in PAGES.items():
        lines = [row.format(same=SAME[language]) for row in rows]
        text = "\n".join((HEADS[language], "|---|---|---|---|---|---|", *lines, "", about))
        if language == "en":
            print(text)
        if arguments.write:
            write_table(page, "tasks", text)


def measure(folder: Path, items: int, rounds: int, batch_size: int) -> list[str]:
    """The lines of the table, one a task."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    passages = texts(2_000)
    tokenizer = train_tokenizer(passages, VOCAB_SIZE, show_progress=False)
    names = write_tasks(folder, passages, items)
    model = CausalLanguageModel(vocab_size=tokenizer.vocab_size, initializer_range=0.1, **SHAPE).eval()
    export_huggingface(model, tokenizer, folder / "export")
    ours = FirstlightLM(
        tokenizer,
        lambda requests: cached_likelihoods(model, requests, batch_size=batch_size),
        SHAPE["max_position_embeddings"],
    )
    theirs = HFLM(pretrained=str(folder / "export"), device="cpu", dtype="float32", batch_size=batch_size)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return [row(name, ours, theirs, manager, rounds) for name in names]


def row(name: str, ours: Any, theirs: Any, manager: Any, rounds: int) -> str:
    from lm_eval.evaluator import simple_evaluate

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    metrics: dict[str, dict[str, float]] = {}
    requests = 0
    for turn in range(rounds + 1):  # the first warms up
        for which, model in (("ours", ours), ("theirs", theirs)):
            spent = [0.0]
            timed(model, spent)
            result = simple_evaluate(model, tasks=[name], task_manager=manager, bootstrap_iters=10)
            requests = sum(len(sample["resps"]) for sample in result["samples"][name])
            metrics[which] = {k: v for k, v in result["results"][name].items() if isinstance(v, float)}
            if turn:
                seconds[which].append(spent[0])
    for key, value in metrics["ours"].items():
        assert abs(value - metrics["theirs"][key]) <= 1e-4 * abs(value), (name, key, metrics)
    one, other = (statistics.median(seconds[which]) for which in ("ours", "theirs"))
    return f"| {name} | {requests} | {one:.2f} s | {other:.2f} s | {other / one:.2f} | {{same}} |"


def timed(model: Any, spent: list[float]) -> None:
    """Have the answers of `model` counted in `spent`, in seconds, and nothing of what lm-eval does around them."""
    answer = type(model).loglikelihood

    def counted(requests: list[Any], **settings: Any) -> Any:
        started = time.perf_counter()
        found = answer(model, requests, **settings)
        spent[0] += time.perf_counter() - started
        return found

    model.loglikelihood = counted


def texts(count: int) -> list[str]:
    """Passages of the packaged text, of at least 60 words."""
    found: list[str] = []
    for source in STARTER[:2]:
        for document in read_documents(source):
            text = getattr(document, "text", "")
            found += [part for part in text.split("\n\n") if 60 <= len(part.split()) <= 250]
            if len(found) >= count:
                return found[:count]
    return found


def write_tasks(folder: Path, passages: list[str], count: int) -> list[str]:
    """Three tasks of `count` items; returns their names."""
    draws = random.Random(0)
    draws.shuffle(passages)
    short, long, words = [], [], []
    for number in range(count):
        for items, before, after in ((short, 12, 8), (long, 100, 20)):
            cut = [passage.split() for passage in draws.sample(passages, 4)]
            ends = [" ".join(parts[-after:]) for parts in cut]
            right = number % 4
            begun = " ".join(cut[right][-after - before : -after])
            items.append({"q": begun, "choices": ends, "gold": right})
        parts = passages[number % len(passages)].split()[:50]
        words.append({"q": " ".join(parts[:-1]), "a": parts[-1]})
    choices = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
    last = {"output_type": "loglikelihood", "doc_to_target": " {{a}}"}
    for name, items, fields, metrics in (
        ("short-ends", short, choices, ("acc", "acc_norm")),
        ("long-ends", long, choices, ("acc", "acc_norm")),
        ("last-word", words, last, ("acc", "perplexity")),
    ):
        data = folder / f"{name}.data.json"
        data.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        description = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "{{q}}",
            **fields,
            "metric_list": [{"metric": metric} for metric in metrics],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    return ["short-ends", "long-ends", "last-word"]


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DISABLE_MULTIPROC": "1"}
    main()
