import dataclasses
import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from papercore.errors import ConfigError
from papercore.rl.batching import minibatch_order
from papercore.rl.rollouts import Rollout, pack
from papercore.rl.settings import PPOSettings
from papercore.rl.update import Experience

PROGRAM = Path(__file__).parent / "toys" / "tinyrl.py"
SPEC = importlib.util.spec_from_file_location("tinyrl", PROGRAM)
tinyrl = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tinyrl)

LENGTHS, PLAIN, updated = tinyrl.LENGTHS, tinyrl.PLAIN, tinyrl.updated
FLOATS = ("old_logps_BG", "advantages_BG", "returns_BG", "old_values_BG", "ref_logps_BG")
NAMES = [
    *("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "ratio_max"),
    *("grad_norm", "explained_variance", "skipped", "steps"),
]


def assert_same_weights(first, second, **tolerance):
    for (name, one), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, msg=lambda m, name=name: f"{name}: {m}", **tolerance)


# --- against loops over single tokens


def row_of(policy, rollout, temperature):
    """Log-probability, entropy and value of each generated token of one rollout, unpadded."""
    ids = torch.tensor(rollout.prompt + rollout.response)
    found = []
    for at in range(len(rollout.prompt), len(ids)):
        hidden = torch.tanh(policy.embed.weight[ids[:at]].mean(dim=0))
        logps = torch.log_softmax(policy.head(hidden) / temperature, dim=-1)
        entropy = torch.distributions.Categorical(logits=logps).entropy()
        found.append((logps[ids[at]], entropy, policy.value(hidden)[0]))
    return found


def token_losses(policy, part, row, settings):
    """Of each token of the mask: policy loss and entropy (None if masked), value loss, k3."""
    found = []
    for g, scored in enumerate(row_of(policy, part.rollouts[row], settings.temperature)):
        if not part.mask_BG[row, g]:
            continue
        logp, entropy, value = scored
        advantage, old_value = part.advantages_BG[row, g], part.old_values_BG[row, g]
        ratio = torch.exp(logp - part.old_logps_BG[row, g])
        gain = torch.minimum(
            ratio * advantage,
            torch.clamp(ratio, 1 - settings.clip, 1 + settings.clip) * advantage,
        )
        if part.weights_BG is not None:
            gain = gain * part.weights_BG[row, g]
        error = (value - part.returns_BG[row, g]) ** 2
        if settings.value_clip is not None:
            limits = old_value - settings.value_clip, old_value + settings.value_clip
            error = torch.maximum(error, (value.clamp(*limits) - part.returns_BG[row, g]) ** 2)
        away = part.ref_logps_BG[row, g] - logp
        bears = part.policy_mask_BG is None or part.policy_mask_BG[row, g]
        found.append(
            (-gain if bears else None, entropy if bears else None, error / 2, away.exp() - 1 - away)
        )
    return found


def mean_of(rows, column, settings, *, by_all):
    """Mean over tokens, or over tokens and then rollouts, of those that are there."""
    rows = [[token[column] for token in row] for row in rows if row]
    kept = [[value for value in row if value is not None] for row in rows]
    counted = rows if by_all else [row for row in kept if row]
    if settings.reduction == "token":
        return sum(sum(row) for row in kept) / sum(len(row) for row in counted)
    if by_all:
        means = [sum(own) / len(row) for own, row in zip(kept, rows, strict=True)]
    else:
        means = [sum(row) / len(row) for row in counted]
    return sum(means) / len(means)


def brute_force(policy, optimizer, part, settings, seed):
    """The update with one loop for each of its words."""
    for epoch in range(settings.epochs):
        for chosen in minibatch_order(
            len(part.rollouts),
            minibatches=settings.minibatches,
            seed=seed * settings.epochs + epoch,
        ):
            rows = [token_losses(policy, part, row, settings) for row in sorted(chosen)]
            by_all = settings.normalise == "all"
            loss = (
                mean_of(rows, 0, settings, by_all=by_all)
                - settings.entropy_coef * mean_of(rows, 1, settings, by_all=by_all)
                + settings.value_coef * mean_of(rows, 2, settings, by_all=True)
                + settings.kl_coef * mean_of(rows, 3, settings, by_all=True)
            )
            optimizer.zero_grad()
            loss.backward()
            grads = [one.grad for one in policy.parameters()]
            norm = math.sqrt(sum((grad**2).sum().item() for grad in grads))
            for one in grads:
                one.mul_(min(1.0, settings.grad_clip / (norm + 1e-6)))
            optimizer.step()


