"""Sources: which rows belong to which split, by the names of files, folders and splits."""

import json

import datasets
import pytest

from papercore.errors import DataError
from r3 import sources
from r3.hub import HubPart
from r3.sources import parts_of, source_parts
from r3.sources import test_parts as parts_to_test
from r3.tasks import TASKS


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name}))
    return str(folder)


def named(parts, folder=None):
    prefix = f"{folder}/" if folder else ""
    return [(part.name.removeprefix(prefix), part.split) for part in parts]


def test_a_file_is_trained_on_unless_its_name_says_otherwise(tmp_path):
    put(tmp_path, "mine.jsonl", "gsm8k_test.jsonl", "dev.json")
    refs = [str(tmp_path / name) for name in ("mine.jsonl", "gsm8k_test.jsonl", "dev.json")]
    parts, unread = source_parts(refs, TASKS["gsm8k"])
    assert [split for _, split in named(parts)] == ["train", "test", "dev"]
    assert unread == []


def test_what_is_given_to_test_on_is_tested_on_whatever_its_name(tmp_path):
    put(tmp_path, "train.jsonl")
    assert named(parts_to_test([str(tmp_path / "train.jsonl")]), tmp_path) == [
        ("train.jsonl", "test")
    ]


def test_of_a_folder_to_test_on_only_the_test_split_is(tmp_path):
    put(tmp_path, "train.jsonl", "test.jsonl")
    assert named(parts_to_test([str(tmp_path)]), tmp_path) == [("test.jsonl", "test")]
    put(tmp_path / "other", "a.jsonl", "b.jsonl")
    with pytest.raises(DataError, match="no part of it is called test"):
        parts_to_test([str(tmp_path / "other")])


def test_names_in_a_folder_at_any_depth(tmp_path):
    put(
        *(tmp_path, "snli_1.0_train.jsonl", "snli_1.0_dev.jsonl", "snli_1.0_test.jsonl"),
        *("README.md", "README.txt", "snli_1.0_train.txt", ".hidden.jsonl", "_x/a.jsonl"),
        *("val/a.parquet", "dataset_infos.json", "LICENSE.txt", "data/x.csv", "trainer/y.csv"),
    )
    parts, _ = source_parts([str(tmp_path)], TASKS["snli"])
    assert sorted(named(parts, tmp_path)) == [
        ("data/x.csv", "train"),
        ("snli_1.0_dev.jsonl", "dev"),
        ("snli_1.0_test.jsonl", "test"),
        ("snli_1.0_train.jsonl", "train"),
        ("trainer/y.csv", "train"),
        ("val/a.parquet", "dev"),
    ]


def test_race_has_a_folder_of_many_texts_for_each_level_and_split(tmp_path):
    put(
        *(tmp_path, "RACE/train/high/1.txt", "RACE/train/high/2.txt", "RACE/train/middle/3.txt"),
        *("RACE/dev/high/4.txt", "RACE/test/high/5.txt", "RACE/test/middle/6.txt"),
    )
    parts, unread = source_parts([str(tmp_path)], TASKS["race-high"])
    assert named(parts, tmp_path) == [
        ("RACE/dev/high", "dev"),
        ("RACE/test/high", "test"),
        ("RACE/train/high", "train"),
    ]
    assert [name.removeprefix(f"{tmp_path}/") for name in unread] == [
        "RACE/test/middle",
        "RACE/train/middle",
    ]
    train = parts[2]
    assert [row.fields["name"] for row in train.rows()] == [
        "RACE/train/high/1.txt",
        "RACE/train/high/2.txt",
    ]
    assert train.origin["files"] == 2


def test_gsm8k_s_socratic_files_are_another_data_set(tmp_path):
    put(tmp_path, "train.jsonl", "train_socratic.jsonl", "test.jsonl")
    parts, unread = source_parts([str(tmp_path)], TASKS["gsm8k"])
    assert named(parts, tmp_path) == [("test.jsonl", "test"), ("train.jsonl", "train")]
    assert unread == [str(tmp_path / "train_socratic.jsonl")]
    chosen, _ = source_parts([str(tmp_path / "train_socratic.jsonl")], TASKS["gsm8k"])
    assert named(chosen, tmp_path) == [("train_socratic.jsonl", "train")]


