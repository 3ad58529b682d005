"""Scores are sums divided once: they do not depend on batches, and they equal a plain loop over documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from firstlight import CausalLanguageModel, evaluate_pretraining
from firstlight.evaluation import Score, Scorer, Share, evaluate_split
from firstlight.evaluation.perplexity import evaluate_documents
from firstlight.evaluation.windows import split_documents, text_documents
from firstlight.support.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def model(tokenizer, texts):
    """Trained just enough to be right now and then."""
    model = CausalLanguageModel(vocab_size=320, hidden_size=32, num_layers=2, num_heads=2, max_position_embeddings=16)
    ids = torch.tensor([tokenizer.encode(texts[2])[:16]])
    for _ in range(3):
        model(ids, labels=ids)["loss"].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad
        model.zero_grad()
    return model.eval()


def plain_loop(model, tokenizer, texts, length):
    """One document and one window at a time, with nothing clever."""
    nats = tokens = text_nats = text_bytes = correct = 0
    sizes = tokenizer.token_bytes()
    for text in texts:
        ids = [tokenizer.eod_id, *tokenizer.encode(text), tokenizer.eod_id]
        for start in range(0, len(ids) - 1, length):
            window = torch.tensor([ids[start : start + length + 1]])
            with torch.no_grad():
                logits = model(window[:, :-1])["logits"][0]
            losses = F.cross_entropy(logits, window[0, 1:], reduction="none").tolist()
            correct += int((logits.argmax(1) == window[0, 1:]).sum())
            for loss, target in zip(losses, window[0, 1:].tolist(), strict=True):
                nats, tokens = nats + loss, tokens + 1
                if sizes[target]:
                    text_nats, text_bytes = text_nats + loss, text_bytes + int(sizes[target])
    return nats / tokens, text_nats / math.log(2) / text_bytes, correct / tokens, tokens


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("length", [5, 16])
def test_equals_a_plain_loop_at_any_batch_size(model, tokenizer, texts, batch_size, length):
    loss, bits, accuracy, tokens = plain_loop(model, tokenizer, texts, length)
    result = evaluate_pretraining(model, tokenizer, texts, sequence_length=length, batch_size=batch_size)
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert result["accuracy"] == accuracy > 0
    assert result["tokens"] == tokens


def test_a_mean_of_batch_means_would_be_another_number(model, tokenizer, texts):
    batches = [evaluate_pretraining(model, tokenizer, [text])["loss"] for text in texts]
    weighted = evaluate_pretraining(model, tokenizer, texts)["loss"]
    assert abs(sum(batches) / len(batches) - weighted) > 1e-4


def test_bytes_are_those_of_the_text(model, tokenizer, texts):
    sizes = tokenizer.token_bytes()
    assert sum(int(sizes[tokenizer.encode(text)].sum()) for text in texts) == sum(len(t.encode()) for t in texts)


def test_domains_add_up_to_the_whole(model, tokenizer, texts):
    result = evaluate_pretraining(model, tokenizer, {"fox": texts[:3], "rest": texts[3:]})
    domains = result["domains"]
    tokens = sum(score["tokens"] for score in domains.values())
    assert tokens == result["tokens"]
    assert result["loss"] == pytest.approx(sum(s["loss"] * s["tokens"] for s in domains.values()) / tokens)


def test_a_transformers_model_is_scored_too(tokenizer, texts):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    other = LlamaForCausalLM(config).eval()
    result = evaluate_pretraining(other, tokenizer, texts, sequence_length=16)
    wrapped = lambda ids: {"logits": other(ids).logits}  # noqa: E731
    loss, bits, accuracy, _ = plain_loop(wrapped, tokenizer, texts, 16)
    assert result["accuracy"] == accuracy
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_training_mode_comes_back_and_what_is_no_text_is_an_error(model, tokenizer):
    model.train()
    evaluate_pretraining(model, tokenizer, ["text"])
    assert model.training
    with pytest.raises(DataError, match="holds no text"):
        evaluate_pretraining(model, tokenizer, [])
    with pytest.raises(DataError, match="made of texts, not of int"):
        evaluate_pretraining(model, tokenizer, [3])
    model.eval()


class FakeSplit:
    def __init__(self, tokens):
        self.tokens = np.asarray(tokens, dtype=np.uint16)
        self.num_tokens = len(tokens)

    def read(self, start, length):
        assert start >= 0 and start + length <= self.num_tokens
        return self.tokens[start : start + length]


def score(model, tokenizer, split, within_documents=False, **settings):
    scorer = Scorer(model, tokenizer, 8, 3, torch.device("cpu"), within_documents=within_documents)
    return evaluate_split(scorer, split, **settings)


@pytest.mark.parametrize("count", [2, 8, 9, 10, 41])
def test_every_token_of_a_split_but_the_first_is_predicted_once(model, tokenizer, count):
    seen = []
    result = score(model, tokenizer, FakeSplit(np.arange(2, count + 2) % 250), advance=seen.append)
    assert result.tokens == count - 1 == sum(seen)


def test_max_tokens_takes_windows_spread_over_the_split(model, tokenizer):
    split = FakeSplit(np.arange(1000) % 250)
    starts = []
    read = split.read
    split.read = lambda start, length: starts.append(start) or read(start, length)
    assert score(model, tokenizer, split, max_tokens=40).tokens == 40
    assert starts == [0, 200, 400, 600, 800]
    with pytest.raises(DataError, match="fewer than two tokens"):
        score(model, tokenizer, FakeSplit([1]))


@pytest.mark.parametrize("within_documents", [False, True])
def test_no_document_of_a_window_is_read_in_the_light_of_another(model, tokenizer, within_documents):
    eod, one, other = tokenizer.eod_id, [9, 8, 7], [20, 21, 22]

    def nats(*ids):
        return score(model, tokenizer, FakeSplit(ids), within_documents).nats

    together = nats(eod, *one, eod, *other)
    assert together == pytest.approx(nats(eod, *one, eod) + nats(eod, *other), rel=1e-5)
    with torch.no_grad():
        ids = torch.tensor([[eod, *one, eod, *other]])
        straddling = float(F.cross_entropy(model(ids)["logits"][0, :-1], ids[0, 1:], reduction="sum"))
        alone = torch.tensor([[*other]])  # as in training within documents: no token before the first
        rest = float(F.cross_entropy(model(alone)["logits"][0, :-1], alone[0, 1:], reduction="sum"))
    assert together != pytest.approx(straddling, rel=1e-5)
    is_alone = nats(eod, *other) - nats(eod, other[0]) == pytest.approx(rest, rel=1e-5)
    assert is_alone == within_documents


def reference_loop(model, ids, length, stride):
    """The loop of Hugging Face's page on perplexity: (nats, tokens) of one document."""
    nats = count = reached = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        window = torch.tensor([ids[begin:end]])
        labels = window.clone()
        labels[:, : -(end - reached)] = -100
        with torch.no_grad():
            mean = float(model(window, labels=labels).loss)
        counted = int((labels[:, 1:] != -100).sum())
        nats, count, reached = nats + mean * counted, count + counted, end
        if end == len(ids):
            break
    return nats, count


