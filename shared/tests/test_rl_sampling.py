"""The decode loop: each rollout is its own, whatever is generated beside it."""

import itertools
import logging
import math
from functools import wraps

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn
from transformers import (
    GenerationConfig,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from papercore.errors import ConfigError, DataError, ModelError
from papercore.rl import decoding
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.drawing import draw, uniforms
from papercore.rl.lora import LoraSpec, merged
from papercore.rl.rollouts import pack
from papercore.rl.sampling import sample
from papercore.rl.settings import Sampling
from papercore.testing import tiny_model
from papercore.testing.fixtures import one_thread  # noqa: F401 - autouse
from papercore.testing.rollouts import FAMILIES, some_rollouts
from papercore.tiny import seeded

NEVER = frozenset({10_000})
SIZES = [3, 20, 1, 7, 7, 30, 2]
PROMPTS = [one.prompt for one in some_rollouts([(size, 1) for size in SIZES])]
SEEDS = [11, 12, 13, 14, 15, 16, 17]


def drawn(model, prompts=PROMPTS, seeds=SEEDS, *, eos=NEVER, num=12, pad=0, **changes):
    sampling = Sampling(max_new_tokens=num, eos_ids=frozenset(eos), **changes)
    return sample(model, prompts, seeds, sampling=sampling, pad_id=pad)


def assert_same(found, wanted, *, atol=1e-4):
    assert [one.response for one in found] == [one.response for one in wanted]
    assert [one.prompt for one in found] == [one.prompt for one in wanted]
    assert [one.ended for one in found] == [one.ended for one in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.logps == pytest.approx(theirs.logps, abs=atol)


def batch_sizes(model):
    """Grows by the rows and tokens of each pass of a model."""
    sizes = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, given: sizes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    return sizes


@pytest.mark.parametrize(
    ("number", "token"),
    [(0.0, 0), (0.19, 0), (0.21, 1), (0.49, 1), (0.51, 3), (1 - 2**-53, 3)],
)
def test_the_token_is_where_the_distribution_passes_the_number(number, token):
    probs = torch.tensor([[0.2, 0.3, 0.0, 0.5, 0.0]])
    tokens_B, logps_B = draw(
        probs.log(), torch.tensor([number], dtype=torch.float64), temperature=1.0
    )
    assert tokens_B.item() == token
    assert logps_B.item() == pytest.approx(math.log(probs[0, token]), abs=1e-6)


def test_no_number_draws_a_token_that_cannot_come():
    logits_BV = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).repeat(3, 1)
    numbers_B = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits_BV, numbers_B, temperature=1.0)[0].tolist() == [1, 1, 1]


def test_a_rare_token_comes_as_often_as_it_should():
    logits_BV = torch.tensor([[0.0, math.log(1e-9)]]).repeat(2, 1)
    numbers_B = torch.tensor([1 - 2e-9, 1 - 5e-10], dtype=torch.float64)
    assert draw(logits_BV, numbers_B, temperature=1.0)[0].tolist() == [0, 1]


@given(st.integers(2, 3000), st.integers(0, 2**32 - 1))
def test_the_largest_number_draws_a_token(num, seed):
    generator = torch.Generator().manual_seed(seed)
    logits_BV = 5 * torch.randn(1, num, generator=generator)
    logits_BV[:, -1] = -torch.inf
    number_B = torch.tensor([1 - 2**-53], dtype=torch.float64)
    tokens_B, logps_B = draw(logits_BV, number_B, temperature=1.0)
    assert tokens_B.item() < num - 1
    assert logps_B.isfinite()


@given(
    st.lists(st.floats(-8, 8), min_size=1, max_size=40),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.3, 1.0, 2.0]),
)
def test_a_draw_is_the_inverse_of_the_distribution(logits, number, temperature):
    weights = [math.exp(one / temperature) for one in logits]
    below, wanted = 0.0, 0
    for wanted, weight in enumerate(weights):  # noqa: B007
        below += weight / math.fsum(weights)
        if below > number:
            break
    near = any(
        abs(math.fsum(weights[:end]) / math.fsum(weights) - number) < 1e-12
        for end in range(len(weights) + 1)
    )
    tokens_B, logps_B = draw(
        torch.tensor([logits], dtype=torch.float64),
        torch.tensor([number], dtype=torch.float64),
        temperature=temperature,
    )
    assert near or tokens_B.item() == wanted
    share = weights[tokens_B.item()] / math.fsum(weights)
    assert logps_B.item() == pytest.approx(math.log(share), abs=1e-5)


