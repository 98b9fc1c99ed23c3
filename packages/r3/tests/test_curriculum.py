from __future__ import annotations

import json
import logging
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from r3.adaptive import Adaptive
from r3.config import CurriculumConfig, CutConfig
from r3.curriculum import curriculum_for, epoch_length, starts_for
from r3.cutting import starts
from r3.deck import Deck
from r3.demos import Demo, Encoded, Start
from r3.staged import Staged

KINDS = ["mixed", "staged", "adaptive", "vanilla", "random"]


def with_steps(num: int) -> Encoded:
    """A demonstration of `num` steps of one token each, and the end."""
    demo = Demo(id="1", question="?", target="", gold="1")
    return Encoded(demo, (1,), (0,) * (num + 1), tuple(range(num)))


def made(kind: str, steps=(10, 10, 10), *, states=5, seed=0, total_steps=50, **more):
    config = CurriculumConfig(kind=kind, **more)
    found = starts_for(config, [with_steps(num) for num in steps], CutConfig(states=states))
    return curriculum_for(config, found, seed=seed, total_steps=total_steps)


def counted(drawn: list[Start]) -> dict[tuple[int, int], int]:
    """(demonstration, cut) -> how often it was drawn."""
    return dict(Counter((one.demo, one.cut) for one in drawn))


# What is drawn


def test_mixed_draws_every_share_once_in_a_pass():
    curriculum = made("mixed", (10, 4, 1))
    drawn = curriculum.draw(15)
    assert counted(drawn) == {
        **dict.fromkeys([(0, 0), (0, 2), (0, 4), (0, 6), (0, 8)], 1),
        **dict.fromkeys([(1, 0), (1, 1), (1, 3)], 1),
        (1, 2): 2,
        (2, 0): 5,
    }
    assert counted(curriculum.draw(15)) == counted(drawn)
    assert curriculum.describe()["epoch"] == 2


def test_passes_are_shuffled_anew():
    curriculum = made("mixed", (10,) * 8)
    first, second = curriculum.draw(40), curriculum.draw(40)
    assert first != second
    assert first != sorted(first, key=lambda one: (one.demo, one.cut))


def test_order_depends_on_the_seed_alone():
    assert made("mixed", seed=3).draw(15) == made("mixed", seed=3).draw(15)
    assert made("mixed", seed=3).draw(15) != made("mixed", seed=4).draw(15)


