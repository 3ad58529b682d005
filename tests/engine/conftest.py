"""A worker program whose jobs meet the fate that they name."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

WORKER = """
    import os, signal, sys, time
    from pathlib import Path
    import psutil
    from firstlight.engine.workers import serve
    from firstlight.support.errors import DataError

    def start(setup):
        def work(job, send):
            begun = Path(setup["folder"]) / f"{job['name']}-{os.getpid()}"
            begun.touch()
            send(kind="progress", items=job["items"], bytes=10)
            times = len(list(begun.parent.glob(f"{job['name']}-*")))
            match job.get("fate"):
                case "killed" if times <= job["times"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                case "machine" if times == 1:
                    os.kill(os.getppid(), signal.SIGKILL)
                    time.sleep(600)
                case "query" if times == 1:
                    for process in psutil.Process(os.getppid()).parent().children():
                        if "RemoteFlotillaRunner" in process.cmdline()[0]:
                            process.kill()
                    time.sleep(600)
                case "leaves":
                    sys.exit(7)
                case "refuses":
                    raise DataError("this cannot be read.")
                case "sleeps":
                    time.sleep(600)
            send(kind="progress", items=1, bytes=1)
        return work

    serve(start)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that is a worker program."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "a_worker.py").write_text(textwrap.dedent(WORKER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    return "a_worker"
