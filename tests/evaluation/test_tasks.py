"""Tasks of our own: what a file may hold, what is counted, and how it goes from the command line and in training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from firstlight import pipeline
from firstlight.evaluation.likelihood import Likelihood
from firstlight.evaluation.tasks import centred_average, read_task, score_tasks, task_name
from firstlight.support.errors import DataError

QUESTIONS = [
    {"query": "one", "choices": ["a", "bbbb"], "answer": 1},
    {"question": "two", "choices": ["a", "bbbb"], "answer": "a", "delimiter": ""},
    {"query": "three", "choices": ["a", "bbbb", "cc", "dd"], "answer": 3},
]
CLOZE = [{"context": "the cat", "continuation": " sat"}, {"context": "a", "continuation": " mat on it"}]


def write(path: Path, items: list[dict]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_accuracy_is_of_the_likeliest_choice_and_of_the_likeliest_by_bytes(tmp_path, tokenizer):
    task = read_task(write(tmp_path / "some.jsonl", QUESTIONS))
    assert (task.name, task.has_choices, len(task.items)) == ("some", True, 3)
    assert task.items[1].continuations == ("a", "bbbb")
    assert task.items[0].continuations == (" a", " bbbb")
    assert task.chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    nats = [-1.0, -2.0, -1.0, -2.0, -5.0, -9.0, -4.5, -4.0]
    numbers = score_tasks([task], tokenizer, lambda requests: [Likelihood(n, False) for n in nats])["some"]
    # plain: a, a, dd; by bytes: bbbb (-0.5 a byte), bbbb, dd (-2)
    right, by_bytes = [0, 1, 1], [1, 0, 1]
    assert numbers["acc"] == pytest.approx(2 / 3)
    assert numbers["acc_norm"] == pytest.approx(2 / 3)
    assert numbers["acc_stderr"] == pytest.approx(np.std(right, ddof=1) / math.sqrt(3))
    assert numbers["acc_norm_stderr"] == pytest.approx(np.std(by_bytes, ddof=1) / math.sqrt(3))
    assert numbers["items"] == 3


def test_cloze_has_the_perplexity_of_its_tokens_and_accuracy_of_greedy_ones(tmp_path, tokenizer):
    task = read_task(write(tmp_path / "cloze.jsonl", CLOZE))
    sizes = []

    def likelihoods(requests):
        sizes.extend(len(request.continuation) for request in requests)
        return [Likelihood(-3.0, True), Likelihood(-5.0, False)]

    numbers = score_tasks([task], tokenizer, likelihoods, baselines={"cloze": 0.1})["cloze"]
    assert numbers["perplexity"] == pytest.approx(math.exp(8 / sum(sizes)))
    assert (numbers["acc"], numbers["chance"]) == (0.5, 0.1)
    # the delta method against what the ratio does when one item's weight moves a little
    loss = 8 / sum(sizes)
    spread = math.sqrt(2 * sum((nats - loss * size) ** 2 for nats, size in zip((3, 5), sizes, strict=True)))
    assert numbers["perplexity_stderr"] == pytest.approx(math.exp(loss) * spread / sum(sizes))


def test_centring_puts_chance_at_0_and_perfection_at_1():
    numbers = {"a": {"acc": 0.25, "chance": 0.25}, "b": {"acc": 1.0, "chance": 0.5}, "c": {"perplexity": 3.0}}
    assert centred_average(numbers) == 0.5
    assert centred_average({"c": {"perplexity": 3.0}}) is None


def test_a_part_of_a_task_is_spread_over_the_file(tmp_path):
    items = [{"context": str(number), "continuation": " x"} for number in range(10)]
    part = read_task(write(tmp_path / "t.jsonl", items)).part(4)
    assert [item.context for item in part.items] == ["0", "2", "5", "7"]
    assert task_name("a/b.jsonl.zst") == "b"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: not an object"),
        ('{"text": "a"}', "line 2: neither"),
        ('{"context": "a", "continuation": " "}', "line 2: neither"),
        ('{"query": "a", "choices": ["b"], "answer": 0}', "line 2: `choices` must be two texts or more"),
        ('{"query": "a", "choices": ["b", ""], "answer": 0}', "none of them empty"),
        ('{"query": "a", "choices": ["b", "c"], "answer": 2}', "`answer` is 2; a number from 0 to 1"),
        ('{"query": "a", "choices": ["b", "c"], "answer": "d"}', '`answer` is "d"'),
        ('{"query": "a", "choices": ["b", "c"]}', "`answer` is null"),
        ('{"choices": ["b", "c"], "answer": 0}', "`query` (or `question`) is missing"),
        ('{"context": "a", "continuation": " b"}', "line 1 has choices and line 2 a continuation"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, line, sentence):
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(QUESTIONS[0]) + "\n" + line + "\n")
    with pytest.raises(DataError) as problem:
        read_task(file)
    assert sentence in str(problem.value)
    assert "bad.jsonl" in str(problem.value)


@pytest.fixture
def here(trained_folder, tmp_path, monkeypatch):
    """The folder of a trained run, with two tasks beside it."""
    monkeypatch.chdir(trained_folder)
    write(tmp_path / "some.jsonl", QUESTIONS)
    write(tmp_path / "cloze.jsonl", CLOZE)
    return tmp_path


def test_a_run_and_its_export_have_the_same_scores_and_the_card_shows_them(here, firstlight):
    result = firstlight("eval", "runs/tiny", "--tasks", f"{here / 'some.jsonl'},{here / 'cloze.jsonl'}", "--json")
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found["tasks"]) == {"some", "cloze"}
    assert found["centred_average"] == pytest.approx(centred_average(found["tasks"]))
    whole = firstlight("eval", "runs/tiny", "--stride", 16, "--max-tokens", 3000)
    assert whole.code == 0, whole.stderr
    assert "perplexity, 95 %" in whole.stdout

    assert firstlight("export", "runs/tiny", here / "model").code == 0
    on_folder = pipeline.evaluate_tasks(here / "model", [str(here)], device="cpu")
    for task, numbers in on_folder.items():
        assert numbers == pytest.approx(found["tasks"][task], rel=1e-4)
    held_out = json.loads(Path("runs/tiny/evaluations.jsonl").read_text().splitlines()[-1])
    assert held_out["stride"] == 16
    card = (here / "model" / "README.md").read_text()
    assert "## Evaluation on tasks" in card
    assert f"| cloze | perplexity | {on_folder['cloze']['perplexity']:.4g} |" in card
    manual = held_out["held_out"]["manual"]
    assert f"{manual['perplexity']:.4g} ({manual['perplexity_low']:.4g} to {manual['perplexity_high']:.4g})" in card
    assert "| flops |" in card

    scores = firstlight(
        "eval", here / "model", "--data", "code=code.jsonl", "--max-tokens", 300, "--sequence-length", 64
    )
    assert scores.code == 0, scores.stderr
    direct = pipeline.evaluate("runs/tiny", files={"code": ["code.jsonl"]}, max_tokens=300)
    assert f"{direct['code']['loss']:.3f}" in scores.stdout


def test_tasks_while_training_are_those_of_eval_and_are_logged(here, firstlight):
    tasks = f"evaluation.tasks=[{here / 'some.jsonl'},{here / 'cloze.jsonl'}]"
    settings = ("evaluation.task_interval_steps=2", "evaluation.task_baselines={cloze: 0.2}", "license=mit")
    result = firstlight("train", "recipe.yaml", "name=with-tasks", tasks, *settings)
    assert result.code == 0, result.stderr
    lines = [json.loads(line) for line in Path("runs/with-tasks/metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "tasks/some/acc" in line]
    assert [line["step"] for line in scored] == [2, 4]
    found = pipeline.evaluate_tasks("runs/with-tasks", [str(here)], device="cpu")
    for task, numbers in found.items():
        for key, value in numbers.items():
            assert scored[-1][f"tasks/{task}/{key}"] == pytest.approx(value, rel=1e-3), (task, key)
    assert found["cloze"]["chance"] == 0.2
    assert scored[-1]["tasks_centred"] == pytest.approx(centred_average(found))

    assert firstlight("export", "runs/with-tasks", here / "model").code == 0
    assert (here / "model" / "README.md").read_text().startswith("---\nlicense: mit\n")
    sentence = firstlight(
        "train", "recipe.yaml", "name=other", tasks, "evaluation.task_baselines={clozes: 0.2}"
    ).sentence()
    assert "evaluation.task_baselines names 'clozes'" in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--tasks", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--tasks", "EMPTY"), "no task in this folder"),
        (("--task-limit", "3"), "--task-limit goes with --tasks"),
        (("--tasks", "some.jsonl", "--stride", "3"), "--stride, --sequence-length and --max-tokens are for text"),
        (("--stride", "65"), "stride is 65; at least 1 is due, and at most the window's 64 tokens"),
        (("--sequence-length", "5000"), "the model has 2048 positions"),
    ],
)
def test_wrong_input_of_eval_is_one_sentence(here, firstlight, arguments, sentence):
    (here / "EMPTY").mkdir()
    given = [str(here / name) if name.endswith(".jsonl") or name == "EMPTY" else name for name in arguments]
    assert sentence in firstlight("eval", "runs/tiny", *given).sentence()