@pytest.mark.parametrize("kind", KINDS)
def test_draw_can_be_more_than_a_pass(kind):
    drawn = made(kind, total_steps=1).draw(100)
    assert len(drawn) == 100
    # without replacement: three demonstrations come equally often, up to one
    per_demo = Counter(one.demo for one in drawn)
    assert kind == "mixed" or max(per_demo.values()) - min(per_demo.values()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_many_small_draws_are_one_large_one(kind):
    if kind == "staged":  # there a draw is a step
        small, large = (made(kind, stage_steps=100, total_steps=500) for _ in range(2))
    else:
        small, large = made(kind), made(kind)
    pieces = [one for num in (1, 3, 7, 30) for one in small.draw(num)]
    assert pieces == large.draw(41)


def test_vanilla_draws_bare_questions_only():
    curriculum = made("vanilla", (10, 4, 1))
    assert counted(curriculum.draw(9)) == {(0, 0): 3, (1, 0): 3, (2, 0): 3}


def test_vanilla_leaves_other_states_out():
    states = starts([with_steps(5)], CutConfig())
    config = CurriculumConfig(kind="vanilla")
    assert counted(curriculum_for(config, states, seed=0, total_steps=1).draw(4)) == {(0, 0): 4}


def test_random_draws_all_boundaries_alike():
    drawn = made("random", (4,)).draw(8000)
    for cut in range(4):
        # 2000 expected, standard deviation 39
        assert abs(counted(drawn)[0, cut] - 2000) < 200


def test_weights_say_how_often_a_depth_is_drawn():
    curriculum = made("mixed", (10,) * 7, weights=(3.0, 1.0, 0.0, 0.0, 1.0))
    depths = Counter(one.depth for one in curriculum.draw(35))
    assert depths == {0: 21, 1: 7, 4: 7}
    per_demo = Counter(
        one.demo for one in made("mixed", (10,) * 7, weights=(1, 0, 0, 0, 2)).draw(35)
    )
    assert set(per_demo) == set(range(7))


def test_weights_are_exact_in_expectation():
    curriculum = made("mixed", (10, 10, 10), weights=(1.0, 0.1, 0.1, 0.3, 0.5))
    drawn = curriculum.draw(15 * 2000)
    for depth, weight in enumerate((1.0, 0.1, 0.1, 0.3, 0.5)):
        for demo in range(3):
            num = sum(one.demo == demo and one.depth == depth for one in drawn)
            assert num / 2000 == pytest.approx(5 * weight / 2, abs=0.05)
        # all demonstrations together: nearly exact in each single pass
        num = sum(one.depth == depth for one in drawn[:15])
        assert abs(num - 15 * weight / 2) < 1


def test_equal_weights_are_the_uniform_mix():
    even = made("mixed", (10, 4, 1), weights=(0.2,) * 5)
    assert counted(even.draw(15)) == counted(made("mixed", (10, 4, 1)).draw(15))


def test_weights_of_merged_states_add_up():
    drawn = made("mixed", (4,), weights=(0, 0, 1, 1, 0)).draw(10)
    assert counted(drawn) == {(0, 2): 10}


def test_weights_spread_over_demonstrations_of_other_lengths():
    # the question's half of a demonstration weighs 1, the answer's half 3
    curriculum = made("mixed", (2, 4, 3), states="all", weights=(1.0, 3.0))
    drawn = counted(curriculum.draw(9 * 2000))
    expected = {(0, 0): 0.5, (0, 1): 1.5}  # two in a pass
    expected |= {(1, 0): 0.5, (1, 1): 0.5, (1, 2): 1.5, (1, 3): 1.5}
    expected |= {(2, 0): 0.5, (2, 1): 1.0, (2, 2): 1.5}  # its middle is in both halves
    for state, often in expected.items():
        assert drawn[state] / 2000 == pytest.approx(often, abs=0.05)


def test_weights_must_fit_the_number_of_states():
    with pytest.raises(ConfigError, match="weights has 3 numbers, but demonstrations have 5"):
        made("mixed", weights=(1, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_without_states_there_is_no_curriculum(kind):
    with pytest.raises(ConfigError, match="there are no start states"):
        curriculum_for(CurriculumConfig(kind=kind), [], seed=0, total_steps=1)


@pytest.mark.parametrize(
    ("kind", "passes"), [("mixed", 1), ("staged", 1), ("vanilla", 5), ("random", 5)]
)
def test_a_pass_over_the_mix_is_as_long_for_all(kind, passes):
    encoded = [with_steps(num) for num in (10, 4, 1)]
    config = CurriculumConfig(kind=kind)
    states = starts_for(config, encoded, CutConfig())
    assert epoch_length(CutConfig(), encoded) == 15
    curriculum = curriculum_for(config, states, seed=0, total_steps=10)
    curriculum.draw(15)
    assert curriculum.describe()["epoch"] == passes


def test_with_all_boundaries_a_pass_has_each_once():
    encoded = [with_steps(num) for num in (10, 4, 1)]
    cut = CutConfig(states="all")
    assert epoch_length(cut, encoded) == len(starts_for(CurriculumConfig(), encoded, cut)) == 15


def test_random_and_adaptive_have_all_boundaries():
    encoded = [with_steps(9)]
    for kind in ("random", "adaptive"):
        assert len(starts_for(CurriculumConfig(kind=kind), encoded, CutConfig(states=3))) == 9
    assert len(starts_for(CurriculumConfig(), encoded, CutConfig(states=3))) == 3


@pytest.mark.parametrize("kind", ["mixed", "vanilla", "random"])
def test_success_does_not_matter_to_pools(kind):
    told, other = made(kind), made(kind)
    for _ in range(5):
        drawn = told.draw(7)
        assert drawn == other.draw(7)
        told.feedback(drawn, [1.0] * 7)


def test_description_has_the_mean_share_of_the_latest_prefixes():
    curriculum = made("mixed", (10,))
    assert curriculum.describe()["share"] is None
    curriculum.draw(5)
    assert curriculum.describe()["share"] == pytest.approx((0 + 0.2 + 0.4 + 0.6 + 0.8) / 5)


# Staged


def cuts_of(curriculum, num: int) -> list[set[int]]:
    return [{one.cut for one in curriculum.draw(3)} for _ in range(num)]


def test_stages_go_from_the_answer_to_the_question():
    curriculum = made("staged", total_steps=10)
    expected = [{8}, {8}, {6}, {6}, {4}, {4}, {2}, {2}, {0}, {0}, {0}, {0}]  # the last one stays
    assert cuts_of(curriculum, 12) == expected
    assert curriculum.describe()["stage"] == curriculum.describe()["stages"] == 5


def test_steps_of_a_stage_can_be_set():
    assert cuts_of(made("staged", stage_steps=1, total_steps=50), 6) == [
        {8},
        {6},
        {4},
        {2},
        {0},
        {0},
    ]


def test_steps_that_do_not_divide_leave_no_stage_out():
    depths = [cuts.pop() for cuts in cuts_of(made("staged", total_steps=13), 13)]
    assert Counter(depths) == {8: 2, 6: 3, 4: 2, 2: 3, 0: 3}
    assert depths == sorted(depths, reverse=True)


def test_fewer_steps_than_stages_leave_the_first_out():
    assert cuts_of(made("staged", total_steps=2), 2) == [{4}, {0}]


def test_stage_ends_at_the_threshold():
    curriculum = made("staged", threshold=0.75, window=4, stage_steps=10, total_steps=100)
    drawn = curriculum.draw(3)
    curriculum.feedback(drawn, [1, 1, 1])  # three are no window yet
    assert {one.cut for one in curriculum.draw(3)} == {8}
    curriculum.feedback(drawn[:2], [0, 0])  # 2 of the latest 4
    assert {one.cut for one in curriculum.draw(3)} == {8}
    curriculum.feedback(drawn, [1, 1, 1])  # 3 of 4
    assert {one.cut for one in curriculum.draw(3)} == {6}
    assert {one.cut for one in curriculum.draw(3)} == {6}  # the window began anew


def test_budget_ends_a_stage_that_does_not_reach_the_threshold():
    curriculum = made("staged", threshold=0.9, window=1, stage_steps=2, total_steps=100)
    cuts = []
    for _ in range(5):
        drawn = curriculum.draw(3)
        curriculum.feedback(drawn, [0, 0, 0])
        cuts.append(drawn[0].cut)
    assert cuts == [8, 8, 6, 6, 4]


def test_late_rollouts_of_another_stage_do_not_count():
    curriculum = made("staged", threshold=0.5, window=2, stage_steps=1, total_steps=100)
    early = curriculum.draw(3)
    curriculum.draw(3)
    curriculum.feedback(early, [1, 1, 1])
    assert curriculum.describe()["stage_success"] is None


def test_last_stage_never_ends():
    curriculum = made("staged", threshold=0.0, window=1, stage_steps=1, total_steps=100)
    for _ in range(30):
        curriculum.feedback(curriculum.draw(3), [1, 1, 1])
    assert {one.cut for one in curriculum.draw(3)} == {0}


def test_stage_holds_one_state_of_every_demonstration():
    curriculum = made("staged", (10, 4, 1), stage_steps=1, total_steps=50)
    stages = [sorted((one.demo, one.cut) for one in curriculum.draw(3)) for _ in range(5)]
    assert stages == [
        [(0, 8), (1, 3), (2, 0)],
        [(0, 6), (1, 2), (2, 0)],  # shares 2 and 3 of the second one fall together
        [(0, 4), (1, 2), (2, 0)],
        [(0, 2), (1, 1), (2, 0)],
        [(0, 0), (1, 0), (2, 0)],
    ]


def test_stages_over_all_boundaries():
    curriculum = made("staged", (4, 2), states="all", stage_steps=1, total_steps=50)
    stages = [sorted((one.demo, one.cut) for one in curriculum.draw(2)) for _ in range(4)]
    assert stages == [
        [(0, 3), (1, 1)],
        [(0, 2), (1, 1)],
        [(0, 1), (1, 0)],
        [(0, 0), (1, 0)],
    ]


def test_budget_that_never_reaches_the_question_is_refused():
    with pytest.raises(ConfigError, match="set at most 4, or more steps"):
        made("staged", stage_steps=5, total_steps=20)
    made("staged", stage_steps=4, total_steps=20)


def test_with_a_threshold_such_a_budget_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        made("staged", stage_steps=5, total_steps=20, threshold=0.5)
    assert "which 20 steps do not reach unless the threshold" in caplog.text


# Adaptive


def test_interval_by_hand():
    curriculum = made("adaptive", (8,))
    assert isinstance(curriculum, Adaptive)
    states = {one.cut: one for one in curriculum.draw(500)}
    assert sorted(states) == list(range(8))
    told = []
    for cut, success in [(4, 1), (2, 0), (3, 1), (1, 0), (0, 0), (1, 0), (7, 0), (7, 1), (0, 1)]:
        curriculum.feedback([states[cut]], [success])
        told.append(curriculum.interval(0))
    assert told == [
        (0, 4),  # solved from 4: no more is needed
        (3, 4),  # not from 2: more is needed
        (0, 3),  # solved from the lowest of the interval: it opens down
        (2, 3),
        (1, 3),
        (2, 3),
        (7, 7),  # not even from 7: it opens up, and there is nothing above
        (0, 7),
        (0, 0),
    ]


def test_rollouts_from_one_state_are_one_mean():
    curriculum = made("adaptive", (8,), threshold=0.6)
    start = next(one for one in curriculum.draw(100) if one.cut == 4)
    curriculum.feedback([start] * 4, [1, 0, 1, 0])
    assert curriculum.interval(0) == (5, 7)
    curriculum.feedback([start] * 5, [1, 0, 1, 0, 1])
    assert curriculum.interval(0) == (0, 4)


def test_adaptive_draws_within_the_interval():
    curriculum = made("adaptive", (8, 8))
    start = next(one for one in curriculum.draw(100) if one.demo == 0 and one.cut == 2)
    curriculum.feedback([start], [1])
    drawn = curriculum.draw(400)
    assert {one.cut for one in drawn if one.demo == 0} == {0, 1, 2}
    assert {one.cut for one in drawn if one.demo == 1} == set(range(8))


def test_adaptive_finds_what_each_demonstration_needs():
    need = [0, 3, 7]
    curriculum = made("adaptive", (8, 8, 8))
    for _ in range(200):
        drawn = curriculum.draw(3)
        curriculum.feedback(drawn, [one.cut >= need[one.demo] for one in drawn])
    assert curriculum.interval(0) == (0, 0)
    assert curriculum.describe()["at_question"] == pytest.approx(1 / 3)
    for demo in (1, 2):
        low, high = curriculum.interval(demo)
        assert low <= need[demo] <= high


# Resuming

FEEDBACK = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(FEEDBACK, FEEDBACK, st.integers(0, 3))
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, {}) for kind in KINDS),
        ("mixed", {"weights": (3.0, 1.0, 0.5, 0.0, 2.0)}),
        ("staged", {"threshold": 0.4, "window": 7, "stage_steps": 3}),
        ("adaptive", {"threshold": 1.0}),
    ],
)
def test_resumed_is_uninterrupted(kind, more, before, after, seed):
    def go_on(curriculum, draws):
        luck = random.Random(seed)
        drawn = []
        for num, lucky in draws:
            drawn.append(curriculum.draw(num))
            curriculum.feedback(drawn[-1], [float(luck.randrange(6) < lucky) for _ in drawn[-1]])
        return drawn

    curriculum, resumed = (made(kind, (10, 4, 1), seed=seed, **more) for _ in range(2))
    go_on(curriculum, before)
    saved = json.loads(json.dumps(curriculum.state()))
    resumed.draw(3)  # what it did before does not matter
    resumed.restore(saved)
    assert resumed.describe() == curriculum.describe()
    assert go_on(resumed, after) == go_on(curriculum, after)
    assert resumed.state() == curriculum.state()


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_another_curriculum_is_refused(kind):
    other = "vanilla" if kind != "vanilla" else "mixed"
    with pytest.raises(DataError, match=f"is '{other}', not '{kind}': set it as it was"):
        made(kind).restore(made(other).state())


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_other_data_is_refused(kind):
    with pytest.raises(DataError, match="of other start states or settings"):
        made(kind, (10, 10)).restore(made(kind, (10, 10, 10)).state())
    with pytest.raises(DataError, match="of other start states or settings"):
        made("staged", stage_steps=3).restore(made("staged", stage_steps=4).state())


