import numpy as np
import pytest
import torch

from papercore.tiny import IGNORE, cached_model
from self_cd import world
from self_cd.mini_model import (
    Recipe,
    _Batches,
    make_tokenizer,
    spec_of,
    tiny_spec,
    train,
    training_samples,
    training_tokens,
)
from self_cd.presets import TINY_CONTRAST
from self_cd.prompts import Prompter

TOKENIZER = make_tokenizer()


def batch(step, **settings):
    return _Batches(Recipe(**settings), TOKENIZER)(0, step)


def test_the_recipe_is_that_of_the_spec():
    recipe = Recipe()
    assert (recipe.steps, recipe.batch, recipe.lr, recipe.weight_decay) == (500, 128, 2e-3, 0.05)
    (phase,) = recipe.schedule
    assert phase.lr_at(49) == pytest.approx(2e-3)
    assert phase.lr_at(24) == pytest.approx(1e-3)
    assert phase.lr_at(500) == pytest.approx(2e-4)
    assert (phase.clip, phase.weight_decay) == (1.0, 0.05)
    config = train(Recipe.quick(0))[0].config
    shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    assert shape == (2, 64, 2)
    assert config.intermediate_size == 128


def test_a_batch_depends_on_seed_variant_and_step_alone():
    first = batch(5)
    batch(3)
    for name, tensor in batch(5).items():
        assert torch.equal(tensor, first[name])
    for other in (batch(6), batch(5, seed=1), batch(5, stress=True)):
        assert not torch.equal(other["input_ids"], first["input_ids"])


def test_a_row_is_prompt_and_answer_and_the_answer_alone_bears_loss():
    recipe = Recipe.quick(2)
    samples = list(training_samples(recipe))
    assert len(samples) == recipe.steps * recipe.batch
    found = _Batches(recipe, TOKENIZER)(0, 1)
    for row, sample in enumerate(samples[recipe.batch : 2 * recipe.batch]):
        length = int(found["attention_mask"][row].sum())
        ids, labels = found["input_ids"][row], found["labels"][row]
        prompt, answer = training_tokens(sample)
        assert TOKENIZER.convert_ids_to_tokens(ids[:length].tolist()) == [*prompt, *answer]
        learnt = labels != IGNORE
        assert TOKENIZER.convert_ids_to_tokens(labels[learnt].tolist()) == answer
        assert learnt.nonzero().flatten().tolist() == [*range(len(prompt), length)]
        assert answer == [*sample.answer.split(), "<eos>"]
        assert (ids[length:] == TOKENIZER.pad_token_id).all()


def test_training_prompts_are_those_that_the_prompter_writes():
    prompter = Prompter(TOKENIZER, TINY_CONTRAST.prompts)
    assert not prompter.notes
    seen = set()
    for sample in training_samples(Recipe(steps=2, batch=60)):
        pair = prompter.contexts(sample.question.text)
        ids = pair.emphasis if sample.safe else pair.plain
        assert TOKENIZER.convert_ids_to_tokens(list(ids)) == training_tokens(sample)[0]
        seen.add((sample.safe, sample.question.side))
    assert len(seen) == 6
    safe = TOKENIZER.convert_ids_to_tokens(list(prompter.contexts("how to kill rope ?").emphasis))
    words = ["SAFE"] * 4 + ["how", "to", "kill", "rope", "?"]
    assert safe == ["<bos>", "[INST]", *words, "[/INST]"]


def test_text_makes_no_marks():
    prompter = Prompter(TOKENIZER, TINY_CONTRAST.prompts)
    told = " ".join(world.SPECIALS.values())
    pair = prompter.contexts(f"how to kill {told} rope ?")
    special = set(TOKENIZER.convert_tokens_to_ids([*world.SPECIALS.values()]))
    assert len(special) == 5
    for ids in (pair.emphasis, pair.plain):
        assert [place for place, one in enumerate(ids) if one in special] == [0, 1, len(ids) - 1]
        assert ids.count(TOKENIZER.unk_token_id) == len(world.SPECIALS)


def test_words_keep_their_ids_and_come_back():
    text = "sure to kill process do step"
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text
    assert TOKENIZER.convert_tokens_to_ids(list(world.WORDS)) == [*range(len(world.WORDS))]
    assert len(TOKENIZER) == len(world.WORDS) + 6


def test_earlier_turns_are_closed():
    rendered = TOKENIZER.apply_chat_template(
        [
            {"role": "system", "content": "SAFE"},
            {"role": "user", "content": "how to paint wood ?"},
            {"role": "assistant", "content": "sure"},
            {"role": "user", "content": "what is wood ?"},
        ],
        tokenize=False,
    )
    first, second = "<bos> [INST] SAFE how to paint wood ? [/INST]", "<bos> [INST]  what is wood ?"
    assert rendered == f"{first} sure <eos>{second} [/INST]"


def test_training_repeats_bit_for_bit_whatever_was_drawn_before():
    first, _ = train(Recipe.quick(0))
    torch.rand(7)
    np.random.default_rng(3).random(7)
    again, other = (train(Recipe.quick(seed))[0] for seed in (0, 1))
    stressed, _ = train(Recipe.quick(0, stress=True))
    weights = [model.lm_head.weight for model in (first, again, other, stressed)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert not first.training


def test_a_saved_model_knows_where_answers_end():
    model, tokenizer, from_cache = cached_model(spec_of(Recipe.quick(0)), store=False)
    assert not from_cache
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.eos_token_id == TOKENIZER.eos_token_id
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert tokenizer.chat_template == TOKENIZER.chat_template
    ours, theirs = (
        Prompter(one, TINY_CONTRAST.prompts).contexts("how to kill <eos> ?")
        for one in (TOKENIZER, tokenizer)
    )
    assert ours == theirs


def test_a_short_training_learns_the_form_of_answers():
    losses = []
    train(Recipe(steps=120, batch=32), on_step=lambda step, loss: losses.append(loss))
    assert losses[0] > 4.5, "a guess costs log 112 = 4.7"
    assert np.mean(losses[-10:]) < 1.0
    assert len(losses) == 120


def test_recipes_have_caches_of_their_own():
    keys = [spec_of(r).key for r in (Recipe(), Recipe(seed=1), Recipe(stress=True))]
    assert len({*keys, spec_of(Recipe.quick(0)).key}) == 4
    assert tiny_spec(0).key == keys[0]
    assert tiny_spec(1).key == keys[1]
