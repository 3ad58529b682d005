"""Inputs by name: each file once, in an order that depends on names alone; every mistake is one sentence."""

from __future__ import annotations

import glob
import itertools
import os
import random
import subprocess
from pathlib import Path

import pytest

from firstlight.documents import expand_inputs, read_documents, sources_fingerprint
from firstlight.documents.folders import matches
from firstlight.support.errors import DataError, FirstlightError

GOOD = b'{"text": "good"}\n'


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_inputs_are_sorted_unique_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.txt", ".hidden/d.txt", "__pycache__/e.pyc", "[x].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, GOOD)
    inside = sorted(str(tmp_path / name) for name in ("[x].txt", "a.jsonl", "b.jsonl", "sub/c.txt"))
    assert expand_inputs([str(tmp_path)]) == inside
    assert expand_inputs([f"{tmp_path}/*.jsonl", f"{tmp_path}/a.jsonl"]) == inside[1:3]
    assert expand_inputs([f"{tmp_path}/**/*.txt"]) == [inside[0], inside[3]]
    assert expand_inputs([f"{tmp_path}/[x].txt"]) == [inside[0]]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("nothing.jsonl", "no such file or folder"),
        ("*.nothing", "matches no file"),
        ("empty.jsonl", "empty file"),
        ("emp*", "only empty files"),
        ("bare", "a folder without files"),
        ("dangling.txt", "no such file"),
        ("pipe", "not a regular file"),
    ],
)
def test_a_wrong_input_is_one_sentence(tmp_path: Path, pattern: str, sentence: str) -> None:
    write(tmp_path / "empty.jsonl", b"")
    write(tmp_path / "empty.txt", b"")
    (tmp_path / "bare").mkdir()
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=sentence) as raised:
        expand_inputs([f"{tmp_path}/{pattern}"])
    assert pattern in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("starter:boks", "Did you mean 'books'"),
        ("hf:", "write hf:NAME"),
        ("", "the name of an input is empty"),
        ("file://", "the name of an input is empty"),
        ("file://[x", "no address of a file"),
        ("http://[", "no address"),
        ("~nosuchuser/x", "no such user"),
        ("s4://bucket/x.jsonl", "no known kind of address. Known: "),
    ],
)
def test_a_wrong_name_is_one_sentence(pattern: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        expand_inputs([pattern])


def test_the_fingerprint_changes_with_what_matters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD)
    first = sources_fingerprint([str(path)], {"min": 1})
    assert first == sources_fingerprint([str(tmp_path)], {"min": 1})
    assert first != sources_fingerprint([str(path)], {"min": 2})
    os.utime(path, ns=(1, 1))
    assert first != sources_fingerprint([str(path)], {"min": 1})


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    inside = tmp_path / "corpus"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.jsonl").write_bytes(GOOD)
    (inside / "sub" / "b.jsonl").write_bytes(GOOD)
    (inside / "sub" / "up").symlink_to(inside)
    (inside / "other").symlink_to(inside / "sub")
    (inside / "again.jsonl").symlink_to(inside / "a.jsonl")
    for pattern in (str(inside), f"{inside}/**/*.jsonl"):
        found = expand_inputs([pattern])
        assert sorted(os.path.realpath(path) for path in found) == [
            str(inside / "a.jsonl"),
            str(inside / "sub" / "b.jsonl"),
        ]
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    for pattern in ("loop.jsonl", "loop*"):
        with pytest.raises(DataError, match="loop"):
            expand_inputs([f"{tmp_path}/{pattern}"])


def test_a_file_with_several_names_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "b.jsonl", GOOD)
    (tmp_path / "a.jsonl").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert expand_inputs(["b.jsonl", str(path), "./b.jsonl", path.as_uri(), "*.jsonl"]) == [str(path)]
    assert expand_inputs(["a.jsonl", "b.jsonl", "starter:code"]) == ["a.jsonl", "starter:code"]


def test_an_empty_file_among_others_is_left_to_the_reader(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "a.jsonl", b"")), str(write(tmp_path / "b.jsonl", GOOD))]
    assert expand_inputs([str(tmp_path)]) == expand_inputs(expand_inputs([str(tmp_path)])) == paths
    assert sources_fingerprint(paths[:1]) != sources_fingerprint(paths[1:])
    with pytest.raises(DataError, match=r"a\.jsonl: empty file"):
        expand_inputs(paths[:1])


def test_a_glob_stands_for_what_it_always_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(0)
    names = ["a", "b.jsonl", ".hidden", "[x]", "new\nline", "ü"]
    for place in itertools.product(names, repeat=3):
        folder = tmp_path.joinpath(*place[: noise.randrange(3)])
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{place[2]}-file.jsonl", GOOD)
    patterns = ["*", "**", "**/*", "*/*", "**/a/*", "a/**/b*", "**/**/*.jsonl", ".*/*", "**/.*", "?", "[ab]*", "./*"]
    patterns += ["[[]x]/**", "a**b", "**/nothing", "*/b.jsonl", "**/[!a]*/**/*-file.jsonl", "new?line/*"]
    monkeypatch.chdir(tmp_path)
    for pattern in [*patterns, *(f"{tmp_path}/{pattern}" for pattern in patterns)]:
        theirs = glob.glob(pattern, recursive=True)  # noqa: PTH207 (what it is compared with)
        assert {path for path, _ in matches(pattern)} - {Path()} == set(map(Path, theirs)), pattern
    for path, is_folder in matches("**/*"):
        assert is_folder == path.is_dir()


def test_a_deep_tree_is_gone_through(tmp_path: Path) -> None:
    depth = 1100
    places = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(depth):
        os.mkdir("d", dir_fd=places[-1])
        places.append(os.open("d", os.O_RDONLY, dir_fd=places[-1]))
        os.close(places.pop(-2))
    for name, data in (("a.jsonl", b""), ("b.jsonl", GOOD)):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=places[-1])
        os.write(handle, data)
        os.close(handle)
    os.close(places.pop())
    try:
        expected = [f"{tmp_path}/{'d/' * depth}{name}" for name in ("a.jsonl", "b.jsonl")]
        assert expand_inputs([str(tmp_path)]) == expand_inputs([f"{tmp_path}/**/*.jsonl"]) == expected
    finally:  # Python's own way to remove a tree does not get so deep
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset_dict.json", b"[1]"),
        ("dataset_dict.json", b'{"splits": {"train": 1}}'),
        ("dataset_dict.json", b"\xff\xfe"),
        ("state.json", b'{"_data_files": [{"filename": 5}]}'),
        ("state.json", b"5"),
    ],
)
def test_a_damaged_description_of_a_dataset_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path / "dataset_info.json", b"{}")
    write(tmp_path / name, content)
    with pytest.raises(FirstlightError, match=rf"{name}: .*Hugging Face dataset"):
        expand_inputs([str(tmp_path)])


def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    parts = tmp_path / "x.jsonl"
    parts.mkdir()
    (parts / "part-0.jsonl").write_bytes(GOOD)
    (parts / "_SUCCESS").write_bytes(b"")
    expected = [str(parts / "_SUCCESS"), str(parts / "part-0.jsonl")]
    for pattern in (str(parts), f"{tmp_path}/*.jsonl", f"{tmp_path}/**/*.jsonl"):
        assert expand_inputs([pattern]) == expected
    with pytest.raises(DataError, match=r"x\.jsonl: not a regular file"):
        list(read_documents(str(parts)))
