"""What LongHeads refuses, each with one line that says why."""

import logging

import pytest
import torch
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
)

import longheads
from longheads import LongHeadsConfig
from longheads.testing import make, small, tokens
from papercore.errors import ConfigError, ModelError
from papercore.testing import assert_close, tiny_model


def refused(match):
    """One line that matches."""
    return pytest.raises(ModelError, match=match)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chunk_len": 10, "window": 45}, "not a multiple"),
        ({"chunk_len": 16, "window": 48}, "fewer than 4 chunks"),
        ({"chunks": 3}, "greater than or equal to 4"),
        ({"chunks": 8, "window": 64}, "give one of them"),
        ({"chunk_len": 1}, "greater than or equal to 2"),
        ({"chunk_rep": "max"}, "Input should be"),
        ({"chunk_length": 8}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(change, reason):
    with pytest.raises(ValueError, match=reason):
        LongHeadsConfig(**change)


def test_auto_window_that_cannot_hold_four_chunks():
    with pytest.raises(ConfigError, match="use chunk_len <= 64"):
        longheads.enable(make("llama"), LongHeadsConfig(chunk_len=256))


def test_auto_window_is_half_of_the_trained_length():
    model = tiny_model("llama", max_position_embeddings=4096)
    assert longheads.enable(model, LongHeadsConfig()).window == 2048
    assert longheads.WINDOWS["author-passkey"].window == 2048
    assert longheads.WINDOWS["official-readme"].window == 4096


def test_a_window_beyond_the_trained_length_warns_with_the_number(caplog):
    with caplog.at_level(logging.WARNING):
        longheads.enable(make("llama"), LongHeadsConfig(chunk_len=8, window=1024))
    assert "1024 is longer than the 512 tokens" in caplog.text


def test_a_model_with_sliding_layers_only_warns(caplog):
    with caplog.at_level(logging.WARNING):
        longheads.enable(make("mistral"), small())
    assert "changes nothing" in caplog.text


def test_unproved_and_impossible_models_are_refused_by_name():
    with refused("'gpt2' is refused: absolute positions"):
        longheads.enable(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9)))
    neox = GPTNeoXConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, vocab_size=9)
    with refused("'gpt_neox' is refused: nobody has proved"):
        longheads.enable(GPTNeoXForCausalLM(neox))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rope_types_that_depend_on_the_length_are_refused(kind):
    extra = {"dynamic": {"factor": 2.0}}.get(
        kind, {"factor": 2.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    )
    parameters = {"rope_type": kind, "rope_theta": 1e4, "original_max_position_embeddings": 64}
    config = LlamaConfig(
        num_hidden_layers=1,
        hidden_size=16,
        intermediate_size=8,
        num_attention_heads=2,
        vocab_size=9,
        max_position_embeddings=128,
        rope_parameters={**parameters, **extra},
    )
    with refused(f"rope type '{kind}' is refused"):
        longheads.enable(LlamaForCausalLM(config))


def test_enabling_twice_and_disabling_nothing_are_refused():
    model = make("llama")
    with refused("not enabled"):
        longheads.disable(model)
    with longheads.enable(model, small()), refused("enabled on this model already"):
        longheads.enable(model, small())


@torch.no_grad()
def test_caches_of_other_implementations_are_refused():
    model, ids = make("llama"), tokens()
    foreign = model(ids, past_key_values=DynamicCache(config=model.config)).past_key_values
    with longheads.enable(model, small()):
        with refused("filled by another attention implementation"):
            model(ids, past_key_values=foreign)
        static = StaticCache(config=model.config, max_cache_len=64)
        with refused("StaticCache is not supported"):
            model(ids, past_key_values=static)
        own = model(ids).past_key_values
    with refused("only LongHeads can read it"):
        model(ids, past_key_values=own)
    with longheads.enable(make("llama"), small()) as other, refused("filled by another model"):
        other.model(ids, past_key_values=own)
    with longheads.enable(model, small()), refused("holds 2 rows but the batch has 1"):
        model(ids[:1], past_key_values=own)
    with longheads.enable(model, small(chunk_len=4)), refused("made with chunk_len=8"):
        model(ids, past_key_values=own)


@torch.no_grad()
def test_changing_the_implementation_under_way_is_refused():
    model, ids = make("llama"), tokens()
    with longheads.enable(model, small()):
        model.set_attn_implementation("sdpa")
        with refused("set to 'sdpa' while LongHeads is enabled"):
            model(ids)


def test_training_and_gradients_are_refused():
    model, ids = make("llama"), tokens()
    with longheads.enable(model, small()):
        with refused("torch.no_grad"):
            model(ids)
        model.train()
        with torch.no_grad(), refused(r"model\.eval"):
            model(ids)


@torch.no_grad()
def test_masks_and_positions_that_are_not_padding_are_refused():
    model, ids = make("llama"), tokens(count=50)
    hole = torch.ones_like(ids)
    hole[0, 20] = 0
    with longheads.enable(model, small()):
        with refused("row 0 has masked tokens between"):
            model(ids, attention_mask=hole)
        with refused("2-D attention_mask"):
            model(ids, attention_mask=torch.ones(2, 1, 50, 50))
        packed = torch.cat([torch.arange(20), torch.arange(30)]).expand(2, -1)
        with refused("row 0 jump"):
            model(ids, position_ids=packed)
        cache = model(ids).past_key_values
        with refused("must cover the tokens in the cache"):
            model(ids, attention_mask=torch.ones_like(ids), past_key_values=cache)


@torch.no_grad()
def test_cropping_too_far_is_refused_and_changes_nothing():
    model, ids = make("llama"), tokens()
    with longheads.enable(model, small()):
        cache = model(ids[:, :95]).past_key_values
        with refused("only the last 2 chunks"):
            cache.crop(-28)
        assert cache.get_seq_length() == 95
        model(ids[:, 95:], past_key_values=cache)


@torch.no_grad()
def test_nan_activations_are_named_and_the_cache_stays_good():
    model, ids = make("llama"), tokens(count=100)
    with longheads.enable(model, small()):
        good = model(ids[:, :90]).past_key_values
        weight = model.model.layers[1].self_attn.q_proj.weight
        before = float(weight[0, 0])
        weight[0, 0] = float("nan")
        with refused("layer 1: chunk scores are not finite"):
            model(ids)
        with refused("not finite"):
            model(ids[:, 90:], past_key_values=good)
        weight[0, 0] = before
        rest = model(ids[:, 90:], past_key_values=good).logits
        assert_close(rest, model(ids).logits[:, 90:])


@torch.no_grad()
def test_an_empty_prompt_and_attention_weights_are_refused():
    model, ids = make("llama"), tokens()
    with longheads.enable(model, small()):
        with refused("the prompt is empty"):
            model(ids[:, :0])
        with refused("no matrix of attention weights"):
            model(ids, output_attentions=True)


@torch.no_grad()
def test_a_row_of_padding_only_is_allowed():
    model, ids = make("llama"), tokens(count=60)
    mask = torch.ones_like(ids)
    mask[1] = 0
    with longheads.enable(model, small()):
        batch = model(ids, attention_mask=mask).logits
        single = model(ids[:1]).logits
    assert torch.allclose(batch[0], single[0], atol=1e-6)
    assert batch.isfinite().all()
