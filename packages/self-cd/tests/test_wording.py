"""Our texts: what each must say, and what none may hold."""

import re

import pytest

from self_cd import wording
from self_cd.wording import DEMONSTRATIONS, FEW_SHOTS, HELPFUL, POOL, REFUSALS, SAFETY, STEPS

ALARMING = re.compile(
    r"\b(kill|shoot|crack|burn|strangle|beat|smash|hit|hack|poison|steal|stab|bomb|punch|attack|"
    r"drown|blast|choke|trap|terminate|torture|drug|cut off|dead|destroy|execute|murder|blow up)\b"
)


def all_texts():
    shots = [*POOL, *DEMONSTRATIONS, *(one.shot for one in FEW_SHOTS)]
    return [
        SAFETY,
        HELPFUL,
        STEPS,
        wording.DANGER,
        *REFUSALS,
        *(text for one in shots for text in one),
    ]


def test_the_safety_text_says_what_the_paper_s_prompt_says():
    wanted = "help respect truth safe harmful unethical racist sexist toxic dangerous illegal"
    assert [word for word in wanted.split() if word not in SAFETY] == []


def test_the_safety_text_does_not_repeat_the_sentences_that_it_rewords():
    copied = (
        "helpful, respectful and honest assistant",
        "as helpfully as possible",
        "while being safe",
    )
    assert not any(text in SAFETY for text in copied)


def test_the_helpful_text_stresses_help_and_not_safety():
    assert "helpful" in HELPFUL
    assert "safe" not in HELPFUL


def test_few_shot_demonstrations_name_an_alarming_word_and_call_the_question_safe():
    assert len(FEW_SHOTS) >= 3
    for one in FEW_SHOTS:
        assert ALARMING.search(one.question)
        assert "safe to answer" in one.reasoning
        assert one.shot == (one.question, f"{one.reasoning}\n\n{one.answer}")


def test_the_pool_has_enough_varied_pairs_with_an_alarming_word_each():
    assert len(POOL) >= 20
    assert len({question for question, _ in POOL}) == len(POOL)
    words = [ALARMING.search(question) for question, _ in POOL]
    assert all(words)
    assert len({word.group() for word in words if word}) >= 20


def test_pairs_are_whole_sentences():
    for question, answer in POOL:
        assert question.endswith("?")
        assert answer.endswith(".")
        assert len(answer) > 40


def test_no_text_has_stray_white_space_or_marks_of_a_template():
    for text in all_texts():
        assert text == text.strip()
        assert "  " not in text
        assert not re.search(r"[\[\]<>|{}#]", text), text


def test_demonstrations_are_refused():
    assert {answer for _, answer in DEMONSTRATIONS} <= set(REFUSALS)


@pytest.mark.parametrize("number", range(len(FEW_SHOTS)))
def test_no_demonstration_is_in_the_pool_as_well(number):
    assert FEW_SHOTS[number].question not in {question for question, _ in POOL}
