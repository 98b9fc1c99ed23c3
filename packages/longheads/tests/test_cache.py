"""What a cache promises to those who hold it: crops, failures, copies, and nothing by halves."""

import copy
import pickle
from contextlib import contextmanager

import pytest
import torch

import longheads
from longheads.testing import make, small, tokens
from papercore.errors import ModelError

SLIDING = ["gemma2", "gemma3_text"]
"""Families whose first layer has a sliding window and a later one has none."""


def double(kind):
    return make(kind).double()


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@contextmanager
def failing(module, error):
    """The module raises when it is called."""

    def fail(*_):
        raise error

    hook = module.register_forward_pre_hook(fail)
    try:
        with pytest.raises(error):
            yield
    finally:
        hook.remove()


# crops


@pytest.mark.parametrize("kind", [*SLIDING, "llama-gqa", "mistral"])
@torch.no_grad()
def test_every_crop_of_up_to_two_chunks_is_as_if_nothing_had_been_read(kind):
    model, ids = double(kind), tokens(rows=1, count=130)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        for length in range(96, 104):
            for removed in (1, 7, 8, 9, 15, 16):
                cache = model(ids[:, :length]).past_key_values
                cache.crop(-removed)
                rest = model(ids[:, length - removed :], past_key_values=cache).logits
                assert_same(rest, whole[:, length - removed :])


@pytest.mark.parametrize("adopted", [True, False])
@pytest.mark.parametrize("kind", SLIDING)
@torch.no_grad()
def test_a_crop_that_is_too_long_changes_no_layer(kind, adopted):
    model, ids = double(kind), tokens(rows=1, count=130)
    with longheads.enable(model, small()) as handle:
        whole = model(ids).logits
        cache = None if adopted else handle.make_cache()
        cache = model(ids[:, :95], past_key_values=cache, use_cache=True).past_key_values
        with pytest.raises(ModelError, match="only the last 2 chunks"):
            cache.crop(-32)
        assert {tuple(layer.lengths) for layer in cache.layers} == {(95,)}
        assert_same(model(ids[:, 95:], past_key_values=cache).logits, whole[:, 95:])


@torch.no_grad()
def test_layers_that_hold_different_texts_are_refused():
    model, ids = make("gemma2"), tokens(rows=1, count=60)
    with longheads.enable(model, small()):
        cache = model(ids).past_key_values
        cache.layers[0].crop(-3)
        with pytest.raises(ModelError, match="different texts"):
            model(ids[:, :1], past_key_values=cache)


@torch.no_grad()
def test_a_crop_of_rows_that_end_in_padding_is_refused():
    model, ids = make("llama-gqa"), tokens(rows=2, count=100)
    mask = torch.ones_like(ids)
    mask[1, 60:] = 0
    with longheads.enable(model, small()):
        cache = model(ids, attention_mask=mask).past_key_values
        with pytest.raises(ModelError, match="row 1 has padding behind"):
            cache.crop(-9)
        assert cache.get_seq_length() == 100


@torch.no_grad()
def test_rows_with_padding_before_them_can_be_cropped_and_selected():
    model, ids = double("llama-gqa"), tokens(rows=2, count=100)
    mask = torch.ones_like(ids)
    mask[1, :30] = 0
    with longheads.enable(model, small()):
        whole = model(ids, attention_mask=mask).logits
        cache = model(ids[:, :90], attention_mask=mask[:, :90]).past_key_values
        cache.batch_select_indices(torch.tensor([1, 0]))
        cache.crop(-9)
        turned = ids.flip(0)[:, 81:], mask.flip(0)
        rest = model(turned[0], attention_mask=turned[1], past_key_values=cache).logits
    assert_same(rest, whole.flip(0)[:, 81:])


# failures


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_an_interrupted_generate_can_be_called_again_with_the_same_cache(masked, offload):
    model, ids = double("llama-gqa"), tokens(rows=1, count=120)
    mask = torch.ones_like(ids) if masked else None
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    with longheads.enable(model, small(offload=offload)) as handle:
        fresh = model.generate(ids, **options)
        cache = handle.make_cache()
        model(ids[:, :60], past_key_values=cache)
        with failing(model.model.layers[-1].self_attn, KeyboardInterrupt):
            model.generate(ids, past_key_values=cache, **options)
        assert cache.get_seq_length() == 60
        again = model.generate(ids, past_key_values=cache, **options)
    assert again.tolist() == fresh.tolist()
    assert cache.get_seq_length() == 131


@pytest.mark.parametrize(
    "use", [lambda c: c.crop(-3), lambda c: c.batch_repeat_interleave(1)], ids=["crop", "repeat"]
)
@torch.no_grad()
def test_an_interrupted_pass_is_taken_back_by_whoever_uses_the_cache_next(use):
    model, ids = double("llama-gqa"), tokens(rows=1, count=120)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        cache = model(ids[:, :60]).past_key_values
        with failing(model.model.layers[-1].self_attn, KeyboardInterrupt):
            model(ids[:, 60:], past_key_values=cache)
        use(cache)
        start = cache.get_seq_length()
        assert start in {57, 60}
        assert_same(model(ids[:, start:], past_key_values=cache).logits, whole[:, start:])


