"""Chunk-major and gathering attention against a loop over queries."""

import pytest
import torch

from longheads import attention
from longheads.attention import Pages, Plan, attend_chunk_major, attend_gathered
from longheads.rotary import Rotation
from papercore.testing import assert_close


def apply(query, key, cos, sin):
    def turn(x):
        left, right = x.chunk(2, dim=-1)
        return x * cos.unsqueeze(1) + torch.cat([-right, left], -1) * sin.unsqueeze(1)

    return turn(query), turn(key)


def turns(angle):
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotation(num_slots, length, width):
    frequency = 0.3 ** torch.arange(width // 2)
    slot = torch.arange(num_slots - 1, -1, -1) * length
    angle = (slot[:, None] * frequency).repeat(1, 2)
    back = (-torch.arange(length)[:, None] * frequency).repeat(1, 2)
    return Rotation(apply, turns(angle), turns(back))


def rotated(turn, query, slot):
    cos, sin = turn.slot_turns[slot].chunk(2, dim=-1)
    return apply(query[None, None], query[None, None], cos[None], sin[None])[0][0, 0]


def loop(query, pages, page, first, last, turn, scale):
    """One query after the other, one key after the other."""
    num_slots = len(page)
    keys, values = [], []
    for slot in range(num_slots):
        if page[slot] < 0:
            continue
        for offset in range(int(first[slot]), int(last[slot]) + 1):
            q = rotated(turn, query[None], torch.tensor([slot - num_slots]))[0]
            keys.append(scale * (q @ pages.keys[page[slot], offset]))
            values.append(pages.values[page[slot], offset])
    return torch.stack(keys).softmax(0) @ torch.stack(values)


def problem(seed, heads=3, tokens=37, num_slots=4, num_pages=6, length=5, width=8):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, num_pages, length, width, generator=generator)
    page = torch.stack(
        [torch.randperm(num_pages, generator=generator)[:num_slots] for _ in range(heads * tokens)]
    ).view(heads, tokens, num_slots)
    page[:, :5, 0] = -1  # some queries have a free slot
    first = torch.zeros(tokens, num_slots, dtype=torch.long)
    first[:, 0] = torch.randint(0, length, (tokens,), generator=generator)
    last = torch.full((tokens, num_slots), length - 1)
    last[:, -1] = torch.randint(0, length, (tokens,), generator=generator)
    query = torch.randn(heads, tokens, width, generator=generator)
    return query, Pages(*draw), page, first, last, rotation(num_slots, length, width)


@pytest.mark.parametrize("tile_elements", [1, 1 << 18])
@pytest.mark.parametrize("seed", [0, 1])
def test_chunk_major_equals_a_loop(seed, tile_elements, monkeypatch):
    monkeypatch.setattr(attention, "TILE_ELEMENTS", tile_elements)
    query, pages, page, first, last, turn = problem(seed)
    plan = Plan(page, first, last, masked=(0, 3))
    out = attend_chunk_major(query, pages, plan, turn, scale=0.4)
    for head in range(3):
        for token in range(37):
            one = loop(
                query[head, token], pages, page[head, token], first[token], last[token], turn, 0.4
            )
            assert_close(out[head, token], one)


def test_gathering_equals_a_loop():
    query, pages, page, first, last, turn = problem(3, heads=4, tokens=2)
    grouped = query.permute(1, 0, 2).reshape(2, 2, 2, 8)  # two rows, two choosers of two heads
    chosen = page[:2].transpose(0, 1)
    out = attend_gathered(grouped, pages, chosen, turn, first_BK=first, last_BK=last, scale=0.4)
    for row in range(2):
        for chooser in range(2):
            for rank in range(2):
                one = loop(
                    grouped[row, chooser, rank],
                    pages,
                    chosen[row, chooser],
                    first[row],
                    last[row],
                    turn,
                    0.4,
                )
                assert_close(out[row, chooser, rank], one)


def test_a_slot_that_hides_all_its_keys_adds_nothing():
    query, pages, page, first, last, turn = problem(4)
    last[:, -1] = -1  # the authors' prefill, first token of a chunk
    out = attend_chunk_major(query, pages, Plan(page, first, last, (0, 3)), turn, scale=0.4)
    without = page.clone()
    without[..., -1] = -1
    last[:, -1] = 4
    expected = attend_chunk_major(query, pages, Plan(without, first, last, (0, 3)), turn, scale=0.4)
    assert_close(out, expected)


def test_large_scores_do_not_overflow():
    query, pages, page, first, last, turn = problem(5)
    out = attend_chunk_major(query * 1e4, pages, Plan(page, first, last, (0, 3)), turn, scale=1.0)
    assert out.isfinite().all()
