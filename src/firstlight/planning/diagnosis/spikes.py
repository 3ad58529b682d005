"""Steps that went wrong: spikes of the loss, numbers that are not finite, and what the guard did about them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from firstlight.planning.diagnosis.curves import deviation, median, noise
from firstlight.planning.diagnosis.finding import Finding, listed
from firstlight.planning.diagnosis.record import CannotTell, Curve, Line, RunRecord, curve, number, span, stages, whole

WINDOW, LEAST_WINDOW = 128, 24
"""Lines before a line that tell how much lines differ. OLMo-core's guard looks back 128 steps."""
LEVEL = 16
"""Lines before a line whose median it is compared with: few, so that a curve that falls fast is met where it is."""
SPIKE_DEVIATIONS = 7.0
"""OLMo-core's guard and levanter's take six standard deviations from the mean; one more, because deviations of few
lines are themselves uncertain."""
SPIKE_RISE = 0.02
"""And at least this share of the loss: a curve without noise has deviations of nothing."""
REUSED = 8
"""Lines that are compared with the same lines before the next ones are taken."""
BACK_WIDTH = 5
"""Lines whose median must be back where the loss was."""
OFTEN, OFTEN_SHARE = 3, 0.001
"""So many, and more than this share of steps: not bad luck any more. A guard of sound thresholds skips fewer."""
EXAMPLES, TEXT_CHARACTERS = 3, 60


class Spike(NamedTuple):
    """A rise of the loss above the lines before it."""

    first: int
    """Step."""
    peak: float
    before: float
    """Median of the lines before it."""
    deviations: float
    back: int | None
    """Step at which the loss was back; None: it is not."""


def loss_spikes(record: RunRecord) -> Iterator[Finding]:
    """Single lines far above the median of those before them, by robust deviations, and whether the loss came back."""
    loss = curve(record, "loss", at_least=LEAST_WINDOW + BACK_WIDTH)
    spikes = [spike for stage in stages(record, loss) for spike in spikes_of(stage)]
    lr, stability = record.config.optimizer.lr, record.config.stability
    for spike in spikes:
        if spike.back is None:
            yield Finding(
                "loss spike without return",
                "problem",
                (spike.first, int(loss.steps[-1])),
                f"The loss rose from {spike.before:.3f} to {spike.peak:.3f} at step {spike.first} "
                f"({spike.deviations:.0f} deviations) and has not come back; it is {loss.values[-1]:.3f} now.",
                f"Go back to a checkpoint before step {spike.first} (move the later ones out of checkpoints/ and train "
                f"on) with a lower optimizer.lr, such as {lr / 2:.2g}"
                + ("." if stability.guard else ", and stability.guard=true."),
            )
    back = [spike for spike in spikes if spike.back is not None]
    if not back:
        return
    worst = max(back, key=lambda spike: spike.peak - spike.before)
    lower = f"stability.loss_deviations below {stability.loss_deviations:g}"
    skipping = lower if stability.guard else "stability.guard=true"
    often = len(back) >= OFTEN and len(back) > OFTEN_SHARE * len(loss.steps)
    yield Finding(
        "loss spikes",
        "warning" if often else "note",
        (back[0].first, back[-1].first),
        f"{len(back)} in {len(loss.steps):,} lines of metrics, all gone again; the highest at step {worst.first}, from "
        f"{worst.before:.3f} to {worst.peak:.3f} ({worst.deviations:.0f} deviations), was over by step {worst.back}.",
        f"If they come more often, lower optimizer.lr (now {lr:g}) or lengthen schedule.warmup_steps (now "
        f"{record.warmup_end}); {skipping} has them skipped.",
    )


