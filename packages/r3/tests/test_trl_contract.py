"""What we rely on in TRL's trainers, so that an upgrade that breaks it is noticed here."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from papercore.testing import assert_close, tiny_model
from papercore.tiny import byte_tokenizer
from r3.config import PPOConfig, TrainConfig
from r3.trl_rollouts import group_advantages, keyed

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*rollout_func.*experimental:UserWarning",
    "ignore:.*gradient_checkpointing.*:FutureWarning",
)

PROMPTS = {"start 0": [81, 32, 49], "start 1": [32, 32, 257, 10, 255, 128]}
"""No text gives the second one: it holds a control token and bytes that are no character."""
END = 258
ALGOS = ("grpo", "rloo")


@pytest.fixture
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def make(tokenizer, tmp_path):
    """A trainer of two groups of two rollouts, in one optimizer step."""

    def build(algo, *, reward=None, rollout=None, model=None, **changes):
        model = model or tiny_model("llama", eos_token_id=END)
        arguments = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 1,
            "learning_rate": 1.0,
            "optim": "sgd",  # Adam makes a large step of a gradient that is rounding alone
            "per_device_train_batch_size": 4,
            "generation_batch_size": 4,
            "num_generations": 2,
            "max_completion_length": 5,
            "shuffle_dataset": False,
            "beta": 0.0,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        }
        shared = {
            "model": model,
            "reward_funcs": reward or (lambda completions, **_: [1.0, 0.0] * 2),
            "train_dataset": Dataset.from_dict({"prompt": list(PROMPTS), "start": [0, 1]}),
        }
        if algo == "rloo":
            own = keyed(tokenizer, PROMPTS)
            return RLOOTrainer(
                args=RLOOConfig(**(arguments | changes)), processing_class=own, **shared
            )
        return GRPOTrainer(
            args=GRPOConfig(**({"loss_type": "grpo"} | arguments | changes)),
            processing_class=keyed(tokenizer, PROMPTS) if rollout is None else tokenizer,
            rollout_func=rollout,
            **shared,
        )

    return build


def rolls(completions, **more):
    """A rollout function that always writes the same."""

    def roll(keys, trainer):
        return {
            "prompt_ids": [list(PROMPTS[key]) for key in keys],
            "completion_ids": copy.deepcopy(completions),
            "logprobs": None,
            **more,
        }

    return roll


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def seen_by(model):
    """The token ids that each forward pass of a model reads, without padding."""
    seen = []

    def note(module, args, kwargs):
        if "input_ids" in kwargs and kwargs.get("attention_mask") is not None:
            ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
            if ids.shape == mask.shape:
                seen.extend(row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


COMPLETIONS = [[65, 66, END], [67, 68, 69, 70, 71], [72, END], [73, 74, END]]


def test_prompt_and_completion_ids_arrive_untouched(make):
    model = tiny_model("llama", eos_token_id=END)
    seen = seen_by(model)
    make("grpo", model=model, rollout=rolls(COMPLETIONS)).train()
    prompts = [PROMPTS["start 0"]] * 2 + [PROMPTS["start 1"]] * 2
    expected = [prompt + more for prompt, more in zip(prompts, COMPLETIONS, strict=True)]
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("algo", ALGOS)
def test_where_trl_generates_it_takes_the_ids_of_the_keyed_tokenizer(make, algo):
    model = tiny_model("llama", eos_token_id=END)
    seen = seen_by(model)
    trainer = make(algo, model=model)
    trainer.train()
    assert trainer.processing_class.asked == ("start 0", "start 0", "start 1", "start 1")
    begins = [tuple(row[: len(PROMPTS[key])]) for row in seen for key in PROMPTS]
    assert begins.count(tuple(PROMPTS["start 0"])) >= 4
    assert begins.count(tuple(PROMPTS["start 1"])) >= 4
    literal = trainer.processing_class("start 0", add_special_tokens=False)["input_ids"]
    assert not any(row[: len(literal)] == literal for row in seen)


@pytest.mark.parametrize("algo", ALGOS)
def test_vllm_gets_the_ids_of_the_keyed_tokenizer(make, algo):
    """With a stand-in for the engine, which is not needed to see what it is asked."""
    asked = []

    def generate(prompts, images, num_generations, profiler=None):
        asked.extend(prompts)
        logprobs = [[[-1.0]] * len(ids) for ids in COMPLETIONS]
        return prompts, COMPLETIONS, logprobs, None

    trainer = make(algo)
    trainer.use_vllm = True
    trainer.vllm_generation = SimpleNamespace(generate=generate, sync_weights=lambda: None)
    trainer.vllm_importance_sampling_correction = False
    trainer._last_loaded_step = -1
    trainer.train()
    assert asked == [PROMPTS["start 0"]] * 2 + [PROMPTS["start 1"]] * 2


@pytest.mark.parametrize("missing", ["prompt_ids", "completion_ids", "logprobs"])
def test_each_key_of_a_rollout_is_asked_for(make, missing):
    def roll(keys, trainer):
        found = rolls(COMPLETIONS)(keys, trainer)
        del found[missing]
        return found

    with pytest.raises(ValueError, match=missing):
        make("grpo", rollout=roll).train()


def test_log_probabilities_and_further_keys_are_taken(make):
    given = {}

    def reward(completions, **more):
        given.update(more, step=more["trainer_state"].global_step)
        return [1.0, 0.0, 0.0, 1.0]

    logprobs = [[-0.5] * len(ids) for ids in COMPLETIONS]
    roll = rolls(COMPLETIONS, logprobs=logprobs, ended=[True, False, True, True])
    make("grpo", rollout=roll, reward=reward).train()
    assert given["ended"] == [True, False, True, True]
    assert given["start"] == [0, 0, 1, 1]
    assert given["completion_ids"] == COMPLETIONS
    assert given["prompts"] == ["start 0", "start 0", "start 1", "start 1"]
    assert given["step"] == 0


def test_masked_tokens_get_no_gradient(make):
    """Rollouts of which only the first token counts are rollouts of one token."""
    found = []
    for completions, more in (
        (COMPLETIONS, {"env_mask": [[1] + [0] * (len(ids) - 1) for ids in COMPLETIONS]}),
        ([ids[:1] for ids in COMPLETIONS], {}),
    ):
        model = tiny_model("llama", eos_token_id=END)
        make("grpo", model=model, rollout=rolls(completions, **more)).train()
        found.append(weights(model))
    before = weights(tiny_model("llama", eos_token_id=END))
    assert any(not torch.equal(found[0][name], before[name]) for name in before)
    for name, value in found[0].items():
        assert_close(value, found[1][name], atol=1e-5, what=name)


def test_rollouts_that_are_masked_altogether_change_nothing(make):
    model = tiny_model("llama", eos_token_id=END)
    before = weights(model)
    mask = [[0] * len(ids) for ids in COMPLETIONS]
    make("grpo", model=model, rollout=rolls(COMPLETIONS, env_mask=mask)).train()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_tokens_of_the_prompt_get_no_gradient_of_their_own(make):
    """What is given enters only as context: without it in reach, an update is the same."""
    found = []
    for prompt in ([1], [2, 3, 4]):
        model = tiny_model("llama", eos_token_id=END)
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()  # no token reads another one
                layer.self_attn.o_proj.weight.requires_grad_(False)
        roll = rolls(COMPLETIONS)
        make(
            "grpo",
            model=model,
            rollout=lambda keys, trainer, roll=roll, prompt=prompt: (
                roll(keys, trainer) | {"prompt_ids": [[*prompt, 9]] * 4}
            ),
        ).train()
        found.append(weights(model))
    for name, value in found[0].items():
        assert_close(value, found[1][name], atol=1e-6, what=name)


@pytest.mark.parametrize("algo", ALGOS)
def test_a_reward_of_none_is_left_out(make, algo):
    """Its group's other rollout is alone then: there is nothing to compare, and no update."""
    model = tiny_model("llama", eos_token_id=END)
    before = weights(model)
    make(algo, model=model, reward=lambda completions, **_: [None, 1.0, None, 0.0]).train()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize(
    "rewards", [[1.0, 0.0, 0.25, 0.5, 0.0, 0.0, 0.0, 0.0], [1.0, None, 0.5, 0.0, None, 1.0, 1.0, 0]]
)
def test_our_advantages_are_those_of_the_trainer(make, algo, rewards):
    trainer = make(
        algo,
        reward=lambda completions, **_: rewards,
        num_generations=4,
        generation_batch_size=8,
        per_device_train_batch_size=8,
    )
    trainer.train()
    config = TrainConfig(algo=algo, samples=4, rollouts=8, ppo=PPOConfig(beta=0.0))
    ours = group_advantages([math.nan if one is None else one for one in rewards], config)
    assert ours == pytest.approx(list(trainer._logs["advantages"]), abs=1e-5)


