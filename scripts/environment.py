"""Make `.venv` ready for a make target: create it when it is missing, install when something changed, else do nothing.

A marker inside `.venv`, one for each set of extras, holds a digest of what was installed (pyproject.toml,
constraints.txt, the place, the Python). While it agrees nothing is touched, so that a second `make` starts at once; a
`.venv` that was moved or whose Python is gone is built again. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

VENV = ".venv"
OLDEST, NEWEST = (3, 11), (3, 13)
SHOW_EVERY_SECONDS = 10.0
STEP = re.compile(r"\s*(Obtaining|Collecting|Downloading|Building|Installing) .*")


class SetupError(Exception):
    """What stands in the way, as one sentence for the person at the keyboard."""


def main(root: Path, extras: str, python_is_chosen: bool, torch_index: str) -> None:
    """Leave `root/.venv` with the package in editable mode and `extras` ("starter", "starter,test", …) installed."""
    venv = root / VENV
    if venv.exists() or venv.is_symlink():
        if problem := what_is_wrong(venv):
            say(f"building {VENV} again: {problem}")
            remove(venv)
        elif python_is_chosen and version_of(venv) != sys.version_info[:2]:
            have, want = (f"Python {major}.{minor}" for major, minor in (version_of(venv), sys.version_info[:2]))
            raise SetupError(f"{VENV} holds {have}, and PYTHON asks for {want}; run `make clean-venv` first.")
    marker = venv / f".installed-{extras.replace(',', '-')}"
    if marker.is_file() and marker.read_text() == digest(root, extras) and runs(venv, "import firstlight"):
        return
    started = time.monotonic()
    if not venv.exists():
        say(f"creating {VENV} with Python {platform.python_version()}")
        create(venv)
    say(f"installing firstlight[{extras}] and what it needs into {VENV} (minutes the first time)")
    if not torch_index and brings_cuda(venv):
        say("no NVIDIA GPU here: PyTorch's CPU build saves gigabytes; take its index from pytorch.org/get-started")
        say("and stop this with Ctrl-C to run `make ... TORCH_INDEX=ADDRESS`, or let it go on")
    install(venv, pip_command(venv, extras, torch_index), root)
    marker.write_text(digest(root, extras))
    say(f"{VENV} is ready ({time.monotonic() - started:.0f} s)")


def what_is_wrong(venv: Path) -> str | None:
    """Why an existing environment cannot be used, or None when it is good.

    Raises SetupError for something of that name that is not a virtual environment: it is not ours to remove.
    """
    if not (venv / "pyvenv.cfg").is_file():
        if venv.is_symlink() and not venv.exists():
            return "it is a link to nothing"
        raise SetupError(f"{venv} is there but is no virtual environment; move it away and run the command again.")
    if not runs(venv, ""):
        return "its Python does not run"
    if not OLDEST <= version_of(venv) <= NEWEST:
        return "its Python is {}.{}, and 3.11 to 3.13 are supported".format(*version_of(venv))
    activate = venv / "bin" / "activate"
    if not activate.is_file():
        return "its creation did not end"
    recorded = re.search(r"^ *(?:export )?VIRTUAL_ENV=(['\"]?)(/.+)\1$", activate.read_text(), re.MULTILINE)
    if recorded and not same_place(Path(recorded[2]), venv):
        return f"it was moved here from {recorded[2]}"
    return None


def same_place(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def runs(venv: Path, code: str) -> bool:
    """Whether the environment's Python runs `code`; it is imported from nowhere but the environment (-I)."""
    try:
        return subprocess.run([venv / "bin" / "python", "-I", "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def version_of(venv: Path) -> tuple[int, int]:
    """(major, minor) of the environment's Python."""
    code = "import sys; print(*sys.version_info[:2])"
    shown = subprocess.run([venv / "bin" / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    major, minor = shown.stdout.split()
    return int(major), int(minor)


def remove(venv: Path) -> None:
    """Remove the environment; of a link only the link."""
    if venv.is_symlink():
        venv.unlink()
    else:
        shutil.rmtree(venv)


def digest(root: Path, extras: str) -> str:
    """Hex SHA-256 of everything that an installation depends on."""
    state = hashlib.sha256()
    for file in ("pyproject.toml", "constraints.txt"):
        state.update((root / file).read_bytes() + b"\0")
    state.update("\0".join([extras, str((root / VENV).resolve()), "{}.{}".format(*version_of(root / VENV))]).encode())
    return state.hexdigest()


def create(venv: Path) -> None:
    """A new environment from the interpreter that runs this file, or from its base when it is itself in one."""
    python = getattr(sys, "_base_executable", sys.executable)
    made = subprocess.run([python, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        hint = "install its venv module (on Debian and Ubuntu: python3-venv)"
        last = (made.stdout + made.stderr).strip().splitlines()[-1:]
        hint = hint if "ensurepip" in made.stdout + made.stderr else "".join(last)
        raise SetupError(f"{python} could not create {venv}: {hint}")


def brings_cuda(venv: Path) -> bool:
    """Whether installing torch here would download CUDA libraries that nothing can use."""
    linux_pc = sys.platform == "linux" and platform.machine() == "x86_64"
    gpu = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
    return linux_pc and not gpu and not runs(venv, "import importlib.util as u; assert u.find_spec('torch')")


def pip_command(venv: Path, extras: str, torch_index: str) -> list[str]:
    """The pip call that installs the package in editable mode at the tested versions."""
    python = str(venv / "bin" / "python")
    if not runs(venv, "import pip") and not runs(venv, "import ensurepip; ensurepip.bootstrap()"):
        raise SetupError(f"{venv} has no pip and none can be added; run `make clean-venv` and try again.")
    command = [python, "-m", "pip", "install", "--constraint", "constraints.txt", "--editable", f".[{extras}]"]
    return command + (["--extra-index-url", torch_index] if torch_index else [])


def install(venv: Path, command: list[str], root: Path) -> None:
    """Run `command` with its output in a log; show what it is at, and on failure what it said last."""
    log = venv / "install.log"
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=root, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            watch(process, log)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR")]
        say("\n".join(errors or lines[-15:]))
        raise SetupError(f"the installation failed; all of its output is in {log}.")


def watch(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the process ends, show the seconds and its last step: redrawn on a terminal, now and then elsewhere."""
    terminal = sys.stderr.isatty()
    started = shown = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        line = f"  {time.monotonic() - started:.0f} s  {last_step(log)}"
        if terminal:
            print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - shown >= SHOW_EVERY_SECONDS:
            shown = time.monotonic()
            say(line)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def last_step(log: Path) -> str:
    """The newest line of pip's that names a package, shortened: "Downloading torch-2.13.0-… (190.4 MB)".

    The last step of all names every package at once and takes longest, so that the finished ones are counted.
    """
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - 20_000))
        lines = handle.read().decode(errors="replace").splitlines()
    step = next((line.strip() for line in reversed(lines) if STEP.fullmatch(line)), "")
    _, installing, names = step.partition("Installing collected packages: ")
    if installing:
        wanted = {normalized(name) for name in names.split(", ")}
        folders = log.parent.glob("lib/python*/site-packages/*.dist-info")
        done = {normalized(folder.name.split("-")[0]) for folder in folders}
        return f"Installing packages: {len(wanted & done)} of {len(wanted)}"
    return step if len(step) <= 90 else step[:87] + "..."


def normalized(name: str) -> str:
    """A package's name as it is compared: "Jinja2" and "jinja2", "mypy_extensions" and "mypy-extensions" are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(
            Path(__file__).resolve().parent.parent,
            sys.argv[1],
            bool(os.environ.get("PYTHON")),
            os.environ.get("TORCH_INDEX", ""),
        )
    except (SetupError, OSError) as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        sys.exit(130)
