"""Kinds of errors: one case by hand for each, and that they are a partition."""

import functools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotbench.cases import NOISY_LEVELS, Call, Case, CaseKey, Tool
from rotbench.predictions import Prediction
from rotbench.scoring import score, special_names
from rotbench.taxonomy import CORRECTIONS, ERROR_KINDS, KINDS, edits, explain


def tool(name, *parameters):
    return Tool(name, "", {key: {"type": "string"} for key in parameters})


SPECIAL = (tool("ask_to_user", "question"), tool("finish", "answer"))


def case_of(level, half, tools, *golds, origin=None):
    key = CaseKey("first", level, half, 0)
    return Case(key, "?", "TG", "Tools:\n", (*tools, *SPECIAL), "\n", (), golds, origin)


CLEAN = case_of(
    "clean",
    "whole",
    (tool("get_weather", "city", "day"), tool("get_time", "zone")),
    Call("get_weather", {"city": "Rome", "day": "Monday"}),
)
SLIGHT = case_of(
    "slight",
    "tool",
    (tool("gt_weather", "city", "day"), tool("get_Xtime", "zone")),
    Call("gt_weather", {"city": "Rome", "day": "Monday"}),
    origin=CLEAN,
)
EXCHANGED = case_of(
    "heavy",
    "tool",
    (tool("get_time", "city", "day"), tool("get_weather", "zone")),
    Call("get_time", {"city": "Rome", "day": "Monday"}),
    origin=CLEAN,
)
PARAMETERS = case_of(
    "medium",
    "parameter",
    (tool("get_weather", "ytic", "day"), tool("get_time", "zone")),
    Call("get_weather", {"ytic": "Rome", "day": "Monday"}),
    origin=CLEAN,
)
ADDED = case_of(
    "heavy",
    "parameter",
    (tool("get_weather", "city", "day", "qX"), tool("get_time", "zone")),
    Call("get_weather", {"city": "Rome", "day": "Monday", "qX": "k"}),
    origin=CLEAN,
)
SWAPPED_KEYS = case_of(
    "heavy",
    "parameter",
    (tool("get_weather", "day", "city"), tool("get_time", "zone")),
    Call("get_weather", {"day": "Rome", "city": "Monday"}),
    origin=CLEAN,
)


def explained(case, name, **arguments):
    prediction = Prediction(name, arguments)
    return explain(case, prediction, score(case, prediction))


def kind(case, name, **arguments):
    return explained(case, name, **arguments).kind


def test_a_right_call():
    assert kind(SLIGHT, "gt_weather", city="Rome", day="Monday") == "correct"


def test_no_call():
    for prediction in (Prediction(None, None, "empty"), Prediction("gt_weather", None, "not_json")):
        assert explain(SLIGHT, prediction, score(SLIGHT, prediction)).kind == "format"


def test_duplicate_keys_are_a_kind_of_their_own():
    prediction = Prediction("gt_weather", None, "duplicate_keys")
    assert explain(SLIGHT, prediction, score(SLIGHT, prediction)).kind == "duplicate_keys"


def test_the_clean_name_of_the_gold_tool():
    found = explained(SLIGHT, "get_weather", city="Rome", day="Monday")
    assert (found.kind, found.clean_name, found.corrected) == ("corrected_tool", True, True)


def test_the_clean_name_of_another_tool():
    found = explained(SLIGHT, "get_time", zone="x")
    assert (found.kind, found.clean_name, found.corrected) == ("corrected_other", False, True)


def test_a_name_that_nobody_has():
    found = explained(SLIGHT, "search", city="Rome")
    assert (found.kind, found.near_clean, found.corrected) == ("invented_tool", False, False)


def test_a_name_that_is_nearly_the_clean_one():
    assert explained(SLIGHT, "get_weathers").near_clean
    assert not explained(SLIGHT, "gt_wether").near_clean, "nearer to the disturbed name"
    assert not explained(SLIGHT, "get_the_weather_of_any_place").near_clean, "near to neither"
    assert not explained(CLEAN, "get_weathers").near_clean, "nothing was disturbed"


