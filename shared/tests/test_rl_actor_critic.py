"""Policy, critic and reference in one module."""

import copy
import logging
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM

from papercore.errors import ConfigError, ModelError
from papercore.rl.actor_critic import ActorCritic
from papercore.rl.lora import LoraSpec
from papercore.rl.rollouts import pack
from papercore.testing import assert_close, tiny_model
from papercore.testing.fixtures import one_thread  # noqa: F401 - autouse
from papercore.testing.rollouts import FAMILIES, some_rollouts

ROLLOUTS = some_rollouts([(3, 5), (9, 2), (1, 1), (4, 7)])
LORA = LoraSpec(r=4, alpha=8.0, targets=("q_proj", "v_proj"))
KINDS = {
    "shared": {},
    "separate": {"critic": "separate"},
    "lora-shared": {"lora": LORA},
    "lora-separate": {"lora": LORA, "critic": "separate"},
}


def batch():
    return pack(ROLLOUTS, pad_id=0)


def policy_of(kind="shared", *, model=None, **changes):
    torch.manual_seed(0)
    return ActorCritic.build(model or tiny_model(), **{**KINDS[kind], **changes})


def disturb_(policy):
    """As training would leave it: nothing is zero, nothing is equal any more."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for group in policy.groups(lr=1.0):
            for parameter in group["params"]:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


def with_grads(policy):
    return {name for name, one in policy.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_zero_at_first(kind):
    scored = policy_of(kind)(batch())
    assert not scored.values_N.any()
    assert not scored.end_values_B.any()
    assert scored.values_N.shape == scored.logps_N.shape == (15,)
    assert scored.end_values_B.shape == (4,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_reference_is_the_policy_bit_for_bit_at_first(kind, temperature):
    policy = policy_of(kind)
    scored = policy(batch(), temperature=temperature, reference=True)
    assert torch.equal(scored.ref_logps_N, scored.logps_N.detach())
    assert torch.equal(
        policy.reference_logps(batch(), temperature=temperature), scored.logps_N.detach()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_stays_while_the_policy_learns(kind):
    policy = policy_of(kind)
    before_N = policy.reference_logps(batch())
    disturb_(policy)
    assert torch.equal(policy.reference_logps(batch()), before_N)
    assert not torch.allclose(policy(batch()).logps_N, before_N)


def test_no_reference_bears_a_gradient():
    scored = policy_of()(batch(), reference=True)
    assert scored.logps_N.requires_grad
    assert not scored.ref_logps_N.requires_grad


def test_a_policy_without_reference_says_so():
    policy = policy_of(reference="none")
    assert not policy.has_reference
    with pytest.raises(ConfigError, match="has no reference: build it with reference=copy"):
        policy.reference_logps(batch())


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_of_the_states_before_and_after_each_token(kind):
    policy = disturb_(policy_of(kind))
    scored = policy(batch())
    trunk = policy.critic or policy.actor.base_model
    trunk = getattr(trunk, "model", trunk)  # below the adapters
    values, ends = [], []
    for one in ROLLOUTS:
        ids = torch.tensor([one.prompt + one.response])
        outputs = trunk(input_ids=ids, output_hidden_states=True)
        states_TD = outputs.hidden_states[-1][0]
        values_T = policy.value_head(states_TD)[:, 0]
        values += values_T[len(one.prompt) - 1 : -1]
        ends.append(values_T[-1])
    assert_close(scored.values_N, torch.stack(values))
    assert_close(scored.end_values_B, torch.stack(ends))


def test_one_pass_over_a_shared_trunk_gives_both():
    policy, calls = policy_of(reference="none"), []
    policy.actor.model.register_forward_hook(lambda *_: calls.append(1))
    policy(batch())
    assert len(calls) == 1


def test_what_was_not_asked_for_is_empty():
    scored = policy_of()(batch(), actor=False)
    assert scored.logps_N.numel() == scored.entropy_N.numel() == scored.ref_logps_N.numel() == 0
    scored = policy_of()(batch(), critic=False, entropy=False)
    assert scored.values_N.numel() == scored.end_values_B.numel() == scored.entropy_N.numel() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_parts_alone_are_as_they_are_together(kind):
    policy = disturb_(policy_of(kind))
    both = policy(batch())
    assert torch.equal(policy(batch(), critic=False, entropy=False).logps_N, both.logps_N)
    assert torch.equal(policy(batch(), actor=False).values_N, both.values_N)


def test_a_separate_critic_learns_apart_from_the_policy():
    policy = disturb_(policy_of("separate"))
    policy(batch()).values_N.sum().backward()
    assert with_grads(policy)
    assert all(name.startswith(("critic.", "value_head.")) for name in with_grads(policy))
    policy.zero_grad()
    policy(batch()).logps_N.sum().backward()
    assert all(name.startswith("actor.") for name in with_grads(policy))


def test_a_shared_trunk_learns_from_values_too():
    policy = disturb_(policy_of())
    policy(batch()).values_N.sum().backward()
    assert "actor.model.layers.0.mlp.up_proj.weight" in with_grads(policy)
    assert "actor.lm_head.weight" not in with_grads(policy)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_actor_the_policy_gets_no_gradient(kind):
    policy = disturb_(policy_of(kind))
    policy(batch(), actor=False).values_N.sum().backward()
    assert {"value_head.weight", "value_head.bias"} <= with_grads(policy)
    assert all(name.startswith(("critic.", "value_head.")) for name in with_grads(policy))


@pytest.mark.parametrize("kind", KINDS)
def test_each_trained_parameter_is_in_one_group(kind):
    policy = policy_of(kind)
    groups = policy.groups(lr=1e-3, critic_lr=1e-2, weight_decay=0.1)
    assert [one["name"] for one in groups] == ["policy", "critic"]
    assert [one["lr"] for one in groups] == [1e-3, 1e-2]
    assert [one["weight_decay"] for one in groups] == [0.1, 0.1]
    ids = [id(one) for group in groups for one in group["params"]]
    trained = [id(one) for one in policy.parameters() if one.requires_grad]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(trained)
    assert id(policy.value_head.weight) in {id(one) for one in groups[1]["params"]}
    torch.optim.AdamW(groups).step()


def test_the_critics_rate_is_the_policys_by_default():
    assert [one["lr"] for one in policy_of().groups(lr=0.5)] == [0.5, 0.5]


def test_the_reference_copy_is_not_trained():
    policy = policy_of()
    assert policy.reference is not None
    assert not any(one.requires_grad for one in policy.reference.parameters())


def test_the_value_head_may_go_without_bias():
    assert policy_of(value_bias=False).value_head.bias is None


def test_dropout_is_off_in_training_too():
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    policy = ActorCritic.build(model).train()
    assert not any(one.training for one in policy.modules())
    assert torch.equal(policy(batch()).logps_N, policy(batch()).logps_N)
    nn.Sequential(policy).train()
    assert not policy.actor.training


def test_gradient_checkpointing_is_not_ignored_silently(caplog):
    model = tiny_model()
    model.model.layers[0].gradient_checkpointing = True
    with caplog.at_level(logging.WARNING):
        ActorCritic.build(model, reference="none")
    assert "gradient checkpointing has no effect" in caplog.text


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_without_a_distribution_is_refused(temperature):
    with pytest.raises(ConfigError, match="temperature="):
        policy_of()(batch(), temperature=temperature)


def test_mixed_precision_leaves_the_value_head_alone():
    policy = disturb_(policy_of())
    states = []
    policy.actor.model.norm.register_forward_hook(lambda *given: states.append(given[-1]))
    with torch.autocast("cpu", torch.bfloat16):
        scored = policy(batch())
    packed = batch()
    states_ND = states[0][packed.row_N, packed.at_N - 1].float()
    weight, bias = policy.value_head.weight[0], policy.value_head.bias
    assert scored.logps_N.dtype == scored.values_N.dtype == torch.float32
    assert_close(scored.values_N, states_ND @ weight + bias, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_separate_critic_of_each_class_starts_as_the_trunk(family):
    policy = ActorCritic.build(tiny_model(family), critic="separate", reference="none")
    shared = ActorCritic.build(tiny_model(family), reference="none")
    for one in (policy, shared):
        nn.init.ones_(one.value_head.weight)
    assert torch.equal(policy(batch()).values_N, shared(batch()).values_N)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_read_from_disk_is_equal_bit_for_bit(kind, tmp_path):
    policy = disturb_(policy_of(kind))
    policy.save(tmp_path)
    base = tiny_model() if "lora" in kind else None
    again = ActorCritic.load(tmp_path, base=base)
    wanted, found = policy(batch()), again(batch())
    assert torch.equal(found.logps_N, wanted.logps_N)
    assert torch.equal(found.entropy_N, wanted.entropy_N)
    assert torch.equal(found.values_N, wanted.values_N)
    assert torch.equal(found.end_values_B, wanted.end_values_B)
    assert [len(one["params"]) for one in again.groups(lr=1.0)] == [
        len(one["params"]) for one in policy.groups(lr=1.0)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_holds_what_other_tools_read(kind, tmp_path):
    policy_of(kind).save(tmp_path)
    model = "adapter/adapter_model" if "lora" in kind else "policy/model"
    assert (tmp_path / f"{model}.safetensors").is_file()
    critic = "critic/adapter_model" if "lora" in kind else "critic/model"
    assert (tmp_path / f"{critic}.safetensors").is_file() == ("separate" in kind)
    assert (tmp_path / "value_head.safetensors").is_file()
    assert not list(tmp_path.rglob("*.bin"))


def test_a_bfloat16_policy_is_read_as_one(tmp_path):
    tiny_model().save_pretrained(tmp_path / "start")
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.bfloat16)
    policy = disturb_(policy_of(model=start, reference="none"))
    policy.save(tmp_path / "saved")
    again = ActorCritic.load(tmp_path / "saved")
    assert again.actor.dtype == torch.bfloat16
    assert again.value_head.weight.dtype == torch.float32
    assert torch.equal(again(batch()).values_N, policy(batch()).values_N)


def test_a_critic_left_over_from_another_save_is_not_read(tmp_path):
    policy_of("separate").save(tmp_path)
    policy_of("shared").save(tmp_path)
    assert ActorCritic.load(tmp_path).critic is None


def test_a_policy_can_be_read_with_a_reference(tmp_path):
    policy_of().save(tmp_path)
    start = tiny_model(seed=3)
    again = ActorCritic.load(tmp_path, reference=start)
    wanted_N = ActorCritic.build(copy.deepcopy(start), reference="none")(batch()).logps_N
    assert torch.equal(again.reference_logps(batch()), wanted_N.detach())


def test_a_missing_or_needless_base_is_said(tmp_path):
    policy_of("lora-shared").save(tmp_path / "lora")
    policy_of("shared").save(tmp_path / "full")
    with pytest.raises(ConfigError, match="holds an adapter: give the model"):
        ActorCritic.load(tmp_path / "lora")
    with pytest.raises(ConfigError, match="holds a whole policy: give no base"):
        ActorCritic.load(tmp_path / "full", base=tiny_model())


@pytest.mark.parametrize("missing", ["policy/config.json", "critic/model.safetensors"])
def test_a_missing_part_is_one_line(missing, tmp_path):
    policy_of("separate").save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match="cannot be read") as caught:
        ActorCritic.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_is_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"value_head.safetensors cannot be read"):
        ActorCritic.load(tmp_path)
    (tmp_path / "value_head.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match=r"value_head.safetensors cannot be read"):
        ActorCritic.load(tmp_path)


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), world_size=1, rank=0)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [{"actor": False}, {"critic": False, "entropy": False}, {}])
def test_ddp_gets_a_gradient_of_everything_in_any_pass(kind, part, one_process):
    wrapped = DistributedDataParallel(disturb_(policy_of(kind)))
    for _ in range(2):  # DDP notices in the second pass what the first left out
        scored = wrapped(batch(), **part)
        (scored.logps_N.sum() + scored.values_N.sum()).backward()
    trained = {name for name, one in wrapped.module.named_parameters() if one.requires_grad}
    assert with_grads(wrapped.module) == trained


SHARDED = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from papercore.cli import leave_process_group
from papercore.rl import actor_critic
from papercore.rl.lora import LoraSpec
from papercore.rl.rollouts import pack
from papercore.testing import tiny_model
from papercore.testing import tiny_model
from papercore.testing.rollouts import some_rollouts

torch.set_num_threads(1)
store = dist.FileStore(sys.argv[1], 2)
dist.init_process_group("gloo", store=store, world_size=2, rank=int(sys.argv[2]))
actor_critic.CHUNK_LOGITS = 259 * 4  # several chunks, recomputed over sharded weights
lora = LoraSpec(4, 8.0, ("q_proj", "v_proj"))
batch = pack(some_rollouts([(3, 5), (9, 2), (1, 1)]), pad_id=0)


def learn(policy):
    scored = policy(batch, reference=True)
    (scored.logps_N.sum() + scored.entropy_N.sum() + scored.values_N.square().sum()).backward()
    grads = {name: one.grad for name, one in policy.named_parameters() if one.grad is not None}
    return scored, grads


def build(given, critic):
    torch.manual_seed(0)
    policy = actor_critic.ActorCritic.build(
        tiny_model(), critic=critic, lora=given, share_base=False
    )
    torch.nn.init.ones_(policy.value_head.weight)
    return policy


for given in (None, lora):
    for critic in ("shared", "separate"):
        wanted, wanted_grads = learn(build(given, critic))
        policy = build(given, critic)
        for module in list(policy.modules()):
            if isinstance(module, LlamaDecoderLayer):
                fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
        fully_shard(policy, mesh=init_device_mesh("cpu", (2,)))
        found, grads = learn(policy)
        assert isinstance(next(iter(grads.values())), DTensor)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert grads.keys() == wanted_grads.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad.full_tensor(), wanted_grads[name])
print("all equal")
del policy, module, found, grads  # they hold the group
leave_process_group()
"""


@pytest.mark.slow
def test_a_policy_sharded_by_fsdp_is_that_of_one_process(tmp_path):
    command = [sys.executable, "-W", "error::UserWarning", "-c", SHARDED, str(tmp_path / "store")]
    processes = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        out, error = process.communicate(timeout=300)
        assert out == b"all equal\n", error.decode()[-2000:]
