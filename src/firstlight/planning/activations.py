"""What a rank keeps for the backward pass and needs while it computes, in bytes for each token, from the model's shape.

A list of what a block really saves, in the manner of Korthikanti et al. 2022 (arXiv:2205.05198, eq. 1-5), whose
34·s·b·h is another block: here the residual stream is fp32, and attention keeps no scores unless it has dropout. On
a CPU the list is exact for eager execution of pre-norm models, in every mode (the tests measure it); elsewhere it
supposes fused norms and attention kernels, and for compiled blocks, which choose what they keep, it is an estimate.
"""

from __future__ import annotations

from typing import Literal

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout
from firstlight.planning.flops import head_widths
from firstlight.planning.sizes import FP32, RankSizes

Precision = Literal["fp32", "bf16", "fp16", "fp8"]
Recompute = Literal["none", "selective", "full"]
CHUNK_TOKENS, CHUNK_TOKENS_ELSEWHERE = {"cpu": 1024}, 4096
BLOCK_LOGITS, BLOCK_LOGITS_ELSEWHERE = {"cpu": 1 << 19}, 1 << 27
"""Those of `firstlight.model.loss`."""
PARALLEL_CHUNK_TOKENS = 4096
"""That of `firstlight.parallel.vocabulary`."""
SMALLEST_BLOCK, MOST_BLOCKS = 128, 8
"""Those of `firstlight.model.attention`."""


class ActivationSizes(RankSizes):
    """Activations of the parts of a model on one tensor-parallel rank, beside their parameters."""

    def __init__(
        self, model: ModelConfig, layout: Layout, precision: Precision, device_type: str, sequence_length: int
    ) -> None:
        super().__init__(model, layout, precision)
        self.device_type, self.sequence_length = device_type, sequence_length

    def kept_per_token(self, recompute: Recompute) -> float:
        """Bytes that a block keeps for the backward pass, for each token of this rank's part of the sequences."""
        model, tensor, context, width = self.model, self.layout.tensor, self.layout.context, self.width
        assert model.head_dim and model.num_key_value_heads and model.intermediate_size
        stream = FP32 * model.hidden_size / tensor
        whole = width * model.hidden_size  # a norm's output as the linear layers after it read it: gathered
        queries = model.num_attention_heads * model.head_dim / tensor
        keys = model.num_key_value_heads * model.head_dim / tensor
        inner = width * model.intermediate_size / tensor
        kernel = width * queries + FP32 * model.num_attention_heads / tensor  # its result and each row's normalizer
        products = model.attention_dropout > 0  # instead of a kernel
        gated, rms = model.family.gated, model.family.norm == "rms"
        if recompute == "full":
            return stream
        if recompute == "selective":
            projected = width * (queries + 2 * keys) + inner * (2 if gated else 1)
            return stream + projected + (0 if products else kernel) + 2 * width * model.hidden_size / tensor
        # Gathered keys and values have a copy for every query head, and so have those of plain products.
        copied = context > 1 or products
        attention = width * (queries + 2 * (queries * context if copied else keys))
        attention += width * queries + self.weights_per_token() if products else kernel
        masks = 2 * model.hidden_size / tensor if model.hidden_dropout else 0  # a byte for each number
        feed_forward = inner * (4 if gated else 2)
        norms = 2 * FP32 * (1 if rms else 2)  # 1 / deviation, and the mean
        head_norms = 0.0
        if model.family.qk_norm != "none":
            rows = (queries + keys) / model.head_dim if model.family.qk_norm == "head" else 2
            head_norms = FP32 * (queries + keys) + norms * rows / 2
        unfused = 0.0
        if rms and self.device_type == "cpu":
            # There RMSNorm is several operations, and the kernel returns rotated heads before tokens.
            unfused = 2 * stream + (0 if products else width * queries) + (FP32 * (queries + keys) if head_norms else 0)
        return 2 * stream + 2 * whole + attention + feed_forward + norms + head_norms + unfused + masks

    def weights_per_token(self) -> float:
        """Bytes of attention weights with dropout, for each query: before, after, and a byte that says which."""
        length, context = self.sequence_length, self.layout.context
        seen: float = length
        if self.model.causal:
            rows = length if context == 1 else length // (2 * context)
            seen = (length + min(rows, max(SMALLEST_BLOCK, rows / MOST_BLOCKS))) / 2
        return self.model.num_attention_heads / self.layout.tensor * seen * (FP32 + 1 + self.width)

    def backward_per_token(self, recompute: Recompute) -> float:
        """Bytes that a block's backward pass needs besides, for each token: what was not kept, and gradients, of which
        those of the feed-forward layer are the widest: of both factors where it is gated."""
        assert self.model.intermediate_size is not None
        inner = self.width * self.model.intermediate_size / self.layout.tensor
        stream = FP32 * self.model.hidden_size / self.layout.tensor
        gradients = inner * (2 if self.model.family.gated else 1) + stream
        return self.kept_per_token("none") - self.kept_per_token(recompute) + gradients

    def waiting_per_token(self) -> float:
        """Bytes that a block keeps for each token between the two halves of a backward pass that is taken apart: what
        it would keep without recomputation, and the gradients of what its linear layers and norms gave."""
        model, tensor = self.model, self.layout.tensor
        queries, keys = head_widths(model)
        assert model.intermediate_size is not None
        inner = model.intermediate_size * (2 if model.family.gated else 1)
        outputs = (queries + 2 * keys + inner) / tensor + 4 * model.hidden_size
        return self.kept_per_token("none") + self.width * outputs

    def head_bytes(self, all_tokens: int, predicted: float) -> float:
        """Bytes of the last norm and the loss, at their peak in the forward pass."""
        tokens = round(predicted * all_tokens)
        hidden_size, width = self.model.hidden_size, self.width
        norm = all_tokens * hidden_size * ((2 if self.device_type == "cpu" else 1) * FP32 / self.layout.tensor + width)
        cast = width * self.vocabulary if width < FP32 and not self.sharded else 0
        gradients = tokens * hidden_size * width + FP32 * self.vocabulary
        chunk = self._divided_chunk(tokens) if self.layout.tensor > 1 else self._chunk(tokens)
        return norm + cast + gradients + chunk

    def _chunk(self, tokens: int) -> float:
        """Logits of a chunk, the product that is added to the gradient, and fp32 logits (where they are not that
        already) and probabilities of a block of rows and of the one before it (`firstlight.model.loss`)."""
        vocabulary = self.vocabulary / self.model.hidden_size
        chunks = max(1, -(-tokens // CHUNK_TOKENS.get(self.device_type, CHUNK_TOKENS_ELSEWHERE)))
        chunk = -(-tokens // chunks)
        rows = min(chunk, BLOCK_LOGITS.get(self.device_type, BLOCK_LOGITS_ELSEWHERE) // int(vocabulary))
        softmax = FP32 * rows * vocabulary * (2 if self.width < FP32 else 1) * (2 if rows < tokens else 1)
        return self.width * (chunk * vocabulary + self.vocabulary) + softmax

    def _divided_chunk(self, tokens: int) -> float:
        """fp32 logits of this rank's rows of the vocabulary, less the largest, and its exponentials
        (`firstlight.parallel.vocabulary`)."""
        return 3 * FP32 * min(tokens, PARALLEL_CHUNK_TOKENS) * self.vocabulary / self.model.hidden_size
