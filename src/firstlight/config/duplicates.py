"""Steps that compare documents with each other, or with evaluation sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from firstlight.config.base import Fraction, NonNegative, Positive
from firstlight.config.step import StepConfig


class ExactDuplicates(StepConfig):
    """Of documents with the same text the first stays."""

    step: Literal["exact_duplicates"] = "exact_duplicates"
    normalize: Literal["none", "whitespace", "text"] = "none"
    """What counts as the same text: the same characters; runs of white space as one space, none at the ends; or also
    NFKC, lower case and no punctuation."""


class NearDuplicates(StepConfig):
    """Of documents that MinHash finds nearly the same, one stays."""

    step: Literal["near_duplicates"] = "near_duplicates"
    ngram: Positive = 5
    """Words (or Han and kana characters) in a row that are compared as one."""
    bands: Annotated[Positive, Field(le=256)] = 14
    """Bands of a signature; texts that agree in one of them are candidates."""
    rows: Annotated[Positive, Field(le=256)] = 8
    """Minima in a band. Half of the pairs with Jaccard similarity (1 / bands)^(1 / rows) become candidates, or more."""
    seed: NonNegative = 1
    """Seed of the permutations."""
    min_similarity: Fraction | None = None
    """Candidates whose Jaccard similarity, estimated from all bands · rows minima, is lower are no duplicates; unset:
    all are."""
    keep: Literal["longest", "first"] = "longest"
    """Which document of a cluster stays: the longest in bytes, the first of several; or the first in the corpus."""


class RepeatedLines(StepConfig):
    """Lines that stand in many documents (boilerplate) are removed."""

    step: Literal["repeated_lines"] = "repeated_lines"
    unit: Literal["line", "paragraph"] = "line"
    """What is removed: lines, or paragraphs between blank lines."""
    min_documents: Annotated[Positive, Field(ge=2)] = 7
    """A line in so many documents is boilerplate; Llama 3 removes lines that stand in more than 6 of 30 M documents."""
    min_characters: Positive = 20
    """Shorter lines stay ("}", "Chapter 1"); white space at both ends does not count."""
    keep_first: bool = False
    """The first document with such a line keeps it."""


class Decontaminate(StepConfig):
    """Documents that share long n-grams with evaluation sets are dropped."""

    step: Literal["decontaminate"] = "decontaminate"
    against: Annotated[dict[str, list[str]], Field(min_length=1, max_length=64)]
    """Name of each evaluation set and its files."""
    fields: list[str] = Field(["text"], min_length=1)
    """Fields of an example that hold text, as `question` and `answer`; each that is there is looked for by itself."""
    ngram: Positive = 13
    """Words (or Han and kana characters) in a row that count as an overlap; GPT-3 used 13, PaLM and Llama 2 fewer."""
    min_ngram: Positive = 8
    """A shorter example is looked for as a whole, unless it has fewer words than this."""
    max_share: Fraction = 0.0
    """Documents are dropped when more than this share of their words lies in overlaps; 0: by any overlap."""
