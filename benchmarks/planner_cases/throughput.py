"""Answers to published speeds and run lengths, and by hardware_cases to data sheets and prices.

A figure named (identity) follows from others of its case by the definition that its source gives; one named (predicted)
comes from hardware and layout alone, with constants that were fitted on runs on other chips
(`benchmarks/calibrate_throughput.py` writes left_out.json).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.conventions import (
    hardware_flops_utilization,
    korthikanti_hardware,
    korthikanti_model,
    megatron_2021_hardware,
    megatron_lm,
    megatron_parameters,
    model_flops_utilization,
    palm,
    with_full_recompute,
)
from firstlight.planning.hardware import find_device
from firstlight.planning.shape import Shape
from firstlight.planning.typical import typical_device_hours
from firstlight.support.errors import ConfigError
from planner_cases import hardware_cases
from planner_cases.answer import Answer, Case, Comparison, UnansweredError
from planner_cases.described import Run, llama_3, runs_of
from planner_cases.figures import compare
from planner_cases.memory import activations_of_korthikanti

H100_HALF_OF_SPARSE = 989.5e12
"""llm-foundry's peak of an H100 in bf16: half of the data sheet's 1,979 TFLOP/s."""
NOT_ONLY_STEPS = re.compile(r"meta-llama/llama-models@|incl\. restarts|not.{0,12}calibrat", re.IGNORECASE)
"""Sources that count more than the run's steps in its hours: Llama 3's model cards (all training of the family, at 14 %
to 26 % MFU where the paper has 38 % to 43 %), and where source or note says so."""
LEFT_OUT = Path(__file__).with_name("left_out.json")
SHAPES = {
    "qwen3-30b-a3b": Shape(
        num_hidden_layers=48,
        hidden_size=2048,
        num_attention_heads=32,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=6144,
        gated=True,
        vocab_size=151936,
        experts=128,
        experts_per_token=8,
        expert_size=768,
    ),
    "qwen3-235b-a22b": Shape(
        num_hidden_layers=94,
        hidden_size=4096,
        num_attention_heads=64,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=12288,
        gated=True,
        vocab_size=151936,
        experts=128,
        experts_per_token=8,
        expert_size=1536,
    ),
}
"""Mixtures of experts of Megatron-Bridge's table, from their config.json on Hugging Face."""


def chip(name: str) -> str:
    """a100-80gb-sxm → a100: what is left out of a fit together."""
    return name.split("-")[0]


@functools.cache
def calibration_without(name: str) -> Calibration:
    """Constants fitted on all chips but that of a device; the shipped ones where it had no part in them."""
    fits = json.loads(LEFT_OUT.read_text(encoding="utf-8"))
    return Calibration(**fits[chip(name)]) if chip(name) in fits else DEFAULT


def throughput_measured(case: Case) -> list[Comparison]:
    """Speeds that benchmarks printed."""
    found = list(_llm_foundry(case)) if "d_model" in case["inputs"] else []
    if "model_tflops_gpu" in case["published"]:
        found += _megatron_bridge(case)
    try:
        found += [_predicted(run, run.tokens_per_second) for run in runs_of(case)]
    except UnansweredError:
        if not found:
            raise
    return found


def throughput(case: Case) -> list[Comparison]:
    """Speeds that papers printed, as FLOP/s or seconds."""
    inputs = case["inputs"]
    if "iter_s" in inputs:
        return [*_korthikanti(case, inputs["iter_s"]), *_predictions(case)]
    if "cp" in inputs:
        return [*_llama_3(case), *_predictions(case)]
    if "recompute" in inputs:
        return [*_megatron_2021(case), *_predictions(case)]
    raise UnansweredError(f"no formula for inputs {', '.join(inputs)}")


