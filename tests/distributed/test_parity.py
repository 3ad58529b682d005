"""One definition of correct: at every layout the losses, gradient norms and scores of one process, in fp32."""

from __future__ import annotations

import pytest

LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "fsdp2": (2, []),
    "fsdp4": (4, []),
    "hsdp2x2": (4, ["parallel.replicate=2"]),
    "copies2": (2, ["parallel.replicate=2"]),
    "tp2": (2, ["parallel.tensor=2", "training.micro_batch_size=16"]),
    "tp4": (4, ["parallel.tensor=4", "training.micro_batch_size=16"]),
    "cp2": (2, ["parallel.context=2"]),
    "pp2": (2, ["parallel.pipeline=2"]),
    "fsdp2-tp2": (4, ["parallel.tensor=2", "training.micro_batch_size=8"]),
    "tp2-pp2": (4, ["parallel.tensor=2", "parallel.pipeline=2"]),
    "cp2-fsdp2": (4, ["parallel.context=2"]),
    "pp2-fsdp2": (4, ["parallel.pipeline=2"]),
    "pp2-gpipe": (2, ["parallel.pipeline=2", "parallel.pipeline_schedule=gpipe"]),
    "pp2-interleaved": (2, ["parallel.pipeline=2", "parallel.pipeline_schedule=interleaved"]),
    "pp2-zero-bubble": (2, ["parallel.pipeline=2", "parallel.pipeline_schedule=interleaved_zero_bubble"]),
    "pp2-zbv": (2, ["parallel.pipeline=2", "parallel.pipeline_schedule=zbv"]),
    "pp4-interleaved": (
        4,
        ["parallel.pipeline=4", "parallel.pipeline_schedule=interleaved", "model.num_hidden_layers=8"],
    ),
    "accumulation1": (1, ["training.micro_batch_size=16"]),
    "accumulation2": (1, ["training.micro_batch_size=8"]),
    "accumulation4": (1, ["training.micro_batch_size=4"]),
    "fsdp2-accumulation4": (2, ["training.micro_batch_size=2"]),
}
VARIANTS = {
    "plain": [],
    "tied": [
        *("model.tie_word_embeddings=true", "model.architecture=qwen3", "model.num_key_value_heads=2"),
        "optimizer.lr=1e-3",  # with eight layers AdamW makes more of rounding at twice that
    ],
    "documents": ["data.attention_within_documents=true"],
    "gpt2": ["model.architecture=gpt2"],
    "masked": ["model.architecture=modernbert", "model.sliding_window=8"],
}


def check(layouts, variant, train_at, metrics) -> None:
    """Train one process and every layout with the settings of `variant`; compare all that is written."""
    jobs = {}
    for name in layouts:
        size, overrides = LAYOUTS[name]
        settings = VARIANTS[variant] + [o for o in overrides if o.startswith("model.")]
        alone = "one" + "".join(o for o in overrides if o.startswith("model.")).replace("=", "").replace(".", "")
        jobs.setdefault(alone, (1, settings))
        jobs[name] = (size, [*settings, *(o for o in overrides if not o.startswith("model."))])
    runs = train_at(jobs)
    for name in layouts:
        model = "".join(o for o in LAYOUTS[name][1] if o.startswith("model.")).replace("=", "").replace(".", "")
        reference = runs["one" + model]
        losses, found = metrics(reference), metrics(runs[name])
        assert losses[20] < losses[1] - 0.2, "nothing was learnt, so nothing was compared"
        assert found == pytest.approx(losses, rel=1e-5), name
        norms = metrics(reference, "grad_norm")
        assert metrics(runs[name], "grad_norm") == pytest.approx(norms, rel=1e-4), name
        for key in ("validation/manual/loss", "validation/manual/tokens"):
            assert metrics(runs[name], key) == pytest.approx(metrics(reference, key), rel=1e-5), name
        for key in ("learning_rate", "samples_consumed", "tokens_consumed"):
            assert metrics(runs[name], key) == metrics(reference, key), name


@pytest.mark.parametrize(
    "layouts",
    [
        ["fsdp2", "hsdp2x2"],
        ["tp2", "fsdp2-tp2"],
        ["cp2-fsdp2"],
        ["pp2", "tp2-pp2"],
        pytest.param(["pp4-interleaved"], marks=pytest.mark.slow),
        pytest.param(["accumulation1", "fsdp2-accumulation4"], marks=pytest.mark.slow),
    ],
    ids=lambda layouts: layouts[0],
)
def test_losses_and_norms_are_those_of_one_process(layouts, train_at, metrics):
    check(layouts, "plain", train_at, metrics)


@pytest.mark.parametrize(
    ("variant", "layouts"),
    [("tied", ["pp2-zbv"]), pytest.param("documents", ["cp2"], marks=pytest.mark.slow), ("masked", ["tp2-pp2"])],
    ids=["tied", "documents", "masked"],
)
def test_so_they_are_with_other_models_and_masks(variant, layouts, train_at, metrics):
    check(layouts, variant, train_at, metrics)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_so_they_are_at_every_layout(variant, train_at, metrics):
    layouts = [name for name in LAYOUTS if not (variant == "tied" and "tp4" in name)]
    check(layouts, variant, train_at, metrics)