def test_mnli_is_tested_on_its_matched_validation_set(tmp_path):
    names = ["dev_matched", "dev_mismatched", "train"]
    put(tmp_path, *(f"multinli_1.0_{name}.jsonl" for name in names))
    parts, unread = source_parts([str(tmp_path)], TASKS["mnli"])
    assert named(parts, tmp_path) == [
        ("multinli_1.0_dev_matched.jsonl", "test"),
        ("multinli_1.0_train.jsonl", "train"),
    ]
    assert unread == [str(tmp_path / "multinli_1.0_dev_mismatched.jsonl")]


def test_glue_s_mnli_has_test_splits_without_labels_which_are_not_read(monkeypatch):
    names = ["train", "validation_matched", "validation_mismatched", "test_matched"]
    parts = [HubPart(name, 3, "f", lambda: iter(())) for name in names]
    monkeypatch.setattr(sources, "hub_parts", lambda ref: parts)
    found, unread = source_parts(["nyu-mll/glue:mnli"], TASKS["mnli"])
    assert named(found, "nyu-mll") == [
        ("glue#train", "train"),
        ("glue#validation_matched", "test"),
    ]
    assert unread == ["nyu-mll/glue#test_matched", "nyu-mll/glue#validation_mismatched"]


def test_an_empty_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(DataError, match="holds no file"):
        parts_of(str(tmp_path))
    for ref in ("gsm8k", str(tmp_path / "no.jsonl"), "data/no.jsonl", "./a/b", "a/b/c"):
        with pytest.raises(DataError, match="no such file or folder"):
            parts_of(ref)


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    put(tmp_path, "a.jsonl", "b.jsonl", "c.jsonl")
    monkeypatch.setattr(sources, "_MAX_FILES", 2)
    with pytest.raises(DataError, match="more than 2 files"):
        parts_of(str(tmp_path))


def test_a_data_set_that_datasets_saved(tmp_path):
    found = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"question": [name], "answer": ["1"]})
            for name in ("train", "validation", "test")
        }
    )
    found.save_to_disk(str(tmp_path / "saved"))
    parts, _ = source_parts([str(tmp_path / "saved")], TASKS["gsm8k"])
    assert [split for _, split in named(parts)] == ["train", "dev", "test"]
    assert [row.fields["question"] for row in parts[1].rows()] == ["validation"]
    found["train"].save_to_disk(str(tmp_path / "one"))
    assert [
        split for _, split in named(source_parts([str(tmp_path / "one")], TASKS["gsm8k"])[0])
    ] == ["train"]
    (tmp_path / "saved" / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a saved data set"):
        parts_of(str(tmp_path / "saved"))


def test_a_data_set_of_the_hub(monkeypatch):
    def hub_parts(ref):
        return [HubPart(name, 3, "f", lambda: iter(())) for name in ("train", "validation_matched")]

    monkeypatch.setattr(sources, "hub_parts", hub_parts)
    parts, _ = source_parts(["nyu-mll/multi_nli@main"], TASKS["mnli"])
    assert named(parts) == [
        ("nyu-mll/multi_nli#train", "train"),
        ("nyu-mll/multi_nli#validation_matched", "test"),
    ]
    assert parts[0].origin == {
        "hub": "nyu-mll/multi_nli",
        "part": None,
        "revision": "main",
        "split": "train",
        "rows": 3,
        "fingerprint": "f",
    }


def test_origins_of_files_hold_their_hash(tmp_path):
    put(tmp_path, "a.jsonl")
    (part,) = parts_of(str(tmp_path / "a.jsonl"))
    assert part.origin["file"] == str(tmp_path / "a.jsonl")
    assert len(str(part.origin["sha256"])) == 64
