"""Tokenizers, seeded models, the training loop and the cache of miniatures."""

import logging
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from papercore import tiny
from papercore.device import generator
from papercore.errors import ModelError
from papercore.testing import assert_close, tiny_model
from papercore.testing.fixtures import model_cache, one_thread  # noqa: F401
from papercore.tiny import (
    IGNORE,
    Phase,
    TinySpec,
    byte_tokenizer,
    cache_dir,
    cached_model,
    find_model,
    fit,
    logits_at,
    seeded,
    tiny_llama,
    token_loss,
    word_tokenizer,
)

WORDS = [f"w{index}" for index in range(20)]
BYTES = byte_tokenizer()

# --- tokenizers


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_words_come_back_from_their_ids(words):
    tokenizer = word_tokenizer(WORDS)
    text = " ".join(words)
    ids = tokenizer(text)["input_ids"]
    assert ids == [WORDS.index(word) for word in words]
    assert tokenizer.decode(ids) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back_from_its_bytes(text):
    ids = BYTES(text)["input_ids"]
    assert BYTES.decode(ids) == text


def test_byte_ids_are_the_bytes():
    text = "naïve 日本\n\x00"
    assert BYTES(text)["input_ids"] == list(text.encode())
    assert [BYTES.pad_token_id, BYTES.bos_token_id, BYTES.eos_token_id] == [256, 257, 258]


def test_unknown_words_and_special_tokens():
    tokenizer = word_tokenizer(WORDS)
    assert tokenizer("w1 nowhere")["input_ids"] == [1, tokenizer.unk_token_id]
    assert tokenizer("w1 <eos>")["input_ids"] == [1, tokenizer.eos_token_id]
    assert tokenizer.decode([1, tokenizer.eos_token_id], skip_special_tokens=True) == "w1"
    assert [tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id] == [20, 21, 22]
    assert tokenizer.bos_token_id is None


def test_a_word_can_play_a_role():
    tokenizer = word_tokenizer(["end", "go"], special={"unk": "<unk>", "eos": "end"})
    assert (tokenizer.eos_token_id, len(tokenizer)) == (0, 3)


@pytest.mark.parametrize("words", [["two words"], [""], ["a", "a"]])
def test_what_is_no_list_of_words_is_refused(words):
    with pytest.raises(ValueError, match="word"):
        word_tokenizer(words)


@pytest.mark.parametrize("tokenizer", [word_tokenizer(WORDS), BYTES], ids=["words", "bytes"])
def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "w3 w4 <unk> w19"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.padding_side == "left"
    assert loaded.pad_token_id == tokenizer.pad_token_id


# --- seeded models


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = tiny_llama(23, seed=4).state_dict()
    state = torch.get_rng_state()
    second, other = tiny_llama(23, seed=4).state_dict(), tiny_llama(23, seed=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert torch.equal(state, torch.get_rng_state())


def test_tiny_llama_has_the_shape_it_was_given():
    model = tiny_llama(23, hidden=32, layers=3, heads=4, kv_heads=2, mlp=40, tie=True)
    config = model.config
    assert (config.num_hidden_layers, config.num_key_value_heads) == (3, 2)
    assert model.model.layers[0].mlp.up_proj.weight.shape == (40, 32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not model.training
    assert config.eos_token_id is None


# --- loss


def _batch(labels=None, weights=None):
    ids = torch.randint(0, 23, (3, 9), generator=generator(0, "ids"))
    chosen = {"labels": labels, "weights": weights}
    return {"input_ids": ids, **{name: one for name, one in chosen.items() if one is not None}}


def _gpt2(vocab_size):
    config = GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=1, n_head=2, n_positions=16)
    return seeded(GPT2LMHeadModel, config, 0)


@pytest.mark.parametrize("make", [tiny_llama, _gpt2], ids=["llama", "gpt2"])
def test_loss_equals_the_loss_of_transformers(make):
    model, batch = make(23), _batch()
    labels = batch["input_ids"].clone()
    labels[0, :5] = IGNORE
    labels[1] = IGNORE
    expected = model(input_ids=batch["input_ids"], labels=labels).loss
    assert_close(token_loss(model, {**batch, "labels": labels}), expected, atol=1e-6)


def test_weighted_loss_equals_a_loop_over_tokens():
    model = tiny_llama(23)
    weights = torch.rand(3, 9, generator=generator(0, "weights")).round(decimals=1)
    weights[2] = 0
    batch = _batch(weights=weights)
    log_probs = model(input_ids=batch["input_ids"]).logits.log_softmax(-1)
    total, norm = torch.zeros(()), torch.zeros(())
    for row in range(3):
        for place in range(1, 9):
            token, weight = batch["input_ids"][row, place], weights[row, place]
            total = total - weight * log_probs[row, place - 1, token]
            norm = norm + weight
    assert_close(token_loss(model, batch), total / norm, atol=1e-6)


def test_logits_exist_only_where_asked_and_the_hook_is_gone_after():
    model, ids = tiny_llama(23), _batch()["input_ids"]
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, 2] = mask[2, 7] = True
    full = model(input_ids=ids).logits
    with logits_at(model, mask):
        few = model(input_ids=ids).logits
    assert few.shape == (1, 2, 23)
    assert_close(few[0], full[mask], atol=1e-6)
    assert torch.equal(model(input_ids=ids).logits, full)


