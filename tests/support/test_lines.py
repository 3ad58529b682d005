"""No line is lost or cut while the disk is full for a while."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firstlight.support.lines import LineFile


@pytest.fixture
def allow() -> Iterator[Callable[[int], None]]:
    """`allow(size)`: from now on no file of this process grows beyond so many bytes; -1: any."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_wait_until_there_is_room_and_keep_their_order(tmp_path: Path, allow, capsys) -> None:
    lines = LineFile(tmp_path / "lines")
    lines.write("first")
    allow(10)
    for line in ("second", "third", "fourth"):
        lines.write(line)
        assert (tmp_path / "lines").read_text() == "first\n"
    allow(-1)
    lines.write("fifth")
    assert (tmp_path / "lines").read_text().split() == ["first", "second", "third", "fourth", "fifth"]
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert f"{tmp_path / 'lines'}: File too large" in said


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path) -> None:
    for line in ("one", "zwei", "三"):
        LineFile(tmp_path / "lines").write(line)
    assert (tmp_path / "lines").read_text(encoding="utf-8") == "one\nzwei\n三\n"