def damaged(state):
    """The state with one part of it gone or nonsense, in all ways."""
    for key in set(state) - {"kind", "data", "share"}:
        yield {name: value for name, value in state.items() if name != key}
        for value in (None, "x", -1, [], [None], {}, 1e300):
            if value != state[key]:
                yield {**state, key: value}
        if isinstance(state[key], dict):
            for part in damaged(state[key]):
                yield {**state, key: part}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_state_is_an_error_of_the_data(kind):
    curriculum = made(kind)
    curriculum.draw(4)
    for one in damaged(json.loads(json.dumps(curriculum.state()))):
        with pytest.raises(DataError, match="the saved curriculum is damaged"):
            made(kind).restore(one)


# What the method promises, with a stub in place of a policy


def test_positive_rate_from_each_depth_is_the_chance_of_the_steps_left():
    steps, right, luck = 5, 0.7, random.Random(0)
    curriculum = made("mixed", (steps,) * 20)
    drawn = curriculum.draw(40_000)
    seen, solved = Counter(), Counter()
    for one in drawn:
        seen[one.cut] += 1
        solved[one.cut] += all(luck.random() < right for _ in range(steps - one.cut))
    for cut in range(steps):
        assert seen[cut] == 8000
        # largest standard deviation: 0.0056
        assert solved[cut] / 8000 == pytest.approx(right ** (steps - cut), abs=0.02)


