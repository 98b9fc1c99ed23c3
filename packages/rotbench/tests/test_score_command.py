"""`rotbench score`: three layouts of answers, joined by key."""

import json

import pytest

from papercore.config import RunFlags
from papercore.records import Record, read_records
from papercore.runs import Run
from rotbench.baselines import baseline_call, write_call
from rotbench.cases import CaseKey
from rotbench.cli import APP
from rotbench.config import EvalConfig
from rotbench.data import SAMPLE
from rotbench.released import FOLDERS


@pytest.fixture
def rotbench(capsys, monkeypatch):
    """The command in this process, without figures: exit code, stdout, stderr."""
    monkeypatch.setattr("rotbench.report_figures.draw", lambda turn, records, into: [])

    def go(*words):
        code = APP.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


@pytest.fixture
def score(rotbench, tmp_path):
    """`rotbench score` of the sample's first turn."""

    def go(path, *words):
        folder = tmp_path / "scored"
        given = ("--data", "sample", "--turns", "first", "--out", folder, "--overwrite")
        code, out, err = rotbench("score", path, *given, *words)
        return code, out, err, folder

    return go


@pytest.fixture
def first(sample_cases):
    return [case for case in sample_cases if case.key.turn == "first"]


def scores(folder):
    return {
        record.id: (record.data["fixed"], record.data["official"], record.data["error"])
        for record in read_records(folder / "records.jsonl")
        if record.status == "ok"
    }


def write_lines(path, cases, baseline="lexical"):
    lines = [
        {"key": str(case.key), "text": write_call(baseline_call(baseline, case), "react")}
        for case in cases
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def evaluated(rotbench, tmp_path):
    assert rotbench("eval", "--turns", "first", "--out", tmp_path / "eval")[0] == 0
    return tmp_path / "eval"


def test_all_layouts_give_the_scores_of_eval(score, evaluated, first, tmp_path):
    wanted = scores(evaluated)
    assert len(wanted) == len(first) == 112
    assert len({error for _, _, error in wanted.values()}) > 2
    for path in (
        evaluated,
        evaluated / "records.jsonl",
        write_lines(tmp_path / "answers.jsonl", reversed(first)),
        official_results(tmp_path / "results"),
    ):
        code, out, err, folder = score(path)
        assert (code, err) == (0, "")
        assert "first turn, fixed scorer" in out
        assert scores(folder) == wanted


def official_results(into):
    """What the official code writes, made from the sample's own files without our reader."""
    from rotbench.data import load_cases

    cases = {str(case.key): case for case in load_cases("sample")[0]}
    for level in ("clean", "slight", "medium", "heavy", "union"):
        items = json.loads((SAMPLE / "First_Turn" / f"{level}.json").read_text())
        halves = ("whole",) if level in ("clean", "union") else ("tool", "parameter")
        size = len(items) // len(halves)
        for place, item in enumerate(items):
            key = CaseKey("first", level, halves[place // size], place % size)
            text = write_call(baseline_call("lexical", cases[str(key)]), "react")
            item["conversations"][-1] = {"from": "assistant", "value": text}
        (into / "First_Turn").mkdir(parents=True, exist_ok=True)
        (into / "First_Turn" / f"{level}.json").write_text(json.dumps(items))
    return into


def test_one_official_file_is_one_turn_and_level(score, tmp_path):
    results = official_results(tmp_path / "results") / "First_Turn" / "slight.json"
    code, _, _, folder = score(results, "--levels", "slight")
    assert code == 0
    assert len(scores(folder)) == 28
    code, _, err, _ = score(results)
    assert code == 2
    assert "--turns first --levels clean" in err


def test_native_calls_are_scored_under_the_names_they_have(score, first, tmp_path):
    lines = []
    for case in first:
        gold = case.golds[0]
        call = {"name": gold.name, "arguments": dict(gold.arguments)}
        lines.append({"key": str(case.key), "tool_calls": [call]})
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, _, folder = score(path, "--mode", "native")
    assert code == 0
    assert {error for _, _, error in scores(folder).values()} == {"correct"}


def test_nexusraven_results_are_scored(score, first, tmp_path):
    clean = [case for case in first if case.key.level == "clean"]
    items = [{"result": write_call(case.golds[0], "raven2")} for case in clean]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(items))
    code, _, _, folder = score(path, "--mode", "raven2", "--levels", "clean")
    assert code == 0
    assert {error for _, _, error in scores(folder).values()} == {"correct"}


def test_answers_to_other_turns_and_levels_are_left_alone(score, sample_cases, tmp_path):
    path = write_lines(tmp_path / "answers.jsonl", sample_cases)
    code, _, _, folder = score(path, "--levels", "union")
    assert code == 0
    assert {CaseKey.parse(name).level for name in scores(folder)} == {"union"}


def test_failed_requests_of_a_run_stay_failed(score, evaluated, tmp_path):
    lines = (evaluated / "records.jsonl").read_text().splitlines()
    record = json.loads(lines[0]) | {"status": "error", "error": "no reply"}
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    code, _, err, folder = score(path)
    assert code == 1
    assert "1 requests failed" in err
    assert "--resume" not in err, "score sends nothing, so there is nothing to try again"
    assert len(scores(folder)) == 111


def test_the_other_scorer_may_come_first_in_a_resumed_run(rotbench, evaluated, tmp_path):
    words = ("score", evaluated, "--data", "sample", "--turns", "first", "--out", tmp_path / "run")
    _, first, _ = rotbench(*words)
    code, again, _ = rotbench(*words, "--resume", "--scoring", "official")
    assert (code, again.split("\n\n")[1]) == (0, first.split("\n\n")[0])


def test_answers_to_other_data_than_the_default_are_told_of_the_option(rotbench, evaluated):
    _, _, err = rotbench("score", evaluated, "--data", "sample")
    assert "or give the --data that were answered" in err


def test_missing_and_extra_answers_are_named(score, first, tmp_path):
    path = write_lines(tmp_path / "answers.jsonl", first[2:])
    with path.open("a") as file:
        file.write(json.dumps({"key": "first/clean/whole/999", "text": "?"}) + "\n")
    code, _, err, _ = score(path)
    assert code == 2
    assert f"2 cases have no answer ({first[0].key}, {first[1].key})" in err
    assert "1 answers are to no case of these data (first/clean/whole/999)" in err


LINE = {"key": "first/clean/whole/000", "text": "x"}


@pytest.mark.parametrize(
    ("content", "naming"),
    [
        (json.dumps(LINE) + "\n" + json.dumps(LINE), "has two answers"),
        ('{"key": "nonsense", "text": "x"}', "'nonsense' is no key of a case"),
        ('{"key": 3, "text": "x"}', ":1: key is missing or is no text"),
        ('{"key": "first/clean/whole/000"}', ":1: text is missing"),
        ('{"answer": "x"}', ":1: has neither `key` and `text`"),
        ('{"key": "first/clean/whole/000", "tool_calls": 3}', ":1: tool_calls is not a list"),
        ('{"key": "first/clean/whole/000", "tool_calls": [{"n": 1}]}', "not an object with a name"),
        ("[1, 2]\n", ":1: is not a JSON object"),
        ("no json\n", ":1: is not a JSON object"),
        ('{"id": "first/clean/whole/000", "status": "ok"}', ":1: the record has no data"),
        (
            '{"id": "a", "status": "ok", "data": {"text": "begin", "text_chars": 99}}',
            "holds only the beginning of its answer",
        ),
    ],
)
def test_lines_that_do_not_fit_are_refused_by_place(score, tmp_path, content, naming):
    path = tmp_path / "answers.jsonl"
    path.write_text(content if content.endswith("\n") else content + "\n")
    code, _, err, _ = score(path)
    assert code == 2
    assert naming in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        (lambda items: items[:-1], "holds 13 results for 14 cases"),
        (lambda items: {"a": 1}, "holds no array for 14 cases"),
        (lambda items: [*items[1:], items[0]], "entry 0: its id is that of another case"),
        (lambda items: [{"id": item["id"]} for item in items], "neither `result` nor"),
        (lambda items: [3 for _ in items], "entry 0: is not an object"),
    ],
)
def test_results_that_do_not_fit_are_refused(score, tmp_path, change, naming):
    path = official_results(tmp_path / "results") / "First_Turn" / "clean.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    code, _, err, _ = score(path, "--levels", "clean")
    assert code == 2
    assert naming in err


