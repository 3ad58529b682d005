"""Masked models are scored on tokens that are hidden alike in every evaluation, from both sides and nothing else."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from firstlight import CausalLanguageModel, MaskedLanguageModel, evaluate_pretraining
from firstlight.config import MaskingConfig
from firstlight.evaluation import Scorer, Share, evaluate_split
from firstlight.evaluation.perplexity import evaluation_masks
from firstlight.evaluation.pseudo import EvenSample, pseudo_score
from firstlight.evaluation.windows import Window, split_windows
from firstlight.support.errors import ConfigError


def plain_loop(model, tokenizer, texts, length, masking):
    """One document and one window at a time, with nothing clever and no padding."""
    masks = evaluation_masks(masking, tokenizer, 1234)
    nats = correct = 0
    wanted, number = Counter(), 0
    for text in texts:
        ids = np.array([tokenizer.eod_id, *tokenizer.encode(text), tokenizer.eod_id])
        for start in range(0, len(ids), length):
            window = np.full((1, length), tokenizer.eod_id)
            window[0, : len(ids[start : start + length])] = ids[start : start + length]
            inputs, targets = (torch.from_numpy(part[:, : len(ids) - start]) for part in masks(window, number))
            number += 1
            chosen = targets != -100
            with torch.no_grad():
                logits = model(inputs)["logits"][chosen]
            nats += float(F.cross_entropy(logits, targets[chosen], reduction="sum"))
            correct += int((logits.argmax(1) == targets[chosen]).sum())
            wanted.update(targets[chosen].tolist())
    tokens = wanted.total()
    return nats / tokens, correct / tokens, wanted.most_common(1)[0][1] / tokens, tokens


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("masking", [MaskingConfig(), MaskingConfig(fraction=0.3, unit="word")])
def test_equals_a_plain_loop_at_any_batch_size(masked_model, tokenizer, texts, batch_size, masking):
    loss, accuracy, baseline, tokens = plain_loop(masked_model, tokenizer, texts, 16, masking)
    settings = {"sequence_length": 16, "batch_size": batch_size, "masking": masking, "pseudo_tokens": 0}
    result = evaluate_pretraining(masked_model, tokenizer, texts, **settings)
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert result["accuracy"] == accuracy > 0
    assert result["baseline_accuracy"] == baseline
    assert result["tokens"] == tokens
    assert "bits_per_byte" not in result
    assert "pseudo_perplexity" not in result


def test_a_transformers_model_is_scored_too(tokenizer, texts):
    from transformers import BertConfig, BertForMaskedLM

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    other = BertForMaskedLM(BertConfig(vocab_size=320, max_position_embeddings=32, **shape)).eval()
    wrapped = lambda ids: {"logits": other(ids).logits}  # noqa: E731
    loss, accuracy, baseline, tokens = plain_loop(wrapped, tokenizer, texts, 32, MaskingConfig())
    result = evaluate_pretraining(other, tokenizer, texts, pseudo_tokens=5)
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert (result["accuracy"], result["baseline_accuracy"], result["tokens"]) == (accuracy, baseline, tokens)
    assert result["pseudo_tokens"] == 5


class FakeSplit:
    def __init__(self, tokens):
        self.tokens = np.asarray(tokens, dtype=np.uint16)
        self.num_tokens = len(tokens)

    def read(self, start, length):
        assert start >= 0 and start + length <= self.num_tokens
        return self.tokens[start : start + length]


@pytest.fixture
def split(tokenizer, texts):
    ids = [token for text in texts * 5 for token in (*tokenizer.encode(text), tokenizer.eod_id)]
    assert len(ids) % 16
    return FakeSplit(ids)


@pytest.fixture
def scorer(masked_model, tokenizer):
    def build(batch_size=3, **settings):
        masks = evaluation_masks(MaskingConfig(), tokenizer, 1)
        return Scorer(masked_model, tokenizer, 16, batch_size, torch.device("cpu"), masks, **settings)

    return build


@pytest.mark.parametrize("within_documents", [False, True])
def test_the_same_tokens_are_hidden_at_every_batch_size_and_number_of_processes(scorer, split, within_documents):
    alone = evaluate_split(scorer(8, within_documents=within_documents), split)
    assert alone.tokens > 50
    for batch_size, ranks in ((1, 1), (3, 2), (2, 4)):
        parts = []
        for rank in range(ranks):
            share = Share(rank, ranks, lambda sums, parts=parts: parts.append(sums) or sums)
            evaluate_split(scorer(batch_size, within_documents=within_documents, share=share), split)
        tokens, nats, correct, *_ = torch.stack(parts).sum(0).tolist()
        assert (tokens, correct) == (alone.tokens, alone.correct)
        assert nats == pytest.approx(alone.nats, rel=1e-5)
        assert torch.stack(parts).sum(0)[5:].tolist()[: len(alone.targets)] == alone.targets.tolist()


@pytest.mark.parametrize("count", [2, 15, 16, 17, 41])
def test_every_token_of_a_split_is_in_one_window(masked_model, tokenizer, count):
    everything = lambda rows, number: (rows, np.where(rows == tokenizer.eod_id, -100, rows))  # noqa: E731
    scorer = Scorer(masked_model, tokenizer, 16, 3, torch.device("cpu"), everything)
    ids = np.arange(count) + tokenizer.eod_id + 10
    seen = []
    result = evaluate_split(scorer, FakeSplit(ids), advance=seen.append)
    assert result.tokens == count == sum(seen)
    assert np.flatnonzero(result.targets).tolist() == ids.tolist()


def test_a_part_of_a_split_hides_what_the_whole_hides_there(scorer, split, tokenizer):
    class Remembering:
        def __init__(self, masks):
            self.masks, self.rows = masks, {}

        def __call__(self, rows, number):
            self.rows[number] = [part.tolist() for part in self.masks(rows, number)]
            return self.masks(rows, number)

    hidden = []
    for max_tokens in (None, 64):
        one = scorer()
        masks = Remembering(one.masks)
        evaluate_split(Scorer(one.model, tokenizer, 16, 3, one.device, masks), split, max_tokens=max_tokens)
        hidden.append(masks.rows)
    whole, part = hidden
    assert len(part) == 4 < len(whole)
    assert max(part) > len(whole) / 2  # spread over all of it
    assert all(whole[number] == rows for number, rows in part.items())


def pseudo_loop(model, tokenizer, texts, length):
    """Every token of every text hidden alone, without batches or padding."""
    losses, sizes = [], []
    for text in texts:
        ids = [tokenizer.eod_id, *tokenizer.encode(text), tokenizer.eod_id]
        for start in range(0, len(ids), length):
            window = torch.tensor([ids[start : start + length]])
            for place, token in enumerate(window[0].tolist()):
                if token == tokenizer.eod_id:
                    continue
                hidden = window.clone()
                hidden[0, place] = tokenizer.mask_id
                with torch.no_grad():
                    logits = model(hidden)["logits"][0, place]
                losses.append(float(F.cross_entropy(logits, window[0, place])))
                sizes.append(int(tokenizer.token_bytes()[token]))
    return losses, sizes


@pytest.mark.parametrize("batch_size", [1, 7])
def test_pseudo_perplexity_hides_one_token_at_a_time(masked_model, tokenizer, texts, batch_size):
    losses, sizes = pseudo_loop(masked_model, tokenizer, texts, 16)
    result = evaluate_pretraining(masked_model, tokenizer, {"all": texts}, sequence_length=16, batch_size=batch_size)
    assert result["pseudo_tokens"] == len(losses)
    assert result["pseudo_perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert result["pseudo_bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / sum(sizes), rel=1e-5)
    assert result["domains"]["all"]["pseudo_perplexity"] == result["pseudo_perplexity"]


@pytest.mark.parametrize("size", [1, 5, 40, 1000])
def test_a_sample_of_places_is_even_and_as_large_as_asked(tokenizer, size):
    ordinary = tokenizer.ordinary_ids[:200]
    total = 700
    tokens = np.resize(ordinary, total)
    sample = EvenSample(size, tokenizer)
    windows = [Window(n, tokens[start : start + 50]) for n, start in enumerate(range(0, total, 50))]
    windows.insert(3, Window(99, np.full(50, tokenizer.eod_id)))
    assert list(sample.watch(windows)) == windows
    starts = {id(window): 50 * (n - (n > 3)) for n, (_, window, *_) in enumerate(windows)}
    places = [starts[id(window)] + place for window, place in sample.places]
    assert len(places) == min(size, total)
    gaps = np.diff([*places, total])
    assert gaps.min() >= 1
    assert gaps.max() <= 3 * total / len(places)


def test_a_sample_is_scored_as_its_places_are(scorer, split, tokenizer, masked_model):
    one = scorer()
    sample = EvenSample(9, tokenizer)
    list(sample.watch(split_windows(split, 16, tokenizer, causal=False, max_tokens=None)))
    seen = []
    score = pseudo_score(one, sample, seen.append)
    expected = 0.0
    for tokens, place in sample.places:
        hidden = torch.from_numpy(tokens)[None].clone()
        hidden[0, place] = tokenizer.mask_id
        with torch.no_grad():
            expected += float(F.cross_entropy(masked_model(hidden)["logits"][0, place], torch.tensor(tokens[place])))
    assert score.tokens == 9 == sum(seen)
    assert score.nats == pytest.approx(expected, rel=1e-5)


def test_a_tokenizer_without_bytes_per_token_is_enough(wordpiece):
    texts = ["The fox jumps over the dog.", "The dog."]
    model = MaskedLanguageModel(wordpiece.vocab_size, 32, 1, 2, max_position_embeddings=16)
    result = evaluate_pretraining(model, wordpiece, texts)
    assert result["tokens"] >= 2
    assert result["pseudo_tokens"] == 11  # the fox jump ##s over the dog . the dog .
    assert result["pseudo_bits_per_byte"] is None

    causal = CausalLanguageModel(wordpiece.vocab_size, 32, 1, 2, max_position_embeddings=16)
    assert evaluate_pretraining(causal, wordpiece, texts)["bits_per_byte"] is None


def test_masking_of_a_causal_model_is_refused(tokenizer):
    model = CausalLanguageModel(320, 32, 1, 2)
    with pytest.raises(ConfigError, match="masking is for objective masked"):
        evaluate_pretraining(model, tokenizer, ["a"], masking=MaskingConfig())
