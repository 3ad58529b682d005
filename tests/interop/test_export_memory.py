"""Exporting a checkpoint takes the memory of its largest tensor, whatever the size of the model."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from firstlight.config import CheckpointConfig
from firstlight.interop.huggingface import export_huggingface
from firstlight.model import CausalLanguageModel
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer
from firstlight.training.checkpoint import CheckpointWriter

LARGE = {"hidden_size": 1024, "num_layers": 3, "num_heads": 8, "intermediate_size": 9728}
"""About 400 MB in fp32, of which no tensor is above 40 MB."""
PROGRAM = """
import resource, sys
from pathlib import Path
from firstlight.config import ModelConfig
from firstlight.interop.huggingface import export_huggingface
from firstlight.interop.weights import weights_of_checkpoint
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.checkpoint import CheckpointTensors

folder = Path(sys.argv[1])
for name in ("small", "large"):
    config = ModelConfig.model_validate_json((folder / f"{name}.json").read_text())
    weights = weights_of_checkpoint(CheckpointTensors(folder / name / "step_000001"), config)
    export_huggingface(weights, Tokenizer.load(folder / "tokenizer"), folder / f"{name}-export", dtype=sys.argv[2])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["hello world"] * 3, 280)


@pytest.mark.parametrize(
    ("architecture", "dtype"), [("llama", "float32"), pytest.param("gpt2", "bfloat16", marks=pytest.mark.slow)]
)
def test_memory_is_bounded_by_the_largest_tensor(
    tokenizer: Tokenizer, tmp_path: Path, architecture: str, dtype: str
) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    small = {"hidden_size": 64, "num_layers": 1, "num_heads": 4}
    for name, fields in (("small", small), ("large", LARGE)):
        model: Any = CausalLanguageModel(vocab_size=280, architecture=architecture, **fields)
        (tmp_path / f"{name}.json").write_text(model.config.model_dump_json())
        tensors = {f"model.{key}": value for key, value in model.named_parameters()}
        with CheckpointWriter(tmp_path / name, CheckpointConfig(asynchronous=False)) as writer:
            writer.save(1, tensors, {})
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), dtype], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    before, after = map(int, ended.stdout.split())
    sizes = [4 * math.prod(value.shape) for value in model.parameters()]
    assert sum(sizes) > 280_000_000 and max(sizes) <= 40_000_000
    assert after - before < 3 * max(sizes) < sum(sizes) / 2

    expected = tmp_path / "expected"
    export_huggingface(model, tokenizer, expected, dtype=dtype)
    for file in expected.glob("*.safetensors"):
        assert (tmp_path / "large-export" / file.name).read_bytes() == file.read_bytes()
