"""The classes of `transformers` that compute what a Firstlight model computes, as data.

Each says how fields of config.json and of `ModelConfig` correspond, which fields must have the one value that the
family computes with, and which change nothing. Both directions read it. Positions and windows, where several fields
make one, are in `positions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from firstlight.config import ModelConfig
from firstlight.config.families import Architecture, Objective
from firstlight.interop.names import BERT, DECODER, GPT2, MODERNBERT, OLMO2, Names
from firstlight.interop.positions import FULL, PER_TYPE, ROTARY, SWITCHED_WINDOW, WINDOW, Converter
from firstlight.support.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class HuggingFaceClass:
    """A class of `transformers` with its head, and the model of Firstlight that computes the same."""

    name: str
    model_type: str
    architecture: Architecture
    objective: Objective = "causal"
    fields: Mapping[str, str]
    """Field of config.json → field of `ModelConfig`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What a config.json means that leaves a field out; a field of `fields` that is not here must be given."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Field → the values with which the class computes what the family does; the first is the class's default."""
    dropouts: Mapping[str, str | None] = field(default_factory=dict)
    """Field of config.json → field of `ModelConfig` with the same dropout, or None: read with a note, written as 0."""
    dropout: float = 0.0
    """What a config.json means that leaves one of them out."""
    converters: tuple[Converter, ...] = ()
    names: Names
    free: frozenset[str] = frozenset()
    """Fields that change nothing in the language model's forward pass."""
    heads_divide_width: bool = False
    """The class refuses a hidden_size that the number of heads does not divide, whatever head_dim is."""


_SIZES = {
    name: name
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "initializer_range",
        "tie_word_embeddings",
    )
}
_GROUPS = {"num_key_value_heads": "num_key_value_heads"}
_DECODER_FIELDS = {**_SIZES, **_GROUPS, "rms_norm_eps": "norm_eps"}
_HEAD_DIM = {"head_dim": "head_dim"}
_DEFAULTS = {"initializer_range": 0.02, "tie_word_embeddings": False, "num_key_value_heads": None, "rms_norm_eps": 1e-6}
_SILU = {"hidden_act": ("silu", "swish")}
_ATTENTION_DROPOUT: dict[str, str | None] = {"attention_dropout": "attention_dropout"}
_NO_BIAS = {"attention_bias": (False,), "mlp_bias": (False,)}
_LLAMA: dict[str, Any] = {
    "architecture": "llama",
    "fields": {**_DECODER_FIELDS, **_HEAD_DIM},
    "fixed": {**_SILU, **_NO_BIAS},
    "dropouts": _ATTENTION_DROPOUT,
    "converters": (ROTARY, FULL),
    "names": DECODER,
    "heads_divide_width": True,
}