def test_temperature_zero_takes_the_most_likely_token():
    logits_BV = torch.tensor([[0.0, 2.0, 1.0]])
    tokens_B, logps_B = draw(logits_BV, torch.zeros(1).double(), temperature=0.0)
    assert tokens_B.item() == 1
    assert logps_B.item() == pytest.approx(logits_BV.log_softmax(-1)[0, 1].item())


def test_a_row_has_its_numbers_by_its_seed_alone():
    numbers_BG = uniforms([5, 0, 2**70], 8)
    assert torch.equal(numbers_BG[:1], uniforms([5], 8))
    assert torch.equal(numbers_BG[:, :3], uniforms([5, 0, 2**70], 3))
    assert len(set(numbers_BG.flatten().tolist())) == 24
    assert 0 <= numbers_BG.min() <= numbers_BG.max() < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_rollouts_are_those_of_generate(family):
    model = tiny_model(family)
    config = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    found = drawn(model, temperature=0.0)
    for one in found:
        ids = torch.tensor([one.prompt])
        mask = torch.ones_like(ids)
        whole = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        assert (*one.prompt, *one.response) == tuple(whole[0].tolist())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_that_the_update_computes(family, temperature):
    model = tiny_model(family)
    rollouts = drawn(model, temperature=temperature)
    scored = ActorCritic.build(model, reference="none")(
        pack(rollouts, pad_id=0), temperature=temperature
    )
    found = [logp for one in rollouts for logp in one.logps]
    assert found == pytest.approx(scored.logps_N.tolist(), abs=3e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rollout_alone_is_that_of_the_batch(family):
    model, eos = tiny_model(family), range(0, 259, 9)
    together = drawn(model, eos=eos, num=20)
    alone = [
        drawn(model, [prompt], [seed], eos=eos, num=20)[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert_same(together, alone)
    assert len({len(one.response) for one in together}) > 2  # rows did leave at different times


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)), st.integers(1, 7), st.integers(1, 8), st.sampled_from([0.0, 1.0]))
def test_order_company_and_batch_size_do_not_matter(order, num, max_rows, temperature):
    model, eos = tiny_model(), range(0, 259, 9)
    whole = drawn(model, eos=eos, temperature=temperature)
    chosen = order[:num]
    some = drawn(
        model,
        [PROMPTS[row] for row in chosen],
        [SEEDS[row] for row in chosen],
        eos=eos,
        temperature=temperature,
        max_rows=max_rows,
    )
    assert_same(some, [whole[row] for row in chosen])


def test_a_seed_decides():
    first, again, other = (
        drawn(tiny_model(), PROMPTS[:1] * 3, seeds) for seeds in ([1, 2, 3], [1, 2, 3], [4, 5, 6])
    )
    assert_same(again, first, atol=0)
    assert len({one.response for one in [*first, *other]}) == 6


@torch.no_grad()
def test_frequencies_are_those_of_the_model():
    model = tiny_model(vocab_size=12)
    prompt, num = (3, 1, 4), 3000
    rollouts = drawn(model, [prompt] * num, range(num), num=2, temperature=1.5, max_rows=num)
    logits_V = model(torch.tensor([prompt])).logits[0, -1] / 1.5
    seen = torch.bincount(torch.tensor([one.response[0] for one in rollouts]), minlength=12)
    assert chisquare(seen, num * logits_V.double().softmax(-1)).pvalue > 0.01
    first = int(seen.argmax())
    logits_V = model(torch.tensor([[*prompt, first]])).logits[0, -1] / 1.5
    second = [one.response[1] for one in rollouts if one.response[0] == first]
    seen = torch.bincount(torch.tensor(second), minlength=12)
    assert chisquare(seen, len(second) * logits_V.double().softmax(-1)).pvalue > 0.01


def test_equal_prompts_are_read_once():
    model = tiny_model()
    sizes = batch_sizes(model)
    drawn(model, [PROMPTS[0], PROMPTS[3]] * 4, range(8), num=3)
    assert sizes == [(2, 7), (8, 1), (8, 1)]


def test_equal_prompts_share_a_batch():
    model = tiny_model()
    sizes = batch_sizes(model)
    drawn(model, [PROMPTS[3], PROMPTS[4]] * 2, range(4), num=2, max_rows=2)
    assert sizes == [(1, 7), (2, 1)] * 2


