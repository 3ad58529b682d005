"""The folder of a run: everything a verb needs about it, so that it can be moved and resumed elsewhere.

runs/NAME/  config.yaml (resolved)  provenance.json  tokenizer/  metrics.jsonl  events.jsonl  checkpoints/step_N/

The run of an imported model begins with a checkpoint of step 0 that holds weights only, and has a folder origin/ with
the configuration and the tokenizer as they were, for export.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.recipe import config_diff, dump_config, load_config
from firstlight.support.errors import CheckpointError, ConfigError
from firstlight.support.files import atomic_file, check_writable, read_json, to_json, write_json
from firstlight.support.lines import LineFile
from firstlight.support.secrets import without_secrets
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import checkpoint_steps

_CHANGEABLE_ON_RESUME = (
    "model.hidden_dropout",
    "model.attention_dropout",
    "training.total_steps",
    "training.total_tokens",
    "training.micro_batch_size",
    "training.global_batch_size",  # what comes out is compared below
    "training.gradient_accumulation_steps",
    "training.max_grad_norm",
    "training.precision",
    "training.loss_scale.",
    "training.fp16_on_cpu",
    "training.device",
    "training.compile",
    "training.recompute",
    "training.max_hours",
    "training.hang_seconds",
    "optimizer.",
    "schedule.",
    "checkpoint.",
    "stability.",
    "evaluation.",
    "logging.",
    "parallel.",
    "launch.",
    "data.max_epochs",
    "data.directory",
    "runs_directory",
    "name",
    "description",
    "license",
)


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        """writes: false on all but one of the processes of a run; its small files are then left to that one."""
        self.path, self.writes = Path(path), writes
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.events = self.path / "events.jsonl"
        self.provenance_file = self.path / "provenance.json"
        self.evaluations = self.path / "evaluations.jsonl"
        self.config_file = self.path / "config.yaml"
        self.tokenizer_folder = self.path / "tokenizer"
        self.origin = self.path / "origin"
        self._event_lines = LineFile(self.events)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run; CheckpointError when `path` is not one."""
        run = cls(Path(path))
        if not run.path.exists():
            raise CheckpointError(f"{path}: no such run folder.")
        if not run.config_file.is_file():
            raise CheckpointError(f"{path}: not a run folder (it has no config.yaml).")
        return run

    @property
    def config(self) -> RunConfig:
        """The resolved configuration the run was started (or last resumed) with. CheckpointError when it is not one."""
        config = load_config(self.config_file)
        if config.model.vocab_size is None or not all(
            source.tokens or source.only_validates for source in config.data.sources.values()
        ):
            raise CheckpointError(
                f"{self.config_file}: not what the run wrote (model.vocab_size or the tokens of a source are unset); "
                "put the original file back."
            )
        return config

    @property
    def provenance(self) -> dict[str, Any]:
        """What the run was made from. FirstlightError when the file is missing or damaged."""
        provenance = read_json(self.provenance_file, "provenance file")
        if not isinstance(provenance, dict) or not isinstance(provenance.get("datasets"), dict):
            raise CheckpointError(f"{self.provenance_file}: not what the run wrote; put the original file back.")
        return provenance

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that belongs to the model."""
        return Tokenizer.load(self.tokenizer_folder)

    @property
    def exists(self) -> bool:
        return self.config_file.is_file()

    @property
    def imported(self) -> bool:
        """Whether its first weights were another project's."""
        return self.exists and bool(self.provenance.get("imported"))

    @property
    def begun(self) -> bool:
        """Whether its settings and data are decided: those of an imported model are not before a step was saved."""
        return self.exists and not (self.imported and self.last_step() == 0)

    def check_place(self) -> None:
        """Before any work: CheckpointError or OSError when a new run cannot begin in this folder."""
        check_writable(self.path)
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path}: a file, where the run folder is due; choose another name=NAME.")
        begun = (self.tokenizer_folder.name, self.provenance_file.name, "logs")  # of this start, or one that was killed
        others = sorted(entry.name for entry in self.path.iterdir() if entry.name[0] != "." and entry.name not in begun)
        if others:
            raise CheckpointError(
                f"{self.path}: has {others[0]} but no config.yaml, so it is not a run that can go on; "
                "choose another name=NAME, or move the folder away."
            )

    def create(
        self,
        config: RunConfig,
        tokenizer: Tokenizer,
        datasets: dict[str, dict[str, Any]],
        imported: dict[str, Any] | None = None,
    ) -> None:
        """Write the small files, all of them or none; config.yaml last, because it makes the folder a run.

        imported: where the weights come from, for a model that another project trained.
        """
        if not self.writes:
            return
        try:
            tokenizer.save(self.tokenizer_folder)
            extra = {"imported": imported} if imported else {}
            write_json(self.provenance_file, without_secrets({**_provenance(datasets, tokenizer), **extra}))
            self.write_config(config)
        except BaseException:
            shutil.rmtree(self.tokenizer_folder, ignore_errors=True)
            self.provenance_file.unlink(missing_ok=True)
            raise

    def write_config(self, config: RunConfig) -> None:
        if not self.writes:
            return
        with atomic_file(self.config_file, "w") as handle:
            handle.write(dump_config(config))

    def begin_imported(self, datasets: dict[str, dict[str, Any]]) -> None:
        """Note the data that an imported model is now trained on, until that is decided."""
        if self.writes and not self.begun:
            write_json(self.provenance_file, {**self.provenance, "datasets": without_secrets(datasets)})

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl: what happened and when."""
        if not self.writes:
            return
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": kind, **fields}
        self._event_lines.write(to_json(without_secrets(line)))

    def check_resumable(self, new: RunConfig, datasets: dict[str, dict[str, Any]], tokenizer: Tokenizer) -> None:
        """ConfigError when `new` changes what a resumed run must keep, or names other data than it began with.

        Of an imported model that was not trained yet, only the model and the tokenizer must stay.
        """
        old = self.config
        begun = self.begun
        for key, before, after in config_diff(old, new):
            # where the data lies may change (checked by fingerprint below), what it is may not
            moved = key.startswith("data.sources.") and key.endswith("tokens") and before and after
            kept = not key.startswith(_CHANGEABLE_ON_RESUME) and (begun or key.startswith("model."))
            if kept and not moved and before != without_secrets(after):
                raise ConfigError(
                    f"{self.path}: the run began with {key} = {before!r}, now it is {after!r}; a resumed run keeps it. "
                    "Start another run with name=NEW_NAME."
                )
        if begun:
            self._check_data(old, new, datasets)
        if self.provenance.get("tokenizer", {}).get("fingerprint") != tokenizer.fingerprint:
            raise ConfigError(f"{self.path}: the tokenizer is not the one the run began with.")

    def _check_data(self, old: RunConfig, new: RunConfig, datasets: dict[str, dict[str, Any]]) -> None:
        length = new.data.sequence_length
        before, after = (config.batch(config.declared_world_size).global_batch_size for config in (old, new))
        if before != after:
            raise ConfigError(
                f"{self.path}: the run began with {before} sequences of {length} a step, now it would be {after}; "
                f"a resumed run keeps its global batch: training.global_batch_size={before}."
            )
        began = self.provenance["datasets"]
        for source, dataset in datasets.items():
            if "order" in dataset and began.get(source, {}).get("order", dataset["order"]) != dataset["order"]:
                raise ConfigError(
                    f"{self.path}: with data.order megatron the length of a run decides the order of its samples, and "
                    f"this length would read '{source}' in another one; keep "
                    f"training.total_steps={old.steps(old.declared_world_size)}, or start another run with "
                    "name=NEW_NAME."
                )
            if began.get(source, {}).get("fingerprint") != dataset["fingerprint"]:
                raise ConfigError(
                    f"{self.path}: the token dataset of '{source}' is not the one the run began with "
                    f"({dataset['path']}); give the original with data.sources.{source}.tokens=FOLDER."
                )

    def trim_metrics(self, step: int) -> None:
        """Drop metric lines after `step`: a resumed run writes them again, the same."""
        if not self.writes or not self.metrics.is_file():
            return
        kept = []
        for line in self.metrics.read_bytes().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line cut short by a kill, or damaged
        with atomic_file(self.metrics) as handle:
            handle.writelines(line + b"\n" for line in kept)

    def last_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        steps = checkpoint_steps(self.checkpoints)
        return steps[-1] if steps else None


def _provenance(datasets: dict[str, dict[str, Any]], tokenizer: Tokenizer) -> dict[str, Any]:
    packages = ("firstlight", "torch", "numpy", "tokenizers", "safetensors", "daft")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "git": _git(),
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "datasets": datasets,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the folder the command runs in, when that is a git checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(status.stdout.strip())}