CLASSES = (
    HuggingFaceClass(
        name="LlamaForCausalLM",
        model_type="llama",
        **_LLAMA,
        defaults={**_DEFAULTS, "head_dim": None, "max_position_embeddings": 2048},
        free=frozenset({"pretraining_tp", "is_llama_config"}),
    ),
    HuggingFaceClass(
        name="MistralForCausalLM",
        model_type="mistral",
        architecture="mistral",
        fields={**_DECODER_FIELDS, **_HEAD_DIM},
        defaults={**_DEFAULTS, "num_key_value_heads": 8, "head_dim": None, "max_position_embeddings": 131072},
        fixed=_SILU,
        dropouts=_ATTENTION_DROPOUT,
        converters=(ROTARY, WINDOW),
        names=DECODER,
    ),
    HuggingFaceClass(
        name="Qwen2ForCausalLM",
        model_type="qwen2",
        architecture="qwen2",
        fields=_DECODER_FIELDS,
        defaults={**_DEFAULTS, "num_key_value_heads": 32, "max_position_embeddings": 32768},
        fixed=_SILU,
        dropouts=_ATTENTION_DROPOUT,
        converters=(ROTARY, SWITCHED_WINDOW),
        names=DECODER,
    ),
    HuggingFaceClass(
        name="Qwen3ForCausalLM",
        model_type="qwen3",
        architecture="qwen3",
        fields={**_DECODER_FIELDS, **_HEAD_DIM},
        defaults={**_DEFAULTS, "num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32768},
        fixed={**_SILU, "attention_bias": (False,)},
        dropouts=_ATTENTION_DROPOUT,
        converters=(ROTARY, SWITCHED_WINDOW),
        names=DECODER,
    ),
    HuggingFaceClass(
        name="Olmo2ForCausalLM",
        model_type="olmo2",
        architecture="olmo2",
        fields=_DECODER_FIELDS,
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
        fixed={**_SILU, "attention_bias": (False,)},
        dropouts=_ATTENTION_DROPOUT,
        converters=(ROTARY, FULL),
        names=OLMO2,
    ),
    HuggingFaceClass(
        name="GPT2LMHeadModel",
        model_type="gpt2",
        architecture="gpt2",
        fields={
            "vocab_size": "vocab_size",
            "n_embd": "hidden_size",
            "n_inner": "intermediate_size",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
            "n_positions": "max_position_embeddings",
            "layer_norm_epsilon": "norm_eps",
            "initializer_range": "initializer_range",
            "tie_word_embeddings": "tie_word_embeddings",
        },
        defaults={
            "n_inner": None,
            "n_positions": 1024,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
        },
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "reorder_and_upcast_attn": (False,),
            "add_cross_attention": (False,),
        },
        dropouts={"resid_pdrop": "hidden_dropout", "embd_pdrop": "hidden_dropout", "attn_pdrop": "attention_dropout"},
        dropout=0.1,
        names=GPT2,
        free=frozenset(
            {
                "n_ctx",
                "summary_activation",
                "summary_first_dropout",
                "summary_proj_to_labels",
                "summary_type",
                "summary_use_proj",
            }
        ),
    ),
    HuggingFaceClass(
        name="BertForMaskedLM",
        model_type="bert",
        architecture="bert",
        objective="masked",
        fields={**_SIZES, "type_vocab_size": "type_vocab_size", "layer_norm_eps": "norm_eps"},
        defaults={
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
        },
        fixed={
            "hidden_act": ("gelu",),
            "position_embedding_type": ("absolute",),
            "is_decoder": (False,),
            "add_cross_attention": (False,),
        },
        dropouts={"hidden_dropout_prob": "hidden_dropout", "attention_probs_dropout_prob": "attention_dropout"},
        dropout=0.1,
        names=BERT,
        free=frozenset(
            {"classifier_dropout", "directionality"}
            | {
                f"pooler_{part}"
                for part in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head", "type")
            }
        ),
    ),
    HuggingFaceClass(
        name="ModernBertForMaskedLM",
        model_type="modernbert",
        architecture="modernbert",
        objective="masked",
        fields={**_SIZES, "norm_eps": "norm_eps"},
        defaults={
            "max_position_embeddings": 8192,
            "norm_eps": 1e-5,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
        },
        fixed={
            "hidden_activation": ("gelu",),
            "classifier_activation": ("gelu",),
            "norm_bias": (False,),
            **_NO_BIAS,
            "classifier_bias": (False,),
            "decoder_bias": (True,),
        },
        dropouts={**_ATTENTION_DROPOUT, "embedding_dropout": None, "mlp_dropout": None},
        converters=(PER_TYPE,),
        names=MODERNBERT,
        free=frozenset(
            {
                "classifier_dropout",
                "classifier_pooling",
                "deterministic_flash_attn",
                "initializer_cutoff_factor",
                "layer_norm_eps",
                "position_embedding_type",
                "reference_compile",
                "repad_logits_with_grad",
                "sparse_pred_ignore_index",
                "sparse_prediction",
            }
        ),
    ),
    HuggingFaceClass(
        name="EuroBertForMaskedLM",
        model_type="eurobert",
        objective="masked",
        **_LLAMA,
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-5, "head_dim": None, "max_position_embeddings": 8192},
        free=frozenset({"classifier_pooling", "clf_pooling", "pretraining_tp"}),
    ),
)

HARMLESS = frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"),
        *("model_type", "tokenizer_class", "prefix", "task_specific_params", "problem_type", "finetuning_task"),
        *("id2label", "label2id", "num_labels", "use_cache", "gradient_checkpointing", "transformers.js_config"),
        *("chunk_size_feed_forward", "return_dict", "output_attentions", "output_hidden_states", "output_scores"),
        *(f"{token}_token_id" for token in ("bos", "eos", "pad", "sep", "cls", "mask", "unk", "decoder_start")),
        *(f"{token}_token" for token in ("bos", "eos", "pad", "mask")),
        *("_attn_implementation", "_attn_implementation_autoset", "unsloth_fixed", "unsloth_version"),
        *("do_sample", "temperature", "top_k", "top_p", "typical_p", "num_beams", "num_beam_groups", "max_length"),
        *("min_length", "length_penalty", "repetition_penalty", "diversity_penalty", "num_return_sequences"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "early_stopping", "return_dict_in_generate"),
    }
)
"""Fields of any class that say nothing about what the language model computes."""


def class_of_model_type(model_type: object, origin: str) -> HuggingFaceClass:
    """The class of a config.json's model_type; ConfigError when Firstlight has no such model."""
    for candidate in CLASSES:
        if candidate.model_type == model_type:
            return candidate
    known = ", ".join(candidate.model_type for candidate in CLASSES)
    raise ConfigError(f"{origin}: model_type is {model_type!r}; Firstlight reads {known}.")


def class_of_model(config: ModelConfig) -> HuggingFaceClass:
    """The class that computes what a resolved configuration describes; ConfigError when there is none."""
    for candidate in CLASSES:
        if (candidate.architecture, candidate.objective) == (config.architecture, config.objective):
            return candidate
    same = (candidate for candidate in CLASSES if candidate.objective == config.objective)
    others = ", ".join(f"{candidate.architecture} ({candidate.name})" for candidate in same)
    raise ConfigError(
        f"model.objective is {config.objective}, and Hugging Face has no such model of architecture "
        f"{config.architecture}; with this objective can be exported: {others}."
    )
