"""The time of a step behaves as hardware does: parts add up, more of anything that helps is never slower, and the
closed forms agree with the schedules and the traffic that are counted exactly elsewhere."""

import time
from dataclasses import replace

import pytest

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout
from firstlight.planning.communication import traffic_per_rank
from firstlight.planning.flops import training_flops_per_token
from firstlight.planning.hardware import cpu_device, find_device
from firstlight.planning.links import links_of
from firstlight.planning.pipeline import split_layers, stage_costs
from firstlight.planning.pipeline_pace import bubble_micro_batches, costliest_rank
from firstlight.planning.schedules import bubble_fraction
from firstlight.planning.step_time import StepPredictor, predict_step
from firstlight.planning.work import Software, block_work

H100, A100 = find_device("h100"), find_device("a100")


def llama(layers=16, hidden=2048, **sizes):
    sizes = {"num_attention_heads": 16, "vocab_size": 32000, **sizes}
    return ModelConfig(architecture="llama", hidden_size=hidden, num_hidden_layers=layers, **sizes).resolved(None, 2048)


def step(model=None, layout=None, device=H100, **arguments):
    arguments = {"micro_batch_size": 4, "sequence_length": 2048, **arguments}
    return predict_step(model or llama(), layout or Layout(), device, **arguments)


LAYOUTS = [
    Layout(),
    Layout(shard=8),
    Layout(replicate=2, shard=4),
    Layout(shard=4, tensor=2),
    Layout(shard=2, context=4),
    Layout(pipeline=4, shard=2),
    Layout(pipeline=2, replicate=2, shard=2, context=2, tensor=4),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_parts_add_up_and_are_where_the_layout_has_them(layout):
    taken = step(layout=layout, accumulation=4)
    assert taken.seconds == pytest.approx(sum(taken.parts.values()))
    assert taken.low_seconds < taken.seconds < taken.high_seconds
    assert all(part >= 0 for part in taken.parts.values())
    assert (taken.tensor_seconds > 0) == (layout.tensor > 1)
    assert (taken.context_seconds > 0) == (layout.context > 1)
    assert (taken.pipeline_seconds > 0) == (taken.bubble_seconds > 0) == (layout.pipeline > 1)
    assert (taken.data_seconds > 0) == (layout.data * layout.context > 1)
    assert (taken.straggler_seconds > 0) == (layout.world_size > 8)
    assert taken.tokens == 4 * 4 * layout.data * 2048
    assert taken.tokens_per_second == pytest.approx(taken.tokens_per_second_per_device * layout.world_size)


def test_utilisation_is_what_its_definition_says():
    model = llama()
    taken = step(model, recompute="full")
    flops = training_flops_per_token(model, 2048) * taken.tokens_per_second_per_device
    assert taken.mfu == pytest.approx(flops / 989e12)
    assert 0.2 < taken.mfu < taken.hfu < 0.8
    assert taken.hfu < 4 / 3 * taken.mfu  # the head is not computed again
    plain = step(model)
    assert plain.hfu == plain.mfu


def test_recomputation_costs_time_in_order():
    none, selective, full = (step(recompute=kind).seconds for kind in ("none", "selective", "full"))
    assert none < selective < full < 4 / 3 * none * 1.05


def test_fewer_bits_are_faster():
    fp32, bf16, fp16, fp8 = (step(precision=kind).seconds for kind in ("fp32", "bf16", "fp16", "fp8"))
    assert fp8 < bf16 == fp16 < fp32
    assert fp8 > bf16 / 2  # only block matrices gain, and casting costs


@pytest.mark.parametrize(
    "field",
    ["matmul_flops", "attention_flops", "memory_bytes_per_second", "link_bytes_per_second", "network_bytes_per_second"],
)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_better_hardware_is_never_slower(field, layout):
    slow = step(layout=layout, accumulation=4).seconds
    better = replace(H100, **{field: 1.5 * getattr(H100, field)})
    assert step(layout=layout, device=better, accumulation=4).seconds <= slow
    if field == "matmul_flops":
        assert step(layout=layout, device=better, accumulation=4).seconds < slow


def test_more_devices_never_slow_a_step_of_the_same_batch():
    predictor = StepPredictor(llama(), A100, 2048)
    seconds = [
        predictor.predict(Layout(shard=devices), micro_batch_size=2, accumulation=512 // devices).seconds
        for devices in (8, 16, 32, 64, 128, 256)
    ]
    assert seconds == sorted(seconds, reverse=True)
    # and each device does less, because some communication is in the open
    assert seconds[-1] * 256 > seconds[0] * 8


def test_larger_micro_batches_and_models_use_a_device_better():
    by_batch = [step(micro_batch_size=size).mfu for size in (1, 2, 4, 8, 16)]
    assert by_batch == sorted(by_batch)
    by_width = [step(llama(hidden=hidden)).mfu for hidden in (512, 1024, 2048, 4096, 8192)]
    assert by_width == sorted(by_width)


def test_small_micro_batches_wait_for_the_processor():
    tiny = step(llama(hidden=128, num_attention_heads=4), micro_batch_size=1)
    assert tiny.launch_seconds > 0.5 * tiny.seconds
    assert step(llama(hidden=8192, num_attention_heads=64)).launch_seconds == 0
    cpu = step(llama(hidden=128, num_attention_heads=4), device=cpu_device(1e11, 16e9), precision="fp32")
    assert cpu.launch_seconds == 0


@pytest.mark.parametrize(
    ("schedule", "stages"),
    [("gpipe", 1), ("1f1b", 1), ("interleaved", 2), ("interleaved", 4), ("interleaved_zero_bubble", 2), ("zbv", 2)],
)
@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 8), (4, 8), (4, 16), (8, 16)])
def test_the_closed_form_of_the_bubble_is_what_the_schedule_plays(schedule, stages, ranks, micro_batches):
    idle = bubble_micro_batches(schedule, ranks, stages)
    assert idle / (micro_batches + idle) == pytest.approx(bubble_fraction(schedule, ranks, stages, micro_batches))