def test_another_tool_of_the_environment():
    assert explained(SLIGHT, "get_Xtime", zone="x").kind == "swapped_tool"
    assert explained(SLIGHT, "finish", answer="x").kind == "swapped_tool"


def test_following_the_name_instead_of_the_description():
    found = explained(EXCHANGED, "get_weather", zone="x")
    assert (found.kind, found.clean_name, found.corrected) == ("swapped_tool", True, False)


def test_a_literal_finish_is_the_last_tool_even_if_that_is_renamed():
    renamed = replace(SLIGHT, tools=(*SLIGHT.tools[:-1], tool("hsinif", "answer")))
    assert kind(renamed, "finish", answer="x") == "swapped_tool"
    own = replace(renamed, num_special=0, origin=replace(CLEAN, num_special=0))
    assert kind(own, "finish", answer="x") == "corrected_other"


def test_nothing_is_corrected_where_nothing_was_disturbed():
    assert kind(CLEAN, "gt_weather", city="Rome") == "invented_tool"
    assert kind(CLEAN, "get_weather", ytic="Rome", day="Monday") == "missing_key"


def test_the_clean_name_of_a_key():
    assert kind(PARAMETERS, "get_weather", city="Rome", day="Monday") == "corrected_key"
    assert kind(PARAMETERS, "get_weather", city="Rome") == "corrected_key"


def test_other_wrong_keys():
    assert kind(PARAMETERS, "get_weather", town="Rome", day="Monday") == "missing_key"
    assert kind(PARAMETERS, "get_weather", day="Monday") == "missing_key"
    assert kind(PARAMETERS, "get_weather", ytic="Rome", day="Monday", x="y") == "extra_key"
    assert kind(PARAMETERS, "get_weather", ytic="R", day="M", city="Rome") == "extra_key"


def test_an_added_key_that_is_not_set():
    assert kind(ADDED, "get_weather", city="Rome", day="Monday") == "addendum_missed"
    assert kind(ADDED, "get_weather", city="Rome", day="Monday", x="y") == "addendum_missed"
    assert kind(ADDED, "get_weather", city="Rome") == "missing_key"
    assert kind(ADDED, "get_weather", city="Rome", day="Monday", qX="z") == "wrong_value"


def test_exchanged_keys():
    assert kind(SWAPPED_KEYS, "get_weather", city="Rome", day="Monday") == "wrong_value"
    assert kind(SWAPPED_KEYS, "get_weather", city="Rome") == "missing_key"
    one = replace(SWAPPED_KEYS, golds=(Call("get_weather", {"day": "Rome"}),))
    assert kind(one, "get_weather", city="Rome") == "missing_key", "that key is another one now"


def test_the_gold_with_the_nearest_keys_is_the_one_compared_with():
    golds = (Call("get_weather", {}), Call("get_weather", {"ytic": "Rome", "day": "Monday"}))
    case = replace(PARAMETERS, golds=golds, origin=replace(CLEAN, golds=(golds[0], CLEAN.golds[0])))
    assert kind(case, "get_weather", city="Rome", day="Monday") == "corrected_key"
    assert kind(case, "get_weather", day="Monday") == "missing_key", "more in common breaks a tie"
    assert kind(case, "get_weather", other="x") == "extra_key"


def test_of_tools_with_one_name_the_gold_s_has_its_keys():
    tools = (tool("get_weather", "zone"), tool("get_weather", "ytic", "day"))
    clean = case_of("clean", "whole", (tool("a", "zone"), tool("b", "city", "day")))
    case = case_of("medium", "parameter", tools, *PARAMETERS.golds, origin=clean)
    assert kind(case, "get_weather", city="Rome", day="Monday") == "corrected_key"


def test_a_gold_without_a_tool_in_its_environment():
    case = case_of("clean", "whole", (), Call("nowhere", {"a": "1"}))
    assert kind(case, "nowhere", b="1") == "missing_key"


