"""What the run reads: text gone over again, a mixture that is not what was asked for, one source that makes trouble."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.planning.diagnosis.finding import Finding, listed
from firstlight.planning.diagnosis.record import CannotTell, RunRecord
from firstlight.planning.repeated_data import LITTLE_MORE_EPOCHS, NEARLY_NEW_EPOCHS, value_lost, verdict

DRIFT = 0.01
"""Difference of a share that is worth a word: a hundredth of all samples."""
OFFENDER, OFFENDER_SAMPLES = 2.0, 20
"""A source is in skipped steps so many times more often than in the mixture, over so many samples at least."""


def repeated_text(record: RunRecord) -> Iterator[Finding]:
    """Sources gone over so often that they teach little more (Muennighoff et al. 2023, arXiv:2305.16264)."""
    _need_sources(record)
    for name, source in record.sources.items():
        if source.epochs_at_end <= NEARLY_NEW_EPOCHS:
            continue
        lost = value_lost(source.epochs_at_end)
        yield Finding(
            "repeated text",
            "warning" if source.epochs_at_end > LITTLE_MORE_EPOCHS else "note",
            None,
            f"'{name}' is gone over {source.epochs_at_end:.1f} times by the end ({source.epochs:.1f} so far): its text "
            f"is then {verdict(source.epochs_at_end)}, and {lost:.0%} of the tokens read from it teach nothing.",
            f"Lower data.mixture.{name} in the next run, add text, or train for fewer steps; `firstlight mixture "
            "--propose` finds weights."
            if len(record.sources) > 1
            else "Add text, or train for fewer steps.",
        )


def mixture_drift(record: RunRecord) -> Iterator[Finding]:
    """Samples learned from, by source, against the weights: what the stream has drawn less what was skipped."""
    _need_sources(record)
    drawn, skipped = (sum(getattr(s, key) for s in record.sources.values()) for key in ("drawn", "skipped"))
    if drawn - skipped <= record.config.data.mixture_block_size:
        raise CannotTell("not one block of the mixture has been read")
    off = {}
    for name, source in record.sources.items():
        share = (source.drawn - source.skipped) / (drawn - skipped)
        if abs(share - source.wanted) > DRIFT:
            off[name] = share
    if off:
        shown = [f"'{name}' {share:.1%} (wanted {record.sources[name].wanted:.1%})" for name, share in off.items()]
        yield Finding(
            "mixture drift",
            "warning",
            None,
            f"What was learned from is not the mixture: {listed(shown)}, of {drawn - skipped:,} samples, after "
            f"{skipped:,} were skipped.",
            "Look at why so many samples of one source are skipped before going on.",
        )


def troublesome_source(record: RunRecord) -> Iterator[Finding]:
    """A source that is in the skipped steps much more often than in the mixture."""
    _need_sources(record)
    skipped = sum(source.skipped for source in record.sources.values())
    for name, source in record.sources.items():
        share = source.skipped / skipped if skipped else 0.0
        if source.skipped >= OFFENDER_SAMPLES and share > OFFENDER * source.wanted:
            yield Finding(
                "troublesome source",
                "warning",
                None,
                f"{share:.0%} of the {skipped:,} samples of skipped steps are from '{name}', which is "
                f"{source.wanted:.0%} of the mixture.",
                f"Look at its text; filter it with corpus.steps (for sources: [{name}]) or lower data.mixture.{name}.",
            )


def _need_sources(record: RunRecord) -> None:
    if not record.sources:
        raise CannotTell("provenance.json does not say how large the sources are")
