"""What is hidden is the share that was asked for, in the units that were asked for, and a function of seed and sample.

Statistics are of fixed seeds; bounds are 3 standard deviations unless a comment says otherwise.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.config import MaskingConfig, RunConfig
from firstlight.recipe import parse_config
from firstlight.support.errors import ConfigError
from firstlight.tokens.masking import Masking
from firstlight.tokens.objective import next_token, objective_of
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer
from firstlight.tokens.words import word_numbers

UNITS = ("token", "word", "span")
LENGTH = 128
REPEATS = 9


@pytest.fixture(scope="module")
def rows(tiny_tokenizer, tiny_texts):
    """[n, 128] tokens of documents and the ends between them, more than 100,000 in all."""
    stream = [index for ids in tiny_tokenizer.encode_batch(tiny_texts) for index in (*ids, tiny_tokenizer.eod_id)]
    cut = np.array(stream[: len(stream) // LENGTH * LENGTH], dtype=np.int64).reshape(-1, LENGTH)
    assert cut.size > 120_000
    return cut


@pytest.fixture(scope="module")
def many(tiny_tokenizer, rows):
    """`many(unit, **fields)`: rows, inputs and targets of more than a million positions, the rows drawn again."""

    def hide(unit, **fields):
        masking = Masking(MaskingConfig(unit=unit, **fields), tiny_tokenizer, seed=11)
        drawn = [masking(rows, repeat * len(rows)) for repeat in range(REPEATS)]
        inputs, targets = (np.concatenate(part) for part in zip(*drawn, strict=True))
        assert inputs.size > 1_000_000
        return np.tile(rows, (REPEATS, 1)), inputs, targets

    return hide


def ordinary(tokenizer, rows):
    return ~np.isin(rows, tokenizer.special_ids)


def within(found, probability, trials, sigmas=3.0):
    """Whether so many hits are what so many independent trials give."""
    return abs(found - probability * trials) <= sigmas * (probability * (1 - probability) * trials) ** 0.5


def words_in(tokenizer, rows):
    begins, ends = tokenizer.word_edges
    return word_numbers(begins[rows], ends[rows])


@pytest.mark.parametrize("fraction", [0.15, 0.3])
def test_tokens_are_chosen_and_replaced_in_the_shares_asked_for(many, tiny_tokenizer, fraction):
    rows, inputs, targets = many("token", fraction=fraction)
    eligible, chosen = ordinary(tiny_tokenizer, rows), targets != -100
    assert within(chosen.sum(), fraction, eligible.sum())
    hidden = chosen & (inputs == tiny_tokenizer.mask_id)
    other = chosen & ~hidden & (inputs != rows)
    same_by_chance = 1 / len(tiny_tokenizer.ordinary_ids)
    assert within(hidden.sum(), 0.8, chosen.sum())
    assert within(other.sum(), 0.1 * (1 - same_by_chance), chosen.sum())
    assert within((chosen & (inputs == rows)).sum(), 0.1 + 0.1 * same_by_chance, chosen.sum())


def test_every_column_and_every_pair_of_neighbours_is_alike(many, tiny_tokenizer):
    """4.5 standard deviations: there are 128 columns."""
    rows, _, targets = many("token")
    eligible, chosen = ordinary(tiny_tokenizer, rows), targets != -100
    for column in range(LENGTH):
        assert within(chosen[:, column].sum(), 0.15, eligible[:, column].sum(), 4.5)
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        pairs = eligible[first] & eligible[second]
        assert within((chosen[first] & chosen[second]).sum(), 0.15**2, pairs.sum(), 4.5)


@pytest.mark.parametrize("unit", UNITS)
def test_random_tokens_are_ordinary_and_even(many, tiny_tokenizer, unit):
    _, inputs, targets = many(unit, masked=0.0, random=1.0)
    drawn = inputs[targets != -100]
    assert np.isin(drawn, tiny_tokenizer.ordinary_ids).all()
    counts = np.bincount(drawn, minlength=tiny_tokenizer.vocab_size)[tiny_tokenizer.ordinary_ids]
    degrees, expected = len(counts) - 1, len(drawn) / len(counts)
    chi_square = ((counts - expected) ** 2).sum() / expected
    assert abs(chi_square - degrees) < 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize(("masked", "random"), [(1.0, 0.0), (0.0, 0.0), (0.25, 0.75)])
def test_extreme_shares_are_exact(tiny_tokenizer, rows, masked, random):
    masking = Masking(MaskingConfig(masked=masked, random=random), tiny_tokenizer, seed=1)
    inputs, targets = masking(rows, 0)
    chosen = targets != -100
    if masked == 1:
        assert (inputs[chosen] == tiny_tokenizer.mask_id).all()
    elif random == 0:
        assert (inputs == rows).all()
    else:
        kept = (inputs == rows)[chosen].mean()
        assert kept < 0.01  # by chance alone


@pytest.mark.parametrize("unit", ["word", "span"])
def test_units_are_chosen_in_the_share_asked_for(many, tiny_tokenizer, unit):
    """Tokens of a word go together, and words of a run: the variance of the count grows with the length of what does.

    For runs it is bounded by that of independent draws of whole runs of the expected size of the longest.
    """
    rows, inputs, targets = many(unit)
    eligible, chosen = ordinary(tiny_tokenizer, rows), targets != -100
    numbers = words_in(tiny_tokenizer, rows) + np.arange(len(rows))[:, None] * LENGTH
    sizes = np.bincount(numbers[eligible])
    deviation = (0.15 * 0.85 * (sizes**2).sum()) ** 0.5 * (1 if unit == "word" else 5**0.5)
    assert abs(chosen.sum() - 0.15 * eligible.sum()) < 3 * deviation
    spread = (0.8 * 0.2 * (sizes**2).sum() * 0.15) ** 0.5 * (1 if unit == "word" else 5**0.5)
    hidden = (chosen & (inputs == tiny_tokenizer.mask_id)).sum()
    assert abs(hidden - 0.8 * chosen.sum()) < 3 * spread


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_are_chosen_whole(many, tiny_tokenizer, unit):
    rows, _, targets = many(unit)
    eligible, chosen = ordinary(tiny_tokenizer, rows), targets != -100
    words = words_in(tiny_tokenizer, rows)
    together = eligible[:, 1:] & eligible[:, :-1] & (words[:, 1:] == words[:, :-1])
    assert together.sum() > 100_000
    assert (chosen[:, 1:] == chosen[:, :-1])[together].all()


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_that_spaces_divide_are_chosen_whole(tiny_tokenizer, tiny_texts, unit):
    """By the text itself and not by the table of the vocabulary."""
    text = "".join(f" {word}" for word in re.findall(r"[a-z]+", " ".join(tiny_texts))[:4000])
    ids = tiny_tokenizer.encode(text)
    starts = [tiny_tokenizer.decode([index]).startswith(" ") for index in ids]
    assert 1.2 * sum(starts) < len(ids)
    _, targets = Masking(MaskingConfig(unit=unit), tiny_tokenizer, seed=2)(np.array([ids]), 0)
    word, chosen = np.cumsum(starts), targets[0] != -100
    tokens, hits = np.bincount(word), np.bincount(word, weights=chosen)
    assert set(hits / np.maximum(tokens, 1)) == {0.0, 1.0}
    assert 0.1 < chosen.mean() < 0.2


def plain_words(tiny_tokenizer, count, columns):
    """Rows in which every token is a word."""
    begins, _ = tiny_tokenizer.word_edges
    alone = [i for i in tiny_tokenizer.ordinary_ids if begins[i] and tiny_tokenizer.decode([i]).strip().isalpha()]
    return np.random.default_rng(3).choice(alone, (count, columns))


@pytest.mark.parametrize("mean", [1.0, 2.0, 3.8, 5.0])
def test_runs_have_the_lengths_of_a_geometric_distribution_up_to_ten(tiny_tokenizer, mean):
    words = plain_words(tiny_tokenizer, 500, 2000)
    _, targets = Masking(MaskingConfig(unit="span", mean_span=mean), tiny_tokenizer, seed=5)(words, 0)
    edges = np.diff((targets != -100).astype(np.int8), axis=1, prepend=0, append=0)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    assert (starts[:, 0] == ends[:, 0]).all()
    whole = (starts[:, 1] > 0) & (starts[:, 1] < 1980)  # chosen by where they begin, so that long ones are not rarer
    lengths = (ends - starts)[whole, 1]
    assert len(lengths) > 20_000
    assert lengths.max() <= 10
    assert lengths.mean() == pytest.approx(mean, abs=3 * lengths.std() / len(lengths) ** 0.5 + 1e-9)
    if mean == 3.8:  # the p = 0.2 of SpanBERT
        weights = 0.8 ** np.arange(10)
        expected = len(lengths) * weights / weights.sum()
        found = np.bincount(lengths, minlength=11)[1:]
        assert ((found - expected) ** 2 / expected).sum() < 9 + 4 * 18**0.5


@pytest.mark.parametrize("mean", [1.0, 3.8])
def test_every_word_is_as_likely_to_be_in_a_run_as_any_other(tiny_tokenizer, mean):
    """The first word too, and near the ends of a row: 4.5 standard deviations, since there are 60 columns."""
    words = np.repeat(plain_words(tiny_tokenizer, 1, 60), 20_000, axis=0)
    masking = Masking(MaskingConfig(unit="span", fraction=0.3, mean_span=mean), tiny_tokenizer, seed=6)
    chosen = masking(words, 0)[1] != -100
    for column in range(60):
        assert within(chosen[:, column].sum(), 0.3, 20_000, 4.5), column


def test_a_run_shares_its_fate_and_a_word_does_not(tiny_tokenizer):
    words = plain_words(tiny_tokenizer, 400, 500)
    inputs, targets = Masking(MaskingConfig(unit="span"), tiny_tokenizer, seed=7)(words, 0)
    chosen, hidden = targets != -100, inputs == tiny_tokenizer.mask_id
    pairs = chosen[:, 1:] & chosen[:, :-1]
    assert (hidden[:, 1:] == hidden[:, :-1])[pairs].all()
    changed = chosen & ~hidden & (inputs != words)
    assert len(np.unique(inputs[changed])) > 500
    long = np.tile(tiny_tokenizer.encode(" counterintuitively"), (3000, 1))
    inputs, targets = Masking(MaskingConfig(unit="word", fraction=0.5), tiny_tokenizer, seed=7)(long, 0)
    hidden = (inputs == tiny_tokenizer.mask_id)[targets[:, 0] != -100]
    assert hidden.any(axis=1).mean() > hidden.all(axis=1).mean() + 0.2


units = st.sampled_from(UNITS)
seeds = st.integers(0, 2**63 - 1)
first_samples = st.integers(0, 2**62)


@given(units, seeds, first_samples, st.integers(1, 24), st.integers(1, 40), st.data())
@settings(max_examples=60)
def test_a_sample_is_hidden_alike_in_every_batch(tiny_tokenizer, rows, unit, seed, first, count, length, data):
    """Any cut of a batch into parts gives the same, as ranks, accumulation and a resumed run make them."""
    masking = Masking(MaskingConfig(unit=unit), tiny_tokenizer, seed)
    some = rows[data.draw(st.integers(0, len(rows) - count)) :][:count, :length]
    whole = masking(some, first)
    cut = sorted(data.draw(st.sets(st.integers(1, count - 1)) if count > 1 else st.just(set())))
    parts = [(begin, end) for begin, end in zip([0, *cut], [*cut, count], strict=True)]
    again = [Masking(MaskingConfig(unit=unit), tiny_tokenizer, seed)(some[b:e], first + b) for b, e in parts]
    for number in range(2):
        assert np.array_equal(whole[number], np.concatenate([part[number] for part in again]))


@given(units, seeds, first_samples, st.data())
@settings(max_examples=100)
def test_what_is_not_chosen_stays_and_targets_are_what_was_there(tiny_tokenizer, unit, seed, first, data):
    ids = st.one_of(st.integers(0, tiny_tokenizer.vocab_size - 1), st.sampled_from(tiny_tokenizer.special_ids.tolist()))
    length = data.draw(st.integers(1, 12))
    drawn = data.draw(st.lists(st.lists(ids, min_size=length, max_size=length), min_size=1, max_size=6))
    some = np.array(drawn, dtype=np.int64)
    before = some.copy()
    inputs, targets = Masking(MaskingConfig(unit=unit), tiny_tokenizer, seed)(some, first)
    chosen = targets != -100
    assert (some == before).all()
    assert inputs.shape == targets.shape == some.shape
    assert inputs.dtype == targets.dtype == np.int64
    assert (targets[chosen] == some[chosen]).all()
    assert (inputs[~chosen] == some[~chosen]).all()
    assert not np.isin(targets, tiny_tokenizer.special_ids).any()
    allowed = [*tiny_tokenizer.ordinary_ids, tiny_tokenizer.mask_id]
    assert np.isin(inputs[chosen], allowed).all()
    assert (chosen.any(axis=1) == ordinary(tiny_tokenizer, some).any(axis=1)).all()


@pytest.mark.parametrize("unit", UNITS)
def test_seeds_samples_and_epochs_hide_other_tokens(tiny_tokenizer, rows, unit):
    """The same text comes again in the next epoch, as another sample."""
    config = MaskingConfig(unit=unit)
    first = Masking(config, tiny_tokenizer, 1)(rows, 0)[1] != -100
    for other in (
        Masking(config, tiny_tokenizer, 2)(rows, 0)[1] != -100,
        Masking(config, tiny_tokenizer, 1)(rows, len(rows))[1] != -100,
        Masking(config, tiny_tokenizer, 1)(rows, 1)[1] != -100,
    ):
        both = (first & other).sum() / first.sum()
        assert 0.12 < both < 0.18, "as many as chance has it"


@pytest.mark.parametrize("unit", UNITS)
def test_chinese_is_hidden_word_by_word_and_not_by_the_paragraph(unit):
    text = "预训练语言模型从零开始学习文字。我们把文本切成词元，再让模型预测被遮住的词元。今天天气很好，我们去公园散步"
    tokenizer = train_tokenizer([text] * 20, 330, show_progress=False)
    rows = np.tile(tokenizer.encode(text * 8), (500, 1))
    _, targets = Masking(MaskingConfig(unit=unit), tokenizer, seed=4)(rows, 0)
    shares = (targets != -100).mean(axis=1)
    assert shares.mean() == pytest.approx(0.15, abs=0.01)
    assert shares.max() < 0.5


@pytest.mark.parametrize("unit", UNITS)
def test_a_tokenizer_without_a_mask_token_is_one_sentence(tiny_tokenizer, tmp_path, unit):
    without = without_mask(tiny_tokenizer, tmp_path)
    with pytest.raises(
        ConfigError, match=r"old\.json: has no mask token, which model\.objective masked needs; name one"
    ):
        Masking(MaskingConfig(unit=unit), without, 1)


def test_units_of_words_need_a_tokenizer_whose_words_are_known():
    model = {"type": "BPE", "vocab": {"a": 0, "</s>": 1, "<mask>": 2}, "merges": []}
    tokenizer = Tokenizer({"version": "1.0", "model": model}, origin="odd.json")
    assert Masking(MaskingConfig(), tokenizer, 1)(np.array([[0, 0, 1]]), 0)[1].tolist()[0][2] == -100
    for unit in ("word", "span"):
        with pytest.raises(ConfigError, match=rf"odd\.json: masking\.unit is {unit}.*use masking\.unit=token"):
            Masking(MaskingConfig(unit=unit), tokenizer, 1)


def test_spans_that_leave_no_gap_are_refused():
    with pytest.raises(ConfigError, match=r"fraction 0\.5 leaves no word between runs of 1; below 0\.5 is due"):
        run_config("masked", unit="span", fraction=0.5, mean_span=1.0)


def test_the_objective_follows_from_the_configuration(tiny_tokenizer, rows):
    assert objective_of(run_config("causal"), tiny_tokenizer) is next_token
    inputs, targets = next_token(rows, 5)
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    config = run_config("masked", fraction=0.4, unit="word")
    expected = Masking(config.masking, tiny_tokenizer, config.seed)(rows[:, :-1], 5)
    for found, due in zip(objective_of(config, tiny_tokenizer)(rows, 5), expected, strict=True):
        assert np.array_equal(found, due)
    other = config.model_copy(update={"seed": config.seed + 1})
    assert not np.array_equal(objective_of(other, tiny_tokenizer)(rows, 5)[1], expected[1])


def run_config(objective: str, **masking: object) -> RunConfig:
    fields = {"name": "test", "model": {"objective": objective}, **({"masking": masking} if masking else {})}
    return parse_config(fields, "test")


def without_mask(tokenizer: Tokenizer, folder) -> Tokenizer:
    """The same tokenizer as one that was trained before there were mask tokens."""
    import json

    tokenizer.save(folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != tokenizer.mask_token]
    content["model"]["vocab"]["unused"] = content["model"]["vocab"].pop(tokenizer.mask_token)
    return Tokenizer(content, origin="old.json")
