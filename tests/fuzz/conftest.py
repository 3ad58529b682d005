"""Random damage to files, and a process that notices when a reader asks for much memory."""

from __future__ import annotations

import copy
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

MORE_MEMORY = 2 << 30
"""What a reader of files of some kilobytes may take, in bytes of address space."""

often = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")))
"""FUZZ_EXAMPLES=100000 looks longer."""

JUNK = (
    *(None, True, False, 0, -1, 1, 2**31, 2**60, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, float("nan")),
    *(float("inf"), "", "0", "\0", "\ud800", "é" * 300, "../../etc/passwd", "/dev/zero", "nan", "float64"),
    *([], [None], [[]], ["x"], [0], {}, {"x": 1}, {"": None}, {"name": []}, {"0": {}}),
)
"""What stands in the place of a value."""


@pytest.fixture(autouse=True)
def little_memory(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """A reader that asks for more than MORE_MEMORY fails, with MemoryError."""
    record_property("tries", often.max_examples)
    if sys.platform != "linux":
        yield
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with bits turned, bytes replaced, a part cut out, doubled or filled up, or anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["bit", "word", "cut", "double", "fill", "end"])):
            case "bit" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "word":
                content[at : at + 8] = draw(st.binary(min_size=8, max_size=8)) if draw(st.booleans()) else b"\xff" * 8
            case "cut":
                del content[at : at + draw(st.integers(1, 64))]
            case "double":
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case "fill":
                content[at:at] = draw(st.sampled_from([b"\0", b"[", b"{", b"\xff", b"9"])) * draw(st.integers(1, 5000))
            case "end":
                del content[at:]
    return bytes(content)


@st.composite
def twisted(draw: st.DrawFn, tree: Any) -> bytes:
    """JSON of `tree` with values of other types, without some, with others, or in the place of others."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["junk", "junk", "gone", "more", "other"])):
            case "junk":
                holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
            case "gone":
                del holder[key]
            case "more" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["x", "", "auto_map", "\ud800", "0"]))] = copy.deepcopy(
                    draw(st.sampled_from(JUNK))
                )
            case "other":
                other, name = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(other[name])
    return json.dumps(tree).encode()


def _places(tree: Any, most: int = 300) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value below `tree`, of long containers of the first ones."""
    if isinstance(tree, (dict, list)):
        for key in list(tree)[:most] if isinstance(tree, dict) else range(min(len(tree), most)):
            yield tree, key
            yield from _places(tree[key], most)
