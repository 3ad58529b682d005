"""Likelihoods of continuations: those of a plain loop, whatever is shared, batched or packed; and batched writing."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from firstlight import CausalLanguageModel
from firstlight.config import MaskingConfig
from firstlight.evaluation import Scorer, Share
from firstlight.evaluation.batch_generation import Ending, continuations
from firstlight.evaluation.generation import generate_ids
from firstlight.evaluation.likelihood import Request, cached_likelihoods, encode_pair, fit_request
from firstlight.evaluation.packed import packed_likelihoods
from firstlight.evaluation.perplexity import evaluation_masks
from firstlight.support.errors import DataError

POSITIONS = 24


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request):
    shape = {"max_position_embeddings": POSITIONS, "initializer_range": 0.3, "vocab_padding": 20}
    return CausalLanguageModel(320, 32, 2, 4, architecture=request.param, **shape).eval()


@pytest.fixture(scope="module")
def requests():
    """Groups of one context and lone ones, one-token answers that share a row, one too long by its context."""
    draws = random.Random(1)
    ids = lambda least, most: tuple(draws.randrange(2, 300) for _ in range(draws.randint(least, most)))  # noqa: E731
    found = []
    for _ in range(9):
        context = ids(1, 14)
        found += [Request(context, ids(1, 8)) for _ in range(draws.choice([1, 2, 4]))]
    shared = ids(6, 6)
    found += [Request(shared, (token,)) for token in (5, 6, 7, 8)] + [Request(ids(40, 40), ids(5, 5))]
    draws.shuffle(found)
    return found


def plain_loop(model, requests, words):
    for context, continuation in requests:
        ids = [*context, *continuation][-(POSITIONS + 1) :]
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]]))["logits"][0, -len(continuation) :, :words].float()
        nats = -F.cross_entropy(logits, torch.tensor(continuation), reduction="sum")
        yield float(nats), logits.argmax(1).tolist() == list(continuation)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_shared_contexts_give_what_a_plain_loop_gives(model, requests, batch_size):
    expected = list(plain_loop(model, requests, words=300))
    likeliest = max(range(300), key=lambda token: cached_likelihoods(model, [Request((9, 8), (token,))])[0].nats)
    assert cached_likelihoods(model, [Request((9, 8), (likeliest,))])[0].greedy
    seen = []
    found = cached_likelihoods(model, requests, batch_size=batch_size, advance=seen.append)
    assert sum(seen) == len(requests)
    assert [answer.nats for answer in found] == pytest.approx([nats for nats, _ in expected], rel=1e-4)
    assert [answer.greedy for answer in found] == [greedy for _, greedy in expected]


def test_a_context_is_read_once_for_all_its_choices(model):
    read = []
    hook = model.model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    context = tuple(range(2, 18))
    cached_likelihoods(model, [Request(context, (token, 7, 9)) for token in range(20, 24)], batch_size=8)
    hook.remove()
    assert sum(read) == 15 + 4 * 3, "the context but its last token, then that and two of each choice"


@pytest.mark.parametrize("whole_batches", [False, True])
def test_packed_rows_give_the_same_on_any_number_of_processes(model, tokenizer, requests, whole_batches):
    expected = list(plain_loop(model, requests, words=320))
    for batch_size, ranks in ((1, 1), (4, 1), (2, 3)):
        sums = []
        for rank in range(ranks):
            share = Share(rank, ranks, lambda part, sums=sums: sums.append(part.clone()) or part)
            device = torch.device("cpu")
            scorer = Scorer(model, tokenizer, POSITIONS, batch_size, device, share=share, whole_batches=whole_batches)
            packed_likelihoods(scorer, requests)
        nats = -torch.stack(sums).sum(0)[:, 0]
        assert nats.tolist() == pytest.approx([nats for nats, _ in expected], rel=1e-4)


def test_a_masked_model_is_asked_for_each_token_with_all_others_given(masked_model, tokenizer):
    masks = evaluation_masks(MaskingConfig(), tokenizer, 1)
    pairs = [encode_pair(tokenizer, "The quick brown", text) for text in (" fox", " lazy dog jumps.")]
    pairs.append(encode_pair(tokenizer, "", "dog"))
    found = packed_likelihoods(Scorer(masked_model, tokenizer, 40, 3, torch.device("cpu"), masks), pairs)
    for (context, continuation), likelihood in zip(pairs, found, strict=True):
        context = context[context[0] == tokenizer.eod_id :]
        ids, nats = [tokenizer.eod_id, *context, *continuation, tokenizer.eod_id], 0.0
        for place in range(1 + len(context), len(ids) - 1):
            hidden = torch.tensor([ids])
            hidden[0, place] = tokenizer.mask_id
            with torch.no_grad():
                logits = masked_model(hidden)["logits"][0, place]
            nats -= float(F.cross_entropy(logits, torch.tensor(ids[place])))
        assert likelihood.nats == pytest.approx(nats, rel=1e-4)


def test_a_pair_is_split_where_the_context_ends_and_spaces_go_with_what_follows(tokenizer):
    whole = tokenizer.encode("The quick brown fox")
    one, other = encode_pair(tokenizer, "The quick ", "brown fox"), encode_pair(tokenizer, "The quick", " brown fox")
    assert one == other
    assert [*one.context, *one.continuation] == whole
    assert encode_pair(tokenizer, "", "fox").context == (tokenizer.eod_id,)
    with pytest.raises(DataError, match="without a token"):
        encode_pair(tokenizer, "a", "")
    assert fit_request(Request((1, 2, 3), (4, 5)), 3) == Request((2, 3), (4, 5))
    with pytest.raises(DataError, match="a continuation of 4 tokens is longer than the 3"):
        fit_request(Request((1,), (2, 3, 4, 5)), 3)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_prompts_of_a_batch_are_continued_as_each_alone_would_be(model, tokenizer, batch_size):
    draws = random.Random(2)
    prompts = [[draws.randrange(2, 300) for _ in range(size)] for size in (1, 3, 3, 9, 14)]
    expected = []
    for prompt in prompts:
        settings = {"max_new_tokens": 8, "temperature": 0, "stop_id": tokenizer.eod_id}
        ids = generate_ids(model, prompt, num_tokens=tokenizer.vocab_size, **settings)
        expected.append(tokenizer.decode(ids))
    assert continuations(model, tokenizer, prompts, Ending(8), batch_size=batch_size) == expected
    stop = expected[0][2:4]
    assert stop
    cut = continuations(model, tokenizer, prompts, Ending(8, (stop, "never there")), batch_size=batch_size)
    assert cut == [text.split(stop)[0] for text in expected]
    drawn = [
        continuations(model, tokenizer, prompts, Ending(8, (), 1.0), batch_size=n, seed=3) for n in (1, batch_size)
    ]
    assert drawn[0] == drawn[1] != expected
    long = np.arange(2, 100).tolist()
    assert continuations(model, tokenizer, [long], Ending(8)) == continuations(
        model, tokenizer, [long[-16:]], Ending(8)
    )
