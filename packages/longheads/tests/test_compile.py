"""torch.compile: the same answers, no compilation per token, and attention that can be compiled."""

import pytest
import torch

import longheads
from longheads.attention import Pages, attend_gathered
from longheads.rotary import Rotation
from longheads.testing import make, small, tokens
from papercore.testing import assert_close

dynamo = pytest.importorskip("torch._dynamo")


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_model_decodes_the_same_and_is_not_compiled_again():
    dynamo.reset()
    model, ids = make("llama-gqa"), tokens(rows=1, count=120)
    with longheads.enable(model, small()) as handle:
        expected = model(ids).logits
        compiled = torch.compile(model, backend="eager", dynamic=True)
        cache = handle.make_cache()
        parts, graphs = [compiled(ids[:, :90], past_key_values=cache).logits], []
        for place in range(90, 120):
            parts.append(compiled(ids[:, place : place + 1], past_key_values=cache).logits)
            graphs.append(dynamo.utils.counters["stats"]["unique_graphs"])
    dynamo.reset()
    assert_close(torch.cat(parts, dim=1), expected)
    assert graphs[3:] == graphs[3:4] * len(graphs[3:])


def half_split(query, key, cos, sin):
    def turn(x):
        left, right = x.chunk(2, dim=-1)
        return x * cos.unsqueeze(1) + torch.cat([-right, left], -1) * sin.unsqueeze(1)

    return turn(query), turn(key)


@pytest.mark.slow
@torch.no_grad()
def test_attention_of_a_decoded_token_alone_compiles_to_one_graph():
    dynamo.reset()
    draw = torch.Generator().manual_seed(0)
    turns = torch.rand(4, 16, generator=draw)
    rotation = Rotation(half_split, turns, turns)
    pages = Pages(torch.randn(6, 5, 8, generator=draw), torch.randn(6, 5, 8, generator=draw))
    page = torch.tensor([[[0, 2, 3, 5], [-1, 1, 4, 5]]])
    query = torch.randn(1, 2, 2, 8, generator=draw)
    last = torch.tensor([[4, 4, 4, 2]])
    expected = attend_gathered(query, pages, page, rotation, first_BK=None, last_BK=last, scale=0.3)
    whole = torch.compile(attend_gathered, backend="eager", fullgraph=True)
    found = whole(query, pages, page, rotation, first_BK=None, last_BK=last, scale=0.3)
    dynamo.reset()
    assert_close(found, expected)