def test_the_data_themselves_are_no_answers(score):
    code, _, err, _ = score(SAMPLE)
    assert code == 2
    assert "these are the data, not answers to them" in err


def test_a_path_that_is_not_there_or_holds_nothing(score, tmp_path):
    assert "no such file or folder" in score(tmp_path / "nonesuch")[2]
    (tmp_path / "empty").mkdir()
    assert (
        f"neither records.jsonl nor {' or '.join(FOLDERS.values())}"
        in (score(tmp_path / "empty")[2])
    )


def test_compare_tests_two_runs_pair_by_pair(rotbench, evaluated, tmp_path):
    oracle = tmp_path / "oracle"
    rotbench("eval", "--turns", "first", "--model", "oracle", "--out", oracle)
    code, out, err = rotbench("compare", oracle, evaluated, "--out", tmp_path / "table")
    assert (code, err) == (0, "")
    assert "baseline:oracle, 112 scored cases" in out
    rows = (tmp_path / "table" / "comparison.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 3 * 5
    cf = next(row for row in rows if row.startswith("first,fixed,cf clean"))
    wrong = sum(not f["cf"] for name, (f, _, _) in scores(evaluated).items() if "/clean/" in name)
    assert f"+{100 * wrong / 14:.2f} [" in cf


def test_compare_warns_of_equal_ids_that_are_other_cases(rotbench, tmp_path):
    words = ("eval", "--noise", "fresh", "--levels", "slight", "--turns", "first", "--limit", "2")
    for name, share in (("half", "0.5"), ("all", "1.0"), ("again", "0.5")):
        rotbench(*words, "--rules.share", share, "--out", tmp_path / name)
    _, _, err = rotbench("compare", tmp_path / "half", tmp_path / "all")
    assert "equal ids may be other cases" in err
    assert rotbench("compare", tmp_path / "half", tmp_path / "again")[2] == ""


def test_compare_refuses_what_has_nothing_in_common(rotbench, evaluated, tmp_path):
    other = tmp_path / "third"
    rotbench("eval", "--turns", "third", "--out", other)
    code, _, err = rotbench("compare", evaluated, other)
    assert code == 2
    assert "no scored case in common" in err
    with Run.open(
        tmp_path / "mini", EvalConfig(), RunFlags(), package="rotbench", version="1", verb="mini"
    ) as run:
        run.append(Record(id="x"))
    assert "is a run of rotbench mini" in rotbench("compare", evaluated, tmp_path / "mini")[2]
