"""Published training runs as arguments of the step-time model: model, layout, device, software, and what was measured.

A source gives what it gives; what it leaves out is filled in here by what its text says elsewhere (Megatron's unstated
micro-batch: the fastest of the usual ones, since its authors tuned it). Several rows can come of one case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout, Schedule
from firstlight.planning.calibration import DEFAULT, Calibration
from firstlight.planning.conventions import megatron_2021_hardware, torchtitan
from firstlight.planning.devices import Device
from firstlight.planning.hardware import Precision, find_device
from firstlight.planning.memory import Recompute
from firstlight.planning.shape import Shape
from firstlight.planning.step_time import StepPredictor, StepTime
from firstlight.planning.work import Software
from planner_cases.answer import Case, UnansweredError

EAGER = Software(compiled=False, stream_bytes=2)
COMPILED = Software(stream_bytes=2)
TITAN = Software(stream_bytes=2, selective_matmuls=0.5)
MEGATRON_2021 = Software(stream_bytes=2, fused_attention=False, sequence_parallel=False)
MEGATRON_2022 = Software(stream_bytes=2, fused_attention=False)
MICRO_BATCH_SIZES = 1, 2, 4, 8

LLAMA_3 = {"8b": (4096, 32, 32, 14336), "70b": (8192, 80, 64, 28672), "405b": (16384, 126, 128, 53248)}
"""hidden size, blocks, query heads, feed-forward width; 8 key and value heads, 128,256 tokens (arXiv:2407.21783)."""
KORTHIKANTI = {"22b": (6144, 48, 64, 1, 1), "175b": (12288, 96, 96, 8, 3), "530b": (20480, 105, 128, 35, 3)}
KORTHIKANTI["1t"] = (25600, 128, 160, 64, 1)
"""hidden size, blocks, heads, pipeline ranks, stages on each (arXiv:2205.05198, table 3); tensor 8, 2,048 tokens."""
HEADS = {768: 12, 1024: 16, 1536: 16, 2048: 16, 2560: 32, 4096: 32, 5120: 40, 7168: 56, 8192: 64}
"""Of llm-foundry's models by hidden size (scripts/train/yamls/pretrain)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured speed."""

    case_id: str
    what: str
    """Which figure of the case it is."""
    model: ModelConfig
    layout: Layout
    device: Device
    sequence_length: int
    micro_batch_sizes: tuple[int, ...]
    """One, or those of which the fastest is meant."""
    batch_per_rank: int
    """Sequences a step for each data-parallel rank."""
    precision: Precision = "bf16"
    recompute: Recompute = "none"
    schedule: Schedule = "1f1b"
    stages_per_rank: int = 1
    reshard_after_forward: bool | None = None
    software: Software = COMPILED
    tokens_per_second: float
    """Measured, of one device."""

    def predictor(self, calibration: Calibration = DEFAULT) -> StepPredictor:
        """The step-time model for it."""
        return StepPredictor(
            self.model,
            self.device,
            self.sequence_length,
            self.precision,
            software=self.software,
            calibration=calibration,
        )

    def predict(self, predictor: StepPredictor) -> StepTime:
        """A step; the fastest where the micro-batch is not known."""
        steps = [
            predictor.predict(
                self.layout,
                micro_batch_size=size,
                accumulation=self.batch_per_rank // size,
                recompute=self.recompute,
                schedule=self.schedule,
                stages_per_rank=self.stages_per_rank,
                reshard_after_forward=self.reshard_after_forward,
            )
            for size in self.micro_batch_sizes
            if self.batch_per_rank % size == 0
        ]
        return min(steps, key=lambda step: step.seconds / step.tokens)


def runs_of(case: Case) -> list[Run]:
    """What a case measured; UnansweredError when it is not a run that the model can describe."""
    inputs = case["inputs"]
    for keys, describe in _DESCRIPTIONS:
        if keys <= inputs.keys():
            return list(describe(case, inputs))
    raise UnansweredError(f"no description of a run in its inputs ({', '.join(inputs)})")


def llama_3(name: str, sequence_length: int) -> ModelConfig:
    """llama3.1-8B, llama3-70B, …"""
    size = name.lower().rsplit("-", 1)[-1]
    if not name.lower().startswith("llama3") or size not in LLAMA_3:
        raise UnansweredError(f"the shape of {name} is not a dense one that is known here")
    hidden, blocks, heads, inner = LLAMA_3[size]
    return ModelConfig(
        architecture="llama",
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=8,
    ).resolved(None, sequence_length)


