"""The report of a training run, from records made by hand."""

import csv
import math

import pytest

from papercore.records import Record
from papercore.stats import wilson
from r3.train_report import figures, is_train, result_lines, summarise, tables

NAMES = ["dev", "success", "length", "kl", "advantage", "shares", "tokens"]


def counts(n, successes, **changes):
    usual = {
        "n": n,
        "excluded": 0,
        "learnt": n,
        "successes": successes,
        "positive": successes,
        "partial": 0,
        "truncated": 0,
        "tokens": 5 * n,
        "reward": successes / n,
        "length": 5.0,
        "kl": 0.5,
        "advantage": 0.25,
        "value": None,
    }
    return usual | changes


def step(number, depths, **changes):
    """The record of a step whose whole is the sum of its depths."""
    names = ("n", "excluded", "learnt", "successes", "positive", "partial", "truncated", "tokens")
    total = {name: sum(one[name] for one in depths.values()) for name in names}
    whole = counts(total["n"], total["successes"]) | total | changes
    by = {str(depth): one for depth, one in depths.items()}
    return Record(id=f"step/{number}", data={"step": number, **whole, "depths": by})


def dev(number, right, n):
    marks = [1] * right + [0] * (n - right)
    return Record(id=f"dev/{number}", data={"step": number, "correct": marks})


def result(**data):
    return Record(id="result", data=data)


@pytest.fixture
def records():
    """Twenty steps: the last two are the last tenth."""
    early = [step(n, {0: counts(4, 0), 2: counts(4, 1)}) for n in range(1, 19)]
    late = [
        step(n, {0: counts(4, 1, excluded=2, partial=1, positive=2), 2: counts(4, 3, truncated=1)})
        for n in (19, 20)
    ]
    return [
        Record(id="start", data={"demos": 9}),
        dev(0, 1, 10),
        *early,
        *late,
        dev(10, 7, 10),
        dev(20, 6, 10),
        result(kept=10, steps=20),
    ]


def test_metrics_are_those_of_the_last_tenth(records):
    found = summarise(records)
    assert found["success"] == wilson(8, 12)  # four of the sixteen have no reward
    assert found["success_bare"] == wilson(2, 4)
    assert found["partial"] == wilson(2, 12)
    assert found["positive"] == wilson(10, 12)
    assert found["truncated"] == wilson(2, 16)
    assert found["excluded"] == wilson(4, 16)
    assert found["length_tok"].value == 5.0


def test_totals_are_over_all_steps(records):
    found = summarise(records)
    assert found["steps"].value == 20
    assert found["rollouts"].value == 160
    assert found["tokens"].value == 800


def test_dev_accuracies(records):
    found = summarise(records)
    assert found["dev_start"] == wilson(1, 10)
    assert found["dev_kept"] == wilson(7, 10)
    assert found["dev_last"] == wilson(6, 10)
    assert found["kept_step"].value == 10


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_figures_hold_a_line_per_depth(records, tmp_path):
    assert [figure.name for figure in figures(records, tmp_path)] == NAMES
    success = rows(tmp_path / "success.csv")
    assert {row["series"] for row in success} == {"bare question", "depth 2"}
    last = [row for row in success if row["step"] == "20.0"]
    assert [float(row["value"]) for row in last] == [0.5, 0.75]
    assert [(row["lo"], row["n"]) for row in last] != [("", "")] * 2
    accuracy = rows(tmp_path / "dev.csv")
    assert [float(row["value"]) for row in accuracy] == [0.1, 0.7, 0.6]
    assert float(accuracy[0]["lo"]) == pytest.approx(wilson(1, 10).lo)
    tokens = [float(row["value"]) for row in rows(tmp_path / "tokens.csv")]
    assert tokens[0] == 40
    assert tokens[-1] == 800


