from collections import Counter

import pytest
import torch

from papercore.generate.hf import HFGenerator
from papercore.generate.types import Request, SamplingParams
from papercore.tiny import IGNORE, cached_model
from rotbench.cases import HALVES, LEVELS
from rotbench.config import Quota
from rotbench.mini_model import (
    CHECK,
    CHECK_STEPS,
    CLEAN_ONLY,
    BaseRecipe,
    Recipe,
    _stack,
    base_spec,
    base_steps,
    episodes,
    record_rows,
    spec_of,
    tune_row,
)
from rotbench.quotas import cells
from rotbench.world import answer_tokens, prompt_tokens


@pytest.fixture(scope="module")
def quick():
    """A model that was trained for a few steps, and its tokenizer."""
    model, tokenizer, _ = cached_model(
        spec_of(Recipe.of(0, Quota(), quick=True), store=False), store=False
    )
    return model, tokenizer


def test_a_batch_depends_on_seed_and_step_alone():
    recipe, other = Recipe.of(0, Quota()), Recipe.of(1, Quota())
    assert episodes(recipe, 5) == episodes(Recipe.of(0, Quota()), 5)
    assert episodes(recipe, 5) != episodes(recipe, 6)
    assert episodes(recipe, 5) != episodes(other, 5)
    base = recipe.base
    assert record_rows(base, 5) == record_rows(BaseRecipe(), 5)
    assert record_rows(base, 5) != record_rows(base, 6)
    assert record_rows(base, 5) != record_rows(other.base, 5)


def test_accuracy_is_measured_on_texts_of_its_own():
    recipe = BaseRecipe()
    trained = {tuple(t) for step in range(recipe.steps) for t, _ in record_rows(recipe, step)}
    checked = [tuple(tokens) for tokens, _ in record_rows(recipe, CHECK)]
    assert not trained & set(checked)


@pytest.mark.parametrize("step", [0, 7])
def test_both_models_are_asked_the_same_in_the_same_environments(step):
    clean, noisy = (episodes(Recipe.of(3, quota), step) for quota in (CLEAN_ONLY, Quota()))
    flat = [case for cases in clean for case in cases]
    assert flat == [case.clean for cases in noisy for case in cases]
    assert {case.clean.key.level for case in flat} == {"clean"}
    assert clean != noisy


def test_the_mixture_is_that_of_the_paper():
    recipe = Recipe.of(0, Quota())
    drawn = Counter()
    for step in range(60):
        for cases in episodes(recipe, step):
            drawn[cases[0].key.level, cases[0].key.half] += 1
    total = drawn.total()
    for cell, quota in cells(Quota()).items():
        expected = quota / Quota().total
        spread = (expected * (1 - expected) / total) ** 0.5
        assert abs(drawn[cell] / total - expected) < 4 * spread, cell


def test_answers_bear_loss_and_nothing_else():
    cases = episodes(Recipe.of(0, Quota()), 0)[0]
    tokens, learnt = tune_row(cases)
    answers = [token for case in cases for token in answer_tokens(case.golds[0])]
    assert [token for token, can in zip(tokens, learnt, strict=True) if can] == answers
    first = prompt_tokens(cases[0])
    assert tokens[: len(first)] == first, "training and test read the same prompt"


def test_a_batch_is_padded_on_the_right_without_loss(quick):
    _, tokenizer = quick
    rows = [(["a", "b", "<eos>"], [False, True, True]), (["c"], [True])]
    batch = _stack(tokenizer, rows)
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][1]) == ["c", "<pad>", "<pad>"]
    assert batch["labels"][0].tolist() == [IGNORE, *batch["input_ids"][0, 1:].tolist()]
    assert batch["labels"][1].tolist() == [batch["input_ids"][1, 0], IGNORE, IGNORE]


def test_training_repeats_bit_for_bit_whatever_was_drawn_before():
    def weights(seed, quota):
        spec = spec_of(Recipe.of(seed, quota, quick=True), store=False)
        return cached_model(spec, store=False)[0].lm_head.weight

    first = weights(0, Quota())
    torch.rand(7)
    assert torch.equal(first, weights(0, Quota()))
    assert not torch.equal(first, weights(1, Quota()))
    assert not torch.equal(first, weights(0, CLEAN_ONLY))


def test_both_models_come_from_one_base_that_is_trained_once(model_cache):
    stages = []

    def on_step(stage, step, loss):
        stages.append(stage)

    recipes = [Recipe.of(0, quota, quick=True) for quota in (CLEAN_ONLY, Quota())]
    for recipe, name in zip(recipes, ("a", "b"), strict=True):
        model, _, from_cache = cached_model(spec_of(recipe, stage=name, on_step=on_step))
        assert not from_cache
        assert base_steps(model) == recipe.base.steps
    counted = Counter(stages)
    assert counted == {"base": 2, "a": recipes[0].steps, "b": recipes[1].steps}
    assert cached_model(spec_of(recipes[1]))[2]
    assert base_spec(recipes[0].base).key == base_spec(recipes[1].base).key
    assert spec_of(recipes[0]).key != spec_of(recipes[1]).key


def test_accuracy_ends_the_base_stage():
    recipe = BaseRecipe(batch=1, steps=2 * CHECK_STEPS, accuracy=-1.0)
    model, _, _ = cached_model(base_spec(recipe), store=False)
    assert base_steps(model) == CHECK_STEPS


def test_the_model_has_the_designed_size(quick):
    model, tokenizer = quick
    assert 170_000 < sum(parameter.numel() for parameter in model.parameters()) < 190_000
    assert model.config.layer_types == ["conv", "full_attention"] * 2
    assert len(tokenizer) == 115


def test_answers_in_a_batch_are_those_given_alone(quick):
    """Prompts are padded on the left; neither convolution nor attention may see it."""
    model, tokenizer = quick
    cases = [cases[0] for step in range(4) for cases in episodes(Recipe.of(9, Quota()), step)][:8]
    requests = [
        Request(
            id=str(i),
            token_ids=tuple(tokenizer.convert_tokens_to_ids(prompt_tokens(case))),
            params=SamplingParams(max_new_tokens=6),
        )
        for i, case in enumerate(cases)
    ]
    assert len({len(request.token_ids) for request in requests}) > 1
    together = HFGenerator(model, tokenizer, batch_size=8).generate(requests)
    alone = HFGenerator(model, tokenizer, batch_size=1).generate(requests)
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]


def test_a_level_has_both_halves_in_the_mixture():
    assert set(cells(Quota())) == {(level, half) for level in LEVELS for half in HALVES[level]}
