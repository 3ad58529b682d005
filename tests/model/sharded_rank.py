"""One of several processes that share a model: checks that its parts make up the model a single process has.

Run as `python sharded_rank.py RANK WORLD_SIZE STORE`, STORE being a file that all ranks meet at.
"""

from __future__ import annotations

import sys

import torch
from torch.distributed import barrier, destroy_process_group, init_device_mesh, init_process_group
from torch.distributed.fsdp import fully_shard

from firstlight.model import CausalLanguageModel
from firstlight.support.peers import leave_process


def main(rank: int, world_size: int, store: str) -> None:
    init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    mesh = init_device_mesh("cpu", (world_size,))
    with torch.device("meta"):
        model = CausalLanguageModel(97, 32, 2, 4)
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    model.init_weights(5)
    expected = dict(CausalLanguageModel(97, 32, 2, 4, seed=5).named_parameters())
    held = 0
    for name, parameter in model.named_parameters():
        held += parameter.to_local().numel()
        assert torch.equal(parameter.full_tensor(), expected.pop(name)), name
    assert not expected, expected.keys()
    assert held < model.num_parameters(), "every rank holds everything, so nothing was shown"
    barrier()
    destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    leave_process()