def spikes_of(loss: Curve) -> list[Spike]:
    """Spikes of a curve, each compared with the lines before it; lines of a spike belong to it until it ends."""
    found: list[Spike] = []
    place, valid_until = LEAST_WINDOW, 0
    before = spread = 0.0
    steps, values = loss
    while place < len(values):
        if place >= valid_until:
            level = values[place - LEVEL : place]
            before, valid_until = median(level), place + REUSED
            spread = max(noise(values[max(0, place - WINDOW) : place]), deviation(level))
        limit = before + max(SPIKE_DEVIATIONS * spread, SPIKE_RISE * before)
        above = np.flatnonzero(values[place:valid_until] > limit)
        if not len(above):
            place = valid_until
            continue
        place += int(above[0])
        end = _back(values, place, before + 2 * spread)
        part = values[place : end if end is not None else len(values)]
        peak = float(part.max())
        deviations = (peak - before) / spread if spread else math.inf
        found.append(Spike(int(steps[place]), peak, before, deviations, None if end is None else int(steps[end])))
        if end is None:
            break
        place = end
    if found and found[-1].back is None and len(values) - int(np.searchsorted(steps, found[-1].first)) < BACK_WIDTH:
        found.pop()  # too early to say
    return found


def _back(values: Sequence[float] | np.ndarray, start: int, level: float) -> int | None:
    """First place after `start` from which on the median of a few lines is at `level` or below."""
    for place in range(start + 1, len(values)):
        few = values[place : place + BACK_WIDTH]
        if values[place] <= level and float(np.median(few)) <= level:
            return place
    return None


def not_finite(record: RunRecord) -> Iterator[Finding]:
    """A loss or gradient that is no finite number, unless fp16's loss scale or the guard has dealt with it."""
    if not record.metrics and not record.events:
        raise CannotTell("no metrics and no events")
    handled = {whole(event.get("step")) for event in record.of_kind("overflow", "skipped", "diverged")}
    bad = [
        line["step"]
        for line in record.metrics
        if any(key in line and number(line[key]) is None for key in ("loss", "grad_norm"))
        and line["step"] not in handled
    ]
    if bad:
        yield Finding(
            "not finite",
            "warning",
            (min(bad), max(bad)),
            f"Loss or gradient norm is not a finite number in {len(bad)} lines of metrics, first at step {min(bad)}, "
            "and no event says what was done about it.",
            _calmer(record),
        )


def diverged(record: RunRecord) -> Iterator[Finding]:
    """A run that gave up on its loss or gradient and has not gone on since."""
    given_up = record.of_kind("diverged")
    if not record.events:
        raise CannotTell("no events")
    if not given_up or record.running or record.events[-1].get("event") != "diverged":
        return
    last = given_up[-1]
    step, samples = whole(last.get("step")), span(last.get("samples"))
    named = (("loss", last.get("loss")), ("gradient norm", last.get("grad_norm")))
    shown = ", ".join(f"{name} {_short(value)}" for name, value in named if value is not None)
    saved = [saved for saved in record.checkpoints if step is None or saved < step]
    yield Finding(
        "diverged",
        "problem",
        None if step is None else (step, step),
        f"Training gave up at step {last.get('step')}"
        + (f" with {shown}" if shown else "")
        + (f", on samples {samples[0]} to {samples[1] - 1}" if samples else "")
        + (f"; the checkpoint of step {saved[-1]} is from before." if saved else "; there is no checkpoint before it."),
        _calmer(record),
        tuple(_texts(last)),
    )


def skipped_steps(record: RunRecord) -> Iterator[Finding]:
    """What the guard skipped: how much, why, and the text of the worst steps."""
    skipped = [event for event in record.of_kind("skipped") if whole(event.get("step")) is not None]
    if not skipped:
        return
    share = len(skipped) / max(1, record.last_step)
    reasons = Counter(str(event.get("reason")).replace("_", " ") for event in skipped)
    counted = ", ".join(f"{count} for {reason}" for reason, count in reasons.most_common())
    steps = [event["step"] for event in skipped]
    yield Finding(
        "skipped steps",
        "warning" if len(skipped) >= OFTEN and share > OFTEN_SHARE else "note",
        (min(steps), max(steps)),
        f"{len(skipped)} of {record.last_step:,} steps ({share:.2%}) did not move the weights: {counted}.",
        _look_at_text(record, skipped),
        tuple(_cases(skipped)),
    )


