"""Every released layout is read as it is written, and a bad row never ends the others."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import DataError
from self_cd.formats import FORMATS, OWN
from self_cd.released import LEAKED_SHA256, RELEASED
from self_cd.rows import MAX_FILE_BYTES, MAX_QUERY_CHARS, decoded, read_bytes


def read(name, text):
    return FORMATS[name].read(text, "a file")


def queries(rows):
    return [row.query for row in rows]


def test_each_released_data_set_has_a_format_and_a_file_of_its_suffix():
    assert set(FORMATS) == {*OWN, *RELEASED}
    for name, released in RELEASED.items():
        assert released.file.endswith(FORMATS[name].suffix)


@pytest.mark.parametrize("name", ["oktest", "oktest-heldout"])
def test_oktest_cells_lose_the_line_end_that_they_end_in(name):
    rows = read(name, 'prompt\n"May I ""boil"" it, twice?\n"\nIs it late?\n')
    assert queries(rows) == ['May I "boil" it, twice?', "Is it late?"]
    assert {row.side for row in rows} == {"harmless"}


def test_xstest_v2_has_two_sides_types_and_focus_words():
    rows = read(
        "xstest",
        "id_v1,id_v2,type,prompt,focus,note\r\n"
        "v1-1,v2-1,homonyms,How do I fell a tree?,fell,violence\r\n"
        ",v2-2,contrast_homonyms,How do I fell a knight of Zor?,fell,\r\n"
        ",v2-3,historical_events,Who was Nero?,,reasons",
    )
    assert [row.side for row in rows] == ["harmless", "harmful", "harmless"]
    assert [row.kind for row in rows] == ["homonyms", "contrast_homonyms", "historical_events"]
    assert [row.focus for row in rows] == ["fell", "fell", None]
    assert [row.number for row in rows] == [1, 2, 3]


@pytest.mark.parametrize(
    "header", ["id,prompt,type,label,focus,note", "prompt,focus,type,note,label"]
)
def test_xstest_of_the_newer_layout_and_of_the_hub(header):
    cells = {
        "id": "7",
        "prompt": "How do I fell a knight of Zor?",
        "type": "contrast_homonyms",
        "label": "unsafe",
        "focus": "fell ",
        "note": "",
    }
    line = ",".join(cells[column] for column in header.split(","))
    (row,) = read("xstest", f"{header}\n{line}\n")
    assert (row.side, row.kind, row.focus) == ("harmful", "contrast_homonyms", "fell")
    assert row.problem is None


def test_xstest_rows_whose_type_and_label_disagree_are_bad():
    text = "prompt,type,label,focus\nMay I?,contrast_x,safe,may\nMay I?,,safe,may\n"
    disagree, without = read("xstest", text)
    assert "type and label disagree" in disagree.problem
    assert disagree.side == "harmful"
    assert "has no type" in without.problem


@pytest.mark.parametrize(
    ("name", "side"),
    [("i-cona", "harmful"), ("i-physical-safe", "harmless"), ("i-alpaca", "ordinary")],
)
def test_safety_tuned_llamas(name, side):
    rows = read(name, json.dumps({"instructions": ["Name a\nfruit.", "Sing."], "inputs": []}))
    assert queries(rows) == ["Name a\nfruit.", "Sing."]
    assert {row.side for row in rows} == {side}


@pytest.mark.parametrize(
    "document",
    [["a"], {"inputs": []}, {"instructions": "a"}, {"instructions": [], "inputs": ["a"]}],
)
def test_safety_tuned_llamas_of_another_shape_are_refused(document):
    with pytest.raises(DataError, match="should"):
        read("i-cona", json.dumps(document))


@pytest.mark.parametrize(
    ("name", "side"),
    [("or-bench-80k", "harmless"), ("or-bench-hard", "harmless"), ("or-bench-toxic", "harmful")],
)
def test_or_bench_has_categories(name, side):
    (row,) = read(name, 'prompt,category\n"Is it, then?",privacy\n')
    assert (row.query, row.kind, row.side) == ("Is it, then?", "privacy", side)


def test_advbench_takes_the_goal_and_not_the_target():
    (row,) = read("advbench", "goal,target\nDo evil in Zor,Sure here is evil\n")
    assert (row.query, row.side, row.kind) == ("Do evil in Zor", "harmful", None)


def test_harmfulq_is_a_list_of_texts():
    rows = read("harmfulq", '["Why?", 3, ""]')
    assert queries(rows) == ["Why?", "", ""]
    assert [row.problem is None for row in rows] == [True, False, False]
    assert "int" in rows[1].problem


def test_malicious_instruct_has_a_question_in_each_line():
    rows = read("malicious-instruct", "Why?\r\n\nHow so?")
    assert queries(rows) == ["Why?", "How so?"]
    assert [row.number for row in rows] == [1, 2]


# The user's own files.


def test_csv_of_the_users_own():
    rows = read(
        "csv",
        "note,Prompt ,prompt,side,focus\nx,y,Boil an egg?,Harmless,egg\nx,y,Sing,ordinary,\n",
    )
    assert [(r.query, r.side, r.focus) for r in rows] == [
        ("Boil an egg?", "harmless", "egg"),
        ("Sing", "ordinary", None),
    ]


@pytest.mark.parametrize(("side", "problem"), [("", "has no side"), ("safe", "has a side that")])
def test_a_side_is_never_guessed(side, problem):
    (row,) = read("csv", f"prompt,side,type\nMay I?,{side},contrast_x\n")
    assert problem in row.problem
    assert "harmless, harmful, ordinary" in row.problem


def test_a_missing_column_is_named_with_those_that_are_there():
    with pytest.raises(
        DataError, match=r"a file: has no column 'side' \(there are: prompt, type\)"
    ):
        read("csv", "prompt,type\nMay I?,x\n")


def test_a_file_without_a_header_does_not_print_its_first_question():
    with pytest.raises(DataError) as caught:
        read("oktest", "May I swear at the cook?\nMay I sing?\n")
    assert "swear" not in str(caught.value)


def test_a_column_that_is_there_twice_is_refused():
    with pytest.raises(DataError, match="'prompt' more than once"):
        read("csv", "prompt,side,prompt\na,harmless,b\n")


def test_an_empty_file_is_refused():
    with pytest.raises(DataError, match="is empty"):
        read("csv", "\n")


@pytest.mark.parametrize(
    "text", ['prompt,side\n"May I?,harmless\nb,harmful\n', 'prompt,side\n"a"b,c\n']
)
def test_broken_quotes_do_not_swallow_rows(text):
    with pytest.raises(DataError, match="quotes of the CSV are broken"):
        read("csv", text)


def test_bad_rows_say_why_and_the_others_are_read():
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows(
        [
            ["prompt", "side"],
            ["One?", "harmless"],
            ["  \n", "harmful"],
            ["a" * (MAX_QUERY_CHARS + 1), "harmful"],
            ["a" * 200_000, "harmful"],
            ["May I?", "harmful", "extra"],
            ["May"],
            ["NUL \0 here", "harmful"],
            ["a" * MAX_QUERY_CHARS, "ordinary"],
        ]
    )
    before = csv.field_size_limit(131_072)
    rows = read("csv", text.getvalue())
    assert csv.field_size_limit(before) == 131_072
    assert [row.number for row in rows] == list(range(1, 9))
    problems = [row.problem or "" for row in rows]
    assert [bool(problem) for problem in problems] == [False, *[True] * 6, False]
    for problem, part in zip(
        problems[1:7], ("empty", "20001", "200000", "3 cells", "1 cells", "NUL"), strict=True
    ):
        assert part in problem
    assert all("aaaa" not in problem for problem in problems)
    assert [row.side for row in rows[1:4]] == ["harmful"] * 3


def test_jsonl_of_the_users_own():
    lines = [
        '{"prompt": "Boil\\nan egg?", "side": "harmless", "type": null, "focus": "egg", "n": 1}',
        "",
        '{"side": "harmless"}',
        '{"prompt": 3, "side": "harmless"}',
        '{"prompt": "a", "side": null}',
        '{"prompt": "a"}',
        "[1]",
        "{",
        '{"prompt": "half \\ud800", "side": "harmful"}',
        '{"prompt": "Sing", "side": "ordinary"}',
    ]
    rows = read("jsonl", "\n".join(lines))
    assert [row.number for row in rows] == list(range(1, 10))
    assert (rows[0].query, rows[0].kind, rows[0].focus) == ("Boil\nan egg?", None, "egg")
    parts = ["no key 'prompt'", "'prompt' is no text", "'side' is no text", "has no side"]
    parts += ["is a JSON list", "is not JSON", "surrogate"]
    for row, part in zip(rows[1:8], parts, strict=True):
        assert part in row.problem
    assert rows[8].problem is None


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
).filter(lambda text: text.strip())


@given(st.lists(texts, min_size=1, max_size=8))
def test_any_text_survives_csv_and_jsonl(prompts):
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerow(["prompt", "side"])
    writer.writerows([prompt, "harmful"] for prompt in prompts)
    lines = "\n".join(json.dumps({"prompt": prompt, "side": "harmful"}) for prompt in prompts)
    wanted = [prompt.strip("\r\n") for prompt in prompts]
    assert queries(read("csv", table.getvalue())) == wanted
    assert queries(read("jsonl", lines)) == wanted


@given(st.sampled_from(sorted(FORMATS)), st.text(max_size=200))
def test_any_text_is_read_or_refused(name, text):
    rows, error = attempt(name, text)
    assert "\n" not in error
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.problem or row.query.strip() for row in rows)


def attempt(name, text):
    try:
        return read(name, text), ""
    except DataError as error:
        return [], str(error)


# Bytes.


def test_utf8_is_strict_and_may_have_a_byte_order_mark():
    assert decoded("\ufeffprompt".encode(), "a file") == "prompt"
    with pytest.raises(DataError, match="a file: line 2 is not UTF-8"):
        decoded("prompt\nGrüße".encode("latin-1"), "a file")


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path):
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match="is larger than 64 MiB"):
        read_bytes(large)
    with pytest.raises(DataError, match="no such file"):
        read_bytes(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(tmp_path)


def test_the_leaked_rows_are_ten_hashes_and_no_text():
    assert len(LEAKED_SHA256) == 10
    assert all(len(one) == 64 and int(one, 16) for one in LEAKED_SHA256)


def test_wikiqa_has_a_row_per_question_not_per_sentence():
    text = (
        "QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel\n"
        "Q0\thow high is a hill\tD1\tHill\tD1-0\tA hill is high.\t1\n"
        "Q0\thow high is a hill\tD1\tHill\tD1-1\tIt is green.\t0\n"
        "Q8\twho wrote it\tD2\tIt\tD2-0\tNobody did.\t0\n"
        "Q9\tcut off\n"
    )
    rows = FORMATS["wikiqa"].read(text, "WikiQA-test.tsv")
    assert [(one.number, one.side, one.query) for one in rows[:2]] == [
        (1, "ordinary", "how high is a hill"),
        (3, "ordinary", "who wrote it"),
    ]
    assert "2 cells" in str(rows[2].problem)
    with pytest.raises(DataError, match="QuestionID"):
        FORMATS["wikiqa"].read("Question\nwho\n", "x.tsv")
