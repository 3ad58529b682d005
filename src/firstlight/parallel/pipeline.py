"""Pipeline parallelism: the layers in stages, each on its own rank, and PyTorch's schedules to run them.

GPipe (Huang et al. 2019), 1F1B and interleaved 1F1B (Narayanan et al. 2021, arXiv:2104.04473), zero bubble (Qi et al.
2023, arXiv:2401.10241). A stage is the whole model with the parts of other stages taken out, so that parameters keep
their names. The last stage returns the loss itself, so nothing as large as logits leaves it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import Schedule1F1B, ScheduleGPipe

from firstlight.config.parallel import SINGLE_STAGE
from firstlight.model import Columns
from firstlight.planning.schedules import SEVERAL_STAGES

SCHEDULES: dict[str, Any] = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B, **SEVERAL_STAGES}


class Elsewhere(nn.Module):
    """In the place of what another stage holds: gives back its first argument."""

    def forward(self, hidden: Tensor, *_: Any) -> Tensor:
        return hidden


class HeadTable(Elsewhere):
    """In the place of the embedding on the last stage of a tied model: the matrix that its head needs, no look-up."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight


def keep_stage(model: Any, layers: range, first: bool, last: bool) -> None:
    """Take out of `model` (on the meta device) all but `layers` and, at the ends, the embedding and the head."""
    body = model.model
    for index in range(len(body.layers)):
        if index not in layers:
            body.layers[index] = Elsewhere()
    if not first:
        tied_here = last and model.lm_head is None
        body.embed_tokens = HeadTable(body.embed_tokens.weight) if tied_here else Elsewhere()
        body.embed_positions = body.embed_types = body.embed_norm = None
        body.embed_dropout = 0.0
    if not last:
        body.norm = model.transform = model.head_bias = None
        if model.lm_head is not None:
            model.lm_head = Elsewhere()


class Pipeline:
    """The stages of this rank and the schedule that runs them together with the other ranks' stages."""

    def __init__(
        self,
        parts: dict[int, Any],
        owners: list[int],
        group: dist.ProcessGroup,
        device: torch.device,
        *,
        schedule: str,
        micro_batches: int,
        micro_shape: tuple[int, int],
        hidden_shape: tuple[int, int, int],
        dtype: torch.dtype,
        context: Callable[[], Any],
        columns: Columns,
    ) -> None:
        """parts: this rank's models by number of stage. owners: the rank of each stage. micro_shape: [rows, columns] of
        a micro-batch's token ids on this rank; hidden_shape, dtype: of what goes from stage to stage. context: entered
        around every forward pass. columns: this rank's part of each sequence."""
        self.parts, self.owners, self.group, self.device = parts, owners, group, device
        self.last = len(owners) - 1
        self.hidden_shape, self.dtype = hidden_shape, dtype
        built = []
        for stage, model in parts.items():
            model.forward = functools.partial(_forward, model, stage == self.last, context, columns)
            ids = torch.empty(micro_shape, dtype=torch.int64, device="meta")
            hidden = torch.empty(hidden_shape, dtype=dtype, device="meta", requires_grad=True)
            loss = torch.empty(1, dtype=torch.float32, device="meta", requires_grad=True)
            inputs, outputs = ids if stage == 0 else hidden, loss if stage == self.last else hidden
            built.append(
                PipelineStage(
                    model, stage, len(owners), device, input_args=(inputs,), output_args=(outputs,), group=group
                )
            )
        self.schedule = SCHEDULES[schedule](
            built[0] if schedule in SINGLE_STAGE else built,
            micro_batches,
            loss_fn=lambda loss, _: loss * self.factor,
            scale_grads=False,
        )

    def forward_backward(self, factor: Tensor, input_ids: Tensor, **arguments: Tensor) -> Tensor:
        """Run all micro-batches of a step; the sum of their losses × factor on the last stage's rank, 0 elsewhere.

        input_ids and arguments (targets, document_ids, dropout_keys): [rows of all micro-batches, …], divided by rows.
        """
        self.factor = factor
        losses: list[Tensor] = []
        inputs = (input_ids,) if 0 in self.parts else ()
        wanted = {"target": arguments["targets"], "losses": losses} if self.last in self.parts else {}
        self.schedule.step(*inputs, return_outputs=False, **wanted, **arguments)
        if not losses:
            return torch.zeros((), device=self.device)
        return torch.cat([loss.detach() for loss in losses]).sum()

    @torch.no_grad()
    def token_scores(self, input_ids: Tensor, **arguments: Tensor) -> Tensor:
        """As `LanguageModel.token_scores`, on every rank of the pipeline: stage after stage, no schedule."""
        rank = dist.get_rank(self.group)
        scores = torch.empty(2, *input_ids.shape, dtype=torch.float32, device=self.device)
        hidden = input_ids
        for stage, owner in enumerate(self.owners):
            if owner != rank:
                continue
            if stage and self.owners[stage - 1] != rank:
                shape = (len(input_ids), *self.hidden_shape[1:])
                hidden = torch.empty(shape, dtype=self.dtype, device=self.device)
                dist.recv(hidden, group=self.group, group_src=self.owners[stage - 1])
            hidden = self.parts[stage](hidden, per_token=True, **arguments)
            if stage == self.last:
                scores = hidden.contiguous()
            elif self.owners[stage + 1] != rank:
                dist.send(hidden.contiguous(), group=self.group, group_dst=self.owners[stage + 1])
        dist.broadcast(scores, group=self.group, group_src=self.owners[-1])
        return scores


def _forward(
    model: Any,
    last: bool,
    context: Callable[[], Any],
    columns: Columns,
    hidden: Tensor,
    *,
    targets: Tensor,
    document_ids: Tensor | None = None,
    dropout_keys: Tensor | None = None,
    per_token: bool = False,
) -> Tensor:
    """One stage on one micro-batch. hidden: token ids [rows, columns] on the first stage, else hidden states. The last
    stage gives the summed loss, [1], or with `per_token` the scores of each token, [2, rows, columns]."""
    with context():
        hidden = model.model(hidden, document_ids, columns=columns, dropout_keys=dropout_keys)
        if not last:
            return hidden
        return model.head_scores(hidden, targets) if per_token else model.head_loss(hidden, targets).reshape(1)
