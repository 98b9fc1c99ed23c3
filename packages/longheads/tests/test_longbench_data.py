"""LongBench's files as they are released, and files that are not as they should be."""

import gzip
import json
import zipfile

import pytest

from longheads import longbench_data
from longheads.config import LongBenchConfig
from longheads.longbench_data import Example, find, load
from longheads.longbench_prompts import TEMPLATES, ask, fill, read_lengths, read_templates
from longheads.longbench_sets import SET_NAMES, SETS, set_of_file
from papercore.errors import DataError, ModelError
from papercore.tiny import byte_tokenizer

BYTES = byte_tokenizer()


def row(name="hotpotqa", **fields):
    return {
        "input": "Which river?",
        "context": "Passage 1:\nThe Nile.",
        "answers": ["Nile"],
        "length": 5,
        "dataset": name,
        "language": "en",
        "all_classes": ["Food", "Date"] if name == "trec" else None,
        "_id": "x",
        **fields,
    }


def lines(*rows):
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def example(context="C", question="Q", name="hotpotqa"):
    return Example(name, 0, question, context, ("A",), (), None)


@pytest.fixture
def put(tmp_path):
    """Writes a file and gives back the folder as text."""

    def write(content, name="hotpotqa.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        return str(tmp_path)

    return write


# places


def test_a_file_of_one_set_says_which(put):
    assert set_of_file("/a/b/hotpotqa.jsonl.gz") == "hotpotqa"
    assert set_of_file("qasper_e.jsonl", extended=True) == "qasper"
    others = ("hotpotqa", "LongBench/data.zip", "mine.jsonl", "qasper_e.jsonl", "/data/hotpotqa/")
    assert [set_of_file(name) for name in others] == [None] * len(others)
    config = LongBenchConfig(data=f"{put(lines(row()))}/hotpotqa.jsonl")
    assert config.chosen_sets == ("hotpotqa",)
    assert load(config.data, config.chosen_sets).by_set["hotpotqa"]


def test_a_row_as_released(put):
    folder = put(lines(row(), row(answers=["a", "b"])))
    assert load(folder, ["hotpotqa"]).by_set == {
        "hotpotqa": [
            Example("hotpotqa", 0, "Which river?", "Passage 1:\nThe Nile.", ("Nile",), (), 5),
            Example("hotpotqa", 1, "Which river?", "Passage 1:\nThe Nile.", ("a", "b"), (), 5),
        ]
    }


def test_folder_file_gzip_and_archive_hold_the_same(put, tmp_path):
    content = lines(row(), row())
    folder = put(content)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data/hotpotqa.jsonl", content)
        archive.writestr("data/hotpotqa_e.jsonl", lines(row("hotpotqa_e")))
        archive.writestr("__MACOSX/data/._hotpotqa.jsonl", b"junk")
    put(content, "unpacked/data/hotpotqa.jsonl")
    put(gzip.compress(content), "packed/hotpotqa.jsonl.gz")
    places = (
        folder,
        tmp_path / "hotpotqa.jsonl",
        tmp_path / "data.zip",
        tmp_path / "unpacked",
        tmp_path / "packed",
        tmp_path / "packed" / "hotpotqa.jsonl.gz",
    )
    first, *others = (load(str(place), ["hotpotqa"]) for place in places)
    assert len(first.by_set["hotpotqa"]) == 2
    assert all(other == first for other in others)
    extended = load(str(tmp_path / "data.zip"), ["hotpotqa"], extended=True)
    assert len(extended.by_set["hotpotqa"]) == 1
    assert extended.digest != first.digest


def test_an_id_is_asked_of_the_hub_and_no_code_of_it_runs(put, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data/lcc.jsonl", lines(row("lcc")))

    def download(repository, file, **options):
        asked.append((repository, file, options))
        return str(tmp_path / "data.zip")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    assert len(load("zai-org/LongBench", ["lcc"]).by_set["lcc"]) == 1
    assert asked == [("zai-org/LongBench", "data.zip", {"repo_type": "dataset"})]


def test_without_a_network_it_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub

    def download(*_, **__):
        raise OSError("no\nway")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data\.zip cannot be had from the hub \(no way\)"):
        find("zai-org/LongBench")


@pytest.mark.parametrize("data", ["nowhere", "/no/where", "a/b/c", "../x", "nowhere/data.jsonl!"])
def test_a_place_that_is_not_there(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        find(data)


def test_a_set_that_is_not_there(put, tmp_path):
    folder = put(lines(row()))
    with pytest.raises(DataError, match=r"holds no trec\.jsonl"):
        load(folder, ["hotpotqa", "trec"])
    with pytest.raises(DataError, match=r"is not named trec\.jsonl"):
        load(f"{folder}/hotpotqa.jsonl", ["trec"])
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a/lcc.jsonl", b"")
        archive.writestr("b/lcc.jsonl", b"")
    with pytest.raises(DataError, match=r"holds 2 files named lcc\.jsonl"):
        load(str(tmp_path / "two.zip"), ["lcc"])
    with pytest.raises(DataError, match=r"holds no file named trec\.jsonl"):
        load(str(tmp_path / "two.zip"), ["trec"])


# rows


def test_windows_files_and_empty_lines_are_read(put):
    content = lines(row(), row()).replace(b"\n", b"\r\n\r\n")
    folder = put(b"\xef\xbb\xbf" + content)
    assert [one.index for one in load(folder, ["hotpotqa"]).by_set["hotpotqa"]] == [0, 1]


def test_what_the_released_rows_have_beyond_need_may_lack(put):
    folder = put(lines({"input": "", "context": "", "answers": ["x"]}))
    assert load(folder, ["hotpotqa"]).by_set["hotpotqa"] == [
        Example("hotpotqa", 0, "", "", ("x",), (), None)
    ]


def test_rows_without_an_answer_are_told_of(put, caplog):
    load(put(lines(row(), row(answers=[]))), ["hotpotqa"])
    assert "1 rows have no right answer and score 0" in caplog.text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"input": "\xff"}', "byte 11 of the line is not UTF-8 text"),
        (lines(row(context=3)), "context should be text, got int"),
        (lines(row(answers="Nile")), "answers should be a list of texts"),
        (lines(row(answers=[1])), "answers should be a list of texts"),
        (lines(row(all_classes="Food")), "all_classes should be a list of texts"),
        (lines(row(length="5")), "length should be a number of words, got '5'"),
        (lines(row(length=True)), "length should be a number of words"),
        (lines(row("trec")), "is a row of 'trec', not of 'hotpotqa'"),
        (lines(row(input="\ud800")), "input holds half of a surrogate pair"),
        (lines({"input": "", "context": ""}), "the field 'answers' is missing"),
        (lines({"answers": []}), "the field 'input' is missing"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(put, line, why):
    folder = put(lines(row()) + b"\n" + line)
    with pytest.raises(DataError) as caught:
        load(folder, ["hotpotqa"])
    assert f"hotpotqa.jsonl:3: {why}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("trec", {"all_classes": None}, "all_classes is empty"),
        ("trec", {"all_classes": []}, "all_classes is empty"),
        ("passage_retrieval_en", {"answers": ["seven"]}, "does not say `Paragraph N`"),
    ],
)
def test_a_row_that_cannot_be_scored_is_refused(put, name, fields, why):
    folder = put(lines(row(name, **fields)), f"{name}.jsonl")
    with pytest.raises(DataError, match=rf"{name}\.jsonl:1: .*{why}"):
        load(folder, [name])


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(put, content):
    with pytest.raises(DataError, match=r"hotpotqa\.jsonl: is empty"):
        load(put(content), ["hotpotqa"])


def test_lines_and_files_without_end_are_refused(put, monkeypatch):
    folder = put(lines(row(), row(context="x" * 900), row()))
    monkeypatch.setattr(longbench_data, "MAX_LINE_BYTES", 500)
    with pytest.raises(DataError, match=r"hotpotqa\.jsonl:2: is longer than 500 bytes"):
        load(folder, ["hotpotqa"])
    monkeypatch.setattr(longbench_data, "MAX_LINE_BYTES", 2000)
    monkeypatch.setattr(longbench_data, "MAX_SET_BYTES", 1000)
    with pytest.raises(DataError, match="has more than 1000 bytes"):
        load(folder, ["hotpotqa"])


@pytest.mark.parametrize("cut", [5, 40])
def test_a_damaged_archive_is_refused(put, tmp_path, cut):
    put(gzip.compress(lines(row()))[:-cut], "hotpotqa.jsonl.gz")
    with pytest.raises(DataError, match=r"cannot be read|is damaged"):
        load(str(tmp_path), ["hotpotqa"])


def test_a_damaged_member_is_refused(tmp_path):
    place = tmp_path / "data.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("lcc.jsonl", lines(row("lcc")))
    place.write_bytes(place.read_bytes().replace(b"Nile", b"Nilo"))
    with pytest.raises(DataError, match="is damaged"):
        load(str(place), ["lcc"])


# prompts


@pytest.mark.parametrize("name", SET_NAMES)
def test_our_prompts_hold_the_context_and_end_with_the_question(name):
    templates, _ = read_templates(None, [name])
    prompt = fill(templates[name], example("{the} context", "the {question}", name))
    assert prompt.count("{the} context") == 1
    asked = name not in ("gov_report", "multi_news", "passage_count", "lcc")
    assert prompt.count("the {question}") == asked
    assert prompt.startswith(TEMPLATES[name][:20])


def test_prompts_and_lengths_of_files(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"lcc": "{{{context}}}: {input}", "lsht": "{x}"}))
    templates, digest = read_templates(file, ["lcc"])
    assert fill(templates["lcc"], example("{input}", "{0}")) == "{{input}}: {0}"
    assert digest != read_templates(None, ["lcc"])[1]
    file.write_text('{"lcc": 7, "dureader": 128}')
    assert read_lengths(file, ["lcc"])[0] == {"lcc": 7}
    assert read_lengths(None, SET_NAMES)[0] == {name: SETS[name].max_new_tok for name in SET_NAMES}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "has no prompt for lcc"),
        ({"lcc": 3}, "has no prompt for lcc"),
        ({"lcc": "{input}"}, "has no {context}"),
        ({"lcc": "{context}{"}, "is no template"),
        ({"lcc": "{context.__class__}"}, "has the field 'context.__class__'"),
        ({"lcc": "{context}{0}"}, "has the field '0'"),
    ],
)
def test_prompts_that_cannot_be_filled_are_refused(tmp_path, content, why):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_templates(file, ["lcc"])
    assert why in str(caught.value)