def test_rows_that_ended_leave_the_batch():
    model = tiny_model()
    sizes = batch_sizes(model)
    rollouts = drawn(model, PROMPTS[:1] * 32, range(32), eos=range(0, 259, 5), num=40)
    lengths = sorted(len(one.response) for one in rollouts)
    assert len(sizes) == lengths[-1]
    for place, (rows, _) in enumerate(sizes[1:], start=1):
        going = sum(length > place for length in lengths)
        assert going <= rows
        assert (rows - going) / rows < 0.25


def test_batches_hold_no_more_rows_than_allowed():
    model = tiny_model()
    sizes = batch_sizes(model)
    drawn(model, max_rows=3, num=2)
    assert max(rows for rows, _ in sizes) == 3
    assert [width for _, width in sizes] == [30, 1, 7, 1, 1, 1]


def test_each_end_of_sequence_token_ends_a_rollout_and_is_part_of_it():
    model = tiny_model()
    free = drawn(model)
    stops = {free[0].response[4], free[1].response[2]}
    for one, whole in zip(drawn(model, eos=stops), free, strict=True):
        ends = [place for place, token in enumerate(whole.response) if token in stops]
        assert one.ended == bool(ends)
        assert one.response == whole.response[: ends[0] + 1 if ends else 12]


def test_an_end_at_the_last_place_is_an_end():
    model = tiny_model()
    whole = drawn(model)[0]
    stop = next(token for token in whole.response if whole.response.count(token) == 1)
    length = whole.response.index(stop) + 1
    assert drawn(model, PROMPTS[:1], SEEDS[:1], eos={stop}, num=length)[0].ended
    assert not drawn(model, PROMPTS[:1], SEEDS[:1], num=length)[0].ended


def test_prompt_and_response_stay_below_the_length_limit():
    free = drawn(tiny_model(), num=12)
    for one, whole in zip(drawn(tiny_model(), max_length=31), free, strict=True):
        assert len(one.response) == min(12, 31 - len(one.prompt))
        assert one.response == whole.response[: len(one.response)]
        assert not one.ended


def test_positions_of_the_model_are_a_limit_too():
    rollouts = drawn(tiny_model("gpt2", max_position_embeddings=33), num=20)
    assert [len(one.response) for one in rollouts] == [min(20, 33 - size) for size in SIZES]


@pytest.mark.parametrize("changes", [{"max_length": 20}, {"max_length": 7}])
def test_a_prompt_that_leaves_no_room_is_named(changes):
    row = next(i for i, size in enumerate(SIZES) if size >= changes["max_length"])
    with pytest.raises(DataError, match=f"prompt {row} has {SIZES[row]} tokens.*max_length"):
        drawn(tiny_model(), **changes)


def test_a_prompt_beyond_the_models_positions_is_named():
    with pytest.raises(DataError, match=r"prompt 5 has 30 tokens.*the model's own length limit"):
        drawn(tiny_model("gpt2", max_position_embeddings=30))


@pytest.mark.parametrize(
    ("prompts", "seeds", "message"),
    [
        ([(1,), ()], [0, 1], "prompt 1 is empty"),
        ([(1,), (2, 259)], [0, 1], "prompt 1 holds token 259, the model has 0 to 258"),
        ([(1, -1)], [0], "prompt 0 holds token -1"),
        ([(1,)], [-3], "seed -3 of prompt 0 is negative"),
        ([(1,)], [0, 1], "2 seeds for 1 prompts"),
    ],
)
def test_what_cannot_be_continued_is_said(prompts, seeds, message):
    with pytest.raises(DataError, match=message):
        drawn(tiny_model(), prompts, seeds)


def test_a_padding_token_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="pad_id=259 is no token"):
        drawn(tiny_model(), pad=259)


def test_nothing_asked_for_gives_nothing():
    assert drawn(tiny_model(), [], []) == []


def test_the_checkpoints_generation_settings_play_no_part():
    plain, loud = tiny_model(), tiny_model()
    loud.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.01,
        top_k=1,
        top_p=0.1,
        repetition_penalty=9.0,
        max_new_tokens=2,
        eos_token_id=list(range(100)),
    )
    assert_same(drawn(loud), drawn(plain), atol=0)
    assert loud.generation_config.top_k == 1


