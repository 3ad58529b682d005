"""The tutorial's command for Megatron-LM at toy size trains and resumes here, exactly as a recipe written by hand."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from firstlight.tokens.indexed import IndexedWriter

FLAGS = (
    "--num-layers 4 --hidden-size 32 --num-attention-heads 4 --seq-length 32 --max-position-embeddings 64 "
    "--micro-batch-size 2 --global-batch-size 8 --lr 3e-3 --min-lr 3e-4 --lr-decay-style cosine --weight-decay 0.1 "
    "--adam-beta1 0.9 --adam-beta2 0.95 --clip-grad 1.0 --tokenizer-type NullTokenizer --vocab-size 99 "
    "--lr-decay-iters 6 --lr-warmup-iters 2 --eval-interval 100 --eval-iters 1 --log-interval 1 --save-interval 3"
)
NATIVE = {
    "name": "native",
    "data": {
        "sequence_length": 32,
        "order": "megatron",
        "max_epochs": 1000,
        "split": "969, 30, 1",
    },
    "model": {
        "architecture": "gpt2",
        "vocab_size": 256,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "optimizer": {"lr": 3e-3, "min_lr": 3e-4, "weight_decay": 0.1, "betas": [0.9, 0.95]},
    "schedule": {"name": "cosine", "position": "before_step", "warmup_steps": 2, "decay_steps": 6},
    "training": {
        "micro_batch_size": 2,
        "global_batch_size": 8,
        "precision": "fp32",
        "compile": False,
        "device": "cpu",
    },
    "stability": {"guard": False},
    "evaluation": {"interval_steps": 100, "max_tokens": 256},
    "checkpoint": {"interval_steps": 3},
    "logging": {"interval_steps": 1},
}


@pytest.fixture
def prefix(tmp_path):
    """PREFIX.bin and PREFIX.idx with 300 documents of ids below 97."""
    numbers = np.random.default_rng(0)
    place = tmp_path / "web_text_document"
    with IndexedWriter(place, np.dtype(np.uint16)) as writer:
        for length in numbers.integers(20, 120, 300):
            writer.add_document(np.cumsum(numbers.integers(0, 4, length)) % 97)
    return place


def under_torchrun(processes, folder):
    """A way to run a module as so many processes; gives what it said."""
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]

    def run(module, *arguments):
        done = subprocess.run(
            [*launcher, module, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stderr

    return run


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["learning_rate"]) for line in lines if "loss" in line]


def compare(tmp_path, prefix, run, tensor, pipeline):
    """Six steps by flags and six by the recipe are the same bit for bit; so are three of them again after --load."""
    layout = f"--tensor-model-parallel-size {tensor} --pipeline-model-parallel-size {pipeline} --train-iters 6"
    flags = [*FLAGS.split(), *layout.split(), "--data-path", str(prefix), "--save", str(tmp_path / "by-flags")]
    ours = ["--firstlight", "training.compile=false", "training.device=cpu"]
    said = run("firstlight.interop.megatron.pretrain_gpt", *flags, *ours)
    assert f"tensor {tensor} × pipeline {pipeline} × data 1" in said
    recipe = tmp_path / "native.yaml"
    tree = {
        **NATIVE,
        "runs_directory": str(tmp_path),
        "data": {**NATIVE["data"], "sources": {"web_text_document": {"tokens": str(prefix)}}},
        "model": {**NATIVE["model"], "vocab_size": 128 * tensor, "vocab_padding": 128 * tensor - 100},
        "training": {**NATIVE["training"], "total_steps": 6},
        "parallel": {"tensor": tensor, "pipeline": pipeline},
    }
    recipe.write_text(yaml.safe_dump(tree))
    run("firstlight", "train", str(recipe))
    whole = losses(tmp_path / "by-flags")
    assert whole == losses(tmp_path / "native")
    assert [step for step, *_ in whole] == [1, 2, 3, 4, 5, 6]
    assert whole[0][2] == 0.0
    newest = next(path for path in (tmp_path / "by-flags" / "checkpoints").iterdir() if path.name.endswith("6"))
    newest.rename(tmp_path / "taken-away")
    said = run("firstlight.interop.megatron.pretrain_gpt", *flags, "--load", str(tmp_path / "by-flags"), *ours)
    assert "resumed at step 3" in said
    assert losses(tmp_path / "by-flags") == whole
    return flags


def test_one_process_by_flags_is_the_native_recipe_and_resumes(tmp_path, prefix, firstlight, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(module, *arguments):
        done = firstlight(*(["megatron"] if module.endswith("pretrain_gpt") else []), *arguments)
        assert done.code == 0, done.stderr
        return done.stderr

    flags = compare(tmp_path, prefix, run, 1, 1)
    assert f"--load {tmp_path / 'by-flags'}" in firstlight("megatron", *flags).sentence()
    fp16 = firstlight("megatron", *flags, "--save", tmp_path / "other", "--fp16")
    assert "--bf16" in fp16.sentence()
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("tensor", "pipeline"), [(2, 1), (2, 2)])
def test_processes_by_flags_are_the_native_recipe_and_resume(tmp_path, prefix, tensor, pipeline):
    compare(tmp_path, prefix, under_torchrun(tensor * pipeline, tmp_path), tensor, pipeline)
