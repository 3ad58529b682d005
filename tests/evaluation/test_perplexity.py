"""Scores are sums divided once: they do not depend on batches, and they equal a plain loop over documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from firstlight import CausalLanguageModel, evaluate_pretraining
from firstlight.evaluation import Score, Scorer, Share, evaluate_split
from firstlight.support.errors import DataError


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


def test_attention_within_documents_does_not_look_back_over_an_end(model, tokenizer):
    eod = tokenizer.eod_id
    one = score(model, tokenizer, FakeSplit([9, 8, 7, eod, 20, 21, 22]), within_documents=True)
    other = score(model, tokenizer, FakeSplit([30, 31, 32, eod, 20, 21, 22]), within_documents=True)
    last = [
        score(model, tokenizer, FakeSplit([*start, eod, 20, 21, 22]), within_documents=True).nats
        - score(model, tokenizer, FakeSplit([*start, eod, 20, 21]), within_documents=True).nats
        for start in ([9, 8, 7], [30, 31, 32])
    ]
    assert one.nats != other.nats
    assert last[0] == pytest.approx(last[1], rel=1e-5)


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
