"""What a tracker begins with: names, settings, where the run stands. No key is among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.recipe import leaves
from firstlight.support.errors import FirstlightError
from firstlight.support.secrets import without_secrets
from firstlight.training.run_folder import RunFolder

DEFAULT_PROJECT = "firstlight"


@dataclass(frozen=True)
class Start:
    """All of a run that a tracker may show."""

    folder: Path
    name: str
    project: str
    description: str
    settings: dict[str, Any]
    """The configuration, in sections."""
    tags: dict[str, str]
    """Few words to find runs by."""
    step: int
    """That the run goes on from; 0: it begins."""
    identity: str = ""
    """Of the run in the tracker, from an earlier process; empty: this is the first."""

    @classmethod
    def of(cls, run: RunFolder, config: RunConfig, step: int) -> Start:
        """From what the run folder says."""
        settings, description = without_secrets([config.model_dump(mode="json"), config.description])
        return cls(
            run.path,
            str(without_secrets(config.name)),
            config.logging.project or DEFAULT_PROJECT,
            description,
            settings,
            {"objective": "causal" if config.model.causal else "masked", **_origin(run)},
            step,
        )

    def flat_settings(self) -> dict[str, str]:
        """Every setting by its dotted key, as text."""
        return {key: str(value) for key, value in leaves(self.settings)}


def _origin(run: RunFolder) -> dict[str, str]:
    """Version and commit that made the run."""
    try:
        provenance = run.provenance
    except FirstlightError:
        return {}
    version, git = (provenance.get("versions") or {}).get("firstlight"), provenance.get("git")
    return {
        **({"firstlight": str(version)} if version else {}),
        **({"commit": str(git.get("commit"))[:12]} if git else {}),
    }
