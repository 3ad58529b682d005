"""Metrics reach every tracker that the configuration names, under the same keys and steps."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError
from firstlight.training.metrics import MetricsLog
from firstlight.training.run_folder import RunFolder

VALUES = {"loss": 2.5, "validation": {"books": {"bits_per_byte": 1.5}}}
FLAT = {"loss": 2.5, "validation/books/bits_per_byte": 1.5}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


def write(run, *overrides):
    log = MetricsLog(run, load_config("quickstart", overrides))
    log.write(7, VALUES)
    log.close()


def test_json_lines_are_always_written_and_appended(run):
    write(run)
    write(run)
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == [{"step": 7, **FLAT}] * 2


def test_tensorboard_gets_every_number(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(run, "logging.tensorboard=true")
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {key: [(7, value)] for key, value in FLAT.items()}


def test_weights_and_biases_gets_every_number_and_a_resumed_run_goes_on(run, monkeypatch):
    calls = []
    tracker = SimpleNamespace(
        log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("finish")
    )
    module = SimpleNamespace(init=lambda **settings: calls.append(settings) or tracker)
    monkeypatch.setitem(sys.modules, "wandb", module)
    write(run, "logging.wandb_project=first")
    settings, logged, end = calls
    assert (settings["project"], settings["id"], settings["resume"]) == ("first", "quickstart", "allow")
    assert settings["config"]["model"]["hidden_size"] == 256
    assert logged == (FLAT, 7)
    assert end == "finish"


@pytest.mark.parametrize(
    ("override", "module", "extra"),
    [
        ("logging.tensorboard=true", "torch.utils.tensorboard", "firstlight[tensorboard]"),
        ("logging.wandb_project=x", "wandb", "firstlight[wandb]"),
    ],
)
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(run, monkeypatch, override, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=extra.replace("[", r"\[").replace("]", r"\]")):
        write(run, override)
