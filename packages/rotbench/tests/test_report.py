"""Summary, figures and tables of an evaluation, against counts made by hand or by brute force."""

import csv
import random
import statistics

import numpy as np
import pytest

from papercore.records import Record, read_records
from papercore.report import conclude, recheck
from papercore.stats import wilson
from rotbench.cases import HALVES, LEVELS, SCENARIOS, CaseKey
from rotbench.cli import APP
from rotbench.level_table import level_lines, main_error
from rotbench.rates import METRICS, rate, share
from rotbench.report import figures, summarise, tables
from rotbench.spread import sample_sd, span, spread_of_levels
from rotbench.taxonomy import ERROR_KINDS, KINDS


def make_record(
    key, ts=True, pi=True, cf=True, *, error=None, official=None, seed=None, scenario="TG"
):
    flags = {"ts": ts, "pi": pi, "cf": cf}
    error = error or (
        "correct" if cf else "wrong_value" if pi else "missing_key" if ts else "format"
    )
    return Record(
        id=str(key) if seed is None else f"{key}/n{seed}",
        data={
            "turn": key.turn, "level": key.level, "half": key.half, "query": key.query,
            "scenario": scenario, "operators": [], "noise_seed": seed, "fixed": flags,
            "official": official or flags, "strict": flags, "error": error,
            "corrected": error.startswith("corrected"), "near_clean": False,
            "best": {"fixed": True, "official": key.index != 0},
        },
    )  # fmt: skip


def random_records(seed, num_queries=12):
    draw = random.Random(seed)
    records = []
    for level in LEVELS:
        for half in HALVES[level]:
            for index in range(num_queries):
                reached = draw.randrange(4)
                ts, pi, cf = reached > 0, reached > 1, reached > 2
                scenario = list(SCENARIOS)[index % 7]
                error = draw.choice(ERROR_KINDS) if not cf else None
                key = CaseKey("first", level, half, index)
                records.append(make_record(key, ts, pi, cf, error=error, scenario=scenario))
    draw.shuffle(records)
    return records


def keys(level, half="whole", num=4):
    return [CaseKey("first", level, half, index) for index in range(num)]


def test_a_level_pools_its_halves():
    tool = [make_record(key, cf=key.index < 1) for key in keys("slight", "tool")]
    parameter = [make_record(key, cf=key.index < 3) for key in keys("slight", "parameter")]
    found = summarise([*tool, *parameter])
    assert found["cf_slight"].value == 0.5
    assert found["cf_slight_tool"].value == 0.25
    assert found["cf_slight_parameter"].value == 0.75
    assert (found["cf_slight"].n, found["cf_slight"].method) == (4, "clustered")
    assert found["cf_slight_tool"] == wilson(1, 4)


def test_metrics_are_shares_counted_one_by_one():
    records = random_records(0)
    found = summarise(records)
    for level in LEVELS:
        rows = [r.data for r in records if r.data["level"] == level]
        for metric in METRICS:
            expected = sum(row["fixed"][metric] for row in rows) / len(rows)
            assert found[f"{metric}_{level}"].value == pytest.approx(expected)
        corrected = sum(row["error"].startswith("corrected") for row in rows)
        assert found[f"corrected_{level}"].value == pytest.approx(corrected / len(rows))
        assert found[f"format_{level}"].value == pytest.approx(
            sum(row["error"] == "format" for row in rows) / len(rows)
        )
        assert found[f"official_best_{level}"].value == pytest.approx(11 / 12)
    values = [found[f"ts_{level}"].value for level in LEVELS]
    assert found["ts_sd"].value == pytest.approx(statistics.stdev(values))
    assert found["ts_span"].value == pytest.approx(max(values) - min(values))
    assert found["ts_worst"].value == pytest.approx(min(values))


def test_the_order_of_records_changes_nothing():
    records = random_records(1)
    assert summarise(records) == summarise(records[::-1])
    assert list(level_lines(records)) == list(level_lines(records[::-1]))
    assert tables(records) == tables(records[::-1])


def test_the_third_turn_has_metrics_of_its_own():
    first = make_record(CaseKey("first", "clean", "whole", 0))
    third = make_record(CaseKey("third", "clean", "whole", 0), cf=False)
    found = summarise([first, third])
    assert (found["cf_clean"].value, found["third_cf_clean"].value) == (1.0, 0.0)


def test_failed_requests_are_counted_and_in_no_score():
    good = [make_record(key) for key in keys("clean")]
    bad = Record(id="first/clean/whole/009", status="error", error="no reply", data={})
    found = summarise([*good, bad])
    assert found["cf_clean"] == wilson(4, 4)
    assert (found["failed"].value, found["failed"].n) == (1, 5)
    assert "failed" not in summarise(good)


def test_equal_outcomes_still_have_an_interval():
    records = [make_record(k) for h in ("tool", "parameter") for k in keys("slight", h, 10)]
    assert rate(records, "fixed", "ts") == wilson(10, 10)
    assert share(records, lambda record: False) == wilson(0, 10)


def test_a_wholly_repeated_query_adds_nothing_to_what_is_known():
    """With equal halves the interval over queries is that of one half, not of twice as many."""
    tool = [make_record(k, cf=k.index % 3 == 0) for k in keys("slight", "tool", 60)]
    parameter = [make_record(k, cf=k.index % 3 == 0) for k in keys("slight", "parameter", 60)]
    one, both = rate(tool, "fixed", "cf"), rate([*tool, *parameter], "fixed", "cf")
    assert both.value == one.value
    assert both.hi - both.lo == pytest.approx(one.hi - one.lo, rel=0.15)


