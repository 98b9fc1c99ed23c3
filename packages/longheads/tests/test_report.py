import csv
import io

import pytest

from longheads import report
from papercore.records import Record


def question(reader, multiple, number, *, correct, finders=None):
    """The answer to one question; there are two questions per document."""
    document, place = divmod(number, 2)
    return Record(
        id=f"{reader}/{multiple}x/seq{document}/q{place}",
        data={
            "reader": reader,
            "multiple": multiple,
            "words": 256 * multiple,
            "correct": correct,
            "finders": finders,
        },
    )


def cell(reader, multiple, rights, finders=None):
    return [
        question(reader, multiple, number, correct=bool(right), finders=finders and finders[number])
        for number, right in enumerate(rights)
    ]


def same(document, count):
    return Record(id=f"same/1x/seq{document}", data={"words": 256, "same": count})


@pytest.fixture
def records():
    return [
        Record(id="data/train", data={"split": "train", "content_hashes": ["0" * 16]}),
        Record(id="budget/full", data={"method": "full", "steps": 1}),
        *cell("full", 16, [1, 0, 0, 0]),
        *cell("longheads", 16, [1, 1, 1, 0], finders=[3, 1, 0, 0]),
        *cell("random", 16, [0, 0, 0, 0], finders=[0, 0, 0, 1]),
        *cell("longheads", 2, [1, 1, 1, 1], finders=[4, 4, 4, 4]),
        same(0, 256),
        same(1, 128),
    ]


def test_accuracies_by_hand(records):
    found = report.summarise(records)
    assert found["longheads_16x"].value == 0.75
    assert found["longheads_16x"].n == 4
    assert found["longheads_16x"].method == "wilson"
    assert found["full_16x"].value == 0.25
    assert found["random_16x"].value == 0
    # Wilson for 4 of 4: the lower bound is n / (n + z^2) = 4 / 7.8415
    assert found["longheads_2x"].lo == pytest.approx(4 / 7.8415, abs=1e-4)


def test_differences_are_paired_by_question(records):
    found = report.summarise(records)
    assert found["longheads_minus_full_16x"].value == 0.5
    assert found["longheads_minus_full_16x"].n == 4
    assert found["longheads_minus_full_16x"].method == "paired"
    assert found["longheads_minus_random_16x"].value == 0.75
    assert "longheads_minus_full_2x" not in found


def test_recall_by_hand(records):
    found = report.summarise(records)
    assert found["recall_longheads_16x"].value == 0.5
    assert found["recall_random_16x"].value == 0.25
    assert "recall_full_16x" not in found


def test_same_words_by_hand(records):
    same_words = report.summarise(records)["same_words_1x"]
    assert (same_words.value, same_words.n, same_words.method) == (0.75, 512, "exact")


def test_the_order_of_the_records_does_not_matter(records):
    assert report.summarise(records[::-1]) == report.summarise(records)
    assert list(report.summarise(records[::-1])) == list(report.summarise(records))


def test_failed_questions_are_left_out(records):
    failed = Record(id="full/16x/seq9/q0", status="error", error="out of memory")
    assert report.summarise([*records, failed]) == report.summarise(records)


def test_pairs_need_both_answers(records):
    shorter = [record for record in records if record.id != "full/16x/seq0/q0"]
    difference = report.summarise(shorter)["longheads_minus_full_16x"]
    assert difference.n == 3
    assert difference.value == pytest.approx(2 / 3)


def test_nothing_comes_of_nothing(tmp_path):
    assert report.summarise([]) == {}
    assert report.figures([], tmp_path) == []


def test_the_figures_hold_the_numbers_of_the_summary(records, tmp_path):
    found = report.summarise(records)
    accuracy, recall = report.figures(records, tmp_path)
    rows = {
        (row["series"], int(float(row["words"])) // 256): float(row["value"])
        for row in csv.DictReader(io.StringIO(accuracy.csv.read_text()))
    }
    assert rows == {
        ("longheads", 2): 1.0,
        ("longheads", 16): 0.75,
        ("full", 16): 0.25,
        ("random", 16): 0.0,
    }
    series = [row["series"] for row in csv.DictReader(io.StringIO(recall.csv.read_text()))]
    assert series == ["longheads", "longheads", "random"]
    assert accuracy.png.stat().st_size > 1000
    assert found["longheads_16x"].value == rows["longheads", 16]
