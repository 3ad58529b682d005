"""A tracker shows one curve of a run: nothing twice, nothing missing, whatever stops, goes back or fails."""

from __future__ import annotations

import json
import sys
import threading
from types import SimpleNamespace

import pytest

from firstlight.recipe import load_config
from firstlight.support.errors import ConfigError
from firstlight.training import trackers
from firstlight.training.metrics import MetricsLog
from firstlight.training.run_folder import RunFolder
from firstlight.training.trackers import mirror
from firstlight.training.trackers.tracker import Tracker

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


class Kept(Tracker):
    """Keeps what it is told; `broken` calls fail first. What is kept is everybody's, as on a server."""

    told: list = []  # noqa: RUF012
    broken = 0
    ended: list = []  # noqa: RUF012

    def __init__(self, start):
        self.start, self.identity, self.place = start, start.identity or "first", "nowhere"
        self.told.append(("begin", start.identity, start.step))

    def write(self, step, numbers):
        if Kept.broken:
            Kept.broken -= 1
            raise ConnectionError("no\nnetwork")
        self.told.append((step, dict(numbers)))

    def close(self, finished):
        self.ended.append(finished)


@pytest.fixture
def kept(monkeypatch):
    Kept.told, Kept.ended, Kept.broken = [], [], 0
    monkeypatch.setattr(trackers, "_class", lambda name: Kept)
    monkeypatch.setattr(trackers, "check_trackers", lambda config: None)
    return Kept


def train(run, steps, *, tracker="wandb", start=0, finished=False, settings=()):
    """What a trainer does: resume at `start`, write the steps; a name among them is an event of the step to come."""
    run.trim_metrics(start)
    log = MetricsLog(run, load_config("quickstart", [f"logging.trackers=[{tracker}]", *settings]), start)
    last = start
    for step in steps:
        if isinstance(step, str):
            run.event(step, step=last + 1)
            continue
        log.write(step, {"loss": float(step), "skipped": None, "v": {"books": {"loss": 2.0 * step}}})
        last = step
    log.close(finished)


def steps_of(kept):
    return [entry[0] for entry in kept.told if entry[0] != "begin"]


def test_numbers_reach_it_under_the_keys_of_the_file_and_nulls_do_not(run, kept):
    train(run, [7], finished=True)
    assert kept.told == [("begin", "", 0), (7, {"loss": 7.0, "v/books/loss": 14.0})]
    assert kept.ended == [True]


def test_a_resumed_run_goes_on_with_the_same_curve(run, kept):
    """Killed at 50 after a checkpoint at 30: 40 and 50 are written again to the file, and sent once."""
    train(run, [10, 20, 30, 40, 50])
    train(run, [40, 50, 60], start=30)
    assert steps_of(kept) == [10, 20, 30, 40, 50, 60]
    assert [entry for entry in kept.told if entry[0] == "begin"] == [("begin", "", 0), ("begin", "first", 30)]


def test_two_lines_of_a_step_are_both_sent_and_a_step_that_comes_again_is_not(run, kept):
    train(run, [10, 10, 20, 30, 20, 30, 40])
    assert steps_of(kept) == [10, 10, 20, 30, 30, 40]  # a second line of the last step may be a validation


def test_one_that_is_named_later_gets_the_whole_curve(run, kept):
    MetricsLog(run, load_config("quickstart")).write(10, {"loss": 1.0})
    train(run, [20], start=10)
    assert steps_of(kept) == [10, 20]


def test_events_are_marks_at_the_next_line_counted_over_the_whole_run(run, kept):
    train(run, [10, "skipped", "skipped", 20, 30])
    train(run, ["resumed", "skipped", 40], start=30)
    marks = {entry[0]: {k: v for k, v in entry[1].items() if k.startswith("events/")} for entry in kept.told[1:4]}
    assert marks == {10: {}, 20: {"events/skipped": 2.0}, 30: {}}
    assert kept.told[-1][1].items() >= {"events/resumed": 1.0, "events/skipped": 3.0}.items()


def test_one_that_fails_is_told_of_once_and_gets_all_when_it_works_again(run, kept, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "FIRST_RETRY_SECONDS", 0.01)
    kept.broken = 3
    log = MetricsLog(run, load_config("quickstart", ["logging.trackers=[wandb]"]))
    log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 2.0})
    for _ in range(500):
        if len(steps_of(kept)) == 2:
            break
        threading.Event().wait(0.01)
    log.close()
    assert steps_of(kept) == [1, 2]
    said = capsys.readouterr().err
    assert said.count("wandb takes no numbers (no network)") == 1
    assert "wandb works again" in said


def test_one_that_never_works_does_not_stop_training_and_gets_all_on_resuming(run, kept, capsys):
    kept.broken = 10**6
    train(run, [1, 2, 3], finished=True)
    assert len(run.metrics.read_text().splitlines()) == 3
    assert steps_of(kept) == []
    assert "wandb has no numbers of this run" in capsys.readouterr().err
    kept.broken = 0
    train(run, [4], start=3)
    assert steps_of(kept) == [1, 2, 3, 4]


