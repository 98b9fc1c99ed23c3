"""Tuning: rows are exactly our ids, only targets bear loss, and the model is left whole."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_file

from papercore.errors import ConfigError, DataError, ModelError
from papercore.generate.defaults import eos_ids
from papercore.models import load_model
from papercore.testing import assert_close, tiny_model
from papercore.tiny import byte_tokenizer
from r3.config import LoraConfig, PromptConfig, SFTConfig
from r3.demos import Demo, Encoded
from r3.prompting import prompt_ids, target_ids
from r3.sft import IGNORE, _dataset, encode_whole, finetune, fitting
from r3.sft_base import load_base

# peft 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT = PromptConfig()
DEMOS = [Demo(f"d{i}", f"What is {i}?", "It is " + "so " * i + f"{i}.", str(i)) for i in range(6)]


@pytest.fixture
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def encoded(tokenizer):
    return encode_whole(DEMOS, tokenizer, PROMPT)


def settings(**changes):
    usual = {
        "batch": 6,
        "micro_batch": 6,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "schedule": "constant",
    }
    return SFTConfig(**(usual | changes))


def learner(**changes):
    return tiny_model("llama", initializer_range=0.05, **changes)


def loss_by_hand(model, rows):
    """Mean negative log-probability of the targets' tokens, each row alone."""
    total, count = 0.0, 0
    for one in rows:
        ids = torch.tensor([one.prompt + one.target])
        with torch.no_grad():
            logps = model(ids).logits.log_softmax(-1)
        for at in range(len(one.prompt), ids.shape[1]):
            total -= float(logps[0, at - 1, ids[0, at]])
            count += 1
    return total / count


def test_rows_are_prompt_and_target_and_only_the_target_bears_loss(tokenizer, encoded):
    row = _dataset(encoded)[2]
    prompt = list(prompt_ids(tokenizer, DEMOS[2].question, PROMPT))
    target = list(target_ids(tokenizer, DEMOS[2].target).ids)
    assert row["input_ids"] == prompt + target
    assert row["labels"] == [IGNORE] * len(prompt) + target
    assert target[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
def test_the_loss_is_that_of_every_target_token_alone(tokenizer, encoded, pad):
    """Rows differ in length: neither padding nor a pad token that is EOS may change the loss."""
    tokenizer.pad_token = {"own": "<|pad|>", "eos": "<|eos|>", "none": None}[pad]
    model = learner()
    before = copy.deepcopy(model)
    tuned = finetune(model, tokenizer, encoded, settings(), None, None)
    assert tuned.losses[0][1] == pytest.approx(loss_by_hand(before, encoded), abs=1e-4)
    assert tuned.tokens == sum(len(one.prompt) + len(one.target) for one in encoded)
    assert tokenizer.pad_token == {"own": "<|pad|>", "eos": "<|eos|>", "none": None}[pad]


def test_one_step_is_adam_by_hand(tokenizer, encoded):
    model, twin = learner(), learner()
    finetune(model, tokenizer, encoded, settings(), None, None)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, weight_decay=0.0)
    total = sum(len(one.target) for one in encoded)
    loss = 0.0
    for one in encoded:
        ids = torch.tensor([one.prompt + one.target])
        logps = twin(ids).logits[0, :-1].log_softmax(-1)
        picked = logps.gather(1, ids[0, 1:, None])[len(one.prompt) - 1 :]
        loss = loss - picked.sum() / total
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    optimizer.step()
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert_close(ours, theirs, atol=2e-5, what=name)


def test_accumulated_batches_learn_as_one_big_batch(tokenizer, encoded):
    found = []
    for micro in (1, 2, 6):
        model = learner()
        config = settings(micro_batch=micro, max_steps=3)
        tuned = finetune(model, tokenizer, encoded, config, None, None)
        found.append([loss for _, loss in tuned.losses])
    assert found[0] == pytest.approx(found[2], abs=1e-4)
    assert found[1] == pytest.approx(found[2], abs=1e-4)


