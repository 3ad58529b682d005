"""A fresh clone works: the set-up leaves a good environment alone and mends a bad one, and what it promises is so."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HERE = sys.version_info[:2]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = load_script("environment")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the two files that an installation depends on and a virtual environment without packages."""
    root = tmp_path / "a clone"
    root.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    venv.create(root / ".venv", symlinks=True)
    return root


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the call of pip; the list fills with the commands that would have run."""
    commands: list[list[str]] = []
    monkeypatch.setattr(environment, "install", lambda venv, command, root: commands.append(command))
    monkeypatch.setattr(environment, "runs", lambda venv, code: (venv / "bin" / "python").exists())
    return commands


class TestEnvironment:
    def test_installs_once(self, clone: Path, installs: list[list[str]]) -> None:
        for _ in range(3):
            environment.main(clone, "starter", False, "")
        assert len(installs) == 1
        assert installs[0][-2:] == ["--editable", ".[starter]"]
        assert installs[0][installs[0].index("--constraint") + 1] == "constraints.txt"

    def test_each_target_keeps_its_own_mark(self, clone: Path, installs: list[list[str]]) -> None:
        for extras in ("starter", "starter,test", "starter", "starter,test", "docs"):
            environment.main(clone, extras, False, "")
        assert [command[-1] for command in installs] == [".[starter]", ".[starter,test]", ".[docs]"]

    @pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
    def test_installs_again_when_requirements_change(self, clone: Path, installs: list[list[str]], name: str) -> None:
        environment.main(clone, "starter", False, "")
        with (clone / name).open("a") as handle:
            handle.write("# changed\n")
        environment.main(clone, "starter", False, "")
        assert len(installs) == 2

    def test_further_index_reaches_pip(self, clone: Path, installs: list[list[str]]) -> None:
        environment.main(clone, "starter", False, "file:///wheels")
        assert installs[0][-2:] == ["--extra-index-url", "file:///wheels"]

    def test_failed_installation_is_tried_again(self, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        command = [sys.executable, "-c", "print('ERROR: no wheel for this'); raise SystemExit(1)"]
        monkeypatch.setattr(environment, "pip_command", lambda *arguments: command)
        for _ in range(2):
            with pytest.raises(environment.SetupError, match=r"failed; all of its output is in .*install\.log"):
                environment.main(clone, "starter", False, "")

    def test_failure_shows_what_pip_said(self, clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
        command = [sys.executable, "-c", "print('Collecting x'); print('ERROR: no wheel'); raise SystemExit(1)"]
        with pytest.raises(environment.SetupError):
            environment.install(clone / ".venv", command, clone)
        assert "ERROR: no wheel" in capfd.readouterr().err

    def test_good_environment_is_left_alone(self, clone: Path) -> None:
        assert environment.what_is_wrong(clone / ".venv") is None

    def test_moved_environment_is_noticed(self, clone: Path) -> None:
        moved = clone.rename(clone.with_name("moved clone"))
        assert environment.what_is_wrong(moved / ".venv") == f"it was moved here from {clone}/.venv"

    def test_environment_seen_through_a_link_is_not_moved(self, clone: Path) -> None:
        link = clone.with_name("link")
        link.symlink_to(clone)
        assert environment.what_is_wrong(link / ".venv") is None

    def test_environment_whose_creation_was_cut_short_is_noticed(self, clone: Path) -> None:
        (clone / ".venv" / "bin" / "activate").unlink()
        assert environment.what_is_wrong(clone / ".venv") == "its creation did not end"

    def test_environment_whose_python_is_gone_is_noticed(self, clone: Path) -> None:
        (clone / ".venv" / "bin" / "python").unlink()
        assert environment.what_is_wrong(clone / ".venv") == "its Python does not run"

    def test_bad_environment_is_built_again(self, clone: Path, installs: list[list[str]]) -> None:
        python = clone / ".venv" / "bin" / "python"
        python.unlink()
        left_over = clone / ".venv" / "left-over"
        left_over.touch()
        environment.main(clone, "starter", False, "")
        assert python.exists() and not left_over.exists() and len(installs) == 1

    def test_folder_of_someone_else_is_not_removed(self, clone: Path, installs: list[list[str]]) -> None:
        (clone / ".venv" / "pyvenv.cfg").unlink()
        with pytest.raises(environment.SetupError, match="no virtual environment"):
            environment.main(clone, "starter", False, "")
        assert (clone / ".venv" / "bin").is_dir()

    def test_chosen_python_that_the_environment_lacks_is_an_error(
        self, clone: Path, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = (3, 11 if HERE != (3, 11) else 12)
        monkeypatch.setattr(environment, "version_of", lambda venv: other)
        with pytest.raises(environment.SetupError, match="run `make clean-venv` first"):
            environment.main(clone, "starter", True, "")
        assert not installs

    def test_last_step_names_the_package(self, tmp_path: Path) -> None:
        log = tmp_path / "install.log"
        log.write_text("Collecting numpy==2.0\n  Downloading numpy-2.0.whl (16 MB)\nRequirement already satisfied: x\n")
        assert environment.last_step(log) == "Downloading numpy-2.0.whl (16 MB)"

    def test_last_step_counts_what_is_installed(self, tmp_path: Path) -> None:
        log = tmp_path / "install.log"
        log.write_text("Installing collected packages: numpy, Jinja2, mypy_extensions, torch\n")
        for done in ("jinja2-3.1.dist-info", "mypy_extensions-1.1.dist-info", "pip-25.dist-info"):
            (tmp_path / "lib" / "python3.12" / "site-packages" / done).mkdir(parents=True)
        assert environment.last_step(log) == "Installing packages: 2 of 4"


class TestChoiceOfPython:
    """`environment.sh` with a path that holds only the Pythons that a test puts there."""

    @pytest.fixture
    def choose(self, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
        programs = tmp_path / "bin"
        programs.mkdir()
        for tool in ("sh", "dirname"):
            (programs / tool).symlink_to(str(shutil.which(tool)))
        (tmp_path / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")

        def choose(pythons: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
            for name, version in pythons.items():
                fits = 0 if version in ("3.11", "3.12", "3.13") else 1
                show = f'*platform*) echo "Python {version}" ;; *) exit {fits} ;;'
                answers = f'-c) case "$2" in {show} esac ;; *) echo "{name} $@" ;;'
                (programs / name).write_text(f'#!{programs}/sh\ncase "$1" in {answers} esac\n')
                (programs / name).chmod(0o755)
            return subprocess.run(
                ["sh", "scripts/environment.sh", "starter"],
                cwd=tmp_path,
                env={"PATH": str(programs), **variables},
                capture_output=True,
                text=True,
            )

        return choose

    @pytest.mark.parametrize(
        ("pythons", "chosen"),
        [
            ({"python3": "3.11", "python3.13": "3.13"}, "python3"),
            ({"python3": "3.14", "python3.12": "3.12", "python3.11": "3.11"}, "python3.12"),
            ({"python3": "3.9", "python3.13": "3.13", "python3.12": "3.12"}, "python3.13"),
            ({"python3.11": "3.11"}, "python3.11"),
        ],
    )
    def test_first_that_fits(self, choose: Callable[..., Any], pythons: dict[str, str], chosen: str) -> None:
        ended = choose(pythons)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.split() == [chosen, "scripts/environment.py", "starter"]

    def test_named_one_wins(self, choose: Callable[..., Any]) -> None:
        assert choose({"python3": "3.11", "mine": "3.12"}, PYTHON="mine").stdout.split()[0] == "mine"

    def test_named_one_that_does_not_fit_is_an_error(self, choose: Callable[..., Any]) -> None:
        ended = choose({"python3": "3.11", "mine": "3.9"}, PYTHON="mine")
        assert ended.returncode == 1 and ended.stdout == ""
        assert ended.stderr == "PYTHON=mine is Python 3.9; Firstlight needs Python 3.11, 3.12 or 3.13.\n"

    def test_named_one_that_is_no_python_is_an_error(self, choose: Callable[..., Any]) -> None:
        ended = choose({"python3": "3.11"}, PYTHON="dirname")
        assert ended.returncode == 1 and ended.stdout == ""
        assert ended.stderr == "PYTHON=dirname is no Python that runs; Firstlight needs Python 3.11, 3.12 or 3.13.\n"

    def test_none_is_one_clear_sentence(self, choose: Callable[..., Any]) -> None:
        ended = choose({"python3": "3.9"})
        assert ended.returncode == 1
        assert re.fullmatch(r"No Python 3\.11, 3\.12 or 3\.13 was found; [^\n]+\n", ended.stderr)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_has_a_tested_version_within_its_range() -> None:
    extras = PROJECT["optional-dependencies"]
    installed_by_make = [extra for extra in extras if extra not in ("wandb", "mlflow", "trackio")]
    requirements = PROJECT["dependencies"] + [line for extra in installed_by_make for line in extras[extra]]
    tested = pins()
    for requirement in map(Requirement, requirements):
        if requirement.name != "firstlight":
            version = tested[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"constraints.txt: {requirement.name} {version}"


def test_constraints_do_not_choose_an_accelerator() -> None:
    assert not [name for name in pins() if name.startswith(("nvidia-", "triton", "cuda-"))]
    assert not [version for version in pins().values() if "+" in version]


def make(*arguments: str) -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-C", ROOT, "--no-print-directory", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].split())
    assert targets >= {"quickstart", "test", "test-slow", "bench", "format", "docs"}
    assert {line.split()[1] for line in make().splitlines()} == targets


def test_commands_that_contributors_are_told_exist() -> None:
    pages = (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "docs" / "index.md").read_text()
    told = set(re.findall(r"\bmake ([a-z-]+)", pages))
    assert told
    for target in told:
        make("--dry-run", target)


CONTRACT_BREAKERS = {
    "room imports its neighbour": ("tokens/__init__.py", "import firstlight.model"),
    "model imports parallel": ("model/__init__.py", "def late():\n    import firstlight.parallel"),
    "configuration imports a room": ("config.py", "import firstlight.tokens"),
    "document engine outside the corpus room": ("training/__init__.py", "import daft.io"),
    "room without a place": ("elsewhere.py", ""),
}


@pytest.mark.parametrize("case", CONTRACT_BREAKERS)
def test_import_contract_notices(case: str, tmp_path: Path) -> None:
    file, line = CONTRACT_BREAKERS[case]
    shutil.copytree(ROOT / "src" / "firstlight", tmp_path / "src" / "firstlight")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src" / "firstlight" / file).open("a") as handle:
        handle.write(f"\n{line}\n")
    ended = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and "1 broken" in ended.stdout, ended.stdout + ended.stderr


def test_cli_answers_as_a_module(run_firstlight: Callable[..., Any]) -> None:
    ended = run_firstlight("--help")
    assert ended.code == 0 and ended.stderr == ""
    assert "firstlight" in ended.stdout and "quickstart" in ended.stdout


def test_tiny_corpus_is_text_in_two_sources(tiny_corpus: dict[str, Path]) -> None:
    assert set(tiny_corpus) == {"manual", "code"}
    for source, file in tiny_corpus.items():
        documents = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert all(document["metadata"]["source"] == source for document in documents)
        assert 100_000 <= sum(len(document["text"]) for document in documents) <= 400_000
        assert len({document["text"] for document in documents}) == len(documents) >= 10


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    def pages(entry: Any) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(pages, entry.values() if isinstance(entry, dict) else entry))

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert pages(navigation) == {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")}
