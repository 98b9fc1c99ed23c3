"""Runs the kernels in triton's interpreter and prints how far they are from the torch path.

`test_kernels` starts it in a process of its own, since triton reads TRITON_INTERPRET when a kernel
is defined. With the argument `few` it runs some cases only. Output: one JSON object, case ->
largest difference relative to the largest value.
"""

import json
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from triton.runtime import interpreter

import longheads
from longheads import engine, kernels
from longheads.attention import Pages, Plan, attend_chunk_major, attend_gathered
from longheads.kernels import Tiles
from longheads.rotary import Rotation
from longheads.testing import make, small, tokens

SLOTS_IN_TABLE = 40  # more than any plan here has


def dot_that_knows_bfloat16(builder, a, b, *rest, dot=interpreter.InterpreterBuilder.create_dot):
    """Triton 3.7 multiplies the bits of bfloat16, which its interpreter keeps as integers."""

    def known(handle):
        if handle.dtype.scalar != interpreter.tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), interpreter.tl.float32)

    return dot(builder, known(a), known(b), *rest)


def half_split(query, key, cos, sin):
    def turn(x):
        left, right = x.chunk(2, dim=-1)
        return x * cos.unsqueeze(1) + torch.cat([-right, left], -1) * sin.unsqueeze(1)

    return turn(query), turn(key)


def interleaved(query, key, cos, sin):
    def turn(x):
        swapped = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        return x * cos.unsqueeze(1) + swapped * sin.unsqueeze(1)

    return turn(query), turn(key)


