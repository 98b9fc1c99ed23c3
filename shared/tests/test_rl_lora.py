"""Adapters of policy and critic over one frozen base."""

import pytest
import torch
from peft import PeftModel

from papercore.errors import ConfigError
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.lora import LoraSpec, adapter_off, merged
from papercore.rl.rollouts import pack
from papercore.testing import assert_close, tiny_model
from papercore.testing.fixtures import one_thread  # noqa: F401 - autouse
from papercore.testing.rollouts import some_rollouts

BATCH = pack(some_rollouts([(3, 5), (9, 2), (1, 1)]), pad_id=0)
SPEC = LoraSpec(r=4, alpha=6.0, targets=("q_proj", "v_proj"))


def policy_of(model=None, *, critic="separate", lora=SPEC):
    torch.manual_seed(0)
    return ActorCritic.build(model or tiny_model(), critic=critic, lora=lora)


def disturb_(module):
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_both_adapters_learn_in_one_backward_pass_and_nothing_else():
    policy = policy_of()
    disturb_(policy)
    scored = policy(BATCH)
    (scored.logps_N.sum() + scored.values_N.square().sum()).backward()
    found = {name for name, one in policy.named_parameters() if one.grad is not None}
    adapters = {name for name, _ in policy.named_parameters() if "lora_" in name}
    assert found == adapters | {"value_head.weight", "value_head.bias"}
    assert {name.split(".")[0] for name in adapters} == {"actor", "critic"}
    assert all(one.grad.any() for one in policy.parameters() if one.grad is not None)


def test_the_gradients_are_those_of_each_loss_alone():
    policy = policy_of()
    disturb_(policy)
    grads = []
    for terms in (("logps_N", "values_N"), ("logps_N",), ("values_N",)):
        policy.zero_grad()
        scored = policy(BATCH)
        sum(getattr(scored, name).square().sum() for name in terms).backward()
        grads.append({n: one.grad for n, one in policy.named_parameters() if one.grad is not None})
    assert grads[0].keys() == grads[1].keys() | grads[2].keys()
    for name, grad in grads[0].items():
        assert torch.equal(grad, (grads[1] if name in grads[1] else grads[2])[name])


def test_the_base_is_there_once():
    model = tiny_model()
    num = model.num_parameters()
    policy = policy_of(model)
    adapters = sum(one.numel() for n, one in policy.named_parameters() if "lora_" in n)
    assert sum(one.numel() for one in policy.parameters()) == num + adapters + 33
    ours = policy.actor.get_base_model().model.layers[0].mlp.up_proj.weight
    assert policy.critic.get_base_model().layers[0].mlp.up_proj.weight is ours


def test_a_base_of_its_own_gives_the_critic_the_same_outputs():
    torch.manual_seed(0)
    apart = ActorCritic.build(tiny_model(), critic="separate", lora=SPEC, share_base=False)
    together = policy_of()
    for policy in (apart, together):
        torch.nn.init.ones_(policy.value_head.weight)
        torch.manual_seed(1)
        disturb_(policy)
    assert torch.equal(apart(BATCH).values_N, together(BATCH).values_N)
    ours = apart.actor.get_base_model().model.layers[0].mlp.up_proj.weight
    assert apart.critic.get_base_model().layers[0].mlp.up_proj.weight is not ours
    names = {name for name, one in apart.named_parameters() if one.requires_grad}
    assert names == {name for name, one in together.named_parameters() if one.requires_grad}


def test_each_adapter_changes_its_own_side_only():
    policy = policy_of()
    torch.nn.init.ones_(policy.value_head.weight)
    before = policy(BATCH)
    disturb_(policy.critic)
    then = policy(BATCH)
    assert torch.equal(then.logps_N, before.logps_N)
    assert not torch.allclose(then.values_N, before.values_N)
    disturb_(policy.actor)
    last = policy(BATCH)
    assert torch.equal(last.values_N, then.values_N)
    assert not torch.allclose(last.logps_N, then.logps_N)


def test_scale_and_rank_are_as_asked_for():
    layer = policy_of().actor.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 1.5
    assert layer.lora_A["default"].weight.shape == (4, 32)
    config = policy_of(lora=LoraSpec(2, 0.5, ("q_proj",))).actor.peft_config["default"]
    assert config.lora_alpha == 0.5


def test_gradients_are_asked_for_as_before_once_the_adapter_is_on_again():
    actor = policy_of().actor
    frozen = next(one for name, one in actor.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    before = [one.requires_grad for one in actor.parameters()]
    with adapter_off(actor):
        pass
    assert [one.requires_grad for one in actor.parameters()] == before
    with pytest.raises(ValueError, match="inside"), adapter_off(actor):
        raise ValueError("inside")
    assert [one.requires_grad for one in actor.parameters()] == before


def test_the_reference_pass_between_forward_and_backward_does_no_harm():
    first, second = policy_of(), policy_of()
    for policy in (first, second):
        torch.manual_seed(1)
        disturb_(policy)
    first(BATCH).logps_N.sum().backward()
    scored = second(BATCH)
    second.reference_logps(BATCH)
    scored.logps_N.sum().backward()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_a_half_precision_base_gets_float32_adapters():
    policy = policy_of(tiny_model().bfloat16())
    trained = [one for one in policy.parameters() if one.requires_grad]
    assert {one.dtype for one in trained} == {torch.float32}
    scored = policy(BATCH, reference=True)
    assert torch.equal(scored.logps_N.detach(), scored.ref_logps_N)


def test_gpt2_is_adapted_without_a_warning():
    policy = policy_of(tiny_model("gpt2"), lora=LoraSpec(4, 8.0, ("c_attn",)))
    disturb_(policy)
    scored = policy(BATCH, reference=True)
    assert not torch.allclose(scored.logps_N, scored.ref_logps_N)


def test_layers_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match="lora targets nowhere do not fit LlamaForCausalLM"):
        policy_of(lora=LoraSpec(4, 8.0, ("nowhere",)))


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_merged_model_is_the_policy(critic):
    policy = policy_of(critic=critic)
    disturb_(policy)
    before = {name: one.clone() for name, one in policy.state_dict().items()}
    plain = merged(policy)
    assert type(plain).__name__ == "LlamaForCausalLM"
    assert not any("lora" in name for name, _ in plain.named_parameters())
    ids = torch.arange(12)[None]
    assert_close(plain(input_ids=ids).logits, policy.actor(input_ids=ids).logits, atol=1e-4)
    assert isinstance(policy.actor, PeftModel)
    after = policy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    shared = {one.data_ptr() for one in policy.parameters()}
    assert not any(one.data_ptr() in shared for one in plain.parameters())


def test_a_policy_without_adapter_is_its_own_merged_model():
    policy = policy_of(lora=None)
    assert merged(policy) is policy.actor
