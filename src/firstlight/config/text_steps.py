"""Steps that mend, mark or choose texts one by one: Unicode, scripts, language, privacy, lists, a classifier."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from firstlight.config.base import Fraction, NonNegative, Positive, PositiveFloat
from firstlight.config.step import StepConfig

PIIKind = Literal["email", "ip", "phone", "chinese_id", "bank_card", "key"]


class Length(StepConfig):
    """Documents that are too short or too long are dropped."""

    step: Literal["length"] = "length"
    min_characters: NonNegative = 1
    """Fewest characters, white space at both ends stripped."""
    max_characters: Positive | None = None
    """Most characters, white space at both ends stripped; unset: no limit."""

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(f"max_characters {self.max_characters:,} is below min_characters {self.min_characters:,}")
        return self


class RepairUnicode(StepConfig):
    """Mojibake, stray control characters and odd line ends are mended with ftfy."""

    step: Literal["repair_unicode"] = "repair_unicode"
    normalization: Literal["none", "NFC", "NFKC"] = "NFC"
    """Unicode normal form; NFC joins letters and accents, NFKC also changes what signs mean ("10³" becomes "103")."""
    remove_control: bool = True
    """Remove control characters that show nothing (not tab, line end and form feed), byte-order marks and terminal
    escapes."""
    html_entities: bool = True
    """Decode entities such as `&eacute;` in documents without `<`; those with it are taken for HTML or code."""


class NormalizeWidth(StepConfig):
    """Full-width letters and digits become half-width; half-width katakana become full-width."""

    step: Literal["normalize_width"] = "normalize_width"
    punctuation: bool = False
    """Full-width ASCII signs (，！？：；（）…) too; in Chinese they belong to the script and stay."""
    space: bool = True
    """The ideographic space U+3000 becomes a space."""


class ConvertChinese(StepConfig):
    """Traditional and simplified characters are converted with OpenCC."""

    step: Literal["convert_chinese"] = "convert_chinese"
    to: Literal["simplified", "traditional"] = "simplified"
    """Script to convert to."""
    region: Literal["none", "taiwan", "hong_kong"] = "none"
    """Whose characters: of the text where it becomes simplified, wanted where it becomes traditional."""
    phrases: bool = False
    """Words of the region too (滑鼠 and 鼠标); needs `region`."""

    @model_validator(mode="after")
    def _phrases_of_a_region(self) -> ConvertChinese:
        if self.phrases and self.region == "none":
            raise ValueError("`phrases` needs `region` (taiwan or hong_kong): words differ between regions")
        return self


class ChineseSentences(StepConfig):
    """Lines that are no Chinese sentences go, and documents with too few of them: C4's idea for Chinese."""

    step: Literal["chinese_sentences"] = "chinese_sentences"
    terminal_marks: str = "。！？；…⋯．.!?;”’』」"
    """Signs that a line must end with (brackets, straight quotation marks and [1] after them do not count, and "..." is
    text cut off); empty: any."""
    min_line_han: NonNegative = 5
    """Fewest Han characters of a line."""
    min_wrapped_han: NonNegative | None = 20
    """A line that ends without such a sign stays too where it has so many Han characters, a mark inside, and the line
    right below stays: its sentence goes on there. Null: it goes."""
    min_han: NonNegative = 10
    """Fewest Han characters of what is left of a document."""
    min_han_share: Fraction = 0.3
    """Least share of Han characters among the document's characters that are no white space, before lines go."""
    min_sentences: NonNegative = 3
    """Fewest sentences (text with a Han character up to 。！？…!? or a full stop) of what is left of a document."""
    keep_verse: bool = True
    """Poems lose no lines (titles, poets): documents whose clauses nearly all have 2 to 9 characters, of one length or
    in lines that end with a mark."""


class Language(StepConfig):
    """The language is identified and written into the metadata; others than wanted ones are dropped."""

    step: Literal["language"] = "language"
    keep: list[str] = Field([])
    """Languages to keep (ISO 639-1, as `en`; `zh` is all Chinese); empty: all, the step only marks."""
    min_score: Fraction = 0.65
    """Least probability of the language; applies where `keep` does."""
    trust_metadata: bool = False
    """A `language` that the metadata already have stays, and is not looked for in the text."""


class ScrubPII(StepConfig):
    """E-mail addresses, IP addresses, telephone and identity numbers and keys are replaced."""

    step: Literal["scrub_pii"] = "scrub_pii"
    kinds: list[PIIKind] = Field(["email", "ip", "phone", "chinese_id", "key"], min_length=1)
    """What is looked for; `bank_card` is not unless named (16 to 19 digits that pass Luhn's check)."""
    replacement: Literal["placeholder", "example"] = "placeholder"
    """What stands there afterwards: `[EMAIL]`, `[IP]`, `[PHONE]`, `[ID]`, `[CARD]`, `[KEY]`; or, where there is one, an
    address reserved for examples (`email@example.com`, `192.0.2.1`, `2001:db8::1`)."""
    private_ip: bool = False
    """Also IP addresses that are not public (10.0.0.1, ::1); FineWeb replaces public ones only."""


class Blocklist(StepConfig):
    """Documents whose URL or text hash stands in a list are dropped."""

    step: Literal["blocklist"] = "blocklist"
    urls: list[str] = Field([])
    """Files or globs of lists with a host (its subdomains count too) or a URL a line; `#` begins a comment."""
    hashes: list[str] = Field([])
    """Files or globs of lists with a hash of a text in UTF-8 a line, in hex: SHA-256 (64 digits) or MD5 (32)."""
    words_in_url: list[str] = Field([])
    """Words that no URL may have between signs that are no letters or digits; case does not count."""
    url_field: Annotated[str, Field(min_length=1)] = "url"
    """Metadata field that holds the URL; documents without it are counted and stay."""

    @model_validator(mode="after")
    def _something_listed(self) -> Blocklist:
        if not (self.urls or self.hashes or self.words_in_url):
            raise ValueError("name at least one file in `urls` or `hashes`, or a word in `words_in_url`")
        return self


class Classifier(StepConfig):
    """A trained classifier (`firstlight corpus classifier`) marks documents with a score, and drops by it."""

    step: Literal["classifier"] = "classifier"
    model: str
    """Folder of the trained classifier."""
    min_score: Fraction | None = 0.5
    """Documents with a lower score are dropped; null: none is. Null unless given where `pareto_alpha` is given."""
    pareto_alpha: PositiveFloat | None = None
    """A document with score s is kept with probability (2 - s)^-alpha; GPT-3 used 9. Unset: all are."""
    seed: NonNegative = 1234
    """Seed of that draw, which depends on it and on the text alone."""
    field: Annotated[str, Field(min_length=1)] = "quality_score"
    """Metadata field in which the score is written, rounded to four digits."""

    @model_validator(mode="before")
    @classmethod
    def _drawn_or_cut(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("pareto_alpha") is not None:
            return {"min_score": None, **value}
        return value
