"""The hub: real calls of `datasets`, on what is saved here and on a stand-in for the network."""

import datasets
import pytest
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

from papercore.errors import DataError
from r3.hub import CONVERTED, HubRef, hub_parts, parse_hub, rows_of

LABELS = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])


@pytest.mark.parametrize(
    ("ref", "parsed"),
    [
        ("openai/gsm8k", HubRef("openai/gsm8k")),
        ("openai/gsm8k:main", HubRef("openai/gsm8k", "main")),
        ("a-b/c.d_e:part@refs/pr/3#test", HubRef("a-b/c.d_e", "part", "refs/pr/3", "test")),
        ("a/b#validation_matched", HubRef("a/b", split="validation_matched")),
        ("gsm8k", None),
        ("a/b/c", None),
        ("../b", None),
        ("a/..", None),
        ("a/b:", None),
        ("https://x.y/z", None),
    ],
)
def test_references(ref, parsed):
    assert parse_hub(ref) == parsed


@pytest.fixture
def asked(monkeypatch):
    """What `load_dataset` was asked for; it answers with two splits."""
    calls = []
    rows = {"premise": ["P", "Q"], "label": [2, -1]}
    features = datasets.Features({"premise": datasets.Value("string"), "label": LABELS})
    found = datasets.DatasetDict(
        {name: datasets.Dataset.from_dict(rows, features=features) for name in ("train", "test")}
    )

    def load_dataset(*args, **options):
        calls.append((args, options))
        return found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_all_splits_are_had_and_no_code_is_trusted(asked):
    parts = hub_parts(HubRef("a/b", "part"))
    assert [(part.split, part.count) for part in parts] == [("train", 2), ("test", 2)]
    assert asked == [(("a/b", "part"), {"revision": None})]


def test_one_split_may_be_named(asked):
    assert [part.split for part in hub_parts(HubRef("a/b", split="test"))] == ["test"]
    with pytest.raises(DataError, match=r"no split 'tset' \(there are: train, test\)"):
        hub_parts(HubRef("a/b", split="tset"))


def test_cot_collection_is_read_from_its_parquet_branch(asked):
    hub_parts(HubRef("kaist-ai/CoT-Collection"))
    hub_parts(HubRef("kaist-ai/CoT-Collection", revision="mine"))
    assert [options["revision"] for _, options in asked] == [CONVERTED, "mine"]


def test_classes_become_their_names_and_those_without_one_stay(asked):
    rows = [dict(row.fields) for row in hub_parts(HubRef("a/b"))[0].rows()]
    assert rows == [{"premise": "P", "label": "contradiction"}, {"premise": "Q", "label": -1}]


def test_places_of_rows_are_told():
    data = datasets.Dataset.from_dict({"a": [1, 2]})
    assert [row.where for row in rows_of("x#train", data)] == ["x#train[1]", "x#train[2]"]


def raising(error):
    def load_dataset(*args, **options):
        raise error

    return load_dataset


class GatedError(GatedRepoError):
    def __init__(self):
        Exception.__init__(self, "gated\nrepo")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub\n(ConnectTimeout)"), "out of reach"),
        (OfflineModeIsEnabled("offline"), "out of reach"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"), "check it"),
        (GatedError(), "hf auth login"),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "never run"),
        (ValueError("BuilderConfig 'x' not found. Available: ['main']"), "check the part's name"),
        (datasets.exceptions.DatasetGenerationError("broken"), "give its files"),
    ],
)
def test_errors_are_one_line_with_a_remedy(monkeypatch, error, remedy):
    monkeypatch.setattr(datasets, "load_dataset", raising(error))
    with pytest.raises(DataError, match=rf"^a/b: cannot be had from the hub: .*{remedy}") as caught:
        hub_parts(HubRef("a/b"))
    assert "\n" not in str(caught.value)
    assert "--source" in str(caught.value) or "hf auth login" in str(caught.value)


def test_offline_the_real_library_is_asked_and_answers_in_one_line():
    with pytest.raises(DataError, match=r"openai/gsm8k: cannot be had.*give its files"):
        hub_parts(HubRef("openai/gsm8k", "main"))