@pytest.mark.parametrize("number", [0, -1, "64", 6.4, True, None])
def test_lengths_that_are_none_are_refused(tmp_path, number):
    file = tmp_path / "lengths.json"
    file.write_text(json.dumps({"lcc": number}))
    with pytest.raises(DataError, match="has no number of tokens for lcc"):
        read_lengths(file, ["lcc"])


@pytest.mark.parametrize(
    ("truncate_tok", "expected"),
    [(None, "abcdefghij"), (10, "abcdefghij"), (9, "abcdghij"), (4, "abij"), (2, "aj")],
)
def test_the_middle_is_cut_out(truncate_tok, expected):
    asked = ask(BYTES, "abcdefghij", truncate_tok=truncate_tok, chat=False)
    assert BYTES.decode(list(asked.ids)) == expected
    assert asked.full_tok == 10
    assert asked.truncated == (expected != "abcdefghij")


def test_a_cut_in_the_middle_of_a_letter_leaves_a_mark():
    asked = ask(BYTES, "aé" + "b" * 9, truncate_tok=4, chat=False)
    assert BYTES.decode(list(asked.ids)) == "a\N{REPLACEMENT CHARACTER}bb"


def test_the_chat_template_goes_round_the_cut_prompt():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "[{{ messages[0]['content'] }}]"
    asked = ask(tokenizer, "abcdefghij", truncate_tok=4, chat=True)
    assert tokenizer.decode(list(asked.ids)) == "[abij]"
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ModelError, match="refuses the prompt"):
        ask(tokenizer, "a", truncate_tok=None, chat=True)
