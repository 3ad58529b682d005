"""Quality rules: published thresholds as defaults; every rule can be set otherwise, or left out with null."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from firstlight.config.base import Fraction, NonNegative, NonNegativeFloat, Positive
from firstlight.config.step import StepConfig

WordSplit = Literal["signs_apart", "whitespace", "jieba"]
NGramLimits = dict[Annotated[int, Field(ge=1, le=100)], Fraction]
"""A length in words, and the share of a text's characters that is allowed for n-grams of that length."""
MANDARIN_STOP_WORDS = "的年在月是和日了於·為有被人中为他與後也而由"


class WordRules(StepConfig):
    """What the rules that count words have in common."""

    words: WordSplit = "signs_apart"
    """signs_apart: letters and digits together, other signs and every Han or kana character by themselves. whitespace:
    whatever stands between white space. jieba: words of jieba's dictionary where the text is Chinese."""


class RepetitionRules(WordRules):
    """Rules about repeated paragraphs, lines and n-grams."""

    max_duplicate_paragraphs: Fraction | None = 0.3
    """Largest share of paragraphs (between blank lines) that stood before."""
    max_duplicate_paragraph_characters: Fraction | None = 0.2
    """Largest share of characters in paragraphs that stood before."""
    max_duplicate_lines: Fraction | None = 0.3
    """Largest share of lines that stood before."""
    max_duplicate_line_characters: Fraction | None = 0.2
    """Largest share of characters in lines that stood before."""
    max_top_ngram: NGramLimits = {2: 0.2, 3: 0.18, 4: 0.16}
    """By n: largest share of characters in the commonest n words in a row. Empty: no rule."""
    max_repeated_ngrams: NGramLimits = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    """By n: largest share of characters in n words in a row that stood before. Empty: no rule."""


class LineRules(WordRules):
    """Rules about ends and lengths of lines."""

    min_terminal_lines: Fraction | None = 0.12
    """Least share of lines that end with a mark that ends sentences, in any script."""
    allow_no_terminal_line: bool = False
    """Documents in which no line ends so pass that rule."""
    max_short_lines: Fraction | None = 0.67
    """Largest share of short lines."""
    short_line_characters: NonNegative = 30
    """A line of so many characters, or fewer, is short."""
    max_repeated_line_characters: Fraction | None = 0.01
    """Largest share of characters in lines that stood before; the paper says 0.1, its program 0.01."""
    max_newlines_per_word: NonNegativeFloat | None = 0.3
    """Most line ends for each word."""


class QualityRules(WordRules):
    """Rules about the shape of a document's words."""

    min_words: NonNegative | None = 50
    """Fewest words that are not only signs."""
    max_words: Positive | None = 100_000
    """Most words that are not only signs."""
    min_mean_word_length: NonNegativeFloat | None = 3
    """Least mean length of words that are not only signs, in characters."""
    max_mean_word_length: NonNegativeFloat | None = 10
    """Greatest mean length of words that are not only signs, in characters."""
    max_hashes_per_word: NonNegativeFloat | None = 0.1
    """Most signs `#` for each word."""
    max_ellipses_per_word: NonNegativeFloat | None = 0.1
    """Most ellipses (`...` or `…`) for each word."""
    max_bullet_lines: Fraction | None = 0.9
    """Largest share of lines that begin with `•` or `-`."""
    max_ellipsis_lines: Fraction | None = 0.3
    """Largest share of lines that end in an ellipsis."""
    min_alphabetic_words: Fraction | None = 0.8
    """Least share of words with a letter."""
    min_stop_words: NonNegative | None = 2
    """Fewest different stop words."""
    stop_words: Annotated[list[str], Field(max_length=60)] = ["the", "be", "to", "of", "and", "that", "have", "with"]
    """The stop words, as they are written in texts."""


class GopherRepetition(RepetitionRules):
    """Documents that repeat their lines, paragraphs or n-grams are dropped (Rae et al. 2021, table A1)."""

    step: Literal["gopher_repetition"] = "gopher_repetition"


class GopherQuality(QualityRules):
    """Documents whose words are not those of prose are dropped (Rae et al. 2021, appendix A.1.1)."""

    step: Literal["gopher_quality"] = "gopher_quality"


