"""The miniature's model: a stock Llama of two layers, tuned on rationales that mostly slip.

    model, tokenizer = train(Recipe(seed=0))

It is `r3 sft tiny` after `r3 prepare tiny`: the same data, the same settings, the same weights.

Source: spec section 8, every value. Tokens stand for whole values, so text and tokens are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from pydantic import Field
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from papercore.config import Config
from papercore.tiny import TinySpec, one_thread, tiny_llama, word_tokenizer
from r3.config import SFTConfig
from r3.presets import SFT, TINY_PROMPT
from r3.world import MODULUS, tuning_demos

__all__ = [
    "Recipe",
    "make_tokenizer",
    "random_model",
    "settings",
    "spec_of",
    "tiny_spec",
    "train",
    "tuning_tokens",
]

MAX_POSITIONS = 64
MARK = "="
"""What stands before a start value."""

OnStep = Callable[[int, float], None]


class Recipe(Config):
    """Everything that the weights depend on, beside the preset `tiny` of `r3 sft`."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights, held-out values, demonstrations and their order."""
    steps: int = Field(default=300, ge=1)
    """Optimizer steps. Source: spec section 8."""

    @classmethod
    def quick(cls, seed: int) -> Self:
        """A recipe that runs every line and teaches nothing."""
        return cls(seed=seed, steps=3)


def tiny_spec(seed: int) -> TinySpec:
    """What the cache of miniature models needs to find `tiny:r3`, or to train it."""
    return spec_of(Recipe(seed=seed))


def spec_of(recipe: Recipe, *, on_step: OnStep | None = None) -> TinySpec:
    """The same for any recipe."""
    return TinySpec(package="r3", config=recipe, build=lambda: train(recipe, on_step=on_step))


def train(
    recipe: Recipe, *, on_step: OnStep | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Tunes the random model on one thread of a CPU.

    Args:
        recipe: What to do.
        on_step: Called as `on_step(steps done, loss)` for each step, after the last one.
    """
    # trl takes longer to import than the model to tune, and a cached model needs none of it
    from papercore.trainers import no_telemetry
    from r3.sft import encode_whole, finetune

    no_telemetry()
    model, tokenizer = random_model(recipe.seed)
    encoded = encode_whole(tuning_demos(recipe.seed), tokenizer, TINY_PROMPT)
    with one_thread():
        tuned = finetune(model, tokenizer, encoded, settings(recipe), None, None)
    if on_step is not None:
        for step, loss in tuned.losses:
            on_step(step, loss)
    return model, tokenizer


def settings(recipe: Recipe) -> SFTConfig:
    """The preset `tiny` of `r3 sft` for a recipe."""
    return SFT["tiny"].model_copy(update={"seed": recipe.seed, "max_steps": recipe.steps})


def tuning_tokens(recipe: Recipe) -> int:
    """Tokens that tuning reads, prompts included: all rows are equally long."""
    tokenizer = make_tokenizer()
    demo = tuning_demos(recipe.seed)[0]
    text = f"{TINY_PROMPT.template.format(question=demo.question)} {demo.target}"
    length = len(tokenizer(text)["input_ids"]) + 1  # the end of the sequence
    return recipe.steps * SFT["tiny"].batch * length


def random_model(seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model before tuning, and its tokenizer."""
    tokenizer = make_tokenizer()
    model = tiny_llama(
        len(tokenizer),
        hidden=64,
        layers=2,
        heads=4,
        max_positions=MAX_POSITIONS,
        seed=seed,
    )
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per value, and the mark."""
    return word_tokenizer([*map(str, range(MODULUS)), MARK])
