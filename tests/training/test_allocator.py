"""Memory that is freed stays in the process: a block that was used once is not cleared by the kernel again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from firstlight.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(16_000_000)
before = faults()
for _ in range(5):
    torch.zeros(16_000_000)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns blocks so eagerly, or can be told")
def test_a_large_block_is_cleared_by_the_kernel_only_once():
    faults = {}
    for setting in ("keep", "as it is"):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, setting], capture_output=True, text=True, timeout=120, check=True
        )
        faults[setting] = int(result.stdout)
    assert faults["keep"] < faults["as it is"] / 10