@pytest.mark.parametrize("states", [1, 2, 4, 5, 10])
def test_mixed_generates_the_promised_share_of_all_tokens(states):
    steps = 20
    curriculum = made("mixed", (steps,) * 3, states=states)
    drawn = curriculum.draw(3 * states)
    generated = sum(steps - one.cut for one in drawn)
    assert generated / (steps * len(drawn)) == pytest.approx((states + 1) / (2 * states))


# Decks


@given(st.integers(1, 9), st.lists(st.integers(1, 12), max_size=6))
def test_deck_deals_each_number_once_a_round(num, takes):
    deck = Deck(num, seed=0)
    taken = [one for some in takes for one in deck.take(some)]
    for begin in range(0, len(taken), num):
        dealt = taken[begin : begin + num]
        assert len(set(dealt)) == len(dealt)


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=8), st.integers(0, 99))
def test_deck_of_unequal_numbers(often, seed):
    total = sum(often)
    if total < 0.5:
        return
    size = max(1, round(total))
    expected = [one * size / total for one in often]
    deck = Deck(len(often), seed=seed, expected=expected)
    dealt = Counter(deck.take(size))
    for index, one in enumerate(expected):
        assert abs(dealt[index] - one) < 1 + 1e-6
        assert one > 0 or dealt[index] == 0


def test_staged_is_what_the_config_names():
    assert isinstance(made("staged"), Staged)
