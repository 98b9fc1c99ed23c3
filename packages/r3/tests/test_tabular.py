import math

import pytest
import torch

from papercore.rl.decoding import Decoder
from r3 import tabular
from r3.rewards import Outcome
from r3.tabular import TabularConfig, TabularPolicy, depth_rates
from r3.world import chain

END, MARK = 100, 97


def policy(right):
    return TabularPolicy(TabularConfig(101, END), right=right)


def chances(right, *ids):
    """Tokens that may come next, with their probabilities."""
    logits_V = policy(right)(torch.tensor([ids])).logits[0, -1]
    return {token: p for token, p in enumerate(logits_V.exp().tolist()) if p > 0}


def test_a_step_is_right_with_the_probability_that_was_asked_for():
    # 0 -> 3 -> 18 -> 93
    assert chances(0.8, MARK, 0) == {3: 0.8, 4: pytest.approx(0.2)}
    assert chances(0.3, MARK, MARK, 0, 3) == {18: pytest.approx(0.3), 19: pytest.approx(0.7)}


def test_after_a_slip_there_is_no_way_back():
    assert chances(0.8, MARK, 0, 4) == {23: 1.0}
    assert chances(0.8, MARK, 0, 3, 19, 98 % 97) == {8: 1.0}


def test_it_ends_after_ten_values():
    values = chain(0)
    assert chances(0.8, MARK, 0, *values[:9]) == {values[9]: 0.8, values[9] + 1: pytest.approx(0.2)}
    assert chances(0.8, MARK, 0, *values) == {END: 1.0}
    assert chances(0.8, MARK, 0, *values[:9], values[9] + 1) == {END: 1.0}


def test_the_last_value_wraps_around():
    start = next(value for value in range(97) if chain(value)[0] == 96)
    assert chances(0.6, MARK, start) == {96: 0.6, 0: pytest.approx(0.4)}


def test_token_by_token_and_padded_it_says_what_it_says_at_once():
    rows = [(MARK, 5, *chain(5)[:6]), (MARK, 0)]
    decoder = Decoder(policy(0.7), rows, pad_id=99)
    logits_BV, going_B = decoder.first_logits_BV, torch.tensor([True, True])
    for _ in range(3):
        for row, found_V in zip(rows, logits_BV, strict=True):
            whole_V = policy(0.7)(torch.tensor([row])).logits[0, -1]
            assert torch.equal(found_V, whole_V)
        tokens_B = logits_BV.argmax(-1)
        rows = [(*row, int(token)) for row, token in zip(rows, tokens_B, strict=True)]
        logits_BV = decoder.step(tokens_B, going_B)


@pytest.mark.parametrize(("right", "share"), [(1.0, 1.0), (0.0, 0.0)])
def test_who_never_slips_always_succeeds_and_who_always_does_never(right, share):
    rates = depth_rates(right, num=70, seed=0)
    assert [rate.depth for rate in rates] == [*range(10)]
    assert all(rate.successes == share * rate.num for rate in rates)
    assert all(rate.expected == share for rate in rates)


def test_success_from_each_depth_is_the_chance_of_all_steps_that_are_left():
    for rate in depth_rates(0.6, num=1500, seed=1):
        wanted = 0.6 ** (10 - rate.depth)
        assert rate.expected == pytest.approx(wanted)
        off = abs(rate.successes / rate.num - wanted)
        assert off < 5 * math.sqrt(wanted * (1 - wanted) / rate.num)


def test_draws_come_from_the_seed():
    found = [depth_rates(0.5, num=60, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_verifier_that_is_too_kind_shows(monkeypatch):
    kind = Outcome(1.0, correct=True, parsed=None)
    monkeypatch.setattr(tabular, "reward_for", lambda *_: lambda *_: kind)
    assert all(rate.successes == rate.num for rate in depth_rates(0.5, num=20, seed=0))


def test_a_sampler_that_leaves_the_prefix_out_shows(monkeypatch):
    real = tabular.roll_out

    def without_prefix(model, starts, *rest, **how):
        bare = [type(start)(start.demo, 0, 0, 0.0) for start in starts]
        return real(model, bare, *rest, **how)

    monkeypatch.setattr(tabular, "roll_out", without_prefix)
    gaps = [
        abs(rate.successes / rate.num - rate.expected) for rate in depth_rates(0.7, num=300, seed=0)
    ]
    assert max(gaps) > 0.3
