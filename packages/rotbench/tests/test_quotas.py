"""Who gets which environment: exact numbers, whatever the order of the file."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import DataError
from rotbench.cases import HALVES, LEVELS
from rotbench.config import Quota
from rotbench.quotas import cells, deal, shares

QUOTAS = st.builds(Quota, clean=st.integers(1, 40), **dict.fromkeys(LEVELS[1:], st.integers(0, 40)))


def digests(count):
    return [hashlib.sha256(str(i).encode()).digest() for i in range(count)]


@given(st.integers(1, 25), QUOTAS, st.integers(0, 5))
def test_every_cell_is_filled_exactly(count, quota, seed):
    places = deal(digests(count), quota, seed=seed)
    taken = Counter((place.level, place.half) for own in places for place in own)
    assert taken == Counter(cells(quota))
    assert len(places) == count


@given(QUOTAS)
def test_halves_add_up_to_the_level_and_differ_by_one_at_most(quota):
    split = cells(quota)
    for level in LEVELS:
        halves = [split[level, half] for half in HALVES[level]]
        assert sum(halves) == quota.of(level)
        assert max(halves) - min(halves) <= 1
        assert halves[0] == max(halves)


@given(st.permutations(range(12)), QUOTAS)
def test_the_order_of_the_trajectories_changes_nothing(order, quota):
    usual = digests(12)
    expected = deal(usual, quota, seed=3)
    moved = deal([usual[i] for i in order], quota, seed=3)
    assert moved == [expected[i] for i in order]


@given(st.integers(1, 25), QUOTAS)
def test_nobody_is_used_again_before_all_were_used(count, quota):
    places = deal(digests(count), quota, seed=0)
    for level in LEVELS:
        for half in HALVES[level]:
            uses = [sum((p.level, p.half) == (level, half) for p in own) for own in places]
            assert max(uses) - min(uses) <= 1
            for own in places:
                mine = [p.repetition for p in own if (p.level, p.half) == (level, half)]
                assert mine == list(range(len(mine)))


def test_halves_share_no_trajectory_while_there_are_enough():
    places = deal(digests(40), Quota(clean=0, slight=40, medium=0, heavy=0, union=0), seed=1)
    assert all(len(own) == 1 for own in places)


def test_another_seed_and_another_level_choose_others():
    def chosen(seed, level):
        quota = Quota(**{"clean": 0, "slight": 0, "medium": 0, "heavy": 0, "union": 0, level: 10})
        return {i for i, own in enumerate(deal(digests(100), quota, seed=seed)) if own}

    assert chosen(0, "slight") != chosen(1, "slight")
    assert chosen(0, "slight") != chosen(0, "medium")
    assert len(chosen(0, "union")) == 10


def test_the_defaults_are_the_mixture_of_the_paper():
    assert Quota().total == 22_747
    percent = {level: round(100 * share, 1) for level, share in shares(Quota()).items()}
    assert percent == {"clean": 53.8, "slight": 13.2, "medium": 13.2, "heavy": 13.2, "union": 6.6}


def test_no_trajectory_fills_no_quota():
    with pytest.raises(DataError, match="no trajectory"):
        deal([], Quota(), seed=0)


def test_a_quota_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Quota(clean=0, slight=0, medium=0, heavy=0, union=0)