@pytest.mark.parametrize("vocabulary", [1000, 32000, 500_000])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("layers", [8, 12, 30])
def test_the_costliest_rank_is_that_of_the_exact_division(layers, ranks, vocabulary):
    model = llama(layers=layers, vocab_size=vocabulary)
    costs = stage_costs(model, 2048)
    exact = max(costs.of_stages(split_layers(costs, list(range(ranks)))))
    blocks, has_head = costliest_rank(layers, ranks, costs.block, costs.head)
    assert blocks * costs.block + has_head * costs.head == pytest.approx(exact)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.pipeline == 1], ids=str)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_communication_takes_the_bytes_that_are_counted_exactly(layout, accumulation):
    """With links that are slow and nothing else that takes time, seconds are bytes."""
    model = llama(layers=4)
    slow = replace(
        H100, link_bytes_per_second=1e3, network_bytes_per_second=1e3, matmul_flops=1e25, attention_flops=1e25
    )
    predictor = StepPredictor(model, slow, 2048, software=Software(stream_bytes=4))
    taken = predictor.predict(layout, micro_batch_size=2, accumulation=accumulation)
    (exact,) = traffic_per_rank(model, layout, micro_batch_size=2, sequence_length=2048, accumulation=accumulation)
    bandwidth = 1e3 * predictor.calibration.network
    assert taken.tensor_seconds == pytest.approx(exact.tensor / bandwidth, rel=0.01)
    assert taken.context_seconds == pytest.approx(exact.context / bandwidth, rel=0.01)
    data = (exact.gather + exact.reduce + exact.replicate) / bandwidth
    # The embedding's unit stays gathered between the passes, which the quick form does not know.
    assert taken.data_seconds == pytest.approx(data, rel=0.4 if layout.shard * layout.context > 1 else 0.01)


def test_links_are_those_between_the_ranks_of_a_group():
    links = links_of(Layout(pipeline=2, shard=8, tensor=8), H100)
    assert links.tensor == 450e9
    assert links.data == links.pipeline == 50e9  # one network card for each rank: the others are of other groups
    assert links_of(Layout(shard=64), H100).data == 8 * 50e9
    assert links_of(Layout(shard=8), H100).data == 450e9
    assert links_of(Layout(shard=32, tensor=2), H100).data == 4 * 50e9
    assert links_of(Layout(shard=32, tensor=2), find_device("gb200")).data == 900e9


def test_attention_that_is_not_fused_moves_its_scores():
    model = llama()
    fused = block_work(model, 2048, 1, "bf16", "none", Software())
    unfused = block_work(model, 2048, 1, "bf16", "none", Software(fused_attention=False))
    assert unfused.element_bytes - fused.element_bytes > 16 * 2048 * 10
    assert unfused.attention_flops > fused.attention_flops  # the hidden half is computed too


def test_tensor_parallelism_divides_the_work_of_a_block():
    model = llama()
    whole, half = (block_work(model, 2048, tensor, "bf16", "none", Software()) for tensor in (1, 2))
    assert half.matmul_flops == whole.matmul_flops / 2
    assert half.attention_flops == whole.attention_flops / 2
    assert whole.matmul_bytes / 2 < half.matmul_bytes < whole.matmul_bytes  # inputs are whole on every rank


def test_a_masked_model_runs_its_head_where_it_predicts():
    model = ModelConfig(architecture="bert", vocab_size=30528, hidden_size=768, num_attention_heads=12).resolved(
        None, 512
    )
    everywhere = step(model, sequence_length=512, predicted=1.0)
    some = step(model, sequence_length=512, predicted=0.15)
    assert some.seconds < everywhere.seconds


def test_a_thousand_layouts_are_predicted_in_a_moment():
    model = llama(layers=80, hidden=8192, num_attention_heads=64, num_key_value_heads=8)
    predictor = StepPredictor(model, H100, 2048)
    start, count = time.perf_counter(), 0
    for tensor in (1, 2, 4, 8):
        for pipeline in (1, 2, 4, 8, 16):
            for context in (1, 2, 4):
                layout = Layout(
                    pipeline=pipeline, shard=1024 // (tensor * pipeline * context), context=context, tensor=tensor
                )
                for micro in (1, 2, 4, 8):
                    for recompute in ("none", "selective", "full"):
                        predictor.predict(layout, micro_batch_size=micro, accumulation=32, recompute=recompute)
                        count += 1
    assert count == 720
    assert time.perf_counter() - start < 1.5  # 0.1 s alone on one core
