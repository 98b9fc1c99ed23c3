from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from r3.config import SandboxConfig
from r3.tasks import TASKS
from r3.verifiers import ProgramVerifier, make_verifier, verifier_for

NUMBERS = [
    # text, what is read
    ("2 and 2 is 4.\n#### 4", "4"),
    ("#### 1,234", "1234"),
    ("#### $18.50 per day.", "18.5"),
    ("#### **18**", "18"),
    ("####18", "18"),
    ("####\n18", "18"),
    ("#### 18\nThat is all.", "18"),
    ("9 eggs.\n#### 18\n#### 18.0", "18"),  # the same twice
    ("#### 17 #### 18", None),  # two answers are none
    ("#### 17\nNo, wait.\n#### 18", None),
    ("#### 5 or 6", None),
    ("#### eighteen", None),
    ("####", None),
    ("#### soon\n#### 18", "18"),  # what nobody can read is passed over
    ("##### 18", None),
    ("#### about 18", "18"),
    ("#### x=18", "18"),
    ("#### 18 = 9*2", "18"),
    ("#### 18 = 19", None),
    ("The answer is approximately $18.", "18"),
    ("#### 18k", "18000"),
    ("#### 18m", None),
    ("#### about 17\n#### 18", None),
    ("### 18", None),  # a heading, not the marker
    (r"so \boxed{18}", "18"),
    (r"so $\boxed{\frac{3}{4}}$.", "0.75"),
    (r"\boxed{17} \boxed{18}", None),
    (r"\boxed{18", None),
    (r"\boxed{17} but" + "\n#### 18", "18"),  # the marker is the stronger statement
    ("The answer is 18.", "18"),
    ("Therefore, the answer is: $18.", "18"),
    ("**The answer is 18.**", "18"),
    ("**Answer:** 18", "18"),
    ("The answer is 3.5 dollars. There are 7 of them.", "3.5"),
    ("The answer is 17. The answer is 18.", None),
    ("The answer is 17.\n#### 18", "18"),
    ("The answer to the question is 18", "18"),
    ("There are 18 eggs.", None),  # no statement at all
    ("", None),
]


@pytest.mark.parametrize(("text", "parsed"), NUMBERS)
def test_number_that_is_stated(text, parsed):
    assert verifier_for("gsm8k").verify(text, "1").parsed == parsed


@pytest.mark.parametrize(
    ("stated", "gold", "correct"),
    [
        ("18", "18", True),
        ("18.01", "18", True),  # within 1e-2
        ("18.011", "18", False),
        ("17", "18", False),
        ("-18", "18", False),
        ("1/3", "0.33", True),
        ("1,000", "1000", True),
        ("1000", "1,000", True),
    ],
)
def test_numbers_are_compared_within_the_tolerance(stated, gold, correct):
    assert verifier_for("gsm8k").verify(f"#### {stated}", gold).correct is correct


def test_last_number_counts_only_where_the_task_has_no_marker():
    world = verifier_for("world")
    assert world.verify("12 60 55", "55").correct
    assert not world.verify("12 55 60", "55").correct
    assert world.verify("12 60 55 <eos>", "55").parsed == "55"
    assert world.verify("", "55").parsed is None
    assert world.verify("no number", "55").parsed is None
    assert world.verify("12 \\boxed{55} 60", "55").correct
    assert verifier_for("gsm8k").verify("12 60 55", "55").parsed is None


OPTIONS = [
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("B.", "B"),
    ("B)", "B"),
    ("**B**", "B"),
    ("option B", "B"),
    ("Option (b).", "B"),
    ("The correct answer is B", "B"),
    ("B. A dog runs.", "B"),
    ("(B) a dog", "B"),
    ("A. A man", "A"),
    ("E", None),  # there are four
    ("A or B", None),
    ("A, B", None),
    ("A/B", None),
    ("A B C D", None),
    ("A. B. C. D.", None),
    ("a. b. c. d.", None),
    ("A.B.C.D", None),
    ("(A) (B)", None),
    ("a dog", None),
    ("a man. b", None),
    ("dog", None),
    ("", None),
]


@pytest.mark.parametrize(("stated", "parsed"), OPTIONS)
def test_option_that_is_stated(stated, parsed):
    assert verifier_for("race-high").verify(f"Because.\n### {stated}", "A").parsed == parsed


LABELS = [
    ("### entailment", "entailment"),
    ("### Entailment.", "entailment"),
    ("Because.\n###\nentailment", "entailment"),
    ("### **entailment**", "entailment"),
    ("The answer is entailment.", "entailment"),
    ("### entailment or neutral", None),
    ("### entailment ### neutral ### contradiction", None),
    ("### entailment\n### neutral\n### contradiction", None),
    ("### not entailment", None),
    ("### proved", None),
    ("entailment", None),
    ("#### entailment", None),
    ("### yes", "entailment"),
    ("### No.", "contradiction"),
    ("### it is neutral", "neutral"),
    ("### It's an ENTAILMENT!", "entailment"),
    ("### Neutral (1)", "neutral"),
    ("### [0] **entailment**", "entailment"),
    ("### Yes, entailment", "entailment"),
    ("### It’s not possible to tell.", "neutral"),
    ("The answer is yes.", "entailment"),
    ("### yes\n### it is an entailment", "entailment"),
    ("### 1", None),  # counted from where?
    ("### 0 1", None),
    ("### Neutral (2)", None),
    ("### no, it is neutral", None),
    ("### yes or no", None),
    ("### yes\n### no", None),
    ("### entailment/neutral", None),
    ("### not-entailment", None),
    ("### it is not neutral", None),
    ("### this is not true", None),
    ("### it is not (entailment)", None),
    ("### no entailment", None),
    ("### neither yes nor no", None),
    ("### entailment, because a dog is an animal", None),
    ("### ()", None),
    ("### it is", None),
]


