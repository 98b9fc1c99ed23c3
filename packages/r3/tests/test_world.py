from itertools import pairwise

import pytest

from r3 import world
from r3.demos import content_hash
from r3.tasks import compose
from r3.verifiers import verifier_for

EVERYTHING = range(97)


def slips(demo):
    """How far each step of a demonstration is from the right one."""
    values = [int(word) for word in (demo.question, *demo.target.split())]
    return [(after - (5 * before + 3)) % 97 for before, after in pairwise(values)]


def test_a_chain_by_hand():
    # 5 * 18 + 3 = 93, 5 * 93 + 3 = 468 = 4 * 97 + 80, ...
    assert world.chain(0) == (3, 18, 93, 80, 15, 78, 5, 28, 46, 39)
    assert world.chain(72) == (72,) * 10, "the one value that is its own successor"


def test_all_other_values_are_on_one_cycle():
    value, seen = 0, set()
    while value not in seen:
        seen.add(value)
        value = world.successor(value)
    assert seen == set(EVERYTHING) - {72}


def test_no_single_slip_ends_on_the_right_answer():
    for start in EVERYTHING:
        right = world.chain(start)
        for slip in range(10):
            value = start
            for step in range(10):
                value = (5 * value + 3 + (step == slip)) % 97
            assert value != right[-1]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_third_of_the_start_values_is_held_out(seed):
    split = world.draw_split(seed)
    assert len(split.held_out) == 32
    assert sorted((*split.trained, *split.held_out)) == [*EVERYTHING]
    assert split == world.draw_split(seed)
    assert split != world.draw_split(seed + 1)


def test_a_demonstration_is_written_as_its_task_has_it():
    verifier = verifier_for("world")
    for demo in (*world.training_demos(3), *world.held_out_demos(3)):
        values = world.chain(int(demo.question))
        assert demo.target == " ".join(map(str, values))
        assert demo.gold == str(values[-1])
        assert (demo.target, demo.answer_at) == compose("world", demo.target, demo.gold)
        assert verifier.verify(demo.target, demo.gold).correct


def test_each_trained_value_begins_one_demonstration():
    split = world.draw_split(0)
    assert [int(demo.question) for demo in world.training_demos(0)] == [*split.trained]
    assert [int(demo.question) for demo in world.held_out_demos(0)] == [*split.held_out]


def test_tuning_slips_by_one_six_times_in_ten_and_goes_on_from_there():
    demos = world.tuning_demos(0)
    found = [slip for demo in demos for slip in slips(demo)]
    assert len(demos) == 3000
    assert set(found) == {0, 1}
    # 30,000 draws: a standard deviation of 0.0028
    assert sum(found) / len(found) == pytest.approx(0.6, abs=0.014)
    assert world.tuning_demos(0) == demos
    assert world.tuning_demos(1) != demos


def test_the_right_answer_of_a_slipping_demonstration_is_the_right_one():
    demos = world.tuning_demos(2)
    assert all(demo.gold == str(world.chain(int(demo.question))[-1]) for demo in demos)
    solved = sum(demo.target.split()[-1] == demo.gold for demo in demos)
    assert solved < 0.03 * len(demos)


def test_what_is_tested_was_never_asked_before():
    splits, _ = world.prepared(0)
    hashes = {name: {content_hash(demo) for demo in demos} for name, demos in splits.items()}
    assert not hashes["test"] & (hashes["train"] | hashes["sft"])
    assert hashes["sft"] <= hashes["train"]
    assert len(hashes["test"]) == 32
    ids = [demo.id for demos in splits.values() for demo in demos]
    assert len(set(ids)) == len(ids)


def test_what_is_noted_of_the_world():
    splits, meta = world.prepared(5)
    wrong = [slip for demo in splits["sft"] for slip in slips(demo)]
    assert meta["slipped"] == round(sum(wrong) / len(wrong), 4)
    assert (meta["slip"], meta["held_out"]) == (0.6, 32)
    assert meta["map"] == "x -> 5 x + 3 mod 97, 10 times"