def throughput_and_activation(case: Case) -> list[Comparison]:
    """Utilisation and activations of Korthikanti et al.'s tables, and their speeds predicted."""
    published = case["published"]
    found = list(_korthikanti(case, published["iter_s_seq_par_selective"]))
    if "iter_s_full_recompute" in published:
        gain = 100 * (published["iter_s_full_recompute"] / published["iter_s_seq_par_selective"] - 1)
        found.append(
            Comparison("published.throughput_gain_pct", published["throughput_gain_pct"], gain, case.get("tolerance"))
        )
    return [*found, *activations_of_korthikanti(case), *_predictions(case)]


def run_hours(case: Case) -> list[Comparison]:
    """Device-hours of whole runs: predicted from N, D and the device, and the identities of what was derived."""
    inputs, hours = case["inputs"], case["published"]["gpu_hours"]
    flops, seconds = 6 * inputs["N"] * inputs["D"], 3600 * hours
    identities = {
        "6ND": flops,
        "tflops_per_gpu_6ND": flops / seconds / 1e12,
        "mfu_6ND": flops / seconds / inputs["peak_dense_16bit"],
        "tok_s_gpu": inputs["D"] / seconds,
    }
    derived = case.get("derived", {})
    found = [
        compare(case, name, value, where="derived", exact=True) for name, value in identities.items() if name in derived
    ]
    try:
        device = find_device(inputs["gpu"])
    except ConfigError as unknown:
        raise UnansweredError(str(unknown)) from unknown
    expected = typical_device_hours(
        inputs["N"], inputs["D"], device, calibration=calibration_without(device.name)
    ).typical
    kind = "predicted" if only_steps(case) else "more than its steps"
    return [*found, Comparison(f"published.gpu_hours ({kind})", hours, expected)]


def only_steps(case: Case) -> bool:
    """Whether the hours of a run are those of its steps, as far as its source says."""
    return not NOT_ONLY_STEPS.search(f"{case['source']} {case.get('note', '')}")


def _llm_foundry(case: Case) -> Iterator[Comparison]:
    inputs, published = case["inputs"], case["published"]
    device = find_device(inputs["gpu"])
    assert device.bf16_flops is not None
    peak = H100_HALF_OF_SPARSE if chip(device.name) == "h100" else device.bf16_flops
    if "fp8" in inputs["precision"]:
        assert device.fp8_flops is not None
        peak = device.fp8_flops
    model = palm(inputs["N"], inputs["layers"], inputs["d_model"], inputs["seq"])
    hardware = with_full_recompute(model) if inputs["act_ckpt"] else model
    speed, tolerance = published["tok_s_gpu"], case.get("tolerance", 0.01)
    mfu, hfu = model_flops_utilization(model, speed, 1, peak), hardware_flops_utilization(hardware, speed, 1, peak)
    yield Comparison("published.mfu_pct (identity)", published["mfu_pct"], 100 * mfu, tolerance)
    yield Comparison("published.hfu_pct (identity)", published["hfu_pct"], 100 * hfu, tolerance)


def _megatron_bridge(case: Case) -> list[Comparison]:
    inputs, published = case["inputs"], case["published"]
    per_token = published["model_tflops_gpu"] * 1e12 / published["tok_s_gpu"]
    found = []
    if "flops_per_token" in case.get("derived", {}):
        found.append(compare(case, "flops_per_token", per_token, where="derived", exact=True))
    name, length = inputs["model"], inputs["seq"]
    shape = SHAPES.get(name)
    if shape is None:
        try:
            shape = Shape.of(llama_3(name, length))
        except UnansweredError:
            return found
    tflops = megatron_lm(shape, length) * published["tok_s_gpu"] / 1e12
    # Speeds are printed in steps of up to 2 % of themselves.
    return [*found, Comparison("published.model_tflops_gpu (identity)", published["model_tflops_gpu"], tflops, 0.03)]


