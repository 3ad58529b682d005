"""lm-eval on a model of ours comes to what it comes to on the export, read by its own Hugging Face backend."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from firstlight import CausalLanguageModel
from firstlight.config import MaskingConfig
from firstlight.evaluation import Scorer
from firstlight.evaluation.likelihood import cached_likelihoods
from firstlight.evaluation.lm_eval_model import FirstlightLM, evaluate_with_lm_eval
from firstlight.evaluation.packed import packed_likelihoods
from firstlight.evaluation.perplexity import evaluation_masks
from firstlight.interop.huggingface import export_huggingface
from firstlight.support.errors import ConfigError

WORDS = ["quick", "brown", "fox", "jumps", "over", "lazy", "dog", "the"]


@pytest.fixture(scope="module")
def model(tokenizer):
    """Wide initial weights, so that no two answers are nearly alike; with rows that only pad the vocabulary."""
    size = -(-tokenizer.vocab_size // 64) * 64
    padding = size - tokenizer.vocab_size
    shape = {"max_position_embeddings": 48, "initializer_range": 0.3, "vocab_padding": padding}
    return CausalLanguageModel(size, 32, 2, 4, **shape).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four tasks in lm-eval's own format over files of JSON lines: choices, last words, whole texts, writing."""
    folder, draws = tmp_path_factory.mktemp("tasks"), random.Random(3)
    phrase = lambda least, most: " ".join(draws.choices(WORDS, k=draws.randint(least, most)))  # noqa: E731
    tasks = {
        "pick": (
            [{"q": phrase(2, 20), "choices": [phrase(1, 4) for _ in range(4)], "gold": n % 4} for n in range(12)],
            {
                "output_type": "multiple_choice",
                "doc_to_text": "{{q}}",
                "doc_to_choice": "choices",
                "doc_to_target": "gold",
            },
            ["acc", "acc_norm"],
        ),
        "last": (
            [{"before": phrase(2, 20), "after": phrase(1, 3)} for _ in range(10)],
            {"output_type": "loglikelihood", "doc_to_text": "{{before}}", "doc_to_target": " {{after}}"},
            ["acc", "perplexity"],
        ),
        "whole": (
            [{"text": phrase(3, 60)} for _ in range(5)],
            {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"},
            ["byte_perplexity", "bits_per_byte"],
        ),
        "write": (
            [{"q": phrase(1, 9), "a": phrase(1, 2)} for _ in range(6)],
            {
                "output_type": "generate_until",
                "doc_to_text": "{{q}}",
                "doc_to_target": "{{a}}",
                "generation_kwargs": {"until": ["e"], "max_gen_toks": 12, "do_sample": False},
            },
            ["exact_match"],
        ),
    }
    for name, (items, fields, metrics) in tasks.items():
        data = folder / f"{name}.data.json"
        data.write_text("".join(json.dumps(item) + "\n" for item in items))
        description = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            **fields,
            "metric_list": [{"metric": metric} for metric in metrics],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(description))
    return folder


def adapter(model, tokenizer, **settings):
    return FirstlightLM(
        tokenizer, lambda requests: cached_likelihoods(model, requests, batch_size=5), 48, writer=model, **settings
    )


def test_all_kinds_of_requests_come_to_what_the_hugging_face_backend_says(
    model, tokenizer, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # lm-eval's bootstrap would fork beside threads, and hang
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    export_huggingface(model, tokenizer, tmp_path / "export")
    peer = HFLM(pretrained=str(tmp_path / "export"), device="cpu", batch_size=5, max_length=48, dtype="float32")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    names = ["pick", "last", "whole", "write"]
    found = {
        which: simple_evaluate(lm, tasks=names, task_manager=manager, bootstrap_iters=10)
        for which, lm in (("ours", adapter(model, tokenizer)), ("theirs", peer))
    }
    answers = {which: samples_of(result) for which, result in found.items()}
    assert len(answers["ours"]) == 12 * 4 + 10 + 5 + 6
    for ours, theirs in zip(answers["ours"], answers["theirs"], strict=True):
        if isinstance(ours, str):
            assert ours == theirs
        else:
            assert ours == pytest.approx(theirs, rel=1e-4)
    for name in names:
        ours, theirs = (found[which]["results"][name] for which in ("ours", "theirs"))
        for metric, value in ours.items():
            if isinstance(value, float):
                assert value == pytest.approx(theirs[metric], rel=1e-4), (name, metric)
    assert 0 < found["ours"]["results"]["pick"]["acc,none"] < 1

    numbers = evaluate_with_lm_eval(adapter(model, tokenizer), ["pick", "last"], folder=folder, limit=8)
    assert numbers["pick"]["items"] == numbers["last"]["items"] == 8
    assert numbers["pick"]["chance"] == 0.25
    assert "chance" not in numbers["last"]
    assert numbers["pick"]["acc_stderr"] > 0


def samples_of(result):
    """Every answer, flat, in a fixed order: (nats, greedy), nats, or text."""
    samples = [sample for name in sorted(result["samples"]) for sample in result["samples"][name]]
    responses = [response[0] for sample in samples for response in sample["resps"]]
    return [response if isinstance(response, str | float) else tuple(map(float, response)) for response in responses]


def test_a_masked_model_ranks_and_does_not_write(masked_model, tokenizer, folder):
    masks = evaluation_masks(MaskingConfig(), tokenizer, 1)
    scorer = Scorer(masked_model, tokenizer, 64, 8, masked_model.lm_head.weight.device, masks)
    lm = FirstlightLM(tokenizer, lambda requests: packed_likelihoods(scorer, requests), 64, causal=False)
    numbers = evaluate_with_lm_eval(lm, ["pick", "whole"], folder=folder, limit=3, baselines={"pick": 0.3})
    assert numbers["pick"]["chance"] == 0.3
    assert numbers["whole"]["bits_per_byte"] > 0
    with pytest.raises(ConfigError, match="'write' has the model write, which a masked one cannot do"):
        evaluate_with_lm_eval(lm, ["write"], folder=folder)


def test_an_unknown_task_is_one_sentence(model, tokenizer, folder):
    with pytest.raises(ConfigError, match=r"^lm-eval cannot load pack: .*\.$"):
        evaluate_with_lm_eval(adapter(model, tokenizer), ["pack"], folder=Path(folder))
