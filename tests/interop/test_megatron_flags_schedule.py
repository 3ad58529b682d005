"""The learning rate of every step is that of megatron-core's OptimizerParamScheduler."""

from types import SimpleNamespace

import pytest

from firstlight.interop.megatron.translate import translate
from firstlight.training.schedule import learning_rate

MODEL = "--num-layers 4 --hidden-size 32 --num-attention-heads 2 --seq-length 16 --max-position-embeddings 16"
DATA = "--data-path a_document --tokenizer-type NullTokenizer --vocab-size 99"
BATCH = 8

CASES = {
    "constant": "--train-iters 20 --lr-decay-style constant --lr-warmup-iters 5",
    "the default is linear": "--train-iters 20",
    "linear": "--train-iters 20 --lr-decay-style linear --lr-warmup-iters 3 --min-lr 1e-4",
    "cosine": "--train-iters 30 --lr-decay-style cosine --lr-warmup-iters 4 --min-lr 1e-4",
    "cosine, no warm-up": "--train-iters 30 --lr-decay-style cosine --min-lr 1e-4",
    "cosine that ends early": "--train-iters 30 --lr-decay-style cosine --lr-warmup-iters 4 --lr-decay-iters 21",
    "cosine that would end late": "--train-iters 30 --lr-decay-style cosine --lr-warmup-iters 4 --lr-decay-iters 50",
    "initial rate": "--train-iters 30 --lr-decay-style cosine --lr-warmup-iters 7 --lr-warmup-init 2e-4",
    "fraction": "--train-iters 40 --lr-decay-style cosine --lr-warmup-fraction 0.1",
    "fraction of a step": "--train-iters 37 --lr-decay-style linear --lr-warmup-fraction 0.07 --min-lr 1e-5 "
    "--seq-length 4096 --max-position-embeddings 4096",
    "inverse square root": "--train-iters 40 --lr-decay-style inverse-square-root --lr-warmup-iters 6 --min-lr 6e-4",
    "inverse square root, ended": "--train-iters 40 --lr-decay-style inverse-square-root --lr-warmup-iters 6 "
    "--lr-decay-iters 20",
    "WSD": "--train-iters 30 --lr-decay-style WSD --lr-wsd-decay-iters 9 --lr-warmup-iters 4 --min-lr 1e-5",
    "WSD linear": "--train-iters 30 --lr-decay-style WSD --lr-wsd-decay-iters 9 --lr-wsd-decay-style linear",
    "WSD cosine": "--train-iters 30 --lr-decay-style WSD --lr-wsd-decay-iters 9 --lr-wsd-decay-style cosine",
    "WSD minus_sqrt": "--train-iters 30 --lr-decay-style WSD --lr-wsd-decay-iters 9 --lr-wsd-decay-style minus_sqrt",
    "samples": "--train-samples 245 --lr-decay-style cosine --lr-decay-samples 203 --lr-warmup-samples 29",
    "WSD in samples": "--train-samples 240 --lr-decay-style WSD --lr-wsd-decay-samples 67",
}


def megatron_rates(flags, steps):
    """What Megatron-LM's training loop would use: set up as its get_optimizer_param_scheduler does."""
    scheduler = pytest.importorskip("megatron.core.optimizer_param_scheduler")
    by_samples = flags["train_samples"] is not None
    unit = 1 if by_samples else BATCH
    total = flags["train_samples"] if by_samples else flags["train_iters"] * BATCH
    decay = (flags["lr_decay_samples"] if by_samples else flags["lr_decay_iters"]) or total // unit
    warmup = flags["lr_warmup_samples"] if by_samples else flags["lr_warmup_iters"]
    annealed = flags["lr_wsd_decay_samples"] if by_samples else flags["lr_wsd_decay_iters"]
    fraction = flags["lr_warmup_fraction"]
    optimizer = SimpleNamespace(param_groups=[{}])
    theirs = scheduler.OptimizerParamScheduler(
        optimizer,
        init_lr=flags["lr_warmup_init"],
        max_lr=flags["lr"],
        min_lr=flags["min_lr"],
        lr_warmup_steps=warmup * unit if fraction is None else fraction * decay * unit,
        lr_decay_steps=decay * unit,
        lr_decay_style=flags["lr_decay_style"],
        start_wd=flags["weight_decay"],
        end_wd=flags["weight_decay"],
        wd_incr_steps=total,
        wd_incr_style="constant",
        wsd_decay_steps=annealed * unit if annealed else None,
        lr_wsd_decay_style=flags["lr_wsd_decay_style"],
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        theirs.step(BATCH)
    assert optimizer.param_groups[0]["weight_decay"] == flags["weight_decay"]
    return rates


@pytest.mark.parametrize("case", CASES)
def test_every_step_has_the_learning_rate_of_megatron_core(case):
    line = f"{MODEL} {DATA} --micro-batch-size 4 --global-batch-size {BATCH} --lr 1e-3 {CASES[case]}"
    translation = translate(line.split(), 1)
    config = translation.config()
    steps = config.training.total_steps
    ours = [
        learning_rate(step, config.schedule, config.optimizer, steps, BATCH * config.data.sequence_length)
        for step in range(1, steps + 1)
    ]
    # a part of a step is rounded to a whole token
    assert ours == pytest.approx(megatron_rates(translation.flags, steps), rel=1e-5 if "of a step" in case else 1e-12)


def test_overflow_holds_the_learning_rate_back_with_fp16_alone():
    line = f"{MODEL} {DATA} --micro-batch-size 4 --lr 1e-3 --train-iters 9"
    assert translate([*line.split(), "--fp16"], 1).config().schedule.waits_for_overflow
    assert not translate(line.split(), 1).config().schedule.waits_for_overflow
