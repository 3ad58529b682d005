"""Components found on the engine are those of union-find, for any graph, in few rounds."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("daft")

from firstlight.corpus.comparisons.components import Components, connected_components
from firstlight.engine import load_daft

Edge = tuple[int, int]


def found(edges: list[Edge]) -> tuple[dict[int, int], Components]:
    """The root of every node but the roots, and what else is said."""
    frame = load_daft().from_pydict({"larger": [max(edge) for edge in edges], "smaller": [min(edge) for edge in edges]})
    with TemporaryDirectory() as place:
        components = connected_components(frame, Path(place))
        rows = components.frame.to_pydict()
    assert len(rows["node"]) == len(set(rows["node"]))
    return dict(zip(rows["node"], rows["root"], strict=True)), components


def expected(edges: list[Edge]) -> dict[int, int]:
    parent: dict[int, int] = {}

    def find(node: int) -> int:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    for first, second in edges:
        one, other = sorted((find(first), find(second)))
        parent[other] = one
    return {node: find(node) for node in parent if find(node) != node}


@settings(max_examples=12)
@given(
    st.integers(2, 40).flatmap(
        lambda nodes: st.lists(
            st.tuples(st.integers(0, nodes), st.integers(0, nodes)).filter(lambda edge: edge[0] != edge[1]),
            min_size=1,
            max_size=50,
        )
    ),
    st.sampled_from([1, 1 << 32, (1 << 57) + 1]),
)
def test_any_graph(edges: list[Edge], scale: int) -> None:
    edges = [(a * scale, b * scale) for a, b in edges]
    assert found(edges)[0] == expected(edges)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_long_chain_takes_few_rounds(shuffled: bool) -> None:
    nodes = list(range(2000))
    if shuffled:
        random.Random(3).shuffle(nodes)
    edges = list(itertools.pairwise(nodes))
    roots, components = found(edges)
    assert roots == dict.fromkeys(range(1, 2000), 0)
    assert components.rounds <= 12
