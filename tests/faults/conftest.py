"""A terminal to run commands in, and text that takes a while."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


@pytest.fixture(scope="session")
def long_text(tiny_corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of about 20 MB, no text twice: every stage works on it long enough to be interrupted."""
    file = tmp_path_factory.mktemp("long") / "long.jsonl"
    texts = [json.loads(line)["text"] for line in tiny_corpus["manual"].open()]
    with file.open("w") as handle:
        for number in range(100):
            handle.writelines(json.dumps({"text": f"{number} {text}"}) + "\n" for text in texts)
    return file


@pytest.fixture
def folder(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained folder as working directory."""
    shutil.copytree(trained_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Terminal:
    """The command line in a terminal of so many columns, with a keyboard."""

    def __init__(self, arguments: tuple[str | Path, ...], columns: int) -> None:
        self._screen, keyboard = pty.openpty()
        fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "firstlight", *map(str, arguments)],
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(keyboard)
        self._shown = b""

    @property
    def text(self) -> str:
        """What was shown so far, without escape sequences."""
        return ESCAPES.sub(b"", self._shown).decode("utf-8", "replace")

    def lines(self) -> list[str]:
        """Lines as they were drawn, redrawn ones too."""
        return re.split(r"[\r\n]+", self.text)

    def wait_for(self, awaited: str | Callable[[], object], seconds: float = 60) -> None:
        """Until a text is shown, or something is true."""
        deadline = time.monotonic() + seconds
        while not (awaited in self.text if isinstance(awaited, str) else awaited()):
            assert time.monotonic() < deadline, self.text
            assert self._read(0.01), f"the command ended before\n{self.text}"

    def press_ctrl_c(self) -> None:
        """The key, as the terminal passes it on to every process in the foreground."""
        os.write(self._screen, b"\x03")

    def end(self, seconds: float = 60) -> int:
        """Wait for the command to end; its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(0.1):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(timeout=seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._screen)

    def _read(self, seconds: float) -> bool:
        """Take up what is shown; false when the command has closed its end."""
        if not select.select([self._screen], [], [], seconds)[0]:
            return True
        try:
            shown = os.read(self._screen, 1 << 16)
        except OSError:  # Linux says so when the last process has left
            return False
        self._shown += shown
        return bool(shown)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """`terminal("train", …, columns=60)` starts a command in the working directory."""
    started: list[Terminal] = []

    def start(*arguments: str | Path, columns: int = 60) -> Terminal:
        started.append(Terminal(arguments, columns))
        return started[-1]

    yield start
    for one in started:
        one.close()
