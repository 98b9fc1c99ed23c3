import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError
from papercore.rl.batching import micro_batches, minibatch_order

lengths_lists = st.lists(st.integers(1, 50), max_size=30)
sizes = st.integers(1, 7)


@given(lengths_lists, sizes)
def test_every_row_is_in_exactly_one_micro_batch(lengths, max_rows):
    batches = micro_batches(lengths, max_rows=max_rows)
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    assert all(0 < len(batch) <= max_rows for batch in batches)


@given(lengths_lists, sizes)
def test_there_are_no_more_micro_batches_than_needed(lengths, max_rows):
    assert len(micro_batches(lengths, max_rows=max_rows)) == -(-len(lengths) // max_rows)


@given(lengths_lists, sizes)
def test_rows_of_like_length_are_together_and_the_longest_come_first(lengths, max_rows):
    batches = micro_batches(lengths, max_rows=max_rows)
    for longer, shorter in itertools.pairwise(batches):
        assert min(lengths[row] for row in longer) >= max(lengths[row] for row in shorter)


def test_rows_of_one_length_keep_their_order():
    assert micro_batches([4, 9, 4, 4, 9], max_rows=2) == [[1, 4], [0, 2], [3]]


@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**63 - 1))
def test_every_row_is_in_exactly_one_minibatch(rows, minibatches, shards, seed):
    found = minibatch_order(rows * shards, minibatches=minibatches, shards=shards, seed=seed)
    assert len(found) == minibatches
    assert sorted(itertools.chain(*found)) == list(range(rows * shards))


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 99))
def test_minibatches_are_of_like_size(num, minibatches, seed):
    found = [len(one) for one in minibatch_order(num, minibatches=minibatches, seed=seed)]
    assert max(found) - min(found) <= 1


@given(st.integers(0, 10), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_one_process_with_shards_deals_like_several(size, minibatches, shards, seed):
    whole = minibatch_order(size * shards, minibatches=minibatches, shards=shards, seed=seed)
    each = minibatch_order(size, minibatches=minibatches, seed=seed)
    for together, own in zip(whole, each, strict=True):
        expected = {shard * size + row for shard in range(shards) for row in own}
        assert set(together) == expected


def test_the_same_seed_deals_alike_and_another_does_not():
    deals = [minibatch_order(20, minibatches=2, seed=seed) for seed in (1, 1, 2)]
    assert deals[0] == deals[1] != deals[2]


def test_rows_are_dealt_at_random():
    firsts = {minibatch_order(4, minibatches=4, seed=seed)[0][0] for seed in range(40)}
    assert firsts == {0, 1, 2, 3}


def test_shards_must_be_equal():
    with pytest.raises(ConfigError, match="7 rollouts are no multiple of shards=2"):
        minibatch_order(7, minibatches=1, shards=2, seed=0)