@torch.no_grad()
def test_a_pass_whose_output_layer_fails_counts_for_nothing():
    model, ids = double("llama-gqa"), tokens(rows=1, count=120)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        cache = model(ids[:, :60]).past_key_values
        with failing(model.lm_head, torch.OutOfMemoryError):
            model(ids[:, 60:90], past_key_values=cache)
        assert cache.get_seq_length() == 60
        assert_same(model(ids[:, 60:], past_key_values=cache).logits, whole[:, 60:])


@torch.no_grad()
def test_the_decoder_alone_still_counts_after_the_whole_model_failed():
    model, ids = double("llama-gqa"), tokens(rows=1, count=90)
    with longheads.enable(model, small()) as handle:
        with failing(model.model.embed_tokens, KeyboardInterrupt):
            model(ids)
        with failing(model.model.embed_tokens, RuntimeError):
            model(ids)
        cache = handle.make_cache()
        model.model(ids[:, :50], past_key_values=cache)
        assert cache.get_seq_length() == 50
        rest = model(ids[:, 50:], past_key_values=cache).logits
        assert_same(rest, model(ids).logits[:, 50:])


# what it was made for


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"select": "random"}, "select=random"),
        ({"window": 64}, "window=64"),
        ({"compat": "official"}, "compat=official"),
        ({"chunk_rep": "mean"}, "chunk_rep=mean"),
    ],
)
@torch.no_grad()
def test_a_cache_that_was_filled_under_other_settings_is_refused(settings, said):
    model, ids = make("llama-gqa"), tokens(rows=1, count=80)
    with longheads.enable(model, small(**settings)):
        cache = model(ids[:, :60]).past_key_values
    with (
        longheads.enable(model, small()),
        pytest.raises(ModelError, match=f"made with .*{said} but"),
    ):
        model(ids[:, 60:], past_key_values=cache)


@torch.no_grad()
def test_settings_of_how_do_not_bind_a_cache():
    model, ids = make("llama-gqa"), tokens(rows=1, count=80)
    with longheads.enable(model, small(kernel="torch")):
        cache = model(ids[:, :60]).past_key_values
    with longheads.enable(model, small(kernel="auto", check_finite=False)):
        model(ids[:, 60:], past_key_values=cache)
    assert cache.get_seq_length() == 80


# memory, modes, copies


@pytest.mark.parametrize("kind", SLIDING)
@torch.no_grad()
def test_a_sliding_layer_has_no_room_for_the_whole_text(kind):
    model, ids = make(kind), tokens(rows=1, count=400)
    with longheads.enable(model, small()) as handle:
        cache = handle.make_cache(capacity_tok=20_000)
        for start in range(0, 400, 40):
            model(ids[:, start : start + 40], past_key_values=cache)
        rooms = {layer.is_sliding: layer.keys.shape[2] * 8 for layer in cache.layers}
    assert rooms[False] >= 20_000
    assert rooms[True] < 200


@pytest.mark.parametrize("offload", [False, True])
def test_a_cache_goes_on_in_another_mode(offload):
    model, ids = double("llama-gqa"), tokens(rows=1, count=120)
    with longheads.enable(model, small(offload=offload)):
        with torch.inference_mode():
            cache = model(ids[:, :60]).past_key_values
            model(ids[:, 60:61], past_key_values=cache)
            cache.batch_select_indices(torch.tensor([0, 0]))
        with torch.no_grad():
            whole = model(ids).logits
            twice = ids[:, 61:].expand(2, -1)
            rest = model(twice, past_key_values=cache).logits
    assert_same(rest, whole[:, 61:].expand(2, -1, -1))


@pytest.mark.parametrize("offload", [False, True])
@torch.no_grad()
def test_a_copy_of_a_cache_goes_its_own_way(offload):
    model, ids = double("gemma2"), tokens(rows=1, count=120)
    with longheads.enable(model, small(offload=offload)):
        whole = model(ids).logits
        cache = model(ids[:, :60]).past_key_values
        model(ids[:, 60:61], past_key_values=cache)
        twin = copy.deepcopy(cache)
        model(ids[:, :30], past_key_values=twin)
        assert (cache.get_seq_length(), twin.get_seq_length()) == (61, 91)
        assert_same(model(ids[:, 61:], past_key_values=cache).logits, whole[:, 61:])


@torch.no_grad()
def test_a_cache_is_not_stored():
    model, ids = make("llama-gqa"), tokens(rows=1, count=20)
    with longheads.enable(model, small()):
        cache = model(ids).past_key_values
    with pytest.raises(ModelError, match="cannot be stored"):
        pickle.dumps(cache)
