"""Answers to published figures of memory: sums that papers and tools print, and peaks that people measured.

A figure named (predicted) comes from model, layout and a description of the framework; all others are formulas, and
right to the printed digit. A tool's output is no truth: it is answered by the tool's own formula.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from firstlight.config.parallel import Layout
from firstlight.planning.conventions import megatron_2021_hardware, torchtitan
from firstlight.planning.flops import parameter_count
from firstlight.planning.framework_memory import (
    MEGATRON_DEEPSPEED,
    TORCHTITAN,
    TORCHTITAN_COMPILED_LOSS,
    SystemMemory,
    TrainingSystem,
    system_memory,
)
from firstlight.planning.memory_conventions import (
    STATES,
    bigscience_parts,
    eleuther,
    first_stage_layers,
    korthikanti_layer,
    megatron_activations,
    megatron_states,
    transformers_layer_copies,
)
from firstlight.planning.shape import Shape
from planner_cases.answer import Answer, Case, Comparison, UnansweredError
from planner_cases.described import gpt, llama_3

GB, GIB = 1e9, 2**30
UNITS = {"GB": GB, "GiB": GIB, "MB": 1e6, "MiB": 2**20, "B": 1.0}
H100_FLOPS = 989e12
COMPILED_LOSS_SINCE = 202501
"""Year and month from which torchtitan compiles its loss."""
STATE_SOURCES = (
    ("8-bit", "ml-engineering, 8-bit AdamW"),
    ("sgd", "ml-engineering, SGD with momentum"),
    ("ml-engineering", "ml-engineering"),
    ("megatron", "megatron"),
    ("2+2+4+4+8", "nanotron, fp32 gradients"),
    ("ultra-scale", "nanotron"),
    ("fsdp", "fsdp2"),
    ("torchtitan", "fsdp2"),
    ("zero", "zero"),
)
"""What the source of a sum of bytes a parameter says, and whose sum it is; the first that is found."""
GATED: dict[str, dict[str, Any]] = {
    "SmolLM2-360M": {"hidden": 960, "intermediate": 2560, "query": 960, "key": 320},
    "Llama-3.1-8B": {"hidden": 4096, "intermediate": 14336, "query": 4096, "key": 1024},
    "Mistral-7B": {"hidden": 4096, "intermediate": 14336, "query": 4096, "key": 1024},
    "DeepSeek-R1-Qwen3-8B": {"hidden": 4096, "intermediate": 12288, "query": 4096, "key": 1024, "head_norms": True},
    "Qwen3-4B": {"hidden": 2560, "intermediate": 9728, "query": 4096, "key": 1024, "head_norms": True},
    "gemma-1.1-2b": {"hidden": 2048, "intermediate": 16384, "query": 2048, "key": 256, "norm": "gemma"},
}
"""From the models' config.json on Hugging Face."""


def memory_states(case: Case) -> list[Comparison]:
    """Sums of bytes a parameter, and what they make of a model's size."""
    inputs, published = case["inputs"], case["published"]
    if {"params", "Nd"} <= inputs.keys():
        stages = {"baseline": 0, "os": 1, "os_g": 2, "os_g_p": 3}
        figures = {
            f"{name}_GB": inputs["params"] * STATES["zero"].divided(inputs["Nd"], stage) / GB
            for name, stage in stages.items()
        }
        return _all(case, figures)
    if "N" in inputs:
        whose = {"bf16_no_fp32_grad": "nanotron", "bf16_fp32_grad": "nanotron, fp32 gradients"}
        return _all(case, {f"{name}_GB": inputs["N"] * STATES[state].total / GB for name, state in whose.items()})
    if "bytes_per_param" in published:
        return _bytes_per_parameter(case)
    raise UnansweredError(f"no sum of states is known for inputs {', '.join(inputs) or 'of none'}")