def _megatron_2021(case: Case) -> Iterator[Comparison]:
    inputs, published, derived = case["inputs"], case["published"], case.get("derived", {})
    hidden, layers, vocab, length = inputs["hidden"], inputs["layers"], inputs["vocab"], inputs["seq"]
    assert inputs["recompute"] == "full", "equation 3 is for full recomputation"
    rate, peak = published["tflops_per_gpu"] * 1e12, find_device(inputs["gpu"]).bf16_flops
    assert peak is not None
    parameters = megatron_parameters(layers, hidden, vocab, length) / 1e9
    yield compare(case, "params_B", parameters, exact=True)
    tolerance = case["tolerance"]["pct_peak_abs"] / published["pct_peak"]
    yield Comparison("published.pct_peak (identity, HFU)", published["pct_peak"], 100 * rate / peak, tolerance)
    # Its product of two rounded figures is rounded once more.
    rounding = 0.5 / published["tflops_per_gpu"] + 0.05 / published["agg_pflops"]
    yield Comparison("published.agg_pflops", published["agg_pflops"], rate * inputs["gpus"] / 1e15, rounding)
    speed = rate / megatron_2021_hardware(layers, hidden, vocab, length)
    identities = {
        "params_B": parameters,
        "iter_s": inputs["global_batch"] * length / speed / inputs["gpus"],
        "tok_per_s_per_gpu": speed,
        "true_mfu_72": model_flops_utilization(korthikanti_model(layers, hidden, vocab, length), speed, 1, peak),
    }
    for name, value in identities.items():
        if name in derived:
            yield compare(case, name, value, where="derived", exact=True)


def _llama_3(case: Case) -> Iterator[Comparison]:
    inputs, published, derived = case["inputs"], case["published"], case.get("derived", {})
    mfu = published["tflops_per_gpu"] * 1e12 / inputs["peak"]
    yield Comparison("published.mfu_pct (identity)", published["mfu_pct"], 100 * mfu, case.get("tolerance"))
    # Of a context-parallel run each data-parallel rank reads whole sequences.
    tokens = inputs["seq"] * inputs["batch_per_dp"] * inputs["dp"]
    for name, value in (("tokens_per_batch", tokens), ("tf_over_989.5", mfu)):
        if name in derived:
            yield compare(case, name, value, where="derived", exact=True)


def _korthikanti(case: Case, seconds: float) -> Iterator[Comparison]:
    run = next(iter(runs_of(case)))
    sizes = run.model.num_hidden_layers, run.model.hidden_size, run.model.vocab_size or 0, run.sequence_length
    inputs, published, derived = case["inputs"], case["published"], case.get("derived", {})
    devices, peak = inputs["gpus"], inputs.get("peak", 312e12)
    tokens = inputs["global_batch"] * run.sequence_length
    model, recomputing = korthikanti_model(*sizes), korthikanti_hardware(*sizes)
    figures = {
        "mfu_pct": 100 * model_flops_utilization(model, tokens / seconds, devices, peak),
        "hfu_pct": 100 * hardware_flops_utilization(recomputing, tokens / seconds, devices, peak),
    }
    if "iter_s_full_recompute" in published:
        slower = tokens / published["iter_s_full_recompute"]
        figures["mfu_full_recompute_pct"] = 100 * model_flops_utilization(model, slower, devices, peak)
    for name, value in figures.items():
        if name in published:
            yield Comparison(f"published.{name} (identity)", published[name], value, case.get("tolerance"))
        if name in derived:
            yield compare(case, name, value, where="derived", exact=True)


def _predictions(case: Case) -> list[Comparison]:
    return [_predicted(run, run.tokens_per_second) for run in runs_of(case)]


def _predicted(run: Run, measured: float) -> Comparison:
    """In tokens a second and device, whatever the case printed."""
    step = run.predict(run.predictor(calibration_without(run.device.name)))
    return Comparison(f"published.{run.what} (predicted)", measured, step.tokens_per_second_per_device)


ANSWERS: dict[str, Answer] = {
    "throughput-measured": throughput_measured,
    "throughput": throughput,
    "throughput+activation": throughput_and_activation,
    "run-hours": run_hours,
    **hardware_cases.ANSWERS,
}
