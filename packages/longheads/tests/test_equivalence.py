"""Ways of reading the same text that must give the same answer.

In float64, so that rounding cannot hide a mistake: what differs by more than 1e-9 is wrong.
"""

import copy
import threading
from contextlib import contextmanager

import pytest
import torch

import longheads
from longheads.testing import ALL_KINDS, small, tokens
from longheads.testing import make as make_single
from papercore.errors import ModelError
from papercore.testing import assert_close as assert_close_within


def make(kind):
    return make_single(kind).double()


def assert_close(actual, expected, what=""):
    assert_close_within(actual, expected, atol=1e-9, what=what)


def in_parts(model, ids, parts, **first):
    """Logits of a text that arrives in pieces of the given sizes."""
    cache, logits, place = first.get("past_key_values"), [], 0
    for size in parts:
        out = model(ids[:, place : place + size], past_key_values=cache)
        cache, place = out.past_key_values, place + size
        logits.append(out.logits)
    assert place == ids.shape[1]
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("kind", ALL_KINDS)
@torch.no_grad()
def test_one_shot_chunked_and_token_wise_reading_agree(kind):
    model, ids = make(kind), tokens()
    with longheads.enable(model, small()):
        whole = model(ids).logits
        assert_close(in_parts(model, ids, [1] * 150), whole, what="token by token")
        assert_close(in_parts(model, ids, [5, 8, 1, 26, 3, 50, 57]), whole, what="odd pieces")
        assert_close(in_parts(model, ids, [64, 64, 22]), whole, what="even pieces")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ALL_KINDS)
@torch.no_grad()
def test_padded_rows_equal_single_rows(kind, side):
    model, ids = make(kind), tokens(rows=3)
    lengths = [150, 61, 9]
    padded, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        span = slice(150 - length, 150) if side == "left" else slice(0, length)
        padded[row, span], mask[row, span] = ids[row, :length], 1
    with longheads.enable(model, small()):
        batch = model(padded, attention_mask=mask).logits
        for row, length in enumerate(lengths):
            single = model(ids[row : row + 1, :length]).logits[0]
            assert_close(batch[row][mask[row].bool()], single, what=f"row {row}")


@torch.no_grad()
def test_left_padded_generation_equals_single_generation():
    model, ids = make("llama-gqa"), tokens(rows=3, count=90)
    lengths = [90, 47, 1]
    padded, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        padded[row, 90 - length :], mask[row, 90 - length :] = ids[row, :length], 1
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    with longheads.enable(model, small()):
        batch = model.generate(padded, attention_mask=mask, **options)[:, 90:]
        for row, length in enumerate(lengths):
            prompt = ids[row : row + 1, :length]
            ones = torch.ones_like(prompt)
            single = model.generate(prompt, attention_mask=ones, **options)[0, length:]
            assert batch[row].tolist() == single.tolist()


@torch.no_grad()
def test_padded_rows_can_be_read_in_pieces():
    model, ids = make("llama-gqa"), tokens(rows=2, count=120)
    mask = torch.ones_like(ids)
    mask[1, :75] = 0  # the first piece of row 1 is padding only
    with longheads.enable(model, small()):
        whole = model(ids, attention_mask=mask).logits
        cache, parts = None, []
        for low, high in ((0, 60), (60, 61), (61, 120)):
            out = model(ids[:, low:high], attention_mask=mask[:, :high], past_key_values=cache)
            cache = out.past_key_values
            parts.append(out.logits)
    together = torch.cat(parts, dim=1)
    assert_close(together[mask.bool()], whole[mask.bool()])


@torch.no_grad()
def test_generate_equals_greedy_decoding_without_a_cache():
    model, ids = make("qwen3"), tokens(count=77)
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    with longheads.enable(model, small()):
        cached = model.generate(ids, attention_mask=mask, **options)
        fresh = model.generate(ids, attention_mask=mask, use_cache=False, **options)
        pieces = model.generate(ids, attention_mask=mask, prefill_chunk_size=10, **options)
    assert cached.tolist() == fresh.tolist() == pieces.tolist()


@torch.no_grad()
def test_a_second_turn_continues_the_cache():
    model, ids = make("llama-gqa"), tokens(rows=1, count=140)
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    with longheads.enable(model, small()) as handle:
        cache = handle.make_cache()
        first = model.generate(ids[:, :100], past_key_values=cache, **options)
        turn = torch.cat([first, ids[:, 100:]], dim=1)
        second = model.generate(turn, past_key_values=cache, **options)
        fresh = model.generate(turn, **options)
    assert second.tolist() == fresh.tolist()


@torch.no_grad()
def test_beam_search_equals_beam_search_without_a_cache():
    model, ids = make("llama-gqa"), tokens(rows=2, count=61)
    options = {"max_new_tokens": 21, "num_beams": 4, "do_sample": False, "pad_token_id": 0}
    with longheads.enable(model, small()):
        cached = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        fresh = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
    assert cached.tolist() == fresh.tolist()


