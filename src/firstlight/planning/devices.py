"""The accelerators that the planner knows, as data.

Peaks are dense (no sparsity) figures of the vendors' data sheets, checked against the tables of stas00/ml-engineering
(compute/accelerator), torchtitan (tools/utils.py), Composer (callbacks/speed_monitor.py) and nanochat (common.py). The
best matrix product that somebody measured is ml-engineering's MAMF ("maximum achievable matmul FLOPS"); attention is
FlashAttention-2 as measured in Azure's AI-benchmarking-guide. Links and networks are the usual ones of a machine of
eight (NVLink and InfiniBand generations of the DGX data sheets): bytes a second that one accelerator sends, which is
half of what vendors print for both directions. Power is the data sheet's board power. Prices are what was asked for an
hour on demand, with where and when it was read: they change, and a contract costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True, slots=True)
class Price:
    """What an accelerator costs for an hour."""

    low_usd_per_hour: float
    high_usd_per_hour: float
    date: str
    """When it was read: year, or year and month."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An accelerator, and the machine and network it usually sits in. None: not known."""

    name: str
    bf16_flops: float | None
    """Dense peak of bf16 matrix products, FLOP/s; None where there are none."""
    fp16_flops: float | None = None
    fp8_flops: float | None = None
    fp32_flops: float | None = None
    """Peak of true fp32 (not TF32), FLOP/s."""
    matmul_flops: float | None = None
    """Best 16-bit matrix product that was measured, FLOP/s."""
    matmul_fp8_flops: float | None = None
    attention_flops: float | None = None
    """Fused attention as it was measured, FLOP/s."""
    memory_bytes: float | None
    """As vendors count: 80 GB is 80e9."""
    memory_bytes_per_second: float | None
    link_bytes_per_second: float
    """To others in its machine, one direction."""
    devices_per_node: int = 8
    """How many such a link usually joins."""
    network_bytes_per_second: float
    """Of the network between machines, for each accelerator, one direction."""
    power_watts: float | None = None
    """Board power."""
    price: Price | None = None


_A100_PRICE = Price(0.80, 3.00, "2026-05", "mercatus-ai.com, comparison of clouds")
_H100_PRICE = Price(1.99, 5.00, "2026-05", "mercatus-ai.com, comparison of clouds")
_H200_PRICE = Price(2.50, 7.00, "2026-05", "mercatus-ai.com, comparison of clouds")
_MPT_PRICE = Price(2.00, 2.00, "2023-05", "MosaicML, training of MPT-7B")
_DEEPSEEK_PRICE = Price(2.00, 2.00, "2024-12", "DeepSeek-V3, arXiv:2412.19437")


def _device(
    name: str,
    bf16: float | None,
    fp8: float | None,
    memory_gb: float | None,
    memory_tb_per_second: float | None,
    *,
    link_gb: float,
    network_gb: float,
    watts: float | None = None,
    fp16: float | None = None,
    fp32: float | None = None,
    matmul: float | None = None,
    matmul_fp8: float | None = None,
    attention: float | None = None,
    per_node: int = 8,
    price: Price | None = None,
) -> Device:
    """A row in the units of data sheets: TFLOP/s, GB, TB/s, GB/s."""

    def scaled(value: float | None, unit: float) -> float | None:
        return None if value is None else value * unit

    return Device(
        name=name,
        bf16_flops=scaled(bf16, TERA),
        fp16_flops=scaled(fp16, TERA),
        fp8_flops=scaled(fp8, TERA),
        fp32_flops=scaled(fp32, TERA),
        matmul_flops=scaled(matmul, TERA),
        matmul_fp8_flops=scaled(matmul_fp8, TERA),
        attention_flops=scaled(attention, TERA),
        memory_bytes=scaled(memory_gb, GIGA),
        memory_bytes_per_second=scaled(memory_tb_per_second, TERA),
        link_bytes_per_second=link_gb * GIGA,
        devices_per_node=per_node,
        network_bytes_per_second=network_gb * GIGA,
        power_watts=watts,
        price=price,
    )


_HOPPER: dict[str, Any] = {"fp32": 67, "matmul": 794.5, "link_gb": 450, "network_gb": 50, "watts": 700}
_AMPERE: dict[str, Any] = {
    "fp16": 312,
    "fp32": 19.5,
    "matmul": 271.2,
    "attention": 179.5,
    "link_gb": 300,
    "network_gb": 25,
}
_INSTINCT: dict[str, Any] = {"link_gb": 448, "network_gb": 50}