def test_the_papers_spread_is_the_sample_standard_deviation():
    # Source: the paper's main table, CF of GPT-4 over five levels; its text gives 8.14.
    assert round(sample_sd([40.00, 35.71, 46.19, 25.24, 30.48]), 2) == 8.14
    assert span([66.67, 57.62, 43.33]) == pytest.approx(23.34)


def test_the_interval_of_the_spread_is_that_of_drawing_queries():
    """The same draws, added up one by one instead of as a product of matrices."""
    records = random_records(2)
    found = spread_of_levels(records, "fixed", "ts")
    queries = sorted({record.data["query"] for record in records})
    draws = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=2000)
    spans = []
    for draw in draws[:200]:
        times = dict(zip(queries, draw, strict=True))
        means = []
        for level in LEVELS:
            rows = [r.data for r in records if r.data["level"] == level]
            right = sum(times[row["query"]] * row["fixed"]["ts"] for row in rows)
            means.append(right / sum(times[row["query"]] for row in rows))
        spans.append(max(means) - min(means))
    lo, hi = np.quantile(spans, [0.025, 0.975])
    assert found["span"].lo == pytest.approx(lo, abs=0.05)
    assert found["span"].hi == pytest.approx(hi, abs=0.05)
    assert found["span"].n == 12


def test_one_level_has_no_spread():
    assert spread_of_levels([make_record(key) for key in keys("clean")], "fixed", "ts") == {}


def test_kinds_of_errors_add_up_to_the_cases(tmp_path):
    records = random_records(3)
    table = next(table for table in tables(records) if table.name == "errors")
    kinds = [table.header.index(kind) for kind in KINDS]
    for row in table.rows:
        assert sum(row[place] for place in kinds) == row[table.header.index("cases")]
    figure = next(f for f in figures(records, tmp_path) if f.name == "errors_first")
    with figure.csv.open(newline="") as file:
        parts = list(csv.DictReader(file))
    for level in LEVELS:
        total = sum(float(part["value"]) for part in parts if part["level"] == level)
        assert total == pytest.approx(1.0)


def test_the_main_error_is_the_most_frequent_one():
    records = [
        make_record(key, False, False, False, error=kind)
        for key, kind in zip(
            keys("clean"), ("format", "swapped_tool", "swapped_tool", "correct"), strict=True
        )
    ]
    assert main_error(records) == "swapped_tool 50.0 %"
    assert main_error([make_record(key) for key in keys("clean")]) == ""


def test_seeds_are_told_apart_where_there_are_several():
    records = [
        make_record(key, cf=seed == 1, seed=seed) for seed in (0, 1) for key in keys("union")
    ]
    table = next(table for table in tables(records) if table.name == "seeds")
    assert [row[:4] for row in table.rows] == [["first", "union", 0, 4], ["first", "union", 1, 4]]
    assert [row[-1].split()[0] for row in table.rows] == ["0.00", "100.00"]
    assert "seeds" not in [table.name for table in tables(records[:4])]


def test_tables_say_how_levels_differ_from_clean():
    clean = [make_record(key) for key in keys("clean", num=40)]
    union = [make_record(key, cf=key.index < 10) for key in keys("union", num=40)]
    found = {table.name: table for table in tables([*clean, *union])}
    row = next(row for row in found["level_tests"].rows if row[:3] == ["first", "fixed", "CF"])
    assert row[3] == "union - clean"
    assert row[4].startswith("-75.00 [")
    assert row[6] == pytest.approx(2 * 0.5**30)
    anova = next(row for row in found["anova"].rows if row[:3] == ["first", "fixed", "CF"])
    assert anova[4] < 1e-6


def test_nothing_scored_gives_an_empty_report(tmp_path):
    failed = [Record(id="first/clean/whole/000", status="error", error="no", data={})]
    assert set(summarise(failed)) == {"failed"}
    assert figures(failed, tmp_path) == []
    assert tables(failed) == []
    assert list(level_lines(failed)) == []


@pytest.mark.slow
def test_a_report_is_rebuilt_byte_for_byte_and_a_changed_number_is_found(tmp_path, capsys):
    run = tmp_path / "run"
    assert APP.main(["eval", "--mode", "native", "--out", str(run)]) == 0
    capsys.readouterr()
    assert recheck(run) == []
    names = sorted(path.name for path in (run / "figures").glob("*.png"))
    assert names == [
        f"{what}_{turn}.png"
        for what in ("errors", "levels", "scenarios")
        for turn in ("first", "third")
    ]
    page = (run / "report.html").read_text()
    for title in ("Levels against clean", "Noise correction", "Analysis of variance", "Operators"):
        assert title in page
    estimates = conclude(run).estimates
    assert estimates == summarise(read_records(run / "records.jsonl"))
    table = run / "tables" / "scores.csv"
    table.write_text(table.read_text().replace("clean", "klean", 1))
    summary = run / "summary.json"
    summary.write_text(summary.read_text().replace('"value": 0.', '"value": 1.', 1))
    assert {line.partition(":")[0] for line in recheck(run)} == {
        "tables/scores.csv",
        "summary.json",
    }
