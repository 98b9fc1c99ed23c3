import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from papercore.rl.losses import policy_loss, token_weights, value_loss
from papercore.rl.rollouts import token_mask

seeds = st.integers(0, 2**31)
reductions = st.sampled_from(["token", "sequence"])
mask_lists = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=6
    )
)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the policy's loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.1, 2.0, -2.2, False),
        (1.5, 2.0, -2.4, True),  # no more gain beyond 1.2
        (0.5, 2.0, -1.0, False),  # a good token that got rarer is always pulled back
        (1.0, -2.0, 2.0, False),
        (0.9, -2.0, 1.8, False),
        (0.5, -2.0, 1.6, True),  # no more gain below 0.8
        (1.5, -2.0, 3.0, False),  # a bad token that got more likely is always pushed down
        (1.5, 0.0, 0.0, False),
    ],
)
def test_the_clipped_surrogate_by_hand(ratio, advantage, loss, clipped):
    logps = tensor([math.log(ratio) - 1.0]).requires_grad_()
    found, flags = policy_loss(logps, tensor([-1.0]), tensor([advantage]), clip=0.2)
    assert found.item() == pytest.approx(loss)
    assert flags.item() is clipped
    found.sum().backward()
    slope = 0.0 if clipped else -ratio * advantage
    assert logps.grad.item() == pytest.approx(slope)


def test_importance_weights_scale_the_policys_loss():
    logps, old, advantages = noise((3, 20), 0)
    weights = noise((20,), 1).abs()
    plain, plain_flags = policy_loss(logps, old, advantages, clip=0.2)
    weighted, flags = policy_loss(logps, old, advantages, weights, clip=0.2)
    torch.testing.assert_close(weighted, plain * weights)
    assert torch.equal(flags, plain_flags)


def test_at_the_old_policy_the_gradient_is_the_plain_policy_gradient():
    old, advantages = noise((2, 10), 2)
    logps = old.clone().requires_grad_()
    loss, flags = policy_loss(logps, old, advantages, clip=0.2)
    loss.sum().backward()
    torch.testing.assert_close(logps.grad, -advantages)
    assert not flags.any()


# --- the critic's loss


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss"),
    [
        (3.0, 0.0, 1.0, None, 2.0),
        (3.0, 0.0, 1.0, 0.5, 2.0),  # held at .5 it would be off by .5 only: the worse one counts
        (1.0, 0.0, 1.0, 0.5, 0.125),  # right, but further from the old value than allowed
        (0.3, 0.0, 1.0, 0.5, 0.245),
        (-1.0, 0.0, 0.0, 0.2, 0.5),
        (-1.0, 0.0, -1.0, 0.2, 0.32),
    ],
)
def test_the_critics_loss_by_hand(value, old, target, clip, loss):
    found = value_loss(tensor([value]), tensor([old]), tensor([target]), clip=clip)
    assert found.item() == pytest.approx(loss)


def test_a_value_beyond_its_range_has_no_gradient_if_it_went_the_right_way():
    values = tensor([0.9, -0.9]).requires_grad_()
    value_loss(values, tensor([0.0, 0.0]), tensor([1.0, 1.0]), clip=0.5).sum().backward()
    assert values.grad.tolist() == pytest.approx([0.0, -1.9])


def test_without_a_clip_it_is_half_the_mean_squared_error():
    values, old, returns = noise((3, 30), 4)
    found = value_loss(values, old, returns, clip=None).mean()
    expected = torch.nn.functional.mse_loss(values, returns) / 2
    torch.testing.assert_close(found, expected)


# --- weights


def mean(x, mask, reduction):
    """The mean that the weights stand for, with loops."""
    rows = [[v for v, on in zip(*row, strict=True) if on] for row in zip(x, mask, strict=True)]
    rows = [row for row in rows if row]
    if reduction == "token":
        flat = [value for row in rows for value in row]
        return sum(flat) / len(flat) if flat else 0.0
    return sum(sum(row) / len(row) for row in rows) / len(rows) if rows else 0.0


def test_weights_by_hand():
    mask = token_mask([1, 3])
    third = 1 / 6
    assert token_weights(mask, "token").tolist() == [[0.25, 0, 0], [0.25, 0.25, 0.25]]
    found = token_weights(mask, "sequence")
    torch.testing.assert_close(found, tensor([[0.5, 0, 0], [third] * 3]))


@given(mask_lists, reductions, seeds)
def test_weighted_sums_are_means(mask, reduction, seed):
    mask = torch.tensor(mask)
    x = noise(mask.shape, seed)
    found = (x * token_weights(mask, reduction)).sum().item()
    assert found == pytest.approx(mean(x.tolist(), mask.tolist(), reduction), abs=1e-12)


@given(mask_lists, reductions, seeds, st.data())
def test_parts_and_processes_add_up_to_the_mean_of_all(mask, reduction, seed, data):
    mask = torch.tensor(mask)
    x = noise(mask.shape, seed)
    cut = data.draw(st.integers(0, len(mask)))
    handed = []
    for part in (mask[:cut], mask[cut:]):
        token_weights(part, reduction, reduce=lambda total: handed.append(total) or total)
    reduce = partial(sum, start=0)
    parts = [
        (x[rows] * token_weights(mask[rows], reduction, reduce=lambda _: reduce(handed))).sum()
        for rows in (slice(0, cut), slice(cut, None))
    ]
    expected = mean(x.tolist(), mask.tolist(), reduction)
    assert sum(parts).item() == pytest.approx(expected, abs=1e-12)


def test_a_rollout_without_tokens_does_not_count():
    mask = torch.tensor([[True, True], [False, False]])
    assert token_weights(mask, "sequence").tolist() == [[0.5, 0.5], [0, 0]]


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_no_tokens_at_all_weigh_nothing(reduction):
    assert not token_weights(torch.zeros(2, 3, dtype=torch.bool), reduction).any()
    assert token_weights(torch.zeros(0, 0, dtype=torch.bool), reduction).shape == (0, 0)


def test_divided_by_all_tokens_a_masked_batch_keeps_the_size_of_each_gradient():
    every, some = token_mask([2, 4]), torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]) > 0
    for reduction in ("token", "sequence"):
        by_all = token_weights(some, reduction, count_BG=every)
        assert torch.equal(by_all, token_weights(every, reduction) * some)
    assert token_weights(some, "token")[some].tolist() == [1 / 3] * 3
    assert token_weights(some, "sequence")[some].tolist() == [0.5, 0.25, 0.25]


def test_a_rollout_whose_tokens_are_all_masked_still_counts_among_all():
    every, some = token_mask([2, 2]), torch.tensor([[True, True], [False, False]])
    found = token_weights(some, "sequence", count_BG=every)
    assert found.tolist() == [[0.25, 0.25], [0, 0]]
