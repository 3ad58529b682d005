"""Batch arithmetic: global = micro × accumulation × data-parallel ranks, and sizes that come out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from firstlight.support.errors import ConfigError


class Batch(BaseModel):
    """A batch that comes out: global = micro × accumulation × data-parallel ranks (sequences)."""

    model_config = ConfigDict(frozen=True)

    micro_batch_size: int
    gradient_accumulation_steps: int
    global_batch_size: int
    data_parallel: int


def resolve_batch(micro: int | None, accumulation: int | None, global_: int | None, data_parallel: int) -> Batch:
    """Derive the missing one of global = micro × accumulation × data-parallel ranks.

    With fewer than two given, accumulation is 1, and micro is 8. Raises ConfigError with the equation and the
    nearest valid choices when the given ones disagree or do not divide.
    """
    if global_ is None:
        micro, accumulation = micro or 8, accumulation or 1
        global_ = micro * accumulation * data_parallel
    elif micro is None and accumulation is None:
        per_rank = global_ // data_parallel
        micro = max((d for d in divisors(per_rank) if d <= 8), default=1) if per_rank else 1
    if micro is None:
        assert accumulation is not None
        micro = max(1, round(global_ / (accumulation * data_parallel)))
    elif accumulation is None:
        accumulation = max(1, round(global_ / (micro * data_parallel)))
    assert accumulation is not None
    product = micro * accumulation * data_parallel
    if product != global_:
        unit = micro * data_parallel
        right = (
            f"gradient_accumulation_steps {global_ // unit} fits this global batch"
            if global_ % unit == 0
            else f"nearest global_batch_size: {nearest_multiples(global_, unit)}"
        )
        raise ConfigError(
            "training: global_batch_size = micro_batch_size × gradient_accumulation_steps × data-parallel ranks, but "
            f"{global_} ≠ {micro} × {accumulation} × {data_parallel} = {product}; {right}."
        )
    return Batch(
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        global_batch_size=global_,
        data_parallel=data_parallel,
    )


def divisors(number: int) -> list[int]:
    """All divisors, rising."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def nearest_multiples(number: int, unit: int) -> str:
    """The multiples of `unit` on either side of a number, as "8 or 16"; below one there is only one."""
    below = number // unit * unit
    return f"{below} or {below + unit}" if below else str(unit)
