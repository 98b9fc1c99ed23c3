"""The miniature's model: a stock Llama of two layers and four heads, trained at 256 words.

    model, tokenizer = train(Recipe(seed=0))

Source: spec 8.1. Copying random strings comes first, because induction heads form there in seconds;
without it retrieval does not get off the ground. Texts then grow while retrieval is trained. Which
batch belongs to a step depends on seed, phase and step alone.
"""

from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from longheads.world import WORDS, Ids, Layout, write_copies, write_documents
from papercore.config import Config
from papercore.tiny import IGNORE, Phase, TinySpec, fit, one_thread, tiny_llama, word_tokenizer

__all__ = ["TRAINED_LEN", "Recipe", "tiny_spec", "train", "training_texts"]

TRAINED_LEN = 256
"""Longest text of the training, L_pre."""

COPYING, RETRIEVAL = 0, 1
"""The phases, in order."""

COPIED_TOK = (6, 24)
"""Shortest and longest string to copy."""


class Recipe(Config):
    """Everything that the weights depend on. Source of the values, but for one: spec 8.1."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights and texts."""
    copy_steps: int = 300
    """Steps of the copying phase."""
    copy_batch: int = 64
    """Strings per copying step."""
    steps: int = 700
    """Steps of the retrieval phase."""
    step_tok: int = 4096
    """Words per retrieval step."""
    copy_share: float = 0.15
    """Share of the retrieval steps that go on copying."""
    lr: float = 2e-3
    """Peak learning rate of both phases."""
    retrieval_decay: float = 3.0
    """Weight decay of the retrieval phase. Deviation: the spec has 0.01, with which heads match a
    key by large weights and chunks of noise score almost as high as the needle's. A model that
    must keep its weights small tells them apart (docs/log.md has the numbers)."""
    limits: tuple[tuple[float, int], ...] = ((0.25, 40), (0.45, 64), (0.65, 128), (1.0, 256))
    """Up to which share of the retrieval steps texts have at most how many words."""

    @classmethod
    def quick(cls, seed: int) -> Self:
        """A recipe that runs every line and teaches nothing."""
        return cls(seed=seed, copy_steps=2, copy_batch=4, steps=8, step_tok=512)

    @property
    def num_steps(self) -> int:
        """Steps of both phases."""
        return self.copy_steps + self.steps

    @property
    def schedule(self) -> tuple[Phase, Phase]:
        """The phases as `fit` wants them."""
        copying = Phase(self.copy_steps, lr=self.lr, warmup=50, weight_decay=0.01)
        retrieval = Phase(
            self.steps,
            lr=self.lr,
            warmup=30,
            decay="cosine",
            final_fraction=0.05,
            weight_decay=self.retrieval_decay,
        )
        return copying, retrieval


def tiny_spec(
    seed: int, *, quick: bool = False, on_step: Callable[[int, float], None] | None = None
) -> TinySpec:
    """What the cache of miniature models needs to find this model or to train it."""
    recipe = Recipe.quick(seed) if quick else Recipe(seed=seed)
    return TinySpec(
        package="longheads", config=recipe, build=lambda: train(recipe, on_step=on_step)
    )


def train(
    recipe: Recipe, *, on_step: Callable[[int, float], None] | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Trains the model from scratch in float32 on one thread of a CPU.

    Args:
        recipe: What to do.
        on_step: Called as `on_step(steps done, loss)` after each step.
    """
    tokenizer = word_tokenizer(WORDS)
    model = tiny_llama(
        len(tokenizer), hidden=64, layers=2, heads=4, max_positions=TRAINED_LEN, seed=recipe.seed
    )
    with one_thread():
        fit(model, _Batches(recipe), schedule=recipe.schedule, on_step=on_step)
    return model, tokenizer


def training_texts(recipe: Recipe) -> Iterator[Ids]:
    """All texts that a recipe trains on, batch by batch, in order."""
    for phase, steps in ((COPYING, recipe.copy_steps), (RETRIEVAL, recipe.steps)):
        for step in range(steps):
            yield _write_batch(recipe, phase, step)[0]


class _Batches:
    """Batches of a recipe, as `fit` asks for them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __call__(self, phase: int, step: int) -> dict[str, Tensor]:
        ids_BT, learnt_T = _write_batch(self._recipe, phase, step)
        labels_BT = np.full_like(ids_BT, IGNORE)
        labels_BT[:, learnt_T] = ids_BT[:, learnt_T]
        return {"input_ids": torch.from_numpy(ids_BT), "labels": torch.from_numpy(labels_BT)}


def _write_batch(recipe: Recipe, phase: int, step: int) -> tuple[Ids, Ids]:
    """Texts of a step, BT, and the places that bear loss."""
    rng = np.random.default_rng([recipe.seed, phase, step])
    if phase == COPYING or rng.random() < recipe.copy_share:
        length = int(rng.integers(COPIED_TOK[0], COPIED_TOK[1] + 1))
        return write_copies(rng, recipe.copy_batch, length), np.arange(length + 1, 2 * length)
    layout = _draw_layout(rng, _limit(recipe, step))
    count = max(1, recipe.step_tok // layout.length)
    return write_documents(rng, count, layout).ids, layout.answers


def _limit(recipe: Recipe, step: int) -> int:
    """Longest text of a retrieval step."""
    return next(length for share, length in recipe.limits if step < share * recipe.steps)


def _draw_layout(rng: np.random.Generator, limit: int) -> Layout:
    """Half of the texts are as long as allowed; a third of the longer ones write facts twice."""
    length = limit if rng.random() < 0.5 else int(rng.integers(limit // 2, limit + 1))
    repeats = 2 if length >= 64 and rng.random() < 1 / 3 else 1
    questions = 8 if length >= 36 else 4
    room = (length - 2 * questions) // (2 * repeats)
    return Layout(length, int(rng.integers(2, min(8, room) + 1)), questions, repeats)
