"""Tasks: complete, licensed, and each with one form of a demonstration."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from r3.config import TaskName
from r3.tasks import OPTIONS, TASKS, compose, read_answer, split_answer, task_named
from r3.testing import gsm8k_rows
from r3.verifiers import verifier_for


def test_every_task_of_the_settings_is_there_with_source_licence_and_note():
    assert set(TASKS) == set(get_args(TaskName))
    for task in TASKS.values():
        assert task.source
        assert task.licence
        assert task.note
        assert (task.hub is None) == (task.name == "world")


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("gsm8k", "MIT"),
        ("svamp", "MIT"),
        ("snli", "CC BY-SA 4.0"),
        ("boardgame", "CC BY 4.0"),
    ],
)
def test_licences_are_those_of_the_cards(name, licence):
    assert TASKS[name].licence == licence
    assert "research only" in TASKS["race-high"].licence
    assert "not verified" in TASKS["mnli"].licence


def test_partial_rewards_are_those_of_the_paper():
    rewarded = {name: task.partial for name, task in TASKS.items() if task.partial}
    assert rewarded == {"gsm8k": 0.2, "gsm8k-pcot": 0.2, "svamp": 0.1}


def test_an_unknown_task_is_refused_with_a_near_one():
    with pytest.raises(ConfigError, match="did you mean 'gsm8k'"):
        task_named("gsm8")


@pytest.mark.parametrize(
    ("task", "rationale", "gold", "target", "answer"),
    [
        ("gsm8k", "9 * 2 = <<9*2=18>>18.", "18", "9 * 2 = 18.\n#### 18", "#### 18"),
        ("gsm8k", "It is 18.\n#### 18", "18", "It is 18.\n#### 18", "#### 18"),
        ("gsm8k", "It is 18. The answer is 18.", "18", "It is 18.\n#### 18", "#### 18"),
        ("svamp", "", "3", "#### 3", "#### 3"),
        ("snli", "It rains.", "neutral", "It rains.\n### neutral", "### neutral"),
        ("race-high", "So it is C.\n### C", "C", "So it is C.\n### C", "### C"),
        (
            *("boardgame", 'We know A. So B and the answer is "yes". #### proved', "proved"),
            'We know A. So B and the answer is "yes".\n#### proved',
            'So B and the answer is "yes".\n#### proved',
        ),
        ("world", "8 43 24", "24", "8 43 24", "24"),
        ("world", "", "24", "", ""),
    ],
)
def test_the_form_of_a_demonstration(task, rationale, gold, target, answer):
    found, at = compose(task, rationale, gold)
    assert found == target
    assert found[at:] == answer


def test_a_marker_before_the_end_is_refused():
    with pytest.raises(DataError, match="'####'"):
        compose("gsm8k", "#### 17\nNo, it is 18.\n#### 18", "18")


def test_demonstrations_in_gsm8k_s_layout_are_judged_right():
    task, verifier = TASKS["gsm8k"], verifier_for("gsm8k")
    for row in gsm8k_rows(60, seed=3):
        (stated,) = split_answer(task, row["answer"]).stated
        gold = read_answer(task, stated)
        target, at = compose("gsm8k", row["answer"], gold)
        assert verifier.verify(target, gold).correct
        assert not verifier.states_answer(target[:at])
        assert "<<" not in target
        assert compose("gsm8k", target, gold) == (target, at)


@given(
    st.sampled_from(["gsm8k", "snli", "boardgame", "race-high"]),
    st.text(alphabet='ab18. \n"#<>=', max_size=80),
)
def test_composing_twice_is_composing_once(task, rationale):
    gold = {"gsm8k": "18", "snli": "neutral", "boardgame": "proved", "race-high": "B"}[task]
    try:
        target, at = compose(task, rationale, gold)
    except DataError:
        return
    assert target.endswith(f"{TASKS[task].marker} {gold}")
    assert target.count(TASKS[task].marker) == 1
    assert compose(task, target, gold) == (target, at)


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("gsm8k", "1,234", "1234"),
        ("gsm8k", "$ 18.50", "18.5"),
        ("gsm8k", "-5", "-5"),
        ("gsm8k", "3/4", "0.75"),
        ("gsm8k", "18 or 19", None),
        ("gsm8k", "nan", None),
        ("svamp", "145.0", "145"),
        ("snli", "0", "entailment"),
        ("snli", "Neutral.", "neutral"),
        ("mnli", '"It’s impossible to say"', "neutral"),
        ("mnli", "It is not possible to tell", "neutral"),
        ("mnli", "Maybe", "neutral"),
        ("snli", "No", "contradiction"),
        ("snli", "yes", "entailment"),
        ("snli", "perhaps", None),
        ("boardgame", "yes", "proved"),
        ("boardgame", "unknown", "unknown"),
        ("race-high", "(b)", "B"),
        ("race-high", "C: the third", "C"),
        ("race-high", "option D", "D"),
        ("race-high", "E", None),
        ("race-high", "A dog", None),
    ],
)
def test_answers_of_data_sets_in_the_task_s_words(task, text, answer):
    assert read_answer(TASKS[task], text) == answer


def test_aliases_lead_to_labels_that_there_are():
    for task in TASKS.values():
        assert set(task.aliases.values()) <= set(task.labels)
        assert not set(task.aliases) & set(task.labels)
        assert all(word == word.lower() for word in task.aliases)
    assert TASKS["race-high"].labels == OPTIONS
