"""What a training step frees stays in the process: the next step does not have it cleared by the kernel again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from firstlight import CausalLanguageModel
from firstlight.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
model = CausalLanguageModel(vocab_size=32000, hidden_size=64, num_layers=2, num_heads=2)
tokens = torch.zeros(4, 512, dtype=torch.int64)
for step in range(8):
    if step == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model.token_loss(tokens, tokens).backward()
    model.zero_grad(set_to_none=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns blocks so eagerly, and can be told")
@pytest.mark.slow
def test_a_step_takes_fewer_fresh_pages():
    faults = {}
    for setting in ("keep", "as it is"):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, setting], capture_output=True, text=True, timeout=120, check=True
        )
        faults[setting] = int(result.stdout)
    assert faults["keep"] < faults["as it is"] / 2, faults
