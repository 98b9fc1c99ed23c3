import copy
from dataclasses import replace

import pytest
import torch

from papercore.rl import actor_critic
from r3 import prefix_gradient, world
from r3.config import CurriculumConfig
from r3.data import write_prepared
from r3.mini_model import random_model
from r3.prefix_gradient import token_gradients
from r3.presets import TINY_PROMPT, TRAIN
from r3.rewards import Outcome


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    splits, meta = world.prepared(0)
    return write_prepared(
        tmp_path_factory.mktemp("world") / "data",
        task="world",
        prompt=TINY_PROMPT,
        splits=splits,
        meta=meta,
    )


@pytest.fixture(autouse=True)
def earning(monkeypatch):
    """A reward that an untrained model earns as well; without any there is nothing to learn."""

    def ground(*given):
        return replace(real(*given), reward=lambda text, _: Outcome(len(text) % 7, False, None))

    real = prefix_gradient.lay_ground
    monkeypatch.setattr(prefix_gradient, "lay_ground", ground)


def gradients(data, **changes):
    config = TRAIN["tiny"].model_copy(update={"rollouts": 24, "micro_batch": 8, **changes})
    return token_gradients(*random_model(0), data, config)


def test_nothing_that_was_given_has_a_gradient_and_what_was_generated_has(data):
    found = gradients(data)
    assert found.given == 0.0
    assert found.learnt > 0.9
    # 24 rollouts in 2 epochs; the shortest prompt has five tokens, of which one predicts nothing
    assert found.num_generated <= 2 * 24 * 11
    assert found.num_given >= 2 * 24 * 5


def test_plain_rl_has_only_questions_that_are_given(data):
    plain = gradients(data, curriculum=CurriculumConfig(kind="vanilla"))
    assert plain.given == 0.0
    assert plain.num_given < gradients(data).num_given


def test_a_loss_on_the_prefix_shows(data, monkeypatch):
    def leaking(model, states_BTD, batch, **how):
        logps_N, entropy_N = real(model, states_BTD, batch, **how)
        return logps_N + 1e-3 * states_BTD[batch.row_N, 0].sum(-1), entropy_N

    real = actor_critic._logps
    monkeypatch.setattr(actor_critic, "_logps", leaking)
    assert gradients(data).given > 0


def test_rollouts_that_earn_nothing_show(data, monkeypatch):
    monkeypatch.undo()
    found = gradients(data)
    assert (found.given, found.learnt) == (0.0, 0.0), "so a bar on the first alone says nothing"


def test_the_model_stays_as_it_is(data):
    model, tokenizer = random_model(0)
    before = copy.deepcopy(model.state_dict())
    config = TRAIN["tiny"].model_copy(update={"rollouts": 8, "micro_batch": 8})
    token_gradients(model, tokenizer, data, config)
    assert all(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())
    assert not model.model._forward_hooks
