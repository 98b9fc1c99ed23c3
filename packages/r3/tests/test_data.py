"""Prepared folders: written whole, read with care, honest about changes."""

import json
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from r3.config import PromptConfig
from r3.data import MANIFEST, is_prepared, read_prepared, write_prepared
from r3.demos import Demo

PROMPT = PromptConfig()


def demo(name, **changes):
    fields = {"question": f"What is {name}?", "target": "It is 4.\n#### 4", "gold": "4"}
    return Demo(**{"id": name, "answer_at": 9, **fields, **changes})


SPLITS = {
    "train": (demo("a"), demo("b")),
    "dev": (demo("c"),),
    "test": (demo("d", target="", answer_at=0),),
}


def write(folder, splits=SPLITS, **changes):
    settings = {"task": "gsm8k", "prompt": PROMPT, "meta": {"licence": "MIT"}}
    return write_prepared(folder, splits=splits, **{**settings, **changes})


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_what_is_written_is_read_back(tmp_path):
    written = write(tmp_path / "data")
    read = read_prepared(tmp_path / "data")
    assert read == written
    assert read.task == "gsm8k"
    assert read.prompt == PROMPT
    assert read.meta == {"licence": "MIT"}
    assert read.edited == ()
    for name, demos in SPLITS.items():
        assert read.split(name) == demos
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_comes_back_as_it_was(tmp_path_factory, question, target, gold):
    folder = tmp_path_factory.mktemp("any") / "data"
    one = Demo("x", question, target, gold, len(target))
    assert write(folder, {"train": (one,)}).split("train") == (one,)


def test_tuning_has_the_training_data_unless_it_has_its_own(tmp_path):
    assert write(tmp_path / "a").split("sft") == SPLITS["train"]
    own = {**SPLITS, "sft": (demo("e"), demo("a", target="Or 4.\n#### 4", answer_at=6))}
    assert write(tmp_path / "b", own).split("sft") == own["sft"]


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_a_split_that_is_not_there_says_what_to_do(tmp_path, name):
    kept = {split: demos for split, demos in SPLITS.items() if split != name}
    with pytest.raises(DataError, match=f"has no {name} questions .*: prepare"):
        write(tmp_path / "data", kept).split(name)


def test_the_digest_covers_task_prompt_and_splits_but_not_the_folder(tmp_path):
    first = write(tmp_path / "a").digest
    assert write(tmp_path / "b", meta={"note": "other"}).digest == first
    other = PromptConfig(template="Q: {question}\n")
    digests = {
        first,
        write(tmp_path / "c", prompt=other).digest,
        write(tmp_path / "d", task="svamp").digest,
        write(tmp_path / "e", {**SPLITS, "dev": ()}).digest,
        write(tmp_path / "f", {**SPLITS, "train": SPLITS["train"][::-1]}).digest,
    }
    assert len(digests) == 5


def test_a_file_changed_by_hand_is_used_as_it_is_and_told(tmp_path, caplog):
    before = write(tmp_path / "data")
    edit(tmp_path / "data" / "train.jsonl", "What is a?", "What is z?")
    with caplog.at_level(logging.WARNING):
        after = read_prepared(tmp_path / "data")
    assert after.edited == ("train.jsonl",)
    assert after.digest != before.digest
    assert after.split("train")[0].question == "What is z?"
    assert "train.jsonl" in caplog.text
    assert after.digest[:12] in caplog.text
    assert read_prepared(tmp_path / "data").digest == after.digest


