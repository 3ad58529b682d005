"""Every number of a step is one line of metrics.jsonl, whatever the trackers do."""

from __future__ import annotations

import json

from firstlight.recipe import load_config
from firstlight.training.metrics import MetricsLog
from firstlight.training.run_folder import RunFolder

VALUES = {"loss": 2.5, "grad_norm": None, "validation": {"books": {"bits_per_byte": 1.5}}}
FLAT = {"loss": 2.5, "grad_norm": None, "validation/books/bits_per_byte": 1.5}


def test_lines_are_appended_with_nested_keys_joined(tmp_path):
    run = RunFolder(tmp_path)
    for step in (7, 8):
        log = MetricsLog(run, load_config("quickstart"))
        log.write(step, VALUES)
        log.close()
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == [
        {"step": 7, **FLAT},
        {"step": 8, **FLAT},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_where_another_process_writes_nothing_is_written_and_no_tracker_begun(tmp_path):
    log = MetricsLog(RunFolder(tmp_path, writes=False), load_config("quickstart", ["logging.trackers=[tensorboard]"]))
    log.write(7, VALUES)
    log.close(finished=True)
    assert list(tmp_path.iterdir()) == []