@pytest.mark.parametrize(("text", "parsed"), LABELS)
def test_label_that_is_stated(text, parsed):
    verdict = verifier_for("mnli").verify(text, "entailment")
    assert verdict.parsed == parsed
    assert verdict.correct is (parsed == "entailment")


def test_labels_of_a_board_game():
    verifier = verifier_for("boardgame")
    assert verifier.verify("The dog wins.\n#### Disproved", "disproved").correct
    assert not verifier.verify("The dog wins.\n#### proved", "disproved").correct
    assert verifier.verify("#### entailment", "proved").parsed is None
    assert verifier.verify("#### yes", "proved").correct
    assert not verifier.verify("#### not provable", "disproved").correct


@pytest.mark.parametrize("task", sorted(name for name, task in TASKS.items() if task.aliases))
def test_every_word_of_the_data_means_its_label_and_no_other(task):
    verifier, found = verifier_for(task), TASKS[task]
    for word, meant in found.aliases.items():
        parsed = verifier.verify(f"{found.marker} {word.capitalize()}.", meant).parsed
        assert parsed == (None if word.isdigit() else meant)
        for label in set(found.labels) - {meant}:
            assert verifier.verify(f"{found.marker} {word}, {label}", label).parsed is None
            assert verifier.verify(f"{found.marker} {label} ({word})", label).parsed is None


def test_labels_of_one_s_own_have_no_other_names():
    verifier = make_verifier("label", labels=("a", "not-b"))
    assert verifier.verify("#### Not-B", "not-b").correct
    assert not verifier.verify("#### b", "a").correct
    assert verifier.verify("#### yes", "a").parsed is None


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("how", ["{m} {a}\n", "{m} {a} ", "The answer is {a}. ", r"\boxed{{{a}}} "])
def test_listing_all_answers_is_never_right(task, how):
    found = TASKS[task]
    answers = found.labels or ("3", "4", "5")
    text = "".join(how.format(m=found.marker, a=one) for one in answers)
    if found.marker or "{m}" not in how:
        for gold in answers:
            assert not verifier_for(task).verify(text, gold).correct


def test_any_text_can_stand_behind_a_marker():
    verifier = make_verifier("marker", marker="###")
    assert verifier.verify("So.\n### New  York.", "new york").correct
    assert not verifier.verify("### New York ### Rome", "Rome").correct
    assert not verifier.check_gold("")
    assert not verifier.check_gold("a ### b")
    assert not verifier.check_gold("x" * 201)


def test_programs_have_a_verifier_of_their_own():
    verifier = make_verifier("program")
    assert isinstance(verifier, ProgramVerifier)
    assert verifier.sandbox == SandboxConfig()


def test_answers_in_words_need_a_marker():
    with pytest.raises(ConfigError, match="marker is empty"):
        make_verifier("label", marker="", labels=("a", "b"))


def test_unknown_task_is_refused():
    with pytest.raises(ConfigError, match="gsm8k"):
        verifier_for("gsm9k")


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        ("gsm8k", "1,234", "many"),
        ("race-high", "C", "E"),
        ("mnli", "neutral", "perhaps"),
        ("world", "55", ""),
    ],
)
def test_right_answers_are_checked(task, good, bad):
    verifier = verifier_for(task)
    assert verifier.check_gold(good)
    assert not verifier.check_gold(bad)
    with pytest.raises(DataError, match="cannot be read"):
        verifier.verify("#### 4", bad)


def test_statement_that_is_only_begun_counts_as_one():
    verifier = verifier_for("gsm8k")
    for text in ("a\n####", "so \\boxed{", "The answer is", "final answer: "):
        assert verifier.states_answer(text)
    for text in ("a\n##", "He answers 3 calls.", "It is boxed."):
        assert not verifier.states_answer(text)


ANY = st.text(max_size=300) | st.text(
    alphabet="#### \\boxed{}the answer is 18ABab.\n", max_size=200
)


@given(st.sampled_from(sorted(TASKS)), ANY)
def test_no_text_raises(task, text):
    verifier = verifier_for(task)
    gold = next(one for one in ("18", "A", "neutral", "proved") if verifier.check_gold(one))
    verdict = verifier.verify(text, gold)
    assert not verdict.correct or verdict.parsed is not None
    verifier.check_gold(text)


@given(st.integers(-(10**9), 10**9), st.text(alphabet="abc 123.\n", max_size=80))
def test_stated_number_is_found_behind_any_rationale(value, rationale):
    assert verifier_for("gsm8k").verify(f"{rationale}\n#### {value:,}", str(value)).correct


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    [
        "#",
        "####",
        "#### ",
        "#### 1 ",
        "\\boxed{",
        "answer",
        "answer ",
        "answer is ",
        "the ",
        "1",
        "{",
        "### it is ",
        "### (0",
        "#### x = ",
        "#### 18 = $9+",
    ],
)
def test_hostile_texts_take_no_time(piece):
    text = piece * (100_000 // len(piece))
    for task in ("gsm8k", "race-high", "mnli", "world"):
        verifier = verifier_for(task)
        gold = next(one for one in ("18", "A", "neutral") if verifier.check_gold(one))
        assert not verifier.verify(text, gold).correct
        verifier.states_answer(text)