def test_means_are_weighted_by_their_rollouts(tmp_path):
    """Two steps in one point: 3 rollouts of 10 tokens and 1 of 2 are 8 on average."""
    made = [
        step(2 * n + half, {0: counts(num, 0, length=length, learnt=num, advantage=advantage)})
        for n in range(25)
        for half, num, length, advantage in ((1, 3, 10.0, 1.0), (2, 1, 2.0, -3.0))
    ]
    figures(made, tmp_path)
    lengths = rows(tmp_path / "length.csv")
    assert len(lengths) == 25
    assert {float(row["value"]) for row in lengths} == {8.0}
    assert {float(row["value"]) for row in rows(tmp_path / "advantage.csv")} == {0.0}


def test_what_is_not_known_has_no_figure(tmp_path):
    made = [step(n, {0: counts(4, 1, kl=None, advantage=None, learnt=0)}) for n in (1, 2)]
    names = [figure.name for figure in figures(made, tmp_path)]
    assert names == ["success", "length", "shares", "tokens"]


def test_a_depth_without_any_reward_has_no_success(tmp_path):
    made = [step(1, {0: counts(4, 0, excluded=4), 1: counts(4, 2)})]
    figures(made, tmp_path)
    assert {row["series"] for row in rows(tmp_path / "success.csv")} == {"depth 1"}
    assert "success_bare" not in summarise(made)


def test_many_depths_are_pooled_and_the_bare_question_stays_alone(tmp_path):
    made = [step(n, {depth: counts(2, 1) for depth in range(23)}) for n in (1, 2)]
    figures(made, tmp_path)
    success = rows(tmp_path / "success.csv")
    names = list(dict.fromkeys(row["series"] for row in success))
    assert names[:2] == ["bare question", "depth 1 to 4"]
    assert names[-1] == "depth 18 to 22"
    assert len(names) == 6
    of_step = [row for row in success if row["step"] == "1.0"]
    assert sum(int(row["n"]) for row in of_step) == 46  # nothing is left out or counted twice


def test_the_table_compares_the_first_and_the_last_steps(records):
    dev_table, depth_table = tables(records)
    assert [row[0] for row in dev_table.rows] == [0, 10, 20]
    assert len(depth_table.header) == len(depth_table.rows[0])
    found = {row[:2]: row for row in depth_table.rows}
    assert found["first", "bare question"][2:4] == (8, 0.0)
    assert found["last", "depth 2"][2:4] == (8, 0.75)
    assert found["last", "depth 2"][-1] == 2  # truncated


def test_unknown_means_are_nan_in_the_table():
    (table,) = tables([step(1, {0: counts(4, 1, kl=None)})])
    assert math.isnan(table.rows[0][table.header.index("KL")])


def test_lines_for_the_terminal(records):
    lines = result_lines(records)
    assert lines[0] == "20 steps, 160 rollouts, 800 tokens generated"
    assert lines[1].startswith("right in the last steps: 66.7 % [")
    assert "50.0 % [15.0, 85.0] from the bare question" in lines[1]
    assert lines[2].startswith("25.0 % [10.2, 49.5] of rollouts have no reward")
    assert lines[3] == (
        "dev questions: before training 10.0 % [1.8, 40.4], kept 70.0 % [39.7, 89.2], "
        "last step 60.0 % [31.3, 83.2]"
    )
    assert lines[4].startswith("there are only 10 dev questions")


def test_rare_success_is_an_alarm():
    lines = result_lines([step(1, {0: counts(100, 1)})])
    assert "only 1.0 % of rollouts earn anything: start nearer to the answer" in lines[2]


def test_a_run_without_steps_or_dev_questions():
    start = [Record(id="start", data={})]
    assert is_train(start)
    assert summarise(start) == {}
    assert tables(start) == []
    assert result_lines(start) == []
    assert "dev_kept" not in summarise([*start, step(1, {0: counts(4, 1)}), result(kept=1)])


def test_records_of_other_commands_give_nothing(tmp_path):
    others = [Record(id="sft/data"), Record(id="q1"), result(kept=1)]
    assert not is_train(others)
    assert (summarise(others), figures(others, tmp_path), tables(others)) == ({}, [], [])


def test_a_step_that_was_noted_as_an_error_counts_nothing(records):
    noted = Record(id="excluded/19", status="error", error="boom", data={"step": 19})
    assert summarise([*records, noted]) == summarise(records)
