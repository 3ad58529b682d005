"""Devices are found by any usual spelling, wrong ones are refused in a sentence, and figures agree with each other."""

import math

import pytest
import torch

from firstlight.planning.devices import DEVICES
from firstlight.planning.hardware import (
    attention_rate,
    cpu_device,
    device_from,
    find_device,
    load_device,
    matmul_rate,
    measured_peak_flops,
    peak_of,
    published_peak_flops,
)
from firstlight.support.errors import ConfigError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("a100", "a100-80gb-sxm"),
        ("a100-80g", "a100-80gb-sxm"),
        ("A100-SXM4-80GB", "a100-80gb-sxm"),
        ("a100_40gb", "a100-40gb-sxm"),
        ("A100-PCIe", "a100-80gb-pcie"),
        ("A100-40GB-SXM", "a100-40gb-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb-sxm"),
        ("NVIDIA H100 PCIe", "h100-80gb-pcie"),
        ("H100 96GB HBM2e 2.4TB/s 500W", "h100-96gb-sxm"),
        ("h100-nvl", "h100-94gb-nvl"),
        ("h200", "h200-141gb-sxm"),
        ("B200", "b200"),
        ("mi300x", "mi300x"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("TPUv5e", "tpu-v5e"),
        ("tpu v4", "tpu-v4"),
        ("RTX4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla V100-SXM2-16GB", "v100-16gb-sxm"),
        ("a6000", "rtx-a6000"),
    ],
)
def test_spellings(spelling, name):
    assert find_device(spelling).name == name


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_is_found_by_its_own_name_and_is_consistent(name):
    device = find_device(name)
    assert device is DEVICES[name]
    precision = "bf16" if device.bf16_flops else "fp16"
    assert 0 < attention_rate(device, precision) < matmul_rate(device, precision) < peak_of(device, precision)
    if device.fp8_flops:
        assert matmul_rate(device, precision) <= matmul_rate(device, "fp8") < device.fp8_flops
    assert device.network_bytes_per_second <= device.link_bytes_per_second < device.memory_bytes_per_second
    assert 1e9 < device.memory_bytes < 1e12
    assert device.price is None or device.price.low_usd_per_hour <= device.price.high_usd_per_hour


@pytest.mark.parametrize("name", ["a1000", "a100-81gb", "h100-foo", "k80", ""])
def test_unknown_devices_are_refused_with_the_known_ones(name):
    with pytest.raises(ConfigError, match=r"is not known.*a100-80gb-sxm"):
        find_device(name)


def test_a_slip_is_guessed():
    with pytest.raises(ConfigError, match="Did you mean 'mi300x'"):
        find_device("mi300")


@pytest.mark.parametrize(
    ("driver", "peak"),
    [
        ("NVIDIA A100-SXM-64GB", 312e12),
        ("NVIDIA H200 NVL", 836e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("Tesla V100-PCIE-32GB", 112e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("Tesla K80", None),
    ],
)
def test_peaks_by_the_names_of_drivers(driver, peak):
    assert published_peak_flops(driver) == peak


def test_precisions_that_a_device_lacks_are_refused():
    with pytest.raises(ConfigError, match="no bf16"):
        peak_of(find_device("v100"), "bf16")
    with pytest.raises(ConfigError, match="no fp8"):
        matmul_rate(find_device("a100"), "fp8")
    assert peak_of(find_device("v100"), "fp16") == 125e12


def test_a_device_of_ones_own_starts_from_a_known_one(tmp_path):
    file = tmp_path / "ours.yaml"
    file.write_text("like: h100\nmemory_bytes: 64e9\nprice: [1, 2.5]\n", encoding="utf-8")
    device = load_device(str(file))
    assert (device.name, device.memory_bytes) == ("ours", 64e9)
    assert device.bf16_flops == find_device("h100").bf16_flops
    assert (device.price.low_usd_per_hour, device.price.high_usd_per_hour) == (1, 2.5)
    assert load_device("h100") is find_device("h100")


def test_a_device_from_nothing_needs_its_main_figures():
    figures = {"bf16_flops": 1e14, "memory_bytes": 32e9, "memory_bytes_per_second": 1e12}
    device = device_from(figures, name="new")
    assert matmul_rate(device, "bf16") < 1e14
    for name in figures:
        with pytest.raises(ConfigError, match=f"{name} is missing"):
            device_from({key: value for key, value in figures.items() if key != name}, name="new")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"like": "h100", "memory": 1}, "memory is not a field"),
        ({"like": "h100", "memory_bytes": -1}, "a number above 0 is due"),
        ({"like": "h100", "memory_bytes": "much"}, "a number above 0 is due"),
        ({"like": "h100", "memory_bytes": True}, "a number above 0 is due"),
        ({"like": "h100", "price": [3, 2]}, "low end above its high end"),
        ({"like": "nothing"}, "is not known"),
    ],
)
def test_wrong_fields_are_named(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        device_from(values, name="new")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        load_device(str(tmp_path / "absent.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("[1, 2", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_device(str(broken))
    broken.write_text("- a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="field: value"):
        load_device(str(broken))


def test_processes_on_a_cpu_share_it():
    flops = measured_peak_flops(torch.device("cpu"), torch.float32, seconds=0.05)
    assert math.isfinite(flops) and flops > 1e8
    one, four = cpu_device(flops, 16e9), cpu_device(flops, 16e9, processes=4)
    assert matmul_rate(one, "fp32") == 4 * matmul_rate(four, "fp32")
    assert one.memory_bytes == 4 * four.memory_bytes
