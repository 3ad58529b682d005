"""Folders of the Hugging Face hub, downloaded or from the local cache (extra `huggingface`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from firstlight.support.errors import DataError


def place_or_hub(name: str | Path, files: Sequence[str]) -> Path:
    """`name` as it is where it exists or cannot be a hub name; else the folder of that hub repository's `files`.

    files: names or patterns as `model*.safetensors`, of the repository's top folder. DataError when the hub does not
    have it, is out of reach, or `huggingface_hub` is not installed.
    """
    place = Path(name)
    if place.exists() or place.suffix == ".json" or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name)):
        return place
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DataError(
            f"{name}: no such file or folder; the Hugging Face hub needs pip install 'firstlight[huggingface]'."
        ) from None
    try:
        return Path(snapshot_download(str(name), allow_patterns=list(files), ignore_patterns=["*/*"]))
    except Exception as problem:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise DataError(
            f"{name}: no such file or folder, and not available from the Hugging Face hub ({reason})."
        ) from None