def test_one_that_hangs_is_waited_for_only_so_long(run, kept, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "TOLD_AFTER_SECONDS", 0.02)
    monkeypatch.setattr(mirror, "CLOSING_SECONDS", 0.1)
    release = threading.Event()
    monkeypatch.setattr(kept, "write", lambda self, step, numbers: release.wait(20))
    train(run, [1, 2])
    release.set()
    assert "waiting for wandb" in capsys.readouterr().err
    assert len(run.metrics.read_text().splitlines()) == 2


def test_a_damaged_record_is_as_none(run, kept):
    (run.path / "trackers.json").write_text('{"wandb": [')
    train(run, [10])
    assert json.loads((run.path / "trackers.json").read_text())["wandb"]["step"] == 10


def test_tensorboard_replaces_steps_that_are_written_again(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(run, [10, 20, 30, 40, "skipped", 50], tracker="tensorboard")
    train(run, [30, 40, 50, 40, 45], start=20, tracker="tensorboard")  # it goes back once more, to 40
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found["loss"] == [(step, float(step)) for step in (10, 20, 30, 40, 45)]
    assert found["v/books/loss"] == [(step, 2.0 * step) for step in (10, 20, 30, 40, 45)]
    assert found["events/skipped"] == [(45, 1.0)]


def test_weights_and_biases_keeps_its_run_and_gets_neither_keys_nor_what_the_package_collects(run, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    calls = []
    logged = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda exit_code: calls.append(exit_code),
        offline=False,
        url="https://there",
    )
    module = SimpleNamespace(
        setup=lambda: SimpleNamespace(settings=SimpleNamespace(mode="online")),
        login=lambda prompt: True,
        Settings=lambda **settings: settings,
        init=lambda **settings: calls.append(settings) or logged,
    )
    monkeypatch.setattr(trackers, "check_trackers", lambda config: None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    settings = ("logging.project=here", f"description=with {KEY}")
    train(run, [10], settings=settings, finished=True)
    train(run, [20], start=10, settings=settings)
    first, (step, numbers), code, second, _, stopped = calls
    assert (first["project"], first["resume"], first["notes"]) == ("here", "allow", "with ***")
    assert first["id"] == second["id"] != ""
    assert first["config"]["model"]["hidden_size"] == 256
    assert (step, numbers["v/books/loss"]) == (10, 20.0)
    assert (code, stopped) == (0, 75)
    assert KEY not in repr(calls) + (run.path / "trackers.json").read_text()
    assert first["settings"].items() >= {"console": "off", "disable_git": True, "x_disable_meta": True}.items()


@pytest.mark.parametrize(("name", "package"), [(name, name) for name in ("tensorboard", "wandb", "mlflow", "trackio")])
def test_one_that_is_not_installed_is_named_with_its_extra_before_anything_begins(run, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{name}, which is not installed: pip install 'firstlight\[{name}\]'\."):
        train(run, [1], tracker=name)
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("logging.tensorboard=true", r"trackers=\[tensorboard\]"),
        ("logging.wandb_project=mine", r"trackers=\[wandb\] and project=mine"),
        ("logging.trackers=[wandb, wandb]", "names one twice"),
        ("logging.trackers=[comet]", "'tensorboard', 'wandb', 'mlflow' or 'trackio'"),
        ("logging.project=mine", "project is for the trackers"),
    ],
)
def test_what_is_refused(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config("quickstart", [override])


def test_settings_of_runs_from_before_that_asked_for_no_tracker_are_read():
    old = ["logging.tensorboard=false", "logging.wandb_project=null"]
    assert load_config("quickstart", old) == load_config("quickstart")
    assert load_config("quickstart", ["logging.trackers=tensorboard"]).logging.trackers == ["tensorboard"]


@pytest.mark.slow
def test_mlflow_itself_has_one_curve(run, tmp_path, monkeypatch):
    client = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(run, [10, 20, 30], tracker="mlflow")
    train(run, [20, 30, "skipped", 40], tracker="mlflow", start=10, finished=True)
    identity = json.loads((run.path / "trackers.json").read_text())["mlflow"]["identity"]
    store = client.MlflowClient()
    assert [(m.step, m.value) for m in store.get_metric_history(identity, "loss")] == [
        (s, float(s)) for s in (10, 20, 30, 40)
    ]
    found = store.get_run(identity)
    assert (found.info.status, found.data.params["model.hidden_size"]) == ("FINISHED", "256")
    assert found.data.metrics["events/skipped"] == 1.0
    assert store.get_experiment(found.info.experiment_id).name == "firstlight"


@pytest.mark.slow
def test_trackio_itself_has_one_curve(run, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    import sqlite3

    import trackio.utils
    from trackio import sqlite_storage

    for module in (trackio.utils, sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path)
    train(run, [10, 20, 30], tracker="trackio")
    train(run, [20, 30, 40], tracker="trackio", start=10)
    with sqlite3.connect(tmp_path / "firstlight.db") as store:
        rows = store.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step, json.loads(numbers)["loss"]) for name, step, numbers in rows] == [
        ("quickstart", step, float(step)) for step in (10, 20, 30, 40)
    ]


@pytest.mark.slow
def test_weights_and_biases_itself_takes_a_run_offline_without_the_command_line(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "argv", ["firstlight", "train", "a-private-argument"])
    train(run, [10, 20])
    written = b"".join(file.read_bytes() for file in (run.path / "wandb").rglob("*") if file.is_file())
    assert b"v/books/loss" in written and b"quickstart" in written
    assert b"a-private-argument" not in written