SETTINGS = {
    "one step": PLAIN,
    "sequence": replace(PLAIN, reduction="sequence", epochs=2, minibatches=3, micro_batch=1),
    "everything": PPOSettings(
        epochs=3,
        minibatches=2,
        micro_batch=2,
        clip=0.1,
        value_clip=0.05,
        value_coef=2.0,
        entropy_coef=0.3,
        kl_coef=0.4,
        temperature=0.7,
        grad_clip=0.2,
    ),
    "free values": replace(PLAIN, value_clip=None, epochs=2),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_update_is_that_of_plain_loops(name, optimizer):
    settings, expected = SETTINGS[name], tinyrl.TinyPolicy()
    part = tinyrl.experience(expected, LENGTHS, temperature=settings.temperature)
    policy = tinyrl.TinyPolicy()
    policy, stats = updated(settings, part, policy=policy, optimizer=getattr(policy, optimizer)())
    brute_force(expected, getattr(expected, optimizer)(), part, settings, 5)
    assert_same_weights(policy, expected, atol=1e-9, rtol=1e-7)
    assert stats.steps == settings.epochs * settings.minibatches
    assert stats.skipped == 0


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("normalise", ["policy", "all"])
def test_masks_and_importance_weights_are_those_of_plain_loops(reduction, normalise):
    settings = replace(
        PLAIN, epochs=2, kl_coef=0.2, entropy_coef=0.1, reduction=reduction, normalise=normalise
    )
    expected = tinyrl.TinyPolicy()
    part = tinyrl.experience(expected, LENGTHS)
    mask = part.mask_BG.clone()
    mask[2] = False  # a rollout that is left out
    mask[0, 1] = False
    policy_mask = mask.clone()
    policy_mask[5] = False  # one that teaches the critic only
    policy_mask[4, ::2] = False
    weights = torch.linspace(0.1, 2.0, mask.numel(), dtype=torch.float64).view(mask.shape)
    part = replace(part, mask_BG=mask, policy_mask_BG=policy_mask, weights_BG=weights)
    policy, _ = updated(settings, part)
    brute_force(expected, expected.sgd(), part, settings, 5)
    assert_same_weights(policy, expected, atol=1e-9, rtol=1e-7)


# --- equivalences


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_accumulated_gradients_are_those_of_the_whole_batch(reduction):
    settings = replace(PLAIN, epochs=2, minibatches=2, reduction=reduction)
    found = [updated(replace(settings, micro_batch=size))[0] for size in (1, 2, 100)]
    for other in found[1:]:
        assert_same_weights(found[0], other, atol=1e-12, rtol=1e-10)


def test_wider_padding_changes_nothing():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    wide = {
        field.name: torch.nn.functional.pad(value, (0, 4), value=math.nan)
        for field in dataclasses.fields(part)
        if isinstance(value := getattr(part, field.name), torch.Tensor)
        and value.is_floating_point()
    }
    wide["mask_BG"] = torch.nn.functional.pad(part.mask_BG, (0, 4))
    first, _ = updated(PLAIN, part)
    second, _ = updated(PLAIN, replace(part, **wide))
    assert_same_weights(first, second)


def test_the_same_seed_gives_the_same_update_and_another_does_not():
    settings = replace(PLAIN, minibatches=3, epochs=2)
    first, again, other = (updated(settings, seed=seed)[0] for seed in (1, 1, 2))
    assert first.weights() == again.weights() != other.weights()


def test_epochs_deal_the_rows_anew():
    pairs = []

    class Watched(tinyrl.TinyPolicy):
        def forward(self, batch, *, temperature=1.0):
            pairs.append(frozenset(batch.lengths))
            return super().forward(batch, temperature=temperature)

    updated(replace(PLAIN, epochs=6, minibatches=3, micro_batch=2), policy=Watched())
    assert len(set(pairs)) > 3


def test_a_seed_may_be_any_number():
    for seed in (-3, 2**64 + 1):
        updated(replace(PLAIN, epochs=2, minibatches=2), seed=seed)


def test_masked_tokens_are_never_read():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    mask = part.mask_BG.clone()
    mask[1:4] = False
    mask[0, 2] = False
    spoilt = {name: getattr(part, name).masked_fill(~mask, math.nan) for name in FLOATS}
    clean, _ = updated(replace(PLAIN, kl_coef=0.1), replace(part, mask_BG=mask))
    found, stats = updated(replace(PLAIN, kl_coef=0.1), replace(part, mask_BG=mask, **spoilt))
    assert stats.skipped == 0
    assert_same_weights(found, clean)


def test_a_token_without_policy_mask_has_no_policy_gradient():
    policy = tinyrl.TinyPolicy(shared=False)
    part = tinyrl.experience(policy, (3, 4))
    nowhere = torch.zeros_like(part.mask_BG)
    changed, stats = updated(
        PLAIN, replace(part, policy_mask_BG=nowhere), policy=tinyrl.TinyPolicy(shared=False)
    )
    assert torch.equal(changed.embed.weight, policy.embed.weight)
    assert torch.equal(changed.head.weight, policy.head.weight)
    assert not torch.equal(changed.value.weight, policy.value.weight)
    assert (stats.policy_loss, stats.entropy, stats.clip_fraction) == (0, 0, 0)


def test_rows_without_a_token_are_not_computed():
    seen = []

    class Watched(tinyrl.TinyPolicy):
        def forward(self, batch, *, temperature=1.0):
            seen.extend(batch.lengths)
            return super().forward(batch, temperature=temperature)

    part = tinyrl.experience(tinyrl.TinyPolicy(), LENGTHS)
    mask = part.mask_BG.clone()
    mask[[0, 2]] = False
    updated(PLAIN, replace(part, mask_BG=mask), policy=Watched())
    assert sorted(seen) == sorted(LENGTHS[row] for row in (1, 3, 4, 5))


def test_the_longest_rollouts_go_first_and_together():
    seen = []

    class Watched(tinyrl.TinyPolicy):
        def forward(self, batch, *, temperature=1.0):
            seen.append(batch.ids_BT.shape[1])
            return super().forward(batch, temperature=temperature)

    policy = Watched()
    rollouts = [Rollout((1,) * p, (2,) * r, (0.0,) * r, ended=True) for p, r in [(9, 1), (1, 2)]]
    rollouts += [Rollout((1,) * p, (2,) * r, (0.0,) * r, ended=True) for p, r in [(1, 8), (1, 1)]]
    zeros = torch.zeros(4, 8, dtype=torch.float64)
    mask = torch.arange(8)[None] < torch.tensor([[1], [2], [8], [1]])
    part = Experience(tuple(rollouts), mask, zeros, zeros, zeros, zeros)
    updated(replace(PLAIN, micro_batch=2), part, policy=policy)
    assert seen == [10, 3]


# --- warm-up


@pytest.mark.parametrize("shared", [True, False])
def test_warm_up_moves_the_critic_only(shared):
    before, policy = (tinyrl.TinyPolicy(shared=shared) for _ in range(2))
    part = tinyrl.experience(before, LENGTHS)
    settings = replace(PLAIN, epochs=3, kl_coef=0.5, entropy_coef=0.5)
    _, stats = updated(settings, part, policy=policy, optimizer=policy.adamw(), train_policy=False)
    kept, moved = policy.groups()
    names = {id(one): name for name, one in policy.named_parameters()}
    for one in kept["params"]:
        name = names[id(one)]
        assert torch.equal(one, before.get_parameter(name)), name
    for one in moved["params"]:
        name = names[id(one)]
        assert not torch.equal(one, before.get_parameter(name)), name
    assert stats.steps == 3


def test_warm_up_moves_the_critic_as_training_does():
    """With a critic of its own the policy's loss does not reach it."""
    settings = replace(PLAIN, epochs=2)
    both, alone = (
        updated(settings, policy=tinyrl.TinyPolicy(shared=False), train_policy=train)[0]
        for train in (True, False)
    )
    for name in ("critic.weight", "value.weight"):
        torch.testing.assert_close(both.get_parameter(name), alone.get_parameter(name))


def test_warm_up_leaves_the_policys_moments_alone():
    policy = tinyrl.TinyPolicy()
    optimizer = policy.adamw()
    updated(PLAIN, policy=policy, optimizer=optimizer, train_policy=False)
    kept, moved = policy.groups()
    assert not any(one in optimizer.state for one in kept["params"])
    assert all(one in optimizer.state for one in moved["params"])


def test_warm_up_needs_to_know_the_policys_parameters():
    policy = tinyrl.TinyPolicy()
    plain = torch.optim.SGD(policy.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="a group named 'policy'"):
        updated(PLAIN, policy=policy, optimizer=plain, train_policy=False)


# --- what is not finite


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, math.nan) for name in FLOATS[:4]),
        *((name, math.inf) for name in ("advantages_BG", "returns_BG", "old_values_BG")),
        ("old_logps_BG", -math.inf),
    ],
)
def test_a_step_with_a_loss_that_is_no_number_is_skipped(field, value):
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    getattr(part, field)[1, 0] = value
    before = policy.weights()
    policy, stats = updated(replace(PLAIN, epochs=2), part, policy=policy)
    assert (stats.steps, stats.skipped) == (0, 2)
    assert policy.weights() == before
    assert math.isnan(stats.policy_loss)
    assert math.isnan(stats.grad_norm)


