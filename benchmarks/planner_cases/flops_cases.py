"""Answers to cases of FLOPs, utilisation, time, cost, and of the tutorial's two functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from firstlight.planning.conventions import (
    attention_flops,
    bigscience_flops_per_second,
    korthikanti_hardware,
    korthikanti_model,
    megatron_2021_hardware,
    megatron_parameters,
    model_flops_utilization,
    nanogpt,
    palm,
    six_n,
)
from firstlight.planning.estimates import chinchilla_optimal, estimate_training_resources, training_seconds
from firstlight.planning.hardware import find_device
from firstlight.planning.kaplan import PF_DAY
from firstlight.planning.scaling_laws import Allocation
from firstlight.planning.shape import Shape
from planner_cases.answer import Answer, Case, Comparison, UnansweredError
from planner_cases.figures import EXACT, compare, compare_all, evaluate, first

NAMES = {
    "parameters": ("N", "P", "params", "parameters"),
    "tokens": ("D", "tokens"),
    "layers": ("layers", "l", "L", "n_layer"),
    "hidden": ("hidden", "h", "d", "d_model", "n_embd"),
    "heads": ("heads", "a", "n_head"),
    "vocab": ("vocab", "V", "v", "vocab_size"),
    "sequence": ("seq", "s", "T", "block_size", "n_ctx"),
    "devices": ("gpus", "chips", "n"),
    "peak": ("peak", "peak_flops"),
    "speed": ("tok_per_s", "tokens_per_second", "tok_s"),
}
"""What papers call one quantity."""


def _quantities(inputs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: first(inputs, names) for name, names in NAMES.items()}
    if found["parameters"] is None and (billions := first(inputs, ("params_B", "model_B"))) is not None:
        found["parameters"] = 1e9 * billions
    machines = re.match(r"(\d+)x", str(inputs.get("gpus", "")))
    if machines:
        found["devices"] = int(machines[1])
    return {name: value for name, value in found.items() if value is not None}


def flops(case: Case) -> list[Comparison]:
    """FLOPs of one token, or of a whole run, by the conventions."""
    known = _quantities(case["inputs"])
    if not known:
        return _bigscience_rule(case)
    figures: dict[str, float] = {}
    if {"parameters", "tokens"} <= known.keys():
        total = Allocation(known["parameters"], known["tokens"]).flops
        figures |= {"6ND": total, "flops": total, "PF_days": total / PF_DAY}
    if {"layers", "hidden", "vocab", "sequence"} <= known.keys():
        sizes = known["layers"], known["hidden"], known["vocab"], known["sequence"]
        figures |= _of_a_parameter_count(known) if "parameters" in known else _of_a_gpt(case, sizes)
        if "heads" in known and "nanogpt" in case["source"].lower():
            figures |= _of_nanogpt(case, Shape.gpt(sizes[0], sizes[1], known["heads"], *sizes[2:], bias=False), sizes)
    return compare_all(case, figures)


def _of_a_parameter_count(known: Mapping[str, Any]) -> dict[str, float]:
    embedding = known["vocab"] * known["hidden"]
    attention = known["layers"], known["hidden"], known["sequence"]
    blocks = known["parameters"] - embedding
    return {
        "6N": six_n(known["parameters"]),
        "6N_minus_emb": six_n(blocks),
        "attention": attention_flops(*attention),
        "torchtitan_palm_full_attn": palm(blocks, *attention),
        "megatron_causal_half": palm(blocks, *attention, causal=True),
    }


def _of_a_gpt(case: Case, sizes: tuple[int, int, int, int]) -> dict[str, float]:
    parameters = megatron_parameters(*sizes)
    recomputing = megatron_2021_hardware(*sizes)
    figures = {
        "P": parameters,
        "6P_per_tok": six_n(parameters),
        "model_72_per_tok": korthikanti_model(*sizes),
        "hw_full_recompute_96_per_tok": recomputing,
        "hw_selective_72_per_tok": korthikanti_hardware(*sizes),
        "causal_half_per_tok": korthikanti_model(*sizes, causal=True),
    }
    for key in case.get("derived", {}):
        if run := re.fullmatch(r"(\d+)B_tokens_x96", key):
            figures[key] = recomputing * float(run[1]) * 1e9
    return figures


def _of_nanogpt(case: Case, shape: Shape, sizes: tuple[int, int, int, int]) -> dict[str, float]:
    """nanoGPT's notebook of sizes counts one sequence, and a model without biases."""
    training = korthikanti_model(*sizes) * sizes[3]
    words = (
        ("palm", nanogpt(shape, sizes[3]) * sizes[3]),
        ("param", shape.parameters),
        ("fwd", training / 3),
        ("forward", training / 3),
        ("total", training),
    )
    keys = [*case["published"], *case.get("derived", {})]
    return {key: value for key in keys for value in [v for word, v in words if word in key.lower()][:1]}