def test_an_unchanged_folder_says_nothing(tmp_path, caplog):
    write(tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        read_prepared(tmp_path / "data")
    assert caplog.text == ""


def test_a_prompt_changed_by_hand_is_told_too(tmp_path, caplog):
    before = write(tmp_path / "data")
    edit(tmp_path / "data" / MANIFEST, "Question: {question}", "Q: {question}")
    after = read_prepared(tmp_path / "data")
    assert after.edited == (MANIFEST,)
    assert after.digest != before.digest
    assert after.prompt.template.startswith("Q:")


def test_a_file_that_was_added_by_hand_is_read_and_told(tmp_path):
    write(tmp_path / "data")
    (tmp_path / "data" / "sft.jsonl").write_text(
        json.dumps({"id": "e", "question": "E?", "target": "4", "gold": "4", "answer_at": 0})
    )
    found = read_prepared(tmp_path / "data")
    assert found.edited == ("sft.jsonl",)
    assert found.split("sft")[0].id == "e"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"id": "b"', '"id": "a"', "id 'a' is on line 1 already"),
        ('"question": "What is b?"', '"question": " "', "question or gold is empty"),
        ('"target": "It is 4.\\n#### 4", "gold": "4"', '"target": "", "gold": "4"', "no target"),
        ('"answer_at": 9', '"answer_at": 99', "answer_at=99 is outside"),
        ('"answer_at": 9', '"answer_at": -1', "answer_at=-1 is outside"),
        ('"answer_at": 9', '"answer_at": "9"', "answer_at"),
        ('"gold": "4"', '"gold": 4', "gold"),
        ('"gold": "4", ', "", "gold"),
        ('{"id": "a"', '["id": "a"', ""),
    ],
)
def test_a_damaged_line_is_named(tmp_path, old, new, problem):
    write(tmp_path / "data")
    edit(tmp_path / "data" / "train.jsonl", old, new)
    with pytest.raises(DataError, match=rf"train\.jsonl:[12]: .*{problem}") as caught:
        read_prepared(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    write(tmp_path / "data")
    path = tmp_path / "data" / "dev.jsonl"
    path.write_bytes(path.read_bytes().replace(b"What", b"Wh\xff"))
    with pytest.raises(DataError, match=r"dev\.jsonl:1"):
        read_prepared(tmp_path / "data")


@pytest.mark.parametrize(
    ("first", "second"), [("train", "test"), ("train", "dev"), ("dev", "test"), ("sft", "test")]
)
def test_a_question_in_two_splits_is_refused(tmp_path, first, second):
    again = demo("again", question="  What\n is d? ")
    base = {"train": (demo("a"),), first: (demo("d"),), second: (again,)}
    with pytest.raises(DataError, match=rf"{first}|{second}"):
        write(tmp_path / "data", base)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ({}, "holds no prepared data"),
        ({"prepared_schema": 2}, "schema 2"),
        ({"prepared_schema": 1}, "is damaged"),
        ({"prepared_schema": 1, "files": {}, "meta": {}, "task": "x", "prompt": {}}, "no task 'x'"),
        (
            *({"prepared_schema": 1, "files": {"train": 3}, "meta": {}, "task": "gsm8k"},),
            "damaged|prompt",
        ),
        (
            {"prepared_schema": 1, "files": {}, "meta": {}, "task": "svamp", "prompt": {"a": 1}},
            "prompt",
        ),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, manifest, problem):
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=problem):
        read_prepared(tmp_path)


def test_a_missing_split_file_is_named(tmp_path):
    write(tmp_path / "data")
    (tmp_path / "data" / "dev.jsonl").unlink()
    with pytest.raises(DataError, match=r"dev\.jsonl: cannot be read"):
        read_prepared(tmp_path / "data")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ConfigError, match="holds no prepared data"):
        write(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="is a file"):
        write(tmp_path / "thesis.tex", overwrite=overwrite)


def test_prepared_data_are_replaced_on_demand_only(tmp_path):
    write(tmp_path / "data")
    with pytest.raises(ConfigError, match="--overwrite replaces"):
        write(tmp_path / "data", {"train": (demo("new"),)})
    assert read_prepared(tmp_path / "data").split("train") == SPLITS["train"]
    write(tmp_path / "data", {"train": (demo("new"),)}, overwrite=True)
    found = read_prepared(tmp_path / "data")
    assert found.split("train") == (demo("new"),)
    assert set(found.splits) == {"train"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    assert is_prepared(tmp_path / "data")


def test_a_failure_while_writing_leaves_the_old_data_whole(tmp_path, monkeypatch):
    before = write(tmp_path / "data")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        write(tmp_path / "data", {"train": (demo("new"),)}, overwrite=True)
    monkeypatch.undo()
    assert read_prepared(tmp_path / "data") == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
