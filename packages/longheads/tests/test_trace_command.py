"""`longheads trace` against choices that were worked out again from the engine."""

import json

import pytest
import torch

import longheads
from longheads import trace_report
from longheads.cli import APP
from longheads.testing import small
from longheads.texts import encode, occurrences, token_places
from longheads.trace import record as recorded
from longheads.world import WORDS, write_example
from papercore.models import load_model
from papercore.records import Record
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer, tiny_llama, word_tokenizer

SETTINGS = ("--longheads.chunk-len", "8", "--longheads.window", "40", "--prefill-tok", "64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tiny_llama(51, seed=3, initializer_range=0.2).save_pretrained(place)
    word_tokenizer(WORDS).save_pretrained(place)
    return place


def trace(capsys, folder, out, *words):
    capsys.readouterr()
    fixed = ["trace", "--model", folder, *SETTINGS, "--out", out]
    code = APP.main([str(word) for word in [*fixed, *words]])
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(out):
    found = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    return found[0]["data"], [one["data"] for one in found[1:]]


def test_every_line_is_what_the_engine_chose(capsys, folder, tmp_path):
    text = write_example(seed=0, length=200).text
    out = tmp_path / "run"
    code, _, _ = trace(capsys, folder, out, "--prompt", text, "--last-tok", 3)
    assert code == 0
    prompt, found = lines(out)
    assert (prompt["num_tok"], prompt["chunk_len"], prompt["window_tok"]) == (200, 8, 40)
    model, tokenizer = load_model(str(folder))
    positions = (197, 198, 199)
    with (
        longheads.enable(model, small()) as handle,
        recorded(handle, [positions]) as recorder,
        torch.no_grad(),
    ):
        model(tokenizer(text, return_tensors="pt")["input_ids"])
    expected = {
        (choice.layer, head, choice.position): list(chunks)
        for choice in recorder.choices
        for head, chunks in enumerate(choice.heads)
    }
    actual = {(one["layer"], one["head"], one["position"]): one["chunks"] for one in found}
    assert actual == expected
    assert len(actual) == 2 * 4 * 3
    for chunks in actual.values():
        assert (chunks[0], chunks[-2:], len(chunks)) == (0, [23, 24], 5)


def test_all_places_of_the_needle_are_followed(capsys, folder, tmp_path):
    words = ["fen"] * 200
    words[20:22] = words[109:111] = ["fox", "rice"]
    out = tmp_path / "run"
    code, said, err = trace(
        capsys, folder, out, "--prompt", " ".join(words), "--needle", "fox rice", "--last-tok", 1
    )
    assert code == 0
    prompt, found = lines(out)
    assert (prompt["needle_occurs"], prompt["needle_chunks"]) == (2, [2, 13])
    assert "the needle occurs 2 times, in 2 chunks: 2, 13" in said
    summary = json.loads((out / "summary.json").read_text())["metrics"]
    for layer in range(2):
        read = {c for one in found if one["layer"] == layer for c in one["chunks"]}
        share = sum(chunk in read for chunk in (2, 13)) / 2
        assert summary[f"recall/layer_{layer}"]["value"] == share
        assert summary[f"recall/layer_{layer}"]["n"] == 2
    assert "records.jsonl" in err
    assert APP.main(["report", str(out), "--recheck"]) == 0


def test_heads_that_choose_together_have_one_line_each(capsys, folder, tmp_path):
    text = write_example(seed=0, length=200).text
    words = ("--prompt", text, "--last-tok", 1, "--longheads.share-selection", "layer_mean")
    assert trace(capsys, folder, tmp_path / "run", *words)[0] == 0
    _, found = lines(tmp_path / "run")
    assert len(found) == 8
    for layer in range(2):
        assert len({tuple(x["chunks"]) for x in found if x["layer"] == layer}) == 1


def test_inside_the_window_everything_is_read(capsys, folder, tmp_path):
    text = write_example(seed=0, length=30, facts=2).text
    words = ("--prompt", text, "--last-tok", 100)
    assert trace(capsys, folder, tmp_path / "run", *words)[0] == 0
    _, found = lines(tmp_path / "run")
    assert {one["position"] for one in found} == set(range(30))
    assert all(one["chunks"] == list(range(one["position"] // 8 + 1)) for one in found)


def test_a_model_without_free_layers_is_refused(capsys, tmp_path):
    tiny_model("mistral", max_position_embeddings=256).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    code, out, err = trace(capsys, tmp_path / "model", tmp_path / "run", "--prompt", "a b")
    assert (code, out) == (2, "")
    assert "sliding window" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


# places of a text among its tokens


def test_places_by_hand():
    encoded = encode(word_tokenizer(["the", "red", "fox"]), "the red fox the")
    assert token_places(encoded, 4, 3) == (1,)
    assert token_places(encoded, 5, 4) == (1, 2)  # from inside of one word into the next
    assert token_places(encoded, 3, 1) == ()  # a space between two words
    assert list(occurrences("the red fox the", "the")) == [0, 12]
    assert list(occurrences("aaaa", "aa")) == [0, 2]


def test_places_of_letters_with_several_bytes():
    text = "a\N{SNOWMAN}b"
    encoded = encode(byte_tokenizer(), text)
    assert len(encoded.ids) == 5
    assert token_places(encoded, 1, 1) == (1, 2, 3)
    assert token_places(encoded, 2, 1) == (4,)


# what records come to


def prompt(**data):
    base = {
        "num_tok": 40,
        "chunk_len": 8,
        "has_needle": True,
        "needle_occurs": 1,
        "needle_chunks": [2],
    }
    return Record(id=trace_report.PROMPT_ID, data={**base, **data})


def line(layer, head, position, chunks):
    data = {"layer": layer, "head": head, "position": position, "chunks": chunks}
    return Record(id=f"trace/{layer}/{head}/{position}", data=data)


def test_recall_and_picture_by_hand(tmp_path):
    records = [
        prompt(),
        line(0, 0, 38, [0, 2, 4]),
        line(0, 1, 38, [0, 1, 4]),
        line(0, 0, 39, [0, 1, 4]),
        line(0, 1, 39, [0, 3, 4]),
        line(1, 0, 38, [0, 1, 4]),
        line(1, 1, 38, [0, 1, 4]),
        line(1, 0, 39, [0, 1, 4]),
        line(1, 1, 39, [0, 1, 4]),
    ]
    found = trace_report.summarise(records)
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "recall/layer_0": (0.5, 2),
        "recall/layer_1": (0.0, 2),
        "recall/any_layer": (0.5, 2),
    }
    (figure,) = trace_report.figures(records, tmp_path)
    rows = figure.csv.read_text().splitlines()
    assert rows[0] == "layer,head,chunk,share,needle"
    assert rows[1:5] == ["0,0,0,1,0", "0,0,1,0.5,0", "0,0,2,0.5,1", "0,0,4,1,0"]
    first = figure.png.read_bytes()
    trace_report.figures(records, tmp_path)
    assert figure.png.read_bytes() == first


def test_without_a_needle_there_is_no_recall(tmp_path):
    records = [prompt(has_needle=False, needle_chunks=[]), line(0, 0, 39, [0, 4])]
    assert trace_report.summarise(records) == {}
    assert len(trace_report.recall_table(records)) == 1
    assert len(trace_report.figures(records, tmp_path)) == 1
    assert trace_report.figures([], tmp_path) == []
