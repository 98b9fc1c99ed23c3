import math

import pytest
import torch

from longheads.chunks import rep_width, represent, score_features
from papercore.testing import assert_close


def test_the_two_steps_computed_by_hand():
    # Two tokens, width 1, scale 1: queries 0 and ln 3, keys 0 and 1, values 0 and 4.
    query = torch.tensor([[[[0.0], [math.log(3)]]]])
    key = torch.tensor([[[[0.0], [1.0]]]])
    value = torch.tensor([[[[0.0], [4.0]]]])
    # token 0 attends evenly: 2; token 1 with weights 1/4, 3/4: 3; their mean is 2.5
    # the pooled vector attends to the keys with weights 1 : e^2.5
    weight = math.exp(2.5) / (1 + math.exp(2.5))
    rep = represent(query, key, value, scale=1.0)
    assert rep.shape == (1, 1, 1)
    assert rep.item() == pytest.approx(weight, abs=1e-6)


def test_attention_inside_the_chunk_is_not_causal():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, 6, 4).unbind(0)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    shuffled = (t[:, :, order] for t in (query, key, value))
    assert_close(represent(*shuffled, scale=0.5), represent(query, key, value, scale=0.5))


def test_other_representations_by_hand():
    key = torch.tensor([[[[1.0, 5.0], [3.0, -1.0]]]])
    options = {"scale": 1.0}
    assert represent(key, key, key, kind="mean", **options).tolist() == [[[2, 2]]]
    assert represent(key, key, key, kind="last", **options).tolist() == [[[3, -1]]]
    assert represent(key, key, key, kind="minmax", **options).tolist() == [[[3, 5, 1, -1]]]
    drawn = represent(key, key, key, kind="random", **options).tolist()
    assert drawn in ([[[1, 5]]], [[[3, -1]]])
    assert rep_width(2, "minmax") == 4


def test_the_minmax_score_bounds_every_key():
    torch.manual_seed(0)
    key, query = torch.randn(7, 5, 16, 8), torch.randn(7, 1, 8)
    bound = score_features(query, "minmax") * represent(key, key, key, scale=1.0, kind="minmax")
    exact = torch.einsum("gqd,gcld->gcl", query, key)
    assert (bound.sum(-1) >= exact.amax(-1) - 1e-5).all()
