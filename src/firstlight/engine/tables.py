"""Daft, the engine for tables that are larger than memory or spread over machines."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from firstlight.support.errors import FirstlightError

T = TypeVar("T")


def load_daft() -> Any:
    """The Daft module, silent and without telemetry. FirstlightError when it is not installed."""
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    os.environ.setdefault("DAFT_SHOW_QUERY_ID", "0")
    try:
        import daft
    except ImportError:
        raise FirstlightError("building a corpus needs the `daft` package; pip install 'firstlight[corpus]'.") from None
    return daft


def run_query(query: Callable[[], T], ray: str | None) -> T:
    """What `query` returns, its Daft queries done on this machine, or on the Ray cluster at the address `ray`.

    It is called again when a cluster loses its queries, so it leaves whole results or none.
    """
    if not ray:
        return query()
    from firstlight.engine.cluster import query_on_ray

    return query_on_ray(query, ray)