class FineWeb(LineRules):
    """Documents with few marks at line ends, short or repeated lines are dropped (Penedo et al. 2024, section 3.6)."""

    step: Literal["fineweb"] = "fineweb"


class FineWeb2Mandarin(RepetitionRules, LineRules, QualityRules):
    """Gopher's and FineWeb's rules with the thresholds of FineWeb-2 for Mandarin (Penedo et al. 2025, cmn_Hani)."""

    step: Literal["fineweb2_mandarin"] = "fineweb2_mandarin"
    words: WordSplit = "jieba"
    min_language_score: Fraction | None = 0.692
    """Least `language_score`, where the metadata have one (from the step `language`)."""
    max_duplicate_paragraphs: Fraction | None = None
    max_duplicate_paragraph_characters: Fraction | None = None
    max_duplicate_lines: Fraction | None = 0.287
    max_duplicate_line_characters: Fraction | None = None
    max_top_ngram: NGramLimits = {2: 0.256, 3: 0.201, 4: 0.171}
    max_repeated_ngrams: NGramLimits = {5: 0.198, 6: 0.182, 7: 0.167, 8: 0.154, 9: 0.14, 10: 0.127}
    min_terminal_lines: Fraction | None = 0.106
    max_short_lines: Fraction | None = None
    max_repeated_line_characters: Fraction | None = 0.1
    max_newlines_per_word: NonNegativeFloat | None = 0.178
    min_mean_word_length: NonNegativeFloat | None = 1
    max_mean_word_length: NonNegativeFloat | None = 5
    min_alphabetic_words: Fraction | None = 0.735
    stop_words: Annotated[list[str], Field(max_length=60)] = list(MANDARIN_STOP_WORDS)


class C4(StepConfig):
    """Lines that are no sentences go, and documents with too few of them (Raffel et al. 2020, section 2.2)."""

    step: Literal["c4"] = "c4"
    max_word_length: Positive | None = 1000
    """Lines with a longer word go."""
    remove_citations: bool = True
    """Remove `[1]`, `[edit]` and `[citation needed]` from lines."""
    terminal_punctuation: bool = True
    """Only lines stay that end in `.`, `?`, `!`, `"` or `'`, and not in `...`."""
    min_line_words: NonNegative | None = 3
    """Fewest words of a line, parted by white space."""
    drop_lorem_ipsum: bool = True
    """Documents with "lorem ipsum" in such a line are dropped."""
    remove_javascript_lines: bool = True
    """Lines that name JavaScript go."""
    drop_curly_brackets: bool = True
    """Documents with `{` in such a line are dropped."""
    remove_policy_lines: bool = True
    """Lines about cookies, terms of use and privacy policies go."""
    min_sentences: NonNegative | None = 5
    """Fewest sentences in the lines that stay."""


class CodeRules(StepConfig):
    """Source code is judged by its lines, its share of letters, what wrote it, and its licence header."""

    step: Literal["code"] = "code"
    max_line_characters: Positive | None = 1000
    """Longest line (Chen et al. 2021 and StarCoder)."""
    max_mean_line_characters: Positive | None = 100
    """Greatest mean length of lines (Chen et al. 2021 and StarCoder)."""
    max_lines: Positive | None = 100_000
    """Most lines (The Stack v2)."""
    min_alphanumeric: Fraction | None = 0.25
    """Least share of letters and digits among the characters (StarCoder)."""
    min_alphabetic: Fraction | None = None
    """Least share of letters among the characters; The Stack v2 has 0.25."""
    max_data_run: Positive | None = 1024
    """Longest run of base64, hexadecimal bytes or escapes, in characters (The Stack v2)."""
    max_data_characters: Fraction | None = 0.5
    """Largest share of characters in such runs (The Stack v2)."""
    drop_generated: bool = True
    """Drop files whose first lines say that a program wrote them."""
    generated_lines: Positive = 5
    """How many first lines are read for that, with and without a licence header."""
    licence_header: Literal["keep", "remove", "drop"] = "keep"
    """A first comment about a licence or copyright: keep it, remove it, or drop the document."""
