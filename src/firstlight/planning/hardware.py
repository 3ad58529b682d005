"""Peak arithmetic rates: published dense figures for accelerators, a measurement for everything else.

Figures are dense (no sparsity) FLOP/s from the vendors' data sheets. A CPU has no such figure that holds, so its
peak is the best matrix product it shows here and now; MFU on a CPU is a share of that.
"""

from __future__ import annotations

import time

import torch

# FLOP/s of bf16/fp16 matrix products; the first name found in the device's name counts, so longer ones come first.
_DENSE_BF16 = (
    ("gb300", 2.5e15),
    ("gb200", 2.5e15),
    ("b300", 2.25e15),
    ("b200", 2.25e15),
    ("h200", 989e12),
    ("h100 pcie", 756e12),
    ("h100 nvl", 835e12),
    ("h100", 989e12),
    ("h20", 148e12),
    ("a100", 312e12),
    ("l40s", 362e12),
    ("v100", 125e12),
    ("rtx 4090", 165.2e12),
    ("rtx 5090", 209.5e12),
    ("mi355x", 2.5e15),
    ("mi325x", 1.3e15),
    ("mi300x", 1.3e15),
)


def published_peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of an accelerator by its name, or None when it is not in the table."""
    name = device_name.lower().replace("-", " ")
    return next((peak for key, peak in _DENSE_BF16 if key in name), None)


def measured_peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.4) -> float:
    """Best FLOP/s of square matrix products (1024³) in `dtype` within about `seconds`."""
    size = 1024
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline or best == float("inf"):
        start = time.perf_counter()
        product = a @ b
        product[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
