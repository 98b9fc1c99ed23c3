import numpy as np
import pytest
import torch

from longheads import world
from longheads.mini_model import (
    COPYING,
    RETRIEVAL,
    Recipe,
    _Batches,
    tiny_spec,
    train,
    training_texts,
)
from papercore.tiny import IGNORE, cached_model


def test_a_batch_depends_on_seed_phase_and_step_alone():
    batches, again, other = (_Batches(Recipe(seed=seed)) for seed in (0, 0, 1))
    first = batches(RETRIEVAL, 5)
    batches(COPYING, 3)
    for name, tensor in again(RETRIEVAL, 5).items():
        assert torch.equal(tensor, first[name])
    different = [other(RETRIEVAL, 5), batches(RETRIEVAL, 6), batches(COPYING, 5)]
    assert not any(torch.equal(first["input_ids"], d["input_ids"]) for d in different)


@pytest.mark.parametrize("step", [0, 100, 299])
def test_copies_bear_loss_in_their_second_half_only(step):
    batch = _Batches(Recipe())(COPYING, step)
    ids, labels = batch["input_ids"], batch["labels"]
    half = ids.shape[1] // 2
    assert len(ids) == 64
    assert 6 <= half <= 24
    assert torch.equal(ids[:, :half], ids[:, half:])
    assert (labels[:, : half + 1] == IGNORE).all(), "the first word of the copy is a guess"
    assert torch.equal(labels[:, half + 1 :], ids[:, half + 1 :])


def test_retrieval_bears_loss_on_answers_only_and_grows():
    recipe = Recipe(copy_share=0.0)
    batches = _Batches(recipe)
    longest = 0
    for step in range(0, recipe.steps, 7):
        batch = batches(RETRIEVAL, step)
        ids, labels = batch["input_ids"], batch["labels"]
        limit = next(n for share, n in recipe.limits if step < share * recipe.steps)
        assert limit // 2 <= ids.shape[1] <= limit
        assert len(ids) == recipe.step_tok // ids.shape[1]
        learnt = labels[0] != IGNORE
        assert learnt.sum() in (4, 8)
        assert torch.equal(labels[:, learnt], ids[:, learnt])
        assert (ids[:, learnt] >= world.FIRST_VALUE).all()
        longest = max(longest, ids.shape[1])
    assert longest == 256


def test_training_texts_are_those_of_the_batches():
    recipe = Recipe.quick(3)
    texts = list(training_texts(recipe))
    assert len(texts) == recipe.copy_steps + recipe.steps
    batches = _Batches(recipe)
    assert np.array_equal(texts[0], batches(COPYING, 0)["input_ids"])
    assert np.array_equal(texts[-1], batches(RETRIEVAL, recipe.steps - 1)["input_ids"])


def test_training_repeats_bit_for_bit_whatever_was_drawn_before():
    first, tokenizer = train(Recipe.quick(0))
    torch.rand(7)
    again, _ = train(Recipe.quick(0))
    other, _ = train(Recipe.quick(1))
    weights = [model.lm_head.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not first.training
    assert tokenizer("fen fox plum")["input_ids"] == [0, 16, 32]
    assert tokenizer.decode([0, 16, 32]) == "fen fox plum"


@pytest.mark.slow
def test_copying_is_learnt_in_a_few_hundred_steps():
    model, _ = train(Recipe(copy_steps=150, steps=1))
    ids = torch.from_numpy(world.write_copies(np.random.default_rng(9), 64, 10))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(
            model(ids).logits[:, 10:-1].flatten(0, 1), ids[:, 11:].flatten()
        )
    assert loss < 3.3, "a guess costs log 48 = 3.87"


def test_the_spec_of_a_quick_model_is_another_one(model_cache):
    quick, full = tiny_spec(0, quick=True), tiny_spec(0)
    assert quick.key != full.key
    assert full.key == tiny_spec(0).key != tiny_spec(1).key
    _, _, from_cache = cached_model(quick, store=False)
    assert not from_cache
    assert not any(model_cache.rglob("*.safetensors"))
