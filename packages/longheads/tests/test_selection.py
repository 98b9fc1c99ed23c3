import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longheads.selection import (
    Rules,
    fill_slots,
    free_scores,
    random_scores,
    share,
    window_plan,
)


def plan(rules, scores, own, **options):
    masked = free_scores(rules, scores, own, **options)
    return fill_slots(rules, masked, own, **options)


def test_a_plan_computed_by_hand():
    # 7 chunks; the query is in chunk 6; forced 0, 5, 6; the two best of 1..4 are 4 and 2
    scores = torch.tensor([9.0, 1.0, 3.0, 2.0, 4.0, 9.0]).view(1, 1, 1, 6)
    assert plan(Rules(5), scores, torch.tensor([[6]])).tolist() == [[[[0, 2, 4, 5, 6]]]]


def test_without_the_first_chunk_it_has_to_compete():
    scores = torch.tensor([0.0, 1.0, 3.0, 2.0, 4.0, 9.0]).view(1, 1, 1, 6)
    assert plan(Rules(5, keep_first=False), scores, torch.tensor([[6]])).tolist() == [
        [[[2, 3, 4, 5, 6]]]
    ]


def test_without_the_last_chunk_it_has_to_compete():
    scores = torch.tensor([0.0, 1.0, 3.0, 2.0, 4.0, -1.0]).view(1, 1, 1, 6)
    assert plan(Rules(5, keep_last=False), scores, torch.tensor([[6]])).tolist() == [
        [[[0, 2, 3, 4, 6]]]
    ]


def test_the_official_boundary_token_has_one_chunk_fewer():
    scores = torch.tensor([9.0, 1.0, 3.0, 2.0, 4.0, 5.0]).view(1, 1, 1, 6)
    own, boundary = torch.tensor([[6]]), torch.tensor([[True]])
    assert plan(Rules(5), scores, own, boundary_BT=boundary).tolist() == [[[[-1, 0, 4, 5, 6]]]]


def test_the_window_plan_is_right_aligned():
    assert window_plan(torch.tensor([[0, 2, 3]]), 4).tolist() == [
        [[-1, -1, -1, 0], [-1, 0, 1, 2], [0, 1, 2, 3]]
    ]


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(4, 8),
    extra=st.integers(0, 9),
    first=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_plans_are_unique_ascending_and_causal(slots, extra, first, last, seed):
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(slots, slots + extra + 1, (2, 5), generator=generator)
    scores = torch.randn(2, 3, 5, slots + extra + 2, generator=generator)
    found = plan(Rules(slots, first, last), scores, own)
    assert (found.diff(dim=-1) > 0).all()
    assert (found[..., -1] == own[:, None]).all()
    assert (found >= 0).all()
    if first:
        assert (found[..., 0] == 0).all()
    if last:
        assert (found[..., -2] == own[:, None] - 1).all()
    brute = best_by_sorting(scores, own, slots, first, last)
    assert found.tolist() == brute


def best_by_sorting(scores, own, slots, first, last):
    rows = []
    for b in range(scores.shape[0]):
        rows.append([])
        for h in range(scores.shape[1]):
            rows[-1].append([])
            for t in range(scores.shape[2]):
                j = int(own[b, t])
                forced = {j} | ({0} if first else set()) | ({j - 1} if last else set())
                free = [c for c in range(j) if c not in forced]
                free.sort(key=lambda c: -float(scores[b, h, t, c]))
                rows[-1][-1].append(sorted(forced | set(free[: slots - len(forced)])))
    return rows


def test_sharing_by_hand():
    scores = torch.tensor([1.0, 3.0, 10.0, 20.0]).view(1, 4, 1, 1)
    assert share(scores, "per_head", 2).flatten().tolist() == [1, 3, 10, 20]
    assert share(scores, "group_mean", 2).flatten().tolist() == [2, 15]
    assert share(scores, "group_max", 2).flatten().tolist() == [3, 20]
    assert share(scores, "layer_mean", 2).flatten().tolist() == [8.5, 8.5]
    assert share(scores, "layer_max", 2).flatten().tolist() == [20, 20]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_choices_are_uniform_and_repeat(seed):
    positions = torch.arange(1000, 3000).view(1, -1)
    scores = random_scores(positions, heads=3, chunks=20, seed=seed)
    again = random_scores(positions[:, 500:501], heads=3, chunks=20, seed=seed)
    assert torch.equal(scores[:, :, 500:501], again)
    wins = torch.nn.functional.one_hot(scores.argmax(-1), 20).float().mean(dim=(0, 2))
    # 2000 draws per head: 0.05 +- 0.005 (one standard deviation)
    assert ((wins - 0.05).abs() < 0.025).all()
    flat = scores.flatten(0, 1).permute(1, 0, 2).reshape(2000, -1)
    assert torch.corrcoef(flat.T).fill_diagonal_(0).abs().max() < 0.12
    assert not torch.equal(scores, random_scores(positions, heads=3, chunks=20, seed=seed + 1))