def make_rotation(layout, length, turned):
    frequency = 0.3 ** torch.arange(turned // 2)
    slot = torch.arange(SLOTS_IN_TABLE - 1, -1, -1) * length
    angle = slot[:, None] * frequency
    angle = angle.repeat_interleave(2, 1) if layout is interleaved else angle.repeat(1, 2)
    turns = torch.cat([angle.cos(), angle.sin()], dim=-1)
    return Rotation(layout, turns, turns[:0])


def draw_pages(generator, count, length, width, dtype, *, strided):
    shape = (2, count, length, width)
    if strided:  # keys and values of a page lie behind each other
        both = torch.randn(count, 2, length, width, generator=generator).to(dtype)
        return Pages(both[:, 0], both[:, 1])
    return Pages(*torch.randn(shape, generator=generator).to(dtype))


def draw_bounds(generator, tokens, slots, length, *, sliding):
    last = torch.full((tokens, slots), length - 1)
    last[:, -1] = torch.randint(0, length, (tokens,), generator=generator)
    if not sliding:
        return None, last
    first = torch.zeros(tokens, slots, dtype=torch.long)
    first[:, 0] = torch.randint(0, length, (tokens,), generator=generator)
    return first, last


def far(found, expected):
    if not found.isfinite().all() or found.dtype != expected.dtype:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


def prefill(
    *,
    heads=2,
    kv_heads=2,
    tokens=19,
    slots=4,
    length=16,
    width=16,
    turned=16,
    layout=half_split,
    dtype=torch.float32,
    softcap=None,
    sliding=False,
    empty=False,
    hidden=False,
    strided=False,
    per_head=7,
    way="auto",
    keys=16,
):
    generator = torch.Generator().manual_seed(tokens + heads)
    drawn = torch.rand(heads, tokens, per_head, generator=generator).argsort(-1)[..., :slots]
    kv_head = torch.arange(heads) // (heads // kv_heads)
    page = drawn + (kv_head * per_head).view(-1, 1, 1)
    if empty:
        page[:, : tokens // 2, 0] = -1
        page[0, :3] = -1  # nothing to read at all
        page[1] = -1
    pages = draw_pages(generator, kv_heads * per_head, length, width, dtype, strided=strided)
    first, last = draw_bounds(generator, tokens, slots, length, sliding=sliding)
    if hidden:
        last[::3, -1] = -1
    query = torch.randn(heads, tokens, width, generator=generator).to(dtype)
    rotation = make_rotation(layout, length, turned)
    masked = (0, slots - 1) if sliding else (slots - 1,)
    plan = Plan(page, first, last, masked)
    rules = {"scale": 0.4, "softcap": softcap}
    expected = attend_chunk_major(
        query.float(), Pages(pages.keys.float(), pages.values.float()), plan, rotation, **rules
    ).to(dtype)
    tiles = Tiles(16, keys, 4, 1)
    found = kernels.attend_prefill(query, pages, plan, rotation, **rules, way=way, tiles=tiles)
    if empty:
        assert not found[0, :3].any(), "no page gives zeros"
        assert not found[1].any(), "no page gives zeros"
    return far(found, expected)


def decode(
    *,
    batch=2,
    selecting=2,
    rows=1,
    slots=4,
    length=16,
    width=16,
    turned=16,
    layout=half_split,
    dtype=torch.float32,
    softcap=None,
    sliding=False,
    empty=False,
    enough=1,
):
    generator = torch.Generator().manual_seed(batch + rows)
    pages = draw_pages(generator, 9, length, width, dtype, strided=False)
    page = torch.rand(batch, selecting, 9, generator=generator).argsort(-1)[..., :slots]
    if empty:
        page[0, :, 0] = -1
    first, last = draw_bounds(generator, batch, slots, length, sliding=sliding)
    query = torch.randn(batch, selecting, rows, width, generator=generator).to(dtype)
    rotation = make_rotation(layout, length, turned)
    rules = {"first_BK": first, "last_BK": last, "scale": 0.4, "softcap": softcap}
    wide = Pages(pages.keys.float(), pages.values.float())
    expected = attend_gathered(query.float(), wide, page, rotation, **rules).to(dtype)
    kernels._ENOUGH_PROGRAMS = enough
    found = kernels.attend_decode(query, pages, page, rotation, **rules)
    page[-1] = -1
    nothing = kernels.attend_decode(query, pages, page, rotation, **rules)[-1]
    assert not nothing.any(), "no page gives zeros"
    return far(found, expected)


LAYOUTS = {
    "plain": {},
    "gqa": {"heads": 4, "kv_heads": 2},
    "partial rotary": {"width": 24, "turned": 16},
    "no rotary": {"turned": 0},
    "interleaved": {"layout": interleaved},
    "partial interleaved": {"layout": interleaved, "width": 24, "turned": 8},
    "softcap": {"softcap": 2.0},
    "sliding": {"sliding": True},
    "empty slots": {"empty": True, "sliding": True},
    "hidden slots": {"hidden": True},
    "longer pages": {"length": 32, "width": 24, "turned": 24, "sliding": True},
    "many slots": {"slots": 37, "per_head": 41, "length": 5, "sliding": True, "empty": True},
    "short pages": {"length": 5, "sliding": True},
    "uneven pages": {"length": 24},
    "one token": {"tokens": 1},
    "whole blocks": {"tokens": 32},
    "many blocks": {"tokens": 45},
    "strided pages": {"strided": True},
    "bfloat16": {"dtype": torch.bfloat16, "sliding": True},
    "float16": {"dtype": torch.float16, "length": 32, "softcap": 5.0},
}

DECODING = {
    "plain": {},
    "gqa": {"rows": 3},
    "one row": {"batch": 1, "selecting": 1},
    "partial rotary": {"width": 24, "turned": 16},
    "no rotary": {"turned": 0},
    "interleaved": {"layout": interleaved, "rows": 2},
    "softcap": {"softcap": 2.0},
    "sliding": {"sliding": True, "length": 32},
    "empty slots": {"empty": True},
    "pieces": {"length": 64, "enough": 1000, "sliding": True},
    "pieces of uneven pages": {"length": 40, "enough": 1000},
    "bfloat16": {"dtype": torch.bfloat16, "rows": 4},
    "float16": {"dtype": torch.float16},
}


@torch.no_grad()
def whole_model(kind):
    """A tiny model reads a prompt and three tokens one by one, with kernels and without."""
    model, ids = make(kind), tokens(rows=1, count=60)
    found = []
    for ready in (lambda query, pages: False, lambda query, pages: True):
        engine.available = ready
        with longheads.enable(model, small()) as handle:
            cache = handle.make_cache()
            cuts = [0, 50, 57, 58, 59, 60]
            parts = [
                model(ids[:, low:high], past_key_values=cache).logits
                for low, high in pairwise(cuts)
            ]
            found.append(torch.cat(parts, dim=1))
    return float((found[1] - found[0]).abs().max() / found[0].abs().max())


MODELS = ("llama-gqa", "glm4", "gemma2", "smollm3")

CASES = {
    **{
        f"{way}: {name}": partial(prefill, **changes, way=way)
        for way in ("unions", "pairs")
        for name, changes in LAYOUTS.items()
    },
    "auto": prefill,
    **{f"decode: {name}": partial(decode, **changes) for name, changes in DECODING.items()},
    **{f"model: {kind}": partial(whole_model, kind) for kind in MODELS},
}
FEW = (
    "unions: sliding",
    "unions: many slots",
    "pairs: empty slots",
    "auto",
    "decode: gqa",
    "decode: softcap",
    "model: gemma2",
)


def main():
    interpreter.InterpreterBuilder.create_dot = dot_that_knows_bfloat16
    names = FEW if sys.argv[1:] == ["few"] else CASES
    json.dump({name: CASES[name]() for name in names}, sys.stdout)


if __name__ == "__main__":
    main()
