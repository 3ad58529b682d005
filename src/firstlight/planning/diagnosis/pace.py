"""What the run does with its time and its learning rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from firstlight.planning.communication import traffic_per_rank
from firstlight.planning.diagnosis.curves import share_median
from firstlight.planning.diagnosis.finding import Finding
from firstlight.planning.diagnosis.record import CannotTell, RunRecord, curve, whole

LEAST_LINES = 40
WAITING = 0.1
"""Share of the time spent waiting for data."""
SLOWER, MUCH_SLOWER = 0.85, 0.5
"""Rate of the last fifth over that of the best fifth before it; on a shared machine other programs take a third."""
LOW_MFU = 0.25
"""Published runs on many accelerators have 30 to 46 % (PaLM: Chowdhery et al. 2022, table 3; torchtitan's and
Megatron-LM's tables); a quarter leaves room for small models."""
REST_AT_MINIMUM = 0.1
"""Share of training at the schedule's lowest rate; a cosine over the whole is below 1 % of its height for 6 %."""
UNFINISHED = 1.25
"""Length of a decay over that of training from which on the loss suffers (Hoffmann et al. 2022, arXiv:2203.15556,
appendix B)."""
LOW_RATE = 0.01
"""Of optimizer.lr."""
LONG_WARMUP = 0.5
_PURPOSES = {
    "gather": ("gathered weights", "a larger training.micro_batch_size with fewer accumulation steps"),
    "reduce": ("gradients", "a larger training.global_batch_size"),
    "replicate": ("gradients between copies", "a larger training.global_batch_size"),
    "tensor": ("activations of tensor parallelism", "a smaller parallel.tensor, inside one machine"),
    "context": ("keys and values", "a smaller parallel.context"),
    "pipeline": ("activations between stages", "fewer parallel.stages_per_rank"),
}


def learning_rate(record: RunRecord) -> Iterator[Finding]:
    """A schedule that leaves steps without a learning rate to speak of."""
    optimizer, total = record.config.optimizer, record.total_steps
    rest = total - record.decay_end
    if rest > REST_AT_MINIMUM * total:
        share = optimizer.min_lr / optimizer.lr
        yield Finding(
            "dead learning rate",
            "problem" if optimizer.min_lr == 0 else "warning" if share <= LOW_RATE else "note",
            (record.decay_end, total),
            f"The schedule is at its lowest, {optimizer.min_lr:g} ({share:.2g} of optimizer.lr), from step "
            f"{record.decay_end:,} of {total:,} on: for {rest / total:.0%} of training.",
            f"Set schedule.decay_steps={total} (or leave it out), or end with training.total_steps={record.decay_end}.",
        )
    if record.decay_end > UNFINISHED * total:
        yield Finding(
            "unfinished schedule",
            "warning",
            (total, record.decay_end),
            f"The learning rate would reach its lowest at step {record.decay_end:,}, training ends at {total:,}.",
            f"Set schedule.decay_steps={total}, or leave it out.",
        )
    if record.warmup_end > LONG_WARMUP * total:
        yield Finding(
            "long warm-up",
            "warning",
            (1, record.warmup_end),
            f"The learning rate rises for {record.warmup_end:,} of {total:,} steps.",
            f"Set schedule.warmup_steps to a few per cent of training, such as {max(1, total // 50)}.",
        )
    rate = curve(record, "learning_rate")
    if rate.values[-1] == 0 and rate.steps[-1] < min(total, record.decay_end):
        yield Finding(
            "dead learning rate",
            "problem",
            (int(rate.steps[-1]), total),
            f"The learning rate is 0 at step {rate.steps[-1]:,} of {total:,}: nothing is learned.",
            "Look at optimizer.lr and schedule in the run's config.yaml.",
        )


def data_bound(record: RunRecord) -> Iterator[Finding]:
    """Steps that wait for data."""
    waiting = curve(record, "data_wait_fraction", at_least=5)
    late = waiting.since(int(waiting.steps[len(waiting.steps) // 2]))
    share = float(np.median(late.values))
    if share < WAITING:
        return
    yield Finding(
        "data-bound",
        "warning",
        (int(late.steps[0]), int(late.steps[-1])),
        f"Steps wait for data {share:.0%} of the time.",
        "Put the token datasets on a faster, local disk (data.sources.NAME.tokens=FOLDER on resuming), and leave the "
        "process a processor core beside the one that trains.",
    )


def slower(record: RunRecord) -> Iterator[Finding]:
    """A rate that falls in the course of the run, since it was last resumed."""
    resumed = [step for e in record.of_kind("resumed") if (step := whole(e.get("step"))) is not None]
    rate = curve(record, "tokens_per_second").since(max(resumed, default=0) + 1)
    if len(rate.steps) < LEAST_LINES:
        raise CannotTell(f"fewer than {LEAST_LINES} lines since the run was started or resumed")
    fifths = [share_median(rate.values, fifth / 5, (fifth + 1) / 5) for fifth in range(5)]
    best = max(fifths[:-1])
    if fifths[-1] > SLOWER * best:
        return
    yield Finding(
        "slower steps",
        "warning" if fifths[-1] < MUCH_SLOWER * best else "note",
        (int(rate.steps[len(rate.steps) * 4 // 5]), int(rate.steps[-1])),
        f"The last fifth ran at {fifths[-1]:,.0f} tokens/s, the best fifth before it at {best:,.0f} "
        f"({fifths[-1] / best:.0%}).",
        "Look for other programs on the machine, a slow rank, heat (clock rates) and a full or slow disk; stopping and "
        "resuming tells whether it is the process or the machine.",
    )


def communication_bound(record: RunRecord) -> Iterator[Finding]:
    """Several ranks, far from the peak, without waiting for data: what they send, against the time of a step."""
    config, processes = record.config, record.config.declared_world_size
    if processes == 1:
        raise CannotTell("one process")
    mfu = float(np.median(curve(record, "mfu", at_least=5).values))
    waiting = float(np.median(curve(record, "data_wait_fraction").values))
    if mfu >= LOW_MFU or waiting >= WAITING:
        return
    layout, batch = config.layout(processes), config.batch(processes)
    rank = max(
        traffic_per_rank(
            config.model,
            layout,
            micro_batch_size=batch.micro_batch_size,
            sequence_length=config.data.sequence_length,
            accumulation=batch.gradient_accumulation_steps,
            precision=config.training.precision,
            recompute=config.training.recompute,
            schedule=config.parallel.pipeline_schedule,
            stages_per_rank=config.parallel.stages_per_rank,
            reshard_after_forward=config.parallel.reshard_after_forward,
            predicted=config.predicted_share,
        ),
        key=lambda sent: sent.total,
    )
    seconds = record.step_tokens / float(np.median(curve(record, "tokens_per_second").values))
    purpose = max(_PURPOSES, key=lambda name: getattr(rank, name))
    what, remedy = _PURPOSES[purpose]
    yield Finding(
        "low utilisation",
        "note",
        None,
        f"{processes} processes reach {mfu:.0%} of their peak; in each step of {seconds:.3g} s a rank sends "
        f"{rank.total / 1e9:.3g} GB, {rank.total / seconds / 1e9:.3g} GB/s, most of it {what} "
        f"({getattr(rank, purpose) / rank.total:.0%}).",
        f"If that is near what the network gives, it is the limit: try {remedy}. If it is far below, try a larger "
        "training.micro_batch_size, training.compile=true, or less recomputation.",
    )