@pytest.mark.parametrize("pad", [0, 7, 258])
def test_any_token_pads_even_one_that_prompts_hold_or_that_ends_them(pad):
    prompts = [(pad, 5, pad), (pad,), (4, pad, 9, 9, 1, pad), (8, 7, 6, 5)]
    alone = [drawn(tiny_model(), [one], [3], eos={pad}, pad=1)[0] for one in prompts]
    assert_same(drawn(tiny_model(), prompts, [3] * 4, eos={pad}, pad=pad), alone)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_stop_it(broken):
    model = tiny_model()
    nn.init.constant_(model.lm_head.weight, broken)
    with pytest.raises(ModelError, match=r"logits for prompt \d are not finite at token 1"):
        drawn(model)


def test_a_model_in_training_is_sampled_without_dropout_and_left_in_training():
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    wanted = drawn(model)
    model.train()
    assert_same(drawn(model), wanted)
    assert model.training


def test_an_adapter_takes_part():
    torch.manual_seed(0)
    lora = LoraSpec(4, 8.0, ("q_proj", "v_proj"))
    policy = ActorCritic.build(tiny_model(), lora=lora, critic="separate")
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    rollouts = drawn(policy.actor)
    assert_same(rollouts, drawn(merged(policy)), atol=1e-3)
    assert [one.response for one in rollouts] != [one.response for one in drawn(tiny_model())]


def test_no_hooks_and_no_gradients_are_left():
    model = tiny_model()
    rollouts = drawn(model)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    model(torch.tensor([rollouts[0].prompt])).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_a_batch_that_does_not_fit_is_generated_in_halves(caplog):
    model = tiny_model()
    wanted = drawn(model)

    def full(_, args, given):
        if len(given["input_ids"]) > 2:
            raise torch.OutOfMemoryError("no room")

    model.base_model.register_forward_pre_hook(full, with_kwargs=True)
    with caplog.at_level(logging.WARNING):
        assert_same(drawn(model), wanted)
    assert "out of memory: 7 rollouts are generated in halves" in caplog.text


def test_a_rollout_that_does_not_fit_is_one_line():
    model = tiny_model()

    def full(*_):
        raise torch.OutOfMemoryError("no room")

    model.base_model.register_forward_pre_hook(full)
    with pytest.raises(ModelError, match="out of memory with one rollout of 30 tokens"):
        drawn(model)


def tiny_mamba():
    config = MambaConfig(
        vocab_size=259, hidden_size=16, state_size=4, num_hidden_layers=2, initializer_range=0.5
    )
    return seeded(MambaForCausalLM, config, 0)


def tiny_hybrid():
    config = Lfm2Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.2,
        pad_token_id=0,
    )
    return seeded(Lfm2ForCausalLM, config, 0)


@pytest.mark.parametrize("make", [tiny_mamba, tiny_hybrid])
def test_other_memories_than_attention_work_too(make):
    model, eos = make(), range(0, 259, 9)
    prompts, seeds = [*PROMPTS, *PROMPTS[:3]], [*SEEDS, 1, 2, 3]
    together = drawn(model, prompts, seeds, eos=eos)
    alone = [
        drawn(model, [prompt], [seed], eos=eos)[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert_same(together, alone, atol=1e-3)
    scored = ActorCritic.build(model, reference="none")(pack(together, pad_id=0))
    found = [logp for one in together for logp in one.logps]
    assert found == pytest.approx(scored.logps_N.tolist(), abs=1e-3)


def test_a_cache_that_cannot_be_taken_apart_is_said_once_and_done_without(caplog):
    decoding._say_slow.cache_clear()
    with caplog.at_level(logging.WARNING, logger="papercore"):
        drawn(tiny_mamba(), num=2, max_rows=3)
    said = [one.getMessage() for one in caplog.records if one.name.startswith("papercore")]
    assert len(said) == 1
    assert "MambaForCausalLM has no cache whose rows can be taken apart" in said[0]


def test_reading_all_tokens_again_gives_the_same_rollouts():
    class Forgetful(GPT2LMHeadModel):
        @wraps(GPT2LMHeadModel.forward)
        def forward(self, *args, **given):
            outputs = super().forward(*args, **given)
            outputs.past_key_values = None
            return outputs

    model = tiny_model("gpt2", max_position_embeddings=33)
    forgetful = Forgetful(model.config).eval()
    forgetful.load_state_dict(model.state_dict())
    prompts, seeds = [*PROMPTS, *PROMPTS[:3]], range(10)
    for num, eos in itertools.product((1, 20), (NEVER, range(0, 259, 9))):
        assert_same(
            drawn(forgetful, prompts, seeds, eos=eos, num=num),
            drawn(model, prompts, seeds, eos=eos, num=num),
        )