@pytest.mark.parametrize("algo", ALGOS)
def test_the_metrics_that_we_keep_are_there(make, algo):
    trainer = make(algo)
    trainer.train()
    (logs,) = (entry for entry in trainer.state.log_history if "loss" in entry)
    expected = {"loss", "grad_norm", "learning_rate", "entropy", "clip_ratio/region_mean"}
    assert expected | {"frac_reward_zero_std", "step_time"} <= logs.keys()


@pytest.mark.parametrize("kind", [GRPOConfig, RLOOConfig])
def test_one_rollout_of_a_start_is_refused(kind, tmp_path):
    with pytest.raises(ValueError, match="at least 2 generations"):
        kind(
            output_dir=str(tmp_path),
            num_generations=1,
            bf16=False,
            use_cpu=True,
            per_device_train_batch_size=2,
        )


def test_other_texts_are_tokenized_as_ever(tokenizer):
    own = keyed(tokenizer, PROMPTS)
    assert own("start 9")["input_ids"] == tokenizer("start 9")["input_ids"]
    assert own(["start 0", "b"])["input_ids"] == tokenizer(["start 0", "b"])["input_ids"]
    assert own(text=["start 1"])["input_ids"] == [PROMPTS["start 1"]]
    assert own.decode([81, 32, 49]) == "Q 1"
    assert type(own).__name__ == type(tokenizer).__name__
