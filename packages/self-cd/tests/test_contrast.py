import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from papercore.testing.models import assert_close
from self_cd.contrast import agree, combine, contrast, plausible

INF, NAN = math.inf, math.nan
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0, 100.0)


def logits(seed: int, rows: int = 3, vocabulary: int = 50, scale: float = 10.0) -> Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def strengths(*values: float) -> Tensor:
    return torch.tensor(values)


def probability(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


def test_an_example_by_hand() -> None:
    y, plain = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    assert combine(y, plain, strengths(2.5)).tolist() == [[-0.5, 1.0, 2.5]]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_formula(alpha: float) -> None:
    y, plain = logits(0), logits(1)
    expected = y.double() - alpha * (y.double() - plain.double())
    assert_close(combine(y, plain, strengths(alpha, alpha, alpha)), expected, atol=1e-3)


def test_every_row_has_its_own_strength() -> None:
    y, plain = logits(0), logits(1)
    together = combine(y, plain, strengths(0.5, 2.5, 4.0))
    for row, alpha in enumerate((0.5, 2.5, 4.0)):
        one = combine(y[row : row + 1], plain[row : row + 1], strengths(alpha))
        assert torch.equal(together[row], one[0])


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1.0, 1e4, 1e30]))
def test_the_ends_are_bit_equal(seed: int, scale: float) -> None:
    y, plain = logits(seed, scale=scale), logits(seed + 1)
    assert torch.equal(combine(y, plain, strengths(0, 0, 0)), y)
    assert torch.equal(combine(y, plain, strengths(1, 1, 1)), plain)


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_the_context_that_does_not_count_may_hold_anything(value: float) -> None:
    y, plain = logits(0), logits(1)
    bad = y.index_fill(1, torch.tensor([3]), value)
    assert torch.equal(combine(y, bad, strengths(0, 0, 0)), y)
    assert torch.equal(combine(bad, plain, strengths(1, 1, 1)), plain)


@pytest.mark.parametrize("alpha", [0.5, 1.5, 2.5])
def test_a_token_that_a_context_rules_out_stays_out(alpha: float) -> None:
    y = torch.tensor([[-INF, -INF, 1.0, 2.0]])
    plain = torch.tensor([[-INF, 1.0, -INF, 3.0]])
    scores = combine(y, plain, strengths(alpha))
    assert scores[0, :3].tolist() == [-INF] * 3
    assert math.isfinite(scores[0, 3])


def test_logits_that_are_broken_stay_visible() -> None:
    y = torch.tensor([[NAN, 1.0], [INF, 1.0]])
    scores = combine(y, torch.zeros(2, 2), strengths(2.5, 2.5))
    assert not scores.amax(-1).isfinite().any()


def test_the_rounding_of_large_logits_is_not_amplified() -> None:
    y = logits(0, scale=1.0) + 1000.0
    plain = y + logits(1, scale=0.001)
    alpha = 50.0
    exact = y.double() - alpha * (y.double() - plain.double())
    # a unit in the last place at 1000 is 6e-5; (1 - alpha) y + alpha y' errs by about 50 of them
    assert_close(combine(y, plain, strengths(*[alpha] * 3)), exact, atol=2e-4)


def test_a_constant_in_either_context_changes_no_probability() -> None:
    y, plain = logits(0), logits(1)
    alpha = strengths(0.5, 1.5, 2.5)
    shifted = combine(y + 3.0, plain - 7.0, alpha)
    assert_close(shifted.softmax(-1), combine(y, plain, alpha).softmax(-1), atol=1e-4)


def test_low_precision_is_combined_in_float32() -> None:
    y, plain = logits(0).bfloat16(), logits(1).bfloat16()
    scores = combine(y, plain, strengths(2.5, 2.5, 2.5))
    assert scores.dtype == torch.float32
    assert torch.equal(scores, combine(y.float(), plain.float(), strengths(2.5, 2.5, 2.5)))


def test_plausible_tokens_by_hand() -> None:
    plain = probability([0.5, 0.3, 0.04, 0.16])
    assert plausible(plain, 0.1).tolist() == [[True, True, False, True]]
    assert plausible(plain, 0.0).all()
    assert plausible(plain, 1.0).tolist() == [[True, False, False, False]]


def test_plausibility_keeps_an_absurd_token_from_winning() -> None:
    # 2.5 log P' - 1.5 log P is 0 for the absurd token and about -0.7 for the normal one
    plain, y = probability([0.5, 1e-6, 0.4]), probability([0.5, 1e-10, 0.4])
    free, _ = contrast(y, plain, strengths(2.5))
    held, _ = contrast(y, plain, strengths(2.5), beta=0.01)
    assert free.argmax().item() == 1
    assert held.argmax().item() == 0
    assert held[0, 1] == -INF


def test_plausibility_looks_at_the_plain_context() -> None:
    plain, y = probability([0.9, 0.001]), probability([0.001, 0.9])
    held, _ = contrast(y, plain, strengths(0.0), beta=0.1)
    assert held.isfinite().tolist() == [[True, False]]


def test_contexts_agree_by_rank_and_by_confidence() -> None:
    y = probability([0.8, 0.1, 0.1])
    same, second = probability([0.75, 0.15, 0.1]), probability([0.4, 0.5, 0.1])
    unsure = probability([0.4, 0.35, 0.25])
    assert agree(y, same, 0.9).tolist() == [True]
    assert agree(y, second, 0.9).tolist() == [False]  # rank 2: 1/2 < 0.9
    assert agree(y, second, 0.5).tolist() == [True]  # 1/2 >= 0.5 and 0.5 >= 0.5 * 0.8
    assert agree(y, unsure, 0.9).tolist() == [False]  # 0.4 < 0.9 * 0.8
    assert agree(y, unsure, 0.5).tolist() == [True]


def test_adaptive_turns_the_sign_where_contexts_agree() -> None:
    y = probability([0.8, 0.1, 0.1]).repeat(3, 1)
    plain = torch.cat([probability([0.75, 0.15, 0.1]), probability([0.4, 0.5, 0.1])])[[0, 1, 0]]
    fixed = torch.tensor([False, False, True])
    scores, used = contrast(y, plain, strengths(2.5, 2.5, 1.0), adaptive=0.9, fixed_B=fixed)
    assert used.tolist() == [-2.5, 2.5, 1.0]
    assert_close(scores[0], y[0] + 2.5 * (y[0] - plain[0]))
    assert_close(scores[1], y[1] - 2.5 * (y[1] - plain[1]))
    assert torch.equal(scores[2], plain[2])