def test_a_batch_without_loss_is_refused():
    model = tiny_llama(23)
    with pytest.raises(ModelError, match="needs labels or weights"):
        token_loss(model, _batch())
    with pytest.raises(ModelError, match="no token"):
        token_loss(model, _batch(labels=torch.full((3, 9), IGNORE)))


# --- training


def _copy_task(phase, step):
    half = torch.randint(0, 20, (16, 6), generator=generator(phase, f"batch {step}"))
    ids = torch.cat([half, half], dim=1)
    labels = ids.clone()
    labels[:, :7] = IGNORE
    return {"input_ids": ids, "labels": labels}


def test_training_learns_and_repeats_bit_for_bit():
    schedule = [Phase(60, lr=3e-3, warmup=10), Phase(60, lr=3e-3, warmup=5, decay="cosine")]
    results, weights = [], []
    for _ in range(2):
        model = tiny_llama(23, initializer_range=0.1)
        results.append(fit(model, _copy_task, schedule=schedule))
        weights.append(model.lm_head.weight.detach().clone())
    assert torch.equal(*weights)
    assert results[0].losses == results[1].losses
    assert results[0].losses[-1] < 0.8 * results[0].losses[0]
    assert (results[0].steps, results[0].tokens) == (120, 120 * 16 * 12)
    assert results[0].cpu_s > 0
    assert not results[0].stopped


def test_a_step_equals_adamw_by_hand():
    phase = Phase(2, lr=1e-2, warmup=2, weight_decay=0.1, clip=0.5)
    model, twin = tiny_llama(23), tiny_llama(23)
    fit(model, _copy_task, schedule=[phase])
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1.0, betas=phase.betas, weight_decay=0.1)
    for step, rate in enumerate([5e-3, 1e-2]):
        batch = _copy_task(0, step)
        logits = twin(input_ids=batch["input_ids"]).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float((one.grad**2).sum()) for one in twin.parameters()))
        for one in twin.parameters():
            one.grad *= min(1.0, 0.5 / (norm + 1e-6))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    for ours, reference in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(ours, reference, atol=1e-5)


