"""Between raw files and documents: how they are read, and the steps they go through."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from firstlight.config.base import Fraction, NonNegative, Positive, Section
from firstlight.config.duplicates import Decontaminate, ExactDuplicates, NearDuplicates, RepeatedLines
from firstlight.config.rules import C4, CodeRules, FineWeb, FineWeb2Mandarin, GopherQuality, GopherRepetition
from firstlight.config.step import StepConfig
from firstlight.config.text_steps import (
    Blocklist,
    ChineseSentences,
    Classifier,
    ConvertChinese,
    Language,
    Length,
    NormalizeWidth,
    RepairUnicode,
    ScrubPII,
)

StepKind = (
    Length
    | RepairUnicode
    | NormalizeWidth
    | ConvertChinese
    | ChineseSentences
    | Language
    | ScrubPII
    | Blocklist
    | Classifier
    | GopherQuality
    | GopherRepetition
    | C4
    | FineWeb
    | FineWeb2Mandarin
    | CodeRules
    | ExactDuplicates
    | NearDuplicates
    | RepeatedLines
    | Decontaminate
)
STEP_KINDS: dict[str, type[StepConfig]] = {kind.model_fields["step"].default: kind for kind in get_args(StepKind)}
"""What each name of a step stands for."""


def _named(value: Any) -> Any:
    """A step without settings may be written as its bare name; a slip in a name or key is told with the nearest one."""
    if isinstance(value, str):
        value = {"step": value}
    if not isinstance(value, dict):
        return value
    name = value.get("step")
    if name is None:
        raise ValueError("a step is written as its name, or as a mapping with `step: NAME` and its settings")
    if not isinstance(name, str) or name not in STEP_KINDS:
        raise ValueError(f"no step is called '{name}'; {_nearest(str(name), list(STEP_KINDS))}")
    settings = ["step", *(field for field in STEP_KINDS[name].model_fields if field != "step")]
    for key in value:
        if key not in settings:
            raise ValueError(f"the step `{name}` has no setting '{key}'; {_nearest(str(key), settings[1:])}")
    return value


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"the nearest is '{close[0]}'" if close else f"known: {', '.join(known)}"


AnyStep = Annotated[Annotated[StepKind, Field(discriminator="step")], BeforeValidator(_named)]


class CorpusConfig(Section):
    """Reading raw files, and the steps between them and documents."""

    steps: list[AnyStep] = [Length(), ExactDuplicates()]
    """What documents go through, in this order."""
    invalid_utf8: Literal["repair", "reject"] = "repair"
    """Replace bytes that are not UTF-8 by U+FFFD, or drop the document; both are counted."""
    max_bad_fraction: Fraction = 0.01
    """Stop when more than this share of a source's lines cannot be read."""
    text_field: str = "text"
    """Field of a JSON line or Parquet row that holds the text."""
    shard_bytes: Positive = 256_000_000
    """Most bytes of JSON in one file of the corpus; a longer document has its own."""
    samples_per_step: NonNegative = 20
    """Dropped documents that are kept to look at, for each step."""
    keep_intermediate: bool = True
    """Keep what each phase wrote, so that a change to later steps does not redo earlier ones."""
