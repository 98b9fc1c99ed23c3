"""Documents from files and from the hub, and what is refused there."""

import gzip
import json
import sys

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longheads import corpus, hub_texts
from longheads.cli import APP
from longheads.corpus import open_corpus
from longheads.corpus_size import known_tok
from longheads.hub_texts import NAMED, HubTexts, find, stream
from papercore.errors import DataError


def jsonl(path, *texts):
    content = "".join(json.dumps({"text": text, "meta": {}}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(*data):
    return [(one.index, one.text) for one in open_corpus([str(name) for name in data])]


# files


def test_files_folders_and_jsonl_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("zwei\n")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfeins")
    jsonl(tmp_path / "c.jsonl", "drei", "vier")
    jsonl(tmp_path / "d.jsonl.gz", "f\u00fcnf")
    (tmp_path / "notes.md").write_text("left out of a folder")
    texts = ["eins", "zwei", "drei", "vier", "f\u00fcnf"]
    assert read(tmp_path) == list(enumerate(texts))
    assert read(tmp_path / "notes.md", tmp_path / "b.txt") == [
        (0, "left out of a folder"),
        (1, "zwei"),
    ]


def test_a_folder_says_what_it_leaves_out_and_holds_empty_files_for_too_short(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").touch()
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"three\n"))
    (tmp_path / "notes.md").write_text("?")
    (tmp_path / "more").mkdir()
    assert read(tmp_path) == [(0, "one"), (1, ""), (2, "three")]
    assert "2 files or folders that do not end in" in caplog.text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_jsonl_gives_back_every_text(tmp_path_factory, texts):
    path = jsonl(tmp_path_factory.mktemp("x") / "a.jsonl.gz", *texts)
    assert [text for _, text in read(path)] == texts


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\n\n  \n{"text": "two"}')
    assert [(one.name, one.text) for one in open_corpus([str(path)])] == [
        (f"{path}:1", "one"),
        (f"{path}:4", "two"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b" \n\n", "a.txt is empty"),
        ("a.txt", b"caf\xe9", "byte 3 is not UTF-8"),
        ("a.txt.gz", b"text", "a.txt.gz: cannot be read"),
        ("a.txt", b"text\0text", "is a binary file"),
        ("a.jsonl", b"", "holds no text"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', "a.jsonl:2: is not an object with a string"),
        ("a.jsonl", b'{"text": 3}', 'with a string "text"'),
        ("a.jsonl", b'["text"]', "a.jsonl:1: is not an object"),
        ("a.jsonl", b'{"text": "x"', "a.jsonl:1: is not JSON"),
        ("a.jsonl", b'{"text": "x\0"}', "a.jsonl:1: is not JSON"),
        ("a.jsonl", b'{"text": "\xe9"}', "a.jsonl:1: byte 10 is not UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl:1: character 0 is half of one"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: is not JSON"),
        ("a.jsonl.gz", b'{"text": "x"}', "a.jsonl.gz: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}', mtime=0)[:-4], "a.jsonl.gz: cannot be read"),
    ],
)
def test_bad_files_are_refused_before_a_model_is_loaded(capsys, tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    words = ["perplexity", "tiny", "--data", path, "--model", "none", "--out", tmp_path / "run"]
    assert APP.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert reason in said.err
    assert not (tmp_path / "run").exists()


def test_a_line_that_is_too_long_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 35)
    with pytest.raises(DataError, match=r"a.jsonl:2: the line has more than"):
        read(jsonl(tmp_path / "a.jsonl", "short", "long" * 9))


def test_an_empty_folder_and_names_of_nothing_are_refused(tmp_path):
    for data, reason in (
        ([tmp_path], "holds no file that ends in .txt, .txt.gz, .jsonl, .jsonl.gz"),
        ([], "there is no text to read"),
        (["nonesuch"], "nonesuch: no such file or folder, and no data set"),
        (["../x"], "no such file"),
    ):
        with pytest.raises(DataError, match=reason):
            read(*data)


def test_the_hash_is_that_of_the_texts(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    first = open_corpus([str(tmp_path / "a.txt")]).check()
    assert open_corpus([str(jsonl(tmp_path / "b.jsonl", "one"))]).check() == first
    (tmp_path / "a.txt").write_text("two")
    assert open_corpus([str(tmp_path / "a.txt")]).check() != first


def test_the_world_is_the_same_for_the_same_seed():
    texts = [[one.text for one in open_corpus(["world"], seed=s, world_tok=99)] for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert {len(text.split()) for text in texts[0]} == {99}


def test_sizes_that_can_be_known(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 400)
    assert known_tok(str(tmp_path)) == 100
    assert known_tok("pg19") == 10_120_713
    jsonl(tmp_path / "b.jsonl.gz", "x")
    assert known_tok(str(tmp_path)) is None
    assert known_tok("owner/name") is None


# the hub


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("pg19", NAMED["pg19"]),
        ("deepmind/pg19", NAMED["pg19"]),
        ("owner/name", HubTexts("owner/name")),
        ("owner/name:part@main#train", HubTexts("owner/name", "part", "main", "train")),
        ("nonesuch", None),
        ("../name", None),
    ],
)
def test_names(name, found):
    assert find(name) == found


def test_the_file_of_proof_pile_may_be_taken_at_a_revision():
    found = find("hoskinson-center/proof-pile@abc")
    assert (found.file, found.revision) == ("test/proofpile_test.jsonl.gz", "abc")
    for name in ("hoskinson-center/proof-pile#train", "deepmind/pg19@abc", "deepmind/pg19#train"):
        with pytest.raises(DataError, match="only the test texts"):
            find(name)


@pytest.fixture
def asked(monkeypatch):
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        return iter([{"text": "one", "short_book_title": "A Book"}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_pg19_is_streamed_from_its_parquet_copy(asked):
    assert list(stream(NAMED["pg19"])) == [
        ("emozilla/pg19-test#test[1] A Book", "one"),
        ("emozilla/pg19-test#test[2]", "two"),
    ]
    ((args, options),) = asked
    assert args == ("emozilla/pg19-test", None)
    assert options == {"split": "test", "revision": None, "streaming": True}
    assert "a copy of deepmind/pg19 (licence: Apache-2.0)" in NAMED["pg19"].origin


def test_proof_pile_is_streamed_from_its_own_file(asked):
    assert [text for _, text in stream(NAMED["proof-pile"])] == ["one", "two"]
    ((args, options),) = asked
    path = "hf://datasets/hoskinson-center/proof-pile@main/test/proofpile_test.jsonl.gz"
    assert args == ("json",)
    assert options == {"data_files": {"test": path}, "split": "test", "streaming": True}


@pytest.mark.parametrize("row", [{"body": "x"}, {"text": None}])
def test_a_row_without_text_is_refused(monkeypatch, row):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter([row]))
    with pytest.raises(DataError, match=r"a/b#test\[1\]: has no column `text`"):
        list(stream(HubTexts("a/b")))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub\n(ConnectTimeout)"), "out of reach"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is gated"), "hf auth login"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"), "check it"),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "never run"),
        (ValueError("Bad split: dev. Available splits: ['test']"), "check part and split"),
        (KeyError("x"), "give its files"),
    ],
)
def test_errors_are_one_line_with_a_remedy(monkeypatch, error, remedy):
    def fail(*_, **__):
        raise error

    def fails_later(*_, **__):
        yield {"text": "one"}
        raise error

    for load_dataset in (fail, fails_later):
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(DataError, match=f"^a/b: cannot be had from the hub: .*{remedy}") as one:
            list(stream(HubTexts("a/b")))
        assert "\n" not in str(one.value)


def test_offline_the_real_library_answers_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert APP.main(["perplexity", "--data", "pg19", "--model", "no-such-model"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "emozilla/pg19-test: cannot be had from the hub" in said[-1]
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_files_are_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="`pip install datasets`, or give files"):
        list(stream(hub_texts.NAMED["pg19"]))
