"""AdamW with decay on matrices only, on the parts of the parameters that this process holds.

AdamW treats every number by itself, so it needs no collectives: it works on plain tensors that share the memory of the
shards, whatever the layout. For the checkpoint its state takes the form of its parameters again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from firstlight.config import OptimizerConfig
from firstlight.support.parts import local_part


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019): weight decay on tensors of two or more dimensions, none on the rest.

    Embeddings decay, norms and biases do not (as in GPT-3 and Megatron-LM).
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        self._whole = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
        self._parts = {name: nn.Parameter(local_part(whole.detach())) for name, whole in self._whole.items()}
        matrices = [self._parts[name] for name, whole in self._whole.items() if whole.dim() >= 2]
        vectors = [self._parts[name] for name, whole in self._whole.items() if whole.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True
        )

    def step(self, learning_rate: float) -> None:
        """One update from the gradients that the parameters have; drops the gradients."""
        for name, whole in self._whole.items():
            part = self._parts[name]
            assert part.data_ptr() == local_part(whole.detach()).data_ptr(), f"{name} has moved"
            part.grad = None if whole.grad is None else local_part(whole.grad)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for name, whole in self._whole.items():
            whole.grad = self._parts[name].grad = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(`{parameter name}.{state name}`, tensor) of all state; created as zeros where no step was taken.

        Of a DTensor's state, a DTensor of the same placements; writing to it writes the state.
        """
        for name, whole in self._whole.items():
            part = self._parts[name]
            state = self._adamw.state[part]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=part.device)
                for moment in ("exp_avg", "exp_avg_sq"):
                    state[moment] = torch.zeros_like(part, memory_format=torch.preserve_format)
            for key, value in state.items():
                yield f"{name}.{key}", value if key == "step" else _like(whole, value)


def _like(whole: Tensor, part: Tensor) -> Tensor:
    """`part` as the shard of a tensor that is divided as `whole` is."""
    if not isinstance(whole, DTensor):
        return part
    return DTensor.from_local(
        part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
