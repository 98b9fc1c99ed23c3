"""`rotbench eval` as a user runs it: baselines, endpoints that fail, resumed and refused runs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from papercore.records import read_records
from papercore.testing import Answer, chat, stub_endpoint
from rotbench.cases import CaseKey
from rotbench.cli import APP
from rotbench.grading import Answer as Given
from rotbench.grading import grade

ROTBENCH = Path(sys.executable).with_name("rotbench")
SMALL = ("--turns", "first", "--levels", "clean", "slight", "--limit", "4")
CALL = 'Thought: easy\nAction: finish\nAction Input: {"answer": "done"}'


@pytest.fixture
def rotbench(capsys, monkeypatch):
    """The command in this process, without figures: exit code, stdout, stderr."""
    monkeypatch.setattr("rotbench.report_figures.draw", lambda turn, records, into: [])
    monkeypatch.setenv("OPENAI_API_KEY", "not-needed")

    def go(*words):
        code = APP.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return go


def by_id(folder):
    return {record.id: record for record in read_records(folder / "records.jsonl")}


def summary(folder):
    document = json.loads((folder / "summary.json").read_text())
    del document["timing"]
    return document


def metric(folder, name):
    return summary(folder)["metrics"][name]["value"]


def system_of(call):
    return call.body["messages"][0]["content"]


# What a run says


LIGHT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "vllm", "openai"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from rotbench.cli import main
main()
"""


def test_the_default_runs_in_a_light_install_without_any_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, "eval", "--out", str(tmp_path / "run")],
        check=False, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PAPERCORE_CACHE": str(tmp_path / "none")},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "first turn, fixed scorer" in done.stdout
    assert "third turn, official scorer" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_record_tells_the_case_the_answer_and_both_scores(rotbench, tmp_path, sample_cases):
    assert rotbench("eval", "--out", tmp_path / "run")[0] == 0
    records = by_id(tmp_path / "run")
    assert len(records) == len(sample_cases)
    for case in sample_cases:
        data = records[str(case.key)].data
        key = CaseKey.parse(records[str(case.key)].id)
        assert (data["turn"], data["level"], data["half"], data["index"]) == (
            key.turn, key.level, key.half, key.index
        )  # fmt: skip
        assert (data["query"], data["scenario"]) == (key.query, case.scenario)
        assert (data["model"], data["mode"]) == ("baseline:lexical", "react")
        wanted = grade(case, Given(data["text"])).to_json()
        assert {name: data[name] for name in wanted} == wanted
        assert bool(data["operators"]) <= (key.level != "clean")


def test_the_headline_scorer_comes_first(rotbench, tmp_path):
    for scorer in ("fixed", "official"):
        _, said, _ = rotbench("eval", *SMALL, "--scoring", scorer, "--out", tmp_path / scorer)
        assert said.startswith(f"first turn, {scorer} scorer")
        assert said.count("scorer, %") == 2


def test_the_oracle_reaches_the_ceilings_exactly(rotbench, tmp_path, released_folder):
    run = tmp_path / "run"
    code, said, _ = rotbench("eval", "--model", "oracle", "--data", released_folder, "--out", run)
    assert code == 0
    # spec 2.4: counted with the official scorer, not with this code
    first = {"clean": 92.38, "slight": 92.38, "medium": 92.38, "heavy": 95.24, "union": 92.38}
    third = {"clean": 95.71, "slight": 95.71, "medium": 95.71, "heavy": 97.86, "union": 98.57}
    for prefix, ceilings in (("", first), ("third_", third)):
        for level, ceiling in ceilings.items():
            for score in ("ts", "pi", "cf"):
                assert metric(run, f"{prefix}{score}_{level}") == 1.0
                official = metric(run, f"{prefix}official_{score}_{level}")
                assert round(100 * official, 2) == ceiling
            assert round(100 * metric(run, f"{prefix}official_best_{level}"), 2) == ceiling
    assert summary(run)["counts"] == {"ok": 1400, "error": 0, "skipped": 0}
    assert "92.38" in said
    assert "98.57" in said