def gpt(hidden: int, blocks: int, heads: int, vocab: int, sequence_length: int) -> ModelConfig:
    """GPT-2's kind at any size."""
    return ModelConfig(
        architecture="gpt2",
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
    ).resolved(None, sequence_length)


def _llm_foundry(case: Case, inputs: dict[str, Any]) -> Iterator[Run]:
    hidden = inputs["d_model"]
    yield Run(
        case_id=case["id"],
        what="tok_s_gpu",
        model=gpt(hidden, inputs["layers"], HEADS.get(hidden, hidden // 128), 50368, inputs["seq"]),
        layout=Layout(shard=inputs["gpus"]),
        device=find_device(inputs["gpu"]),
        sequence_length=inputs["seq"],
        micro_batch_sizes=(inputs["micro_batch"],),
        batch_per_rank=inputs["micro_batch"] * inputs["grad_accum"],
        precision="fp8" if "fp8" in inputs["precision"] else "bf16",
        recompute="full" if inputs["act_ckpt"] else "none",
        reshard_after_forward=inputs["sharding"] == "FULL_SHARD",
        software=EAGER,
        tokens_per_second=case["published"]["tok_s_gpu"],
    )


def _torchtitan(case: Case, inputs: dict[str, Any]) -> Iterator[Run]:
    parallel = inputs.get("parallel", {"fsdp": inputs["gpus"]})
    technique = inputs.get("technique", "selective AC+compile")
    sequence_length, pipeline = inputs.get("seq", 8192), parallel.get("pp", 1)
    several = "interleaved" in technique.lower()
    for what, measured in case["published"].items():
        if not what.startswith("tps"):
            continue
        asynchronous = "async" in f"{what} {technique}".lower()
        software = replace(TITAN, compiled="compile" in technique, tensor_overlap=0.5 * asynchronous)
        yield Run(
            case_id=case["id"],
            what=what,
            model=llama_3(inputs["model"], sequence_length),
            layout=Layout(
                pipeline=pipeline,
                shard=parallel.get("fsdp", 1),
                context=parallel.get("cp", 1),
                tensor=parallel.get("tp", 1),
            ),
            device=find_device(inputs.get("gpu", "h100")),
            sequence_length=sequence_length,
            micro_batch_sizes=(1,) if pipeline > 1 else (inputs["local_batch"],),
            batch_per_rank=inputs["local_batch"],
            precision="fp8" if "fp8" in inputs["precision"] else "bf16",
            recompute="full" if "full AC" in technique else "selective",
            schedule="interleaved" if several else "1f1b",
            stages_per_rank=2 if several else 1,
            software=software,
            tokens_per_second=measured,
        )


def _megatron_2021(case: Case, inputs: dict[str, Any]) -> Iterator[Run]:
    hidden, blocks, vocab, length = inputs["hidden"], inputs["layers"], inputs["vocab"], inputs["seq"]
    per_token = megatron_2021_hardware(blocks, hidden, vocab, length)
    if "sec_per_iter" in case["published"]:
        what, devices = "sec_per_iter", inputs["gpus"]
        measured = inputs["global_batch"] * length / case["published"]["sec_per_iter"] / devices
    else:
        what, measured = "tflops_per_gpu", case["published"]["tflops_per_gpu"] * 1e12 / per_token
    micro = inputs.get("micro_batch")
    yield Run(
        case_id=case["id"],
        what=what,
        model=gpt(hidden, blocks, inputs["heads"], vocab, length),
        layout=Layout(pipeline=inputs["pp"], replicate=inputs["dp"], tensor=inputs["tp"]),
        device=find_device(inputs["gpu"]),
        sequence_length=length,
        micro_batch_sizes=MICRO_BATCH_SIZES if micro is None else (micro,),
        batch_per_rank=inputs["global_batch"] // inputs["dp"],
        precision="fp16",
        recompute="full",
        software=MEGATRON_2021,
        tokens_per_second=measured,
    )


def _korthikanti(case: Case, inputs: dict[str, Any]) -> Iterator[Run]:
    if "hidden" in inputs:
        hidden, blocks, heads = inputs["hidden"], inputs["layers"], inputs["heads"]
        pipeline, stages, micro = inputs["pp"], inputs.get("interleave") or 1, inputs.get("micro_batch", 1)
        length, vocab, tensor = inputs["seq"], inputs["vocab"], inputs["tp"]
    else:
        name = inputs["model"].lower()
        if name not in KORTHIKANTI:
            raise UnansweredError(f"the shape of {inputs['model']} is not known here")
        hidden, blocks, heads, pipeline, stages = KORTHIKANTI[name]
        length, vocab, tensor, micro = 2048, 51200, 8, 1
    replicate = inputs["gpus"] // (pipeline * tensor)
    times = {"iter_s": "selective", "iter_s_seq_par_selective": "selective", "iter_s_full_recompute": "full"}
    figures = {**case["published"], **{key: inputs[key] for key in ("iter_s",) if key in inputs}}
    for what, recompute in times.items():
        if what not in figures:
            continue
        yield Run(
            case_id=case["id"],
            what=what,
            model=gpt(hidden, blocks, heads, vocab, length),
            layout=Layout(pipeline=pipeline, replicate=replicate, tensor=tensor),
            device=find_device("a100-80gb"),
            sequence_length=length,
            micro_batch_sizes=(micro,),
            batch_per_rank=inputs["global_batch"] // replicate,
            precision="fp16",
            recompute=recompute,
            schedule="interleaved" if stages > 1 else "1f1b",
            stages_per_rank=stages,
            software=MEGATRON_2022 if recompute == "selective" else MEGATRON_2021,
            tokens_per_second=inputs["global_batch"] * length / figures[what] / inputs["gpus"],
        )


def _llama_3_herd(case: Case, inputs: dict[str, Any]) -> Iterator[Run]:
    model = llama_3("llama3-405B", inputs["seq"])
    yield Run(
        case_id=case["id"],
        what="tflops_per_gpu",
        model=model,
        layout=Layout(pipeline=inputs["pp"], shard=inputs["dp"], context=inputs["cp"], tensor=inputs["tp"]),
        device=find_device("h100"),
        sequence_length=inputs["seq"],
        micro_batch_sizes=(1,),
        batch_per_rank=inputs["batch_per_dp"],
        schedule="interleaved",
        stages_per_rank=8,  # one block in each of 128 stages, two of them with the ends instead
        tokens_per_second=case["published"]["tflops_per_gpu"] * 1e12 / torchtitan(Shape.of(model), inputs["seq"]),
    )


def _megatron_bridge(case: Case, inputs: dict[str, Any]) -> Iterator[Run]:
    length, shards = inputs["seq"], inputs["fsdp"]
    model_ranks = inputs["tp"] * inputs["pp"] * inputs["cp"]
    data = inputs["gpus"] // model_ranks
    stages = inputs["vp"] or 1
    yield Run(
        case_id=case["id"],
        what="tok_s_gpu",
        model=llama_3(inputs["model"], length),
        layout=Layout(
            pipeline=inputs["pp"],
            shard=data if shards else 1,
            replicate=1 if shards else data,
            context=inputs["cp"],
            tensor=inputs["tp"],
        ),
        device=find_device(inputs["system"]),
        sequence_length=length,
        micro_batch_sizes=(inputs["mbs"],),
        batch_per_rank=inputs["gbs"] // data,
        precision="fp8" if "FP8" in inputs["precision"].upper() else "bf16",
        schedule="interleaved" if stages > 1 else "1f1b",
        stages_per_rank=stages,
        tokens_per_second=case["published"]["tok_s_gpu"],
    )


_DESCRIPTIONS: list[tuple[frozenset[str], Callable[[Case, dict[str, Any]], Iterator[Run]]]] = [
    (frozenset({"d_model", "act_ckpt", "sharding"}), _llm_foundry),
    (frozenset({"system", "gbs", "vp"}), _megatron_bridge),
    (frozenset({"model", "local_batch"}), _torchtitan),
    (frozenset({"batch_per_dp", "cp"}), _llama_3_herd),
    (frozenset({"hidden", "dp", "gpu", "global_batch"}), _megatron_2021),
    (frozenset({"hidden", "layers", "gpus", "global_batch", "tp", "pp"}), _korthikanti),
    (frozenset({"model", "iter_s"}), _korthikanti),
]
"""Fields that tell a source's rows, and what reads them; the first that fits."""
