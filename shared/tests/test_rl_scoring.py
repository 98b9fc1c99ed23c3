"""Log-probabilities of generated tokens against the full forward pass of real classes."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from papercore.errors import ModelError
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.rollouts import pack
from papercore.rl.scoring import chunked_logps, score_all
from papercore.rl.trunk import Head, hidden_states, require_halves, trunk_of
from papercore.testing import assert_close, tiny_model
from papercore.testing.fixtures import one_thread  # noqa: F401 - autouse
from papercore.testing.rollouts import FAMILIES, some_rollouts

SIZES = [(3, 5), (20, 2), (1, 1), (4, 17)]


def one_by_one(model, rollouts, *, temperature=1.0):
    """Log-probabilities and entropies from all logits of one row at a time."""
    logps, entropies = [], []
    for one in rollouts:
        ids = torch.tensor([one.prompt + one.response])
        logits_TV = model(input_ids=ids).logits[0].double() / temperature
        logps_TV = logits_TV.log_softmax(-1)
        for place in range(len(one.prompt), ids.shape[1]):
            logps.append(logps_TV[place - 1, ids[0, place]])
            entropies.append(-(logps_TV[place - 1].exp() * logps_TV[place - 1]).sum())
    return torch.stack(logps), torch.stack(entropies)


def linear_case(num=13, width=6, vocabulary=50):
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(num, width, generator=generator, dtype=torch.float64)
    weight_VD = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    targets_N = torch.randint(vocabulary, (num,), generator=generator)
    return hidden_ND.requires_grad_(), weight_VD.requires_grad_(), targets_N


def test_two_tokens_by_hand():
    logits_NV = torch.tensor([[0.0, math.log(3)]])
    logps_N, entropy_N = chunked_logps(logits_NV, lambda x: x, torch.tensor([1]))
    assert logps_N.item() == pytest.approx(math.log(3 / 4))
    assert entropy_N.item() == pytest.approx(2 * math.log(2) - 3 / 4 * math.log(3))


def test_temperature_by_hand():
    logits_NV = torch.tensor([[0.0, math.log(9)]])
    logps_N, _ = chunked_logps(logits_NV, lambda x: x, torch.tensor([0]), temperature=2.0)
    assert logps_N.item() == pytest.approx(math.log(1 / 4))


@pytest.mark.parametrize("chunk", [1, 2, 5, 12, 13, 100])
def test_chunks_change_neither_values_nor_gradients(chunk):
    weights_N = torch.arange(13.0).double()
    results = []
    for size in (13, chunk):
        hidden_ND, weight_VD, targets_N = linear_case()
        logps_N, entropy_N = chunked_logps(
            hidden_ND, lambda x, w=weight_VD: x @ w.T, targets_N, temperature=0.7, chunk=size
        )
        ((logps_N + 0.3 * entropy_N) * weights_N).sum().backward()
        results.append((logps_N, entropy_N, hidden_ND.grad, weight_VD.grad))
    for ours, whole in zip(results[1], results[0], strict=True):
        assert_close(ours, whole, atol=1e-12)


def test_values_and_gradients_are_those_of_the_formula():
    hidden_ND, weight_VD, targets_N = linear_case()
    logps_N, entropy_N = chunked_logps(hidden_ND, lambda x: x @ weight_VD.T, targets_N, chunk=4)
    found = torch.autograd.grad(logps_N.sum() + 2 * entropy_N.sum(), [hidden_ND, weight_VD])
    probs_NV = torch.exp(hidden_ND @ weight_VD.T)
    probs_NV = probs_NV / probs_NV.sum(-1, keepdim=True)
    wanted_N = probs_NV[torch.arange(13), targets_N].log()
    wanted_entropy_N = -(probs_NV * probs_NV.log()).sum(-1)
    wanted = torch.autograd.grad(
        wanted_N.sum() + 2 * wanted_entropy_N.sum(), [hidden_ND, weight_VD]
    )
    assert_close(logps_N, wanted_N, atol=1e-12)
    assert_close(entropy_N, wanted_entropy_N, atol=1e-12)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(ours, theirs, atol=1e-10)


def test_no_tensor_of_all_rows_by_the_vocabulary_lives():
    hidden_ND, weight_VD, targets_N = linear_case(num=40, vocabulary=500)
    sizes, calls = [], []

    def head(x):
        calls.append(len(x))
        return x @ weight_VD.T

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logps_N, entropy_N = chunked_logps(hidden_ND, head, targets_N, chunk=8)
    assert calls == [8] * 5
    assert max(sizes) < 8 * 500  # not even a chunk of logits waits for the backward pass
    (logps_N.sum() + entropy_N.sum()).backward()
    assert calls == [8] * 10


def test_without_gradients_nothing_is_computed_twice():
    hidden_ND, weight_VD, targets_N = linear_case()
    calls = []
    with torch.no_grad():
        chunked_logps(hidden_ND, lambda x: calls.append(1) or x @ weight_VD.T, targets_N, chunk=4)
    assert len(calls) == 4


def test_half_precision_logits_are_summed_in_float32():
    logits_NV = torch.zeros(3, 30_000, dtype=torch.bfloat16)
    logps_N, entropy_N = chunked_logps(logits_NV, lambda x: x, torch.tensor([0, 1, 2]))
    assert logps_N.dtype == entropy_N.dtype == torch.float32
    assert_close(logps_N, torch.full((3,), -math.log(30_000)))
    assert_close(entropy_N, torch.full((3,), math.log(30_000)))


def test_a_token_that_cannot_come_leaves_entropy_and_gradient_finite():
    logits_NV = torch.tensor([[1.0, 1.0, -torch.inf]], requires_grad=True)
    logps_N, entropy_N = chunked_logps(logits_NV, lambda x: x * 1.0, torch.tensor([0]))
    assert entropy_N.item() == pytest.approx(math.log(2))
    (logps_N + entropy_N).sum().backward()
    assert logits_NV.grad.isfinite().all()


def test_entropy_is_left_out_when_nobody_wants_it():
    hidden_ND, weight_VD, targets_N = linear_case()
    score = partial(chunked_logps, hidden_ND, lambda x: x @ weight_VD.T, targets_N, chunk=4)
    logps_N, entropy_N = score(entropy=False)
    assert entropy_N.numel() == 0
    assert torch.equal(logps_N, score()[0])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_scores_like_each_row_alone(family, temperature):
    model = tiny_model(family)
    rollouts = some_rollouts(SIZES)
    policy = ActorCritic.build(model, reference="none")
    scored = policy(pack(rollouts, pad_id=0), temperature=temperature)
    wanted_N, wanted_entropy_N = one_by_one(model, rollouts, temperature=temperature)
    assert_close(scored.logps_N, wanted_N, atol=2e-4)
    assert_close(scored.entropy_N, wanted_entropy_N, atol=2e-4)


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_what_a_class_does_with_its_logits_matters_here(family):
    """Otherwise the test above would not see it."""
    model = tiny_model(family)
    batch = pack(some_rollouts(SIZES), pad_id=0)
    hidden_BTD = hidden_states(trunk_of(model), batch)
    hidden_ND = hidden_BTD[batch.row_N, batch.at_N - 1]
    bare_N, _ = chunked_logps(hidden_ND, model.get_output_embeddings(), batch.targets_N)
    right_N, _ = chunked_logps(hidden_ND, Head(model), batch.targets_N)
    assert (bare_N - right_N).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_full_pass(family):
    rollouts = some_rollouts(SIZES)
    ours, theirs = tiny_model(family), tiny_model(family)
    scored = ActorCritic.build(ours, reference="none")(pack(rollouts, pad_id=0))
    scored.logps_N.sum().backward()
    one_by_one(theirs, rollouts)[0].sum().backward()
    grads = {name: one.grad for name, one in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        scale = max(1.0, grads[name].abs().max().item())
        assert_close(parameter.grad / scale, grads[name] / scale, atol=1e-4, what=name)


def test_the_padding_token_plays_no_part():
    policy = ActorCritic.build(tiny_model(), reference="none")
    rollouts = some_rollouts(SIZES)
    first, second = (policy(pack(rollouts, pad_id=pad)) for pad in (0, 200))
    assert_close(first.logps_N, second.logps_N, atol=1e-6)


def test_the_head_leaves_the_model_as_it_is():
    model = tiny_model("gemma2")
    before = dict(model.named_modules())
    Head(model)(torch.randn(2, 32))
    assert dict(model.named_modules()) == before
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_the_head_reads_weights_as_they_are_now():
    model = tiny_model()
    head, hidden_ND = Head(model), torch.randn(2, 32)
    before_NV = head(hidden_ND)
    with torch.no_grad():
        model.lm_head.weight.mul_(2.0)
    assert_close(head(hidden_ND), 2 * before_NV)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(ModelError, match="has no output head: load a causal language model"):
        trunk_of(tiny_model().model)


def test_a_class_whose_logits_need_more_than_hidden_states_is_refused():
    class Odd(LlamaForCausalLM):
        def forward(self, input_ids=None, **given):
            outputs = super().forward(input_ids=input_ids, **given)
            if input_ids is not None:
                outputs.logits = outputs.logits + input_ids[..., None]
            return outputs

    with pytest.raises(ModelError, match="Odd does not divide into trunk and head"):
        require_halves(Odd(tiny_model().config))


def test_scores_of_many_are_those_of_each():
    policy = ActorCritic.build(tiny_model())
    nn.init.normal_(policy.value_head.weight)
    rollouts = some_rollouts([*SIZES, (2, 3), (9, 9), (5, 1)])
    scores = score_all(
        policy,
        rollouts,
        pad_id=0,
        temperature=0.8,
        micro_batch=3,
        what=("logps", "entropy", "values", "reference"),
    )
    for row, one in enumerate(rollouts):
        alone = policy(pack([one], pad_id=0), temperature=0.8, reference=True)
        length = len(one.response)
        assert_close(scores.logps_BG[row, :length], alone.logps_N)
        assert_close(scores.entropy_BG[row, :length], alone.entropy_N)
        assert_close(scores.values_BG[row, :length], alone.values_N)
        assert_close(scores.ref_logps_BG[row, :length], alone.ref_logps_N)
        assert_close(scores.end_values_B[row : row + 1], alone.end_values_B)
        assert not scores.logps_BG[row, length:].any()
        assert not scores.values_BG[row, length:].any()


def test_scores_compute_what_was_asked_for_only():
    policy = ActorCritic.build(tiny_model(), reference="none")
    calls = []
    policy.actor.lm_head.register_forward_hook(lambda *_: calls.append(1))
    scores = score_all(policy, some_rollouts(SIZES), pad_id=0, what=["values"])
    assert not calls
    assert scores.values_BG.shape == (4, 17)
    assert scores.end_values_B.shape == (4,)
    assert scores.logps_BG.numel() == scores.entropy_BG.numel() == scores.ref_logps_BG.numel() == 0
    scores = score_all(policy, some_rollouts(SIZES), pad_id=0, what=["logps"])
    assert scores.logps_BG.shape == (4, 17)
    assert scores.values_BG.numel() == scores.end_values_B.numel() == 0


def test_scores_hold_no_graph():
    scores = score_all(ActorCritic.build(tiny_model()), some_rollouts(SIZES), pad_id=0)
    assert not scores.logps_BG.requires_grad
    assert not scores.values_BG.requires_grad


def test_a_process_may_have_no_rollouts():
    scores = score_all(ActorCritic.build(tiny_model()), [], pad_id=0)
    assert scores.logps_BG.shape == scores.values_BG.shape == (0, 0)
    assert scores.end_values_B.shape == (0,)
