import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from papercore.rl.estimators import (
    AdaptiveKL,
    gae,
    importance_weights,
    kl_estimate,
    masked_mean,
    masked_var,
    token_rewards,
    whiten,
)
from papercore.rl.rollouts import token_mask

NAN = math.nan
lengths_lists = st.lists(st.integers(1, 6), min_size=1, max_size=5)
discounts = st.sampled_from([0.0, 0.3, 0.95, 1.0])
seeds = st.integers(0, 2**31)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def noise(shape, seed):
    return torch.randn(
        tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def in_two(parts, function):
    """What two processes get that call `function(part, reduce)` at the same time."""
    barrier, handed = threading.Barrier(2, timeout=60), [None, None]

    def process(rank):
        def reduce(x):
            handed[rank] = x
            barrier.wait()
            total = handed[0] + handed[1]
            barrier.wait()
            return total

        return function(parts[rank], reduce)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(process, range(2)))


# --- masked statistics


def test_mean_and_variance_by_hand():
    x, mask = tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]) > 0
    assert masked_mean(x, mask).item() == 3.0
    assert masked_var(x, mask).item() == 7.0  # (4 + 1 + 9) / 2


def test_statistics_do_not_read_what_is_masked():
    x, mask = tensor([[1.0, 2.0], [6.0, NAN], [math.inf, NAN]]), token_mask([2, 1, 0])
    assert masked_mean(x, mask).item() == 3.0
    assert masked_var(x, mask).item() == 7.0


@pytest.mark.parametrize(("lengths", "mean"), [((), 0.0), ((1,), 4.0)])
def test_too_few_tokens_have_no_variance(lengths, mean):
    mask = torch.zeros(1, 2, dtype=torch.bool)
    mask[0, : sum(lengths)] = True
    assert masked_mean(tensor([[4.0, 8.0]]), mask).item() == mean
    assert masked_var(tensor([[4.0, 8.0]]), mask).item() == 0.0


def test_variance_survives_a_large_mean():
    x = torch.tensor([[1e6 + 1, 1e6 + 2, 1e6 + 3]], dtype=torch.float32)
    assert masked_var(x, token_mask([3])).item() == 1.0


# --- whitening


def test_whitened_by_hand():
    found = whiten(tensor([[1.0, 2.0, 77.0], [6.0, 77.0, 77.0]]), token_mask([2, 1, 3])[:2])
    deviation = math.sqrt(7.0 + 1e-8)
    expected = tensor([[-2 / deviation, -1 / deviation, 0], [3 / deviation, 0, 0]])
    torch.testing.assert_close(found, expected)


@given(lengths_lists, seeds)
def test_whitened_tokens_have_mean_0_and_variance_1(lengths, seed):
    mask = token_mask(lengths)
    x = 5 + 3 * noise(mask.shape, seed)
    found = whiten(x, mask)
    assert (found[~mask] == 0).all()
    tokens = found[mask]
    assert tokens.mean().item() == pytest.approx(0, abs=1e-9)
    if len(tokens) > 1 and x[mask].var() > 1e-3:
        assert tokens.var(unbiased=True).item() == pytest.approx(1, abs=1e-4)


@given(lengths_lists, seeds)
def test_padding_does_not_enter_whitening(lengths, seed):
    mask = token_mask(lengths)
    x = noise(mask.shape, seed)
    wide = torch.nn.functional.pad(x.masked_fill(~mask, NAN), (0, 3), value=math.inf)
    found = whiten(wide, torch.nn.functional.pad(mask, (0, 3)))
    torch.testing.assert_close(found[:, : x.shape[1]], whiten(x, mask))
    assert (found[:, x.shape[1] :] == 0).all()


def test_without_a_shift_the_mean_is_only_scaled():
    x, mask = tensor([[1.0, 2.0, 6.0]]), token_mask([3])
    torch.testing.assert_close(whiten(x, mask, shift_mean=False), x / math.sqrt(7.0 + 1e-8))


@pytest.mark.parametrize("row", [[4.0], [4.0, 4.0, 4.0], [0.1, 0.1, 0.1]])
def test_without_spread_values_are_only_shifted(row):
    x, mask = tensor([row]), token_mask([len(row)])
    torch.testing.assert_close(whiten(x, mask), torch.zeros_like(x), atol=1e-12, rtol=0)
    assert torch.equal(whiten(x, mask, shift_mean=False), x)


def test_nothing_to_whiten_is_no_error():
    assert torch.equal(whiten(tensor([[NAN, NAN]]), token_mask([0, 2])[:1]), tensor([[0.0, 0.0]]))


@pytest.mark.parametrize("shift_mean", [True, False])
def test_two_processes_whiten_as_one(shift_mean):
    lengths = [3, 1, 5, 2]
    mask = token_mask(lengths)
    x = noise(mask.shape, 7)
    both = whiten(x, mask, shift_mean=shift_mean)

    def whitened(rows, reduce):
        return whiten(x[rows], mask[rows], shift_mean=shift_mean, reduce=reduce)

    first, second = in_two((slice(0, 1), slice(1, 4)), whitened)
    torch.testing.assert_close(torch.cat([first, second]), both)


