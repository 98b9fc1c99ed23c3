import torch

import longheads
from longheads.testing import make, small, tokens
from longheads.trace import Choice, oracle, recall, record


@torch.no_grad()
def test_records_hold_the_forced_chunks_and_cover_decoding():
    model, ids = make("llama-gqa"), tokens(count=100)
    with longheads.enable(model, small()) as handle, record(handle, [[20, 90, 100], [99]]) as seen:
        cache = model(ids).past_key_values
        model(ids[:, :1], past_key_values=cache)
    assert not handle.state.sinks
    found = {(c.layer, c.row, c.position): c.heads for c in seen.choices}
    assert set(found) == {(x, 0, p) for x in (0, 1) for p in (20, 90, 100)} | {
        (0, 1, 99),
        (1, 1, 99),
    }
    assert found[0, 0, 20] == ((0, 1, 2),)
    assert len(found[0, 0, 90]) == 4
    for heads in (found[0, 0, 90], found[1, 1, 99], found[1, 0, 100]):
        assert all(len(head) == 5 and head[0] == 0 for head in heads)
        assert all(head[-2] == head[-1] - 1 for head in heads)
    assert all(head[-1] == 100 // 8 for head in found[0, 0, 100])


def test_recall_by_hand():
    choices = [
        Choice(0, 0, 9, ((0, 3, 5), (0, 4, 5))),
        Choice(0, 1, 9, ((0, 1, 5),)),
        Choice(1, 0, 9, ((0, 2, 5),)),
    ]
    # layer 0: needle 4 found by one head, needle 2 missed, needle 1 of row 1 found
    assert recall(choices, {0: [4, 2], 1: [1]}) == {0: 2 / 3, 1: 0.5}


@torch.no_grad()
def test_the_oracle_forces_chunks_where_they_may_be_chosen():
    model, ids = make("llama-gqa"), tokens(count=120)
    with longheads.enable(model, small()) as handle:
        plain = model(ids).logits
        with oracle(handle, [[7], [2, 5]]), record(handle, [[119], [119, 50]]) as seen:
            model(ids)
        assert handle.state.boost is None
        assert torch.equal(model(ids).logits, plain)
    last = {(c.row, c.position): c.heads for c in seen.choices if c.layer == 1}
    assert all(7 in head for head in last[0, 119])
    assert all({2, 5} <= set(head) for head in last[1, 119])
    assert all(max(head) == 6 for head in last[1, 50]), "chunks after the query stay out of reach"
    first = [c.heads for c in seen.choices if c.layer == 0 and c.row == 0]
    assert not all(7 in head for heads in first for head in heads), "only the last layer is steered"