def test_the_model_is_left_whole_for_a_copy_to_be_made(tokenizer, encoded):
    """A copy that kept the trainer's `forward` would go on with the weights of the original."""
    model = learner()
    finetune(model, tokenizer, encoded, settings(), None, None)
    assert "forward" not in vars(model)
    assert not model.training
    twin = copy.deepcopy(model)
    ids = torch.tensor([[1, 2, 3]])
    expected = model(ids).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(ids).logits, expected)


def test_the_model_learns_to_end(tokenizer, encoded):
    model = learner()
    assert tokenizer.eos_token_id not in eos_ids(model, byte_tokenizer(special={"pad": "<p>"}))
    finetune(model, tokenizer, encoded, settings(), None, None)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_other_ends_of_a_chat_model_stay(tokenizer, encoded):
    model = learner()
    model.generation_config.eos_token_id = [7, 8]
    finetune(model, tokenizer, encoded, settings(), None, None)
    assert sorted(model.generation_config.eos_token_id) == [7, 8, tokenizer.eos_token_id]


def test_what_is_too_long_is_left_out_and_counted(encoded):
    lengths = sorted(len(one.prompt) + len(one.target) for one in encoded)
    kept, too_long = fitting(encoded, lengths[3])
    assert (len(kept), too_long) == (4, 2)
    assert fitting(encoded, lengths[-1]) == (list(encoded), 0)


def test_adapters_are_merged_into_the_model_and_saved_both_ways(tokenizer, encoded, tmp_path):
    base = tmp_path / "base"
    learner().save_pretrained(base)
    tokenizer.save_pretrained(base)
    model, _ = load_model(str(base))
    config = settings(tune="lora", max_steps=3, learning_rate=2e-2, model=str(base))
    tuned = finetune(model, tokenizer, encoded, config, tmp_path / "out", None)
    assert tuned.trainable == 2 * 4 * 16 * (32 + 32)  # layers, projections, rank, two sides
    assert all("lora" not in name for name, _ in model.named_parameters())
    merged, _ = load_model(str(tmp_path / "out" / "model"))
    adapted, _ = load_model(str(base), adapter=str(tmp_path / "out" / "adapter"))
    plain, _ = load_model(str(base))
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    logits = [one(ids).logits for one in (model, merged, adapted, plain)]
    assert_close(logits[0], logits[1])
    assert_close(logits[1], logits[2])
    assert (logits[2] - logits[3]).abs().max() > 0.05


def test_where_processes_share_the_weights_out_the_merged_model_is_read_anew(
    tokenizer, encoded, tmp_path, monkeypatch
):
    base = tmp_path / "base"
    learner().save_pretrained(base)
    tokenizer.save_pretrained(base)
    config = settings(tune="lora", max_steps=2, learning_rate=2e-2, model=str(base))
    for name in ("usual", "shared"):
        if name == "shared":
            monkeypatch.setattr("r3.sft._merge", lambda trainer, config: None)
        model, _ = load_model(str(base))
        finetune(model, tokenizer, encoded, config, tmp_path / name, None)
    usual, shared = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("usual", "shared")
    )
    assert usual.keys() == shared.keys()
    for name, value in usual.items():
        assert_close(value, shared[name], atol=1e-6, what=name)


def test_without_merging_only_the_adapter_is_saved(tokenizer, encoded, tmp_path):
    config = settings(tune="lora", merged=False, lora=LoraConfig(r=2))
    finetune(learner(), tokenizer, encoded, config, tmp_path, None)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "checkpoints"}


def test_nothing_is_saved_as_a_pickle_beside_the_weights(tokenizer, encoded, tmp_path):
    finetune(learner(), tokenizer, encoded, settings(), tmp_path, None)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    model, own = load_model(str(tmp_path / "model"))
    assert own.pad_token == tokenizer.pad_token
    assert model.generation_config.use_cache is not False
    assert model.config.use_cache is not False


