"""`self-cd judge`, over run folders as `self-cd run` writes them."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from papercore.config import RunFlags
from papercore.errors import ConfigError, DataError
from papercore.files import read_json
from papercore.generate.endpoint import EndpointConfig
from papercore.records import read_records
from papercore.report import recheck
from papercore.runs import Run
from papercore.testing import stub_endpoint
from papercore.testing.stub import Answer as Reply
from papercore.testing.stub import Call, chat
from self_cd.answers import Answer
from self_cd.config import JudgeConfig, Method, RunAnswersConfig
from self_cd.items import Item, Side
from self_cd.judge_command import run
from self_cd.judges.keyword import NAME, judge_text
from self_cd.verdicts import Judged, read_sources, read_verdicts, unique_names

TEXTS = {
    ("harmless", 0): "Use the kill command.",
    ("harmless", 1): "I'm sorry, but I can't help with that.",
    ("harmless", 2): "",
    ("harmful", 0): "I cannot assist with this.",
    ("harmful", 1): "Sure, here is how.",
}


def save_run(
    folder: Path,
    *,
    method: Method = "self-cd",
    seed: int = 0,
    sides: tuple[Side, ...] = ("harmless", "harmful"),
    judged: bool = True,
    failed: bool = False,
) -> Path:
    """A run folder with five answers, and one question that failed if asked."""
    config = RunAnswersConfig(model="some/model", method=method, seed=seed)
    flags = RunFlags(out=folder)
    with Run.open(folder, config, flags, package="self_cd", version="1", verb="run") as opened:
        for (side, number), text in TEXTS.items():
            if side not in sides:
                continue
            item = Item(f"set/{side}{number}", "set", side, f"Question {number}?")  # type: ignore[arg-type]
            alpha = 2.5 if method == "self-cd" else None
            answer = Answer(item, method, alpha, text, provenance=(("model", "some/model"),))
            if judged:
                answer = answer.judged(judge_text(text), NAME)
            opened.append(answer.record())
        if failed:
            item = Item("set/bad", "set", "harmless", "")
            opened.append(Answer(item, method, None, error="row 3 is empty").record())
    return folder


def verdicts_of(folder: Path) -> list[Judged]:
    return read_verdicts(read_records(folder / "records.jsonl"))


def labels(folder: Path) -> dict[tuple[str | None, str], str | None]:
    return {(one.judge, one.record): one.label for one in verdicts_of(folder)}


def test_the_keyword_judge_judges_every_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_run(tmp_path / "a", failed=True)
    out = tmp_path / "out"
    assert run(JudgeConfig(runs=(source,)), RunFlags(out=out)) == 0
    found = verdicts_of(out)
    assert [one.label for one in found] == ["comply", "refuse", "degenerate", "refuse", "comply"]
    assert found[0].id == f"judge/{NAME}/a/answer/self-cd@2.5/set/harmless0"
    assert {one.model for one in found} == {"some/model"}
    shown = capsys.readouterr().out
    [harmless] = [line for line in shown.splitlines() if " harmless " in line]
    assert harmless.split()[:2] == [NAME, "set"]
    assert "33.3 %" in harmless
    assert harmless.split()[-1] == "3"
    assert " harmful " in shown
    assert "Question" not in shown, "questions are not shown"
    assert (out / "report.html").exists()
    assert recheck(out) == []
    summary = read_json(out / "summary.json")["metrics"]
    assert isinstance(summary, dict)
    assert summary[f"refusal_{NAME}_set_harmful_self_cd_a2.5"]["value"] == 0.5
    assert read_json(out / "env.json")["notes"]["run a"]  # type: ignore[index]


def reply(call: Call) -> Reply:
    """A judge that disagrees with the rules on one answer, and rates all alike."""
    content = str(call.body["messages"][-1]["content"])  # type: ignore[index]
    if "rate how helpful" in content:
        return chat("3")
    return chat("refuse" if "sorry" in content else "comply")


def test_two_judges_and_their_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_run(tmp_path / "a")
    with stub_endpoint(reply) as stub:
        ref = f"openai:any@{stub.url}"
        config = JudgeConfig(runs=(source,), judges=("keyword", "llm"), model=ref, helpfulness=True)
        assert run(config, RunFlags(out=tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    llm = f"llm/2:{ref}"
    assert f"{NAME} and {llm}: 80.0 % the same" in shown
    [line] = [line for line in shown.splitlines() if line.startswith(f"{NAME} and")]
    assert line.endswith("n=5")
    assert "all: Krippendorff's alpha" in shown
    assert "helpfulness 3" in shown
    metrics = read_json(tmp_path / "out" / "summary.json")["metrics"]
    assert isinstance(metrics, dict)
    assert metrics[f"agreement_{NAME}_{llm}"] == {
        **metrics[f"agreement_{NAME}_{llm}"],
        "value": 0.8,
        "n": 5,
    }
    assert metrics["krippendorff_alpha"]["n"] == 5
    table = (tmp_path / "out" / "tables" / "agreement.csv").read_text()
    [row] = list(csv.DictReader(io.StringIO(table)))
    assert row["refuse, comply"] == "1"
    assert row["degenerate, degenerate"] == "1", "by the same rule"
    assert recheck(tmp_path / "out") == []


def test_labels_of_the_run_are_one_more_judge(tmp_path: Path) -> None:
    source = save_run(tmp_path / "a")
    with stub_endpoint([chat("comply")]) as stub:
        ref = f"openai:any@{stub.url}"
        config = JudgeConfig(runs=(source,), judges=("llm",), model=ref)
        run(config, RunFlags(out=tmp_path / "out"))
    judges = {one.judge for one in verdicts_of(tmp_path / "out")}
    assert judges == {NAME, f"llm/2:{ref}"}


def test_it_goes_on_where_it_was_and_tries_failures_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_run(tmp_path / "a")
    endpoint = EndpointConfig(concurrency=1, max_retries=0)
    babbling = [chat("comply"), chat("comply"), chat("hm"), chat("comply")]
    asked: list[int] = []
    replies = iter([*babbling, chat("still hm"), *[chat("refuse")] * 9])

    def answer(call: Call) -> Reply:
        asked.append(call.number)
        return next(replies)

    with stub_endpoint(answer) as stub:
        ref = f"openai:any@{stub.url}"
        config = JudgeConfig(
            runs=(source,), judges=("keyword", "llm"), model=ref, endpoint=endpoint
        )
        out = tmp_path / "out"
        assert run(config, RunFlags(out=out)) == 1
        assert "NOT ALL JUDGED: 1 verdicts failed" in capsys.readouterr().err
        assert sum(one.error is not None for one in verdicts_of(out)) == 1
        first = len(asked)
        assert run(config, RunFlags(out=out, resume=True)) == 0
        assert len(asked) == first + 1, "only the one that failed is asked again"
        again = labels(out)
        assert run(config, RunFlags(out=out, resume=True)) == 0
        assert len(asked) == first + 1
    assert labels(out) == again
    assert all(label is not None for label in again.values())


def test_other_answers_are_another_run(tmp_path: Path) -> None:
    source = save_run(tmp_path / "a")
    config = JudgeConfig(runs=(source,))
    run(config, RunFlags(out=tmp_path / "out"))
    text = (source / "records.jsonl").read_text()
    (source / "records.jsonl").write_text(text.replace("Sure, here", "Oh, here"))
    with pytest.raises(ConfigError, match="data_hash"):
        run(config, RunFlags(out=tmp_path / "out", resume=True))


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    one = save_run(tmp_path / "x" / "run")
    two = save_run(tmp_path / "y" / "run", seed=1)
    run(JudgeConfig(runs=(one, two)), RunFlags(out=tmp_path / "out"))
    assert {found.run for found in verdicts_of(tmp_path / "out")} == {"x/run", "y/run"}
    assert unique_names([Path("/a/b/c"), Path("/d/b/c"), Path("/a/e")]) == ["a/b/c", "d/b/c", "e"]
    with pytest.raises(ConfigError, match="twice"):
        read_sources([one, one])


def test_the_limit_is_for_each_side_of_each_run(tmp_path: Path) -> None:
    runs = (save_run(tmp_path / "a"), save_run(tmp_path / "b", seed=1))
    run(JudgeConfig(runs=runs, limit=1), RunFlags(out=tmp_path / "out"))
    assert len(verdicts_of(tmp_path / "out")) == 4  # one of each side of each run


def test_a_run_without_harmful_questions_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_run(tmp_path / "a", sides=("harmless",))
    run(JudgeConfig(runs=(source,)), RunFlags(out=tmp_path / "out"))
    assert "NO HARMFUL QUESTIONS in a" in capsys.readouterr().out


def fill(sheet: Path, into: Path, label: str, num_rows: int) -> Path:
    rows = list(csv.reader(io.StringIO(sheet.read_bytes().decode("utf-8-sig"), newline="")))
    for row in rows[1 : 1 + num_rows]:
        row[3] = label
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    into.write_text(text.getvalue(), encoding="utf-8")
    return into


def test_sheets_of_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = save_run(tmp_path / "a")
    sheet = tmp_path / "sheet.csv"
    run(JudgeConfig(runs=(source,), write_sheet=sheet), RunFlags(out=tmp_path / "first"))
    assert f"sheet: {sheet}, 5 answers" in capsys.readouterr().out
    ann = fill(sheet, tmp_path / "ann.csv", "R", 5)
    bob = fill(sheet, tmp_path / "bob.csv", "comply", 3)
    config = JudgeConfig(runs=(source,), sheets=(ann, bob))
    assert run(config, RunFlags(out=tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert f"{NAME} and sheet:ann: 40.0 % the same" in shown
    assert "sheet:ann and sheet:bob: 0.0 % the same" in shown
    assert "2 rows have no label: 5, 6" in caplog.text
    found = labels(tmp_path / "out")
    assert sum(judge == "sheet:ann" for judge, _ in found) == 5
    assert sum(judge == "sheet:bob" for judge, _ in found) == 3
    # The same sheet goes on, a changed verdict does not.
    run(config, RunFlags(out=tmp_path / "out", resume=True))
    fill(sheet, bob, "comply", 5)
    run(config, RunFlags(out=tmp_path / "out", resume=True))
    assert sum(judge == "sheet:bob" for judge, _ in labels(tmp_path / "out")) == 5
    fill(sheet, bob, "refuse", 5)
    with pytest.raises(ConfigError, match="now calls"):
        run(config, RunFlags(out=tmp_path / "out", resume=True))


def test_a_sheet_of_other_runs_is_refused(tmp_path: Path) -> None:
    one, two = save_run(tmp_path / "a"), save_run(tmp_path / "b", seed=1)
    sheet = tmp_path / "sheet.csv"
    run(JudgeConfig(runs=(one,), write_sheet=sheet), RunFlags(out=tmp_path / "first"))
    fill(sheet, sheet, "c", 5)
    with pytest.raises(DataError, match="judges none of these runs, but 'a'"):
        run(JudgeConfig(runs=(two,), sheets=(sheet,)), RunFlags(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_filled_sheet_is_kept(tmp_path: Path) -> None:
    source = save_run(tmp_path / "a")
    sheet, out = tmp_path / "sheet.csv", tmp_path / "out"
    config = JudgeConfig(runs=(source,), write_sheet=sheet)
    run(config, RunFlags(out=out))
    fill(sheet, sheet, "c", 5)
    before = sheet.read_bytes()
    run(config, RunFlags(out=out, resume=True))
    assert sheet.read_bytes() == before
    with pytest.raises(ConfigError, match="may be filled"):
        run(config, RunFlags(out=tmp_path / "other"))


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder"):
        run(JudgeConfig(runs=(tmp_path,)), RunFlags(out=tmp_path / "out"))
    source = save_run(tmp_path / "a", sides=())
    with pytest.raises(DataError, match="holds no answers"):
        run(JudgeConfig(runs=(source,)), RunFlags(out=tmp_path / "out"))
    judged = tmp_path / "judged"
    run(JudgeConfig(runs=(save_run(tmp_path / "b"),)), RunFlags(out=judged))
    with pytest.raises(DataError, match=r"self-cd judge.*holds no answers"):
        run(JudgeConfig(runs=(judged,)), RunFlags(out=tmp_path / "out"))


def test_a_judge_that_does_not_load_leaves_nothing(tmp_path: Path) -> None:
    source = save_run(tmp_path / "a")
    config = JudgeConfig(runs=(source,), judges=("classifier",), classifier=str(tmp_path))
    with pytest.raises(Exception, match=r"cannot be|no config"):
        run(config, RunFlags(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_unused_settings_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = save_run(tmp_path / "a")
    config = JudgeConfig(runs=(source,), classifier="x/y", model="z/w")
    run(config, RunFlags(out=tmp_path / "out"))
    assert "--classifier is not used" in caplog.text
    assert "--model is not used" in caplog.text
    assert "--refusal-labels" not in caplog.text


def test_commands_import_no_torch() -> None:
    script = (
        "import sys, self_cd.judge_command, self_cd.table_command, self_cd.judge_report; "
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
