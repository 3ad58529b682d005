"""The model as training sees it, whatever the layout: run a global batch forward and backward, score tokens.

Each technique is applied from outside, in this order: pipeline stages are cut out, then on each stage float8 → tensor →
context → recompute → compile → FSDP2. The weights are drawn afterwards, each by its name and the seed alone, so every
layout begins with the same model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from firstlight.config import Layout, RunConfig
from firstlight.model import Columns, LanguageModel, build_model
from firstlight.parallel.collectives import all_gather
from firstlight.parallel.compile import apply_compile
from firstlight.parallel.context import apply_context_parallel, local_positions
from firstlight.parallel.float8 import apply_float8
from firstlight.parallel.pipeline import Pipeline, keep_stage
from firstlight.parallel.precision import COMPUTE_TYPES
from firstlight.parallel.ranks import Ranks
from firstlight.parallel.recompute import apply_recompute
from firstlight.parallel.sharding import apply_sharding, divide_again, synchronize_gradients
from firstlight.parallel.tensor import apply_tensor_parallel
from firstlight.planning.pipeline import divide_layers
from firstlight.support.parts import local_part
from firstlight.tokens.batches import rank_slice
from firstlight.tokens.draws import draw
from firstlight.tokens.loader import TokenBatch
from firstlight.tokens.permutation import derive_key


def stages_of(config: RunConfig, layout: Layout) -> tuple[list[int], list[range]]:
    """(pipeline rank, blocks) of every stage of a resolved configuration."""
    return divide_layers(
        config.model,
        config.data.sequence_length,
        schedule=config.parallel.pipeline_schedule,
        ranks=layout.pipeline,
        stages_per_rank=config.parallel.stages_per_rank,
        recompute=config.training.recompute,
        predicted=config.predicted_share,
    )


class ParallelModel:
    """This rank's part of the model. Parameters have their fully qualified names, at any layout."""

    def __init__(self, config: RunConfig, ranks: Ranks, *, compile_blocks: bool = False) -> None:
        """Built without memory; call `materialize` next, then fill it: `init_weights`, or from a checkpoint."""
        self.config, self.ranks = config, ranks
        self.batch = config.batch(ranks.layout.world_size)
        self.owners, layers = stages_of(config, ranks.layout)
        self.parts = {
            stage: self._part(stage, layers[stage], compile_blocks)
            for stage, owner in enumerate(self.owners)
            if owner == ranks.place.pipeline
        }
        tied = config.model.tie_word_embeddings and len(self.owners) > 1
        self.tied = "model.embed_tokens.weight" if tied else None
        self.columns: Columns | None = None
        self.pipeline: Pipeline | None = None

    def _part(self, stage: int, layers: range, compile_blocks: bool) -> LanguageModel:
        config, ranks, num_stages = self.config, self.ranks, len(self.owners)
        with torch.device("meta"):
            model = build_model(config.model)
        if num_stages > 1:
            keep_stage(model, layers, first=stage == 0, last=stage == num_stages - 1)
        if config.training.precision == "fp8":
            apply_float8(model, ranks.device, tensor=ranks.layout.tensor)
        if ranks.layout.tensor > 1:
            apply_tensor_parallel(model, ranks.dimension("tensor"))
        if ranks.context_group is not None:
            apply_context_parallel(model, ranks.context_group)
        if config.training.recompute != "none":
            apply_recompute(model, config.training.recompute)
        if compile_blocks:
            apply_compile(model)
        if ranks.fsdp_mesh is not None:
            reshard = config.parallel.reshard_after_forward
            apply_sharding(
                model,
                ranks.fsdp_mesh,
                dtype=COMPUTE_TYPES[config.training.precision],
                reshard_after_forward=num_stages == 1 if reshard is None else reshard,
            )
        return model

    def materialize(self) -> None:
        """Give every parameter its memory, unfilled, and make the pipeline ready."""
        for model in self.parts.values():
            model.to_empty(device=self.ranks.device)
        layout, length = self.ranks.layout, self.config.data.sequence_length
        if layout.context > 1:
            positions = local_positions(length, self.ranks.place.context, layout.context, self.ranks.device)
            self.columns = Columns(positions, length)
        if layout.pipeline > 1:
            all_columns = Columns(torch.arange(length, device=self.ranks.device), length)
            columns, rows = length // layout.context, self.batch.micro_batch_size
            self.pipeline = Pipeline(
                self.parts,
                self.owners,
                self.ranks.dimension("pipeline").get_group(),
                self.ranks.device,
                schedule=self.config.parallel.pipeline_schedule,
                micro_batches=self.batch.gradient_accumulation_steps,
                micro_shape=(rows, columns),
                hidden_shape=(rows, columns // layout.tensor, self.config.model.hidden_size),
                dtype=torch.float32,
                context=self.autocast,
                columns=self.columns or all_columns,
            )

    def init_weights(self) -> None:
        """Fill every parameter by the configuration's seed; the same model at any layout."""
        for model in self.parts.values():
            model.init_weights(self.config.seed)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(fully qualified name, parameter) of everything on this rank, each name once."""
        seen = set()
        for model in self.parts.values():
            for name, parameter in model.named_parameters():
                if name not in seen:
                    seen.add(name)
                    yield name, parameter

    def copies(self, name: str, parameter: Tensor) -> int:
        """Ranks of the run that hold the same part of a parameter as this one does."""
        layout = self.ranks.layout
        copies = layout.world_size // layout.pipeline
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            copies //= math.prod(mesh.size(d) for d, placement in enumerate(placements) if not placement.is_replicate())
        return 2 * copies if name == self.tied and self.owners[0] != self.owners[-1] else copies

    @torch.no_grad()
    def parameters_changed(self) -> None:
        """To be called when parameters were written from outside: makes both copies of a matrix on this rank equal."""
        if self.tied is not None and 0 in self.parts and len(self.owners) - 1 in self.parts:
            first, last = (self.parts[stage].model.embed_tokens.weight for stage in (0, len(self.owners) - 1))
            last.copy_(first)

    def train(self, mode: bool = True) -> None:
        """Training mode, or evaluation mode."""
        for model in self.parts.values():
            model.train(mode)

    def autocast(self) -> torch.autocast:
        """The precision of the configuration, for a forward pass."""
        dtype = COMPUTE_TYPES[self.config.training.precision]
        return torch.autocast(self.ranks.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def forward_backward(self, batch: TokenBatch, factor: Tensor) -> Tensor:
        """Add the gradients of factor × the summed token losses of this rank's part of a global batch.

        Returns that product, summed over this rank's micro-batches: a scalar, 0 where a pipeline ends elsewhere.
        Gradients are reduced over ranks once, with the last micro-batch.
        """
        arguments = self._arguments(batch)
        if self.pipeline is not None:
            total = self.pipeline.forward_backward(factor, **arguments)
        else:
            total = self._accumulate(arguments, factor)
        self._settle_gradients()
        self._share_tied_gradient()
        return total

    def _accumulate(self, arguments: dict[str, Tensor], factor: Tensor) -> Tensor:
        (model,) = self.parts.values()
        micro_batches = [
            dict(zip(arguments, parts, strict=True))
            for parts in zip(*(value.split(self.batch.micro_batch_size) for value in arguments.values()), strict=True)
        ]
        total = torch.zeros((), device=self.ranks.device)
        for number, micro_batch in enumerate(micro_batches, 1):
            synchronize_gradients(model, number == len(micro_batches))
            with self.autocast():
                loss = model.token_loss(**micro_batch, columns=self.columns)
            loss = loss * factor
            loss.backward()
            total += loss.detach()
        return total

    @torch.no_grad()
    def _settle_gradients(self) -> None:
        """Bring gradients whose sum over tensor-parallel ranks is still due to the placement of their parameters."""
        for model in self.parts.values():
            for parameter in model.parameters():
                gradient = parameter.grad
                if not isinstance(gradient, DTensor) or not isinstance(parameter, DTensor):
                    continue
                if gradient.placements != parameter.placements:
                    parameter.grad = gradient.redistribute(placements=parameter.placements)

    @torch.no_grad()
    def token_scores(self, input_ids: Tensor, targets: Tensor, document_ids: Tensor | None = None) -> Tensor:
        """As `LanguageModel.token_scores`, [2, rows, sequence] on every rank that shares the rows."""
        arguments = self._columns({"input_ids": input_ids, "targets": targets}, document_ids)
        if self.pipeline is not None:
            scores = self.pipeline.token_scores(**arguments)
        else:
            (model,) = self.parts.values()
            with self.autocast():
                scores = model.token_scores(**arguments, columns=self.columns)
        for model in self.parts.values():
            divide_again(model)
        if self.columns is None:
            return scores
        group, size = self.ranks.context_group, self.ranks.layout.context
        columns = [local_positions(input_ids.shape[1], rank, size, scores.device) for rank in range(size)]
        assert group is not None
        whole = scores.new_empty(2, *input_ids.shape)
        for part, places in zip(all_gather(scores, group).chunk(size), columns, strict=True):
            whole[:, :, places] = part
        return whole

    def _arguments(self, batch: TokenBatch) -> dict[str, Tensor]:
        input_ids, targets, documents = (
            None if tensor is None else tensor.to(self.ranks.device, non_blocking=True)
            for tensor in (batch.input_ids, batch.targets, batch.document_ids)
        )
        assert input_ids is not None and targets is not None
        arguments = self._columns({"input_ids": input_ids, "targets": targets}, documents)
        if not self.config.model.has_dropout:
            return arguments
        return {**arguments, "dropout_keys": self._dropout_keys(batch).to(self.ranks.device, non_blocking=True)}

    def _dropout_keys(self, batch: TokenBatch) -> Tensor:
        """What dropout of this rank's rows is drawn from, by the seed and the number of each sample: [rows] int64."""
        offset, count = rank_slice(0, self.batch.global_batch_size, self.ranks.data_rank, self.ranks.layout.data)
        samples = np.arange(batch.first_sample + offset, batch.first_sample + offset + count)
        return torch.from_numpy(draw(derive_key(self.config.seed, "dropout"), samples).view(np.int64))

    def _columns(self, arguments: dict[str, Tensor], document_ids: Tensor | None) -> dict[str, Tensor]:
        """This context rank's columns of ids and targets; document ids stay whole, for the keys of the others."""
        if self.columns is not None:
            arguments = {name: value[:, self.columns.positions] for name, value in arguments.items()}
        return arguments if document_ids is None else {**arguments, "document_ids": document_ids}

    def _share_tied_gradient(self) -> None:
        """Give a tied matrix that two stages hold the sum of both gradients, on both."""
        if self.tied is None:
            return
        ends = [self.parts[stage] for stage in (0, len(self.owners) - 1) if stage in self.parts]
        gradients = [local_part(part.model.embed_tokens.weight.grad) for part in ends]  # type: ignore[arg-type]
        if len(gradients) == 2:
            gradients[0] += gradients[1]
            ends[1].model.embed_tokens.weight.grad = None
        elif gradients:
            assert self.pipeline is not None
            group, other = self.pipeline.group, self.owners[-1] if 0 in self.parts else self.owners[0]
            theirs = torch.empty_like(gradients[0])
            exchange = [
                dist.P2POp(dist.isend, gradients[0].contiguous(), group=group, group_peer=other),
                dist.P2POp(dist.irecv, theirs, group=group, group_peer=other),
            ]
            for work in dist.batch_isend_irecv(exchange):
                work.wait()
            gradients[0] += theirs
