"""What the tests of masked models share: a tokenizer with a mask token, and a model that has seen a little."""

from __future__ import annotations

import pytest
import torch

from firstlight.config import MaskingConfig
from firstlight.model import MaskedLanguageModel
from firstlight.tokens.masking import Masking
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer

TEXTS = [
    *("The quick brown fox jumps over the lazy dog. " * n for n in (1, 2, 5)),
    "Ünïcödé, 中文。",
    "x",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Documents of very different lengths, not all in English."""
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300, show_progress=False)


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    """A tokenizer like BERT's, which keeps no white space and so has no bytes per token."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "jump", "##s", "over", "dog", "."]
    special = [
        {
            "id": number,
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, word in enumerate(words[:5])
    ]
    content = {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(words)},
        },
    }
    return Tokenizer(content)


@pytest.fixture(scope="session")
def masked_model(tokenizer: Tokenizer) -> MaskedLanguageModel:
    """A bidirectional LLaMA with rows of padding in its vocabulary, trained just enough to be right now and then."""
    model = MaskedLanguageModel(320, 32, 2, 2, architecture="llama", max_position_embeddings=64)
    ids = torch.tensor([tokenizer.encode(TEXTS[2])[:48]])
    masking = Masking(MaskingConfig(fraction=0.3), tokenizer, 0)
    for step in range(60):
        inputs, targets = masking(ids.numpy(), step)
        model(torch.from_numpy(inputs), labels=torch.from_numpy(targets))["loss"].backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.2 * parameter.grad
        model.zero_grad()
    return model.eval()
