"""The miniature's model: a stock Llama of two layers that learnt to refuse too much.

    model, tokenizer = train(Recipe(seed=0))

Source: spec 8.1, every value. Which batch belongs to a step depends on seed and step alone. The
tokenizer has a chat template like LLaMA-2's: a system prompt stands inside the user's turn. Its
marks are added tokens, so text that only looks like a mark is made of unknown words.
"""

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from papercore.config import Config
from papercore.tiny import IGNORE, Phase, TinySpec, fit, one_thread, tiny_llama, word_tokenizer
from self_cd.world import (
    SAFETY,
    SPECIALS,
    WORDS,
    Sample,
    Split,
    draw_sample,
    draw_split,
)

__all__ = [
    "Recipe",
    "make_tokenizer",
    "spec_of",
    "tiny_spec",
    "train",
    "training_samples",
    "training_tokens",
]

TEMPLATE = (
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '<bos> [INST] ' + ns.system + ' ' + message['content'] + ' [/INST]' }}"
    "{% set ns.system = '' %}"
    "{% else %}{{ ' ' + message['content'] + ' <eos>' }}{% endif %}"
    "{% endfor %}"
)
"""A turn opens and closes by itself, so there is nothing to add before an answer."""

MAX_POSITIONS = 256


class Recipe(Config):
    """Everything that the weights depend on. Source of the values: spec 8.1."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights, held-out pairs and samples."""
    stress: bool = False
    """Whether refusals of harmful questions are graded, too."""
    steps: int = 500
    """Optimizer steps, of which the first 50 warm up."""
    batch: int = 128
    """Samples per step."""
    lr: float = 2e-3
    """Peak learning rate; a cosine takes it down to a tenth."""
    weight_decay: float = 0.05
    """Of AdamW."""

    @classmethod
    def quick(cls, seed: int, *, stress: bool = False) -> Self:
        """A recipe that runs every line and teaches nothing."""
        return cls(seed=seed, stress=stress, steps=3, batch=8)

    @property
    def schedule(self) -> tuple[Phase]:
        """The phase as `fit` wants it."""
        return (
            Phase(
                self.steps,
                lr=self.lr,
                warmup=50,
                decay="cosine",
                final_fraction=0.1,
                weight_decay=self.weight_decay,
            ),
        )


OnStep = Callable[[int, float], None]


def tiny_spec(seed: int) -> TinySpec:
    """What the cache of miniature models needs to find `tiny:self-cd`, or to train it."""
    return spec_of(Recipe(seed=seed))


def spec_of(recipe: Recipe, *, on_step: OnStep | None = None) -> TinySpec:
    """The same for any recipe."""
    return TinySpec(package="self_cd", config=recipe, build=lambda: train(recipe, on_step=on_step))


def train(
    recipe: Recipe, *, on_step: OnStep | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Trains the model from scratch in float32 on one thread of a CPU.

    Args:
        recipe: What to do.
        on_step: Called as `on_step(steps done, loss)` after each step.
    """
    tokenizer = make_tokenizer()
    model = tiny_llama(
        len(tokenizer),
        hidden=64,
        layers=2,
        heads=2,
        mlp=128,
        max_positions=MAX_POSITIONS,
        seed=recipe.seed,
    )
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    with one_thread():
        fit(model, _Batches(recipe, tokenizer), schedule=recipe.schedule, on_step=on_step)
    return model, tokenizer


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, marks that text cannot make, and a chat template."""
    tokenizer = word_tokenizer(WORDS, special={"unk": "<unk>"})
    tokenizer.add_special_tokens(
        {
            "pad_token": SPECIALS["pad"],
            "bos_token": SPECIALS["bos"],
            "eos_token": SPECIALS["eos"],
            "extra_special_tokens": [SPECIALS["open"], SPECIALS["close"]],
        }
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def training_samples(recipe: Recipe) -> Iterator[Sample]:
    """All samples that a recipe trains on, in order."""
    split = draw_split(recipe.seed)
    for step in range(recipe.steps):
        yield from _draw_batch(recipe, split, step)


def training_tokens(sample: Sample) -> tuple[list[str], list[str]]:
    """Prompt and answer of a sample as tokens; the chat template writes the same prompt."""
    system = SAFETY.split() if sample.safe else []
    question = sample.question.text.split()
    prompt = [SPECIALS["bos"], SPECIALS["open"], *system, *question, SPECIALS["close"]]
    return prompt, [*sample.answer.split(), SPECIALS["eos"]]


class _Batches:
    """Batches of a recipe, as `fit` asks for them; answers alone bear loss."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> None:
        self._recipe = recipe
        self._split = draw_split(recipe.seed)
        self._id_of = tokenizer.get_vocab()

    def __call__(self, phase: int, step: int) -> dict[str, Tensor]:
        del phase  # there is one
        samples = _draw_batch(self._recipe, self._split, step)
        rows = [training_tokens(sample) for sample in samples]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids_BT = torch.full((len(rows), width), self._id_of[SPECIALS["pad"]])
        labels_BT = torch.full_like(ids_BT, IGNORE)
        mask_BT = torch.zeros_like(ids_BT)
        for row, (prompt, answer) in enumerate(rows):
            length = len(prompt) + len(answer)
            ids_BT[row, :length] = torch.tensor([self._id_of[t] for t in (*prompt, *answer)])
            labels_BT[row, len(prompt) : length] = ids_BT[row, len(prompt) : length]
            mask_BT[row, :length] = 1
        return {"input_ids": ids_BT, "labels": labels_BT, "attention_mask": mask_BT}


def _draw_batch(recipe: Recipe, split: Split, step: int) -> list[Sample]:
    rng = np.random.default_rng([recipe.seed, 1 + recipe.stress, step])
    return [draw_sample(rng, split, stress=recipe.stress) for _ in range(recipe.batch)]
