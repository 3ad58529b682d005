"""Text that a model writes, one token at a time, given to the caller as it comes.

Each step reads one token through a key-value cache and draws the next from softmax(logits / temperature), cut to the
`top_k` likeliest tokens (Fan et al. 2018, arXiv:1805.04833) and to the smallest set whose probability reaches `top_p`
(Holtzman et al. 2020, arXiv:1904.09751), in this order. The draw is made on the CPU, so that a seed gives the same
text on every device that computes the same logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from firstlight.model import CausalLanguageModel, LanguageModel
from firstlight.support.console import note
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer

CONTEXT_TOKENS = 8


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop_at_eod: bool = True,
) -> Iterator[str]:
    """Continue `prompt`, piece by piece; every piece is whole characters, and the prompt is not repeated.

    An empty prompt starts from the end-of-document token, as every document in training does. temperature 0 takes the
    likeliest token. `seed` None draws anew each time. Ends after `max_new_tokens`, at the end-of-document token
    (unless `stop_at_eod` is false), or where the model has no further position, which is said. Raises ConfigError,
    at the call, when the model is masked, a setting is out of range or the prompt leaves no position for a new token.
    """
    if not isinstance(model, CausalLanguageModel):
        raise ConfigError(
            "a masked model does not write on from a prompt; it fills in hidden tokens: "
            f"firstlight fill RUN 'text with {tokenizer.mask_token}'."
        )
    _check_settings(max_new_tokens, temperature, top_k, top_p, seed)
    vocab_size, limit = model.config.vocab_size, model.config.max_position_embeddings
    assert vocab_size is not None and limit is not None
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model's vocab_size is {vocab_size}; "
            "they do not belong together."
        )
    prompt_ids = tokenizer.encode(prompt) or [tokenizer.eod_id]
    if len(prompt_ids) >= limit:
        raise ConfigError(
            f"the prompt has {len(prompt_ids)} tokens and the model reads at most {limit} "
            f"(max_position_embeddings); shorten it by at least {len(prompt_ids) - limit + 1} tokens."
        )
    ids = generate_ids(
        model,
        prompt_ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_id=tokenizer.eod_id if stop_at_eod else None,
        num_tokens=tokenizer.vocab_size,
    )
    return stream_text(tokenizer, prompt_ids, ids)


def generate_ids(
    model: CausalLanguageModel,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop_id: int | None = None,
    num_tokens: int | None = None,
) -> Iterator[int]:
    """New token ids after `prompt_ids` (at least one), without `stop_id`; settings as for `generate`.

    `num_tokens`: ids from this one on are rows that pad the vocabulary and are never drawn.
    """
    limit = model.config.max_position_embeddings
    assert limit is not None and prompt_ids
    device = next(model.parameters()).device
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    total = min(limit, len(prompt_ids) + max_new_tokens)
    cache = model.new_cache(total)
    unread = list(prompt_ids)
    was_training = model.training
    model.eval()
    try:
        for _ in range(total - len(prompt_ids)):
            logits = model.decode_step(torch.tensor([unread], device=device), cache)[0, :num_tokens]
            token = choose(logits.float().cpu(), temperature, top_k, top_p, generator)
            if token == stop_id:
                return
            yield token
            unread = [token]
    finally:
        model.train(was_training)
    if total < len(prompt_ids) + max_new_tokens:
        note(f"\nstopped: the model has {limit} positions (max_position_embeddings), and all are used.")


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    """Draw a token id from logits [vocabulary] fp32; the likeliest at temperature 0."""
    if temperature == 0:
        return int(logits.argmax())
    logits, order = (logits / temperature).sort(descending=True, stable=True)
    if top_k is not None:
        logits = logits[:top_k]
    probabilities = logits.softmax(0)
    if top_p is not None:
        probabilities = probabilities * (probabilities.cumsum(0) - probabilities < top_p)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])


def stream_text(tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Iterable[int]) -> Iterator[str]:
    """Text of `ids` as they come: decode(prompt + ids) = decode(prompt) + the joined pieces.

    A token may end inside a character, which decodes to a replacement character; it is held back until the next token
    shows whether it is one. The few tokens before are decoded along, because some tokenizers drop the space before
    the first word.
    """
    context, pending = list(prompt_ids[-CONTEXT_TOKENS:]), list[int]()
    given = start = len(tokenizer.decode(context))
    text = ""
    for token in ids:
        pending.append(token)
        text = tokenizer.decode(context + pending)
        whole = len(text) - text.endswith("\ufffd")
        if whole > given:
            yield text[given:whole]
            given = whole
        if whole == len(text) and whole > start:
            context, pending, text = pending[-CONTEXT_TOKENS:], [], ""
            given = start = len(tokenizer.decode(context))
    if text[given:]:
        yield text[given:]


def _check_settings(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None, seed: int | None
) -> None:
    for name, value, valid, due in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
        ("temperature", temperature, 0 <= temperature < float("inf"), "0 (the likeliest token) or above"),
        ("top_k", top_k, top_k is None or top_k >= 1, "at least 1, or none"),
        ("top_p", top_p, top_p is None or 0 < top_p <= 1, "above 0 and at most 1, or none"),
        ("seed", seed, seed is None or 0 <= seed < 2**63, "0 or above and below 2^63, or none"),
    ):
        if not valid:
            raise ConfigError(f"{name} is {value}; {due} is due.")
