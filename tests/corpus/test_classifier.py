"""A classifier: learns what can be learnt, the same from the same, survives its folder, and runs nobody's code."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from firstlight.config.text_steps import Classifier
from firstlight.corpus.classifier import ClassifierStep, TrainedClassifier, classifier_table, train_classifier
from firstlight.corpus.classifier.features import count_features, fill_features, sum_weights
from firstlight.corpus.classifier.held_out import held_out_figures
from firstlight.corpus.classifier.step import uniform
from firstlight.corpus.step import Block
from firstlight.support.errors import ConfigError, DataError

COMMON = ["the", "of", "and", "to", "a", "in", "that", "it", "was", "for", "on", "with", "as", "at", "by", "from"]
GOOD = ["theorem", "history", "river", "century", "language", "museum", "empire", "species", "novel", "treaty"]
BAD = ["click", "buy", "discount", "free", "offer", "subscribe", "deal", "shipping", "cart", "coupon"]
GOOD_HAN, BAD_HAN = "山水诗书史学城江文典", "购买优惠点击免费促销"


def prose(words: list[str], chance: random.Random) -> str:
    """Common words with one in four of a domain's own."""
    return " ".join(chance.choice(words if chance.random() < 0.25 else COMMON) for _ in range(chance.randint(30, 80)))


def han(characters: str, chance: random.Random) -> str:
    """Common characters with one in four of a domain's own."""
    return (
        "".join(chance.choice(characters if chance.random() < 0.25 else "的一是在不了有和人这") for _ in range(60))
        + "。"
    )


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> dict[str, Path]:
    """Files of two constructed domains, half English and half Chinese."""
    folder, chance = tmp_path_factory.mktemp("domains"), random.Random(7)
    return {
        name: write(
            folder / f"{name}.jsonl",
            [prose(words, chance) for _ in range(300)] + [han(own, chance) for _ in range(300)],
        )
        for name, words, own in (("good", GOOD, GOOD_HAN), ("bad", BAD, BAD_HAN))
    }


def train(domains, output, **settings):
    return train_classifier([str(domains["good"])], [str(domains["bad"])], output, **{"bits": 16, **settings})


