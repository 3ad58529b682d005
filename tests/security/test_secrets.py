"""A key in the environment, in an address or in a setting is in no file of a run and in nothing that is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firstlight.support.secrets import holds_password, without_secrets

KEYS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


def everything_in(folder: Path) -> str:
    return "".join(file.read_bytes().decode("utf-8", "replace") for file in folder.rglob("*") if file.is_file())


def test_keys_of_the_environment_are_nowhere(run: Path, run_firstlight, tmp_path: Path) -> None:
    """A run described with its keys, by accident, and everything that comes of it: folder, export, standard error."""
    described = " ".join(KEYS.values())
    said = []
    for arguments in (
        ("train", "recipe.yaml", "name=new", f"description={described}"),
        ("train", "runs/new", "training.total_steps=6"),
        ("export", "runs/new", "exported"),
        ("train", "recipe.yaml", "name=other", f"model.{KEYS['WANDB_API_KEY']}=1"),
        ("tokenize", f"{KEYS['HF_TOKEN']}.jsonl", "--tokenizer", "tokenizer", "--output", "none"),
    ):
        result = run_firstlight(*arguments, env=KEYS, cwd=tmp_path / "here")
        said += [result.stdout, result.stderr]
    files = everything_in(Path("exported")) + everything_in(Path("runs/new"))
    for name, key in KEYS.items():
        assert key not in "".join(said), f"{name} is shown"
        assert key not in files, f"{name} is in a file"
    provenance = json.loads(Path("runs/new/provenance.json").read_text())
    assert "description=*** *** ***" in provenance["command"]


@pytest.mark.parametrize(
    "address",
    ["s3://AKIAEXAMPLE:wJalrXUtnFEMI@bucket/*.jsonl", "https://user:hunter2@example.org/a.jsonl.gz"],
)
@pytest.mark.parametrize("verb", ["train", "corpus", "tokenize", "eval", "tokenizer"])
def test_an_address_with_a_password_is_refused_without_showing_it(
    address: str, verb: str, run: Path, firstlight
) -> None:
    before = everything_in(Path())
    arguments = {
        "train": ("train", "text.yaml", f"data.sources.manual.text=[{address}]"),
        "corpus": ("corpus", "build", "text.yaml", f"data.sources.manual.text=[{address}]", "--output", "new"),
        "tokenize": ("tokenize", address, "--tokenizer", "tokenizer", "--output", "new"),
        "eval": ("eval", "runs/tiny", "--data", f"mine={address}"),
        "tokenizer": ("tokenizer", "train", address, "--output", "new"),
    }[verb]
    sentence = firstlight(*arguments).sentence()
    assert "password" in sentence and "AWS_SECRET_ACCESS_KEY" in sentence
    assert "hunter2" not in sentence and "wJalrXUtnFEMI" not in sentence
    assert everything_in(Path()) == before


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("https://host/a?X-Amz-Signature=abc123&part=2", "https://host/a?X-Amz-Signature=***&part=2"),
        ("https://host/a?sv=2&sig=a%2Bb%3D", "https://host/a?sv=2&sig=***"),
        ("--hf_token=hf_abc", "--hf_token=***"),
        ("training.total_tokens=1e9 data.sources.a.tokens=b", "training.total_tokens=1e9 data.sources.a.tokens=b"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("time 12:30 a@b", "time 12:30 a@b"),
    ],
)
def test_what_is_hidden_and_what_stays(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets({"a": [text, 3, None]}) == {"a": [shown, 3, None]}
    assert holds_password(text) == (text == "s3://key:secret@bucket/a")


def test_a_short_or_common_value_of_the_environment_is_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_TOKEN", "firstlight")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    monkeypatch.setenv("LONG_SETTING", "a long setting")
    text = f"firstlight {tmp_path} a long setting"
    assert without_secrets(text) == text


def test_signed_addresses_in_a_recipe_do_not_stay_in_the_run(run: Path, firstlight) -> None:
    step = "corpus.steps=[{step: decontaminate, against: {exam: ['https://host/a.jsonl?X-Amz-Signature=abc123']}}]"
    for _ in range(2):  # a new run, and the same recipe again
        result = firstlight("train", "recipe.yaml", "name=new", step)
        assert result.code == 0, result.stderr
    assert "abc123" not in everything_in(Path("runs/new"))
