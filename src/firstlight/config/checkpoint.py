"""When a run is saved, what is kept, and where a second copy goes."""

from __future__ import annotations

from pydantic import field_validator

from firstlight.config.base import Positive, Section
from firstlight.support.secrets import holds_password


class CheckpointConfig(Section):
    """When to save and what to keep."""

    interval_steps: Positive = 1000
    """Save every so many steps, and at the end; ten times as often while saving fails."""
    asynchronous: bool = True
    """Training goes on while a checkpoint is written; costs its size in host memory."""
    keep_last: Positive = 2
    """Newest checkpoints kept; the newest that the guard calls good is kept besides."""
    keep_every_steps: Positive | None = None
    """Also keep every checkpoint whose step is a multiple of this."""
    copy_to: str | None = None
    """Folder or address (s3://bucket/runs) of a second place: the run is copied to copy_to/NAME after each checkpoint.
    Keys come from the environment."""

    @field_validator("copy_to")
    @classmethod
    def _no_keys(cls, value: str | None) -> str | None:
        if value is not None and holds_password(value):
            raise ValueError("copy_to is written into config.yaml; leave keys out and put them into the environment")
        return value
