"""The fast path against eager attention inside the window and the slow reference beyond it."""

from itertools import pairwise

import pytest
import torch

import longheads
from longheads import LongHeadsConfig
from longheads.testing import ALL_KINDS, FULL_KINDS, TOKENS, WINDOW, make, reference, small, tokens
from papercore.testing import assert_close


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("chunk_len", [8, 16])
@torch.no_grad()
def test_dense_inside_the_window_equals_eager(kind, chunk_len):
    model, ids = make(kind), tokens()
    model.set_attn_implementation("eager")
    expected = model(ids).logits
    with longheads.enable(model, LongHeadsConfig(chunk_len=chunk_len, window=256)):
        assert_close(model(ids).logits, expected)
        assert_close(model(ids, use_cache=False).logits, expected)


@pytest.mark.parametrize("kind", FULL_KINDS)
@torch.no_grad()
def test_beyond_the_window_equals_the_reference(kind):
    model, ids = make(kind), tokens(rows=1)
    eager = model(ids).logits
    with reference(model, small()):
        expected = model(ids, use_cache=False).logits
    with longheads.enable(model, small()):
        assert_close(model(ids).logits, expected, atol=2e-5)
    assert (expected - eager)[:, WINDOW:].abs().max() > 0.05, "the test would not see a difference"


@torch.no_grad()
def test_a_sliding_model_stays_what_it_is_far_beyond_the_window():
    model, ids = make("mistral"), tokens()
    model.set_attn_implementation("eager")
    expected = model(ids).logits
    with longheads.enable(model, small()):
        assert_close(model(ids).logits, expected)


ABLATIONS = [
    {"chunk_rep": "mean"},
    {"chunk_rep": "minmax"},
    {"chunk_rep": "last"},
    {"chunk_rep": "received"},
    {"chunk_rep": "received", "share_selection": "layer_mean"},
    {"keep_first": False},
    {"keep_last": False},
    {"keep_first": False, "keep_last": False},
    {"share_selection": "group_mean"},
    {"share_selection": "group_max"},
    {"share_selection": "layer_mean"},
    {"share_selection": "layer_max"},
    {"window": "auto", "chunks": 7},
]


@pytest.mark.parametrize("change", ABLATIONS, ids=str)
@torch.no_grad()
def test_every_switch_equals_the_reference(change):
    model, ids = make("llama-gqa"), tokens(rows=1)
    with longheads.enable(model, small()):
        default = model(ids).logits
    with reference(model, small(**change)):
        expected = model(ids, use_cache=False).logits
    with longheads.enable(model, small(**change)):
        assert_close(model(ids).logits, expected, atol=2e-5)
    assert (expected - default).abs().max() > 1e-3, "the switch changes nothing"


@torch.no_grad()
def test_group_modes_are_the_method_when_every_head_has_its_keys():
    model, ids = make("llama"), tokens(rows=1)
    logits = []
    for mode in ("per_head", "group_mean", "group_max"):
        with longheads.enable(model, small(share_selection=mode)):
            logits.append(model(ids).logits)
    assert_close(logits[1], logits[0])
    assert_close(logits[2], logits[0])


@pytest.mark.parametrize("prompt_len", [90, 96, 40, 41])
@torch.no_grad()
def test_official_prefill_and_decode_slips_equal_the_reference(prompt_len):
    model, ids = make("llama"), tokens(rows=1, count=prompt_len + 30)
    official = small(compat="official")
    with reference(model, official, prompt_len=prompt_len):
        expected = model(ids, use_cache=False).logits
    with longheads.enable(model, official):
        out = model(ids[:, :prompt_len])
        parts = [out.logits]
        for place in range(prompt_len, prompt_len + 30):
            out = model(ids[:, place : place + 1], past_key_values=out.past_key_values)
            parts.append(out.logits)
    assert_close(torch.cat(parts, dim=1), expected, atol=2e-5)
    with longheads.enable(model, small()):
        fixed = model(ids).logits
    assert (fixed - expected).abs().max() > 1e-3, "the slips are invisible here"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near_float32(dtype):
    model, ids = make("llama-gqa"), tokens(rows=1, count=WINDOW)
    expected = model(ids).logits
    half = model.to(dtype)
    half.set_attn_implementation("eager")
    eager_error = (half(ids).logits.float() - expected).abs().max()
    with longheads.enable(half, small()):
        error = (half(ids).logits.float() - expected).abs().max()
    assert error <= 2 * eager_error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_near_float32_beyond_the_window(dtype):
    model, ids = make("llama-gqa"), tokens(rows=1)
    settings = small(select="recent")  # choices that rounding cannot turn over
    with longheads.enable(model, settings):
        expected = model(ids).logits
    half = model.to(dtype)
    with longheads.enable(half, settings) as handle:
        cache = handle.make_cache()
        parts = [
            half(ids[:, low:high], past_key_values=cache).logits.float()
            for low, high in pairwise([0, 70, *range(71, ids.shape[1] + 1)])
        ]
    error = (torch.cat(parts, dim=1) - expected).abs().amax(dim=(0, 2))
    assert error[WINDOW:].max() <= 2 * error[:WINDOW].max()


@pytest.mark.parametrize("select", ["random", "recent"])
@torch.no_grad()
def test_baseline_choices_do_not_depend_on_how_the_text_is_cut(select):
    model, ids = make("llama-gqa"), tokens()
    with longheads.enable(model, small(select=select)):
        whole = model(ids).logits
        first = model(ids[:, :70])
        second = model(ids[:, 70:], past_key_values=first.past_key_values)
    assert_close(torch.cat([first.logits, second.logits], dim=1), whole)


@pytest.mark.parametrize("length", [1, 7, 8, 9, WINDOW - 1, WINDOW, WINDOW + 1, TOKENS // 8 * 8])
@torch.no_grad()
def test_prompt_lengths_at_the_borders(length):
    model, ids = make("llama-gqa"), tokens(rows=1, count=length)
    with reference(model, small()):
        expected = model(ids, use_cache=False).logits
    with longheads.enable(model, small()):
        assert_close(model(ids).logits, expected, atol=2e-5)
