"""Demonstrations in the prompt: drawn by seed, the same for all questions, never the question."""

import pytest

from papercore.errors import DataError
from r3.config import PromptConfig
from r3.demos import Demo
from r3.shots import draw_shots, stop_strings

DEMOS = tuple(Demo(f"d{i}", f"What is {i} ?", f"It is {i}.\n#### {i}", str(i)) for i in range(12))
ASKED = Demo("t", "What is it ?", "", "1")


def shown(seed=0, draw=0, num=3, demos=DEMOS, asked=ASKED):
    return [one.id for one in draw_shots(demos, num, seed=seed, draw=draw).without(asked)]


def test_a_draw_depends_on_seed_and_number_alone():
    assert shown() == shown()
    assert len(set(shown())) == 3
    assert shown(draw=1) != shown()
    assert shown(seed=1) != shown()


def test_all_demonstrations_are_drawn_equally_often():
    counts = dict.fromkeys((one.id for one in DEMOS), 0)
    for draw in range(1200):
        for name in shown(draw=draw):
            counts[name] += 1
    assert all(240 < count < 360 for count in counts.values())  # 300 each, deviation 15


def test_the_question_itself_is_never_shown_and_another_steps_in():
    for draw in range(20):
        usual = shown(draw=draw)
        for demo in DEMOS:
            same = Demo("other-id", f"  {demo.question.replace(' ', '  ')} ", "", demo.gold)
            found = shown(draw=draw, asked=same)
            assert demo.id not in found
            assert len(found) == 3
            kept = [name for name in usual if name != demo.id]
            assert found[: len(kept)] == kept


def test_demonstrations_of_one_question_are_shown_once():
    twice = [*DEMOS[:3], *(Demo(f"{one.id}b", one.question, "x", one.gold) for one in DEMOS[:3])]
    for draw in range(10):
        assert len({name.removesuffix("b") for name in shown(draw=draw, demos=twice)}) == 3
    with pytest.raises(DataError, match="has 3 different demonstrations, fewer than shots=4"):
        shown(num=4, demos=twice)


def test_questions_without_a_solution_are_passed_over():
    unsolved = [Demo(f"u{i}", f"And {i} ?", "", "0") for i in range(50)]
    assert all(not name.startswith("u") for name in shown(demos=[*unsolved, *DEMOS]))


def test_too_few_beside_the_question_are_refused():
    drawn = draw_shots(DEMOS[:3], 3, seed=0, draw=0)
    with pytest.raises(DataError, match="only 2 demonstrations beside question 'd1' for shots=3"):
        drawn.without(DEMOS[1])


def test_without_shots_nothing_is_needed():
    assert draw_shots((), 0, seed=0, draw=0).without(ASKED) == ()


def test_an_answer_stops_where_the_next_question_begins():
    assert stop_strings(PromptConfig()) == ("\nQuestion:",)
    assert stop_strings(PromptConfig(template="  \nQ: {question}\nA:")) == ("\nQ:",)
    assert stop_strings(PromptConfig(template="Read.\nQ: {question}")) == ("\nRead.",)
    assert stop_strings(PromptConfig(template="{question}\nAnswer:")) == ("\n\n",)
    assert stop_strings(PromptConfig(style="chat")) == ()
