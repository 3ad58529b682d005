"""A small file that claims to be large is refused before memory or hours are spent on it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
"""


def says(script: str, *arguments: str | Path) -> str:
    """The sentence of the documented error in a process with little memory, that ends soon."""
    program = f"{LIMIT}from firstlight.support.errors import FirstlightError\ntry:\n    {script}\n"
    program += "except FirstlightError as problem:\n    print(f'{type(problem).__name__}: {problem}')\n"
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
)
LOAD = "from firstlight.recipe import load_config; load_config(sys.argv[1])"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "more than 100000 values"),
        (f"name: x\n{LAUGHS}\ncorpus:\n  steps: *a29\n", "more than 100000 values"),
        ("name: &a [*a]\n", "an alias stands inside itself"),
        ("name: " + "[" * 100_000, "nested too deeply"),
        ("seed: " + "9" * 100_000, "a value that cannot be read"),
        ("seed: 2001-99-99", "a value that cannot be read"),
        ("seed: !!int many", "a value that cannot be read"),
        ("? !!set {a, b}\n: 3\n", "a"),
    ],
)
def test_a_recipe(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    said = says(LOAD, tmp_path / "recipe.yaml")
    assert said.startswith("ConfigError: ") and sentence in said and len(said) < 2000


def test_an_override_of_aliases(tmp_path: Path) -> None:
    script = "from firstlight.recipe import load_config; load_config('quickstart', ['model=' + sys.argv[1]])"
    said = says(script, "[" * 50_000)
    assert said.startswith("ConfigError: ") and len(said) < 2000


def test_an_index_of_a_quintillion_documents(tmp_path: Path) -> None:
    for counts in ((2**60, 2**60 + 1), (0, 2**60), (2**64 - 1, 2**64 - 1), (1, 2**61 + 1)):
        (tmp_path / "a.bin").write_bytes(b"")
        (tmp_path / "a.idx").write_bytes(struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, *counts) + bytes(100))
        said = says("from firstlight.tokens.indexed import IndexedReader; IndexedReader(sys.argv[1])", tmp_path / "a")
        assert said.startswith("DataError: ") and "truncated or damaged" in said


def test_a_model_of_a_billion_blocks(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    script = "from firstlight import pipeline; pipeline.import_model(sys.argv[1], sys.argv[2])"
    for blocks, words in ((10**9, "the number of blocks"), (10_000, "describes 10000 blocks, and the files hold")):
        (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))
        assert words in says(script, model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tensor_of_an_exabyte(model: Path, tmp_path: Path) -> None:
    header = {"model.embed_tokens.weight": {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 2**62]}}
    for content in (
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", len(json.dumps(header))) + json.dumps(header).encode(),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ):
        (model / "model.safetensors").write_bytes(content)
        said = says("from firstlight import pipeline; pipeline.import_model(sys.argv[1], sys.argv[2])", model, "run")
        assert said.startswith("DataError: ") and "not a readable safetensors file" in said


def test_a_tokenizer_of_four_billion_ids(tokenizer_folder: Path, tmp_path: Path) -> None:
    content = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["!"] = 2**32 - 2
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    said = says("from firstlight.tokens import Tokenizer; Tokenizer.load(sys.argv[1])", tmp_path)
    assert said.startswith("DataError: ") and "ids go up to 4294967294" in said
