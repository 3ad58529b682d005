"""How many tokens a model wants and what training it takes, from two numbers: the estimates of a first afternoon.

No layout and no network here, only C = 6·N·D and a share of the peak that published runs reached. `firstlight plan`
knows more and says more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firstlight.planning.devices import Device
from firstlight.planning.hardware import find_device
from firstlight.planning.ranges import Range
from firstlight.planning.scaling_laws import TOKENS_PER_PARAMETER, Allocation
from firstlight.support.errors import ConfigError

BYTES_PER_PARAMETER = 2.0
"""Of weights in bf16 or fp16, as checkpoints for inference have them."""
UTILIZATION_A100 = Range(0.40, 0.45, 0.50)
"""MFU (6·N·D) of a well-tuned dense run. LLaMA on A100: 43 % at 7B, 51 % at 13B, 46 % at 33B, 48 % at 65B
(arXiv 2302.13971, table 15)."""
UTILIZATION = Range(0.30, 0.40, 0.50)
"""The same elsewhere: faster devices are harder to feed. H100: 26 % (SmolLM3 3B), 31 % (OLMo 3 32B, all hours billed),
50 % (nanochat)."""


@dataclass(frozen=True, slots=True)
class ChinchillaOptimal(Allocation):
    """Parameters and tokens of `chinchilla_optimal`; `flops` is 6·N·D."""

    model_size_gb: float

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e9:,.4g} billion parameters ({self.model_size_gb:,.4g} GB of weights): "
            f"{self.tokens / 1e9:,.4g} billion tokens, {self.flops:.3g} FLOPs"
        )


def chinchilla_optimal(
    model_size_gb: float,
    tokens_per_param: float = TOKENS_PER_PARAMETER,
    *,
    bytes_per_param: float = BYTES_PER_PARAMETER,
) -> ChinchillaOptimal:
    """Tokens that a model of this size should read for the best loss of its compute.

    model_size_gb: size of its weights in GB (10⁹ bytes), at `bytes_per_param` each: 14 for 7 billion parameters in 16
    bits, 28 in fp32 with bytes_per_param=4. It is not billions of parameters. tokens_per_param: Hoffmann et al. 2022
    find about 20, and hundreds are usual for models that are meant to be used much. ConfigError unless all are
    positive.
    """
    _positive(model_size_gb=model_size_gb, tokens_per_param=tokens_per_param, bytes_per_param=bytes_per_param)
    parameters = model_size_gb * 1e9 / bytes_per_param
    return ChinchillaOptimal(parameters, parameters * tokens_per_param, model_size_gb)


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """What `estimate_training_resources` found. Ranges are low, typical, high."""

    parameters: float
    tokens: float
    flops: float
    """Model FLOPs, 6·N·D."""
    device: str
    utilization: Range
    """Share of the device's dense 16-bit peak that model FLOPs reach."""
    gpu_hours: Range
    usd: Range | None
    """gpu_hours times the price of an hour; None: no price is known."""

    def days(self, gpus: int) -> Range:
        """From start to end on so many devices, if speed grows with their number."""
        _positive(gpus=gpus)
        return self.gpu_hours.times(1 / (24 * gpus))

    def gpus_for(self, days: float) -> int:
        """Devices that finish within so many days at the typical utilisation."""
        _positive(days=days)
        return math.ceil(self.gpu_hours.typical / (24 * days))

    def __str__(self) -> str:
        hours, money = self.gpu_hours, self.usd
        cost = f", {money.low:,.0f} to {money.high:,.0f} $" if money else ""
        return (
            f"{self.parameters / 1e9:,.4g} billion parameters, {self.tokens / 1e12:,.4g} trillion tokens: "
            f"{self.flops:.3g} FLOPs, {hours.low:,.0f} to {hours.high:,.0f} hours of one {self.device}{cost}"
        )


def estimate_training_resources(
    model_size_b: float,
    tokens_t: float,
    *,
    gpu: str | Device = "a100-80g",
    utilization: float | tuple[float, float, float] | None = None,
    usd_per_gpu_hour: float | None = None,
) -> TrainingEstimate:
    """Compute, GPU-hours and cost of training.

    model_size_b: billions of parameters (of a mixture of experts those that a token passes). tokens_t: trillions of
    tokens. gpu: a name that `find_device` knows, or a Device. utilization: MFU, one figure or (low, typical, high),
    each above 0 and up to 1; unset: what published runs reach. usd_per_gpu_hour: unset, the device's published prices.
    ConfigError for a size that is not positive, an unknown gpu, or one without a 16-bit peak.
    """
    _positive(model_size_b=model_size_b, tokens_t=tokens_t)
    device = find_device(gpu) if isinstance(gpu, str) else gpu
    peak = device.bf16_flops or device.fp16_flops
    if peak is None:
        raise ConfigError(f"gpu {device.name} has no 16-bit peak that is known; describe it with bf16_flops.")
    shares = _utilization(utilization, device)
    parameters, tokens = model_size_b * 1e9, tokens_t * 1e12
    flops = Allocation(parameters, tokens).flops
    hours = flops / peak / 3600
    gpu_hours = Range(hours / shares.high, hours / shares.typical, hours / shares.low)
    usd = _cost(gpu_hours, device, usd_per_gpu_hour)
    return TrainingEstimate(parameters, tokens, flops, device.name, shares, gpu_hours, usd)


def training_seconds(flops_per_token: float, tokens: float, devices: int, flops_per_second: float) -> float:
    """Time of a run: FLOPs of all tokens over what all devices do in a second.

    flops_per_second is one device's, and counted like flops_per_token: 8·N where everything is computed again
    (Narayanan et al. 2021, equation 4: 8TP/(nX)), 6·N where nothing is.
    """
    return flops_per_token * tokens / (devices * flops_per_second)


def _utilization(given: float | tuple[float, float, float] | None, device: Device) -> Range:
    if given is None:
        return UTILIZATION_A100 if device.name.startswith("a100") else UTILIZATION
    shares = (given, given, given) if isinstance(given, int | float) else tuple(given)
    if len(shares) != 3 or not 0 < shares[0] <= shares[1] <= shares[2] <= 1:
        raise ConfigError(
            f"utilization {given} must be a share above 0 and up to 1, or three that rise, such as (0.4, 0.45, 0.5)."
        )
    return Range(*shares)


def _cost(hours: Range, device: Device, usd_per_gpu_hour: float | None) -> Range | None:
    if usd_per_gpu_hour is not None:
        _positive(usd_per_gpu_hour=usd_per_gpu_hour)
        return hours.times(usd_per_gpu_hour)
    if device.price is None:
        return None
    low, high = device.price.low_usd_per_hour, device.price.high_usd_per_hour
    return Range(hours.low * low, hours.typical * math.sqrt(low * high), hours.high * high)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (0 < value < math.inf):
            raise ConfigError(f"{name} {value} must be a number above 0.")