@pytest.fixture(scope="module")
def trained(domains, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "model"
    train(domains, folder)
    return folder


def block_of(texts):
    return Block(list(texts), [{"n": number} for number in range(len(texts))])


def test_it_separates_two_domains_that_it_has_not_seen(trained):
    figures = json.loads((trained / "classifier.json").read_text())["held_out"]
    assert figures["auc"] > 0.95
    assert figures["accuracy"] > 0.9
    assert 80 < figures["good"] + figures["bad"] < 170
    chance, model = random.Random(8), TrainedClassifier.load(trained)
    for good, bad in ((prose(GOOD, chance), prose(BAD, chance)), (han(GOOD_HAN, chance), han(BAD_HAN, chance))):
        scores = model.score([good, bad])
        assert scores[0] > 0.5 > scores[1]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(classifier_table(json.loads((trained / "classifier.json").read_text())))
    assert "precision" in captured.get()


def test_nothing_is_learnt_where_nothing_is_to_be_learnt(domains, tmp_path):
    chance = random.Random(9)
    same = {
        name: write(tmp_path / f"{name}.jsonl", [prose(GOOD, chance) for _ in range(600)]) for name in ("good", "bad")
    }
    assert 0.3 < train(same, tmp_path / "model", held_out_fraction=0.3)["held_out"]["auc"] < 0.7


def test_the_same_documents_give_the_same_bytes_in_any_order_and_number(domains, trained, tmp_path):
    backwards = {}
    for name, file in domains.items():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        backwards[name] = tmp_path / file.name
        backwards[name].write_text("".join(reversed(lines)) + lines[3], encoding="utf-8")
    record = train(backwards, tmp_path / "model")
    again = train(domains, tmp_path / "again")
    assert (tmp_path / "again" / "classifier.json").read_bytes() == (trained / "classifier.json").read_bytes()
    for folder in (tmp_path / "model", tmp_path / "again"):
        assert (folder / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()
    assert record["training"]["good"]["duplicates"] == 1
    assert record["held_out"] == again["held_out"]
    other = train(domains, tmp_path / "other", seed=5)
    assert other["weights_sha256"] != again["weights_sha256"]


def test_a_sample_of_much_text_does_not_depend_on_its_order(domains, tmp_path):
    sizes = set()
    for order in (1, -1):
        file = write(
            tmp_path / "good.jsonl",
            [json.loads(line)["text"] for line in domains["good"].read_text(encoding="utf-8").splitlines()][::order],
        )
        record = train({**domains, "good": file}, tmp_path / "model", max_bytes=40_000)
        sizes.add(
            (record["weights_sha256"], record["training"]["good"]["used"], record["training"]["good"]["used_bytes"])
        )
    ((_, used, used_bytes),) = sizes
    assert 50 <= used < 600
    assert used_bytes <= 40_000


def test_a_saved_model_gives_the_scores_of_the_one_in_memory(trained, tmp_path):
    model = TrainedClassifier.load(trained)
    model.save(tmp_path / "copy", {})
    texts = [prose(GOOD, random.Random(n)) for n in range(20)]
    assert (TrainedClassifier.load(tmp_path / "copy").score(texts) == model.score(texts)).all()


texts = st.lists(
    st.text(max_size=60)
    | st.text(alphabet="ab Z9,。，的山水ｆé\u2014ไทย😀\U00020000カ한", max_size=40)
    | st.text(alphabet=st.characters(codec="utf-8"), max_size=60),
    max_size=6,
)


@given(texts=texts, ngrams=st.integers(1, 3))
def test_a_sum_of_weights_is_that_of_the_features_and_blocks_do_not_matter(texts, ngrams):
    weights = np.random.default_rng(3).normal(size=2**10).astype(np.float32)
    data, offsets = block_of(texts).utf8()
    sums, counts = sum_weights(data, offsets, weights, 10, ngrams)
    assert (counts == count_features(data, offsets, ngrams)).all()
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    buckets = np.full(first[-1], -1, dtype=np.int32)
    fill_features(data, offsets, 10, ngrams, first, buckets)
    assert ((buckets >= 0) & (buckets < 2**10)).all()
    for number, text in enumerate(texts):
        own = buckets[first[number] : first[number + 1]]
        assert sums[number] == pytest.approx(weights[own].sum(dtype=np.float64), abs=1e-4)
        alone = sum_weights(*block_of([text]).utf8(), weights, 10, ngrams)
        assert (alone[0][0], alone[1][0]) == (sums[number], counts[number])


def buckets_of(text: str, ngrams: int = 1) -> list[int]:
    data, offsets = block_of([text]).utf8()
    counts = count_features(data, offsets, ngrams)
    buckets = np.empty(counts[0], dtype=np.int32)
    fill_features(data, offsets, 28, ngrams, np.array([0, counts[0]]), buckets)
    return buckets.tolist()


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("Hello, WORLD!", ["hello", "world"]),
        ("in 1984—and later", ["in", "2026", "and", "later"]),
        ("山水诗。山", ["山", "水", "诗", "山"]),
        ("用GPU训练", ["用", "gpu", "训", "练"]),
        ("naïve café", ["naïve", "café"]),
        ("カナ と", ["カ", "ナ", "と"]),
        ("한국어 말", ["한국어", "말"]),
        ("ok😀ok", ["ok", "😀", "ok"]),
        ("“quoted”…", ["quoted"]),
        ("ＡＢＣ，ＤＥ", ["ＡＢＣ", "ＤＥ"]),
        (" \n\t-- 。！", []),
    ],
)
def test_words_are_parted_as_documented(text, units):
    assert buckets_of(text) == [bucket for unit in units for bucket in buckets_of(unit)]
    assert len(buckets_of(text)) == len(units)
    pairs = max(0, len(units) - 1) + max(0, len(units) - 2)
    assert len(buckets_of(text, 3)) == len(units) + pairs