@torch.no_grad()
def test_prompt_lookup_takes_tokens_back_and_changes_nothing():
    model, ids = make("llama-gqa"), tokens(rows=1, count=90)
    # So that lookups find something, often wrong. The repeat is not a whole number of chunks
    # away: equal chunks would tie in the first layer, and a tie may fall either way.
    ids[0, 60:] = ids[0, 21:51]
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    with longheads.enable(model, small()):
        plain = model.generate(ids, attention_mask=mask, **options)
        guessed = model.generate(ids, attention_mask=mask, prompt_lookup_num_tokens=5, **options)
    assert guessed.tolist() == plain.tolist()


@pytest.mark.parametrize("removed", [1, 5, 8, 9, 13])
@pytest.mark.parametrize("kind", ["llama-gqa", "mistral"])
@torch.no_grad()
def test_cropping_within_two_chunks_is_as_if_nothing_had_been_read(kind, removed):
    model, ids = make(kind), tokens(count=130)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        cache = model(ids[:, :95]).past_key_values
        cache.crop(-removed)
        assert cache.get_seq_length() == 95 - removed
        again = in_parts(model, ids[:, 95 - removed :], [1, 34 + removed], past_key_values=cache)
    assert_close(again, whole[:, 95 - removed :])


@torch.no_grad()
def test_cropping_again_and_again_never_uses_queries_that_are_gone():
    model, ids = make("llama-gqa"), tokens(count=130)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        cache = model(ids[:, :97]).past_key_values  # tokens 80 to 96 have kept their queries
        cache.crop(-6)  # to 91; chunk 12 took the place of chunk 9
        cache.crop(-8)
        with pytest.raises(ModelError, match="only the last 2 chunks"):
            cache.crop(-4)  # into chunk 9
        cache.crop(-3)  # to its end is fine
        assert cache.get_seq_length() == 80
        again = model(ids[:, 80:], past_key_values=cache).logits
    assert_close(again, whole[:, 80:])


@torch.no_grad()
def test_rows_of_a_cache_can_be_selected_and_repeated():
    model, ids = make("llama-gqa"), tokens(rows=3, count=100)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        cache = model(ids[:, :70]).past_key_values
        cache.batch_select_indices(torch.tensor([2, 0]))
        cache.batch_repeat_interleave(2)
        rest = model(ids[[2, 2, 0, 0], 70:], past_key_values=cache).logits
    assert_close(rest, whole[[2, 2, 0, 0], 70:])


@torch.no_grad()
def test_a_sliding_cache_forgets_old_pages_and_stays_right():
    model, ids = make_single("mistral"), tokens(rows=1, count=700)
    model.set_attn_implementation("eager")
    # Two layers of window 16 see 32 tokens back. Eager on the whole text is itself off by 3e-5 at
    # position 700, because it takes cosines of large float32 angles; on its end it is not.
    expected = model(ids[:, 600:]).logits
    with longheads.enable(model, small()):
        cache = model(ids[:, :20]).past_key_values
        parts = []
        for low in range(20, 700, 40):
            out = model(ids[:, low : low + 40], past_key_values=cache)
            parts.append(out.logits)
        assert cache.layers[0].base > 0
        assert cache.layers[0].keys.shape[2] * 8 < 300
    assert_close_within(torch.cat(parts, dim=1)[:, 640 - 20 :], expected[:, 40:])


@torch.no_grad()
def test_disabling_restores_eager_bit_for_bit():
    model, ids = make("llama-gqa"), tokens()
    model.set_attn_implementation("eager")
    before, modules = model(ids).logits, dict(model.named_modules())
    handle = longheads.enable(model, small())
    model(ids)
    longheads.disable(model)
    assert torch.equal(model(ids).logits, before)
    assert model.config._attn_implementation == "eager"
    assert all(not module._forward_pre_hooks for module in modules.values())
    assert all(not module._forward_hooks for module in modules.values())
    assert not any(hasattr(module, "longheads_state") for module in modules.values())
    handle.disable()  # twice does no harm


@torch.no_grad()
def test_an_error_inside_the_block_still_restores_the_model():
    model, ids = make("llama-gqa"), tokens()
    before = model(ids).logits
    with pytest.raises(KeyError), longheads.enable(model, small()):
        raise KeyError("x")
    assert torch.equal(model(ids).logits, before)


@torch.no_grad()
def test_two_models_do_not_disturb_each_other():
    one, two, ids = make("llama-gqa"), make("qwen3"), tokens()
    with longheads.enable(two, small(chunk_len=4, window=32)):
        alone = two(ids).logits
    plain = one(ids).logits
    with longheads.enable(two, small(chunk_len=4, window=32)):
        assert torch.equal(one(ids).logits, plain)
        with longheads.enable(one, small()):
            one(ids)
            assert torch.equal(two(ids).logits, alone)
        assert torch.equal(one(ids).logits, plain)
        assert torch.equal(two(ids).logits, alone)


