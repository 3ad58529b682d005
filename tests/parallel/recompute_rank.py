"""One of two tensor-parallel ranks: recomputation changes no gradient, and repeats gathers but no reduction.

Run as `python recompute_rank.py RANK WORLD_SIZE STORE`, STORE being a file that all ranks meet at.
"""

from __future__ import annotations

import sys

import torch
from torch.distributed import destroy_process_group, init_device_mesh, init_process_group
from torch.distributed.tensor.debug import CommDebugMode

from firstlight.model import CausalLanguageModel
from firstlight.parallel.recompute import apply_recompute
from firstlight.parallel.tensor import apply_tensor_parallel
from firstlight.support.peers import leave_process


def main(rank: int, world_size: int, store: str) -> None:
    init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    mesh = init_device_mesh("cpu", (world_size,))
    tokens = torch.randint(96, (2, 16), generator=torch.Generator().manual_seed(0))

    def run(mode: str) -> tuple[list[torch.Tensor], int, int]:
        """Gradients, gathers and reductions of one step without the head."""
        with torch.device("meta"):
            model = CausalLanguageModel(96, 32, 2, 4)
        apply_tensor_parallel(model, mesh)
        if mode != "none":
            apply_recompute(model, mode)
        model.to_empty(device="cpu")
        model.init_weights(0)
        with CommDebugMode() as communication:
            model.model(tokens).to_local().square().sum().backward()
        counts = {str(operator).rsplit(".", 1)[-1]: count for operator, count in communication.comm_counts.items()}
        gradients = [parameter.grad.to_local() for parameter in model.model.parameters()]
        return gradients, counts["all_gather_into_tensor"], counts["reduce_scatter_tensor"]

    gradients, gathers, reductions = run("none")
    for mode in ("selective", "full"):
        others, more_gathers, more_reductions = run(mode)
        assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True)), mode
        assert more_gathers == gathers + 2 * 2, (mode, gathers, more_gathers)  # before attention and feed-forward
        if mode == "selective":
            assert more_reductions == reductions, (reductions, more_reductions)
    destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    leave_process()
