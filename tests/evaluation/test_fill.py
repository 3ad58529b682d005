"""What a masked model fills in is what it finds likeliest at the hidden places, and nothing else is hidden."""

from __future__ import annotations

import pytest
import torch

from firstlight.evaluation.fill import fill
from firstlight.evaluation.generation import generate
from firstlight.model import CausalLanguageModel, MaskedLanguageModel
from firstlight.support.errors import ConfigError


def test_guesses_are_the_likeliest_tokens_in_order(masked_model, tokenizer):
    mask = tokenizer.mask_token
    text = f"The quick {mask} fox jumps {mask} the lazy dog."
    parts = ["The quick", " fox jumps", " the lazy dog."]
    ids = [tokenizer.eod_id]
    for part in parts:
        ids += [*tokenizer.encode(part), tokenizer.mask_id]
    ids[-1] = tokenizer.eod_id
    with torch.no_grad():
        logits = masked_model(torch.tensor([ids]))["logits"][0]
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_id]
    found = fill(masked_model, tokenizer, text, top_k=4)
    assert len(found) == len(places) == 2
    for place, guesses in zip(places, found, strict=True):
        shares, tokens = logits[place, : tokenizer.vocab_size].softmax(0).topk(4)
        assert [guess.text for guess in guesses] == [tokenizer.decode([t], skip_special_tokens=False) for t in tokens]
        assert [guess.probability for guess in guesses] == pytest.approx(shares.tolist(), rel=1e-4)


def test_a_model_that_has_learnt_a_sentence_fills_it_in(tokenizer):
    sentence = "The quick brown fox jumps over the lazy dog."
    model = MaskedLanguageModel(tokenizer.vocab_size, 48, 2, 2, max_position_embeddings=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.tensor([[tokenizer.eod_id, *tokenizer.encode(sentence), tokenizer.eod_id]])
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        hidden = torch.rand(ids.shape, generator=draw) < 0.3
        hidden &= ids != tokenizer.eod_id
        hidden[0, 1] = True
        model(ids.masked_fill(hidden, tokenizer.mask_id), labels=ids.masked_fill(~hidden, -100))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(tokenizer.encode(" fox")) == 1
    (guesses,) = fill(model, tokenizer, sentence.replace("fox", tokenizer.mask_token))
    assert guesses[0].text == " fox"
    assert guesses[0].probability > 0.5


def test_padding_rows_are_never_given(tokenizer):
    model = MaskedLanguageModel(tokenizer.vocab_size + 60, 32, 1, 2, architecture="llama", initializer_range=1.0)
    (guesses,) = fill(model, tokenizer, tokenizer.mask_token, top_k=10_000)
    assert len(guesses) == tokenizer.vocab_size
    assert sum(guess.probability for guess in guesses) == pytest.approx(1)


def test_a_wordpiece_tokenizer_has_its_own_mask_token(wordpiece):
    model = MaskedLanguageModel(wordpiece.vocab_size, 32, 1, 2, max_position_embeddings=16)
    assert len(fill(model, wordpiece, "the [MASK] jumps over the [MASK].")) == 2


def test_what_cannot_be_filled_in_is_said(masked_model, tokenizer):
    with pytest.raises(ConfigError, match=r"has no <\|mask\|>; write it where"):
        fill(masked_model, tokenizer, "nothing hidden")
    with pytest.raises(ConfigError, match="shorten it by at least"):
        fill(masked_model, tokenizer, "x, " * 100 + tokenizer.mask_token)
    with pytest.raises(ConfigError, match="top_k is 0"):
        fill(masked_model, tokenizer, tokenizer.mask_token, top_k=0)


def test_each_kind_of_model_names_the_verb_of_the_other(masked_model, tokenizer):
    with pytest.raises(ConfigError, match=r"firstlight fill RUN 'text with <\|mask\|>'"):
        generate(masked_model, tokenizer, "the")
    with pytest.raises(ConfigError, match="firstlight generate RUN --prompt"):
        fill(CausalLanguageModel(tokenizer.vocab_size, 32, 1, 2), tokenizer, tokenizer.mask_token)
