"""`longheads longbench` on a small saved model and hand-made rows, as a user would call it."""

import json
import math

import pytest

from longheads import estimate, longbench, longbench_report
from longheads.cli import APP
from longheads.config import LongBenchConfig
from longheads.continuation import Continuation
from longheads.longbench_data import Example
from longheads.longbench_report import record_id
from longheads.longbench_sets import CATEGORIES, SET_NAMES, SETS, sets_of
from longheads.presets import LONGBENCH
from papercore.errors import ConfigError
from papercore.records import Record
from papercore.testing import tiny_model
from papercore.tiny import byte_tokenizer

BYTES = byte_tokenizer()
ANSWERS = {"passage_retrieval_en": "Paragraph 3", "passage_count": "4", "trec": "Food"}
FEW = ("--sets", "hotpotqa", "samsum")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama-gqa", max_position_embeddings=256).save_pretrained(folder)
    BYTES.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three rows of every set, in the released format."""
    folder = tmp_path_factory.mktemp("data")
    for name in SET_NAMES:
        rows = [
            {
                "input": f"Question {index}?",
                "context": f"Text {index} of {name}. " * 8,
                "answers": [ANSWERS.get(name, "an answer")],
                "length": 3000 * index,
                "dataset": name,
                "language": "en",
                "all_classes": ["Food", "Date"] if name == "trec" else None,
                "_id": f"{name}{index}",
            }
            for index in range(3)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
        if SETS[name].extended:
            (folder / f"{name}_e.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory, model, data):
    """Flags that make a run short: short prompts, answers of three tokens."""
    lengths = tmp_path_factory.mktemp("settings") / "lengths.json"
    lengths.write_text(json.dumps(dict.fromkeys(SET_NAMES, 3)))
    flags = ["--model", model, "--data", data, "--answer-lengths", lengths, "--truncate-tok", 120]
    return [*flags, "--longheads.chunk-len", 8, "--longheads.window", 40]


def run(capsys, settings, out, *words):
    capsys.readouterr()
    code = APP.main([str(word) for word in ["longbench", *settings, "--out", out, *words]])
    said = capsys.readouterr()
    return code, said.out, said.err


def lines(out):
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def says(*texts):
    """Instead of a model: writes one text after the other, and keeps what it was asked for."""
    calls, left = [], list(texts)

    def write(model, ids, *, handle, settings):
        text = left.pop(0) if len(left) > 1 else left[0]
        calls.append((BYTES.decode(list(ids)), settings))
        return Continuation(tuple(BYTES.encode(text)), "stop", 0.0, 0.0)

    return write, calls


# runs


def test_a_run_gives_records_table_and_report(capsys, settings, tmp_path):
    out = tmp_path / "run"
    code, table, err = run(capsys, settings, out, "--limit", 18)
    assert code == 0
    found = lines(out)
    assert [one["id"] for one in found[:16]] == [f"longbench/{name}/0" for name in SET_NAMES]
    assert [one["id"] for one in found[16:]] == ["longbench/narrativeqa/1", "longbench/qasper/1"]
    for one in (record["data"] for record in found):
        assert one["new_tok"] <= 3
        assert one["prompt_tok"] == 120
        assert one["full_tok"] > 120
        assert one["truncated"] is True
        assert one["score"] <= 1.0
    names = [line.split()[0] for line in table.splitlines()]
    kinds = [f"category/{kind}" for kind in CATEGORIES]
    assert names == ["set", *SET_NAMES, *kinds, "average_sets", "average"]
    assert "18 of 18 prompts were cut to 120 tokens" in err
    assert (out / "figures" / "longbench.csv").is_file()
    assert (out / "report.html").is_file()
    before = (out / "summary.json").read_text()
    assert APP.main(["report", str(out), "--recheck"]) == 0
    assert (out / "summary.json").read_text() == before


def test_answers_are_scored(capsys, settings, tmp_path, monkeypatch):
    write, _ = says("An Answer!\nMore")
    monkeypatch.setattr(longbench, "continue_prompt", write)
    words = ("--sets", "hotpotqa", "triviaqa", "--limit", 2)
    _, table, _ = run(capsys, settings, tmp_path / "run", *words)
    scores = {one["data"]["set"]: one["data"]["score"] for one in lines(tmp_path / "run")}
    assert scores == {"hotpotqa": pytest.approx(2 / 3), "triviaqa": 1.0}
    assert table.splitlines()[2].split()[:2] == ["triviaqa", "100.0"]
    assert table.splitlines()[3].split()[:2] == ["average_of_2_sets", "83.3"]


def test_a_run_that_was_stopped_goes_on_to_the_same_records(capsys, settings, tmp_path):
    assert run(capsys, settings, tmp_path / "whole", *FEW)[0] == 0
    whole = (tmp_path / "whole" / "records.jsonl").read_text()
    assert run(capsys, settings, tmp_path / "cut", *FEW)[0] == 0
    cut = tmp_path / "cut" / "records.jsonl"
    cut.write_text("".join(whole.splitlines(keepends=True)[:2]) + '{"id": "longb')
    code, _, err = run(capsys, settings, tmp_path / "cut", *FEW)
    assert code == 2
    assert "--resume" in err
    assert run(capsys, settings, tmp_path / "cut", *FEW, "--resume")[0] == 0
    assert cut.read_text() == whole


def test_other_data_or_prompts_are_another_run(capsys, settings, data, tmp_path):
    out, prompts = tmp_path / "run", tmp_path / "prompts.json"
    words = ("--sets", "lcc", "--limit", 1, "--prompts", prompts, "--resume")
    prompts.write_text('{"lcc": "{context}"}')
    assert run(capsys, settings, out, *words)[0] == 0
    prompts.write_text('{"lcc": "Code: {context}"}')
    code, _, err = run(capsys, settings, out, *words)
    assert code == 2
    assert "data" in err.splitlines()[-1]


def test_an_example_that_fails_is_a_record(capsys, settings, tmp_path, monkeypatch):
    write, _ = says("x")

    def sometimes(model, ids, **options):
        if "samsum" in BYTES.decode(list(ids)):
            raise RuntimeError("no\nluck")
        return write(model, ids, **options)

    monkeypatch.setattr(longbench, "continue_prompt", sometimes)
    code, table, err = run(capsys, settings, tmp_path / "run", *FEW)
    assert code == 1
    assert "3 of 6 examples failed, first: no luck" in err
    assert table.splitlines()[2].split()[:4] == ["samsum", "-", "0", "3"]
    status = {one["id"]: (one["status"], one["error"]) for one in lines(tmp_path / "run")}
    assert status["longbench/samsum/1"] == ("error", "no luck")
    assert status["longbench/hotpotqa/1"] == ("ok", None)
    assert "--resume tries them again" in err
    monkeypatch.setattr(longbench, "continue_prompt", write)
    code, table, err = run(capsys, settings, tmp_path / "run", *FEW, "--resume")
    assert code == 0, err
    assert [one["id"] for one in lines(tmp_path / "run")[6:]] == [
        f"longbench/samsum/{index}" for index in range(3)
    ]
    assert [line.split()[6] for line in table.splitlines()[1:3]] == ["0", "0"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["counts"] == {"ok": 6, "error": 0, "skipped": 0}
    assert summary["metrics"]["samsum"]["n"] == 3
    assert APP.main(["report", str(tmp_path / "run"), "--recheck"]) == 0


def test_out_of_memory_is_said_so(capsys, settings, tmp_path, monkeypatch):
    import torch

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(longbench, "continue_prompt", full)
    code, _, err = run(capsys, settings, tmp_path / "run", "--sets", "lcc")
    assert code == 1
    assert "first: out of memory" in err


@pytest.mark.parametrize(("name", "least"), [("samsum", 1), ("qasper", 0)])
def test_an_answer_to_samsum_is_one_line(capsys, settings, tmp_path, monkeypatch, name, least):
    newline = BYTES.encode("\n")[0]
    write, calls = says("a line\n")
    monkeypatch.setattr(longbench, "continue_prompt", write)
    run(capsys, settings, tmp_path / "run", "--sets", name, "--limit", 1)
    ((_, asked),) = calls
    assert (newline in asked.eos_ids, asked.min_new_tokens) == (bool(least), least)


def test_only_some_sets_go_through_the_chat_template(capsys, settings, tmp_path, monkeypatch):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "<{{ messages[0]['content'] }}>"
    tiny_model("llama-gqa", max_position_embeddings=256).save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    write, calls = says("x")
    monkeypatch.setattr(longbench, "continue_prompt", write)
    words = ("--model", tmp_path / "chat", "--chat", "--limit", 16)
    assert run(capsys, settings, tmp_path / "run", *words)[0] == 0
    wrapped = {n for n, (text, _) in zip(SET_NAMES, calls, strict=True) if text[0] == "<"}
    assert wrapped == {name for name in SET_NAMES if SETS[name].chat}
    assert {len(text) for text, _ in calls} == {120, 122}


def test_chat_without_a_template_leaves_nothing_behind(capsys, settings, tmp_path):
    code, out, err = run(capsys, settings, tmp_path / "run", "--chat")
    assert (code, out) == (2, "")
    assert "no chat template" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_full_attention_beyond_its_length_is_told_of(capsys, settings, tmp_path):
    words = ("--sets", "qasper", "--limit", 1, "--truncate-tok", 400, "--method", "full")
    code, _, err = run(capsys, settings, tmp_path / "run", *words)
    assert code == 0
    assert "1 of 1 prompts are longer than the 256 tokens the model was trained at" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--data", "/no/where"), "/no/where: no such file or folder"),
        (("--prompts", "/no/where"), "/no/where: no such file"),
        (("--sets", "lcc", "lcc"), "the same set is there twice"),
        (("--extended", "--sets", "musique"), "LongBench-E has no musique"),
        (("--truncate-tok", "1"), "truncate_tok"),
    ],
)
def test_mistakes_are_one_line(capsys, settings, tmp_path, words, why):
    code, out, err = run(capsys, settings, tmp_path / "run", *words)
    assert (code, out) == (2, "")
    assert why in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_longbench_e_is_read_and_given_by_length(capsys, settings, tmp_path, monkeypatch):
    write, _ = says("an answer")
    monkeypatch.setattr(longbench, "continue_prompt", write)
    words = ("--extended", "--sets", "qasper", "lcc")
    assert run(capsys, settings, tmp_path / "run", *words)[0] == 0
    assert lines(tmp_path / "run")[0]["id"] == "longbench/qasper_e/0"
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert {"qasper/0-4k", "qasper/4-8k", "lcc/0-4k"} <= set(metrics)
    assert metrics["qasper/0-4k"]["n"] == 2


# before a run


def test_limit_takes_some_of_every_set():
    def rows(name, count):
        return [Example(name, index, "", "", (), (), None) for index in range(count)]

    by_set = {"lcc": rows("lcc", 1), "trec": rows("trec", 3)}
    order = [(one.set_name, one.index) for one in longbench.planned(by_set, None)]
    assert order == [("lcc", 0), ("trec", 0), ("trec", 1), ("trec", 2)]
    assert len(longbench.planned(by_set, 3)) == 3


def test_the_estimate_reads_local_data_only(data):
    said = estimate.longbench(LONGBENCH["paper"])
    assert said["data"] == "16 sets of zai-org/LongBench, not looked at"
    assert "per token" in said["kv cache"]
    config = LongBenchConfig(data=str(data), sets=("lcc", "trec"), limit=4)
    assert estimate.longbench(config)["data"].startswith("4 of 6 prompts from 2 sets, the longest")


def test_the_extended_sets_are_chosen():
    assert LongBenchConfig().chosen_sets == SET_NAMES
    assert LongBenchConfig(extended=True).chosen_sets == sets_of(extended=True)
    with pytest.raises((ConfigError, ValueError), match="LongBench-E has no qmsum"):
        LongBenchConfig(extended=True, sets=("lcc", "qmsum"))


# what records come to


def record(name, index, score, *, extended=False, words=10):
    data = {"set": name, "extended": extended, "method": "full", "words": words, "score": score}
    return Record(id=record_id(name, index, extended=extended), data=data)


def test_averages_by_hand():
    # every set scores 10 but the two synthetic ones, 40 and 100
    points = dict.fromkeys(SET_NAMES, 0.1) | {"passage_count": 0.4, "passage_retrieval_en": 1.0}
    records = [record(name, i, value) for name, value in points.items() for i in range(2)]
    records.append(Record(id="longbench/lcc/2", status="error", error="x", data={"set": "lcc"}))
    records.append(Record(id="data/train", data={}))
    found = longbench_report.summarise(records)
    assert found["passage_count"].value == pytest.approx(40)
    assert found["average_sets"].value == pytest.approx((14 * 10 + 40 + 100) / 16)
    assert found["average"].value == pytest.approx((5 * 10 + 70) / 6)
    assert found["category/synthetic"].value == pytest.approx(70)
    assert found["average"].n == 32
    assert found["average"].lo == pytest.approx(found["average"].hi)
    assert longbench_report.score_table(records)[15].split() == (
        ["lcc", "10.0", "10.0", "to", "10.0", "2", "1", "code", "similarity"]
    )


def test_the_average_of_llama_2_is_that_of_longbench():
    """Its README: 31.0 over the English sets, from the scores of the sets."""
    scores = (18.7, 19.2, 36.8, 25.4, 32.8, 9.4, 27.3, 20.8, 25.8)
    scores += (61.5, 77.8, 40.7, 2.1, 9.8, 52.4, 43.8)
    pairs = zip(SET_NAMES, scores, strict=True)
    found = longbench_report.summarise([record(n, i, s / 100) for n, s in pairs for i in range(2)])
    assert round(found["average"].value, 1) == 31.0
    assert round(found["average_sets"].value, 1) == 31.5


def test_the_interval_of_an_average_is_that_of_independent_sets():
    values = [0.0, 1.0] * 50
    records = [record(n, i, v) for n in ("lcc", "trec") for i, v in enumerate(values)]
    found = longbench_report.summarise(records)["average_of_2_sets"]
    half = 196 * math.sqrt(0.25 / 100 / 2)
    assert found.value == 50
    assert found.hi - found.value == pytest.approx(half, rel=0.15)
    assert found.value - found.lo == pytest.approx(half, rel=0.15)


def test_sets_of_one_example_have_no_interval():
    found = longbench_report.summarise([record("lcc", 0, 1.0), record("trec", 0, 0.0)])
    assert found["average_of_2_sets"].value == 50
    assert math.isnan(found["average_of_2_sets"].lo)
    assert "average" not in found


def test_the_figure_has_a_bar_per_category_that_ran(tmp_path):
    records = [record(n, i, s) for n, s in (("lcc", 0.5), ("trec", 1.0)) for i in range(2)]
    records += [record("repobench-p", i, 1.0) for i in range(2)]
    (figure,) = longbench_report.figures(records, tmp_path)
    assert [line.split(",")[:3] for line in figure.csv.read_text().splitlines()[1:]] == [
        ["few-shot", "full", "100.0"],
        ["code", "full", "75.0"],
    ]


def test_no_record_gives_nothing(tmp_path):
    assert longbench_report.summarise([]) == {}
    assert longbench_report.figures([], tmp_path) == []
    assert len(longbench_report.score_table([])) == 1
