import csv
import io
import itertools

import pytest

from papercore.records import Record
from rotbench import mini_report
from rotbench.cases import HALVES, LEVELS, NOISY_LEVELS

TOOLS = ("corrected_tool", "corrected_other", "invented_tool", "swapped_tool", "format")


def answer(model, level, half, index, ts=True, *, error="wrong_value", name="fihok", pi=None):
    """A graded answer; one with the right tool has wrong values."""
    scores = {"ts": ts, "pi": ts if pi is None else pi, "cf": False}
    return Record(
        id=f"{model}/first/{level}/{half}/{index:03d}",
        data={
            "level": level,
            "half": half,
            "query": f"first/{index:03d}",
            "model": model,
            "fixed": scores,
            "error": error,
            "name": name,
            "gold": "fiqhok",
            "clean_gold": "fihok",
        },
    )


def cell(model, level, half, rights, **more):
    return [answer(model, level, half, i, bool(right), **more) for i, right in enumerate(rights)]


# Right tools of two queries, by model, level and half.
RIGHT = {
    "clean-only": {
        ("clean", "whole"): (1, 1),
        ("slight", "tool"): (0, 0),
        ("slight", "parameter"): (1, 1),
        ("medium", "tool"): (0, 1),
        ("medium", "parameter"): (1, 1),
        ("heavy", "tool"): (1, 1),
        ("heavy", "parameter"): (1, 0),
        ("union", "whole"): (0, 0),
    },
    "rottuned": {
        ("clean", "whole"): (1, 0),
        ("slight", "tool"): (1, 1),
        ("slight", "parameter"): (1, 1),
        ("medium", "tool"): (1, 1),
        ("medium", "parameter"): (1, 1),
        ("heavy", "tool"): (1, 1),
        ("heavy", "parameter"): (1, 1),
        ("union", "whole"): (1, 0),
    },
}


@pytest.fixture
def records():
    return [
        Record(id="data/test", data={"split": "test", "content_hashes": ["0" * 16]}),
        Record(id="budget/rottuned", data={"method": "rottuned"}),
        *itertools.chain.from_iterable(
            cell(model, level, half, rights)
            for model, cells in RIGHT.items()
            for (level, half), rights in cells.items()
        ),
    ]


def test_levels_pool_their_halves(records):
    found = mini_report.summarise(records)
    assert found["clean_only_ts_clean"].value == 1.0
    assert found["clean_only_ts_clean"].method == "wilson"
    assert found["clean_only_ts_slight"].value == 0.5
    assert found["clean_only_ts_slight_tool"].value == 0.0
    assert found["clean_only_ts_slight_parameter"].value == 1.0
    assert found["clean_only_ts_medium"].value == 0.75
    assert found["clean_only_ts_medium"].method == "clustered"
    assert found["clean_only_ts_medium"].n == 2, "queries, not answers"
    assert found["rottuned_cf_union"].value == 0.0


def test_differences_are_paired_over_queries(records):
    found = mini_report.summarise(records)
    minus = {level: found[f"clean_only_ts_clean_minus_{level}"] for level in NOISY_LEVELS}
    assert {level: e.value for level, e in minus.items()} == {
        "slight": 0.5,
        "medium": 0.25,
        "heavy": 0.25,
        "union": 1.0,
    }
    assert {e.n for e in minus.values()} == {2}
    assert {e.method for e in minus.values()} == {"paired"}


def test_gain_and_span_by_hand(records):
    found = mini_report.summarise(records)
    # clean-only: slight .5, medium .75, heavy .75, union 0; rottuned: 1, 1, 1, .5
    assert found["clean_only_ts_noisy"].value == 0.5
    assert found["rottuned_ts_noisy"].value == 0.875
    gain = found["rottuned_minus_clean_only_ts_noisy"]
    assert (gain.value, gain.method, gain.n) == (0.375, "paired", 2)
    assert found["clean_only_ts_span"].value == 1.0
    assert found["rottuned_ts_span"].value == 0.5


def test_equal_models_gain_nothing_for_sure(records):
    same = [
        Record(id=r.id.replace("clean-only", "rottuned"), data=r.data)
        for r in records
        if r.id.startswith("clean-only/")
    ]
    ours = [r for r in records if r.id.startswith("clean-only/")]
    found = mini_report.summarise([*ours, *same])
    for metric in ("ts", "pi"):
        gain = found[f"rottuned_minus_clean_only_{metric}_noisy"]
        assert gain.value == 0
        assert gain.lo <= 0 <= gain.hi