def test_half_precision_stays_half_precision():
    x, mask = noise((2, 400), 0).bfloat16(), torch.ones(2, 400, dtype=torch.bool)
    found = whiten(x, mask)
    assert found.dtype == torch.bfloat16
    expected = whiten(x.double(), mask)
    torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0.01)


# --- KL


def test_kl_estimates_by_hand():
    logps, reference = tensor([math.log(0.5), math.log(0.1)]), tensor([math.log(0.25)] * 2)
    log2, log04 = math.log(2), math.log(0.4)
    halves = [log2**2 / 2, log04**2 / 2]
    assert kl_estimate(logps, reference, "k1").tolist() == pytest.approx([log2, log04])
    assert kl_estimate(logps, reference, "k2").tolist() == pytest.approx(halves)
    # ratio of reference to policy, less 1, less its logarithm
    expected = [0.5 - 1 + log2, 2.5 - 1 + log04]
    assert kl_estimate(logps, reference, "k3").tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["k1", "k3"])
@given(st.integers(2, 6), seeds)
def test_expected_estimate_is_the_kl_of_a_categorical(kind, size, seed):
    policy, reference = torch.log_softmax(2 * noise((2, size), seed), dim=-1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=policy),
        torch.distributions.Categorical(logits=reference),
    )
    estimates = [policy[i].exp() * kl_estimate(policy[i], reference[i], kind) for i in range(size)]
    assert sum(estimates).item() == pytest.approx(expected.item(), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_k3_is_never_negative(dtype):
    tiny = torch.cat([torch.logspace(-12, 1.3, 2000), torch.zeros(1)])
    differences = torch.cat([tiny, -tiny]).to(dtype)
    found = kl_estimate(differences, torch.zeros_like(differences), "k3")
    assert (found >= 0).all()
    assert (found[differences.abs() > 0.1] > 0).all()


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_kl_to_oneself_is_exactly_0(kind):
    logps = noise((50,), 3)
    assert (kl_estimate(logps, logps.clone(), kind) == 0).all()


def test_k3_pulls_the_policy_towards_the_reference():
    logps = tensor([-1.0, -3.0]).requires_grad_()
    kl_estimate(logps, tensor([-2.0, -2.0]), "k3").sum().backward()
    assert logps.grad.tolist() == pytest.approx([1 - math.exp(-1), 1 - math.exp(1)])


# --- rewards


def test_rewards_by_hand():
    kl = tensor([[0.1, 0.2, 0.3], [0.4, NAN, NAN]])
    found = token_rewards(tensor([1.0, -2.0]), [3, 1], kl_BG=kl, beta=0.5)
    torch.testing.assert_close(found, tensor([[-0.05, -0.1, 0.85], [-2.2, 0, 0]]))


def test_the_score_is_on_the_last_generated_token():
    found = token_rewards(tensor([1.0, 2.0, 3.0]), [2, 4, 1])
    assert found.tolist() == [[0, 1, 0, 0], [0, 0, 0, 2], [3, 0, 0, 0]]


def test_rewards_are_as_wide_as_the_kl():
    found = token_rewards(tensor([1.0]), [2], kl_BG=torch.ones(1, 5), beta=1.0)
    assert found.tolist() == [[-1, 0, 0, 0, 0]]


def test_scores_are_clipped_before_the_penalty():
    kl = tensor([[10.0, 10.0], [0.0, 0.0]])
    found = token_rewards(tensor([9.0, -9.0]), [2, 1], kl_BG=kl, beta=1.0, score_clip=5.0)
    assert found.tolist() == [[-10, -5], [-5, 0]]


# --- advantages


def double_sum(rewards, values, gamma, lam, last_value):
    """Equation 16 of the paper, for one rollout."""
    following = [*values[1:], last_value]
    errors = [r + gamma * n - v for r, v, n in zip(rewards, values, following, strict=True)]
    return [
        sum((gamma * lam) ** (later - t) * errors[later] for later in range(t, len(errors)))
        for t in range(len(errors))
    ]


def test_advantages_by_hand():
    rewards, values = tensor([[0.0, 1.0]]), tensor([[0.5, 0.25]])
    # errors: 0 + .5 * .25 - .5 = -.375 and 1 - .25 = .75; advantages: -.375 + .5 * .5 * .75, .75
    advantages, returns = gae(rewards, values, token_mask([2]), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[-0.1875, 0.75]]
    assert returns.tolist() == [[0.3125, 1.0]]


@given(lengths_lists, discounts, discounts, seeds, st.booleans())
def test_advantages_are_the_double_sum(lengths, gamma, lam, seed, cut_off):
    mask = token_mask(lengths)
    rewards, values = noise((2, *mask.shape), seed)
    last = noise((len(lengths),), seed + 1) if cut_off else torch.zeros(len(lengths))
    spoilt = [x.masked_fill(~mask, NAN) for x in (rewards, values)]
    advantages, returns = gae(
        *spoilt, mask, gamma=gamma, lam=lam, bootstrap_B=last if cut_off else None
    )
    assert (advantages[~mask] == 0).all()
    assert (returns[~mask] == 0).all()
    for row, length in enumerate(lengths):
        some = [x[row, :length].tolist() for x in (rewards, values)]
        expected = double_sum(*some, gamma, lam, last[row].item())
        assert advantages[row, :length].tolist() == pytest.approx(expected, abs=1e-9)
        sums = [a + v for a, v in zip(expected, some[1], strict=True)]
        assert returns[row, :length].tolist() == pytest.approx(sums, abs=1e-9)


def test_advantages_are_a_linear_filter():
    rewards, values = noise((2, 1, 40), 5)
    errors = (rewards + 0.99 * torch.roll(values, -1, 1) - values)[0].numpy()
    errors[-1] = (rewards - values)[0, -1].item()
    expected = scipy.signal.lfilter([1.0], [1.0, -0.99 * 0.9], errors[::-1])[::-1]
    found, _ = gae(rewards, values, token_mask([40]), gamma=0.99, lam=0.9)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


def test_without_lambda_an_advantage_is_the_error_of_one_step():
    rewards, values = tensor([[1.0, 2.0, 4.0]]), tensor([[3.0, 5.0, 7.0]])
    found, _ = gae(rewards, values, token_mask([3]), gamma=0.9, lam=0.0)
    assert found.tolist()[0] == pytest.approx([1 + 4.5 - 3, 2 + 6.3 - 5, 4 - 7])


def test_with_lambda_1_returns_are_discounted_rewards():
    rewards, values = tensor([[1.0, 2.0, 4.0]]), noise((1, 3), 1)
    _, returns = gae(rewards, values, token_mask([3]), gamma=0.5, lam=1.0)
    assert returns.tolist()[0] == pytest.approx([1 + 1 + 1, 2 + 2, 4])


def test_a_rollout_that_was_cut_off_goes_on_with_the_value_after_it():
    rewards, values = tensor([[0.0], [0.0]]), tensor([[0.5], [0.5]])
    found, _ = gae(
        rewards, values, token_mask([1, 1]), gamma=0.9, lam=0.95, bootstrap_B=tensor([0, 2])
    )
    assert found.tolist() == [[-0.5], [pytest.approx(1.3)]]


@given(st.lists(st.booleans(), min_size=1, max_size=8), seeds)
def test_holes_are_passed_over(on, seed):
    mask = torch.tensor([on])
    rewards, values = noise((2, 1, len(on)), seed)
    last = noise((1,), seed + 1)
    found = gae(rewards, values, mask, gamma=0.9, lam=0.8, bootstrap_B=last)
    dense = gae(
        *(rewards[mask][None], values[mask][None], token_mask([sum(on)])),
        gamma=0.9,
        lam=0.8,
        bootstrap_B=last,
    )
    for with_holes, without in zip(found, dense, strict=True):
        assert torch.equal(with_holes[mask], without[0])
        assert (with_holes[~mask] == 0).all()


def test_no_rollouts_have_no_advantages():
    nothing = torch.zeros(0, 0)
    advantages, returns = gae(nothing, nothing, nothing.bool(), gamma=1.0, lam=0.95)
    assert advantages.shape == returns.shape == (0, 0)


def test_rollouts_do_not_touch_each_other():
    mask = token_mask([3, 5])
    rewards, values = noise((2, 2, 5), 9)
    both, _ = gae(rewards, values, mask, gamma=0.9, lam=0.9)
    alone, _ = gae(rewards[:1], values[:1], mask[:1], gamma=0.9, lam=0.9)
    assert torch.equal(both[:1], alone)


# --- importance weights and the adaptive weight


def test_importance_weights_are_ratios_up_to_the_cap():
    ours = tensor([math.log(0.5), math.log(0.9)]).requires_grad_()
    found = importance_weights(ours, tensor([math.log(0.25), math.log(0.1)]), cap=3.0)
    assert found.tolist() == pytest.approx([2.0, 3.0])
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("kl", "n", "beta"),
    [
        (6.3, 10, 0.1 * 1.005),  # 5 % too far
        (60.0, 10, 0.1 * 1.02),  # never more than 20 %
        (0.0, 10, 0.1 * 0.98),
        (-3.0, 10, 0.1 * 0.98),
        (6.0, 10, 0.1),
        (0.0, 10_000, 0.1 * 0.8),  # beyond the horizon, and still above 0
        (NAN, 10, 0.1),
        (math.inf, 10, 0.1),
    ],
)
def test_the_adaptive_weight_follows_the_kl(kl, n, beta):
    control = AdaptiveKL(0.1, target=6.0, horizon=100)
    control.update(kl, n)
    assert control.beta == pytest.approx(beta)


def test_the_adaptive_weight_goes_on_where_it_was():
    first = AdaptiveKL(0.1, target=6.0, horizon=100)
    first.update(9.0, 30)
    second = AdaptiveKL(0.5, target=6.0, horizon=100)
    second.restore(first.state())
    for control in (first, second):
        control.update(2.0, 50)
    assert second.beta == first.beta != 0.1
