"""Steps that mend, mark or choose texts one by one; each brings its own library, imported when the step is made."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from firstlight.config.text_steps import (
    Blocklist,
    ChineseSentences,
    ConvertChinese,
    Language,
    Length,
    NormalizeWidth,
    RepairUnicode,
    ScrubPII,
)
from firstlight.corpus.step import Step
from firstlight.support.errors import FirstlightError

_HOME = {
    Length: "length.LengthStep",
    RepairUnicode: "repair.RepairUnicodeStep",
    NormalizeWidth: "width.NormalizeWidthStep",
    ConvertChinese: "chinese.ConvertChineseStep",
    ChineseSentences: "sentences.ChineseSentencesStep",
    Language: "language.LanguageStep",
    ScrubPII: "pii.ScrubPIIStep",
    Blocklist: "blocklist.BlocklistStep",
}


def _maker(home: str) -> Callable[[Any], Step]:
    module, name = home.split(".")

    def make(config: Any) -> Step:
        try:
            found = import_module(f"firstlight.corpus.text_steps.{module}")
        except ModuleNotFoundError as problem:
            raise FirstlightError(
                f"the step `{config.step}` needs the `{problem.name}` package; pip install 'firstlight[corpus]'."
            ) from None
        return getattr(found, name)(config)

    return make


STEPS: dict[type, Callable[[Any], Step]] = {config: _maker(home) for config, home in _HOME.items()}

__all__ = ["STEPS"]
