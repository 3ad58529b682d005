"""What a command that has the size of LLaMA lacks to be LLaMA: Megatron-LM builds GPT unless it is told otherwise."""

from __future__ import annotations

from firstlight.interop.megatron.options import Flags

LLAMA_SIZES = {(32, 4096, 32): ("7B", 11008), (40, 5120, 40): ("13B", 13824), (60, 6656, 52): ("33B", 17920)}
"""(layers, hidden size, heads) → name and width of the feed-forward layer (Touvron et al. 2023, table 2, and their
released weights)."""


def llama_hint(flags: Flags) -> str:
    """One sentence with the missing flags, or "" when the command is no LLaMA or lacks nothing."""
    found = LLAMA_SIZES.get((flags["num_layers"], flags["hidden_size"], flags["num_attention_heads"]))
    if found is None:
        return ""
    name, ffn = found
    wanted = {
        "--swiglu": flags["swiglu"],
        f"--ffn-hidden-size {ffn}": flags["ffn_hidden_size"] == ffn,
        "--normalization RMSNorm": flags["normalization"] == "RMSNorm",
        "--position-embedding-type rope": flags["position_embedding_type"] == "rope",
        "--untie-embeddings-and-output-weights": flags["untie_embeddings_and_output_weights"],
        "--disable-bias-linear": flags["disable_bias_linear"],
        "--hidden-dropout 0": flags["hidden_dropout"] == 0,
        "--attention-dropout 0": flags["attention_dropout"] == 0,
        "--lr-warmup-iters 2000": flags["lr_warmup_iters"] or flags["lr_warmup_samples"] or flags["lr_warmup_fraction"],
        "--tokenizer-type Llama2Tokenizer --tokenizer-model FILE": flags["tokenizer_type"],
        "--data-path PREFIX --split 969,30,1": flags["data_path"]
        or flags["train_data_path"]
        or flags["data_args_path"]
        or flags["per_split_data_args_path"],
        "--save DIR --save-interval 1000": flags["save"],
        "--eval-interval 1000 --eval-iters 10": "eval_interval" in flags.given,
    }
    missing = [flag for flag, there in wanted.items() if not there]
    if not missing:
        return ""
    return f"The size is that of LLaMA-{name}, but these flags describe a GPT. LLaMA needs besides: {' '.join(missing)}"