def test_noise_correction_by_hand():
    kinds = [
        ("corrected_tool", "fihok"),
        ("invented_tool", "fihox"),
        ("invented_tool", "fiqho"),
        ("invented_tool", "boqho"),
        ("swapped_tool", "fihot"),
        ("format", None),
    ]
    wrong = [
        answer("clean-only", "slight", "tool", i, False, error=kind, name=name)
        for i, (kind, name) in enumerate(kinds)
    ]
    right = [answer("clean-only", "slight", "tool", 9, True)]
    elsewhere = cell("clean-only", "slight", "parameter", [0] * 9, error="swapped_tool")
    found = mini_report.summarise([*wrong, *right, *elsewhere])
    share = found["clean_only_corrected_share_slight_tool"]
    assert (share.value, share.n, share.method) == (0.5, 6, "wilson")
    assert found["clean_only_corrected_is_largest_slight_tool"].value == 1.0
    strict = found["clean_only_sides_with_clean_share_slight_tool"]
    assert strict.value == pytest.approx(2 / 6), "a broken copy begins like the clean name too"


def test_noise_correction_that_ties_is_not_the_largest():
    wrong = [
        answer("clean-only", "slight", "tool", i, False, error=kind)
        for i, kind in enumerate(["corrected_tool", "swapped_tool"])
    ]
    found = mini_report.summarise(wrong)
    assert found["clean_only_corrected_is_largest_slight_tool"].value == 0.0


def test_without_a_wrong_tool_no_share_can_hold():
    found = mini_report.summarise([answer("clean-only", "slight", "tool", 0, True)])
    share = found["clean_only_corrected_share_slight_tool"]
    assert share.value != share.value, "NaN never holds a bar"


def test_the_order_of_the_records_does_not_matter(records):
    assert mini_report.summarise(records[::-1]) == mini_report.summarise(records)
    assert list(mini_report.summarise(records[::-1])) == list(mini_report.summarise(records))


def test_failed_answers_are_left_out_and_pairs_need_both(records):
    broken = "clean-only/first/union/whole/001"
    failed = [
        Record(id=r.id, status="error", error="out of memory") if r.id == broken else r
        for r in records
    ]
    found = mini_report.summarise(failed)
    assert found["clean_only_ts_union"].n == 1
    assert found["clean_only_ts_clean_minus_union"].n == 1
    assert found["rottuned_minus_clean_only_ts_noisy"].n == 1


def test_a_run_that_stopped_early_has_no_comparison(records):
    early = [r for r in records if not r.id.startswith("rottuned/")]
    found = mini_report.summarise(early)
    assert "clean_only_ts_span" in found
    assert not [name for name in found if "rottuned" in name]


def test_nothing_comes_of_nothing(tmp_path):
    assert mini_report.summarise([]) == {}
    assert mini_report.figures([], tmp_path) == []
    assert mini_report.tables([]) == []
    assert not mini_report.is_miniature([])


def test_only_the_miniature_is_a_miniature(records):
    assert mini_report.is_miniature(records)
    assert mini_report.is_miniature(records[:1])
    assert not mini_report.is_miniature([Record(id="first/clean/whole/000")])


def test_the_figures_hold_the_numbers_of_the_summary(records, tmp_path):
    found = mini_report.summarise(records)
    levels, wrong = mini_report.figures(records, tmp_path)
    rows = list(csv.DictReader(io.StringIO(levels.csv.read_text())))
    assert {(row["series"], row["level"]) for row in rows} == set(
        itertools.product(mini_report.MODELS, LEVELS)
    )
    for row in rows:
        name = f"{row['series'].replace('-', '_')}_ts_{row['level']}"
        assert float(row["value"]) == found[name].value
    assert levels.png.name == "rotbench_levels.png"
    assert wrong.png.stat().st_size > 1000


def test_the_table_has_a_row_per_half(records):
    (table,) = mini_report.tables(records)
    assert len(table.rows) == 2 * sum(len(halves) for halves in HALVES.values())
    by_cell = {row[:3]: row[3:] for row in table.rows}
    assert by_cell["clean-only", "medium", "tool"] == (2, 50.0, 50.0, 0.0)