def _bigscience_rule(case: Case) -> list[Comparison]:
    """TFLOP/s from a model's billions and the seconds of a step, as a formula in text."""
    formula = case["published"].get("tflops")
    if not isinstance(formula, str):
        raise UnansweredError("it gives no quantity that a convention is a function of")
    at = {"model_B": 176.0, "seq": 2048, "gbs": 2048, "sec": 105.0, "gpus": 384}
    rate = bigscience_flops_per_second(at["model_B"] * 1e9, at["seq"] * at["gbs"] / at["sec"]) / at["gpus"]
    return [Comparison("published.tflops at a probe", evaluate(formula, at), rate / 1e12, EXACT)]


def mfu(case: Case) -> list[Comparison]:
    """MFU without attention and with it. HFU depends on what was computed again, which no case says."""
    inputs = case["inputs"]
    known = _quantities(inputs)
    if "speed" not in known and {"iter_s", "batch"} <= inputs.keys() and "sequence" in known:
        known["speed"] = inputs["batch"] * known["sequence"] / inputs["iter_s"]
    known.setdefault("devices", 1)
    if not {"parameters", "speed", "peak"} <= known.keys():
        raise UnansweredError(f"no MFU without parameters, tokens a second and peak; it gives {', '.join(inputs)}")

    def share(flops_per_token: float) -> float:
        return model_flops_utilization(flops_per_token, known["speed"], known["devices"], known["peak"])

    figures = {"mfu_no_attn": share(six_n(known["parameters"]))}
    width = known.get("hidden") or known.get("heads", 0) * inputs.get("head_dim", 0)
    if width and {"layers", "sequence"} <= known.keys():
        figures["mfu"] = share(palm(known["parameters"], known["layers"], width, known["sequence"]))
    return compare_all(case, {**figures, **{f"{key}_pct": 100 * value for key, value in figures.items()}})


def time(case: Case) -> list[Comparison]:
    """Days of a run from its FLOPs: 8TP/(nX) where everything is computed again, else 6TP/(nX)."""
    inputs = case["inputs"]
    known, keys = _quantities(inputs), [*case["published"], *case.get("derived", {})]
    if "tokens" not in known:
        # The run's length is in the name of its column, as days_300B.
        named = next((run for key in keys if (run := re.fullmatch(r"days_(\d+)B", key))), None)
        if named:
            known["tokens"] = float(named[1]) * 1e9
    if {"C", "days", "devices"} <= {*inputs, *known}:
        rate = inputs["C"] / (inputs["days"] * 86400 * known["devices"]) / 1e12
        return compare_all(case, dict.fromkeys(("tflops", "tflops_per_gpu"), rate))
    rate = first(inputs, ("tflops", "tflops_per_gpu"))
    factor = inputs.get("factor", 8)
    if rate is None and "peak" in known and "mfu" in inputs:
        rate, factor = known["peak"] * inputs["mfu"] / 1e12, inputs.get("factor", 6)
    if rate is None or not {"parameters", "tokens", "devices"} <= known.keys():
        raise UnansweredError(f"no time without N, tokens, devices and FLOP/s; it gives {', '.join(inputs)}")
    seconds = training_seconds(factor * known["parameters"], known["tokens"], known["devices"], 1e12 * rate)
    days = seconds / 86400
    named_days = {key: days for key in keys if re.fullmatch(r"days(_\d+B|_eq4)?", key)}
    return compare_all(case, {**named_days, "hours": 24 * days, "gpu_hours": 24 * days * known["devices"]})