ENVIRONMENTS = (CLEAN, SLIGHT, EXCHANGED, PARAMETERS, ADDED, SWAPPED_KEYS)
NAMES = st.sampled_from(["get_weather", "gt_weather", "get_time", "get_Xtime", "finish", "search"])
KEYS = st.sampled_from(["city", "day", "ytic", "qX", "zone", "answer", "other"])
READ = st.builds(Prediction, NAMES, st.dictionaries(KEYS, st.sampled_from(["Rome", "Monday", "k"])))
BROKEN = st.sampled_from([Prediction(None, None, "empty"), Prediction("x", None, "duplicate_keys")])


@given(st.sampled_from(ENVIRONMENTS), READ | BROKEN)
def test_kinds_agree_with_the_scores(case, prediction):
    scores = score(case, prediction)
    found = explain(case, prediction, scores)
    assert found.kind in KINDS
    assert (found.kind == "correct") == scores.cf
    assert (found.kind == "wrong_value") == (scores.pi and not scores.cf)
    of_keys = ("corrected_key", "addendum_missed", "missing_key", "extra_key")
    assert (found.kind in of_keys) == (scores.ts and not scores.pi)
    assert found.corrected == (found.kind in CORRECTIONS)
    assert case.key.level != "clean" or not found.corrected
    assert not found.near_clean or found.kind == "invented_tool"


def test_the_kinds_of_errors_leave_out_only_the_right_calls():
    assert (*ERROR_KINDS, "correct") == (*KINDS[1:], KINDS[0])
    assert set(CORRECTIONS) < set(ERROR_KINDS)


def levenshtein(a, b):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        here = a[i - 1] != b[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + here)

    return distance(len(a), len(b))


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edits_are_levenshtein_s(a, b):
    assert edits(a, b) == levenshtein(a, b)


@pytest.mark.parametrize(
    ("change", "levels", "expected"),
    [
        ("clean name", ("slight", "medium"), {"corrected_tool"}),
        ("clean name", ("heavy",), {"swapped_tool"}),
        ("clean name", ("union",), {"corrected_tool", "swapped_tool"}),
        ("clean keys", ("slight", "medium"), {"corrected_key"}),
        ("clean keys", ("heavy", "union"), {"corrected_key", "missing_key", "wrong_value"}),
        ("swapped", NOISY_LEVELS, {"swapped_tool"}),
        ("invented", NOISY_LEVELS, {"invented_tool"}),
        ("one key less", ("slight", "medium"), {"missing_key"}),
        ("one key less", ("heavy", "union"), {"missing_key", "addendum_missed"}),
        ("one key more", NOISY_LEVELS, {"extra_key"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(sorted(value)),
)
def test_faults_in_released_golds_are_called_by_their_names(
    released_cases, change, levels, expected
):
    """One fault in the gold of every noisy case that has one gold."""
    found = Counter()
    for case in released_cases:
        if case.key.level in levels and len(case.golds) == len(case.clean.golds) == 1:
            prediction = faulty(case, change)
            if prediction is not None:
                found[explain(case, prediction, score(case, prediction)).kind] += 1
    assert sum(found.values()) > 50
    assert set(found) == expected, found


def faulty(case, change):
    """The gold with a fault, or None where the fault would be none."""
    gold, clean = case.golds[0], case.clean.golds[0]
    arguments = dict(gold.arguments)
    if change == "clean name":
        same = clean.name in (gold.name, "finish")
        twice = [tool.name for tool in case.clean.tools].count(clean.name) > 1  # `drivers`
        return None if same or twice else Prediction(clean.name, arguments)
    if change == "clean keys":
        same = clean.arguments == arguments or len(clean.arguments) != len(arguments)
        return (
            None
            if same or gold.name in special_names(case)
            else Prediction(gold.name, clean.arguments)
        )
    if change == "swapped":
        other = next(t.name for t in case.tools[:-1] if t.name not in (gold.name, "finish"))
        return Prediction(other, arguments)
    if change == "invented":
        return Prediction("zzz_no_such_tool", arguments)
    if change == "one key less":
        return Prediction(gold.name, dict(list(arguments.items())[1:])) if arguments else None
    return Prediction(gold.name, {**arguments, "zzz_no_such_key": "x"})