_TABLE = (
    # Of several of one family the first is meant where nothing else is said.
    _device("a100-80gb-sxm", 312, None, 80, 2.0, watts=400, price=_A100_PRICE, **_AMPERE),
    _device("a100-40gb-sxm", 312, None, 40, 1.6, watts=400, price=_MPT_PRICE, **_AMPERE),
    _device(
        "a100-80gb-pcie",
        312,
        None,
        80,
        1.94,
        watts=300,
        **_AMPERE | {"matmul": 252.9, "link_gb": 32, "network_gb": 12.5},
    ),
    _device(
        "a100-40gb-pcie",
        312,
        None,
        40,
        1.56,
        watts=250,
        **_AMPERE | {"matmul": 252.9, "link_gb": 32, "network_gb": 12.5},
    ),
    _device("a800-80gb-sxm", 312, None, 80, 2.0, watts=400, **_AMPERE | {"link_gb": 200}),
    _device(
        "h100-80gb-sxm",
        989,
        1979,
        80,
        3.35,
        fp16=989,
        matmul_fp8=1402.6,
        attention=327.9,
        price=_H100_PRICE,
        **_HOPPER,
    ),
    _device("h100-96gb-sxm", 989, 1979, 96, 2.4, fp16=989, attention=327.9, **_HOPPER | {"watts": 500, "matmul": None}),
    _device("h100-80gb-pcie", 756, 1513, 80, 2.0, fp16=756, fp32=51, link_gb=64, network_gb=25, watts=350),
    _device("h100-94gb-nvl", 835, 1671, 94, 3.9, fp16=835, fp32=60, link_gb=300, network_gb=25, watts=400, per_node=2),
    _device(
        "h800-80gb-sxm",
        989,
        1979,
        80,
        3.35,
        fp16=989,
        attention=327.9,
        price=_DEEPSEEK_PRICE,
        **_HOPPER | {"link_gb": 200},
    ),
    _device(
        "h200-141gb-sxm",
        989,
        1979,
        141,
        4.8,
        fp16=989,
        matmul_fp8=1453.4,
        attention=329.3,
        price=_H200_PRICE,
        **_HOPPER,
    ),
    _device(
        "h200-141gb-nvl", 836, 1671, 141, 4.8, fp16=836, fp32=60, link_gb=450, network_gb=50, watts=600, per_node=4
    ),
    _device("h20-96gb-sxm", 148, 296, 96, 4.0, fp16=148, fp32=44, link_gb=450, network_gb=50, watts=400),
    _device("gh200", 989, 1979, 96, 4.0, fp16=989, matmul_fp8=1535.0, per_node=1, **_HOPPER | {"matmul": 828.6}),
    _device("b100", 1800, 3500, 192, 8.0, fp16=1800, link_gb=900, network_gb=50, watts=700),
    _device(
        "b200", 2250, 4500, 180, 8.0, fp16=2250, matmul=1745, matmul_fp8=3432.5, link_gb=900, network_gb=50, watts=1000
    ),
    _device(
        "b300", 2250, 4500, 288, 8.0, fp16=2250, matmul=1769, matmul_fp8=3353.3, link_gb=900, network_gb=100, watts=1100
    ),
    _device(
        "gb200",
        2500,
        5000,
        186,
        8.0,
        fp16=2500,
        matmul=1822,
        matmul_fp8=3615.6,
        link_gb=900,
        network_gb=50,
        watts=1200,
        per_node=72,
    ),
    _device("gb300", 2500, 5000, 288, 8.0, fp16=2500, link_gb=900, network_gb=100, watts=1400, per_node=72),
    _device("v100-32gb-sxm", None, None, 32, 0.9, fp16=125, fp32=15.7, link_gb=150, network_gb=12.5, watts=300),
    _device("v100-16gb-sxm", None, None, 16, 0.9, fp16=125, fp32=15.7, link_gb=150, network_gb=12.5, watts=300),
    _device("v100-32gb-pcie", None, None, 32, 0.9, fp16=112, fp32=14, link_gb=16, network_gb=6.25, watts=250),
    _device("v100-16gb-pcie", None, None, 16, 0.9, fp16=112, fp32=14, link_gb=16, network_gb=6.25, watts=250),
    _device("v100s-32gb-pcie", None, None, 32, 1.13, fp16=130, fp32=16.4, link_gb=16, network_gb=6.25, watts=250),
    _device("t4", None, None, 16, 0.32, fp16=65, fp32=8.1, link_gb=16, network_gb=3.1, watts=70),
    _device("a10", 125, None, 24, 0.6, fp16=125, fp32=31.2, link_gb=32, network_gb=6.25, watts=150),
    _device("a10g", 70, None, 24, 0.6, fp16=70, fp32=31.5, link_gb=32, network_gb=6.25, watts=300),
    _device("a30", 165, None, 24, 0.93, fp16=165, fp32=10.3, link_gb=32, network_gb=12.5, watts=165),
    _device("a40", 149.7, None, 48, 0.7, fp16=149.7, fp32=37.4, link_gb=32, network_gb=12.5, watts=300),
    _device("rtx-a6000", 154.8, None, 48, 0.77, fp16=154.8, fp32=38.7, link_gb=32, network_gb=1.25, watts=300),
    _device("l4", 121, 242.5, 24, 0.3, fp16=121, fp32=30.3, link_gb=32, network_gb=6.25, watts=72),
    _device("l40", 181, 362, 48, 0.86, fp16=181, fp32=90.5, link_gb=32, network_gb=12.5, watts=300),
    _device("l40s", 362, 733, 48, 0.86, fp16=362, fp32=91.6, link_gb=32, network_gb=25, watts=350),
    _device("rtx-3090", 71, None, 24, 0.94, fp16=71, fp32=35.6, link_gb=32, network_gb=1.25, watts=350),
    _device("rtx-4090", 165.2, 330.3, 24, 1.01, fp16=165.2, fp32=82.6, link_gb=32, network_gb=1.25, watts=450),
    _device("rtx-5090", 209.5, 419, 32, 1.79, fp16=209.5, fp32=104.8, link_gb=64, network_gb=1.25, watts=575),
    _device("mi250", 362.1, None, 128, 3.28, fp16=362.1, fp32=45.3, link_gb=350, network_gb=25, watts=560),
    _device("mi250x", 383, None, 128, 3.28, fp16=383, fp32=47.9, link_gb=350, network_gb=25, watts=560),
    _device("mi300a", 980.6, 1961, 128, 5.3, fp16=980.6, fp32=122.6, watts=760, per_node=4, **_INSTINCT),
    _device("mi300x", 1307.4, 2614.9, 192, 5.3, fp16=1307.4, fp32=163.4, matmul=668.4, watts=750, **_INSTINCT),
    _device("mi325x", 1307.4, 2614.9, 256, 6.0, fp16=1307.4, fp32=163.4, matmul=784.9, watts=1000, **_INSTINCT),
    _device("mi350x", 2307, 4614, 288, 8.0, fp16=2307, fp32=144.2, watts=1000, **_INSTINCT | {"link_gb": 538}),
    _device(
        "mi355x", 2500, 5000, 288, 8.0, fp16=2500, fp32=157.3, matmul=1565, watts=1400, **_INSTINCT | {"link_gb": 538}
    ),
    _device("gaudi2", 432, 865, 96, 2.45, link_gb=262.5, network_gb=37.5, watts=600),
    _device("gaudi3", 1835, 1835, 128, 3.7, link_gb=525, network_gb=75, watts=900),
    _device("tpu-v2", 45, None, 16, 0.7, link_gb=62, network_gb=62, per_node=4),
    _device("tpu-v3", 123, None, 32, 0.9, link_gb=82, network_gb=82, watts=262, per_node=4),
    _device("tpu-v4", 275, None, 32, 1.2, link_gb=150, network_gb=150, watts=192, per_node=4),
    _device("tpu-v5e", 197, None, 16, 0.82, link_gb=100, network_gb=100, per_node=8),
    _device("tpu-v5p", 459, None, 95, 2.76, link_gb=300, network_gb=300, per_node=4),
    _device("tpu-v6e", 918, 918, 32, 1.64, link_gb=224, network_gb=224, per_node=8),
    _device("tpu-v7x", 2307, 4614, 192, 7.37, link_gb=600, network_gb=600, per_node=4),
)

DEVICES: dict[str, Device] = {device.name: device for device in _TABLE}
"""By name."""