@pytest.mark.parametrize("mode", ["native", "raven1", "raven2"])
def test_the_oracle_is_right_in_every_mode(rotbench, tmp_path, mode):
    run = tmp_path / "run"
    assert rotbench("eval", "--model", "oracle", "--mode", mode, "--out", run)[0] == 0
    assert all(metric(run, f"cf_{level}") == 1.0 for level in ("clean", "heavy", "union"))
    if mode == "native":
        assert all("aliases" in record.data for record in by_id(run).values())


def test_settings_of_an_endpoint_that_is_not_asked_are_named(rotbench, tmp_path):
    code, _, err = rotbench(
        "eval", "--limit", "1", "--endpoint.budget-tok", "10", "--out", tmp_path / "run"
    )
    assert code == 0
    assert "--endpoint settings are not used" in err


@pytest.mark.parametrize(
    ("words", "naming"),
    [
        (("--noise-seeds", "0", "1"), "--noise-seeds"),
        (("--rules.share", "0.9"), "--rules"),
        (("--noise", "fresh", "--rules.share", "0.9"), None),
    ],
)
def test_settings_of_fresh_noise_that_is_not_made_are_named(rotbench, tmp_path, words, naming):
    code, _, err = rotbench("eval", "--limit", "1", *words, "--out", tmp_path / "run")
    assert code == 0
    if naming is None:
        assert err == ""
    else:
        assert f"{naming} is not used: --noise fresh makes new noise" in err


def test_limit_takes_whole_queries(rotbench, tmp_path):
    run = tmp_path / "run"
    rotbench("eval", "--turns", "first", "--limit", "2", "--out", run)
    keys = [CaseKey.parse(name) for name in by_id(run)]
    assert Counter(key.query for key in keys) == {"first/000": 8, "first/001": 8}


def test_fresh_noise_is_the_same_in_any_order_and_another_for_another_seed(rotbench, tmp_path):
    words = ("eval", "--noise", "fresh", "--turns", "first", "--limit", "3")
    rotbench(*words, "--noise-seeds", "0", "1", "--out", tmp_path / "a")
    rotbench(*words, "--noise-seeds", "1", "0", "--out", tmp_path / "b")
    a, b = by_id(tmp_path / "a"), by_id(tmp_path / "b")
    assert a == b
    assert len(a) == 3 + 2 * 3 * 7, "clean once, seven disturbed versions per seed"
    assert {"first/clean/whole/000", "first/slight/tool/000/n0", "first/union/whole/002/n1"} < set(
        a
    )
    names = {
        seed: [a[f"first/slight/tool/{n:03d}/n{seed}"].data["text"] for n in range(3)]
        for seed in (0, 1)
    }
    assert names[0] != names[1]
    assert (tmp_path / "a" / "tables" / "seeds.csv").is_file()


# What is refused


