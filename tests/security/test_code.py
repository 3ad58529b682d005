"""No code in a file that came from elsewhere is run: checkpoints, tokenizers, models of the hub, recipes.

Every test carries out the attack, and shows that it would have worked on a reader that trusts the file.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import firstlight
from firstlight import pipeline
from firstlight.recipe import load_config
from firstlight.support.errors import CheckpointError, ConfigError, DataError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.load import load_trained, open_trained

from .conftest import Bomb, edit_json

Forge = Callable[[str, bytes], None]


def text_of(function: str, argument: str) -> bytes:
    """A pickle, protocol 0, that calls `module function` with one text."""
    return f"c{function}\n(S{argument!r}\ntR.".encode()


def attacks(trace: Path) -> dict[str, bytes]:
    """Pickles that make `trace`, by the ways that are known."""
    make = f"open({str(trace)!r}, 'w').close()"
    nested = b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c" + bytes([len(make)]) + make.encode() + b"\x85R."
    dotted = (
        b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93"
        b"\x8c\x07pathlib\x8c\x09PosixPath\x93\x8c" + bytes([len(str(trace))]) + str(trace).encode() + b"\x85R\x85R."
    )
    return {
        "a method": pickle.dumps(Bomb(trace)),
        "a shell": text_of("posix\nsystem", f"touch {trace}"),
        "exec": nested,
        "a dotted name": dotted,
    }


@pytest.mark.parametrize("attack", ["a method", "a shell", "exec", "a dotted name"])
def test_the_metadata_of_a_checkpoint(attack: str, forge: Forge, run: Path, trace: Path) -> None:
    content = attacks(trace)[attack]
    forge(".metadata", content)
    for reader in (load_trained, open_trained):
        with pytest.raises(CheckpointError, match=r"\.metadata: not readable .*which checkpoint metadata never needs"):
            reader(run)
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()


def test_the_tensors_of_a_checkpoint(forge: Forge, checkpoint: Path, run: Path, trace: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Bomb(trace), buffer)
    metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    for place in metadata.storage_data.values():
        place.offset, place.length = 0, len(buffer.getvalue())
    forge(".metadata", pickle.dumps(metadata))
    forge("__0_0.distcp", buffer.getvalue())
    with pytest.raises(CheckpointError, match="could not be read"):
        load_trained(run)
    assert not trace.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert trace.exists()


def test_bytes_in_a_checkpoint_are_not_unpickled(forge: Forge, checkpoint: Path, run: Path, trace: Path) -> None:
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    first = next(iter(metadata.state_dict_metadata))
    metadata.state_dict_metadata[first] = BytesStorageMetadata()
    content = pickle.dumps(Bomb(trace))
    forge("__0_0.distcp", content)
    forge(".metadata", pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match=re.escape(f"holds no '{first}'") if "model" in first else "read"):
        load_trained(run)
    assert not trace.exists()


@pytest.mark.parametrize("place", ["../outside", "{here}/outside", "..", ""])
def test_a_checkpoint_that_names_files_elsewhere(place: str, forge: Forge, checkpoint: Path, run: Path) -> None:
    """There lie good tensors, which a trusting reader would take."""
    outside = checkpoint.parent / "outside"
    shutil.copy(checkpoint / "__0_0.distcp", outside)
    metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    for saved in metadata.storage_data.values():
        saved.relative_path = place.format(here=outside.parent.resolve())
    forge(".metadata", pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="does not lie beside it" if "outside" in place else "could not be read"):
        load_trained(run)


@pytest.mark.parametrize("content", [[], {}, None, "text", {"state_dict_metadata": {}}])
def test_metadata_that_is_no_metadata(content: object, forge: Forge, run: Path) -> None:
    forge(".metadata", pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"\.metadata: not readable"):
        load_trained(run)


@pytest.fixture
def megatron(trained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small checkpoint of Megatron-LM's."""
    monkeypatch.chdir(trained_folder)
    pipeline.export("runs/tiny", tmp_path / "megatron", format="megatron-checkpoint")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "megatron"


def common_file(content: bytes) -> bytes:
    """What torch.save writes, with another pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3")
    return buffer.getvalue()


@pytest.mark.parametrize("attack", ["a method", "a shell", "exec", "a dotted name"])
def test_the_pickles_of_a_megatron_checkpoint(attack: str, megatron: Path, tmp_path: Path, trace: Path) -> None:
    content = attacks(trace)[attack]
    for name, file, unneeded in (
        ("common.pt", common_file(content), "which a checkpoint of Megatron's never needs"),
        (".metadata", content, "which checkpoint metadata never needs"),
    ):
        before = (megatron / "release" / name).read_bytes()
        (megatron / "release" / name).write_bytes(file)
        with pytest.raises((DataError, CheckpointError), match=f"{name}: not readable .*{unneeded}"):
            pipeline.import_model(megatron, tmp_path / "run")
        (megatron / "release" / name).write_bytes(before)
    assert not trace.exists() and not (tmp_path / "run").exists()
    torch.load(io.BytesIO(common_file(content)), weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("call", ["builtins\ngetattr", "megatron.core.evil\nrun", "torch.hub\nload", "numpy\nload"])
def test_what_a_megatron_checkpoint_may_name_does_nothing(
    call: str, megatron: Path, tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of Megatron's world are passed over without being imported, and what is done to them comes to nothing."""
    evil = tmp_path / "site" / "megatron" / "core"
    evil.mkdir(parents=True)
    (evil / "evil.py").write_text(CODE.format(trace=str(trace)) + "run = print\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    forged = text_of(call, str(trace))[:-1] + b"}S'state'\nI1\nsb0"  # called, given a state, thrown away
    plain = pickle.dumps({"args": argparse.Namespace(num_experts=8)}, protocol=2)[2:]
    (megatron / "release" / "common.pt").write_bytes(common_file(forged + plain))
    with pytest.raises(ConfigError, match=r"args.num_experts is 8"):
        pipeline.import_model(megatron, tmp_path / "run")
    assert not trace.exists()
    assert not any("evil" in name for name in sys.modules)


