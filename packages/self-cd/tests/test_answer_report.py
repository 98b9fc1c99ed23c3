"""The report of `run` and `sweep` from records alone, by hand."""

import csv

import pytest

from papercore.records import Record
from self_cd import answer_report
from self_cd.answers import Answer, Label
from self_cd.items import Item, Side

METHOD = "self-cd"


def records(
    alpha: float | None,
    labels: list[Label | None],
    *,
    side: Side = "harmless",
    dataset: str = "own",
    method: str = METHOD,
) -> list[Record]:
    found = []
    for row, label in enumerate(labels):
        item = Item(f"{dataset}/{side}{row}", dataset, side, "q")
        error = "no" if label is None else None
        answer = Answer(item=item, method=method, alpha=alpha, new_tok=2, label=label, error=error)
        found.append(answer.record())
    return found


SWEEP = [
    *records(0.0, ["refuse", "refuse", "refuse", "refuse"]),
    *records(1.0, ["refuse", "refuse", "comply", "comply"]),
    *records(2.5, ["comply", "comply", "comply", "degenerate"]),
    *records(1.0, ["refuse", "refuse"], side="harmful"),
    *records(2.5, ["refuse", "comply"], side="harmful"),
]


def test_shares_of_a_sweep_by_hand():
    found = answer_report.summarise(SWEEP)
    assert found["refusal_own_harmless_self_cd_a0"].value == 1.0
    assert found["refusal_own_harmless_self_cd_a2.5"].value == 0.0
    assert found["degenerate_own_harmless_self_cd_a2.5"].value == 0.25
    assert found["refusal_own_harmful_self_cd_a2.5"].value == 0.5
    assert found["refusal_own_harmful_self_cd_a2.5"].method == "wilson"


def test_differences_are_against_the_plain_context_and_paired():
    found = answer_report.summarise(SWEEP)
    assert found["refusal_minus_plain_own_harmless_self_cd_a2.5"].value == -0.5
    assert found["refusal_minus_plain_own_harmless_self_cd_a0"].value == 0.5
    assert "refusal_minus_plain_own_harmless_self_cd_a1" not in found
    assert found["refusal_minus_plain_own_harmful_self_cd_a2.5"].n == 2


def test_a_failed_question_counts_nowhere_but_in_its_column():
    given = records(None, ["refuse", None], method="plain")
    assert answer_report.summarise(given)["refusal_own_harmless_plain"].n == 1
    table = answer_report.tables(given)[-1]
    assert table.rows[0][3:7] == ("1", "0", "0", "1")


def test_a_cell_in_which_all_failed_is_no_metric():
    assert answer_report.summarise(records(None, [None], method="plain")) == {}


def test_the_miniature_is_left_to_its_own_report():
    given = records(2.5, ["comply"], dataset="mini-stress")
    assert answer_report.summarise(given) == {}
    assert answer_report.tables(given) == []


def test_records_of_others_are_nothing_here(tmp_path):
    other = [Record(id="flow/1", data={"layer": 1})]
    assert answer_report.summarise(other) == {}
    assert answer_report.figures(other, tmp_path) == []


@pytest.mark.parametrize(
    ("given", "name"), [(SWEEP, "alphas"), (records(2.5, ["comply"]), "refusals")]
)
def test_the_figure_holds_the_numbers(tmp_path, given, name):
    (figure,) = answer_report.figures(given, tmp_path)
    assert figure.name == name
    with figure.csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = {float(row["value"]) for row in rows}
    found = answer_report.summarise(given)
    expected = {one.value for name_, one in found.items() if name_.startswith("refusal_own")}
    assert values == expected


def test_what_went_against_its_side_is_shown_to_be_read():
    tables = {one.name: one for one in answer_report.tables(SWEEP)}
    assert [row[0] for row in tables["answered_harmful"].rows] == ["own/harmful1"]
    assert len(tables["refused_others"].rows) == 6
    assert "6, of which 6 are shown" in tables["refused_others"].caption
    clean = records(2.5, ["comply"])
    assert [one.name for one in answer_report.tables(clean)] == ["answers"]