def _bytes_per_parameter(case: Case) -> list[Comparison]:
    source, expected = case["source"].lower(), case["published"]["bytes_per_param"]
    name = next((name for word, name in STATE_SOURCES if word in source), None)
    if name is None:
        raise UnansweredError(f"no sum of bytes a parameter is known from {case['source']}")
    if isinstance(expected, str):
        # A formula such as 6+12/dp: compared where it is easy to see, and where it is not.
        terms = re.fullmatch(r"([\d.]+)\+([\d.]+)/dp", expected.replace(" ", ""))
        if terms is None:
            raise UnansweredError(f"{expected} is not a sum that can be read")
        whole, divided = map(float, terms.groups())
        return [
            Comparison(
                f"published.bytes_per_param at dp {ranks}",
                whole + divided / ranks,
                STATES[name].divided(ranks, 1),
                1e-9,
            )
            for ranks in (1, 2, 7, 64)
        ]
    return [Comparison("published.bytes_per_param", expected, STATES[name].total, 1e-9)]


def memory_derived(case: Case) -> list[Comparison]:
    """What dividing the states over more ranks saves."""
    inputs = case["inputs"]
    if not {"N", "fsdp"} <= inputs.keys():
        raise UnansweredError(f"no formula for inputs {', '.join(inputs)}")
    few, many = (STATES["fsdp2"].divided(ranks, 3) * inputs["N"] / GIB for ranks in inputs["fsdp"])
    found = [
        Comparison("published.delta_GiB (predicted)", measured, few - many, case.get("tolerance"))
        for measured in case["published"]["delta_GiB"]
    ]
    return found + _all(case, {"16B_per_param_pred_GiB": few - many})


def memory_measured(case: Case) -> list[Comparison]:
    """Copies of hidden states a layer, and the parts of a step without framework."""
    inputs, published = case["inputs"], case["published"]
    if "copies" in str(inputs.get("measure", "")):
        found = []
        for name, expected in published.items():
            if name in GATED:
                copies = transformers_layer_copies(**GATED[name])
                found.append(Comparison(f"published.{name} (predicted)", expected, copies, case.get("tolerance")))
            elif isinstance(expected, Mapping) and (setting := re.fullmatch(r"llama8b_bs(\d+)_seq(\d+)k_GiB", name)):
                batch, thousands = map(int, setting.groups())
                figures = _llama_8b_parts(batch * thousands * 1024)
                found += [
                    Comparison(f"published.{name}.{part} (predicted)", expected[part], size / GIB)
                    for part, size in figures.items()
                    if part in expected
                ]
        if found:
            return found
    if {"layers", "hidden", "seq"} <= inputs.keys():
        return _parts_of_a_gpt(case)
    raise UnansweredError(f"no formula for a measurement of inputs {', '.join(inputs)}")


def _llama_8b_parts(tokens: int) -> dict[str, float]:
    """Of a forward pass of LLaMA 3.1 8B in bf16 without and with its layers recomputed."""
    model, copy = llama_3("llama3.1-8B", 8192), 2.0 * tokens * 4096
    layer = copy * transformers_layer_copies(**GATED["Llama-3.1-8B"])
    checkpoints, logits = model.num_hidden_layers * copy, 4.0 * tokens * (model.vocab_size or 0)
    return {
        "one_layer": layer,
        "ckpt": checkpoints,
        "logits_fp32": logits,
        "total_with_ckpt": layer + checkpoints + logits,
        "total_without": model.num_hidden_layers * layer + logits,
    }