def test_the_hash_of_a_saved_model_never_changes():
    assert buckets_of("hello 山水", 2) == [118719067, 60357670, 72748789, 251820396, 91567970]


def test_order_counts_from_two_words_on():
    assert sorted(buckets_of("a b c")) == sorted(buckets_of("c b a"))
    assert sorted(buckets_of("a b c", 2)) != sorted(buckets_of("c b a", 2))


def test_a_text_without_a_word_scores_0_and_a_long_one_is_a_number(trained):
    scores = TrainedClassifier.load(trained).score(["", " \n。", "\0", "theorem " * 100_000, "x" * 1_000_000])
    assert scores[:3].tolist() == [0, 0, 0]
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_the_step_marks_and_drops_by_the_score_that_it_writes(trained):
    chance = random.Random(10)
    block = block_of([prose(GOOD if n % 2 else BAD, chance) for n in range(100)] + [""])
    result = ClassifierStep(Classifier(model=str(trained), min_score=0.7)).apply(block)
    scores = [metadata["quality_score"] for metadata in result.metadata]
    assert [reason == "low score" for reason in result.reasons] == [score < 0.7 for score in scores]
    assert 30 < sum(reason is None for reason in result.reasons) < 70
    assert all(round(score, 4) == score for score in scores)
    assert [metadata["n"] for metadata in result.metadata] == list(range(101))
    assert block.metadata[0] == {"n": 0}
    marked = ClassifierStep(Classifier(model=str(trained), min_score=None, field="mine")).apply(block)
    assert set(marked.reasons) == {None}
    assert [metadata["mine"] for metadata in marked.metadata] == scores


def test_drawing_by_score_keeps_the_share_that_the_formula_says_whatever_the_block(trained):
    block = block_of([prose(GOOD if n % 4 else BAD, random.Random(n)) for n in range(3000)])
    step = ClassifierStep(Classifier(model=str(trained), pareto_alpha=3))
    result = step.apply(block)
    expected = np.array([(2 - metadata["quality_score"]) ** -3 for metadata in result.metadata])
    kept = np.array([reason is None for reason in result.reasons])
    assert abs(kept.sum() - expected.sum()) < 5 * np.sqrt((expected * (1 - expected)).sum()) + 1
    assert {reason for reason in result.reasons if reason} == {"not drawn by score"}
    half = step.apply(block_of(block.texts[1500:]))
    assert list(half.reasons) == list(result.reasons[1500:])
    assert list(ClassifierStep(Classifier(model=str(trained), pareto_alpha=3, seed=2)).apply(block).reasons) != list(
        result.reasons
    )


def test_the_draw_is_even():
    numbers = np.array([uniform(str(n), 1) for n in range(4000)])
    assert np.abs(np.histogram(numbers, bins=10, range=(0, 1))[0] - 400).max() < 100


def test_settings_of_the_step_survive_being_written_and_read():
    for settings in ({}, {"pareto_alpha": 9}, {"pareto_alpha": 9, "min_score": 0.1}, {"min_score": None}):
        config = Classifier(model="m", **settings)
        assert Classifier(**config.model_dump()) == config
    assert Classifier(model="m").min_score == 0.5
    assert Classifier(model="m", pareto_alpha=9).min_score is None
    assert Classifier(model="m", pareto_alpha=9, min_score=0.1).min_score == 0.1


scored = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=60)


@given(scored)
def test_held_out_figures_are_what_they_say(pairs):
    pairs = [*pairs, (0.5, True), (0.25, False)]
    scores = np.array([score for score, _ in pairs], dtype=np.float32)
    is_good = np.array([good for _, good in pairs])
    figures = held_out_figures(scores, is_good)
    won = [(a > b) + (a == b) / 2 for a in scores[is_good] for b in scores[~is_good]]
    assert figures["auc"] == pytest.approx(np.mean(won), abs=1e-6)
    for row in figures["thresholds"]:
        assert row["good_kept"] == pytest.approx(np.mean(scores[is_good] >= row["min_score"]), abs=1e-6)
        assert row["bad_kept"] == pytest.approx(np.mean(scores[~is_good] >= row["min_score"]), abs=1e-6)
    assert sum(row["documents"] for row in figures["calibration"]) == len(pairs)


