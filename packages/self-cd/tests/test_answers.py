"""Answers as records and back, cells, and the differences between them, against hand counts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.records import Record
from self_cd.answers import Answer, Label, is_answer, read_answers
from self_cd.cells import difference, sort_cells, who
from self_cd.items import Item, Side
from self_cd.telling import result_lines


def answer(
    name: str = "a/1",
    *,
    side: Side = "harmless",
    method: str = "self-cd",
    alpha: float | None = 2.5,
    label: Label | None = "comply",
    error: str | None = None,
) -> Answer:
    item = Item(name, name.partition("/")[0], side, f"question {name}")
    return Answer(
        item=item, method=method, alpha=alpha, text="x", label=label, judge="j/1", error=error
    )


@given(
    text=st.text(),
    alpha=st.none() | st.floats(0, 100),
    turns=st.lists(st.tuples(st.text(), st.text()), max_size=2),
    truncated=st.booleans(),
)
def test_an_answer_comes_back_from_its_record(text, alpha, turns, truncated):
    item = Item("d/1", "d", "harmful", text, kind="k", focus="f", answer="e", turns=tuple(turns))
    given_ = Answer(
        item=item,
        method="self-cd",
        alpha=alpha,
        text=text,
        truncated=truncated,
        new_tok=3,
        prompt_tok=7,
        provenance=(("model", "m"), ("settings", ["a"])),
        label="refuse",
        judge="keyword/1",
    )
    record = Record.model_validate_json(given_.record().model_dump_json())
    assert read_answers([record]) == [given_]


def test_a_failed_answer_is_a_record_with_its_error():
    record = answer(error="the query is empty", label=None).record()
    assert (record.status, record.error) == ("error", "the query is empty")
    assert read_answers([record])[0].error == "the query is empty"


def test_ids_tell_methods_and_strengths_apart():
    ids = {
        answer(alpha=2.5).id,
        answer(alpha=1.0).id,
        answer(method="plain", alpha=None).id,
        answer("a/2").id,
    }
    assert len(ids) == 4
    assert not is_answer(Record(id="flow/1"))
    assert is_answer(answer().record())


def test_cells_come_harmless_first_and_strengths_in_order():
    answers = [
        answer("b/1", side="harmful", alpha=0.5),
        answer("b/2", alpha=2.5),
        answer("b/2", alpha=0.5),
        answer("a/1", side="harmful"),
    ]
    found = [(cell.dataset, cell.side, cell.alpha) for cell in sort_cells(answers)]
    assert found == [
        ("a", "harmful", 2.5),
        ("b", "harmless", 0.5),
        ("b", "harmless", 2.5),
        ("b", "harmful", 0.5),
    ]


def test_failed_answers_count_apart_and_never_as_answers():
    (cell,) = sort_cells(
        [answer("a/1", label="refuse"), answer("a/2"), answer("a/3", label=None, error="no")]
    )
    assert (len(cell.answers), cell.num_failed) == (2, 1)
    assert cell.share("refuse").value == 0.5
    assert cell.share("refuse").n == 2


def test_the_three_classes_share_one_whole():
    labels: list[Label] = ["refuse", "refuse", "comply", "degenerate"]
    (cell,) = sort_cells([answer(f"a/{i}", label=label) for i, label in enumerate(labels)])
    shares = {label: cell.share(label).value for label in ("refuse", "comply", "degenerate")}
    assert shares == {"refuse": 0.5, "comply": 0.25, "degenerate": 0.25}


def test_a_difference_is_paired_over_common_questions():
    ours, theirs = sort_cells(
        [
            *(answer(f"a/{i}", alpha=1.0, label="refuse") for i in range(4)),
            *(answer(f"a/{i}", alpha=2.5, label="comply") for i in range(1, 6)),
        ]
    )
    found = difference(theirs, ours)
    assert found is not None
    assert (found.value, found.n) == (-1.0, 3)
    assert difference(ours, sort_cells([answer("z/9")])[0]) is None


def test_who_answers_is_named_for_people():
    assert who("self-cd", 2.5) == "self-cd 2.5"
    assert who("plain", None) == "plain"


def test_the_terminal_shows_both_sides_with_intervals():
    answers = [
        *(answer(f"a/{i}", label="refuse" if i < 1 else "comply") for i in range(4)),
        *(answer(f"b/{i}", side="harmful", label="refuse") for i in range(2)),
        answer("b/9", side="harmful", label=None, error="no"),
    ]
    lines = result_lines(answers)
    assert len(lines) == 3
    assert lines[1].split()[:6] == ["a", "harmless", "self-cd", "2.5", "25.0", "%"]
    assert lines[2].split()[-2:] == ["2", "1"]


def test_one_side_alone_is_said():
    only_harmless = result_lines([answer()])
    only_harmful = result_lines([answer(side="harmful", label="refuse")])
    assert "NO HARMFUL QUESTION" in only_harmless[-1]
    assert "no harmless question" in only_harmful[-1]
    assert result_lines([]) == ["no answers"]


def test_a_cell_in_which_all_failed_has_no_share():
    (cell,) = sort_cells([answer(label=None, error="no")])
    assert math.isnan(cell.share("refuse").value) or cell.share("refuse").n == 0
    assert result_lines([answer(label=None, error="no")])[1].split()[4] == "-"


@pytest.mark.parametrize("alpha", [0.5, 2.5, 10.0])
def test_names_of_metrics_hold_the_strength(alpha):
    (cell,) = sort_cells([answer(alpha=alpha)])
    assert cell.name == f"a_harmless_self_cd_a{alpha:g}"
