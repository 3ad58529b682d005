"""What a rank's part of a model must have in common with the model whole, in one process."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from firstlight.model import LanguageModel
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.support.parts import local_part, part_of


def assert_same_gradients(model: ParallelModel, alone: LanguageModel, where: object) -> None:
    gradients = {name: parameter.grad for name, parameter in alone.named_parameters()}
    for name, parameter in model.named_parameters():
        whole = gradients[name]
        assert whole is not None and parameter.grad is not None, (where, name)
        torch.testing.assert_close(
            local_part(parameter.grad),
            part_of(parameter).of(whole),
            rtol=1e-3,
            atol=1e-6,
            msg=lambda text, name=name: f"{where} {name}: {text}",
        )


def assert_same_scores(
    model: ParallelModel, alone: LanguageModel, batch: Mapping[str, torch.Tensor | None], where: object
) -> None:
    asked = [batch[name] for name in ("input_ids", "targets", "document_ids")]
    scores, expected = model.token_scores(*asked), alone.token_scores(*asked)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5, msg=lambda text: f"{where}: {text}")
