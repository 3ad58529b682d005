"""What the hardware makes of the recipe: precision, memory, where its ranks lie, how long they wait."""

from __future__ import annotations

from collections.abc import Iterator

from firstlight.planning.consistency.situation import Situation
from firstlight.planning.diagnosis import CannotTell, Finding

LARGE_FOR_FP16 = 1e9
"""Parameters from which on fp16 has cost runs: OPT-175B went through 35 restarts with loss scales that collapsed
(Zhang et al. 2022, arXiv:2205.01068, section 2.5), BLOOM chose bf16 for that (Le Scao et al. 2022, arXiv:2211.05100,
section 3.4.2)."""
RISKY_RATE_FP16 = 1e-3
TIGHT = 0.9
"""Share of the device's memory above which a run is near its edge."""
SLOW_BF16 = 2.0
"""Times that fp32 is faster, on processors without instructions for bf16."""
LONG_WAIT = 0.2
"""Share of a step that pipeline ranks wait."""


def half_precision(situation: Situation) -> Iterator[Finding]:
    """fp16, whose range is small, where bf16 is to be had; and bf16 or fp8 where the hardware has none."""
    precision, device = situation.config.training.precision, situation.device
    rate = situation.config.optimizer.lr
    if precision == "fp16":
        risky = situation.parameters >= LARGE_FOR_FP16 or rate > RISKY_RATE_FP16
        why = f"of {situation.parameters / 1e9:.3g} B parameters" if situation.parameters >= LARGE_FOR_FP16 else ""
        why += f"{' and' if why else 'with'} a learning rate of {rate:g}" if rate > RISKY_RATE_FP16 else ""
        yield Finding(
            "fp16 at risk" if risky else "fp16",
            "warning" if risky and device.bf16_flops else "note",
            None,
            f"training.precision is fp16, which ends at 65,504 where bf16 goes to 3.4e38 as fp32 does: gradients "
            f"overflow and steps are skipped{', the more so in a model ' + why if risky else ''}.",
            "Set training.precision=bf16 (same speed and memory, no loss scale)."
            if device.bf16_flops
            else f"{device.name} has no bf16; keep stability.guard on and watch the loss scale.",
        )
    if precision in ("bf16", "fp8") and not device.bf16_flops:
        yield Finding(
            "no bf16",
            "problem",
            None,
            f"training.precision is {precision}, and {device.name} has no bf16 matrix products: they are imitated in "
            "fp32, many times slower.",
            "Set training.precision=fp16, or choose other hardware.",
        )
    elif precision == "bf16" and (device.fp32_flops or 0.0) > SLOW_BF16 * (device.bf16_flops or 0.0):
        assert device.fp32_flops and device.bf16_flops
        yield Finding(
            "slow bf16",
            "warning",
            None,
            f"training.precision is bf16, whose matrix products reach {device.bf16_flops / 1e9:.3g} GFLOP/s on this "
            f"processor, and those of fp32 {device.fp32_flops / 1e9:.3g}.",
            "Set training.precision=fp32.",
        )
    elif precision == "fp8" and not device.fp8_flops:
        yield Finding(
            "no fp8",
            "problem",
            None,
            f"training.precision is fp8, and {device.name} has no fp8 matrix products; training refuses.",
            "Set training.precision=bf16, or choose hardware that has it (H100 or newer).",
        )


def memory(situation: Situation) -> Iterator[Finding]:
    """A step that does not fit, or hardly."""
    if situation.memory_bytes is None or not situation.device.memory_bytes:
        raise CannotTell("how much memory the device has is not known")
    need, have = situation.memory_bytes, situation.device.memory_bytes
    arithmetic = (
        f"A rank needs about {need / 1e9:.3g} GB at its peak, margin included; {situation.device.name} has "
        f"{have / 1e9:.3g} GB"
    )
    if need > have:
        yield Finding(
            "does not fit",
            "problem",
            None,
            f"{arithmetic}: {(need - have) / 1e9:.3g} GB too much.",
            _save_memory(situation) + " The plan lists layouts that fit, where there are any.",
        )
    elif need > TIGHT * have:
        yield Finding("tight memory", "note", None, f"{arithmetic}: {need / have:.0%}.", _save_memory(situation))


def tensor_in_node(situation: Situation) -> Iterator[Finding]:
    """Tensor-parallel groups that reach over the network."""
    layout, each = situation.layout, situation.devices_per_node
    group = layout.tensor * layout.context
    if layout.tensor > 1 and layout.world_size > each and layout.tensor > each:
        yield Finding(
            "tensor parallel over the network",
            "warning",
            None,
            f"parallel.tensor {layout.tensor} is more than the {each} devices of a machine: activations go over the "
            "network eight times a block and micro-batch.",
            f"Set parallel.tensor to {each} or less, and pipeline or shard in its place.",
        )
    elif layout.context > 1 and layout.world_size > each and group > each:
        yield Finding(
            "context parallel over the network",
            "note",
            None,
            f"parallel.tensor {layout.tensor} × context {layout.context} = {group} is more than the {each} devices of "
            "a machine: keys and values go over the network in each block.",
            f"Keep tensor × context within {each}.",
        )
    if layout.world_size > each and each % layout.tensor and layout.tensor < each:
        yield Finding(
            "group across machines",
            "warning",
            None,
            f"parallel.tensor {layout.tensor} does not divide the {each} devices of a machine: some groups lie on two.",
            f"Use a divisor of {each}.",
        )


def bubble(situation: Situation) -> Iterator[Finding]:
    """Pipeline ranks that wait for a good part of a step."""
    layout, batch = situation.layout, situation.batch
    if layout.pipeline == 1 or situation.bubble_share <= LONG_WAIT:
        return
    yield Finding(
        "long bubble",
        "warning",
        None,
        f"parallel.pipeline {layout.pipeline} with {batch.gradient_accumulation_steps} micro-batches a step: ranks "
        f"wait {situation.bubble_share:.0%} of the time, about (p − 1) / (m + p − 1) with one stage a rank.",
        "Use more micro-batches (a smaller training.micro_batch_size or a larger global batch), "
        "parallel.pipeline_schedule=interleaved, or fewer pipeline ranks.",
    )


def compiled(situation: Situation) -> Iterator[Finding]:
    """Blocks that are not compiled on hardware that gains by it."""
    if situation.on_accelerator and not situation.config.training.compile:
        yield Finding(
            "not compiled",
            "note",
            None,
            "training.compile is false: norms, activations and the rotation of heads are many small kernels.",
            "Leave training.compile on, unless the pipeline schedule forbids it.",
        )


def _save_memory(situation: Situation) -> str:
    training, layout = situation.config.training, situation.layout
    ways = []
    if situation.batch.micro_batch_size > 1:
        ways.append(f"training.micro_batch_size={situation.batch.micro_batch_size // 2}")
    if training.recompute != "full":
        ways.append(f"training.recompute={'selective' if training.recompute == 'none' else 'full'}")
    if layout.replicate > 1:
        ways.append("parallel.replicate=1")
    return f"Set {' or '.join(ways)}." if ways else "Use more devices, or larger ones."