def time_and_cost(case: Case) -> list[Comparison]:
    """Hours and dollars of a run whose speed or seconds are printed."""
    inputs, published = case["inputs"], case["published"]
    known = _quantities(inputs)
    devices = known.get("devices", 1)
    keys = [*published, *case.get("derived", {})]
    figures: dict[str, float] = {}
    if {"tokens", "speed"} <= known.keys():
        seconds = known["tokens"] / known["speed"]
    elif "train_s" in published:
        seconds = published["train_s"]
    else:
        raise UnansweredError("neither a speed nor the seconds of the run are printed")
    figures["hours"] = seconds / 3600
    for key in keys:
        if price := re.fullmatch(r"usd_at_([\d.]+)_per_h", key):
            figures |= {key: figures["hours"] * float(price[1]), "usd": figures["hours"] * float(price[1])}
    if "usd_per_gpu_h" in published:
        figures["usd"] = figures["hours"] * devices * published["usd_per_gpu_h"]
    if "total_flops" in inputs:
        rate = inputs["total_flops"] / seconds / devices / 1e12
        figures["tflops_per_gpu"] = rate
        for key in keys:
            if peak := re.fullmatch(r"mfu_([\d.]+)", key):
                figures[key] = rate / float(peak[1])
    return compare_all(case, figures)


def tutorial_bug(case: Case) -> list[Comparison]:
    """What the tutorial's functions should have said; its own figures (buggy_…) are not compared."""
    inputs, derived = case["inputs"], case["derived"]
    if "model_size_gb_passed" in inputs:
        # The tutorial passes a thousandth: terabytes to a parameter that is called gb.
        result = chinchilla_optimal(1000 * inputs["model_size_gb_passed"])
        right = {
            "correct_gb_bf16": result.model_size_gb,
            "correct_params": result.parameters,
            "correct_tokens_20x": result.tokens,
        }
        return compare_all(case, right)
    if not {"N", "D", "gpu"} <= inputs.keys():
        raise UnansweredError(f"the tutorial's functions do not take {', '.join(inputs)}")
    if inputs.get("peak", find_device(inputs["gpu"]).bf16_flops) != find_device(inputs["gpu"]).bf16_flops:
        raise UnansweredError("its peak is not that of the device")
    size, tokens = inputs["N"] / 1e9, inputs["D"] / 1e12
    found = []
    for key in derived:
        if value := _tutorial_figure(key, size, tokens, inputs["gpu"]):
            found.append(compare(case, key, value, where="derived"))
    if not found:
        raise UnansweredError(f"no function gives {', '.join(derived)}")
    return found


def _tutorial_figure(key: str, size_b: float, tokens_t: float, gpu: str) -> float | None:
    """A figure named after its utilisation in per cent, such as gpus_for_30_days_45."""
    if key == "flops":
        return estimate_training_resources(size_b, tokens_t, gpu=gpu).flops
    named = re.fullmatch(r"(?:gpu_hours|gpus_for_(\d+)_days|usd_at_([\d.]+)_per_h)_(\d+)", key)
    if named is None:
        return None
    days, price, percent = named.groups()
    estimate = estimate_training_resources(
        size_b,
        tokens_t,
        gpu=gpu,
        utilization=int(percent) / 100,
        usd_per_gpu_hour=float(price) if price else None,
    )
    if days:
        return estimate.gpus_for(float(days))
    if price:
        assert estimate.usd is not None
        return estimate.usd.typical
    return estimate.gpu_hours.typical


ANSWERS: dict[str, Answer] = {
    "flops": flops,
    "mfu": mfu,
    "time": time,
    "time+cost": time_and_cost,
    "tutorial-bug": tutorial_bug,
}
