import csv
import math

import pytest

from papercore.claims import judge_all
from papercore.records import Record
from r3 import mini_report, report
from r3.claims import CLAIMS
from r3.mini_report import ARMS, DEPTHS, GRADIENTS, METHOD, TUNED, arm_id, look_id

STARTS = [3, 14, 15, 92]


def look(arm, step, greedy, sampled, *, draws=4, **other):
    """What an arm solves; every step of it is right unless told otherwise, trained starts alike."""
    held_out = {
        "starts": STARTS,
        "draws": draws,
        "greedy": greedy,
        "greedy_steps": other.get("greedy_steps", greedy),
        "sampled": sampled,
        "sampled_steps": other.get("sampled_steps", sampled),
    }
    trained = held_out | {"starts": [1, 2, 4, 5]}
    data = {
        "arm": arm,
        "step": step,
        "held_out": held_out,
        "trained": other.get("trained", trained),
    }
    return Record(id=look_id(arm, step), data=data)


def arm(name, tokens, rollouts=()):
    data = {"arm": name, "tokens": tokens, "rollouts": [list(row) for row in rollouts]}
    return Record(id=arm_id(name), data=data)


def full(r3=(4, 3, 4, 3), rl=(0, 1, 0, 0), free=(1, 0, 0, 1), tokens=(60, 100)):
    """Records of a run in which R3 does so well and plain RL so badly."""
    rows = [{"depth": depth, "right": 50, "num": 100, "expected": 0.51} for depth in range(10)]
    return [
        look(TUNED, 0, [0, 0, 0, 0], [0, 0, 0, 0]),
        look("r3", 60, [int(n > 2) for n in r3], list(r3)),
        look("rl", 60, [0, 0, 0, 0], list(rl)),
        look("free", 60, [0, 0, 0, 0], list(free)),
        look("staged", 60, [1, 1, 1, 1], [4, 4, 4, 4]),
        arm("r3", tokens[0], [(step, step % 5, 2, 1) for step in range(1, 61)]),
        arm("rl", tokens[1], [(step, 0, 2, 0) for step in range(1, 61)]),
        arm("free", tokens[1]),
        arm("staged", tokens[0]),
        Record(id=DEPTHS, data={"step_right": 0.8, "depths": rows}),
        Record(
            id=GRADIENTS,
            data={"given": 0.0, "learnt": 0.99, "num_given": 12, "num_generated": 34},
        ),
    ]


def statuses(records):
    verdicts = judge_all(CLAIMS, mini_report.summarise(records))
    return {verdict.claim.id: (verdict.claim.kind, verdict.status) for verdict in verdicts}


def test_shares_by_hand():
    records = [look("r3", 20, [1, 0, 1, 1], [4, 0, 1, 1], sampled_steps=[4, 0, 0, 1])]
    found = mini_report.summarise(records)
    assert found["r3_greedy_20"].value == 3 / 4
    assert (found["r3_greedy_20"].method, found["r3_greedy_20"].n) == ("wilson", 4)
    assert found["r3_sampled_20"].value == 6 / 16
    assert found["r3_sampled_20_every_step"].value == 5 / 16
    assert found["r3_greedy_20_every_step"].value == 3 / 4
    assert found["r3_sampled_20_trained"].value == 6 / 16
    assert len(found) == 8


def test_draws_from_one_start_value_are_not_independent():
    split = mini_report.summarise([look("r3", 20, [1, 1, 1, 1], [64, 0, 64, 0], draws=64)])
    even = mini_report.summarise([look("r3", 20, [1, 1, 1, 1], [32, 32, 32, 32], draws=64)])
    assert split["r3_sampled_20"].value == even["r3_sampled_20"].value == 0.5
    assert (split["r3_sampled_20"].method, split["r3_sampled_20"].n) == ("clustered", 4)
    assert split["r3_sampled_20"].hi - split["r3_sampled_20"].lo > 0.5
    assert even["r3_sampled_20"].hi == even["r3_sampled_20"].lo == 0.5


def test_trained_start_values_have_metrics_of_their_own():
    trained = {
        "starts": [7, 8],
        "draws": 2,
        "greedy": [0, 1],
        "greedy_steps": [0, 0],
        "sampled": [2, 1],
        "sampled_steps": [1, 0],
    }
    found = mini_report.summarise([look("rl", 40, [0] * 4, [0] * 4, trained=trained)])
    assert found["rl_sampled_40_trained"].value == 3 / 4
    assert found["rl_sampled_40_trained_every_step"].value == 1 / 4
    assert found["rl_greedy_40_trained_every_step"].value == 0
    assert found["rl_sampled_40_trained"].n == 2