@pytest.fixture(scope="module")
def other():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=320, initializer_range=0.3, **shape)).eval()


@pytest.mark.parametrize("stride", [1, 3, 7, 16])
def test_a_sliding_window_is_that_of_a_plain_transformers_loop(other, tokenizer, texts, stride):
    nats = tokens = 0
    for text in texts:
        ids = [tokenizer.eod_id, *tokenizer.encode(text), tokenizer.eod_id]
        part, count = reference_loop(other, ids, 17, stride)
        assert count == len(ids) - 1
        nats, tokens = nats + part, tokens + count
    results = [
        evaluate_pretraining(other, tokenizer, texts, sequence_length=16, stride=stride, batch_size=batch_size)
        for batch_size in (1, 5)
    ]
    for result in results:
        assert result["tokens"] == tokens
        assert result["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-6)


def test_more_context_is_another_number_and_a_stride_beyond_a_window_is_refused(other, model, tokenizer, texts):
    short, slid = (
        evaluate_pretraining(other, tokenizer, texts, sequence_length=16, stride=stride)["loss"] for stride in (16, 4)
    )
    assert abs(short - slid) > 1e-3
    assert short == evaluate_pretraining(other, tokenizer, texts, sequence_length=16)["loss"]
    for stride in (0, 17):
        with pytest.raises(ConfigError, match=f"stride is {stride}; at least 1 is due, and at most"):
            evaluate_pretraining(model, tokenizer, texts, sequence_length=16, stride=stride)


def test_documents_of_a_split_are_scored_as_texts_are(model, tokenizer, texts):
    class Documents(FakeSplit):
        def __init__(self, documents):
            super().__init__(np.concatenate(documents))
            self.ends = np.cumsum([len(document) for document in documents])
            self.num_documents = len(documents)

        def document_bounds(self, number):
            return int(self.ends[number - 1]) if number else 0, int(self.ends[number])

    split = Documents([[*tokenizer.encode(text), tokenizer.eod_id] for text in texts])
    scorer = Scorer(model, tokenizer, 16, 3, torch.device("cpu"))
    held_out = evaluate_documents(scorer, split_documents(split, tokenizer), stride=5)
    result = evaluate_pretraining(model, tokenizer, texts, sequence_length=16, stride=5)
    assert held_out.loss == pytest.approx(result["loss"], rel=1e-6)
    assert held_out.tokens == result["tokens"]
    assert len(list(split_documents(split, tokenizer, max_tokens=10))) == 1


def test_intervals_are_those_of_documents_drawn_anew(model, tokenizer, texts):
    many = [text * n for text in texts for n in (1, 2)]
    result = evaluate_pretraining(model, tokenizer, {"a": many, "b": many[:1]}, sequence_length=16, seed=3)
    domains = result["domains"]
    assert result["documents"] == len(many) + 1
    assert domains["a"]["documents"] == len(many)
    assert "perplexity_low" not in domains["b"], "one document says nothing of others"
    low, high = domains["a"]["perplexity_low"], domains["a"]["perplexity_high"]
    assert low < domains["a"]["perplexity"] < high

    parts = [evaluate_pretraining(model, tokenizer, [text], sequence_length=16) for text in many]
    draws = np.random.default_rng(3)
    expected = []
    for _ in range(1000):
        drawn = [parts[number] for number in draws.integers(len(many), size=len(many))]
        tokens = sum(part["tokens"] for part in drawn)
        expected.append(math.exp(sum(part["loss"] * part["tokens"] for part in drawn) / tokens))
    assert (low, high) == pytest.approx(np.percentile(expected, (2.5, 97.5)).tolist(), rel=1e-5)
    again = evaluate_pretraining(model, tokenizer, {"a": many}, sequence_length=16, seed=3, batch_size=3)["domains"]
    assert again["a"]["bits_per_byte_low"] == pytest.approx(domains["a"]["bits_per_byte_low"], rel=1e-5)


def test_parts_of_documents_on_several_processes_come_to_the_same_intervals(model, tokenizer, texts):
    documents = list(text_documents(texts, tokenizer))
    alone = evaluate_documents(Scorer(model, tokenizer, 8, 2, torch.device("cpu")), documents)
    sums = []
    for rank in range(3):
        share = Share(rank, 3, lambda part: sums.append(part) or part)
        evaluate_documents(Scorer(model, tokenizer, 8, 2, torch.device("cpu"), share=share), documents)
    together = torch.stack(sums[1::2]).sum(0).numpy()
    np.testing.assert_allclose(together, alone.documents, rtol=1e-5)
    assert len(alone.documents) == len(texts)


def test_scores_add_exactly():
    total = Score(3, 6.0, 2, 4.0, 8, np.array([0, 2, 1])) + Score(1, 2.0, 1, 2.0, 2, np.array([0, 0, 0, 0, 1]))
    assert (total.loss, total.accuracy, total.bits_per_byte) == (2.0, 0.75, 6.0 / math.log(2) / 10)
    assert total.targets.tolist() == [0, 2, 1, 0, 1]
    assert total.baseline_accuracy == 0.5


def test_parts_of_several_processes_come_to_the_score_of_one(model, tokenizer):
    split = FakeSplit(np.arange(500) % 250)
    alone = score(model, tokenizer, split)
    parts = []
    for rank in range(3):
        share = Share(rank, 3, lambda sums: parts.append(sums) or sums)
        evaluate_split(Scorer(model, tokenizer, 8, 2, torch.device("cpu"), share=share), split)
    together = Share(total=lambda _: torch.stack(parts).sum(0)).whole(Score(), tokenizer.vocab_size)
    assert (together.tokens, together.correct, together.text_bytes) == (alone.tokens, alone.correct, alone.text_bytes)
    assert together.nats == pytest.approx(alone.nats, rel=1e-6)
    assert together.targets.tolist()[: len(alone.targets)] == alone.targets.tolist()
