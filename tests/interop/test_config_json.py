"""config.json both ways: what it says is kept, in either style; what Firstlight does not compute is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.config import ModelConfig
from firstlight.interop.classes import CLASSES
from firstlight.interop.config_json import read_config, write_config
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.tokenizer_training import train_tokenizer

from .conftest import TEXT

TOKENIZER: Tokenizer = train_tokenizer([TEXT], 280)
OBJECTIVES = [(theirs.architecture, theirs.objective) for theirs in CLASSES]
SMALL = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
ROTARY = ("llama", "mistral", "qwen2", "qwen3", "olmo2")


def read(content: dict[str, Any]) -> ModelConfig:
    return read_config(content, "config.json")[1]


def written(architecture: str, objective: str = "causal", **fields: Any) -> dict[str, Any]:
    config = ModelConfig(architecture=architecture, objective=objective, **{**SMALL, **fields})
    return write_config(config.resolved(), TOKENIZER, "float32")


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any configuration that has a class of Hugging Face's."""
    architecture, objective = draw(st.sampled_from(OBJECTIVES))
    fields: dict[str, Any] = {
        "num_hidden_layers": draw(st.integers(1, 9)),
        "intermediate_size": draw(st.integers(1, 99)),
        "max_position_embeddings": draw(st.integers(1, 999)),
        "norm_eps": draw(st.floats(1e-12, 1e-3)),
        "initializer_range": draw(st.floats(1e-4, 1)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if architecture in ROTARY:
        fields |= {"num_key_value_heads": draw(st.sampled_from([1, 2, 4])), "rope_theta": draw(st.floats(1e2, 1e7))}
        linear = st.fixed_dictionaries({"type": st.just("linear"), "factor": st.floats(1, 64)})
        llama3 = st.fixed_dictionaries(
            {
                "type": st.just("llama3"),
                "factor": st.floats(1, 64),
                "low_freq_factor": st.floats(0.5, 2),
                "high_freq_factor": st.floats(3, 9),
                "original_max_position_embeddings": st.integers(1, 9999),
            }
        )
        fields["rope_scaling"] = draw(st.none() | linear | llama3)
    if architecture in ("llama", "mistral", "qwen3"):
        fields["head_dim"] = draw(st.sampled_from([2, 8, 64]))
    if architecture in ("mistral", "qwen2", "qwen3"):
        fields["sliding_window"] = draw(st.integers(0, 99))
    if architecture == "modernbert":
        fields |= {"sliding_window": draw(st.integers(1, 99)), "global_attention_every": draw(st.integers(0, 4))}
        fields |= {"rope_theta": draw(st.floats(1e2, 1e7)), "local_rope_theta": draw(st.floats(1e2, 1e7))}
    if architecture == "bert":
        fields["type_vocab_size"] = draw(st.integers(1, 4))
    fields["attention_dropout"] = draw(st.floats(0, 0.99))
    if architecture in ("bert", "gpt2"):
        fields["hidden_dropout"] = draw(st.floats(0, 0.99))
    return ModelConfig(architecture=architecture, objective=objective, **{**SMALL, **fields}).resolved()


@given(configs())
def test_what_is_written_reads_back_as_the_same_model(config: ModelConfig) -> None:
    again = read(write_config(config, TOKENIZER, "float32"))
    layers = range(config.num_hidden_layers)
    assert [again.is_global(layer) for layer in layers] == [config.is_global(layer) for layer in layers]
    if all(config.is_global(layer) for layer in layers):  # how far apart global blocks are then does not matter
        config = config.model_copy(update={"global_attention_every": again.global_attention_every})
    if config.global_attention_every and config.global_attention_every >= config.num_hidden_layers:
        config = config.model_copy(update={"global_attention_every": again.global_attention_every})
    assert again == config


@pytest.mark.parametrize(("architecture", "objective"), OBJECTIVES)
def test_transformers_reads_what_is_written_and_warns_of_nothing(
    architecture: str, objective: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import json

    from transformers import AutoConfig

    content = written(architecture, objective, tie_word_embeddings=True)
    (tmp_path / "config.json").write_text(json.dumps(content))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert not caplog.records
    assert read(theirs.to_dict()) == read(content)


def test_both_styles_of_rotary_positions_are_read() -> None:
    new = written("llama", rope_theta=5e5, rope_scaling={"factor": 4.0, "original_max_position_embeddings": 64})
    parameters = new.pop("rope_parameters")
    for name in ("rope_theta", "rope_scaling"):
        new.pop(name)
    scaling = {key: value for key, value in parameters.items() if key not in ("rope_theta", "rope_type")}
    config = read({**new, "rope_parameters": parameters})
    assert config.rope_theta == 5e5 and config.rope_scaling is not None and config.rope_scaling.factor == 4
    for old in ({"rope_type": "llama3", **scaling}, {"type": "llama3", **scaling}):
        assert read({**new, "rope_theta": 5e5, "rope_scaling": old}) == config
    assert read({**new, "rope_theta": 5e5, "rope_scaling": None}) == config.model_copy(update={"rope_scaling": None})
    assert read(new).rope_theta == 10_000


def test_both_styles_of_local_attention_are_read() -> None:
    new = written("modernbert", "masked", num_hidden_layers=7, sliding_window=16, rope_theta=9e4, local_rope_theta=3e3)
    layers = [int(kind == "full_attention") for kind in new["layer_types"]]
    assert layers == [1, 0, 0, 1, 0, 0, 1]
    old = {key: value for key, value in new.items() if key not in ("layer_types", "rope_parameters")}
    fresh = {key: value for key, value in new.items() if "rope_theta" not in key and "every_n" not in key}
    assert read(old) == read(fresh) == read(new)
    assert (read(old).rope_theta, read(old).local_rope_theta, read(old).global_attention_every) == (9e4, 3e3, 3)
    assert read({**old, "local_rope_theta": None}).local_rope_theta == 9e4


@pytest.mark.parametrize(
    ("architecture", "objective", "names"),
    [
        ("gpt2", "causal", {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.2}),
        ("bert", "masked", {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}),
        ("llama", "causal", {"attention_dropout": 0.2}),
        ("olmo2", "causal", {"attention_dropout": 0.2}),
        ("modernbert", "masked", {"attention_dropout": 0.2, "embedding_dropout": 0.0, "mlp_dropout": 0.0}),
        ("llama", "masked", {"attention_dropout": 0.2}),
    ],
)
def test_dropout_has_the_names_of_its_family(
    architecture: str, objective: str, names: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = 0.1 if 0.1 in names.values() else 0.0
    content = written(architecture, objective, hidden_dropout=hidden, attention_dropout=0.2)
    assert {name: content[name] for name in content if "drop" in name} == names
    config = read(content)
    assert (config.hidden_dropout, config.attention_dropout) == (hidden, 0.2)
    assert "dropout" not in capsys.readouterr().err
    left_out = {name: value for name, value in content.items() if name not in names}
    default = 0.1 if hidden else 0.0  # of the class of `transformers`
    assert (read(left_out).hidden_dropout, read(left_out).attention_dropout) == (default, default)


def test_dropout_without_counterpart_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    config = read({**written("gpt2"), "resid_pdrop": 0.1, "embd_pdrop": 0.3, "attn_pdrop": 0})
    assert (config.hidden_dropout, config.attention_dropout) == (0.1, 0)
    said = " ".join(capsys.readouterr().err.split())
    assert "config.json: embd_pdrop 0.3 has no counterpart here: training goes on with hidden_dropout 0.1" in said
    config = read({**written("modernbert", "masked"), "mlp_dropout": 0.1, "attention_dropout": 0.2})
    assert (config.hidden_dropout, config.attention_dropout) == (0, 0.2)
    assert "mlp_dropout 0.1 has no counterpart" in " ".join(capsys.readouterr().err.split())
    written("llama", hidden_dropout=0.3)
    assert "model.hidden_dropout 0.3 is left out, because LlamaForCausalLM" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("architecture", "objective", "fields", "words"),
    [
        ("llama", "causal", {"model_type": "mixtral"}, "model_type is 'mixtral'; Firstlight reads llama, mistral"),
        ("llama", "causal", {"hidden_act": "gelu"}, "hidden_act is 'gelu'.*'silu'"),
        ("llama", "causal", {"attention_bias": True}, "attention_bias is True"),
        ("llama", "causal", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", "causal", {"hidden_size": None}, "hidden_size is missing"),
        ("llama", "causal", {"hidden_size": "wide"}, "model.hidden_size: a whole number is due, not 'wide'"),
        ("llama", "causal", {"num_hidden_layers": 0}, "the number of blocks is 0"),
        ("llama", "causal", {"num_key_value_heads": 3}, "not divisible by num_key_value_heads 3"),
        ("llama", "causal", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", "causal", {"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling.rope_type is 'yarn'"),
        ("llama", "causal", {"rope_scaling": {"type": "dynamic", "factor": 4}}, "'dynamic'; Firstlight has default"),
        ("llama", "causal", {"rope_scaling": "linear"}, "rope_scaling is 'linear'; a section"),
        (
            "llama",
            "causal",
            {"rope_scaling": {"rope_type": "linear", "factor": 4, "attention_factor": 0.5}},
            "rope_scaling.attention_factor is 0.5",
        ),
        ("llama", "causal", {"layer_types": ["sliding_attention"] * 4}, "layer_types is"),
        ("llama", "causal", {"sliding_window": 8}, "sliding_window is 8; Firstlight does not know this field"),
        ("llama", "causal", {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ("llama", "causal", {"num_experts": 8}, "num_experts is 8"),
        ("llama", "causal", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("llama", "causal", {"query_pre_attn_scalar": 224}, "query_pre_attn_scalar is 224"),
        ("llama", "causal", {"pruned_heads": {"0": [1]}}, "pruned_heads is"),
        ("qwen3", "causal", {"attention_bias": True}, "attention_bias is True"),
        (
            "qwen2",
            "causal",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2, "layer_types": None},
            "max_window_layers is 2",
        ),
        (
            "mistral",
            "causal",
            {"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"] * 2},
            "layer_types is",
        ),
        ("olmo2", "causal", {"clip_qkv": 8.0}, "clip_qkv is 8.0"),
        ("gpt2", "causal", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("gpt2", "causal", {"scale_attn_weights": False}, "scale_attn_weights is False"),
        ("gpt2", "causal", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2", "causal", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is True"),
        ("gpt2", "causal", {"add_cross_attention": True}, "add_cross_attention is True"),
        ("bert", "masked", {"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ("bert", "masked", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("bert", "masked", {"is_decoder": True}, "is_decoder is True"),
        ("modernbert", "masked", {"norm_bias": True}, "norm_bias is True"),
        ("modernbert", "masked", {"classifier_bias": True}, "classifier_bias is True"),
        ("modernbert", "masked", {"decoder_bias": False}, "decoder_bias is False"),
        ("modernbert", "masked", {"classifier_activation": "relu"}, "classifier_activation is 'relu'"),
        ("modernbert", "masked", {"local_attention": 0}, "local_attention is 0"),
        (
            "modernbert",
            "masked",
            {"layer_types": ["sliding_attention", "full_attention"] * 2},
            "layer_types is.*every so manieth",
        ),
        (
            "modernbert",
            "masked",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters.full_attention is",
        ),
        ("llama", "masked", {"mlp_bias": True}, "mlp_bias is True"),
    ],
)
def test_what_firstlight_does_not_compute_is_refused_by_field(
    architecture: str, objective: str, fields: dict[str, Any], words: str
) -> None:
    content = written(architecture, objective)
    read(content)
    with pytest.raises(ConfigError, match=f"^config.json: .*{words}"):
        read({**content, **fields})


def test_fields_that_switch_nothing_on_are_no_hindrance() -> None:
    content = written("llama")
    silent = {"future_switch": False, "future_list": [], "future_number": 0, "future_none": None}
    known = {"_name_or_path": "x", "transformers_version": "4.40", "id2label": {"0": "a"}, "torch_dtype": "bfloat16"}
    assert read({**content, **silent, **known, "partial_rotary_factor": 1.0}) == read(content)


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "qwen2", "qwen3", "olmo2"])
def test_objectives_without_a_class_are_refused(architecture: str) -> None:
    with pytest.raises(ConfigError, match=r"model.objective is masked.*llama \(EuroBertForMaskedLM\)"):
        written(architecture, "masked")
