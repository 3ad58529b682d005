"""Any text comes back from its ids; no text can forge a special token; what is saved is what `AutoTokenizer` loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.support.errors import DataError
from firstlight.tokens.tokenizer import EOD_TOKEN, MASK_TOKEN, PAD_TOKEN, Tokenizer

SPECIAL_FRAGMENTS = [EOD_TOKEN, PAD_TOKEN, MASK_TOKEN, "<|endoftext", "|>", "<", " ", "\n", "a", "<<|endoftext|>|>"]
WHITESPACE = [" ", "  ", "\t", "\n", "\r\n", "\r", "\0", "\x85", "\u2028", "\u3000", "\ufeff", "x", "7", "…"]

texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from(SPECIAL_FRAGMENTS)).map("".join),
    st.lists(st.sampled_from(WHITESPACE)).map("".join),
)


def content(tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    tokenizer.save(folder)
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


@given(texts)
def test_round_trip_is_exact(tiny_tokenizer: Tokenizer, text: str) -> None:
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


def test_round_trip_of_every_plane(tiny_tokenizer: Tokenizer) -> None:
    text = "".join(chr(point) for point in range(0, 0x110000, 3) if not 0xD800 <= point <= 0xDFFF)
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


@given(texts)
def test_no_text_becomes_a_special_token(tiny_tokenizer: Tokenizer, text: str) -> None:
    assert not set(tiny_tokenizer.special_ids.tolist()) & set(tiny_tokenizer.encode(text))


@given(texts)
def test_bytes_of_tokens_add_up_to_the_text(tiny_tokenizer: Tokenizer, text: str) -> None:
    sizes = tiny_tokenizer.token_bytes()
    assert sizes[tiny_tokenizer.encode(text)].sum() == len(text.encode("utf-8"))


@given(st.lists(texts, max_size=8))
def test_a_batch_is_its_texts(tiny_tokenizer: Tokenizer, batch: list[str]) -> None:
    assert tiny_tokenizer.encode_batch(batch) == [tiny_tokenizer.encode(text) for text in batch]


def test_special_tokens_have_no_bytes_and_decode_on_request(tiny_tokenizer: Tokenizer) -> None:
    sizes = tiny_tokenizer.token_bytes()
    assert sizes.shape == (tiny_tokenizer.vocab_size,)
    assert sizes.dtype == np.int32
    special = [tiny_tokenizer.eod_id, tiny_tokenizer.pad_id, tiny_tokenizer.mask_id]
    assert tiny_tokenizer.special_ids.tolist() == special
    assert sizes[special].tolist() == [0, 0, 0]
    assert (sizes[tiny_tokenizer.ordinary_ids] > 0).all()
    assert sorted([*special, *tiny_tokenizer.ordinary_ids]) == list(range(tiny_tokenizer.vocab_size))
    ids = [*tiny_tokenizer.encode("end"), tiny_tokenizer.eod_id]
    assert tiny_tokenizer.decode(ids) == "end"
    assert tiny_tokenizer.decode(ids, skip_special_tokens=False) == "end" + EOD_TOKEN


def test_text_that_is_no_unicode_is_refused(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="surrogate"):
        tiny_tokenizer.encode("half \ud83d of a pair")


def test_saved_and_loaded_is_the_same(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    tiny_tokenizer.save(tmp_path)
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(place)
        assert loaded.fingerprint == tiny_tokenizer.fingerprint
        for number in ("vocab_size", "eod_id", "pad_id", "mask_id"):
            assert getattr(loaded, number) == getattr(tiny_tokenizer, number)


@pytest.mark.parametrize("model_type", [None, "llama", "gpt2"])
def test_auto_tokenizer_gives_the_same_ids(
    tiny_tokenizer: Tokenizer, tiny_texts: list[str], tmp_path: Path, model_type: str | None
) -> None:
    from transformers import AutoTokenizer

    tiny_tokenizer.save(tmp_path)
    if model_type:
        write(tmp_path, config={"model_type": model_type})
    auto = AutoTokenizer.from_pretrained(str(tmp_path))
    samples = [*tiny_texts[:40], " leading", "trailing \n\n", "naïve 世界 🙂 don't I'LL 12345", "\0\r\n\t", ""]
    assert [auto(text)["input_ids"] for text in samples] == tiny_tokenizer.encode_batch(samples)
    assert [auto.decode(auto(text)["input_ids"]) for text in samples] == samples
    assert (auto.eos_token, auto.eos_token_id) == (EOD_TOKEN, tiny_tokenizer.eod_id)
    assert (auto.pad_token, auto.pad_token_id) == (PAD_TOKEN, tiny_tokenizer.pad_id)
    assert (auto.mask_token, auto.mask_token_id) == (MASK_TOKEN, tiny_tokenizer.mask_id)
    assert len(auto) == tiny_tokenizer.vocab_size


def test_fingerprint_follows_what_decides_the_ids(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = content(tiny_tokenizer, tmp_path)
    same = Tokenizer({**base, "truncation": None}, EOD_TOKEN, EOD_TOKEN, EOD_TOKEN)
    assert same.fingerprint == tiny_tokenizer.fingerprint
    other_end = Tokenizer(base, PAD_TOKEN, PAD_TOKEN)
    normalizing = Tokenizer({**base, "normalizer": {"type": "NFC"}})
    assert len({tiny_tokenizer.fingerprint, other_end.fingerprint, normalizing.fingerprint}) == 3


def test_nothing_in_a_loaded_file_cuts_pads_adds_or_draws(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as RustTokenizer
    from tokenizers.processors import TemplateProcessing

    base = content(tiny_tokenizer, tmp_path)
    base["model"]["dropout"] = 0.5
    rust = RustTokenizer.from_str(json.dumps(base))
    rust.enable_truncation(4)
    rust.enable_padding(length=64)
    rust.post_processor = TemplateProcessing(single=f"{EOD_TOKEN} $A", special_tokens=[(EOD_TOKEN, 0)])
    rust.save(str(tmp_path / "tokenizer.json"))
    text = "One short text, longer than four tokens, shorter than sixty-four."
    assert rust.encode(text).ids != tiny_tokenizer.encode(text)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode(text) == tiny_tokenizer.encode(text)
    assert loaded.fingerprint == tiny_tokenizer.fingerprint


def test_end_of_document_is_found_in_the_documented_order(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = content(tiny_tokenizer, tmp_path / "saved")
    names = {token: index for token, index in base["model"]["vocab"].items() if token in "ABCDE"}
    end = Tokenizer(base)

    def eod(**files: Any) -> int:
        number = len(list(tmp_path.iterdir()))
        return Tokenizer.load(write(tmp_path / str(number), tokenizer=base, **files)).eod_id

    configuration = {"eos_token": {"content": "A", "lstrip": False}}
    map_, generation, model = {"eos_token": "B"}, {"eos_token_id": [names["C"], 5]}, {"eos_token_id": names["D"]}
    everything = {
        "tokenizer_config": configuration,
        "special_tokens_map": map_,
        "generation_config": generation,
        "config": model,
    }
    for name, expected in zip(list(everything), "ABCD", strict=True):
        assert eod(**everything) == names[expected]
        del everything[name]
    assert eod() == end.eod_id


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "without a tokenizer.json"),
        ({"tokenizer": ""}, "not a readable"),
        ({"tokenizer": "{"}, "not a readable"),
        ({"tokenizer": []}, "no JSON object"),
        ({"tokenizer": {}}, "not a readable"),
        ({"tokenizer": {"version": "1.0", "model": {"type": "Nonsense"}}}, "not a readable"),
        ({"tokenizer": {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}}, "without a single"),
        ({"tokenizer": {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}}, "eos_token"),
    ],
)
def test_a_damaged_tokenizer_is_one_sentence(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as problem:
        Tokenizer.load(write(tmp_path, **files))
    assert str(tmp_path) in str(problem.value)


def test_the_mask_token_is_found_as_the_end_is_and_may_be_absent(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = content(tiny_tokenizer, tmp_path / "saved")
    vocabulary = base["model"]["vocab"]
    masked = Tokenizer.load(write(tmp_path / "named", tokenizer=base, config={"mask_token_id": vocabulary["A"]}))
    assert (masked.mask_token, masked.mask_id) == ("A", vocabulary["A"])
    assert masked.mask_id in masked.special_ids and masked.mask_id not in masked.ordinary_ids
    base["added_tokens"] = base["added_tokens"][:2]
    for known in ("[MASK]", "<mask>"):
        names = {known if name == MASK_TOKEN else name: index for name, index in vocabulary.items()}
        assert Tokenizer({**base, "model": {**base["model"], "vocab": names}}).mask_id == tiny_tokenizer.mask_id
    vocabulary["unused"] = vocabulary.pop(MASK_TOKEN)
    without = Tokenizer(base)
    assert (without.mask_token, without.mask_id) == (None, None)
    without.save(tmp_path / "without")
    assert "mask_token" not in json.loads((tmp_path / "without" / "tokenizer_config.json").read_text())
    assert Tokenizer.load(tmp_path / "without").fingerprint == without.fingerprint


def test_an_end_token_outside_the_vocabulary_is_refused(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    tiny_tokenizer.save(tmp_path)
    with pytest.raises(DataError, match="eos_token '<missing>' is not in the vocabulary"):
        Tokenizer.load(write(tmp_path, tokenizer_config={"eos_token": "<missing>"}))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["no/such", "no_such", "missing/tokenizer.json", "/no/such/folder", ""])
def test_a_missing_tokenizer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as problem:
        Tokenizer.load(name)
    assert "\n" not in str(problem.value)


def sentencepiece_like() -> Tokenizer:
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "▁h", "▁hi"]
    return Tokenizer(
        {
            "version": "1.0",
            "added_tokens": [
                {
                    "id": 1,
                    "content": "</s>",
                    "special": True,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                }
            ],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": None,
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                ],
            },
            "model": {
                "type": "BPE",
                "unk_token": "<unk>",
                "fuse_unk": True,
                "byte_fallback": True,
                "vocab": {piece: index for index, piece in enumerate(pieces)},
                "merges": [["▁", "h"], ["▁h", "i"]],
            },
        }
    )


@given(st.text(alphabet="hi é世🙂\n"))
def test_spellings_of_sentencepiece_tokens_are_the_text(text: str) -> None:
    tokenizer = sentencepiece_like()
    spelled = tokenizer.spellings()
    assert b"".join(spelled[index] for index in tokenizer.encode(text)).decode() == text


@given(texts)
def test_spellings_are_the_text(tiny_tokenizer: Tokenizer, text: str) -> None:
    spelled = tiny_tokenizer.spellings()
    assert b"".join(spelled[index] for index in tiny_tokenizer.encode(text)).decode() == text


@given(st.text(alphabet="hi é世🙂\n"))
def test_bytes_of_sentencepiece_tokens_add_up(text: str) -> None:
    tokenizer = sentencepiece_like()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode("utf-8"))
    assert tokenizer.token_bytes()[tokenizer.eod_id] == 0


def test_wordpiece_has_no_bytes_per_token() -> None:
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "[SEP]": 1, "a": 2},
    }
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    tokenizer = Tokenizer({"version": "1.0", "model": model, "decoder": decoder})
    with pytest.raises(DataError, match="byte-level and SentencePiece"):
        tokenizer.token_bytes()


def test_an_end_that_text_can_spell_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    model = {"type": "BPE", "vocab": {"x": 0, "</s>": 1}, "merges": []}
    plain = {"id": 1, "content": "</s>", "special": False, "normalized": False}
    added = [{**plain, "single_word": False, "lstrip": False, "rstrip": False}]
    tokenizer = Tokenizer({"version": "1.0", "model": model, "added_tokens": added}, origin="odd.json")
    assert tokenizer.encode("</s>") == [tokenizer.eod_id]
    assert "odd.json: text that contains '</s>' will be read as the end" in capsys.readouterr().err


@given(st.lists(texts, max_size=5), st.integers(1, 12))
def test_padded_rows_hold_the_start_of_each_text(tiny_tokenizer: Tokenizer, batch: list[str], max_length: int) -> None:
    rows = tiny_tokenizer.pad_batch(batch, max_length)
    assert rows["input_ids"].shape == rows["attention_mask"].shape == (len(batch), max_length)
    for text, ids, mask in zip(batch, rows["input_ids"], rows["attention_mask"], strict=True):
        expected = tiny_tokenizer.encode(text)[:max_length]
        assert mask.tolist() == [1] * len(expected) + [0] * (max_length - len(expected))
        assert ids.tolist() == expected + [tiny_tokenizer.pad_id] * (max_length - len(expected))


def test_padding_without_a_padding_token_uses_the_end_token(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = content(tiny_tokenizer, tmp_path)
    base["added_tokens"] = base["added_tokens"][:1]
    base["model"]["vocab"]["unused"] = base["model"]["vocab"].pop(PAD_TOKEN)
    tokenizer = Tokenizer(base)
    assert tokenizer.pad_id is None
    assert tokenizer.pad_batch(["a"], 3)["input_ids"][0, 1:].tolist() == [tokenizer.eod_id] * 2
    with pytest.raises(DataError, match="max_length is 0"):
        tokenizer.pad_batch(["a"], 0)
