"""Stands for Megatron-LM's pretrain_gpt.py: `torchrun … -m firstlight.interop.megatron.pretrain_gpt FLAGS`.

It starts the program `firstlight` with the verb `megatron` before the flags, and is nothing else: rooms do not import
the command line, and this one only runs it, as a shell would.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:] = ["megatron", *sys.argv[1:]]
    runpy.run_module("firstlight", run_name="__main__", alter_sys=True)