def test_only_the_spoilt_minibatch_is_skipped():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    part.advantages_BG[3, 1] = math.nan
    settings = replace(PLAIN, minibatches=3)
    policy, stats = updated(settings, part, policy=policy)
    assert (stats.steps, stats.skipped) == (2, 1)
    assert all(torch.isfinite(one).all() for one in policy.parameters())
    assert math.isfinite(stats.policy_loss)


def test_a_gradient_that_is_no_number_is_skipped_though_the_loss_is_fine():
    class Cliff(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    class Broken(tinyrl.TinyPolicy):
        def forward(self, batch, *, temperature=1.0):
            scored = super().forward(batch, temperature=temperature)
            return scored._replace(values_N=Cliff.apply(scored.values_N))

    policy = Broken()
    before = policy.weights()
    _, stats = updated(PLAIN, policy=policy)
    assert (stats.steps, stats.skipped) == (0, 1)
    assert policy.weights() == before


def test_a_skipped_step_leaves_nothing_behind():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    spoilt = replace(part, advantages_BG=torch.full_like(part.advantages_BG, math.nan))
    optimizer = policy.adamw()
    updated(PLAIN, spoilt, policy=policy, optimizer=optimizer)
    updated(PLAIN, part, policy=policy, optimizer=optimizer)
    fresh = tinyrl.TinyPolicy()
    updated(PLAIN, part, policy=fresh, optimizer=fresh.adamw())
    assert policy.weights() == fresh.weights()


def test_gradients_from_before_do_not_count():
    policy = tinyrl.TinyPolicy()
    for one in policy.parameters():
        one.grad = torch.full_like(one, 3.0)
    dirty, _ = updated(PLAIN, policy=policy)
    clean, _ = updated(PLAIN)
    assert dirty.weights() == clean.weights()


# --- nothing to learn from


def test_no_rollouts_make_no_step():
    policy = tinyrl.TinyPolicy()
    _, stats = updated(PLAIN, tinyrl.experience(policy, ()), policy=policy)
    assert (stats.steps, stats.skipped) == (0, 0)
    assert policy.weights() == tinyrl.TinyPolicy().weights()


def test_a_minibatch_without_a_token_is_passed_over():
    """A step on it would still move the parameters, by momentum and decay."""
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    nothing = replace(part, mask_BG=torch.zeros_like(part.mask_BG))
    _, stats = updated(PLAIN, nothing, policy=policy, optimizer=policy.adamw())
    assert (stats.steps, stats.skipped) == (0, 0)
    assert policy.weights() == tinyrl.TinyPolicy().weights()


def test_fewer_rollouts_than_minibatches_make_fewer_steps():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, (3, 2))
    _, stats = updated(replace(PLAIN, minibatches=5), part, policy=policy)
    assert stats.steps == 2


