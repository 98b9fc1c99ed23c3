"""A task and a policy for tests of training: chains of numbers, learnt in milliseconds a step.

    toy = Toy(max_steps=4)
    result = train(toy.setup(), toy.config, total_steps=4)

The question is a number below 20; the rationale is four times the step x -> 3x + 1 (mod 20), one
token each; the last number is the answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from papercore.rl.actor_critic import ActorCritic
from papercore.tiny import tiny_llama, word_tokenizer
from r3.config import CutConfig, PPOConfig, PromptConfig, TrainConfig
from r3.curriculum import curriculum_for, starts_for
from r3.cutting import encode_all
from r3.data import Prepared, write_prepared
from r3.demos import Demo, Encoded
from r3.rewards import Judge, reward_for
from r3.train_setup import build_policy
from r3.train_step import Evaluate, Setup

__all__ = ["PROMPT", "Toy", "toy_demos", "toy_model", "write_toy"]

PROMPT: Final = PromptConfig(template="= {question}")
CUT: Final = CutConfig(rule="tokens", states=4)
MODULUS: Final = 20
LENGTH: Final = 4


def toy_demos(num: int, *, seed: int = 0) -> list[Demo]:
    """Right chains; questions repeat after `MODULUS` of them."""
    values = list(range(MODULUS))
    random.Random(seed).shuffle(values)
    found = []
    for index in range(num):
        value = start = values[index % MODULUS]
        chain = []
        for _ in range(LENGTH):
            value = (3 * value + 1) % MODULUS
            chain.append(str(value))
        text = " ".join(chain)
        found.append(Demo(f"toy_{index}", str(start), text, chain[-1], text.rindex(chain[-1])))
    return found


def toy_model(*, seed: int = 1) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """An untrained Llama over the numbers, its tokenizer beside it."""
    tokenizer = word_tokenizer([*map(str, range(MODULUS)), "="])
    model = tiny_llama(
        len(tokenizer), hidden=32, heads=2, max_positions=64, initializer_range=0.1, seed=seed
    )
    return model, tokenizer


def write_toy(folder: Path, *, dev: int = 4) -> tuple[Path, Path]:
    """The model and prepared data on disk, for commands; gives both folders."""
    model, tokenizer = toy_model()
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    demos = toy_demos(MODULUS)
    splits = {"train": demos[dev:], "dev": demos[:dev]} if dev else {"train": demos}
    prepared: Prepared = write_prepared(
        folder / "data", task="world", prompt=PROMPT, splits=splits, meta={}
    )
    return folder / "base", prepared.folder


class Toy:
    """Everything that the loop needs.

    Attributes:
        config: Settings for a few steps; `changes` are laid over them.
    """

    def __init__(self, *, num_demos: int = 16, **changes: object) -> None:
        usual: dict[str, object] = {
            "cut": CUT,
            "ppo": PPOConfig(),
            "rollouts": 16,
            "micro_batch": 8,
            "generation_batch": 16,
            "max_new_tokens": 6,
            "max_length": 20,
            "max_steps": 3,
            "learning_rate": 1e-3,
            "keep": "last",
        }
        self.config = TrainConfig.model_validate(usual | changes)
        self.model, self.tokenizer = toy_model()
        demos = toy_demos(num_demos)
        self.encoded: Sequence[Encoded]
        self.encoded, _ = encode_all(demos, self.tokenizer, PROMPT, self.config.cut, "world")

    def setup(self, *, reward: Judge | None = None, evaluate: Evaluate | None = None) -> Setup:
        """A fresh policy, always of the same weights, and a fresh curriculum."""
        self.model, _ = toy_model()
        policy: ActorCritic = build_policy(self.config, self.model)
        config = self.config
        states = starts_for(config.curriculum, self.encoded, config.cut)
        curriculum = curriculum_for(
            config.curriculum, states, seed=config.seed, total_steps=config.max_steps or 1
        )
        judge = reward_for("world", config.reward) if reward is None else reward
        return Setup(policy, self.tokenizer, self.encoded, curriculum, judge, evaluate)
