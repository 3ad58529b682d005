"""Models of `transformers` with random weights, saved as its users save them, and what Firstlight makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from firstlight.interop.import_huggingface import read_huggingface
from firstlight.model import LanguageModel, build_model
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer

TEXT = "hello world, the cat sat on the mat. 你好 🎉 1234 def f(x):\n    return x\n"
LENGTH = 48
"""Of the sequences that are compared; the windows below are shorter."""
SIZES = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 4}
TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
STRETCHED = {"rope_type": "linear", "rope_theta": 2e4, "factor": 3.0}


class Variant(NamedTuple):
    """A class of `transformers` and what its configuration is given."""

    name: str
    config: str
    fields: dict[str, Any]


def decoder(family: str, head: str = "ForCausalLM", **fields: Any) -> Variant:
    shape = {**SIZES, **TOKENS, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    return Variant(f"{family}{head}", f"{family}Config", {**shape, **fields})


def gpt2(**fields: Any) -> Variant:
    shape = {"vocab_size": 320, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64}
    return Variant("GPT2LMHeadModel", "GPT2Config", {**shape, "bos_token_id": 0, "eos_token_id": 0, **fields})


def encoder(family: str, **fields: Any) -> Variant:
    shape = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 1}
    return Variant(f"{family}ForMaskedLM", f"{family}Config", {**shape, **fields})


MODERNBERT_TOKENS = {**TOKENS, "cls_token_id": 0, "sep_token_id": 0}
VARIANTS = {
    "llama": decoder("Llama", num_key_value_heads=4),
    "llama-3": decoder("Llama", rope_parameters=LLAMA3),
    "llama-tied-linear": decoder("Llama", tie_word_embeddings=True, rope_parameters=STRETCHED, head_dim=12),
    "mistral": decoder("Mistral", sliding_window=7),
    "mistral-whole": decoder("Mistral", sliding_window=None),
    "qwen2": decoder("Qwen2"),
    "qwen2-window": decoder(
        "Qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=0, tie_word_embeddings=True
    ),
    "qwen3": decoder("Qwen3", head_dim=16),
    "olmo2": decoder("Olmo2"),
    "gpt2": gpt2(),
    "gpt2-untied-narrow": gpt2(n_layer=2, n_inner=40, tie_word_embeddings=False),
    "bert": encoder("Bert"),
    "modernbert": encoder("ModernBert", **MODERNBERT_TOKENS, num_hidden_layers=5, local_attention=8, norm_eps=1e-4),
    "modernbert-odd-window-every-2": encoder(
        "ModernBert",
        **MODERNBERT_TOKENS,
        local_attention=11,
        layer_types=["full_attention", "sliding_attention"] * 2,
    ),
    "eurobert": decoder("EuroBert", "ForMaskedLM", mask_token_id=2),
}
MASKED = {name for name, variant in VARIANTS.items() if variant.name.endswith("MaskedLM")}


def build(variant: Variant, class_name: str | None = None, seed: int = 3, **fields: Any) -> Any:
    """The model in evaluation mode; every parameter is drawn, norms and biases too, so that none can be mixed up."""
    import transformers

    config = getattr(transformers, variant.config)(**{**variant.fields, **fields})
    model = getattr(transformers, class_name or variant.name)(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if name.endswith("weight") and re.search(r"norm|ln_", name.lower()) else 0.0
            parameter.copy_(center + 0.1 * torch.randn(parameter.shape, generator=generator))
    model.tie_weights()
    return model.eval()


def load(folder: Path, **options: Any) -> Any:
    """The model of a folder, with `options` of from_pretrained; nothing is missing, nothing is left over."""
    import transformers

    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    auto = transformers.AutoModelForMaskedLM if architecture.endswith("MaskedLM") else transformers.AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report.values()), report
    assert type(model).__name__ == architecture
    return model.eval()


def imported_model(folder: Path) -> LanguageModel:
    """Firstlight's model with the weights of a folder."""
    read = read_huggingface(folder)
    model = build_model(read.config)
    model.load_state_dict(read.tensors)
    return model.eval()


def sample(vocab_size: int, batch: int = 3) -> Tensor:
    return torch.randint(vocab_size, (batch, LENGTH), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 3], 280)


@pytest.fixture
def save(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """`save(model, …)`: the folder that `save_pretrained` writes, with a tokenizer; edits(config) changes it."""

    def write(
        model: Any, name: str = "saved", edits: Callable[[dict[str, Any]], object] | None = None, **options: Any
    ) -> Path:
        folder = tmp_path / name
        model.save_pretrained(folder, **options)
        tokenizer.save(folder)
        if edits:
            edit_config(folder, edits)
        return folder

    return write


def edit_config(folder: Path, edits: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    edits(content)
    (folder / "config.json").write_text(json.dumps(content))
