"""Keys stay out of everything that is written or shown: the configuration, provenance, events, logs, the terminal.

A key belongs into the environment, where the packages of an object store and of Weights & Biases look for it. One that
is put into an address is found by its place, one of the environment wherever its value appears.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

HIDDEN = "***"

_KEY_NAME = re.compile(r"(api[_-]?key|access[_-]?key|secret|token|passw(or)?d|credentials?|signature|\bsig)$", re.I)
"""How names of variables, settings and parts of an address end that hold a key."""
_SHORTEST_KEY = 16
"""A shorter value in the environment may be a word that stands in paths and settings too."""
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@]*:[^\s/?#@]*@", re.I)
"""scheme://user:password@"""
_SETTING = re.compile(r"([a-z][\w.-]*)=([^\s&,;'\"\])]+)", re.I)
"""name=value, in an address or on a command line"""


def without_secrets(value: Any) -> Any:
    """Text, or text in lists and mappings, with keys replaced by ***.

    Those are user and password of an address, values of settings that are named like a key (`?X-Amz-Signature=…`,
    `hf_token=…`), and values of such variables of the environment.
    """
    if isinstance(value, str):
        return _hidden(value)
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return value


def holds_password(address: str) -> bool:
    """Whether an address is written with a password, as `https://user:password@host/file`."""
    return _USER.search(address) is not None


def _hidden(text: str) -> str:
    if "://" in text:
        text = _USER.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _SETTING.sub(lambda part: f"{part[1]}={HIDDEN}" if _KEY_NAME.search(part[1]) else part[0], text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_KEY and value in text and _KEY_NAME.search(name) and not Path(value).exists():
            text = text.replace(value, HIDDEN)
    return text