# --- statistics


def test_statistics_by_hand():
    policy = tinyrl.TinyPolicy()
    with torch.no_grad():
        for one in policy.parameters():
            one.zero_()  # all tokens alike, all values 0
    uniform = -math.log(tinyrl.VOCAB)
    two, one = (Rollout((1,), (2,) * n, (0.0,) * n, ended=True) for n in (2, 1))
    log = math.log
    old = [[uniform - log(1.5), uniform], [uniform - log(0.5), 0]]
    part = Experience(
        (two, one),
        mask_BG=torch.tensor([[True, True], [True, False]]),
        old_logps_BG=torch.tensor(old, dtype=torch.float64),
        advantages_BG=torch.tensor([[1.0, 2.0], [-3.0, 9.0]], dtype=torch.float64),
        returns_BG=torch.tensor([[1.0, 2.0], [3.0, 9.0]], dtype=torch.float64),
        old_values_BG=torch.tensor([[1.0, 1.0], [4.0, 9.0]], dtype=torch.float64),
    )
    settings = replace(PLAIN, clip=0.2, value_clip=None)
    _, stats = updated(settings, part, policy=policy)
    assert stats.policy_loss == pytest.approx((-1.2 - 2.0 + 2.4) / 3)
    assert stats.value_loss == pytest.approx((1 + 4 + 9) / 6)
    assert stats.entropy == pytest.approx(log(tinyrl.VOCAB))
    assert stats.approx_kl == pytest.approx((0.5 - log(1.5) + 0 - 0.5 - log(0.5)) / 3)
    assert stats.clip_fraction == pytest.approx(2 / 3)
    assert stats.ratio_max == pytest.approx(1.5)
    assert stats.explained_variance == pytest.approx(1 - 1.0 / 1.0)
    assert (stats.skipped, stats.steps) == (0, 1)