def test_a_megatron_checkpoint_whose_tensors_are_bombs(megatron: Path, tmp_path: Path, trace: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Bomb(trace), buffer)
    file, size = megatron / "release" / "__0_0.distcp", len(buffer.getvalue())
    metadata = pickle.loads((megatron / "release" / ".metadata").read_bytes())
    for place in metadata.storage_data.values():
        place.offset, place.length = 0, size
    (megatron / "release" / ".metadata").write_bytes(pickle.dumps(metadata))
    file.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="could not be read"):
        pipeline.import_model(megatron, tmp_path / "run")
    assert not trace.exists()


@pytest.mark.parametrize("place", ["../outside", "/etc/hostname"])
def test_a_megatron_checkpoint_that_names_files_elsewhere(place: str, megatron: Path, tmp_path: Path) -> None:
    shutil.copy(megatron / "release" / "__0_0.distcp", megatron / "outside")
    metadata = pickle.loads((megatron / "release" / ".metadata").read_bytes())
    for saved in metadata.storage_data.values():
        saved.relative_path = place
    (megatron / "release" / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="does not lie beside it"):
        pipeline.import_model(megatron, tmp_path / "run")


CODE = "import pathlib\npathlib.Path({trace!r}).touch()\n"


def test_a_tokenizer_that_brings_code(tokenizer_folder: Path, tmp_path: Path, trace: Path) -> None:
    folder = tmp_path / "tokenizer"
    Tokenizer.load(tokenizer_folder).save(folder)
    for name in ("tokenizer.py", "tokenization_evil.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text(CODE.format(trace=str(trace)))
    (folder / "vocab.pkl").write_bytes(pickle.dumps(Bomb(trace)))
    auto_map = {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]}
    edit_json(folder / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Evil", vocab_file="vocab.pkl")
    assert Tokenizer.load(folder).encode("text") == Tokenizer.load(tokenizer_folder).encode("text")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"bomb", b'{"model": {"type": "Pickle"}}'])
def test_a_tokenizer_that_is_none(content: bytes, tmp_path: Path, trace: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content if content != b"bomb" else pickle.dumps(Bomb(trace)))
    with pytest.raises(DataError, match=r"not a readable tokenizer"):
        Tokenizer.load(tmp_path)
    assert not trace.exists()


def test_a_model_that_brings_code(model: Path, tmp_path: Path, trace: Path) -> None:
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "modeling.py"):
        (model / name).write_text(CODE.format(trace=str(trace)))
    names = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    edit_json(model / "config.json", auto_map=names)
    edit_json(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]})
    run = pipeline.import_model(model, tmp_path / "run")
    back = pipeline.export(run.path, tmp_path / "back")
    assert not trace.exists()
    assert not [file for folder in (run.path, back) for file in folder.rglob("*.py")]
    assert "auto_map" not in (back / "config.json").read_text()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_weights_that_are_a_pickle(name: str, model: Path, tmp_path: Path, trace: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Bomb(trace)}, model / name)
    with pytest.raises(DataError, match=r"format that can run code|not a readable safetensors file"):
        pipeline.import_model(model, tmp_path / "run")
    assert not trace.exists() and not (tmp_path / "run").exists()
    torch.load(io.BytesIO((model / name).read_bytes()), weights_only=False)
    assert trace.exists()


def test_a_dataset_of_the_hub_that_is_a_script(tmp_path: Path, trace: Path) -> None:
    from firstlight.documents import read_documents

    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(CODE.format(trace=str(trace)))
    with pytest.raises(DataError):
        list(read_documents(f"hf:{folder}"))
    assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.PosixPath [{trace}]]",
        "!!python/object/apply:os.system ['touch {trace}']",
        "!!python/object/new:subprocess.Popen [['touch', {trace}]]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
    ],
)
def test_a_recipe_that_makes_objects(value: str, tmp_path: Path, trace: Path) -> None:
    value = value.format(trace=trace)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: x\ndescription: {value}\n")
    with pytest.raises(ConfigError, match=r"could not determine a constructor for the tag"):
        load_config(recipe)
    recipe.write_text("name: x\ndata: {sequence_length: 8}\n")
    assert load_config(recipe, [f"description={value}"]).description == value, "an override is then plain text"
    assert not trace.exists()
    if "apply:os.system" in value:
        yaml.unsafe_load(value)
        assert trace.exists()


def test_a_working_directory_that_brings_modules(tmp_path: Path, trace: Path) -> None:
    for name in ("yaml.py", "torch.py", "sitecustomize.py", "firstlight.py", "rich.py"):
        (tmp_path / name).write_text(CODE.format(trace=str(trace)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = Path(sys.executable).with_name("firstlight")
    result = subprocess.run([command, "recipes"], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert not trace.exists()


def test_nobody_asks_for_foreign_code() -> None:
    """`trust_remote_code`, pickles that are not restricted and YAML that is not safe appear nowhere in the package."""
    forbidden = re.compile(
        r"trust_remote_code|weights_only\s*=\s*False|allow_pickle\s*=\s*True|pickle\.loads?\b|pickle\.Unpickler\("
        r"|yaml\.(unsafe_|full_)?load\(|(?<![.\w])(eval|exec)\(|shell\s*=\s*True|os\.system|marshal\.|joblib|dill"
    )
    root = Path(firstlight.__file__).parent
    found = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in sorted(root.rglob("*.py"))
        for line in file.read_text().splitlines()
        if forbidden.search(line)
    ]
    assert not found
