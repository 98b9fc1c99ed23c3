"""Layouts: each released one is recognised by its fields and read as a question with an answer.

All texts are our own, in the layouts of the releases.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from r3.examples import BadRow, Example, Fields
from r3.formats import (
    LAYOUTS,
    UnknownLayoutError,
    check_names,
    layouts_of,
    recognise,
    renamed,
)
from r3.rows import Row
from r3.tasks import TASKS


def read(task, row, names=None):
    row = renamed(row, names or {})
    layout = recognise([Row("x:1", row)], TASKS[task], names or {}, "x")
    return layout.name, list(layout.read(Fields(row), TASKS[task]))


def one(task, row, names=None):
    _, (example,) = read(task, row, names)
    return example


NLI = (
    "Premise: A dog runs.\nHypothesis: It moves.\nAnswer with entailment, neutral or contradiction."
)
OPTIONS = ["a cat", "a dog", "a bird", "a fish"]
FLAN = 'If "A dog runs.", does this mean that "It moves."?'
LISTED = f"{FLAN}\n\nOPTIONS:\n- yes\n- it is not possible to tell\n- no"
GAME = "The cow has a bike. Rule1: ... does the cow win?"
PROOF = 'We know it. So the statement is proved and the answer is "yes".'


@pytest.mark.parametrize(
    ("task", "row", "layout", "question", "gold", "rationale", "name"),
    [
        (
            *("gsm8k", {"question": "Q?", "answer": "It is <<1+1=2>>2.\n#### 1,002"}),
            *("GSM8K", "Q?", " 1,002", "It is <<1+1=2>>2.\n#### 1,002", None),
        ),
        (
            *("gsm8k", {"question": "Q?", "answer": "1,002"}),
            *("GSM8K", "Q?", "1,002", None, None),
        ),
        (
            *("gsm8k", {"question": "Q?", "answer": "#### 7"}),
            *("GSM8K", "Q?", " 7", None, None),
        ),
        (
            "svamp",
            {"item_id": "svamp_7", "question": "Q?", "answer_cot": "C", "answer_value": "30.0"},
            *("records", "Q?", "30.0", "C", "svamp_7"),
        ),
        (
            *("gsm8k", {"item_id": "gsm8k_7", "question": "Q?", "answer_value": 30.0}),
            *("records", "Q?", "30", None, "gsm8k_7"),
        ),
        (
            "svamp",
            {
                "ID": "chal-1",
                "Body": "Ada has 8 tiles.",
                "Question": "How many are left?",
                "Equation": "( 8.0 - 3.0 )",
                "Answer": 5.0,
                "Type": "Subtraction",
            },
            *("SVAMP", "Ada has 8 tiles. How many are left?", "5", None, "chal-1"),
        ),
        (
            *("snli", {"premise": "A dog runs.", "hypothesis": "It moves.", "label": 0}),
            *("NLI", NLI, "0", None, None),
        ),
        (
            "mnli",
            {
                "sentence1": "A dog runs.",
                "sentence2": "It moves.",
                "gold_label": "entailment",
                "pairID": "46359n",
                "genre": "fiction",
            },
            *("NLI as released", NLI, "entailment", None, "46359n"),
        ),
        (
            "race-high",
            {
                "example_id": "high1.txt",
                "article": "A text.",
                "question": "Which is it?",
                "options": OPTIONS,
                "answer": "B",
            },
            "RACE",
            "A text.\n\nQuestion: Which is it?\nA) a cat\nB) a dog\nC) a bird\nD) a fish",
            *("B", None, "high1.txt"),
        ),
        (
            "boardgame",
            {
                "facts": "(cow, has, a bike)",
                "rules": "Rule1: ...",
                "preferences": "",
                "theory": "...",
                "goal": "(cow, win, ...)",
                "example": GAME,
                "proof": PROOF,
                "label": "proved",
            },
            *("BoardgameQA", GAME, "proved", PROOF, None),
        ),
        (
            "snli",
            {"source": LISTED, "target": "yes", "rationale": "Dogs move.", "task": "snli"},
            "CoT-Collection",
            f"{FLAN}\nAnswer with entailment, neutral or contradiction.",
            *("yes", "Dogs move.", None),
        ),
        (
            *("snli", {"instruction": LISTED, "input": "", "output": "Dogs move. ### yes"}),
            "instructions",
            f"{FLAN}\nAnswer with entailment, neutral or contradiction.",
            *("yes", "Dogs move. ### yes", None),
        ),
        (
            *("gsm8k", {"instruction": "Q?", "input": "", "output": "1+1=<<1+1=2>>2\n#### 2"}),
            *("instructions", "Q?", "2", "1+1=<<1+1=2>>2\n#### 2", None),
        ),
        (
            *("race-high", {"instruction": "Article: ...", "input": "Which?", "output": "B"}),
            *("instructions", "Article: ...\nWhich?", "B", None, None),
        ),
        (
            *("boardgame", {"instruction": GAME, "output": f"{PROOF} #### proved"}),
            *("instructions", GAME, "proved", f"{PROOF} #### proved", None),
        ),
        (
            *("gsm8k", {"id": 3, "question": "Q?", "rationale": "C", "answer": 5}),
            *("plain", "Q?", "5", "C", "3"),
        ),
        (
            *("boardgame", {"question": "Q?", "answer": "unknown"}),
            *("plain, without rationales", "Q?", "unknown", None, None),
        ),
    ],
    ids=lambda value: value[:14] if isinstance(value, str) else None,
)
def test_layouts(task, row, layout, question, gold, rationale, name):
    found, (example,) = read(task, row)
    assert found == layout
    assert (example.question, example.gold) == (question, gold)
    assert (example.rationale, example.id) == (rationale, name)


def test_race_s_own_release_has_all_questions_of_an_article_in_one_file():
    row = {
        "article": "A text.",
        "id": "high1.txt",
        "questions": ["Which?", "Where?"],
        "options": [OPTIONS, ["here", "there"]],
        "answers": ["B", "A"],
    }
    name, (first, second) = read("race-high", row)
    assert name == "RACE as released"
    assert first == one("race-high", {
        "article": "A text.", "question": "Which?", "options": OPTIONS, "answer": "B",
        "id": "high1.txt",
    })  # fmt: skip
    assert second.question == "A text.\n\nQuestion: Where?\nA) here\nB) there"
    assert first.group == second.group == "A text."


CLOSING = "\nAnswer with entailment, neutral or contradiction."


def reworded(instruction):
    return one("snli", {"instruction": instruction, "output": "R ### yes"}).question


@pytest.mark.parametrize(
    "text",
    [
        *(f"{FLAN}\nOPTIONS:\n- yes", f"{FLAN} \n\n  Option\n - yes\n-no\n\t- maybe"),
        *(f"{FLAN}\n\n\noptions: \n-", f"{FLAN}\r\nOPTIONS:\r\n- yes\r\n- no"),
    ],
)
def test_options_at_the_end_of_an_instruction_give_way(text):
    assert reworded(text) == FLAN + CLOSING


@pytest.mark.parametrize(
    "text",
    [
        *(FLAN, f"{FLAN}\nOPTIONS:", f"{FLAN}\n- yes\n- no", f"{FLAN} OPTIONS:\n- yes"),
        *("OPTIONS:\n- yes", f"{LISTED}\nWhich?", f"{FLAN}\nOPTIONS: two\n- yes", "- a\n- b"),
        f"{FLAN}\nOPTIONS:\n\n- yes",
    ],
)
def test_what_is_no_list_of_options_at_the_end_stays(text):
    assert reworded(text) == text + CLOSING


@given(st.lists(st.sampled_from(["OPTIONS:", "option", "\n", "- a", "-", " ", "x", "\t"])))
def test_options_are_those_that_one_pattern_would_find(pieces):
    text = "Q" + "".join(pieces).rstrip()
    pattern = re.compile(
        r"\s*\n\s*OPTIONS?:?[ \t]*(?:\n[ \t]*-[^\n]*)+\s*\Z", re.IGNORECASE
    )  # cubic in empty lines, so for short texts alone
    assert reworded(text) == pattern.sub("", text) + CLOSING


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["\n", " ", "\t", " \n", "\nOPTIONS:", "\n-", "OPTIONS:\n- a\n", "\r\n", "- ", "1", "a"],
)
def test_hostile_instructions_take_no_time(piece):
    text = f"Q{piece * (99_900 // len(piece))}x"
    assert reworded(text) == text.replace("\r\n", "\n") + CLOSING


def test_texts_to_join_by_and_to_split_by():
    nli = one("snli", {"premise": "A dog runs.", "hypothesis": "It moves.", "label": "0"})
    assert (nli.pair, nli.group) == (("A dog runs.", "It moves."), "A dog runs.")
    plain = one("gsm8k", {"question": "Q?", "answer": "3"})
    assert (plain.pair, plain.group, plain.options) == (None, None, ())


@pytest.mark.parametrize(
    ("task", "row", "reason"),
    [
        ("gsm8k", {"question": "Q?", "answer": "no number"}, "no answer"),
        ("gsm8k", {"question": "", "answer": "3"}, "empty field"),
        ("gsm8k", {"question": None, "answer": "3"}, "empty field"),
        ("gsm8k", {"question": "Q?", "answer": ["3"]}, "wrong type"),
        ("gsm8k", {"question": "Q?", "answer": True}, "wrong type"),
        ("gsm8k", {"question": "Q?", "answer": float("nan")}, "wrong type"),
        ("gsm8k", {"question": "Q?", "answer": 10**400}, "too long"),
        ("gsm8k", {"question": "Q\0?", "answer": "3"}, "wrong type"),
        ("gsm8k", {"question": "Q\udcff?", "answer": "3"}, "not UTF-8"),
        ("gsm8k", {"question": "Q" * 100_001, "answer": "3"}, "too long"),
        ("snli", {"premise": "P", "hypothesis": "H", "label": -1}, "no label"),
        ("snli", {"sentence1": "P", "sentence2": "H", "gold_label": "-"}, "no label"),
        ("snli", {"source": "S", "target": "yes", "rationale": "R", "task": "boolq"},
         "of another task"),
        ("race-middle", {"source": "S", "target": "A", "rationale": "R", "task": "race-high"},
         "of another task"),
        ("snli", {"instruction": "I", "output": "Dogs move."}, "no answer"),
        ("race-high", {"article": "A", "question": "Q", "options": "x", "answer": "A"},
         "wrong type"),
        ("race-high", {"article": "A", "question": "Q", "options": ["x"], "answer": "A"},
         "wrong type"),
        ("race-high", {"article": "A", "question": "Q", "options": ["x", ""], "answer": "A"},
         "empty field"),
        ("race-high", {"article": "A", "questions": ["Q"], "options": [], "answers": ["A"]},
         "wrong type"),
    ],
)  # fmt: skip
def test_bad_rows_have_a_reason(task, row, reason):
    with pytest.raises(BadRow) as caught:
        read(task, row)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("svamp", {"question": "Q?\n\n### Response: If each", "answer_cot": "C #### 3",
                   "answer_value": "3.0"}),
        ("snli", {"instruction": f"{LISTED}\n\n### Response: The dog", "output": "moves ### yes"}),
    ],
)  # fmt: skip
def test_records_of_mix_files_are_refused_and_explained(task, row):
    with pytest.raises(BadRow, match="r3 cuts them itself") as caught:
        read(task, row)
    assert caught.value.reason == "record of a mix file"


def test_options_may_be_a_list_written_as_json_as_in_a_csv():
    row = {"article": "A", "question": "Q", "options": '["x", "y"]', "answer": "A"}
    assert one("race-high", row).options == ("x", "y")


def test_line_ends_of_windows_become_plain():
    assert one("gsm8k", {"question": "a\r\nb\rc ", "answer": "3"}).question == "a\nb\nc"


def test_numbers_become_digits():
    fields = Fields({"a": 30.0, "b": 0.1, "c": 1e-7, "d": 12, "e": 1e20, "f": -0.5})
    found = [fields.text(name) for name in "abcdef"]
    assert found == ["30", "0.1", "0.0000001", "12", "100000000000000000000", "-0.5"]


def test_names_of_the_user_lead_to_the_layout_that_has_them():
    row = {"q": "Q?", "cot": "C", "answer": "5", "rationale": "not this one"}
    names = {"question": "q", "rationale": "cot"}
    assert read("gsm8k", row, names) == ("plain", [Example("Q?", "5", "C")])


def test_a_name_of_the_user_wins_over_a_field_of_that_name():
    row = {"question": "not this", "text": "Q?", "answer": "5"}
    assert one("gsm8k", row, {"question": "text"}).question == "Q?"


def test_unknown_fields_are_told_with_those_expected_and_the_remedy():
    with pytest.raises(UnknownLayoutError) as caught:
        read("gsm8k", {"prompt": "Q?", "completion": "5"})
    said = str(caught.value)
    assert "its fields are completion, prompt" in said
    assert "question, answer_value (records)" in said
    assert "--fields question body" in said


def test_a_mapped_field_that_only_one_layout_has_narrows_what_is_expected():
    with pytest.raises(UnknownLayoutError, match=r"read from question, answer_value \(records\):"):
        read("gsm8k", {"prompt": "Q?"}, {"answer_cot": "x"})


def test_a_file_without_any_good_row():
    with pytest.raises(DataError, match="no row can be read: x:1 is torn"):
        recognise([Row("x:1", problem="is torn")], TASKS["gsm8k"], {}, "x")
    with pytest.raises(DataError, match="it has no rows"):
        recognise([], TASKS["gsm8k"], {}, "x")


def test_the_first_row_that_fits_says_the_layout():
    rows = [Row("x:1", problem="torn"), Row("x:2", {"note": 1}), Row("x:3", {"question": "Q",
            "answer": "3"})]  # fmt: skip
    assert recognise(rows, TASKS["gsm8k"], {}, "x").name == "GSM8K"


def test_names_must_be_of_the_task():
    check_names(TASKS["gsm8k"], {"question": "q"})
    with pytest.raises(ConfigError, match=r"fields\.qestion: .*did you mean 'question'"):
        check_names(TASKS["gsm8k"], {"qestion": "q"})
    with pytest.raises(ConfigError, match=r"fields\.premise"):
        check_names(TASKS["gsm8k"], {"premise": "p"})


def test_every_task_but_the_world_has_layouts_and_none_hides_another():
    for name, task in TASKS.items():
        layouts = layouts_of(task)
        assert bool(layouts) == (name != "world")
        for place, later in enumerate(layouts):
            for earlier in layouts[:place]:
                always = set(earlier.needed) <= set(later.needed)
                assert not (always and set(later.names) <= set(earlier.names)), later.name
    assert all(layout.tasks for layout in LAYOUTS)