def test_gradient_checkpointing_changes_no_weights_and_no_cache(tokenizer, encoded, tmp_path):
    for name, wanted in (("plain", False), ("recomputed", True)):
        config = settings(max_steps=2, gradient_checkpointing=wanted)
        finetune(learner(), tokenizer, encoded, config, tmp_path / name, None)
    plain, recomputed = (
        load_file(tmp_path / name / "model" / "model.safetensors")
        for name in ("plain", "recomputed")
    )
    for name, value in plain.items():
        assert_close(value, recomputed[name], atol=1e-6, what=name)
    model, _ = load_model(str(tmp_path / "recomputed" / "model"))
    assert model.config.use_cache is not False


def test_nothing_is_written_without_a_folder(tokenizer, encoded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finetune(learner(), tokenizer, encoded, settings(max_steps=2), None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_stops_at_once(tokenizer, encoded):
    model = learner()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(ModelError, match="loss is nan at step 1: lower --learning-rate"):
        finetune(model, tokenizer, encoded, settings(max_steps=5), None, None)
    assert "forward" not in vars(model)


def test_the_dev_loss_is_measured_at_each_end(tokenizer, encoded):
    model = learner()
    dev = encoded[4:5]
    config = settings(batch=2, micro_batch=2, max_steps=None, epochs=1.5)
    tuned = finetune(model, tokenizer, encoded[:4], config, None, None, dev=dev)
    assert tuned.steps == 3
    assert [step for step, _ in tuned.dev_losses] == [2, 3]
    assert tuned.dev_losses[-1][1] == pytest.approx(loss_by_hand(model, dev), abs=1e-4)


def test_logged_losses_are_means_over_their_steps(tokenizer, encoded):
    config = settings(max_steps=5)
    each = finetune(learner(), tokenizer, encoded, config, None, None).losses
    pairs = finetune(learner(), tokenizer, encoded, config, None, None, log_steps=2).losses
    assert [step for step, _ in pairs] == [2, 4, 5]
    assert pairs[0][1] == pytest.approx((each[0][1] + each[1][1]) / 2, abs=1e-5)
    assert pairs[2][1] == pytest.approx(each[4][1], abs=1e-5)


def test_settings_that_do_not_fit_are_refused(tokenizer, encoded, monkeypatch):
    with pytest.raises(ConfigError, match="batch=5 is no multiple of micro_batch=2 times 1"):
        finetune(learner(), tokenizer, encoded, settings(batch=5, micro_batch=2), None, None)
    config = settings(tune="lora", lora=LoraConfig(targets=("qkv", "o_proj")))
    with pytest.raises(ModelError, match=r"has no layers qkv: set --lora\.targets"):
        finetune(learner(), tokenizer, encoded, config, None, None)
    with pytest.raises(DataError, match="no demonstrations to tune on"):
        finetune(learner(), tokenizer, [], settings(), None, None)
    with pytest.raises(ConfigError, match="dtype=float16 cannot be trained"):
        load_base(settings(dtype="float16"), "cpu")


def test_demonstrations_are_encoded_without_cuts(tokenizer):
    one = encode_whole(DEMOS[:1], tokenizer, PROMPT)[0]
    assert one == Encoded(
        demo=DEMOS[0],
        prompt=prompt_ids(tokenizer, DEMOS[0].question, PROMPT),
        target=target_ids(tokenizer, DEMOS[0].target).ids,
        cuts=(0,),
    )


def test_the_random_model_is_made_by_seed():
    one, tokenizer = load_base(settings(model="random"), "cpu")
    two, _ = load_base(settings(model="random"), "cpu")
    other, _ = load_base(settings(model="random", seed=1), "cpu")
    half, _ = load_base(settings(model="random", dtype="bfloat16"), "cpu")
    assert torch.equal(one.lm_head.weight, two.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert (one.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert tokenizer.eos_token_id is not None
