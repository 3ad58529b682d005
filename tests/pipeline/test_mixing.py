"""The verb `mixture`: sizes from the command line or a recipe, weights that can be pasted into a recipe."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from firstlight import pipeline
from firstlight.support import console

SIZES = ["web=300B", "books=30B", "code=50B", "wikipedia=5B", "academic=20B"]


def test_the_budget_is_the_training_of_the_recipe_on_all_its_ranks():
    report = pipeline.mixture("llama-7b", sources=SIZES)
    assert report["total_tokens"] == 300_000 * 1024 * 2048
    assert report["sources"]["web"]["tokens_drawn"] == pytest.approx(0.6 * report["total_tokens"], rel=1e-5)
    assert report["mixture"]["web"] == 0.6
    assert [sentence for sentence in report["warnings"] if sentence.startswith("'wikipedia' is gone over 12.6 times")]


def test_a_size_from_the_command_line_takes_the_place_of_the_recipes():
    more = pipeline.mixture("llama-7b", sources=[*SIZES[:3], "wikipedia=50B", SIZES[4]])
    assert more["sources"]["wikipedia"]["epochs"] == pytest.approx(1.26, abs=0.01)
    assert more["warnings"] == []


@pytest.mark.parametrize("options", [{"temperature": 3.33}, {"propose": True}, {"temperature": 3.33, "propose": True}])
def test_new_weights_sum_to_one_as_they_are_written(options):
    report = pipeline.mixture("llama-7b", sources=SIZES, **options)
    assert sum(Decimal(repr(weight)) for weight in report["mixture"].values()) == 1
    assert not any("normalised" in sentence for sentence in report["notes"])


def test_what_is_printed_can_be_pasted_into_a_recipe(firstlight, monkeypatch):
    monkeypatch.setattr(console.out, "_width", 60)
    code, out, err = firstlight("mixture", "llama-7b", *(f"--source={size}" for size in SIZES), "--propose")
    assert (code, err) == (0, "")
    *table, printed = out.splitlines()
    assert max(map(len, table)) <= 60
    assert {row.split()[0] for row in table} == {"source", "all", "web", "books", "code", "wikipedia", "academic"}
    key, weights = re.fullmatch(r"(data\.mixture): (\{.+\})", printed).groups()
    again = pipeline.mixture("llama-7b", [f"{key}={weights}"], sources=SIZES)
    assert again["warnings"] == []
    assert again["sources"]["wikipedia"]["epochs"] <= 4