def test_explained_variance_by_hand():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, (3,))
    returns = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    for old, expected in (([1.0, 2.0, 6.0], 1.0), ([0.0] * 3, 0.0), ([1.0, 2.0, 3.0], 4 / 7)):
        values = torch.tensor([old], dtype=torch.float64)
        _, stats = updated(PLAIN, replace(part, returns_BG=returns, old_values_BG=values))
        assert stats.explained_variance == pytest.approx(expected)
    _, stats = updated(PLAIN, replace(part, returns_BG=torch.ones_like(returns)))
    assert stats.explained_variance == 0.0


def test_the_policy_before_the_update_is_no_distance_away():
    policy = tinyrl.TinyPolicy()
    part = tinyrl.experience(policy, LENGTHS)
    with torch.no_grad():
        for row, one in enumerate(part.rollouts):
            scored = policy(pack([one], pad_id=0))
            part.old_logps_BG[row, : len(one.response)] = scored.logps_N
    _, stats = updated(PLAIN, part, policy=policy)
    assert stats.approx_kl == pytest.approx(0, abs=1e-15)
    assert stats.ratio_max == pytest.approx(1)
    assert stats.clip_fraction == 0


def test_the_norm_is_that_before_clipping():
    _, free = updated(PLAIN)
    clipped, held = updated(replace(PLAIN, grad_clip=1e-3))
    assert held.grad_norm == free.grad_norm > 1e-2
    before = tinyrl.TinyPolicy()
    moved = sum(
        ((one - other) ** 2).sum()
        for one, other in zip(
            clipped.state_dict().values(), before.state_dict().values(), strict=True
        )
    )
    assert math.sqrt(moved) <= 0.3 * 1e-3 * 1.001  # the learning rate is .3 at most


def test_the_names_of_the_statistics():
    _, stats = updated(PLAIN)
    assert list(dataclasses.asdict(stats)) == NAMES


# --- what does not fit


def test_a_penalty_needs_a_reference():
    policy = tinyrl.TinyPolicy()
    part = replace(tinyrl.experience(policy, (3,)), ref_logps_BG=None)
    with pytest.raises(ConfigError, match=r"kl_coef=0\.1 needs ref_logps_BG"):
        updated(replace(PLAIN, kl_coef=0.1), part, policy=policy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns_BG": torch.zeros(2, 9)}, "returns_BG"),
        ({"mask_BG": torch.ones(2, 3, dtype=torch.bool)}, "padding"),
        ({"mask_BG": torch.ones(2, 3)}, "boolean"),
        ({"policy_mask_BG": torch.ones(2, 3, dtype=torch.bool)}, "further"),
        ({"rollouts": ()}, "one row"),
    ],
)
def test_experience_must_fit_together(changes, message):
    part = tinyrl.experience(tinyrl.TinyPolicy(), (3, 1))
    with pytest.raises(AssertionError, match=message):
        replace(part, **changes)