def test_ratio_and_difference_are_paired_over_start_values():
    records = [
        look("r3", 60, [1] * 4, [4, 2, 4, 2]),
        look("rl", 60, [0] * 4, [2, 1, 2, 1]),
    ]
    found = mini_report.summarise(records)
    ratio, gap = found["rl_over_r3_sampled_60"], found["r3_minus_rl_sampled_60"]
    # always half of it: whichever start values are drawn, the ratio is the same
    assert (ratio.value, ratio.lo, ratio.hi, ratio.n) == (0.5, 0.5, 0.5, 4)
    assert gap.value == pytest.approx((6 / 16 + 0) * 1)
    assert 0.25 <= gap.lo < gap.value < gap.hi <= 0.5
    assert {ratio.method, gap.method} == {"clustered"}


def test_nothing_over_nothing_is_no_ratio():
    records = [look("r3", 60, [0] * 4, [0] * 4), look("rl", 60, [0] * 4, [0] * 4)]
    assert math.isnan(mini_report.summarise(records)["rl_over_r3_sampled_60"].value)


def test_tokens_gap_and_gradients():
    found = mini_report.summarise(full())
    assert found["tokens_r3_over_rl"].value == 0.6
    assert found["tokens_rl"].value == 100
    assert found["tabular_gap"].value == pytest.approx(0.01)
    assert found["prefix_gradient"].value == 0
    assert (found["generated_learnt"].value, found["generated_learnt"].n) == (0.99, 34)


def test_the_gap_is_the_largest_one():
    rows = [
        {"depth": 0, "right": 10, "num": 100, "expected": 0.107},
        {"depth": 1, "right": 50, "num": 100, "expected": 0.134},
    ]
    found = mini_report.summarise([Record(id=DEPTHS, data={"depths": rows})])
    assert found["tabular_gap"].value == pytest.approx(0.366)
    assert found["tabular_gap"].n == 2


def test_every_bar_is_measured_and_a_good_run_holds_all():
    records = full()
    assert {bar.metric for claim in CLAIMS for bar in claim.bars} <= set(
        mini_report.summarise(records)
    )
    assert {status for _, status in statuses(records).values()} == {"held"}


def test_an_arm_that_is_plain_rl_misses_every_effect():
    found = statuses(full(r3=(0, 1, 0, 0), tokens=(100, 100)))
    assert {status for kind, status in found.values() if kind == "effect"} == {"missed"}


def test_plain_rl_must_starve_at_both_kl_weights():
    assert statuses(full(free=(3, 2, 2, 2)))["plain-rl-starves"] == ("effect", "missed")
    assert statuses(full(rl=(3, 2, 2, 2)))["plain-rl-starves"] == ("effect", "missed")


def test_figures_and_tables(tmp_path):
    names = [figure.name for figure in mini_report.figures(full(), tmp_path)]
    assert names == ["solved_sampled", "solved_greedy", "shortcuts", "depths", "tabular"]
    assert all((tmp_path / f"{name}.png").exists() for name in names)
    curves = (tmp_path / "solved_sampled.csv").read_text().splitlines()
    assert curves[1].startswith("R3,0.0,0.0,"), "all arms begin at the tuned model"
    assert "plain RL,60.0,0.0625," in "\n".join(curves)
    (table,) = mini_report.tables(full())
    assert [tuple(row[:2]) for row in table.rows] == [
        *[("tuned model", 0), ("R3", 60), ("plain RL", 60)],
        *[("plain RL, beta 0.01", 60), ("staged RL", 60)],
    ]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table.rows[1][2:5] == [1.0, 1.0, 14 / 16]


def test_rollouts_by_depth_are_counted_over_neighbouring_steps(tmp_path):
    rows = [(1, 0, 4, 1), (5, 0, 4, 2), (6, 0, 4, 4), (5, 1, 8, 8)]
    records = [look(TUNED, 0, [0] * 4, [0] * 4), arm("r3", 1, rows), arm("rl", 1)]
    mini_report.figures(records, tmp_path)
    cells = csv.reader((tmp_path / "depths.csv").read_text().splitlines()[1:])
    assert [(name, step, share, num) for name, step, share, *_, num in cells] == [
        ("R3, depth 0", "5.0", "0.375", "8"),
        ("R3, depth 0", "10.0", "1.0", "4"),
        ("R3, depth 1", "5.0", "1.0", "8"),
    ]


def test_staged_rl_has_no_bar_and_is_explained(tmp_path):
    assert not [bar for claim in CLAIMS for bar in claim.bars if "staged" in bar.metric]
    figure = mini_report.figures(full(), tmp_path)[0]
    assert "without a bar" in figure.caption
    assert "staged RL" in (tmp_path / "solved_sampled.csv").read_text()


def test_records_of_other_commands_give_nothing(tmp_path):
    others = [Record(id="step/1", data={"step": 1}), Record(id="start", data={})]
    assert mini_report.summarise(others) == {}
    assert mini_report.figures(others, tmp_path) == []
    assert mini_report.tables(others) == []


def test_the_method_is_among_the_arms():
    assert METHOD in ARMS
    assert TUNED not in ARMS


def test_the_package_reports_the_miniature_among_its_other_runs(tmp_path):
    records = full()
    assert report.summarise(records) == mini_report.summarise(records)
    assert [table.name for table in report.tables(records)] == ["looks"]
    assert len(report.figures(records, tmp_path)) == 5