def test_rates_warm_up_and_follow_their_decay():
    constant = Phase(10, lr=1.0, warmup=4)
    assert [constant.lr_at(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = Phase(11, lr=2.0, warmup=1, decay="cosine", final_fraction=0.1)
    assert cosine.lr_at(1) == 2.0
    assert cosine.lr_at(6) == pytest.approx(2.0 * 0.55)
    assert cosine.lr_at(11) == pytest.approx(0.2)


def test_each_phase_has_its_own_batches_and_optimizer():
    seen = []

    def batches(phase, step):
        seen.append((phase, step))
        return _copy_task(phase, step)

    fit(tiny_llama(23), batches, schedule=[Phase(2), Phase(3)])
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_until_ends_training_and_sees_a_model_in_evaluation_mode():
    modes, steps = [], []

    def until(step, model):
        modes.append(model.training)
        return step == 3

    model = tiny_llama(23)
    result = fit(
        model,
        _copy_task,
        schedule=[Phase(2), Phase(8)],
        until=until,
        on_step=lambda step, loss: steps.append(step),
    )
    assert (result.steps, result.stopped, steps) == (3, True, [1, 2, 3])
    assert modes == [False] * 3
    assert not model.training


def test_frozen_weights_stay():
    model = tiny_llama(23)
    model.model.embed_tokens.requires_grad_(requires_grad=False)
    before = model.model.embed_tokens.weight.clone()
    fit(model, _copy_task, schedule=[Phase(2, weight_decay=0.1)])
    assert torch.equal(before, model.model.embed_tokens.weight)


def test_a_loss_of_ones_own_trains_any_module():
    module = torch.nn.Linear(3, 1)
    data = {"x": torch.ones(4, 3), "y": torch.zeros(4, 1)}

    def loss(model, batch):
        return ((model(batch["x"]) - batch["y"]) ** 2).mean()

    result = fit(module, lambda phase, step: data, schedule=[Phase(50, lr=0.05)], loss=loss)
    assert result.losses[-1] < 0.1 * result.losses[0]
    assert result.tokens == 50 * 4


def test_a_loss_that_is_not_finite_names_the_step():
    def loss(model, batch):
        return model.weight.sum() * (math.nan if batch["x"] else 1.0)

    def batches(phase, step):
        return {"x": torch.tensor([float(step == 3)])}

    with pytest.raises(ModelError, match=r"loss is nan at step 4"):
        fit(torch.nn.Linear(1, 1), batches, schedule=[Phase(9)], loss=loss)


def test_a_gradient_that_is_not_finite_names_the_step():
    def loss(model, batch):
        return (model.weight.sum() * 0).sqrt()

    batches = {"x": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"gradient norm is nan at step 1"):
        fit(torch.nn.Linear(1, 1), lambda p, s: batches, schedule=[Phase(9)], loss=loss)


# --- cache


class _Config(BaseModel):
    seed: int = 0


def _spec(seed=0, builds=None):
    def build():
        if builds is not None:
            builds.append(seed)
        torch.rand(3)
        return tiny_llama(23, seed=seed), word_tokenizer(WORDS)

    return TinySpec("papercore", _Config(seed=seed), build)


def test_a_model_is_built_once_and_is_the_same_from_the_cache(model_cache):  # noqa: F811
    builds = []
    ids = torch.arange(8)[None]
    cold, _, cold_cached = cached_model(_spec(builds=builds))
    warm, tokenizer, warm_cached = cached_model(_spec(builds=builds))
    assert (cold_cached, warm_cached, builds) == (False, True, [0])
    assert torch.equal(cold(ids).logits, warm(ids).logits)
    assert tokenizer("w1 w2")["input_ids"] == [1, 2]
    assert not cold.training
    assert not warm.training
    names = {path.name for path in _spec().directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_building_leaves_the_random_state_alone(model_cache):  # noqa: F811
    state = torch.get_rng_state()
    cached_model(_spec())
    assert torch.equal(state, torch.get_rng_state())


def test_refresh_builds_again_and_no_store_leaves_no_trace(model_cache):  # noqa: F811
    builds = []
    assert not cached_model(_spec(builds=builds), store=False)[2]
    assert not model_cache.exists()
    cached_model(_spec(builds=builds))
    assert not cached_model(_spec(builds=builds), refresh=True)[2]
    assert builds == [0, 0, 0]


def test_another_config_or_source_is_another_key(model_cache, monkeypatch):  # noqa: F811
    key = _spec(0).key
    assert key != _spec(1).key
    assert key == TinySpec("papercore", {"seed": 0}, _spec().build).key
    monkeypatch.setattr("papercore.tiny.cache.source_hash", lambda package: "changed")
    assert key != _spec(0).key


def test_a_build_that_fails_leaves_nothing(model_cache):  # noqa: F811
    def build():
        raise ModelError("diverged")

    with pytest.raises(ModelError, match="diverged"):
        cached_model(TinySpec("papercore", {}, build))
    assert [
        path for path in model_cache.rglob("*") if path.suffix != ".lock" and path.is_file()
    ] == []
    assert find_model(TinySpec("papercore", {}, build)) is None


def test_a_damaged_entry_is_reported_and_built_again(model_cache, caplog):  # noqa: F811
    cached_model(_spec())
    (_spec().directory / "model.safetensors").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        _, _, from_cache = cached_model(_spec())
    assert not from_cache
    assert "cannot be read" in caplog.text
    assert find_model(_spec()) is not None


_BUILD = """
import sys, time
from papercore.tiny import TinySpec, cached_model, tiny_llama, word_tokenizer

def build():
    with open(sys.argv[1], "a") as log:
        log.write("built\\n")
    time.sleep(2)
    return tiny_llama(23), word_tokenizer(["a"])

print("ready", flush=True)
sys.stdin.readline()
cached_model(TinySpec("papercore", {}, build))
"""


@pytest.mark.slow
def test_two_processes_build_once(model_cache, tmp_path):  # noqa: F811
    argv = [sys.executable, "-c", _BUILD, str(tmp_path / "builds")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(argv, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=120)
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERCORE_CACHE", str(tmp_path / "a"))
    assert cache_dir() == tmp_path / "a"
    monkeypatch.delenv("PAPERCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_dir() == tmp_path / "b" / "papercore"


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 3))
def test_tiny_kinds_are_seeded(seed):
    first, second = tiny_model(seed=seed), tiny_model(seed=seed)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_one_thread_puts_the_number_of_threads_back():
    torch.set_num_threads(2)
    with tiny.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
