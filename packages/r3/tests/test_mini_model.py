import pytest
import torch
from transformers import AutoModelForCausalLM

from papercore.config import RunFlags
from papercore.records import read_records
from papercore.tiny import one_thread
from r3 import mini, prepare_command, sft_command, world
from r3.cutting import encode_all, starts
from r3.mini_model import (
    Recipe,
    make_tokenizer,
    random_model,
    settings,
    spec_of,
    tiny_spec,
    train,
    tuning_tokens,
)
from r3.presets import PREPARE, SFT, TINY_CUT, TINY_PROMPT

TOKENIZER = make_tokenizer()
MARKS = [97] * 4


@pytest.fixture(scope="module")
def trained():
    """The model of a quick recipe, and its losses."""
    losses = []
    model, _ = train(Recipe.quick(0), on_step=lambda step, loss: losses.append((step, loss)))
    return model, losses


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    """The same by `r3 prepare tiny` and `r3 sft tiny`: a run folder."""
    folder = tmp_path_factory.mktemp("commands")
    prepare_command.run(PREPARE["tiny"], RunFlags(out=folder / "data"))
    config = SFT["tiny"].model_copy(update={"data": folder / "data", "max_steps": 3})
    with one_thread():
        sft_command.run(config, RunFlags(out=folder / "sft", device="cpu"))
    return folder / "sft"


def test_the_recipe_is_that_of_the_spec():
    config = settings(Recipe(seed=4))
    assert (config.max_steps, config.batch, config.learning_rate) == (300, 64, 1e-3)
    assert (config.seed, config.weight_decay, config.schedule) == (4, 0.0, "constant")
    assert config.model_copy(update={"seed": 0}) == SFT["tiny"]
    model, _ = random_model(0)
    shape = model.config
    assert (shape.num_hidden_layers, shape.hidden_size, shape.num_attention_heads) == (2, 64, 4)
    assert 90_000 < sum(one.numel() for one in model.parameters()) < 130_000


def test_every_value_is_one_token_and_its_own_id():
    ids = TOKENIZER(" ".join(map(str, range(97))))["input_ids"]
    assert ids == [*range(97)]
    assert TOKENIZER.decode(ids[:3]) == "0 1 2"


def test_a_demonstration_as_tokens_and_its_start_states():
    demo = world.training_demos(0)[0]
    (one,), _ = encode_all([demo], TOKENIZER, TINY_PROMPT, TINY_CUT, "world")
    value = int(demo.question)
    assert list(one.prompt) == [*MARKS, value]
    assert list(one.target) == [*world.chain(value), TOKENIZER.eos_token_id]
    states = starts([one], TINY_CUT)
    assert [(state.depth, state.cut) for state in states] == [
        (0, 0),
        (1, 2),
        (2, 4),
        (3, 6),
        (4, 8),
    ]


def test_random_weights_come_from_the_seed_and_name_the_end():
    model, tokenizer = random_model(1)
    again, other = random_model(1)[0], random_model(2)[0]
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
    assert model.config.eos_token_id == tokenizer.eos_token_id == 100
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_tuning_changes_the_weights_and_tells_its_losses(trained):
    model, losses = trained
    assert [step for step, _ in losses] == [1, 2, 3]
    assert losses[0][1] == pytest.approx(4.6, abs=0.3), "ln 101 before anything is learnt"
    assert losses[-1][1] < losses[0][1]
    assert not torch.equal(model.lm_head.weight, random_model(0)[0].lm_head.weight)
    assert not model.training


def test_the_commands_tune_the_same_model(trained, by_command):
    tuned = AutoModelForCausalLM.from_pretrained(by_command / "model").state_dict()
    for name, weights in trained[0].state_dict().items():
        assert torch.equal(weights, tuned[name]), name


def test_tokens_of_tuning_are_those_that_the_trainer_reads(by_command):
    records = [one.data for one in read_records(by_command / "records.jsonl")]
    read = [data["tokens_read"] for data in records if "tokens_read" in data]
    assert read == [tuning_tokens(Recipe.quick(0))]


def test_a_model_is_found_by_everything_that_it_depends_on():
    keys = {spec_of(Recipe(seed=0)).key, spec_of(Recipe(seed=1)).key, spec_of(Recipe.quick(0)).key}
    assert len(keys) == 3
    assert tiny_spec(0).key == spec_of(Recipe(seed=0)).key
    assert mini.tiny_spec is tiny_spec, "the core finds `tiny:r3` there"