def test_threads_can_share_a_model():
    model = make("llama-gqa")
    texts = [tokens(rows=1, count=90 + 10 * i, seed=i) for i in range(4)]
    with torch.no_grad(), longheads.enable(model, small()):
        expected = [model(ids).logits for ids in texts]
    with torch.no_grad(), longheads.enable(model, small()):  # afresh: nothing is prepared yet
        found = [None] * 4

        def work(index):
            with torch.no_grad():
                for _ in range(3):
                    found[index] = model(texts[index]).logits

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for mine, right in zip(found, expected, strict=True):
        assert_close(mine, right)


@contextmanager
def failing(model, error):
    """The last layer fails, after the ones before it have stored their tokens."""

    def fail(*_):
        raise error

    hook = model.model.layers[-1].self_attn.register_forward_pre_hook(fail)
    try:
        with pytest.raises(error):
            yield
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", ["llama-gqa", "gemma2"])
@pytest.mark.parametrize("start", [0, 3, 61, 64, 79, 80])
@pytest.mark.parametrize("count", [1, 7, 30, 60])
@torch.no_grad()
def test_a_pass_that_fails_takes_nothing_and_leaves_nothing(kind, start, count):
    model, ids = make(kind), tokens(rows=2)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0  # rows of two lengths
    with longheads.enable(model, small()) as handle:
        whole = model(ids, attention_mask=mask).logits
        cache = handle.make_cache()
        if start:
            model(ids[:, :start], attention_mask=mask[:, :start], past_key_values=cache)
        end = start + count
        for _ in range(2):
            with failing(model, torch.OutOfMemoryError):
                model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache)
            assert cache.get_seq_length() == start
        parts = [
            model(ids[:, low:high], attention_mask=mask[:, :high], past_key_values=cache).logits
            for low, high in ((start, end), (end, ids.shape[1]))
        ]
        kept = mask[:, start:].bool()
        assert_close(torch.cat(parts, dim=1)[kept], whole[:, start:][kept])


@torch.no_grad()
def test_a_first_pass_that_fails_leaves_room_for_another_batch():
    model, ids = make("llama-gqa"), tokens(rows=3)
    with longheads.enable(model, small()) as handle:
        cache = handle.make_cache()
        with failing(model, RuntimeError):
            model(ids, past_key_values=cache)
        assert_close(model(ids[:1], past_key_values=cache).logits, model(ids[:1]).logits)


@torch.no_grad()
def test_cropping_after_a_failed_pass_never_uses_queries_that_are_gone():
    model, ids = make("llama-gqa"), tokens(rows=1)
    with longheads.enable(model, small()):
        cache = model(ids[:, :83]).past_key_values
        with failing(model, RuntimeError):
            model(ids[:, 83:110], past_key_values=cache)
        with pytest.raises(ModelError, match="only the last 2 chunks"):
            cache.crop(-5)  # into a chunk whose queries the failed pass has overwritten
        cache.crop(-2)
        rest = model(ids[:, 81:], past_key_values=cache).logits
        assert_close(rest, model(ids).logits[:, 81:])


@torch.no_grad()
def test_an_interrupted_pass_is_as_if_it_had_never_begun():
    model, ids = make("llama-gqa"), tokens(rows=1)
    with longheads.enable(model, small()):
        whole = model(ids).logits
        cache = model(ids[:, :60]).past_key_values
        with failing(model, KeyboardInterrupt):
            model(ids[:, 60:90], past_key_values=cache)
        rest = model(ids[:, 60:], past_key_values=cache).logits
        assert_close(rest, whole[:, 60:])
    with pytest.raises(ModelError, match="only LongHeads can read it"):
        model(ids, past_key_values=cache)
    cache.reset()
    with longheads.enable(model, small()):
        model(ids, past_key_values=cache)


@torch.no_grad()
def test_columns_of_padding_only_can_come_one_by_one():
    model, ids = make("llama-gqa"), tokens(rows=2, count=60)
    mask = torch.ones_like(ids)
    mask[:, :5] = 0
    with longheads.enable(model, small()):
        whole = model(ids, attention_mask=mask).logits
        cache, parts = None, []
        for place in range(60):
            piece = ids[:, place : place + 1]
            out = model(piece, attention_mask=mask[:, : place + 1], past_key_values=cache)
            cache = out.past_key_values
            parts.append(out.logits)
    assert_close(torch.cat(parts, dim=1)[:, 5:], whole[:, 5:])


@torch.no_grad()
def test_a_base_model_without_a_head_works():
    model, ids = make("llama-gqa"), tokens()
    with longheads.enable(model, small()):
        hidden = model.model(ids).last_hidden_state
        logits = model(ids).logits
    assert_close(model.lm_head(hidden), logits)


def test_an_enabled_model_is_not_copied():
    model = make("llama-gqa")
    with longheads.enable(model, small()), pytest.raises(RuntimeError, match="cannot be copied"):
        copy.deepcopy(model)