@pytest.mark.parametrize(
    ("words", "naming"),
    [
        (("--model", "baseline:best"), "no baseline 'best'"),
        (("--data", "nonesuch"), "nonesuch: no such folder"),
        (("--mode", "raven1", "--prompt-style", "plain"), "prompt_style plain is for mode react"),
        (("--noise", "fresh", "--noise-seeds", "1", "1"), "noise_seeds [1, 1]"),
        (("--model", "./nonesuch"), "'./nonesuch'"),
        (("--model", "oracle", "--temperature", "-1"), "temperature"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_no_folder(rotbench, tmp_path, words, naming):
    code, _, err = rotbench("eval", *words, "--out", tmp_path / "run")
    assert (code, len(err.splitlines())) == (2, 1)
    assert naming in err
    assert not (tmp_path / "run").exists()


def test_the_released_files_must_be_installed(rotbench, tmp_path, model_cache):
    code, _, err = rotbench("eval", "--data", "released", "--out", tmp_path / "run")
    assert code == 2
    assert "rotbench data --from" in err


# Resuming


def test_a_finished_run_resumes_to_itself(rotbench, tmp_path):
    run = tmp_path / "run"
    _, first, _ = rotbench("eval", *SMALL, "--out", run)
    before = (run / "records.jsonl").read_bytes()
    code, second, _ = rotbench("eval", *SMALL, "--out", run, "--resume", "--flush-every", "1")
    assert (code, second) == (0, first)
    code, third, _ = rotbench("eval", *SMALL, "--out", run, "--resume", "--scoring", "official")
    assert (code, third.split("\n\n")[1]) == (0, first.split("\n\n")[0])
    assert (run / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "naming"),
    [
        (("--seed", "1"), "seed: 0 -> 1"),
        (("--mode", "native"), "mode"),
        (("--temperature", "0.5"), "temperature"),
        (("--model", "oracle"), "model"),
        (("--noise", "fresh"), "noise"),
        (("--rules.share", "0.4"), "rules.share"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(rotbench, tmp_path, words, naming):
    run = tmp_path / "run"
    rotbench("eval", *SMALL, "--out", run)
    code, _, err = rotbench("eval", *SMALL, *words, "--out", run, "--resume")
    assert code == 2
    assert f"{run} holds another run" in err
    assert naming in err


def test_a_run_over_changed_data_is_not_resumed(rotbench, tmp_path):
    import shutil

    from rotbench.data import SAMPLE

    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(SAMPLE, data)
    rotbench("eval", *SMALL, "--data", data, "--out", run)
    file = data / "First_Turn" / "slight.json"
    text = file.read_text()
    file.write_text(text.replace("Begin!", "Begin!", 1) + "\n")
    code, _, err = rotbench("eval", *SMALL, "--data", data, "--out", run, "--resume")
    assert code == 2
    assert "data_hash" in err


def test_a_run_with_another_prompt_is_not_resumed(rotbench, tmp_path, monkeypatch):
    run = tmp_path / "run"
    words = ("eval", *SMALL, "--mode", "native", "--out", run)
    rotbench(*words)
    monkeypatch.setattr("rotbench.prompts.NATIVE_SYSTEM", "Call a tool.")
    code, _, err = rotbench(*words, "--resume")
    assert code == 2
    assert "prompts" in err


def test_a_run_of_another_version_is_not_resumed(rotbench, tmp_path, monkeypatch):
    run = tmp_path / "run"
    rotbench("eval", *SMALL, "--out", run)
    monkeypatch.setattr("rotbench.evaluate.metadata.version", lambda name: "9.9.9")
    code, _, err = rotbench("eval", *SMALL, "--out", run, "--resume")
    assert code == 2
    assert "version" in err


# Endpoints


def test_an_endpoint_gets_the_released_texts_and_greedy_settings(rotbench, tmp_path):
    with stub_endpoint(lambda call: chat(CALL)) as stub:
        code, _, _ = rotbench(
            "eval", *SMALL, "--model", f"openai:m@{stub.url}", "--out", tmp_path / "r"
        )
    assert code == 0
    assert len(stub.calls) == 4 * 3
    body = stub.calls[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 512)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    for record in by_id(tmp_path / "r").values():
        assert record.data["text"] == CALL
    notes = json.loads((tmp_path / "r" / "env.json").read_text())["notes"]
    assert (notes["backend"], notes["endpoint_sent"]) == ("OpenAIGenerator", 12)
    assert len(notes["prompts"]) == 64


def test_native_calls_of_an_endpoint_are_scored_under_their_own_names(rotbench, tmp_path):
    def answer(call):
        name = call.body["tools"][-1]["function"]["name"]
        made = {"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}}
        return chat(None, message={"tool_calls": [made]}, finish_reason="tool_calls")

    run = tmp_path / "run"
    with stub_endpoint(answer) as stub:
        model = f"openai:m@{stub.url}"
        code, _, _ = rotbench("eval", *SMALL, "--mode", "native", "--model", model, "--out", run)
    assert code == 0
    for record in by_id(run).values():
        assert record.data["error"] == "swapped_tool"
        assert len(record.data["tool_calls"]) == 1


def test_a_failed_request_is_no_wrong_answer_and_is_tried_again(rotbench, tmp_path):
    run = tmp_path / "run"
    words = ("eval", *SMALL, "--endpoint.max-retries", "0", "--endpoint.give-up-after", "50")
    bad = {"n": 3}

    def answer(call):
        bad["n"] -= 1
        return (
            Answer(status=400, body='{"error": {"message": "no"}}') if bad["n"] >= 0 else chat(CALL)
        )

    with stub_endpoint(answer) as stub:
        words = (*words, "--model", f"openai:m@{stub.url}", "--out", run)
        code, _, err = rotbench(*words)
        assert code == 1
        assert "NOT ALL SCORED: 3 requests failed" in err
        failed = [record for record in by_id(run).values() if record.status == "error"]
        assert len(failed) == 3
        assert all("fixed" not in record.data for record in failed)
        assert summary(run)["counts"] == {"ok": 9, "error": 3, "skipped": 0}
        assert "3 of 12 examples failed" in (run / "report.html").read_text()
        scored = len(stub.calls)
        code, _, err = rotbench(*words, "--resume")
        assert (code, "NOT ALL SCORED" in err) == (0, False)
        assert len(stub.calls) == scored + 3, "only the failed ones are sent again"
    assert summary(run)["counts"] == {"ok": 12, "error": 0, "skipped": 0}
    assert "failed" not in summary(run)["metrics"]


def test_a_dead_endpoint_ends_the_run_without_scores(rotbench, tmp_path):
    run = tmp_path / "run"
    with stub_endpoint(lambda call: Answer(status=500)) as stub:
        code, _, err = rotbench(
            "eval", "--turns", "first", "--model", f"openai:m@{stub.url}", "--out", run,
            "--endpoint.max-retries", "0", "--endpoint.concurrency", "1", "--flush-every", "8",
        )  # fmt: skip
        assert code == 1
        assert len(stub.calls) < 20, "it does not go on asking"
    assert "were not sent" in err
    assert summary(run)["counts"]["ok"] == 0


BAD_ANSWERS = {
    "list": ("Thought:\nAction: f\nAction Input: [1, 2]", "not_object"),
    "number": ("Thought:\nAction: f\nAction Input: 7", "not_object"),
    "empty": ("", "empty"),
    "fenced": ('Thought:\nAction: f\nAction Input: ```json\n{"a": 1}\n```', None),
    "twice": ('Thought:\nAction: f\nAction Input: {"a": 1, "a": 2}', "duplicate_keys"),
    "long": ("Thought: " + "x" * 100_000, "too_long"),
    "deep": (
        "Thought:\nAction: f\nAction Input: " + '{"a":' * 5_000 + "1" + "}" * 5_000,
        "too_deep",
    ),
    "markup": ("<script>alert(1)</script>[bold]\x1b[31m", "no_action"),
    "code": (
        "Thought:\nAction: f\nAction Input: __import__('os').system('touch pwned')",
        "not_json",
    ),
    "surrogate": ("Thought:\nAction: \\ud800\nAction Input: {}", None),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers_are_labelled_and_nothing_breaks(rotbench, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, problem = BAD_ANSWERS[name]
    run = tmp_path / "run"
    with stub_endpoint(lambda call: chat(text)) as stub:
        code, said, _ = rotbench("eval", *SMALL, "--model", f"openai:m@{stub.url}", "--out", run)
    assert code == 0
    for record in by_id(run).values():
        assert (record.status, record.data["problem"]) == ("ok", problem)
        assert record.data["text_chars"] == len(text)
        assert record.data["fixed"] == {"ts": False, "pi": False, "cf": False}
    assert not (tmp_path / "pwned").exists()
    assert "\x1b" not in said
    assert "<script>alert" not in (run / "report.html").read_text()
    assert rotbench("report", run, "--recheck")[0] == 0


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(rotbench, tmp_path):
    gate = threading.Event()

    def answer(call):
        if not gate.is_set():
            time.sleep(0.05)
        return chat(
            f'Thought:\nAction: finish\nAction Input: {{"answer": "{len(system_of(call))}"}}'
        )

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with stub_endpoint(answer) as stub:
        words = [
            "eval",
            "--turns",
            "first",
            "--model",
            f"openai:m@{stub.url}",
            "--flush-every",
            "4",
        ]
        process = subprocess.Popen([ROTBENCH, *words, "--out", killed], stderr=subprocess.DEVNULL)
        records = killed / "records.jsonl"
        deadline = time.monotonic() + 60
        while (records.read_bytes().count(b"\n") if records.exists() else 0) < 10:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        gate.set()
        done = records.read_bytes().count(b"\n")
        asked = len(stub.calls)
        code, _, err = rotbench(*words, "--out", killed, "--resume")
        assert code == 0, err
        assert len(stub.calls) - asked <= 112 - done + 4, "what was done is not asked again"
        assert rotbench(*words, "--out", whole)[0] == 0
    assert by_id(killed) == by_id(whole)
    assert summary(killed) == summary(whole)