def rolled_back(record: RunRecord) -> Iterator[Finding]:
    """Goings back to a checkpoint, and the samples that were left out."""
    skipped = record.of_kind("skipped")
    for event in record.of_kind("rolled_back"):
        step, to_step = whole(event.get("step")), whole(event.get("to_step"))
        samples = span(event.get("skipped_samples"))
        yield Finding(
            "rolled back",
            "warning",
            None if step is None or to_step is None else (min(to_step, step), step),
            f"At step {event.get('step')} training went back to the checkpoint of step {event.get('to_step')}"
            + (f" and left out samples {samples[0]} to {samples[1] - 1}." if samples else "."),
            _look_at_text(record, [e for e in skipped if samples and _within(e, samples)]),
        )


def _short(value: object) -> str:
    """A number that the event has as text, because JSON has no NaN."""
    try:
        return f"{float(str(value)):.4g}"
    except ValueError:
        return str(value)


def _within(event: Line, samples: tuple[int, int]) -> bool:
    own = span(event.get("samples"))
    return own is not None and samples[0] <= own[0] and own[1] <= samples[1]


def _calmer(record: RunRecord) -> str:
    lr, warmup = record.config.optimizer.lr, record.warmup_end
    choices = [f"Lower optimizer.lr (now {lr:g}; try {lr / 3:.2g})", f"lengthen schedule.warmup_steps (now {warmup})"]
    if record.config.training.precision != "fp32":
        choices.append("use training.precision=fp32 to see whether arithmetic is the cause")
    return f"{', '.join(choices[:-1])}, or {choices[-1]}."


def _look_at_text(record: RunRecord, events: Sequence[Line]) -> str:
    sources = Counter(str(document.get("source")) for event in events for document in _documents(event))
    if sources:
        named = listed([f"'{source}'" for source, _ in sources.most_common()])
        return (
            f"Look at the text of these samples ({named}): if it is broken, repetitive or of another kind, filter it "
            f"with corpus.steps or lower its data.mixture weight; if it is sound, lower optimizer.lr "
            f"(now {record.config.optimizer.lr:g}), or raise stability.loss_deviations or grad_norm_deviations."
        )
    return f"Lower optimizer.lr (now {record.config.optimizer.lr:g}) or lengthen schedule.warmup_steps."


def _cases(events: Sequence[Line]) -> Iterator[str]:
    """The worst steps first: those without a finite loss, then by how far they were above their limit."""

    def excess(event: Line) -> float:
        value = number(event.get("grad_norm" if event.get("reason") == "grad_norm" else "loss"))
        limit = number(event.get("limit"))
        return math.inf if value is None else value / limit if limit else value

    for event in sorted(events, key=excess, reverse=True)[:EXAMPLES]:
        samples = span(event.get("samples"))
        named = (("loss", "loss"), ("gradient norm", "grad_norm"), ("limit", "limit"))
        known = [(name, number(event.get(key))) for name, key in named]
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in known if value is not None)
        where = f", samples {samples[0]} to {samples[1] - 1}" if samples else ""
        yield f"step {event['step']}{where}{': ' if numbers else ''}{numbers}"
        yield from _texts(event)


def _texts(event: Line) -> Iterator[str]:
    for document in _documents(event)[:EXAMPLES]:
        text = " ".join(str(document.get("text", "")).split())
        shown = text[:TEXT_CHARACTERS] + ("…" if len(text) > TEXT_CHARACTERS else "")
        yield f"{document.get('source')}, document {document.get('document')}: “{shown}”"


def _documents(event: Line) -> list[Line]:
    documents = event.get("documents")
    return [document for document in documents if isinstance(document, dict)] if isinstance(documents, list) else []
