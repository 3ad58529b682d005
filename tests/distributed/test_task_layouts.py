"""Tasks and held-out text come to the same numbers whatever the layout of the processes that score them."""

from __future__ import annotations

import json

import pytest

LAYOUTS = {
    "fsdp2": (2, []),
    "tp2": (2, ["parallel.tensor=2"]),
    "cp2": (2, ["parallel.context=2"]),
    "pp2": (2, ["parallel.pipeline=2"]),
}
SHORT = ["training.total_steps=2", "schedule.warmup_steps=1", "optimizer.lr=1e-2", "evaluation.interval_steps=2"]
WORDS = ["name", "value", "object", "class", "method", "import", "return"]


@pytest.fixture
def tasks(tmp_path):
    """Nine questions and seven contexts, so that no batch is whole."""
    questions = [{"query": f"The {WORDS[n % 7]} of", "choices": WORDS[: 2 + n % 3], "answer": n % 2} for n in range(9)]
    cloze = [{"context": f"a {word} is a", "continuation": f" {word} and {word[::-1]}"} for word in WORDS]
    for name, items in (("questions", questions), ("cloze", cloze)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return f"evaluation.tasks=[{tmp_path / 'questions.jsonl'},{tmp_path / 'cloze.jsonl'}]"


@pytest.mark.parametrize(
    ("objective", "layouts"),
    [
        ("causal", ["cp2"]),
        pytest.param("causal", ["fsdp2", "tp2", "pp2"], marks=pytest.mark.slow),
        pytest.param("masked", ["fsdp2", "tp2", "cp2", "pp2"], marks=pytest.mark.slow),
    ],
)
def test_scores_are_those_of_one_process(objective, layouts, tasks, train_at, metrics):
    common = [f"model.objective={objective}", *SHORT, tasks]
    jobs = {"one": (1, common)} | {name: (LAYOUTS[name][0], [*common, *LAYOUTS[name][1]]) for name in layouts}
    runs = train_at(jobs)
    for key in ("tasks/cloze/perplexity", "tasks/questions/acc_norm", "tasks_centred", "validation/manual/loss"):
        alone = metrics(runs["one"], key)
        assert list(alone) == [2], key
        for name in layouts:
            assert metrics(runs[name], key) == pytest.approx(alone, rel=1e-4), (name, key)