def test_too_few_documents_are_one_sentence_and_leave_no_folder(domains, tmp_path):
    few = write(tmp_path / "few.jsonl", [f"document {'x' * n}" for n in range(20)] * 5)
    with pytest.raises(DataError, match=r"the bad files have 20 different documents .*at least 50"):
        train({**domains, "bad": few}, tmp_path / "model")
    with pytest.raises(DataError, match=r"the good files have 0 different documents .*600 also in the other files"):
        train({"good": domains["good"], "bad": domains["good"]}, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_texts_of_both_classes_are_left_out_and_counted(domains, tmp_path, capsys):
    mixed = tmp_path / "bad.jsonl"
    mixed.write_text(
        domains["bad"].read_text(encoding="utf-8")
        + "".join(domains["good"].read_text(encoding="utf-8").splitlines(keepends=True)[:30])
        + "no json\n",
        encoding="utf-8",
    )
    record = train({**domains, "bad": mixed}, tmp_path / "model")
    training = record["training"]
    assert training["in_both"] == 30
    assert training["good"]["used"] == 570
    assert training["bad"]["used"] == 600
    assert training["bad"]["bad_lines"] == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "30 texts are in the good and in the bad files" in said
    assert "line 631" in said


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"ngrams": 4}, "ngrams is 4"),
        ({"bits": 40}, "bits is 40"),
        ({"max_bytes": 0}, "max_bytes is 0"),
        ({"held_out_fraction": 1.0}, "held_out_fraction is 1"),
    ],
)
def test_settings_out_of_range_are_one_sentence(domains, tmp_path, setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train(domains, tmp_path / "model", **setting)


class Malicious:
    """Unpickling it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (Path(self.path), "executed")


def test_a_folder_from_a_stranger_runs_nothing(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "model")
    trap = pickle.dumps(Malicious(str(tmp_path / "executed")))
    pickle.loads(trap)
    (tmp_path / "executed").unlink()  # the trap works where it is unpickled
    (folder / "weights.safetensors").write_bytes(trap)
    description = json.loads((folder / "classifier.json").read_text())
    with pytest.raises(DataError, match="SHA-256 differs"):
        TrainedClassifier.load(folder)
    description["weights_sha256"] = hashlib.sha256(trap).hexdigest()
    (folder / "classifier.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match="not a safetensors file of weights"):
        TrainedClassifier.load(folder)
    assert not (tmp_path / "executed").exists()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def _change(file: Path, **fields) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "classifier.json").unlink(), "no classifier.json"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "no such file; the classifier is incomplete"),
        (lambda folder: _truncate(folder / "weights.safetensors"), "SHA-256 differs"),
        (lambda folder: _truncate(folder / "classifier.json"), "invalid JSON"),
        (lambda folder: (folder / "classifier.json").write_text("[]"), "damaged description"),
        (lambda folder: _change(folder / "classifier.json", version=99), "format 99"),
        (lambda folder: _change(folder / "classifier.json", bits=17), "finite float32 are due"),
        (lambda folder: _change(folder / "classifier.json", bits="x"), "damaged description"),
        (lambda folder: _change(folder / "classifier.json", bias=float("nan")), "damaged description"),
        (lambda folder: _change(folder / "classifier.json", ngrams=[1]), "damaged description"),
    ],
)
def test_a_damaged_folder_is_one_sentence(trained, tmp_path, damage, sentence):
    folder = shutil.copytree(trained, tmp_path / "model")
    damage(folder)
    with pytest.raises(DataError, match=sentence) as problem:
        ClassifierStep(Classifier(model=str(folder)))
    assert str(folder) in str(problem.value)