def _parts_of_a_gpt(case: Case) -> list[Comparison]:
    """A GPT-2 in 16 bit with fp32 master weights, ZeRO-1 and a fused attention kernel, as llm.c trains it."""
    inputs = case["inputs"]
    layers, hidden, length = inputs["layers"], inputs["hidden"], inputs["seq"]
    heads, batch = inputs.get("heads", hidden // 64), inputs.get("batch", inputs.get("micro_batch", 1))
    parameters = parameter_count(gpt(hidden, layers, heads, inputs.get("vocab", 50304), length))
    ranks = inputs.get("gpus", inputs.get("dp", 1))
    parts = {
        "param": 2 * parameters,
        "weight": 2 * parameters,
        "grad": 2 * parameters,
        "master": 4 * parameters / ranks,
        "m": 4 * parameters / ranks,
        "v": 4 * parameters / ranks,
        "act": layers * korthikanti_layer(length, batch, hidden, heads, recompute="selective"),
    }
    found = []
    for name, expected in case["published"].items():
        word, _, unit = name.rpartition("_")
        part = next((part for part in parts if word == part or (len(part) > 1 and word.startswith(part))), None)
        if part and unit in UNITS and isinstance(expected, int | float):
            found.append(Comparison(f"published.{name} (predicted)", expected, parts[part] / UNITS[unit]))
    if not found:
        raise UnansweredError(f"none of {', '.join(case['published'])} is a part of a step that is known here")
    return found


def memory_tool_output(case: Case) -> list[Comparison]:
    """EleutherAI's calculator, by its own formula; it is a foil, not a measurement."""
    if "calc_transformer_mem" not in case["source"]:
        raise UnansweredError("no formula of this tool is known")
    options = dict(re.findall(r"([a-zA-Z]+)([\d.]*)", case["inputs"]["args"]))
    number = {name: float(value) for name, value in options.items() if value}
    estimate = eleuther(
        int(number["L"]),
        int(number["h"]),
        int(number["a"]),
        int(number["s"]),
        int(number.get("b", 1)),
        vocab=int(number.get("v", 51200)),
        feed_forward_factor=number.get("ff", 4.0),
        feed_forward_matrices=int(number.get("nl", 2)),
        checkpointing="ckpt" in options,
        partition_activations="PA" in options,
        stage=int(number.get("zero", 1)),
        tensor=int(number.get("tp", 1)),
        pipeline=int(number.get("pp", 1)),
        devices=int(number.get("n", 1)),
    )
    parts = {
        "act": estimate.activations,
        "model": estimate.weights,
        "grad": estimate.gradients,
        "opt": estimate.optimizer,
        "comm": estimate.communication,
        "total": estimate.total,
    }
    return _all(case, {"params_B": estimate.parameters / 1e9, **{name: size / GIB for name, size in parts.items()}})


def memory_and_throughput_measured(case: Case) -> list[Comparison]:
    """Measured peaks, predicted; and the FLOP/s that the same rows print, by their conventions."""
    inputs = case["inputs"]
    if {"hidden", "layers", "tp", "pp", "dp"} <= inputs.keys():
        return _bigscience(case)
    if str(inputs.get("model", "")).startswith("llama3"):
        return _torchtitan(case)
    raise UnansweredError(f"no description of a training system for inputs {', '.join(inputs)}")


def system_of(case: Case) -> TrainingSystem:
    """The framework of a measured row."""
    if "hidden" in case["inputs"]:
        return MEGATRON_DEEPSPEED
    return TORCHTITAN_COMPILED_LOSS if _date(case) >= COMPILED_LOSS_SINCE else TORCHTITAN


def framework_peak(case: Case, system: TrainingSystem) -> SystemMemory:
    """The memory that a measured row is predicted to take in a framework."""
    return (_bigscience_memory if "hidden" in case["inputs"] else _torchtitan_memory)(case["inputs"], system)


def _bigscience(case: Case) -> list[Comparison]:
    inputs, published, derived = case["inputs"], case["published"], case.get("derived", {})
    found = []
    if "mem_GB" in published:
        found.append(_memory(case, "mem_GB", framework_peak(case, system_of(case)).total))
    length, batch = inputs.get("seq", 2048), inputs.get("global_batch")
    if "sec_per_iter" in published and batch:
        per_token = megatron_2021_hardware(inputs["layers"], inputs["hidden"], inputs["vocab"], length)
        tflops = per_token * batch * length / published["sec_per_iter"] / inputs["gpus"] / 1e12
        tolerance = case["tolerance"]["eq3_tflops"] if isinstance(case.get("tolerance"), Mapping) else None
        if "eq3_tflops" in derived:
            found.append(Comparison("derived.eq3_tflops", derived["eq3_tflops"], tflops, tolerance))
        if "tflops_reported" in published and "old" not in case.get("note", ""):
            found.append(Comparison("published.tflops_reported (eq. 3)", published["tflops_reported"], tflops))
    if "parts_GB" in derived or "simple_model_GB" in derived:
        parts = bigscience_parts(
            inputs["layers"],
            inputs["hidden"],
            inputs["heads"],
            inputs["vocab"],
            length,
            inputs["micro_batch"],
            tensor=inputs["tp"],
            pipeline=inputs["pp"],
            data=inputs["dp"],
        )
        if "simple_model_GB" in derived:
            found.append(printed("derived.simple_model_GB", derived["simple_model_GB"], sum(parts.values()) / GB))
        names = dict(zip(("states_6+12/dp", "ckpt_2sbhL", "one_layer", "cuda"), parts, strict=True))
        for name, expected in derived.get("parts_GB", {}).items():
            if name in names:
                found.append(printed(f"derived.parts_GB.{name}", expected, parts[names[name]] / GB))
    if not found:
        raise UnansweredError("neither memory nor seconds a step are printed")
    return found


def _bigscience_memory(inputs: Mapping[str, Any], system: TrainingSystem) -> SystemMemory:
    length, micro, data = inputs.get("seq", 2048), inputs["micro_batch"], inputs["dp"]
    model = gpt(inputs["hidden"], inputs["layers"], inputs.get("heads", 64), inputs["vocab"], length)
    return system_memory(
        system,
        model,
        Layout(replicate=data, tensor=inputs["tp"], pipeline=inputs["pp"]),
        micro_batch_size=micro,
        sequence_length=length,
        microbatches=inputs.get("global_batch", 2048) // (data * micro),
        recompute=inputs.get("act_ckpt", "full"),
    )


def _torchtitan(case: Case) -> list[Comparison]:
    inputs, published, derived = case["inputs"], case["published"], case.get("derived", {})
    found = [
        _memory(case, name, framework_peak(case, system_of(case)).total)
        for name, value in published.items()
        if "mem" in name and isinstance(value, int | float)
    ]
    speed = published.get("tps_per_gpu")
    if speed:
        length = inputs.get("seq", 8192)
        rate = torchtitan(Shape.of(llama_3(inputs["model"], length)), length) * speed
        if "model_tflops_full_attn" in derived:
            found.append(printed("derived.model_tflops_full_attn", derived["model_tflops_full_attn"], rate / 1e12))
        if "vs_989" in derived:
            found.append(printed("derived.vs_989", derived["vs_989"], rate / H100_FLOPS))
    if not found:
        raise UnansweredError("neither memory nor speed is printed")
    return found


def _torchtitan_memory(inputs: Mapping[str, Any], system: TrainingSystem) -> SystemMemory:
    technique = " ".join(str(inputs.get(key, "")) for key in ("technique", "schedule")).lower()
    length, parallel = inputs.get("seq", 8192), inputs.get("parallel") or {"fsdp": inputs["gpus"]}
    pipeline, several = parallel.get("pp", 1), "interleaved" in technique
    # In a pipeline the local batch is cut into as many micro-batches as it has ranks.
    return system_memory(
        system,
        llama_3(inputs["model"], length),
        Layout(
            pipeline=pipeline,
            shard=parallel.get("fsdp", 1),
            context=parallel.get("cp", 1),
            tensor=parallel.get("tp", 1),
        ),
        micro_batch_size=max(1, inputs["local_batch"] // pipeline),
        sequence_length=length,
        microbatches=min(pipeline, inputs["local_batch"]),
        recompute="full" if "full ac" in technique else "selective",
        schedule="interleaved" if several else "1f1b",
        stages_per_rank=2 if several else 1,
    )


def activations_of_korthikanti(case: Case) -> list[Comparison]:
    """The activations among a case of Korthikanti et al.'s table 5, and Megatron-LM's tool for the same model."""
    inputs, derived = case["inputs"], case.get("derived", {})
    layers, hidden, heads, vocab = inputs["layers"], inputs["hidden"], inputs["heads"], inputs["vocab"]
    length, batch, tensor, pipeline = inputs["seq"], inputs["micro_batch"], inputs["tp"], inputs["pp"]
    stages = inputs.get("interleave") or 1
    sizes = length, batch, hidden, heads
    modes: dict[str, dict[str, Any]] = {
        "none": {},
        "tp": {"tensor": tensor},
        "tp_sp": {"tensor": tensor, "sequence_parallel": True},
        "tp_selective": {"tensor": tensor, "recompute": "selective"},
        "tp_sp_selective": {"tensor": tensor, "sequence_parallel": True, "recompute": "selective"},
        "full": {"recompute": "full"},
    }
    found = [
        Comparison(f"derived.act_bytes_per_layer.{name}", expected, korthikanti_layer(*sizes, **modes[name]), 1e-9)
        for name, expected in derived.get("act_bytes_per_layer", {}).items()
        if name in modes
    ]
    name = "first_stage_layers_x_interleave_penalty"
    if name in derived:
        found.append(printed(f"derived.{name}", derived[name], first_stage_layers(layers, pipeline, stages)))
    tool = derived.get("megatron_lm_tool_GiB", {})
    figures = {
        "weights_opt_18B": megatron_states(layers, hidden, vocab, tensor=tensor, pipeline=pipeline),
        "activation_selective_SP": megatron_activations(
            length, batch, hidden, layers, vocab, tensor=tensor, pipeline=pipeline, stages_per_rank=stages
        ),
    }
    found += [
        printed(f"derived.megatron_lm_tool_GiB.{name}", tool[name], size / GIB)
        for name, size in figures.items()
        if name in tool
    ]
    return found


def printed(what: str, expected: float, found: float) -> Comparison:
    """Right within half a unit of the last printed digit."""
    mantissa, _, exponent = f"{expected!r}".partition("e")
    decimals = len(mantissa.partition(".")[2].rstrip("0"))
    half = 0.501 * 10.0 ** (int(exponent or 0) - decimals)
    return Comparison(what, expected, found, max(half / abs(expected), 1e-12) if expected else half)


def _all(case: Case, figures: Mapping[str, float]) -> list[Comparison]:
    """The figures that a case prints or derives among those that were computed."""
    found = [
        printed(f"{where}.{name}", expected, figures[name])
        for where in ("published", "derived")
        for name, expected in _numbers(case.get(where, {}))
        if name in figures
    ]
    if not found and not any(name in figures for where in ("published", "derived") for name in case.get(where, {})):
        raise UnansweredError(f"none of {', '.join(figures)} is printed")
    return found


def _numbers(figures: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    return ((name, value) for name, value in figures.items() if isinstance(value, int | float))


def _memory(case: Case, name: str, predicted: float) -> Comparison:
    unit = UNITS["GiB" if "gib" in name.lower() else "GB"]
    tolerance = case["tolerance"].get("mem") if isinstance(case.get("tolerance"), Mapping) else None
    return Comparison(f"published.{name} (predicted)", case["published"][name], predicted / unit, tolerance)


def _date(case: Case) -> int:
    """Year and month in the name of a benchmark's file; 0 without one."""
    found = re.search(r"_(20\d{4})[_.]", case["source"])
    return int(found.group(1)) if found else 0


ANSWERS: dict[str, Answer] = {
    "memory-states": memory_states,
    "memory-derived": memory_derived,
    "memory-measured": memory_measured,
    "memory-tool-output": memory_tool_output,
    "memory+throughput-measured": memory_and_throughput_measured,
}
