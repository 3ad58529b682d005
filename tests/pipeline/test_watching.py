"""Watching a run: what was appended is read once, the picture is true, and only this machine is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.pipeline.page_server import ADDRESS, LivePage, make_server
from firstlight.pipeline.watching import Growing, Watched, sparkline
from firstlight.support.console import out
from firstlight.support.errors import CheckpointError
from firstlight.support.files import folder_lock


@pytest.fixture
def run(trained_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_folder / "runs" / "tiny", tmp_path / "tiny")


def test_lines_are_read_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    growing = Growing(file)
    assert not growing.look()
    file.write_text('{"step": 1}\n{"step":')
    assert growing.look() and growing.lines == [{"step": 1}]
    with file.open("a") as handle:
        handle.write(" 2}\nnot json\n[3]\n")
    assert growing.look() and growing.lines == [{"step": 1}, {"step": 2}]
    assert not growing.look()
    new = tmp_path / "new"
    new.write_text('{"step": 9}\n')
    new.replace(file)  # as a resumed run trims it
    assert growing.look() and growing.lines == [{"step": 9}]


def test_a_finished_run_is_shown_once(run: Path, firstlight) -> None:
    result = firstlight("watch", run)
    assert result.code == 0
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line][-1]
    for part in ("finished", "4 of 4", f"{last['loss']:.3f}", "bits per byte at step 4", "manual", "ago: finished"):
        assert part in result.stdout, part
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_running_run_says_so_and_hostile_text_does_nothing(run: Path) -> None:
    with (run / "events.jsonl").open("a") as handle:
        handle.write(json.dumps({"event": "stopped\x1b[2J[bold]", "step": 4}) + "\n")
    watched = Watched(run)
    watched.look()
    with folder_lock(run, "the run"), out.capture() as shown:
        out.print(watched.picture(80))
    assert "running" in shown.get() and "\x1b[2J" not in shown.get() and "[bold]" in shown.get()


def test_what_is_no_run_is_refused(tmp_path: Path, firstlight) -> None:
    with pytest.raises(CheckpointError):
        Watched(tmp_path)
    assert "no such run folder" in firstlight("watch", tmp_path / "none").sentence()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 60))
def test_a_sparkline_keeps_the_highest(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    if len({max(values), *values}) > 1 and len(line) > 1:
        place = values.index(max(values)) * len(line) // len(values)
        nearby = line[max(0, place - 1) : place + 2]
        assert max(nearby) == max(line)


@pytest.fixture
def server(run: Path) -> Iterator[int]:
    made = make_server(LivePage(run, "en", 2.0), 0)
    thread = Thread(target=made.serve_forever, daemon=True)
    thread.start()
    assert made.server_address[0] == ADDRESS == "127.0.0.1"
    yield made.server_address[1]
    made.shutdown()
    made.server_close()
    thread.join(5)


def ask(port: int, path: str, host: str | None = None) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(ADDRESS, port, timeout=20)
    connection.request("GET", path, headers={"Host": host or f"{ADDRESS}:{port}"})
    answer = connection.getresponse()
    return answer, answer.read().decode("utf-8")


def test_the_page_is_served_and_follows_the_run(server: int, run: Path) -> None:
    answer, text = ask(server, "/")
    assert answer.status == 200 and "connect-src 'self'" in text and 'data-refresh="2"' in text
    stamp = ask(server, "/stamp")[1]
    assert f'data-stamp="{stamp}"' in text and ask(server, "/stamp")[1] == stamp
    with (run / "metrics.jsonl").open("a") as handle:
        handle.write(json.dumps({"step": 5, "loss": 1.25}) + "\n")
    assert ask(server, "/stamp")[1] != stamp and "1.25" in ask(server, "/")[1]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:{port}", "localhost.evil:{port}"]
)
def test_other_hosts_and_paths_get_nothing(server: int, host: str) -> None:
    answer, text = ask(server, "/", host.format(port=server))
    assert answer.status == 403 and "<html" not in text
    assert ask(server, "/", f"localhost:{server}")[0].status == 200
    assert ask(server, "/../config.yaml")[0].status == 404
