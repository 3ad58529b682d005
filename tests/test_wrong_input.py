"""What a new user does wrong, verb by verb: one clear sentence, an exit code, no traceback, nothing half-written.

Here are the mistakes that show at once, on the command line, in recipes, files and folders. The command line runs in
this process; what needs a process of its own (Ctrl-C, full disks, permissions, terminals) is in tests/faults.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from firstlight.support.errors import EXIT_USAGE

ABSENT_DEVICE = "cuda" if sys.platform == "darwin" else "mps"


@pytest.fixture(scope="session")
def made(trained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it, and everything in it that can be wrong."""
    from firstlight import pipeline

    folder = tmp_path_factory.mktemp("made") / "folder"
    shutil.copytree(trained_folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pipeline.train_tokenizer(["manual.jsonl"], "other-tokenizer", vocab_size=520)
        pipeline.tokenize(["code.jsonl"], "other-tokenizer", "tokens/other", validation_fraction=0.1, workers=1)
        _write_what_is_wrong()
    return folder


def _write_what_is_wrong() -> None:
    garbage = bytes(range(256)) * 40
    for name, content in {
        "garbage.jsonl": garbage,
        "garbage.txt": garbage,
        "garbage.yaml": garbage,
        "empty.jsonl": b"",
        "empty.yaml": b"",
        "tab.yaml": b"name: x\nmodel:\n\thidden_size: 32\n",
        "list.yaml": b"- name\n",
        "twice.yaml": b"name: a\nname: b\n",
        "unclosed.yaml": b"name: [a\n",
        "no-field.jsonl": b'{"content": "a"}\n',
        "half-bad.jsonl": b'{"text": "a"}\n{"text": \n',
        "colours.jsonl": b'{"te\\u001b[31mxt": "a"}\n',
        "not-a-tokenizer.json": b'{"a": 1}',
        "questions.jsonl": b'{"question": "Why?"}\n',
        "hosts.txt": b"example.com\n# adults\nno host at all\n",
        "hashes.txt": b"0123abcd\n",
    }.items():
        Path(name).write_bytes(content)
    Path("empty-folder").mkdir()
    Path("foreign").mkdir()
    Path("foreign/thesis.txt").write_text("years of work")
    Path("broken-tokenizer").mkdir()
    Path("broken-tokenizer/tokenizer.json").write_text("{")
    Path("broken-classifier").mkdir()
    Path("broken-classifier/classifier.json").write_text("{}")
    shutil.copytree("tokens/code", "tokens/cut")
    shard = Path("tokens/cut/train-00000.bin")
    shard.write_bytes(shard.read_bytes()[:-2])
    shutil.copytree("tokens/code", "tokens/undescribed")
    Path("tokens/undescribed/dataset.json").write_text("{")
    Path("runs/a-file").write_text("")
    Path("runs/foreign").mkdir()
    Path("runs/foreign/thesis.txt").write_text("years of work")


@pytest.fixture
def here(made: Path, tree, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The made folder as working directory; the test fails when it is not as it was afterwards."""
    monkeypatch.chdir(made)
    before = tree(made)
    yield made
    _forget_finished_parts(made, before)
    assert tree(made) == before


def _forget_finished_parts(folder: Path, before: Mapping[str, int]) -> None:
    """Remove what a build keeps to go on from, and the folders that were made for it alone."""
    for work in [path for path in folder.rglob(".*work") if path.is_dir()]:
        shutil.rmtree(work)
        for place in work.relative_to(folder).parents:
            if str(place) not in before and place.name and not any((folder / place).iterdir()):
                (folder / place).rmdir()


NO_TEXT = {
    "missing file": ("nowhere.jsonl", "nowhere.jsonl: no such file or folder"),
    "missing glob": ("nowhere/*.jsonl", "nowhere/*.jsonl: matches no file"),
    "empty file": ("empty.jsonl", "empty.jsonl: empty file"),
    "empty folder": ("empty-folder", "empty-folder: a folder without files"),
    "binary as JSON": ("garbage.jsonl", "garbage.jsonl", "1: binary data, not text"),
    "binary as text": ("garbage.txt", "garbage.txt", "1: binary data, not text"),
    "no text field": ("no-field.jsonl", "no-field.jsonl", "1: no field 'text' among 'content'"),
    "bad lines": ("half-bad.jsonl", "1 of 2 lines", "half-bad.jsonl", "2: not JSON"),
    "control characters": ("colours.jsonl", "no field 'text' among 'te·[31mxt'"),
    "address": ("ftp://example.org/a.jsonl", "'ftp://example.org/a.jsonl': no known kind of address. Known: abfs"),
}
NO_RECIPE = {
    "missing": ("nowhere.yaml", "nowhere.yaml: no such recipe or file"),
    "near miss": ("quikstart", "no such recipe or file. Did you mean 'quickstart'?"),
    "empty": ("empty.yaml", "empty.yaml: empty; a recipe needs at least `name:`"),
    "binary": ("garbage.yaml", "garbage.yaml: not a text file; a recipe is YAML in UTF-8"),
    "tab": ("tab.yaml", "tab.yaml, line 3, column 1: a tab, where YAML allows only spaces"),
    "list": ("list.yaml", "list.yaml: a recipe is a mapping"),
    "key twice": ("twice.yaml", "twice.yaml, line 2, column 1: 'name' is given twice"),
    "bracket": ("unclosed.yaml", "unclosed.yaml, line 2"),
    "misspelt key": ("recipe.yaml model.hiden_size=3", "unknown key 'model.hiden_size'. Did you mean 'hidden_size'?"),
    "misspelt section": ("recipe.yaml modle.hidden_size=3", "unknown key 'modle'. Did you mean 'model'?"),
    "text for a number": ("recipe.yaml model.hidden_size=big", "model.hidden_size: a whole number is due, not 'big'"),
    "fraction for a number": ("recipe.yaml model.hidden_size=1.5", "model.hidden_size: a whole number is due, not 1.5"),
    "value for a section": ("recipe.yaml model=3", "model: a section (key: value) is due, not 3"),
    "not an override": ("recipe.yaml training.total_steps", "an override is written key=value"),
    "no key": ("recipe.yaml =3", "an override is written key=value"),
    "impossible batch": (
        "recipe.yaml training.micro_batch_size=3",
        "global_batch_size = micro_batch_size × gradient_accumulation_steps × data-parallel ranks, but 8 ≠ 3 × 3 × 1",
        "nearest global_batch_size: 6 or 9",
    ),
    "contradicting batch": (
        "recipe.yaml training.micro_batch_size=2 training.gradient_accumulation_steps=2",
        "8 ≠ 2 × 2 × 1 = 4; gradient_accumulation_steps 4 fits",
    ),
    "heads": (
        "recipe.yaml model.num_attention_heads=5",
        "hidden_size 32 is not divisible",
        "nearest that are: 30 or 35",
    ),
    "negative weight": ("recipe.yaml data.mixture.code=-1", "data.mixture.code is -1; a weight is above 0"),
    "unknown source": ("recipe.yaml data.mixture.cod=1", "names 'cod'", "Did you mean 'code'?"),
    "name": ("recipe.yaml name=../x", "name: letters, digits, '.', '_' and '-' are due", "not '../x'"),
    "seed": ("recipe.yaml seed=99999999999999999999", "seed: input should be less than"),
    "choice": (
        "recipe.yaml training.precision=fp9",
        "training.precision: input should be 'fp32', 'bf16', 'fp16' or 'fp8'",
    ),
}
NO_OUTPUT = {
    "a file": ("manual.jsonl", "manual.jsonl: a file, where the output folder is due"),
    "under a file": ("manual.jsonl/inside", "manual.jsonl: a file, where a folder is due"),
    "somebody's folder": ("foreign", "foreign: not empty and not a"),
    "this folder": (".", ".: give the output folder a name of its own"),
}
NO_TOKENIZER = {
    "missing": ("nowhere.json", "nowhere.json: no such tokenizer file or folder"),
    "folder without": ("empty-folder", "empty-folder: folder without a tokenizer.json"),
    "damaged": ("broken-tokenizer", "broken-tokenizer/tokenizer.json: not a readable tokenizer (invalid JSON"),
    "other JSON": ("not-a-tokenizer.json", "not-a-tokenizer.json: not a readable tokenizer.json"),
    "binary": ("garbage.jsonl", "garbage.jsonl: not a readable tokenizer"),
}
NO_RUN = {
    "missing": ("nowhere", "nowhere: no such run folder"),
    "other folder": ("foreign", "foreign: not a run folder (it has no config.yaml)"),
    "file": ("recipe.yaml", "recipe.yaml: not a run folder"),
}
NO_DATA_OPTION = {
    "no name": ("manual.jsonl", "--data manual.jsonl: written NAME=FILES"),
    "empty name": ("=manual.jsonl", "written NAME=FILES"),
    "no files": ("mine=", "written NAME=FILES"),
    "missing file": ("mine=nowhere.txt", "nowhere.txt: no such file or folder"),
    "empty file": ("mine=empty.jsonl", "empty.jsonl: empty file"),
}

NO_STEP = {
    "misspelt": ("lengt", "corpus.steps.0: no step is called 'lengt'; the nearest is 'length'"),
    "unknown": ("{'step':'sieve'}", "no step is called 'sieve'; known: length, repair_unicode"),
    "without a name": ("{'min_characters':3}", "corpus.steps.0: a step is written as its name, or as a mapping"),
    "misspelt key": (
        "exact_duplicates,{'step':'length','min_char':3}",
        "corpus.steps.1: the step `length` has no setting 'min_char'; the nearest is 'min_characters'",
    ),
    "unknown key": ("{'step':'length','x':3}", "the step `length` has no setting 'x'; known: sources, except_sources"),
    "type": ("{'step':'length','min_characters':'many'}", "steps.0.length.min_characters: a whole number is due"),
    "choice": ("{'step':'scrub_pii','kinds':['mail']}", "input should be 'email', 'ip'"),
    "bounds": ("{'step':'length','min_characters':9,'max_characters':8}", "max_characters 8 is below min_characters 9"),
    "source": (
        "{'step':'length','sources':['manul']}",
        "corpus.steps.0 (length): sources names 'manul', which is no source. Did you mean 'manual'?",
    ),
    "language": ("{'step':'language','keep':['english']}", "the step `language` knows no language 'english' to keep"),
    "classifier without model": ("classifier", "'corpus.steps.0.classifier.model' is missing"),
    "classifier missing": ("{'step':'classifier','model':'nowhere'}", "nowhere: no such file or folder"),
    "classifier elsewhere": ("{'step':'classifier','model':'foreign'}", "foreign: no classifier.json in this folder"),
    "classifier damaged": (
        "{'step':'classifier','model':'broken-classifier'}",
        "broken-classifier/classifier.json: damaged description of a classifier",
    ),
    "evaluation set missing": (
        "{'step':'decontaminate','against':{'exam':['nowhere.jsonl']}}",
        "nowhere.jsonl: no such file or folder",
    ),
    "evaluation set without field": (
        "{'step':'decontaminate','against':{'exam':['questions.jsonl']}}",
        "questions.jsonl, line 1: an example of evaluation set 'exam' cannot be read (no field 'text' among",
    ),
    "evaluation set too short": (
        "{'step':'decontaminate','fields':['question'],'against':{'exam':['questions.jsonl']}}",
        "all 1 texts of 'exam' have fewer than 8 words",
    ),
    "blocklist empty": ("blocklist", "name at least one file in `urls` or `hashes`, or a word in `words_in_url`"),
    "blocklist missing": ("{'step':'blocklist','urls':['nowhere.txt']}", "nowhere.txt: no such file or folder"),
    "blocklist binary": (
        "{'step':'blocklist','urls':['garbage.txt']}",
        "garbage.txt, line 2: not UTF-8; save the list as UTF-8",
    ),
    "blocklist wrong": (
        "{'step':'blocklist','urls':['hosts.txt']}",
        "hosts.txt, line 3: 'no host at all' is no host (as example.com) and no URL; one a line is due",
    ),
    "blocklist hashes": (
        "{'step':'blocklist','hashes':['hashes.txt']}",
        "hashes.txt, line 1: '0123abcd' is no hash; 64 hex digits (SHA-256) or 32 (MD5) are due",
    ),
}
NO_MIXTURE = {
    "no sources": ("--tokens 1B", "no sources: name a recipe, or sizes as in --source web=300B"),
    "no budget": ("--source web=3B", "no budget: say how many tokens are to be drawn"),
    "no size": ("--source web --tokens 1B", "'web': a source is NAME=TOKENS or NAME=FOLDER, as in web=700B"),
    "wrong size": ("--source web=many --tokens 1B", "'many' is neither a number of tokens (as 700B) nor the folder"),
    "no tokens in a folder": ("--source web=foreign --tokens 1B", "foreign: no dataset.json in this folder"),
    "twice": ("--source web=3B --source web=4B --tokens 1B", "source 'web' is given twice"),
    "wrong budget": ("--source web=3B --tokens 1X", "'1X' is no number of tokens; write it as 1T, 26B"),
    "budget of nothing": ("--source web=3B --tokens 0", "'0' is no number of tokens"),
    "small source": ("--source web=3 --tokens 1B", "source 'web' has 3 tokens, fewer than one sequence"),
    "temperature": ("--source web=3B --tokens 1B --temperature 0", "the temperature is 0; it is above 0"),
    "text alone": ("text.yaml", "data.sources.manual names no token dataset; give its size, as in --source manual=30B"),
    "source elsewhere": ("recipe.yaml --source cod=3B", "data.sources has no such source. Did you mean 'code'?"),
    "beyond the text": ("recipe.yaml --propose --tokens 1B", "a budget of 1B tokens is more than max_epochs"),
}

CASES: dict[str, tuple[str, ...]] = {
    "init: near miss": ("init quikstart new.yaml", "no recipe 'quikstart'. Did you mean 'quickstart'?"),
    "init: unknown": ("init t5 new.yaml", "no recipe 't5'. Known: bert-base, chinese, gpt2-124m"),
    "init: there already": ("init quickstart recipe.yaml", "recipe.yaml: exists already; choose another name"),
    "init: a folder": ("init quickstart foreign", "foreign: exists already"),
    "init: under a file": ("init quickstart recipe.yaml/new.yaml", "recipe.yaml: a file, where a folder is due"),
    **{f"corpus build: recipe {key}": (f"corpus build {arg}", *say) for key, (arg, *say) in NO_RECIPE.items()},
    **{
        f"corpus build: text {key}": (f"corpus build text.yaml data.sources.manual.text=['{arg}']", *say)
        for key, (arg, *say) in NO_TEXT.items()
    },
    **{
        f"corpus build: output {key}": (f"corpus build text.yaml --output {arg}", *say)
        for key, (arg, *say) in NO_OUTPUT.items()
    },
    "corpus build: no text named": ("corpus build recipe.yaml", "data.sources names no text; give one"),
    "corpus build: a folder": ("corpus build foreign", "foreign: a folder, where a recipe file (YAML) is due"),
    "corpus build: nothing left": (
        "corpus build text.yaml corpus.steps=[{'step':'length','min_characters':10_000_000}]",
        "source 'manual': no document is left of 38 read (38 length: too short)",
    ),
    **{
        f"corpus build: step {key}": (f"corpus build text.yaml corpus.steps=[{arg}]", *say)
        for key, (arg, *say) in NO_STEP.items()
    },
    "corpus build: name of a source": (
        "corpus build text.yaml data.sources={'a/b':{text:[manual.jsonl]}}",
        "'a/b': the name of a source has letters",
    ),
    **{
        f"corpus classifier: text {key}": (f"corpus classifier --good manual.jsonl --bad {arg} --output new", *say)
        for key, (arg, *say) in NO_TEXT.items()
        if key in ("missing file", "empty file", "address")
    },
    **{
        f"corpus classifier: output {key}": (
            f"corpus classifier --good manual.jsonl --bad code.jsonl --output {arg}",
            *say,
        )
        for key, (arg, *say) in NO_OUTPUT.items()
    },
    "corpus classifier: few documents": (
        "corpus classifier --good manual.jsonl --bad code.jsonl --output new",
        "the good files have 38 different documents; a classifier needs at least 50 good and 50 bad ones",
    ),
    "corpus classifier: ngrams": (
        "corpus classifier --good manual.jsonl --bad code.jsonl --output new --ngrams 9",
        "ngrams is 9; 1 to 3 are possible",
    ),
    **{
        f"tokenizer train: text {key}": (f"tokenizer train {arg} --output new", *say)
        for key, (arg, *say) in NO_TEXT.items()
    },
    **{
        f"tokenizer train: output {key}": (f"tokenizer train manual.jsonl --output {arg}", *say)
        for key, (arg, *say) in NO_OUTPUT.items()
    },
    "tokenizer train: a run's tokenizer": (
        "tokenizer train manual.jsonl --output runs/tiny/tokenizer",
        "runs/tiny/tokenizer: not empty and not a tokenizer trained before; choose another output",
    ),
    "tokenizer train: nothing": ("tokenizer train --output new", "give FILES, or sources with --data NAME=FILES"),
    "tokenizer train: both": (
        "tokenizer train manual.jsonl --data a=manual.jsonl --output new",
        "give FILES, or sources with --data NAME=FILES: one of the two",
    ),
    "tokenizer train: a weight of no source": (
        "tokenizer train --data books=manual.jsonl --weight boks=1 --output new",
        "there is a weight for 'boks', but no text. Did you mean 'books'?",
    ),
    "tokenizer train: a source of no weight": (
        "tokenizer train --data books=manual.jsonl --data web=manual.jsonl --weight books=1 --output new",
        "there is text for 'web', but no weight",
    ),
    "tokenizer train: a weight of 0": (
        "tokenizer train --data books=manual.jsonl --weight books=0 --output new",
        "weights.books is 0.0; a weight is above 0",
    ),
    "tokenizer train: a weight in words": (
        "tokenizer train --data books=manual.jsonl --weight books=all --output new",
        "--weight books=all: written NAME=NUMBER",
    ),
    "tokenizer train: small": (
        "tokenizer train manual.jsonl --output new --vocab-size 10",
        "vocab_size is 10; 256 bytes and 3 special tokens need at least 259",
    ),
    **{
        f"tokenizer compare: tokenizer {key}": (f"tokenizer compare {arg} tokenizer --data mine=manual.jsonl", *say)
        for key, (arg, *say) in NO_TOKENIZER.items()
    },
    **{
        f"tokenizer compare: data {key}": (f"tokenizer compare tokenizer --data {arg}", *say)
        for key, (arg, *say) in NO_DATA_OPTION.items()
    },
    **{
        f"tokenize: text {key}": (f"tokenize {arg} --tokenizer tokenizer --output new", *say)
        for key, (arg, *say) in NO_TEXT.items()
    },
    **{
        f"tokenize: output {key}": (f"tokenize manual.jsonl --tokenizer tokenizer --output {arg}", *say)
        for key, (arg, *say) in NO_OUTPUT.items()
    },
    **{
        f"tokenize: tokenizer {key}": (f"tokenize manual.jsonl --tokenizer {arg} --output new", *say)
        for key, (arg, *say) in NO_TOKENIZER.items()
    },
    "tokenize: there already": (
        "tokenize manual.jsonl --tokenizer tokenizer --output tokens/manual",
        "tokens/manual: this token dataset exists already; delete it or choose another name",
    ),
    "tokenize: all held out": (
        "tokenize manual.jsonl --tokenizer tokenizer --output new --validation-fraction 0.99",
        "all 38 documents fell into the validation split; lower validation_fraction",
    ),
    **{f"mixture: {key}": (f"mixture {arg}", *say) for key, (arg, *say) in NO_MIXTURE.items()},
    **{f"train: recipe {key}": (f"train {arg}", *say) for key, (arg, *say) in NO_RECIPE.items()},
    **{
        f"train: text {key}": (f"train text.yaml data.directory=new data.sources.manual.text=['{arg}']", *say)
        for key, (arg, *say) in NO_TEXT.items()
    },
    **{
        f"train: tokenizer {key}": (f"train recipe.yaml name=new tokenizer.path={arg}", *say)
        for key, (arg, *say) in NO_TOKENIZER.items()
    },
    "train: not a run": ("train foreign", "foreign: not a run folder (it has no config.yaml)"),
    "train: no device": (
        f"train recipe.yaml name=new training.device={ABSENT_DEVICE}",
        f"device '{ABSENT_DEVICE}' is not available",
    ),
    "train: two tokenizers": (
        "train recipe.yaml name=new data.sources.code.tokens=tokens/other",
        "tokens/other: its tokens were made with another tokenizer than data.sources.manual",
        "tokenize both with the same one",
    ),
    "train: tokenizer of another dataset": (
        "train recipe.yaml name=new tokenizer.path=other-tokenizer",
        "tokens/manual: its tokens were made with another tokenizer than tokenizer.path",
    ),
    "train: resumed with another tokenizer": (
        "train runs/tiny training.total_steps=6 tokenizer.path=other-tokenizer",
        "made with another tokenizer than tokenizer.path",
    ),
    "train: tokens missing": (
        "train recipe.yaml name=new data.sources.code.tokens=nowhere",
        "nowhere: no such folder; a finished token dataset (from `firstlight tokenize`) is due",
    ),
    "train: tokens from text": (
        "train recipe.yaml name=new data.sources.code.tokens=code.jsonl",
        "code.jsonl: no such folder; a finished token dataset",
    ),
    "train: tokens cut short": (
        "train recipe.yaml name=new data.sources.code.tokens=tokens/cut",
        "tokens/cut/train-00000.bin",
        "it is damaged",
    ),
    "train: tokens undescribed": (
        "train recipe.yaml name=new data.sources.code.tokens=tokens/undescribed",
        "tokens/undescribed/dataset.json: not a readable description",
    ),
    "train: long sequence": (
        "train recipe.yaml name=new data.sequence_length=1_000_000 model.max_position_embeddings=null",
        "training tokens, fewer than one sequence of 1,000,000",
        "set data.sequence_length to at most",
    ),
    "train: too many passes": (
        "train recipe.yaml name=new training.total_steps=100_000",
        "above data.max_epochs 4",
        "possible: ",
    ),
    "train: no length": ("train recipe.yaml name=new training.total_steps=null", "give total_steps or total_tokens"),
    "train: small vocabulary": (
        "train recipe.yaml name=new model.vocab_size=100",
        "model.vocab_size 100 is smaller than the tokenizer's 512",
    ),
    "train: run folder is a file": (
        "train recipe.yaml name=a-file",
        "runs/a-file: a file, where the run folder is due",
    ),
    "train: somebody's folder": (
        "train recipe.yaml name=foreign",
        "runs/foreign: has thesis.txt but no config.yaml",
        "choose another name=NAME",
    ),
    "train: runs under a file": (
        "train recipe.yaml name=new runs_directory=manual.jsonl",
        "manual.jsonl: a file, where a folder is due",
    ),
    "train: data under a file": (
        "train text.yaml data.directory=manual.jsonl",
        "manual.jsonl: a file, where a folder is due",
    ),
    "train: run renamed": ("train runs/tiny name=other", "a resumed run keeps its folder, runs/tiny"),
    **{
        f"{verb.split()[0]}: run {key}": (verb.format(arg), *say)
        for verb in ("doctor {}", "eval {}", "generate {}", "fill {} <|mask|>", "export {} new")
        for key, (arg, *say) in NO_RUN.items()
    },
    **{
        f"{verb.split()[0]}: step": (verb, "runs/tiny/checkpoints: no complete checkpoint of step 99; there are: 2, 4")
        for verb in ("eval runs/tiny --step 99", "generate runs/tiny --step 99", "export runs/tiny new --step 99")
    },
    "import: nothing there": ("import ./nowhere runs/new", "./nowhere: no such folder"),
    "import: no model": ("import tokenizer runs/new", "tokenizer/config.json: no such model configuration"),
    "import: run in the way": ("import tokenizer runs/tiny", "runs/tiny: not empty"),
    **{f"eval: data {key}": (f"eval runs/tiny --data {arg}", *say) for key, (arg, *say) in NO_DATA_OPTION.items()},
    "eval: data binary": ("eval runs/tiny --data mine=garbage.txt", "garbage.txt", "binary data, not text"),
    "eval: no device": (
        f"eval runs/tiny --device {ABSENT_DEVICE}",
        f"device '{ABSENT_DEVICE}' is not available on this machine; available:",
    ),
    "generate: top-p": ("generate runs/tiny --top-p 2", "top_p is 2.0; above 0 and at most 1"),
    "generate: temperature": ("generate runs/tiny --temperature inf", "temperature is inf; 0 (the likeliest token)"),
    "generate: seed": ("generate runs/tiny --seed -1", "seed is -1; 0 or above"),
    "fill: a causal model": ("fill runs/tiny A-<|mask|>", "does not fill in hidden tokens", "firstlight generate RUN"),
    "generate: long prompt": (
        f"generate runs/tiny --prompt {'long' * 2048}",
        "tokens and the model reads at most 2048",
        "shorten it by at least",
    ),
    **{
        f"export: output {key}": (f"export runs/tiny {arg}", *say)
        for key, (arg, *say) in {**NO_OUTPUT, "the run itself": ("runs/tiny", "runs/tiny: not empty")}.items()
    },
    **{f"quickstart: data {key}": (f"quickstart --data {arg}", *say) for key, (arg, *say) in NO_DATA_OPTION.items()},
    "quickstart: name": ("quickstart --name ../x --data mine=manual.jsonl", "name: letters, digits"),
    "quickstart: misspelt": ("quickstart --data mine=manual.jsonl trainig.total_steps=3", "Did you mean 'training'?"),
    "quickstart: data under a file": (
        "quickstart --data mine=manual.jsonl data.directory=manual.jsonl",
        "manual.jsonl: a file, where a folder is due",
    ),
    "quickstart: somebody's folder": ("quickstart --data mine=manual.jsonl --name foreign", "has thesis.txt"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_sentence_and_changes_nothing(case: str, here: Path, firstlight) -> None:
    command, *parts = CASES[case]
    sentence = firstlight(*command.split(" ")).sentence()
    for part in parts:
        assert part in sentence


USAGE = {
    "": "Usage",
    "pretrain": "No such command 'pretrain'",
    "recipes extra": "extra",
    "init quickstart": "FILE.yaml",
    "corpus": "build",
    "corpus build": "CONFIG",
    "corpus classifier --good manual.jsonl --output new": "--bad",
    "corpus classifier --good manual.jsonl --bad code.jsonl --output new --ngrams 0": "--ngrams",
    "tokenizer": "compare",
    "tokenizer compare --data mine=manual.jsonl": "TOKENIZERS",
    "tokenizer compare tokenizer": "--data",
    "tokenizer compare tokenizer --data mine=manual.jsonl --sample-bytes 0": "--sample-bytes",
    "mixture recipe.yaml --temperature -1": "--temperature",
    "tokenizer train manual.jsonl": "--output",
    "tokenizer train manual.jsonl --output new --vocab-size many": "--vocab-size",
    "tokenizer train manual.jsonl --output new --digits pairs": "'single'",
    "tokenizer train manual.jsonl --output new --sample-bytes 0": "--sample-bytes",
    "tokenize manual.jsonl --output new": "--tokenizer",
    "tokenize manual.jsonl --tokenizer tokenizer --output new --validation-fraction 1.5": "--validation-fraction",
    "tokenize manual.jsonl --tokenizer tokenizer --output new --workers 0": "--workers",
    "train": "RECIPE",
    "train --fast recipe.yaml": "--fast",
    "eval": "RUN",
    "eval runs/tiny --device tpu": "'cuda'",
    "eval runs/tiny --max-tokens 0": "--max-tokens",
    "generate runs/tiny --temperature -1": "--temperature",
    "generate runs/tiny --top-k 0": "--top-k",
    "generate runs/tiny --max-new-tokens 0": "--max-new-tokens",
    "generate runs/tiny --step last": "--step",
    "fill runs/tiny": "TEXT",
    "fill runs/tiny A-<|mask|> --top-k 0": "--top-k",
    "eval runs/tiny --pseudo-tokens -1": "--pseudo-tokens",
    "export runs/tiny": "DIR",
    "export runs/tiny new --format gguf": "'huggingface'",
    "export runs/tiny new --dtype int8": "'bfloat16'",
    "quickstart --minutes 0": "--minutes",
    "quickstart --minutes inf": "--minutes",
}


@pytest.mark.parametrize("command", USAGE)
def test_a_wrong_command_line_shows_the_usage(command: str, here: Path, firstlight) -> None:
    code, out, err = firstlight(*command.split())
    assert code == EXIT_USAGE
    assert "Traceback" not in err
    assert "Usage" in out + err
    assert USAGE[command] in out + err


def test_a_table_without_the_text_column_names_the_option_that_works(here: Path, firstlight, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = tmp_path / "body.parquet"
    parquet.write_table(pyarrow.table({"body": ["some text", "and more"] * 50}), table)
    for verb in ("tokenizer train", "tokenize --tokenizer tokenizer"):
        output = tmp_path / "new"
        command = (*verb.split(), table, "--output", output)
        assert re.search(r"no column 'text'; it has 'body'.*--text-field", firstlight(*command).sentence())
        assert not output.exists()
        code, _, err = firstlight(*command, "--text-field", "body")
        assert code == 0, err
        shutil.rmtree(output)


@pytest.mark.slow
def test_a_file_name_that_is_not_utf8_goes_through_every_stage(
    made: Path, tmp_path: Path, monkeypatch, firstlight
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "caf\udce9.jsonl"
    try:
        shutil.copy(made / "manual.jsonl", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    small = [
        *("model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=4"),
        *("training.total_steps=2", "training.compile=false", "training.device=cpu", "schedule.warmup_steps=0"),
        *("tokenizer.vocab_size=300", "data.sequence_length=64", "data.mixture={}"),
        "data.sources={mine: {text: ['*.jsonl']}}",
    ]
    for command in (
        ("train", "quickstart", *small),
        ("train", "runs/quickstart", "training.total_steps=3"),
        ("tokenize", name, "--tokenizer", "runs/quickstart/tokenizer", "--output", "caf\udce9-tokens"),
        ("eval", "runs/quickstart", "--data", f"mine={name}", "--max-tokens", "500"),
        ("export", "runs/quickstart", "caf\udce9-model"),
    ):
        code, _, err = firstlight(*command)
        assert code == 0, err
    code, _, err = firstlight("tokenize", "nowhere\udce9.txt", "--tokenizer", "nowhere", "--output", "new")
    assert "nowhere·.txt: no such file" in err
    code, _, err = firstlight("generate", "runs/quickstart", "--prompt", "caf\udce9")
    assert "the prompt is not valid UTF-8" in err


@pytest.mark.parametrize(
    "verb",
    [
        "quickstart",
        "recipes",
        "init",
        "corpus",
        "corpus build",
        "corpus classifier",
        "tokenizer",
        "tokenizer train",
        "tokenizer compare",
        "tokenize",
        "mixture",
        "train",
        "launch",
        "doctor",
        "eval",
        "generate",
        "fill",
        "export",
        "import",
    ],
)
def test_the_help_of_every_verb_has_an_example(verb: str, firstlight) -> None:
    code, out, _ = firstlight(*verb.split(), "--help")
    assert code == 0
    assert re.search(rf"Example: firstlight {verb}", out)


def test_the_help_lists_the_verbs_in_the_order_of_the_work(firstlight) -> None:
    _, out, _ = firstlight("--help")
    verbs = re.findall(r"^│ ([a-z][\w-]+)  ", out, re.MULTILINE)
    assert " ".join(verbs) == (
        "quickstart recipes init corpus tokenizer tokenize mixture plan scaling train launch watch doctor inspect eval "
        "generate fill report export import megatron import-config verify"
    )
